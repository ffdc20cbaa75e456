//! Enrolment: the peers that may take part, and what each may publish.
//!
//! Built once, then only read: share it behind an `Arc`, and lanes look peers up without locks or
//! allocation.

use thiserror::Error;

use super::identity::PublicKey;
use crate::simulation::{Fault, planted};
use crate::wire::{KeyId, TopicId};

/// The most peers that one node enrols.
pub const PEERS_MAX: usize = 64;
/// The most topics that one peer may be limited to.
pub const TOPICS_MAX: usize = 64;

/// The place of a peer in the enrolment, and in every table that is laid out by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(u16);

impl PeerIndex {
    /// The `index`-th peer.
    #[must_use]
    pub const fn new(index: u16) -> Self {
        Self(index)
    }

    /// The index, for tables.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// What a peer may publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publishes {
    /// These topics and no others.
    Only(Vec<TopicId>),
    /// Every topic.
    Anything,
}

/// One enrolled peer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What people call it.
    pub name: String,
    /// Its key.
    pub key: PublicKey,
    /// What it may publish.
    pub publishes: Publishes,
}

impl Peer {
    /// Whether an envelope of this peer on `topic` is permitted. Wait-free.
    #[must_use]
    pub fn may_publish(&self, topic: TopicId) -> bool {
        match &self.publishes {
            Publishes::Anything => true,
            Publishes::Only(topics) => {
                topics.contains(&topic) || planted(Fault::PermissionNotChecked)
            }
        }
    }
}

/// Why a list of peers was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EnrolmentError {
    /// More peers than the tables have room for.
    #[error("{got} peers are enrolled; {PEERS_MAX} is the most")]
    TooManyPeers {
        /// Their number.
        got: usize,
    },
    /// More topics than the check may take time for.
    #[error("peer `{peer}` is limited to {got} topics; {TOPICS_MAX} is the most")]
    TooManyTopics {
        /// The peer's name.
        peer: String,
        /// The number of topics.
        got: usize,
    },
    /// Two peers with one key.
    #[error("peers `{first}` and `{second}` have the same key; remove one of them")]
    SameKey {
        /// The earlier peer.
        first: String,
        /// The later peer.
        second: String,
    },
    /// Two different keys with one 64-bit id: frames could not say whose they are.
    #[error("the keys of `{first}` and `{second}` have the same id {id}; make a new key for one")]
    SameId {
        /// The earlier peer.
        first: String,
        /// The later peer.
        second: String,
        /// The id.
        id: KeyId,
    },
}

/// The peers of a node: an immutable table with lookup by key id.
#[derive(Clone, Debug, Default)]
pub struct Enrolment {
    peers: Vec<Peer>,
    by_id: Vec<(KeyId, PeerIndex)>,
}

impl Enrolment {
    /// The table of these peers; their order gives their indices. Allocates.
    pub fn new(peers: Vec<Peer>) -> Result<Self, EnrolmentError> {
        if peers.len() > PEERS_MAX {
            return Err(EnrolmentError::TooManyPeers { got: peers.len() });
        }
        let mut by_id: Vec<(KeyId, PeerIndex)> = Vec::with_capacity(peers.len());
        for (index, peer) in (0..).zip(&peers) {
            if let Publishes::Only(topics) = &peer.publishes
                && topics.len() > TOPICS_MAX
            {
                let got = topics.len();
                return Err(EnrolmentError::TooManyTopics { peer: peer.name.clone(), got });
            }
            let id = peer.key.id();
            match by_id.binary_search_by_key(&id, |entry| entry.0) {
                Ok(found) => return Err(collision(&peers[by_id[found].1.get()], peer)),
                Err(place) => by_id.insert(place, (id, PeerIndex::new(index))),
            }
        }
        Ok(Self { peers, by_id })
    }

    /// The peer with this key id. Wait-free: at most 7 comparisons.
    #[must_use]
    pub fn find(&self, id: KeyId) -> Option<(PeerIndex, &Peer)> {
        let found = self.by_id.binary_search_by_key(&id, |entry| entry.0).ok()?;
        let index = self.by_id.get(found)?.1;
        Some((index, self.peers.get(index.get())?))
    }

    /// The peer at `index`.
    #[must_use]
    pub fn get(&self, index: PeerIndex) -> Option<&Peer> {
        self.peers.get(index.get())
    }

    /// All peers, in the order of their indices.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (PeerIndex, &Peer)> {
        self.peers.iter().enumerate().map(|(index, peer)| (PeerIndex::new(index as u16), peer))
    }

    /// The number of peers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody is enrolled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}

fn collision(first: &Peer, second: &Peer) -> EnrolmentError {
    let (id, same) = (second.key.id(), first.key == second.key);
    let (first, second) = (first.name.clone(), second.name.clone());
    match same {
        true => EnrolmentError::SameKey { first, second },
        false => EnrolmentError::SameId { first, second, id },
    }
}
