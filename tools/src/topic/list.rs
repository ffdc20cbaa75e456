//! `sinew topic list`: every topic of every node on this machine, from their panels.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::Duration;

use comfy_table::Cell;
use serde::Serialize;
use sinew_rt::clock::{self, Nanos};

use super::panels::{End, Nodes, Role, end, topics};
use crate::exit::{Exit, Failure, Outcome};
use crate::hist;
use crate::node::status::{Drop, Traffic};
use crate::output::JsonArgs;
use crate::panels::PanelDir;

/// Show every topic of the nodes on this machine: type, ends, rate, age, drops.
///
/// From their panels, which are looked at twice: the rate and the age are of the time between, the
/// count is since the node started. Dead nodes are left out. No identity is needed, and no node
/// notices. Drops are counted by node, reason and sender, not by topic.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sinew topic list
  sinew topic list --seconds 10      for topics slower than 1 Hz
  sinew topic list --json - | jq -r '.topics[].name'

Exit codes:
  0  shown, also when the nodes have no topics
  2  wrong usage
  3  no node runs here, or no panel can be read")]
pub(super) struct ListArgs {
    /// Time between the two looks, in seconds: 1 to 3600
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    dir: PanelDir,
}

#[derive(Serialize)]
struct Listing {
    version: u32,
    report: &'static str,
    /// The time between the two looks.
    window_ns: i64,
    topics: Vec<Topic>,
    /// Since each node started.
    drops: Vec<NodeDrop>,
    unreadable: Vec<String>,
}

#[derive(Serialize)]
struct Topic {
    name: String,
    ends: Vec<End>,
}

#[derive(Serialize)]
struct NodeDrop {
    node: String,
    #[serde(flatten)]
    drop: Drop,
}

pub(super) fn run(args: &ListArgs) -> Outcome {
    args.json.check_writable()?;
    let nodes = Nodes::open(&args.dir);
    if nodes.open.is_empty() {
        let why = match nodes.unreadable.first() {
            Some(why) => format!("no panel of a running node can be read: {why}"),
            None => {
                "no node runs here; start one with `sinew node run CONFIG`, or look at one that \
                     runs elsewhere with `sinew topic echo TOPIC --config observer.toml`"
                    .to_owned()
            }
        };
        return Err(Failure::machine(why));
    }
    let before = nodes.look()?;
    let until = clock::now() + Nanos::from_secs(i64::from(args.seconds));
    while clock::now() < until && !super::is_over() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let after = nodes.look()?;
    let mut topics_by_name: BTreeMap<&str, Vec<End>> = BTreeMap::new();
    for (before, after) in before.iter().zip(&after) {
        for (topic, role) in topics(after) {
            topics_by_name.entry(topic).or_default().push(end(before, after, topic, role));
        }
    }
    let drops = after.iter().flat_map(|snapshot| {
        let of = |drop| NodeDrop { node: snapshot.name.clone(), drop };
        Traffic::of(snapshot).drops.into_iter().map(of)
    });
    let listing = Listing {
        version: 1,
        report: "topic list",
        window_ns: after.first().map_or(0, |s| (s.taken_at - before[0].taken_at).as_nanos()),
        topics: topics_by_name
            .into_iter()
            .map(|(name, mut ends)| {
                ends.sort_by(|a, b| (a.role, &a.node).cmp(&(b.role, &b.node)));
                Topic { name: name.to_owned(), ends }
            })
            .collect(),
        drops: drops.collect(),
        unreadable: nodes.unreadable,
    };
    args.json.hand_out(|| listing.text(), &listing)?;
    Ok(Exit::Done)
}

impl Listing {
    fn text(&self) -> String {
        let mut text = String::new();
        if self.topics.is_empty() {
            text.push_str("the nodes here publish and receive nothing\n");
        } else {
            let _ = writeln!(text, "{}", self.table().trim_fmt());
            let _ = writeln!(text, "rate and age over {}", Nanos::new(self.window_ns));
        }
        for Topic { name, ends } in &self.topics {
            for End { node, foreign_type, .. } in ends {
                if let Some(foreign) = foreign_type {
                    let _ = writeln!(text, "{node} dropped {foreign} that came as {name}");
                }
            }
        }
        for NodeDrop { node, drop: Drop { stage, reason, source, count } } in &self.drops {
            let _ = writeln!(text, "{node} dropped {count} {reason} from {source} ({stage})");
        }
        for unreadable in &self.unreadable {
            let _ = writeln!(text, "NOT READABLE: {unreadable}");
        }
        text
    }

    fn table(&self) -> comfy_table::Table {
        let mut table = hist::new_table(io::stdout().is_terminal());
        table.set_header(
            ["topic", "type", "node", ""]
                .map(Cell::new)
                .into_iter()
                .chain(["rate", "count", "age p50", "age p99", "age max"].map(hist::right)),
        );
        for topic in &self.topics {
            for (n, end) in topic.ends.iter().enumerate() {
                let age = |of: fn(&super::panels::Age) -> i64| {
                    end.age
                        .as_ref()
                        .map_or_else(|| "–".to_owned(), |age| Nanos::new(of(age)).to_string())
                };
                let type_name = match (end.type_name, &end.schema_id) {
                    (Some(name), _) => name.to_owned(),
                    (None, Some(id)) => id.clone(),
                    (None, None) => "any".to_owned(),
                };
                let words = [if n == 0 { topic.name.as_str() } else { "" }, &type_name, &end.node];
                let numbers = [
                    format!("{:.1} Hz", end.rate_hz),
                    end.count.to_string(),
                    age(|age| age.p50_ns),
                    age(|age| age.p99_ns),
                    age(|age| age.max_ns),
                ];
                let cells = words.map(Cell::new).into_iter().chain([Cell::new(end.role.word())]);
                table.add_row(cells.chain(numbers.map(hist::right)));
            }
        }
        table
    }
}

// The order of the ends: who publishes comes first.
const _: () = assert!((Role::Publishes as u8) < (Role::Receives as u8));
