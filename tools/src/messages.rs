//! The message types that this command knows: how each is subscribed to, published, shown and filled.

use sinew_control::message::{
    Described, Fault, Field, Heartbeat, JointSetpoint, JointState, Twist,
};
use sinew_io::message::schema_id;
use sinew_io::node::{NodeBuilder, NodeError, Publisher, PublisherFull, TopicClass};
use sinew_io::wire::SchemaId;

use crate::node::topics::{Subscribed, subscribe};

/// A message type, without naming it in Rust.
#[derive(Clone, Copy)]
pub(crate) struct MessageType {
    /// With its version, such as `JointState@1`.
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Field],
    /// What tells it from others on the wire.
    pub(crate) schema: fn() -> SchemaId,
    /// The bytes that a message starts from when only some of its fields are given.
    pub(crate) template: fn() -> Vec<u8>,
    /// Why a receiver could not act on these bytes, in words.
    pub(crate) validate: fn(&[u8]) -> Result<(), String>,
    pub(crate) subscribe: Subscribe,
    pub(crate) publisher: MakePublisher,
}

type Subscribe = fn(&mut NodeBuilder, &str, TopicClass) -> Result<Box<dyn Subscribed>, NodeError>;
type MakePublisher = fn(&mut NodeBuilder, &str) -> Result<Box<dyn PublishBytes>, NodeError>;

/// Others belong to programs, which subscribe through `sinew::io::node::NodeBuilder`.
pub(crate) const KNOWN: [MessageType; 5] = [
    MessageType::of::<Fault>(),
    MessageType::of::<Heartbeat>(),
    MessageType::of::<JointSetpoint>(),
    MessageType::of::<JointState>(),
    MessageType::of::<Twist>(),
];

/// A publisher of a type that is known only at run time.
pub(crate) trait PublishBytes {
    /// Sends one message, dated now. The bytes are those of a template with other values.
    fn publish(&mut self, message: &[u8]) -> Result<(), PublisherFull>;
}

impl<T: Described> PublishBytes for Publisher<T> {
    fn publish(&mut self, message: &[u8]) -> Result<(), PublisherFull> {
        let message = T::read_from_bytes(message).expect("the length of a template of this type");
        Publisher::publish(self, &message)
    }
}

impl MessageType {
    const fn of<T: Described>() -> Self {
        Self {
            name: T::NAME,
            fields: T::FIELDS,
            schema: schema_id::<T>,
            template: || T::template().as_bytes().to_vec(),
            validate: |bytes| {
                let message = T::read_from_bytes(bytes).map_err(|_| {
                    format!("it has {} bytes, and {} has {}", bytes.len(), T::NAME, size_of::<T>())
                })?;
                message.validate().map_err(|invalid| invalid.to_string())
            },
            subscribe: subscribe::<T>,
            publisher: |node, topic| Ok(Box::new(node.publisher::<T>(topic)?)),
        }
    }

    /// The type with this name, with or without its version.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        let bare = |known: &Self| known.name.split('@').next().unwrap_or_default() == name;
        KNOWN.iter().find(|known| known.name == name || bare(known))
    }

    /// The type with this number on the wire.
    pub(crate) fn with_schema(schema: SchemaId) -> Option<&'static Self> {
        KNOWN.iter().find(|known| (known.schema)() == schema)
    }

    /// The names of all types that are known.
    pub(crate) fn names() -> String {
        KNOWN.map(|known| known.name).join(", ")
    }
}
