//! The relay as a process: what it does to datagrams, to byte streams and to nodes, and what it says.

mod processes;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use processes::{PATIENCE, Process, Topic, World, fresh_address, sinew_sim, until};
use sinew_sim::ledger::check::Options;
use sinew_sim::ledger::report::Violation;
use sinew_sim::relay::RelayReport;

/// Two sockets that have a relay between them.
struct Between {
    files: tempfile::TempDir,
    left: UdpSocket,
    right: UdpSocket,
    relay: Process,
}

impl Between {
    fn new(scenario: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let [left_at, right_at, to_right, to_left] = [(); 4].map(|()| fresh_address());
        let text = format!(
            "{scenario}\n[[node]]\nname = \"left\"\naddress = \"{left_at}\"\n\
             [[node]]\nname = \"right\"\naddress = \"{right_at}\"\n\
             [[path]]\nfrom = \"left\"\nto = \"right\"\nlisten = \"{to_right}\"\n\
             [[path]]\nfrom = \"right\"\nto = \"left\"\nlisten = \"{to_left}\"\n"
        );
        let path = files.path().join("scenario.toml");
        std::fs::write(&path, text).unwrap();
        // Connected, so that what comes from anywhere else is not seen.
        let socket = |at, peer| {
            let socket = UdpSocket::bind(at).unwrap();
            socket.connect(peer).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            socket
        };
        let (left, right) = (socket(left_at, to_right), socket(right_at, to_left));
        let mut command = sinew_sim();
        command.arg("relay").arg(path).arg("--stdin");
        command.arg("--json").arg(files.path().join("relay.json"));
        let mut relay = Process::spawn("relay", &mut command);
        relay.line_with("running");
        Self { files, left, right, relay }
    }

    /// Everything that comes until it is quiet for a while.
    fn drain(socket: &UdpSocket) -> Vec<Vec<u8>> {
        let mut bytes = [0; 2_048];
        let mut came = Vec::new();
        while let Ok(len) = socket.recv(&mut bytes) {
            came.push(bytes[..len].to_vec());
        }
        came
    }

    /// Datagrams from left to right for which the kernel had no room, because this machine did not run the
    /// relay or the test for a while (proc_net_udp(5): the last column).
    fn dropped_by_the_kernel(&self) -> u64 {
        let sockets = [self.left.peer_addr().unwrap(), self.right.local_addr().unwrap()];
        let table = std::fs::read_to_string("/proc/net/udp").unwrap();
        let drops = |at: SocketAddr| {
            let SocketAddr::V4(at) = at else { panic!("{at} is not of IPv4") };
            let local = format!("{:08X}:{:04X}", at.ip().to_bits().to_be(), at.port());
            let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&local));
            let drops = line.expect(&local).split_whitespace().next_back().unwrap();
            drops.parse::<u64>().unwrap()
        };
        sockets.map(drops).iter().sum()
    }

    fn end(self) -> RelayReport {
        self.relay.end_well();
        let json = std::fs::read(self.files.path().join("relay.json")).unwrap();
        serde_json::from_slice(&json).unwrap()
    }
}

#[test]
fn datagrams_pass_both_ways_and_come_from_where_each_side_believes_the_other_to_be() {
    let between = Between::new("");
    for n in 0..100_u32 {
        between.left.send(&n.to_le_bytes()).unwrap();
        between.right.send(&(n + 1_000).to_le_bytes()).unwrap();
    }
    let numbers = |from: u32| (from..from + 100).map(|n| n.to_le_bytes().to_vec());
    assert!(Between::drain(&between.right).into_iter().eq(numbers(0)));
    assert!(Between::drain(&between.left).into_iter().eq(numbers(1_000)));
    let report = between.end();
    let link = report.link("left", "right").unwrap();
    assert_eq!((link.datagrams.offered, link.datagrams.delivered), (100, 100));
    assert_eq!((link.port.strangers, link.port.not_sent), (0, 0));
}

#[test]
fn what_arrives_is_what_the_report_says() {
    // Where the machine stands still for so long that the kernel drops some, nothing can be said.
    assert!((0..5).any(|_| arrives_as_reported()), "the kernel dropped datagrams each time");
}

/// Whether it could be seen.
fn arrives_as_reported() -> bool {
    let between = Between::new(
        "seed = 5\n[shape.bad]\nloss_percent = 20\nduplicate_percent = 10\ncorrupt_percent = 5\n\
         reorder_percent = 20\nreorder_ms = 20\ndelay = { fixed_ms = 2 }\n\
         [[link]]\nfrom = \"left\"\nto = \"right\"\nshape = \"bad\"\n",
    );
    let right = between.right.try_clone().unwrap();
    // Taken as it comes, and paced, so that no socket's buffer overflows and all loss is the relay's.
    let taker = std::thread::spawn(move || Between::drain(&right));
    for n in 0..2_000_u32 {
        between.left.send(&[n.to_le_bytes(); 16].concat()).unwrap();
        if n % 50 == 49 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let came = taker.join().unwrap();
    if between.dropped_by_the_kernel() > 0 {
        return false;
    }
    let report = between.end();
    let counts = report.link("left", "right").unwrap().datagrams;
    assert_eq!(counts.offered, 2_000);
    assert_eq!(came.len() as u64, counts.delivered);
    assert_eq!(counts.delivered, 2_000 - counts.lost + counts.duplicated);
    let damaged = came.iter().filter(|bytes| bytes.chunks(4).any(|word| word != &bytes[..4]));
    assert_eq!(damaged.count() as u64, counts.corrupted);
    let whole = came.iter().map(|bytes| u32::from_le_bytes(bytes[..4].try_into().unwrap()));
    assert!(!whole.is_sorted(), "held back and overtaken: {counts:?}");
    assert!(counts.lost > 300 && counts.duplicated > 100 && counts.corrupted > 50, "{counts:?}");
    true
}

#[test]
fn one_seed_loses_the_same_datagrams_every_time() {
    let arrived = |seed: u32| {
        let between = Between::new(&format!(
            "seed = {seed}\n[shape.bad]\nloss_percent = 50\n\
             [[link]]\nfrom = \"*\"\nto = \"*\"\nshape = \"bad\"\n"
        ));
        for n in 0..200_u32 {
            between.left.send(&n.to_le_bytes()).unwrap();
        }
        Between::drain(&between.right)
    };
    let first = arrived(1);
    assert_eq!(first, arrived(1));
    assert_ne!(first, arrived(2));
}

#[test]
fn a_partition_is_directed_and_ends() {
    let between = Between::new(
        "[[fault]]\nkind = \"partition\"\nat_ms = 0\nfor_ms = 600\nfrom = \"left\"\nto = \"right\"\n",
    );
    between.left.send(b"within").unwrap();
    between.right.send(b"back").unwrap();
    assert_eq!(Between::drain(&between.left), [b"back"], "the other direction goes on");
    until("the partition is over", || {
        between.left.send(b"after").unwrap();
        let mut bytes = [0; 16];
        between.right.recv(&mut bytes).ok().map(|len| assert_eq!(&bytes[..len], b"after"))
    });
    let report = between.end();
    assert!(report.link("left", "right").unwrap().datagrams.partitioned > 0);
    assert_eq!(report.faults.partitions, 1);
}

#[test]
fn nobody_but_the_node_is_listened_to() {
    let between = Between::new("");
    let stranger = UdpSocket::bind(fresh_address()).unwrap();
    stranger.send_to(b"x", between.left.peer_addr().unwrap()).unwrap();
    between.left.send(b"y").unwrap();
    assert_eq!(Between::drain(&between.right), [b"y"]);
    assert_eq!(between.end().link("left", "right").unwrap().port.strangers, 1);
}

/// A server behind a relay.
struct Served {
    files: tempfile::TempDir,
    listener: TcpListener,
    front: std::net::SocketAddr,
    relay: Process,
}

impl Served {
    fn new(scenario: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (back, front) = (fresh_address(), fresh_address());
        let listener = TcpListener::bind(back).unwrap();
        let text = format!(
            "{scenario}\n[[node]]\nname = \"client\"\n[[node]]\nname = \"server\"\n\
             address = \"{back}\"\n[[path]]\nfrom = \"client\"\nto = \"server\"\n\
             listen = \"{front}\"\ntransport = \"tcp\"\n"
        );
        let path = files.path().join("scenario.toml");
        std::fs::write(&path, text).unwrap();
        let mut command = sinew_sim();
        command.arg("relay").arg(path).arg("--stdin");
        command.arg("--json").arg(files.path().join("relay.json"));
        let mut relay = Process::spawn("relay", &mut command);
        relay.line_with("running");
        Self { files, listener, front, relay }
    }

    fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.front).unwrap();
        let server = self.listener.accept().unwrap().0;
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        (client, server)
    }

    fn end(self) -> RelayReport {
        self.relay.end_well();
        let json = std::fs::read(self.files.path().join("relay.json")).unwrap();
        serde_json::from_slice(&json).unwrap()
    }
}

const SLOW: &str = "[shape.slow]\nloss_percent = 50\ncorrupt_percent = 50\n\
    delay = { uniform_ms = [1, 10] }\nrate = { bytes_per_s = 4_000_000, queue_bytes = 30_000 }\n\
    [[link]]\nfrom = \"*\"\nto = \"*\"\nshape = \"slow\"\n";

#[test]
fn a_byte_stream_arrives_whole_and_in_order_both_ways_however_slow() {
    let served = Served::new(SLOW);
    let (mut client, mut server) = served.connect();
    let bytes: Vec<u8> =
        (0..400_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || {
        client.write_all(&sent).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        answer
    });
    let mut came = Vec::new();
    server.read_to_end(&mut came).unwrap();
    assert!(came == bytes, "{} of {} bytes", came.len(), bytes.len());
    server.write_all(&came[..100_000]).unwrap();
    drop(server);
    assert!(sender.join().unwrap() == bytes[..100_000]);
    let report = served.end();
    let counts = report.link("client", "server").unwrap().connections;
    assert_eq!((counts.opened, counts.failed), (1, 0));
    assert_eq!((counts.bytes_out, counts.bytes_back), (400_000, 100_000));
    // 400,000 bytes at 4 MB/s.
    assert!(report.seconds >= 0.1, "{}", report.seconds);
}

#[test]
fn a_partition_stalls_a_byte_stream_and_loses_nothing_of_it() {
    let served = Served::new(
        "[[fault]]\nkind = \"partition\"\nat_ms = 0\nfor_ms = 500\nfrom = \"client\"\nto = \"server\"\n",
    );
    let (mut client, mut server) = served.connect();
    client.write_all(b"held").unwrap();
    server.write_all(b"back").unwrap();
    let mut bytes = [0; 4];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"back", "the other direction goes on");
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"held");
    let report = served.end();
    assert!(report.seconds >= 0.5, "it came before the partition was over: {}", report.seconds);
}

#[test]
fn a_reset_cuts_the_connections_that_are_open_and_new_ones_are_taken() {
    let served =
        Served::new("[[fault]]\nkind = \"reset\"\nat_ms = 300\nfrom = \"*\"\nto = \"server\"\n");
    let (mut client, mut server) = served.connect();
    for socket in [&mut client, &mut server] {
        let error = socket.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    let (mut client, mut server) = served.connect();
    client.write_all(b"anew").unwrap();
    let mut bytes = [0; 4];
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"anew");
    let counts = served.end().link("client", "server").unwrap().connections;
    assert_eq!((counts.opened, counts.reset), (2, 1));
}

#[test]
fn a_connection_to_a_server_that_is_not_there_is_cut_and_counted() {
    let served = Served::new("");
    let Served { files, listener, front, relay } = served;
    drop(listener);
    let mut client = TcpStream::connect(front).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    relay.end_well();
    let json = std::fs::read(files.path().join("relay.json")).unwrap();
    let report: RelayReport = serde_json::from_slice(&json).unwrap();
    assert_eq!(report.link("client", "server").unwrap().connections.failed, 1);
}

fn refused(scenario: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("scenario.toml");
    std::fs::write(&path, scenario).unwrap();
    let output = sinew_sim().arg("relay").arg(path).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_cannot_be_used_is_refused_with_what_to_do() {
    let nodes = "[[node]]\nname = \"a\"\n[[node]]\nname = \"b\"\n";
    let there = "[[path]]\nfrom = \"a\"\nto = \"b\"\n";
    let taken = UdpSocket::bind(fresh_address()).unwrap();
    let taken = format!("--listen=a:b={}", taken.local_addr().unwrap());
    let (somewhere, free) = ("--node=a=127.0.0.1:9", format!("--listen=a:b={}", fresh_address()));
    for (scenario, arguments, code, words) in [
        ("sead = 1", vec![], 2, "scenario.toml:1: unknown field `sead`"),
        (nodes, vec![], 2, "the scenario has no paths; add"),
        (&format!("{nodes}{there}"), vec![], 2, "--listen a:b="),
        (&format!("{nodes}{there}"), vec![free.as_str()], 2, "--node a="),
        (&format!("{nodes}{there}"), vec![free.as_str(), somewhere], 2, "none back; add [[path]]"),
        (nodes, vec![taken.as_str(), somewhere], 3, "give a free address"),
        (nodes, vec!["--node=c=127.0.0.1:9"], 2, "use one of: a, b"),
        (nodes, vec!["--node=a"], 2, "write it as NAME=ADDRESS"),
        (nodes, vec!["--seconds=-1"], 2, "use a number from 0"),
    ] {
        let (found, said) = refused(scenario, &arguments);
        assert_eq!(found, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn a_signal_ends_the_relay_in_good_order_with_its_report() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let between = Between::new("");
        between.left.send(b"x").unwrap();
        assert_eq!(Between::drain(&between.right).len(), 1);
        between.relay.signal(signal);
        let json = until("the report is there", || {
            let json = std::fs::read(between.files.path().join("relay.json")).ok()?;
            serde_json::from_slice::<RelayReport>(&json).ok()
        });
        assert_eq!(json.link("left", "right").unwrap().datagrams.delivered, 1);
        between.relay.end_well();
    }
}

#[test]
fn every_scenario_that_comes_with_the_sources_can_be_used() {
    let scenarios = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut read = 0;
    for file in std::fs::read_dir(scenarios).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let scenario = sinew_sim::scenario::file::parse(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!scenario.nodes.is_empty(), "{}", path.display());
        read += 1;
    }
    assert!(read > 0);
}

fn queue() -> [Topic; 2] {
    [
        Topic { name: "open", class: "queue", auth: "open", more: "" },
        Topic { name: "signed", class: "queue", auth: "signed", more: "" },
    ]
}

#[test]
fn two_nodes_talk_through_the_relay_and_their_ledgers_agree() {
    let world = World::new(&queue());
    let relay = world.relay("");
    let (mut sender, receiver) = (world.peer("sender", 200), world.peer("receiver", 0));
    until("a hundred messages came", || (world.received() > 100).then_some(()));
    sender.order("quiet");
    until("the last of each topic came", || {
        let report = world.check(Options::default());
        let came = |topic: &str| world.last_got(topic) == Some(report.topics[topic].sent);
        (came("open") && came("signed")).then_some(())
    });
    sender.end_well();
    receiver.end_well();
    world.end_relay(relay);
    let report = world.check(Options { complete: true, ..Options::default() });
    assert_eq!(report.violations, 0, "{}", report.text());
    println!("{}", report.text());
}

#[test]
fn what_was_corrupted_on_its_way_is_not_delivered_on_a_signed_topic_and_an_open_one_cannot_tell() {
    let world = World::new(&queue());
    let relay = world.relay_of("corrupt.toml");
    let (mut sender, receiver) = (world.peer("sender", 500), world.peer("receiver", 0));
    until("a thousand messages came", || (world.received() > 1_000).then_some(()));
    sender.order("quiet");
    sender.end_well();
    receiver.end_well();
    let corrupted = world.end_relay(relay).link("sender", "receiver").unwrap().datagrams.corrupted;
    let report = world.check(Options { complete: true, ..Options::default() });
    assert!(corrupted > 200 && report.topics["signed"].undelivered > 50, "{}", report.text());
    assert!(report.violations > 0, "the checker sees what arrives changed");
    for violation in &report.listed {
        let is_open = |topic: &str| assert_eq!(topic, "open", "{violation}");
        match violation {
            Violation::Altered { topic, .. } | Violation::NeverSent { topic, .. } => is_open(topic),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn the_relay_kills_and_stalls_the_nodes_that_it_started() {
    let world = World::new(&queue());
    let run = |name: &str| {
        let mut words = vec![env!("CARGO_BIN_EXE_sinew-sim").to_owned()];
        words.extend(world.peer_arguments(name, 100));
        format!("run = {words:?}")
    };
    let faults = "[[fault]]\nkind = \"kill\"\nat_ms = 800\nnode = \"sender\"\nrestart_after_ms = 100\n\
        [[fault]]\nkind = \"stall\"\nat_ms = 300\nfor_ms = 200\nnode = \"receiver\"\n";
    let relay = world.relay_with(&format!("{}\n{faults}", world.nodes(run)));
    let lives = |name: &str| world.ledger(name).lives.len();
    until("the sender came back and was heard", || {
        let sender = world.ledger("sender");
        let epoch = sender.lives.get(1)?.epoch;
        let got = world.ledger("receiver").lives.into_iter().flat_map(|life| life.records);
        let heard = |(_, record)| matches!(record, sinew_sim::ledger::record::Record::Got { epoch: e, .. } if e == epoch);
        got.into_iter().any(heard).then_some(())
    });
    let report = world.end_relay(relay);
    assert_eq!((report.faults.kills, report.faults.stalls, report.not_ours), (1, 1, 0));
    assert_eq!(report.ended_by_themselves, [""; 0]);
    assert_eq!((lives("sender"), lives("receiver")), (2, 1));
    let report = world.check(Options { complete: true, ..Options::default() });
    assert_eq!(report.violations, 0, "{}", report.text());
}

/// The frame of a signed message of a peer: two headers, 256 bytes and the signature.
const FRAME_BYTES: u64 = 16 + 64 + 256 + 64;

/// The link of lossy.toml takes 1 ms, and holds back for up to 20 ms; one for the peers' own turns.
const LONGEST_DELAY_NS: i64 = 22_000_000;

/// How long the lossy runs publish: `SINEW_SECONDS`, or 4.
fn seconds() -> u64 {
    std::env::var("SINEW_SECONDS").map_or(4, |value| value.parse().unwrap())
}

/// Runs one reliable topic at 1 kHz through loss, doubles and reordering over 20 ms. Everything must arrive,
/// in order. Prints what recovery took and cost.
fn through_loss(class: &'static str) {
    let seconds = seconds();
    let more = match class {
        "command" => {
            "lifespan_ms = 10_000\ncapacity = 1_024\nlinger_ms = 5_000\n\
                      gap_timeout_ms = 5_000\nreorder_us = 20_000"
        }
        _ => "capacity = 1_024\nlinger_ms = 5_000\ngap_timeout_ms = 5_000\nreorder_us = 20_000",
    };
    let world = World::new(&[Topic { name: "topic", class, auth: "signed", more }]);
    let relay = world.relay_of("lossy.toml");
    let receiver = world.peer("receiver", 0);
    let mut sender = world.quiet_peer("sender", 1_000);
    sender.line_with("matched");
    sender.order("go");
    // The length of the run, not a wait for something.
    std::thread::sleep(Duration::from_secs(seconds));
    sender.order("quiet");
    until("everything came", || world.is_settled(&["topic"]).then_some(()));
    let counters = sender.end_with_counters();
    let heard = receiver.end_with_counters();
    let relay = world.end_relay(relay);
    let report = world.check(Options { complete: true, strict_join: true, ..Options::default() });
    let (there, back) = (relay.link("sender", "receiver"), relay.link("receiver", "sender"));
    let (there, back) = (there.unwrap().datagrams, back.unwrap().datagrams);
    let resent = counters.get("resent/topic").copied().unwrap_or(0) * FRAME_BYTES;
    println!("{class}: {}{}", report.text(), relay.text());
    println!("sender {counters:?}\nreceiver {heard:?}");
    println!(
        "resent {resent} bytes for {} lost: {:.2}; {} bytes of reports came back",
        there.lost_bytes,
        resent as f64 / there.lost_bytes as f64,
        back.offered_bytes
    );
    let recoveries = world.recoveries("topic", LONGEST_DELAY_NS);
    let ms = |share: f64| match recoveries.len() {
        0 => 0.0,
        len => recoveries[((len as f64 * share) as usize).min(len - 1)] as f64 / 1e6,
    };
    println!(
        "{} recoveries, from sending to delivery: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms; the link takes \
         1 ms, and up to 21 ms for a quarter of all; messages are asked for 20 ms after they were missed",
        recoveries.len(),
        ms(0.5),
        ms(0.99),
        ms(1.0)
    );
    assert_eq!(report.violations, 0, "{}", report.text());
    let topic = &report.topics["topic"];
    assert_eq!((topic.undelivered, topic.gaps), (0, 0), "{}", report.text());
    assert!(topic.delivered > 800 * seconds && there.lost > 150 * seconds, "{}", report.text());
}

#[test]
fn commands_arrive_complete_and_in_order_through_loss_doubles_and_reordering() {
    through_loss("command");
}

#[test]
fn a_stream_arrives_complete_and_in_order_through_loss_doubles_and_reordering() {
    through_loss("stream");
}
