//! What the program subscribes to and publishes, as the stages see it.

use super::NodeError;
use super::builder::{Publication, Subscriber, Subscription};
use super::config::{Auth, Mode, NodeConfig, TopicClass, TopicConfig};
use super::who::Who;
use crate::delivery::reader::{Reader, ReaderSpec};
use crate::delivery::writer::{Writer, WriterSpec};
use crate::pipeline::deliver::Route;
use crate::pipeline::reliable::{Floor, PeerStream, ReliableRoute};
use crate::pipeline::resend::{ReliableOutlet, ReportOutlet};
use crate::pipeline::send::Outlet;
use crate::pipeline::verify::{Dedup, TopicRule};
use crate::pipeline::watch::{Publisher, TopicEvent, Watch};
use crate::security::Trust;
use crate::transport::udp::PEERS_BATCH;
use crate::wire::envelope::frame_len;
use crate::wire::hello::STREAMS_MAX;
use crate::wire::report::{self, REPORTS, REPORTS_OPEN};
use crate::wire::{Class, EnvelopeFields, Epoch, KeyId, SchemaId, Sequence, TopicId};
use sinew_rt::clock::Nanos;
use sinew_rt::panel::{Kind, Panel, PanelError};
use sinew_rt::ring::Producer;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What the stages have of the topics that the program reads, all sorted by topic.
pub(super) struct Subscribed {
    pub(super) rules: Vec<TopicRule>,
    pub(super) routes: Vec<Route>,
    pub(super) reliable: Vec<ReliableRoute>,
    pub(super) watches: Vec<Watch>,
}

/// What the stages have of the topics that the program writes.
pub(super) struct Published {
    pub(super) outlets: Vec<Outlet>,
    pub(super) reliable: Vec<ReliableOutlet>,
}

/// The rules by which envelopes of the subscribed topics are judged, and where they go.
pub(super) fn subscriptions(
    subscriptions: Vec<Subscription>,
    events: Vec<(usize, Producer<TopicEvent>)>,
    config: &NodeConfig,
    who: &Who,
    panel: &Panel,
    now: Nanos,
) -> Result<Subscribed, NodeError> {
    let mut all = Subscribed {
        rules: Vec::new(),
        routes: Vec::new(),
        reliable: Vec::new(),
        watches: Vec::new(),
    };
    let mut events: Vec<_> = events.into_iter().map(|(topic, to)| (topic, Some(to))).collect();
    for Subscription { topic: place, schema, sink, floors } in subscriptions {
        let declared = &config.topics[place];
        let TopicConfig { name, class, auth, lifespan, deadline, .. } = declared;
        let topic = TopicId::of(name);
        let trust = trust(*auth, config.mode);
        // Beside `foreign_schema`, so that a mismatch shows both.
        if let Some(schema) = schema {
            panel.gauge(&format!("schema/{name}"))?.set(schema.get().cast_signed());
        }
        let delivered = panel.counter(&format!("delivered/{name}"))?;
        let foreign_schema = panel.gauge(&format!("foreign_schema/{name}"))?;
        let age = panel.recorder(name, Kind::Age)?;
        let mut dedup = Dedup::Window;
        match sink {
            Subscriber::Plain(sink) => {
                let only_newest = matches!(class, TopicClass::Control | TopicClass::EStop);
                let newest = vec![(Epoch::NONE, Sequence::default()); config.peers.len()];
                let newest = only_newest.then(|| newest.into());
                all.routes.push(Route {
                    topic,
                    schema,
                    newest,
                    sink,
                    delivered,
                    foreign_schema,
                    age,
                });
            }
            Subscriber::Ordered(sink) => {
                let schema = schema.unwrap_or_default();
                let streams = streams(declared, topic, schema, &floors, who);
                dedup = Dedup::Readers(streams.iter().map(|s| s.floor.clone()).collect());
                all.reliable.push(ReliableRoute {
                    topic,
                    schema,
                    open: trust == Trust::Open,
                    is_command: *class == TopicClass::Command,
                    lifespan: *lifespan,
                    sink,
                    streams,
                    delivered,
                    missing: panel.counter(&format!("missing/{name}"))?,
                    foreign_schema,
                    age,
                    turn: 0,
                    due: None,
                });
            }
        }
        all.rules.push(TopicRule {
            topic,
            class: class.on_the_wire(),
            trust,
            dedup,
            lifespan: *lifespan,
        });
        if let Some(deadline) = *deadline {
            let to = events.iter_mut().find(|(of, to)| *of == place && to.is_some());
            let to = to.and_then(|(_, to)| to.take());
            let misses = panel.counter(&format!("missed/{name}"))?;
            let publishers = who.peers.iter().filter(|(_, peer)| peer.may_publish(topic));
            let publishers = publishers.map(|(peer, known)| Publisher {
                peer,
                key: known.key.id(),
                heard_at: None,
            });
            let publishers = publishers.collect();
            all.watches.push(Watch::new(topic, deadline, publishers, to, misses, now));
        }
    }
    all.rules.sort_unstable_by_key(|rule: &TopicRule| rule.topic);
    all.routes.sort_unstable_by_key(|route: &Route| route.topic);
    all.reliable.sort_unstable_by_key(|route: &ReliableRoute| route.topic);
    Ok(all)
}

/// New messages after which a reader that holds `hold` acknowledges at once: a quarter to a half of them, so that
/// its writer need not stand still, and not more often, since each costs both ends a system call. It is a whole
/// number of polls (of a node with one busy peer), or an acknowledgement would free a little more, which would leave in a call of its own.
fn acknowledge_every(hold: u16) -> u32 {
    let polls = usize::from(hold) / 2 / PEERS_BATCH;
    (polls.max(1) * PEERS_BATCH) as u32
}

/// After how long it acknowledges fewer: none of the usual periods of a loop, at which the
/// acknowledgement of a message would meet the next one.
const ACKNOWLEDGE_WITHIN: Nanos = Nanos::from_micros(400);
/// How often it says that it is there, though nothing comes: six times in a lease.
const REFRESH: Nanos = Nanos::from_millis(500);
/// After how long without a word a writer gives a reader up: three Hellos.
const LEASE: Nanos = Nanos::from_secs(3);
/// How often a writer says what there is, while readers lack nothing.
const HEARTBEAT: Nanos = Nanos::from_millis(100);
/// Of what a writer sends, the part that may be sent again.
const RESEND_SHARE_PERCENT: u8 = 50;

fn streams(
    declared: &TopicConfig,
    topic: TopicId,
    schema: SchemaId,
    floors: &[Floor],
    who: &Who,
) -> Box<[PeerStream]> {
    let spec = ReaderSpec {
        topic,
        schema,
        class: declared.class.on_the_wire(),
        hold: declared.reliability.hold,
        reorder: declared.reliability.reorder,
        gap_timeout: declared.reliability.gap_timeout,
        acknowledge_every: acknowledge_every(declared.reliability.hold),
        acknowledge_within: ACKNOWLEDGE_WITHIN,
        refresh: REFRESH,
        lifespan: declared.lifespan,
    };
    let own = who.identity.public().id().get();
    let stream = |key: KeyId| PeerStream {
        // Readers of one stream must not ask again at the same instant, and every run of a
        // simulation must draw the same.
        reader: Reader::new(spec, own ^ key.get().rotate_left(17) ^ topic.get().rotate_left(31)),
        key,
        epoch: Epoch::NONE,
        resume: floors.iter().copied().find(|floor| floor.from == key),
        fresh_from: Sequence::FIRST,
        floor: Arc::default(),
        started: None,
        gap: None,
    };
    who.peers.iter().map(|(_, peer)| stream(peer.key.id())).collect()
}

/// The rules for reports, of which every node that carries reliable topics gets some.
pub(super) fn report_rules(mode: Mode) -> impl Iterator<Item = TopicRule> {
    let rule = |name, trust| TopicRule {
        topic: TopicId::of(name),
        class: Class::Control,
        trust,
        dedup: Dedup::Reports,
        lifespan: None,
    };
    let open = (mode == Mode::Development).then(|| rule(REPORTS_OPEN, Trust::Open));
    [rule(REPORTS, Trust::Signed)].into_iter().chain(open)
}

/// The streams on which this node's own reports leave: about signed topics, and about open ones.
pub(super) fn report_outlets(who: &Who) -> [ReportOutlet; 2] {
    let outlet = |name, signed| ReportOutlet {
        fields: EnvelopeFields {
            source: who.identity.public().id(),
            destination: KeyId::EVERYONE,
            topic: TopicId::of(name),
            schema: report::schema(),
            epoch: who.own.epoch,
            sequence: Sequence::FIRST,
            sent_at: Nanos::ZERO,
            lifespan_us: 0,
            class: Class::Control,
        },
        signed,
        next_sequence: Arc::new(AtomicU64::new(Sequence::FIRST.get())),
    };
    [outlet(REPORTS, true), outlet(REPORTS_OPEN, false)]
}

/// Unsigned envelopes pass only where both the topic and the mode say so.
fn trust(auth: Auth, mode: Mode) -> Trust {
    match (auth, mode) {
        (Auth::Open, Mode::Development) => Trust::Open,
        _ => Trust::Signed,
    }
}

/// Streams that a node with reliable topics announces beside those of its publishers.
const REPORT_STREAMS: usize = 2;

pub(super) fn publications(
    publications: Vec<Publication>,
    config: &NodeConfig,
    who: &Who,
    panel: &Panel,
    now: Nanos,
) -> Result<Published, NodeError> {
    // Whether it will have them is known when all topics are: declared is enough to keep their place.
    let reports = config.topics.iter().any(|topic| topic.class.is_reliable());
    let most = STREAMS_MAX - if reports { REPORT_STREAMS } else { 0 };
    if publications.len() > most {
        let problem = format!("{} topics are published", publications.len());
        let hint = format!("a node publishes at most {most}: split it into two nodes");
        return Err(config.error("topic", problem, hint).into());
    }
    let mut all = Published { outlets: Vec::new(), reliable: Vec::new() };
    for Publication { topic, schema, source, outcomes } in publications {
        let TopicConfig { name, class, auth, lifespan, reliability, .. } = &config.topics[topic];
        let lifespan_us = lifespan.map_or(0, |span| span.as_unsigned() / 1_000);
        match panel.gauge(&format!("schema/{name}")) {
            Ok(gauge) => gauge.set(schema.get().cast_signed()),
            // A topic has one schema in a node, which a subscription to it has shown already.
            Err(PanelError::NameTaken { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let topic = TopicId::of(name);
        let trust = trust(*auth, config.mode);
        let outlet = Outlet {
            source,
            fields: EnvelopeFields {
                source: who.identity.public().id(),
                destination: KeyId::EVERYONE,
                topic,
                schema,
                epoch: who.own.epoch,
                sequence: Sequence::FIRST,
                sent_at: Nanos::ZERO,
                lifespan_us: u32::try_from(lifespan_us).unwrap_or(u32::MAX),
                class: class.on_the_wire(),
            },
            signed: trust == Trust::Signed,
            next_sequence: Arc::new(AtomicU64::new(Sequence::FIRST.get())),
            sent: panel.counter(&format!("sent/{name}"))?,
        };
        if !class.is_reliable() {
            all.outlets.push(outlet);
            continue;
        }
        let spec = WriterSpec {
            topic,
            schema,
            class: class.on_the_wire(),
            readers: config.peers.len(),
            capacity: usize::from(reliability.capacity),
            frame_len: frame_len(outlet.source.payload_len(), outlet.signed),
            lifespan: *lifespan,
            linger: reliability.linger,
            patience: reliability.patience,
            lease: LEASE,
            heartbeat: HEARTBEAT,
            resend_share_percent: RESEND_SHARE_PERCENT,
        };
        all.reliable.push(ReliableOutlet {
            outlet,
            writer: Writer::new(spec, now),
            open: trust == Trust::Open,
            outcomes,
            resent: panel.counter(&format!("resent/{name}"))?,
            events_lost: panel.gauge(&format!("events_lost/{name}"))?,
            refused: panel.gauge(&format!("refused/{name}"))?,
            outcomes_lost: panel.counter(&format!("outcomes_lost/{name}"))?,
            readers: panel.gauge(&format!("readers/{name}"))?,
            outlived: panel.counter(&format!("outlived/{name}"))?,
            given_up: panel.counter(&format!("given_up/{name}"))?,
            mismatches: panel.counter(&format!("mismatches/{name}"))?,
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_covers_whole_polls_and_no_more_than_half_of_what_is_held() {
        for (hold, every) in [(64, 31), (100, 31), (124, 62), (185, 62), (186, 93), (256, 124)] {
            assert_eq!(acknowledge_every(hold), every, "{hold}");
        }
        assert!(
            (64..=256)
                .all(|hold| (hold / 4..=hold / 2).contains(&(acknowledge_every(hold) as u16)))
        );
    }
}
