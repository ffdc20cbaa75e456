//! Which topics a node without a program of its own subscribes to, and with which message type.

use sinew_io::message::Message;
use sinew_io::node::{
    CommandReader, Delivery, EStopReader, NodeBuilder, NodeConfig, NodeError, Queued, REASON_MAX,
    StreamReader, TopicClass,
};
use sinew_rt::clock;
use sinew_rt::latest::LatestReader;
use sinew_rt::ring::Consumer;

use crate::exit::Failure;
use crate::messages::{KNOWN, MessageType};

/// Messages of a queued topic that may wait until the next turn.
const QUEUE: usize = 1_024;

/// A topic that is received. Dropping it would leave its stage without a reader.
pub(crate) trait Subscribed {
    /// Takes what waits in a queue, so that it never overflows. Bounded by the queue's length.
    fn drain(&mut self);
}

impl<T: Message> Subscribed for LatestReader<T> {
    fn drain(&mut self) {}
}

impl<T: Message> Subscribed for Consumer<Queued<T>> {
    fn drain(&mut self) {
        for _ in 0..QUEUE {
            if self.pop().is_none() {
                break;
            }
        }
    }
}

impl<T: Message> Subscribed for StreamReader<T> {
    fn drain(&mut self) {
        for _ in 0..QUEUE {
            if self.next().is_none() {
                break;
            }
        }
    }
}

impl Subscribed for EStopReader {
    fn drain(&mut self) {}
}

/// This program carries out no command, and says so.
impl<T: Message> Subscribed for CommandReader<T> {
    fn drain(&mut self) {
        for _ in 0..QUEUE {
            match self.next(clock::now()) {
                Some(Delivery::Message(command)) => {
                    // Untold, the sender takes the outcome as unknown, which is no lie.
                    let _ = self.reject(&command, REASON_MAX);
                }
                Some(_) => {}
                None => break,
            }
        }
    }
}

pub(crate) fn subscribe<T: Message>(
    node: &mut NodeBuilder,
    topic: &str,
    class: TopicClass,
) -> Result<Box<dyn Subscribed>, NodeError> {
    Ok(match class {
        TopicClass::Control => Box::new(node.latest::<T>(topic)?),
        TopicClass::Queue => Box::new(node.queue::<T>(topic, QUEUE)?),
        TopicClass::Stream => Box::new(node.stream::<T>(topic, QUEUE)?),
        TopicClass::Command => Box::new(node.commands::<T>(topic, QUEUE)?),
        TopicClass::EStop => {
            let declared = node.config().topics.iter().find(|declared| declared.name == topic);
            let deadline = declared.and_then(|declared| declared.deadline);
            Box::new(node.estop(topic, deadline.unwrap_or_default())?)
        }
    })
}

/// What became of the configured topics.
#[derive(Default)]
pub(super) struct Topics {
    /// The names of the topics that are received.
    pub(super) received: Vec<String>,
    /// The names of the declared topics that no peer may publish.
    pub(super) without_publisher: Vec<String>,
    pub(super) subscribed: Vec<Box<dyn Subscribed>>,
}

impl Topics {
    /// Subscribes to every topic that some peer may publish.
    pub(super) fn subscribe(node: &mut NodeBuilder) -> Result<Self, Failure> {
        check(node.config())?;
        let mut topics = Self::default();
        for topic in node.config().topics.clone() {
            let published =
                node.config().peers.iter().any(|peer| peer.publishes.contains(&topic.name));
            if !published {
                topics.without_publisher.push(topic.name);
                continue;
            }
            let known = KNOWN.iter().find(|known| known.name == topic.schema);
            if let Some(known) = known {
                topics.subscribed.push((known.subscribe)(node, &topic.name, topic.class)?);
                topics.received.push(topic.name);
            }
        }
        Ok(topics)
    }

    pub(super) fn drain(&mut self) {
        for topic in &mut self.subscribed {
            topic.drain();
        }
    }
}

/// Every topic has a type that is known here, and whatever a peer publishes is a topic.
fn check(config: &NodeConfig) -> Result<(), Failure> {
    for (n, topic) in config.topics.iter().enumerate() {
        if !KNOWN.iter().any(|known| known.name == topic.schema) {
            let problem = format!("`sinew node run` does not know the message `{}`", topic.schema);
            let hint = format!(
                "use one of {}, or subscribe in a program of your own",
                MessageType::names()
            );
            return Err(Failure::usage(config.error_at(
                &format!("topic.{n}.schema"),
                problem,
                hint,
            )));
        }
    }
    for (n, peer) in config.peers.iter().enumerate() {
        let undeclared = |name: &&String| !config.topics.iter().any(|topic| topic.name == **name);
        if let Some(name) = peer.publishes.iter().find(undeclared) {
            let problem = format!("`{}` publishes `{name}`, which is no topic here", peer.name);
            let hint =
                format!("add a [[topic]] with name = \"{name}\", or remove it from the list");
            return Err(Failure::usage(config.error_at(
                &format!("peer.{n}.publishes"),
                problem,
                hint,
            )));
        }
    }
    Ok(())
}
