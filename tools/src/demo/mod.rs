//! `sinew demo`: a robot and its controller as two processes.

// Used by the demo's processes, which come with the node.
#![cfg_attr(not(test), expect(dead_code))]

mod lqr;
pub(crate) mod pilot;
pub(crate) mod plant;
