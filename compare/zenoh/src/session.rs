//! A Zenoh session that knows nobody but the other end.

use std::time::Duration;
use zenoh::{Config, Session, Wait};

use crate::{EndArgs, Failure, placement};

/// How much longer than its measurement a process may live, whatever happens.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which end of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Listens,
    Connects,
}

/// Makes this process end with its parent and in bounded time, schedules it as asked, opens the session.
pub(crate) fn open(end: &EndArgs, side: Side) -> Result<Session, Failure> {
    // SAFETY: no pointers; the kernel reads one signal number.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(Failure::system("prctl"));
    }
    let bound = Duration::from_secs(end.seconds.into()) + PATIENCE;
    // Above the threads that it watches over, so that it runs even if one of them keeps its core.
    placement::apply(end.fifo.map(|priority| priority + 1), None)?;
    std::thread::spawn(move || {
        std::thread::sleep(bound);
        eprintln!("sinew-compare-zenoh: not done after {bound:?}: given up");
        std::process::exit(3);
    });
    placement::apply(end.fifo, end.core)?;
    zenoh::open(config(end, side)?).wait().map_err(Failure::zenoh)
}

fn config(end: &EndArgs, side: Side) -> Result<Config, Failure> {
    let endpoint = format!("[\"{}\"]", end.endpoint);
    let (listen, connect) = match side {
        Side::Listens => (endpoint.as_str(), "[]"),
        Side::Connects => ("[]", endpoint.as_str()),
    };
    let mut config = Config::default();
    for (key, value) in [
        ("mode", "\"peer\""),
        ("scouting/multicast/enabled", "false"),
        ("listen/endpoints", listen),
        ("connect/endpoints", connect),
    ] {
        config.insert_json5(key, value).map_err(Failure::zenoh)?;
    }
    Ok(config)
}
