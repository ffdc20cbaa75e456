//! What the program subscribes to and publishes, as the stages see it.

use super::NodeError;
use super::builder::{Publication, Subscription};
use super::config::{Auth, Mode, NodeConfig, TopicConfig};
use super::who::Who;
use crate::pipeline::deliver::Route;
use crate::pipeline::send::Outlet;
use crate::pipeline::verify::TopicRule;
use crate::security::Trust;
use crate::wire::hello::STREAMS_MAX;
use crate::wire::{Class, EnvelopeFields, KeyId, Sequence, TopicId};
use sinew_rt::clock::Nanos;
use sinew_rt::panel::{Kind, Panel, PanelError};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The rules by which envelopes of the subscribed topics are judged, and where they go; both sorted
/// by topic.
pub(super) fn subscriptions(
    subscriptions: Vec<Subscription>,
    config: &NodeConfig,
    panel: &Panel,
) -> Result<(Vec<TopicRule>, Vec<Route>), NodeError> {
    let mut rules = Vec::new();
    let mut routes = Vec::new();
    for Subscription { topic, schema, sink } in subscriptions {
        let TopicConfig { name, auth, lifespan, .. } = &config.topics[topic];
        let topic = TopicId::of(name);
        // Beside `foreign_schema`, so that a mismatch shows both.
        if let Some(schema) = schema {
            panel.gauge(&format!("schema/{name}"))?.set(schema.get().cast_signed());
        }
        rules.push(TopicRule { topic, trust: trust(*auth, config.mode), lifespan: *lifespan });
        routes.push(Route {
            topic,
            schema,
            sink,
            delivered: panel.counter(&format!("delivered/{name}"))?,
            foreign_schema: panel.gauge(&format!("foreign_schema/{name}"))?,
            age: panel.recorder(name, Kind::Age)?,
        });
    }
    rules.sort_unstable_by_key(|rule: &TopicRule| rule.topic);
    routes.sort_unstable_by_key(|route: &Route| route.topic);
    Ok((rules, routes))
}

/// Unsigned envelopes pass only where both the topic and the mode say so.
fn trust(auth: Auth, mode: Mode) -> Trust {
    match (auth, mode) {
        (Auth::Open, Mode::Development) => Trust::Open,
        _ => Trust::Signed,
    }
}

pub(super) fn publications(
    publications: Vec<Publication>,
    config: &NodeConfig,
    who: &Who,
    panel: &Panel,
) -> Result<Vec<Outlet>, NodeError> {
    if publications.len() > STREAMS_MAX {
        let problem = format!("{} topics are published", publications.len());
        let hint = format!("a node publishes at most {STREAMS_MAX}: split it into two nodes");
        return Err(config.error("topic", problem, hint).into());
    }
    let outlet = |Publication { topic, schema, source }| -> Result<Outlet, NodeError> {
        let TopicConfig { name, auth, lifespan, .. } = &config.topics[topic];
        let lifespan_us = lifespan.map_or(0, |span| span.as_unsigned() / 1_000);
        match panel.gauge(&format!("schema/{name}")) {
            Ok(gauge) => gauge.set(schema.get().cast_signed()),
            // A topic has one schema in a node, which a subscription to it has shown already.
            Err(PanelError::NameTaken { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Outlet {
            source,
            fields: EnvelopeFields {
                source: who.identity.public().id(),
                destination: KeyId::EVERYONE,
                topic: TopicId::of(name),
                schema,
                epoch: who.own.epoch,
                sequence: Sequence::FIRST,
                sent_at: Nanos::ZERO,
                lifespan_us: u32::try_from(lifespan_us).unwrap_or(u32::MAX),
                class: Class::Control,
            },
            signed: trust(*auth, config.mode) == Trust::Signed,
            next_sequence: Arc::new(AtomicU64::new(Sequence::FIRST.get())),
            sent: panel.counter(&format!("sent/{name}"))?,
        })
    };
    publications.into_iter().map(outlet).collect()
}
