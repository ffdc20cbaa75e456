//! kill -9 of a real sender and a real receiver at random instants, under load and over a link that
//! loses, doubles and reorders: whatever the instant, what both wrote down must agree with the promises.
//!
//! `SINEW_KILLS=1000 cargo test -p sinew-sim --test kill` is the long form; `SINEW_SEED` repeats the
//! instants of an earlier run as far as a real machine can.

mod processes;

use std::time::{Duration, SystemTime};

use processes::{Topic, World, until};
use sinew_sim::ledger::check::Options;
use sinew_sim::ledger::record::Record;

/// Kills of the short form.
const KILLS: u64 = 30;

/// Messages a second on each topic.
const RATE_HZ: u32 = 200;

/// The longest that a process is let live. A start takes a good part of it, so kills meet processes that
/// begin, that greet each other, and that exchange messages.
const LONGEST_LIFE_MS: u64 = 400;

const MORE: &str = "capacity = 1_024\nlinger_ms = 2_000\nreorder_us = 5_000";

const TOPICS: [Topic; 5] = [
    Topic { name: "open", class: "queue", auth: "open", more: "" },
    Topic { name: "signed", class: "control", auth: "signed", more: "" },
    Topic { name: "stream", class: "stream", auth: "signed", more: MORE },
    Topic { name: "open-stream", class: "stream", auth: "open", more: MORE },
    Topic {
        name: "command",
        class: "command",
        auth: "signed",
        more: "lifespan_ms = 1_000\ncapacity = 1_024\nlinger_ms = 2_000\nreorder_us = 5_000",
    },
];

const RELIABLE: [&str; 3] = ["stream", "open-stream", "command"];

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// The last life of the sender, when the receiver's present life has heard from it.
fn heard(world: &World) -> Option<()> {
    let epoch = world.ledger("sender").lives.last()?.epoch;
    let receiver = world.ledger("receiver");
    let records = &receiver.lives.last()?.records;
    let from_it = |record: &Record| matches!(record, Record::Got { epoch: e, .. } if *e == epoch);
    records.iter().any(|(_, record)| from_it(record)).then_some(())
}

#[test]
fn no_kill_at_any_instant_breaks_a_promise() {
    let kills = number("SINEW_KILLS").unwrap_or(KILLS);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = number("SINEW_SEED").unwrap_or(now.as_nanos() as u64);
    println!("{kills} kills, SINEW_SEED={seed}");
    let mut random = Random(seed);

    let world = World::new(&TOPICS);
    let relay = world.relay_of("kill.toml");
    let peer = |name: &str| world.peer(name, RATE_HZ);
    let (mut sender, mut receiver) = (peer("sender"), peer("receiver"));
    for _ in 0..kills {
        std::thread::sleep(Duration::from_micros(random.below(LONGEST_LIFE_MS * 1_000)));
        // The next life begins when the last one is gone, for both want the same address.
        if random.below(2) == 0 {
            sender.kill();
            sender = peer("sender");
        } else {
            receiver.kill();
            receiver = peer("receiver");
        }
    }
    until("the last lives hear each other", || heard(&world));
    sender.order("quiet");
    until("everything came that was sent reliably", || world.is_settled(&RELIABLE).then_some(()));
    sender.end_well();
    receiver.end_well();
    let relay = world.end_relay(relay);

    let report = world.check(Options { complete: true, ..Options::default() });
    println!("{}\n{}", report.text(), relay.text());
    assert_eq!(report.violations, 0, "SINEW_SEED={seed}\n{}", report.text());
    for topic in &TOPICS {
        let delivered = report.topics[topic.name].delivered;
        assert!(delivered > kills, "{delivered} messages say little");
    }
}
