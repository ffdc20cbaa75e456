//! What a node costs that has nothing to do: a process of its own, watched from outside.

use sinew_io::node::{Node, PeerConfig, RealTimeConfig};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::wait::Wait;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use super::super::interrupted;
use super::super::report::Run;
use super::PipelineArgs;
use super::crew::{Agent, Stopped};
use super::mesh::identity;
use super::order::{Answer, End, Role};
use crate::exit::{Exit, Failure, Outcome};

/// Share of a core, resident bytes and threads that are allowed.
const CPU_SHARE_MAX: f64 = 0.003;
const RESIDENT_MAX: u64 = 10_000_000;
const THREADS_MAX: u64 = 8;

pub(super) fn serve() -> Outcome {
    Ok(Exit::Done)
}

pub(super) fn measure(
    _args: &PipelineArgs,
    _cores: &super::Cores,
    _run: &mut Run,
) -> Result<(), Failure> {
    Ok(())
}
