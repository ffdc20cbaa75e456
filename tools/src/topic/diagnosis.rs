//! Why nothing arrives: from the observer's own panel, and from that of the other end where it runs on
//! this machine. A pure function of what is known.

use std::net::SocketAddr;

use sinew_io::node::{NodeConfig, PeerConfig};
use sinew_rt::clock::Nanos;
use sinew_rt::panel::PanelSnapshot;

use crate::node::status::Traffic;
use crate::panels::Life;

/// A peer that answers does so once a second.
const SILENCE: Nanos = Nanos::from_secs(3);

/// What is known of the traffic with the peers.
pub(super) struct Situation<'a> {
    pub(super) config: &'a NodeConfig,
    /// Of the observer.
    pub(super) identity: String,
    pub(super) address: SocketAddr,
    pub(super) own: PanelSnapshot,
    /// By peer: its node, where that is on this machine.
    pub(super) local: Vec<Option<Local>>,
}

/// A peer on this machine, when the observer started and now.
pub(super) struct Local {
    pub(super) before: PanelSnapshot,
    pub(super) now: PanelSnapshot,
    pub(super) life: Life,
}

impl Local {
    /// How much a counter has risen since.
    pub(super) fn risen(&self, counter: &str) -> u64 {
        let count = |snapshot: &PanelSnapshot| snapshot.counter(counter).unwrap_or(0);
        count(&self.now).saturating_sub(count(&self.before))
    }

    /// What it dropped since, by `STAGE.drop.REASON@SOURCE`.
    pub(super) fn drops(&self) -> impl Iterator<Item = (&str, u64)> {
        let names = self.now.counters.iter().map(|(name, _)| name.as_str());
        let drops = names.filter(|name| name.contains(".drop."));
        drops.map(|name| (name, self.risen(name))).filter(|(_, count)| *count > 0)
    }
}

impl Situation<'_> {
    fn gauge(&self, name: &str, peer: &PeerConfig) -> Option<Nanos> {
        let at = self.own.gauge(&format!("peer.{name}@{}", peer.name)).filter(|at| *at != 0);
        at.map(Nanos::new)
    }

    /// Whether this peer answers, and can accept what is published: it has a proof of this life.
    pub(super) fn is_linked(&self, peer: &PeerConfig) -> bool {
        self.gauge("heard_at_ns", peer).is_some() && self.gauge("answered_at_ns", peer).is_some()
    }

    /// Why nothing of `topic` has arrived: a paragraph for each peer that may publish it.
    pub(super) fn why_nothing_on(&self, topic: &str) -> Vec<String> {
        let peers = self.config.peers.iter().zip(&self.local);
        let publish = peers.filter(|(peer, _)| peer.publishes.iter().any(|name| name == topic));
        let mut reasons: Vec<_> = publish
            .map(|(peer, local)| {
                let reason = self.why_silent(peer, local.as_ref());
                let reason = reason.unwrap_or_else(|| self.why_not(topic, peer, local.as_ref()));
                format!("{}: {reason}", peer.name)
            })
            .collect();
        reasons.extend(self.strangers());
        reasons
    }

    /// Why peers do not answer; nothing when all do.
    pub(super) fn silent_peers(&self) -> Vec<String> {
        let peers = self.config.peers.iter().zip(&self.local);
        let silent = peers.filter_map(|(peer, local)| {
            let reason = self.why_silent(peer, local.as_ref())?;
            Some(format!("{}: {reason}", peer.name))
        });
        silent.collect()
    }

    /// Why a peer does not answer, if it does not.
    fn why_silent(&self, peer: &PeerConfig, local: Option<&Local>) -> Option<String> {
        if let Some(local) = local.filter(|local| !local.life.runs()) {
            return Some(format!("its node `{}` on this machine: {}", local.now.name, local.life));
        }
        if let Some(at) = self.gauge("heard_at_ns", peer) {
            let ago = self.own.taken_at - at;
            return (ago > SILENCE).then(|| format!("answered until {ago} ago, and no more since"));
        }
        let address = peer.address;
        let enrol = format!(
            "enrol this observer there, and start it again:\n{}",
            lines(&self.config.name, &self.identity, self.address)
        );
        let elsewhere = format!(
            "does not answer: it is not at {address}, or not reachable; or it has not enrolled this \
             observer, or at another address than {}; or its cluster is not `{}`. If it runs, {enrol}",
            self.address, self.config.cluster
        );
        let Some(local) = local else {
            return Some(match self.own.counter("receive.unreachable").unwrap_or(0) {
                0 => elsewhere,
                _ => format!(
                    "nothing listens at {address}, says its host: start it, or mend its `address` in \
                     this observer's configuration"
                ),
            });
        };
        let node = &local.now.name;
        let dropped = |reason: &str| {
            let drops = local.drops().filter(|(name, _)| name.contains(reason));
            drops.map(|(_, count)| count).sum::<u64>()
        };
        Some(if dropped(".drop.unknown_key@stranger") > 0 {
            format!("`{node}` runs here, and does not know this observer's key: {enrol}")
        } else if dropped(".drop.other_cluster@stranger") > 0 {
            format!(
                "`{node}` runs here, and is in another cluster than `{}`: mend node.cluster in this \
                 observer's configuration",
                self.config.cluster
            )
        } else if local.risen("receive.frames") == 0 {
            format!(
                "`{node}` runs here, and nothing comes to it: it does not listen at {address}; mend \
                 its `address` in this observer's configuration"
            )
        } else if dropped(".drop.rate_limited@stranger") > 0 {
            format!(
                "`{node}` runs here, and strangers use up the bucket that its answers come from"
            )
        } else {
            format!(
                "`{node}` runs here, and its answers do not come to {}: it has this observer's key at \
                 another address; mend that there, and start it again:\n{}",
                self.address,
                lines(&self.config.name, &self.identity, self.address)
            )
        })
    }

    /// Why a peer that answers is not heard on `topic`.
    fn why_not(&self, topic: &str, peer: &PeerConfig, local: Option<&Local>) -> String {
        let dropped: Vec<_> = Traffic::of(&self.own)
            .drops
            .into_iter()
            // Its other topics come, too.
            .filter(|drop| drop.source == peer.name && drop.reason != "unknown_topic")
            .filter_map(|drop| {
                Some(format!("{} {}: {}", drop.count, drop.reason, what_to_do(&drop.reason)?))
            })
            .collect();
        if !dropped.is_empty() {
            return format!("its frames arrive and are dropped here: {}", dropped.join("; "));
        }
        let Some(local) = local else {
            return format!(
                "it answers, and has sent nothing on `{topic}` to this observer: it published nothing, or \
                 the topic is a command or a stream, which observers do not get"
            );
        };
        let node = &local.now.name;
        let sent = format!("sent/{topic}");
        match local.now.counter(&sent) {
            // Only what acknowledges has readers.
            Some(_) if local.now.gauge(&format!("readers/{topic}")).is_some() => format!(
                "`{node}` publishes `{topic}` as a command or a stream, which is sent only to subscribers \
                 that acknowledge it, and not to observers; `sinew topic hz {topic}` without --config \
                 shows its rate and age at each end on this machine"
            ),
            None => {
                let counters = local.now.counters.iter();
                let topics: Vec<_> =
                    counters.filter_map(|(name, _)| name.strip_prefix("sent/")).collect();
                let topics =
                    if topics.is_empty() { "nothing".to_owned() } else { topics.join(", ") };
                format!("`{node}` answers, and does not publish `{topic}`; it publishes {topics}")
            }
            Some(_) if local.risen(&sent) == 0 => {
                format!("`{node}` answers, and has published nothing on `{topic}` since")
            }
            Some(_) => format!(
                "`{node}` answers and publishes `{topic}`, but none of it arrives: see `sinew node \
                 status {node}` for what its network did not take"
            ),
        }
    }

    /// Frames that nobody enrolled here has sent.
    fn strangers(&self) -> Option<String> {
        let count = |reason: &str| {
            self.own.counter(&format!("receive.drop.{reason}@stranger")).filter(|count| *count > 0)
        };
        if let Some(count) = count("unknown_key") {
            return Some(format!(
                "{count} frames came from a sender that is not enrolled here: compare the `identity` of \
                 each peer with what `sinew key show` or `sinew node status` says at the other end"
            ));
        }
        let count = count("other_cluster")?;
        let cluster = &self.config.cluster;
        Some(format!(
            "{count} frames of another cluster than `{cluster}` came: is node.cluster the same at both \
             ends?"
        ))
    }
}

/// What a drop at the observer asks for; `None` for those that a healthy stream has.
fn what_to_do(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "rate_limited" => "refused by the token bucket: raise admission.peer_checks_per_s here",
        "not_permitted" => "add the topic to `publishes` of that peer here",
        "not_signed" => "the publisher's topic is open: declare it so here, in development mode",
        "bad_signature" => "not signed with the key of that identity",
        "expired" => "older than their lifespan on arrival: a slow way, or a short lifespan_ms",
        "class_not_served" => "of a later version",
        "class_mismatch" => "the publisher declares the topic with another class",
        "malformed" => "of another version",
        "life_conflict" => "a second node runs with the same key",
        "old_epoch" => "its boot counter went back: was its state_dir lost?",
        "bad_timestamps" => "its clock samples make no sense",
        "queue_full" => "this observer does not keep up",
        "overtaken" => "a newer value came first, and only the newest counts: the way reorders",
        "qos_mismatch" => "the publisher declares the topic with another class or message type",
        "not_subscribed" => "reports about a topic that is not declared as reliable here",
        _ => return None,
    })
}

/// What the other end needs in its configuration.
fn lines(name: &str, identity: &str, address: SocketAddr) -> String {
    // Of a peer's name only so much is allowed.
    let name: String = name.chars().take(sinew_io::node::MAX_PEER_NAME).collect();
    format!(
        "  [[peer]]\n  name = \"{name}\"\n  identity = \"{identity}\"\n  address = \"{address}\""
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinew_rt::panel::{Panel, PanelSpec, State};

    #[test]
    fn a_reliable_topic_is_said_to_be_one() {
        let now = sinew_rt::clock::now().as_nanos();
        let own = || panel("observer", &[], &[("peer.heard_at_ns@arm", now)]);
        let publishes = |gauges: &[(&str, i64)]| {
            let there = || panel("robot", &[("sent/arm/state", 5)], gauges);
            Some(Local { before: there(), now: there(), life: RUNS })
        };
        let reliable = why(own(), publishes(&[("readers/arm/state", 0)]));
        assert!(reliable.contains("and not to observers"), "{reliable}");
        assert!(why(own(), publishes(&[])).contains("has published nothing"));
    }

    /// A panel with these counters and gauges.
    fn panel(name: &str, counters: &[(&str, u64)], gauges: &[(&str, i64)]) -> PanelSnapshot {
        let panel = Panel::anonymous(&PanelSpec::new(name)).unwrap();
        counters.iter().for_each(|(name, count)| panel.counter(name).unwrap().add(*count));
        gauges.iter().for_each(|(name, value)| panel.gauge(name).unwrap().set(*value));
        panel.snapshot().unwrap()
    }

    fn config() -> NodeConfig {
        let mut config = NodeConfig::new("observer");
        config.peers.push(PeerConfig {
            name: "arm".to_owned(),
            identity: "did:key:z6MkArm".to_owned(),
            address: "127.0.0.1:7401".parse().unwrap(),
            publishes: vec!["arm/state".to_owned()],
        });
        config
    }

    fn why(own: PanelSnapshot, local: Option<Local>) -> String {
        let config = config();
        let situation = Situation {
            config: &config,
            identity: "did:key:z6MkOwn".to_owned(),
            address: "127.0.0.1:7409".parse().unwrap(),
            own,
            local: vec![local],
        };
        situation.why_nothing_on("arm/state").join("\n")
    }

    fn local(life: Life, before: &[(&str, u64)], now: &[(&str, u64)]) -> Option<Local> {
        Some(Local { before: panel("robot", before, &[]), now: panel("robot", now, &[]), life })
    }

    const RUNS: Life = Life::Runs(State::Running);

    #[test]
    fn a_peer_that_does_not_answer_is_explained_by_what_it_counts_if_it_is_here() {
        let unheard = || panel("observer", &[], &[]);
        let frames = ("receive.frames", 9);
        for (local, reason) in [
            (
                local(RUNS, &[], &[frames, ("receive.drop.unknown_key@stranger", 2)]),
                "does not know this observer's key",
            ),
            (
                local(RUNS, &[], &[frames, ("receive.drop.other_cluster@stranger", 2)]),
                "is in another cluster than `default`",
            ),
            (local(RUNS, &[frames], &[frames]), "does not listen at 127.0.0.1:7401"),
            (local(RUNS, &[], &[frames]), "its answers do not come to 127.0.0.1:7409"),
            (local(Life::Killed, &[], &[]), "its node `robot` on this machine: killed"),
            (None, "does not answer: it is not at 127.0.0.1:7401"),
        ] {
            let why = why(unheard(), local);
            assert!(why.starts_with("arm: ") && why.contains(reason), "{why}");
        }
        let enrol =
            why(unheard(), local(RUNS, &[], &[("receive.drop.unknown_key@stranger", 2), frames]));
        assert!(
            enrol.contains("identity = \"did:key:z6MkOwn\"\n  address = \"127.0.0.1:7409\""),
            "{enrol}"
        );
        // What was counted before the observer came is not about it.
        let old = [("receive.drop.unknown_key@stranger", 2), frames];
        assert!(!why(unheard(), local(RUNS, &old, &old)).contains("key"));
        let refused = panel("observer", &[("receive.unreachable", 3)], &[]);
        assert!(why(refused, None).contains("nothing listens at 127.0.0.1:7401"));
    }

    #[test]
    fn a_peer_that_answers_is_explained_by_what_it_sends_and_what_is_dropped_here() {
        let heard = |counters: &[(&str, u64)]| {
            let now = sinew_rt::clock::now().as_nanos();
            panel("observer", counters, &[("peer.heard_at_ns@arm", now)])
        };
        for (own, local, reason) in [
            (
                heard(&[("receive.drop.rate_limited@arm", 4)]),
                None,
                "4 rate_limited: refused by the token bucket",
            ),
            (
                heard(&[("verify.drop.not_permitted@arm", 4)]),
                None,
                "4 not_permitted: add the topic",
            ),
            (
                heard(&[("verify.drop.unknown_topic@arm", 4)]),
                None,
                "has sent nothing on `arm/state`",
            ),
            (
                heard(&[]),
                local(RUNS, &[], &[("sent/other", 5)]),
                "does not publish `arm/state`; it publishes other",
            ),
            (
                heard(&[]),
                local(RUNS, &[("sent/arm/state", 5)], &[("sent/arm/state", 5)]),
                "published nothing on `arm/state` since",
            ),
            (
                heard(&[("receive.drop.unknown_key@stranger", 4)]),
                None,
                "4 frames came from a sender that is not enrolled here",
            ),
            (panel("observer", &[], &[("peer.heard_at_ns@arm", 1)]), None, "answered until"),
        ] {
            let why = why(own, local);
            assert!(why.contains(reason), "{why}");
        }
    }
}
