//! The node's log: what its stages tell, made into lines on the housekeeping thread.
//!
//! Each stage has two short rings, one for its overruns and one for drops; what does not fit is counted
//! and said. Nothing here runs on a lane but the sending of a record of 48 bytes.

use crate::delivery::DropReason;
use crate::pipeline::Drops;
use crate::pipeline::resend::ReliableSend;
use sinew_rt::clock::Nanos;
use sinew_rt::lane;
use sinew_rt::log::{self, Line, LogReader, LogSender, RateLimit};
use sinew_rt::panel::Counter;
use sinew_rt::supervisor::Hang;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Of a stage's overruns, and of its hangs, one line a minute, and how many more there were: the panel
/// has the rest.
const STAGE_LIMIT: RateLimit = RateLimit { lines: 1, window: Nanos::from_secs(60) };

/// Of first drops, so that somebody who tries out one reason after the other fills no disk. There is
/// one for each reason and source at most.
const DROPS_LIMIT: RateLimit = RateLimit { lines: 8, window: Nanos::from_secs(1) };

/// Takes the lines in.
pub(super) type Sink = Box<dyn FnMut(Line) + Send>;

/// Everything that tells something.
pub(super) struct Log {
    /// By stage: its probe in the panel, and what its lane tells of it.
    stages: Vec<(String, LogReader)>,
    /// Of stages that drop, and of the one that sends.
    drops: Vec<LogReader>,
    sink: Sink,
}

impl Log {
    pub(super) fn new(sink: Sink) -> Self {
        Self { stages: Vec::new(), drops: Vec::new(), sink }
    }

    /// The lane's end for the overruns of the stage with this probe.
    pub(super) fn stage(&mut self, lane: &str, probe: &str) -> LogSender {
        let (sender, reader) = lane::stage_log(&format!("{lane}/{probe}"), STAGE_LIMIT);
        self.stages.push((probe.to_owned(), reader));
        sender
    }

    /// A stage's end for the first drop of each kind.
    pub(super) fn drops(
        &mut self,
        source: &str,
        reasons: &'static [DropReason],
        peers: &[String],
    ) -> LogSender {
        let (sender, reader) = Drops::log(source, DROPS_LIMIT, reasons, peers);
        self.drops.push(reader);
        sender
    }

    /// Takes in what the send stage tells of readers that disagree about a topic.
    pub(super) fn reports(
        &mut self,
        source: &str,
        peers: &[String],
        topics: Vec<String>,
        reliable: &mut ReliableSend,
    ) {
        self.drops.push(reliable.make_log(source, DROPS_LIMIT, peers, topics));
    }

    /// Tells of a stage that hangs, or of a control loop, whose probe is not one of ours.
    pub(super) fn hang(&mut self, hang: &Hang, now: Nanos) {
        let known = self.stages.iter().position(|(probe, _)| *probe == hang.probe);
        let stage = known.unwrap_or_else(|| {
            let (_, reader) = log::channel(&hang.probe, 1, STAGE_LIMIT);
            self.stages.push((hang.probe.clone(), reader));
            self.stages.len() - 1
        });
        hang.note(now, &mut self.stages[stage].1, &mut self.sink);
    }

    /// Tells a line that housekeeping has made itself.
    pub(super) fn tell(&mut self, line: Line) {
        (self.sink)(line);
    }

    /// Tells what has come.
    pub(super) fn drain(&mut self, now: Nanos) {
        let Self { stages, drops, sink } = self;
        for reader in stages.iter_mut().map(|(_, reader)| reader).chain(drops) {
            reader.drain(now, &mut *sink);
        }
    }

    /// Tells what has come, and what was held back.
    pub(super) fn finish(&mut self, now: Nanos) {
        let Self { stages, drops, sink } = self;
        for reader in stages.iter_mut().map(|(_, reader)| reader).chain(drops) {
            reader.finish(now, &mut *sink);
        }
    }
}

/// Prints the lines of the node `name` on the standard error, unless that would block: housekeeping
/// must not wait for whoever has stopped reading it. What was not printed is counted in `lost`.
pub(super) fn stderr(name: String, lost: Counter) -> Sink {
    Box::new(move |line| {
        let text = format!("{name} {line}\n");
        if !write_if_ready(io::stderr().as_fd(), text.as_bytes()) {
            lost.increment();
        }
    })
}

/// Writes all of `bytes` if that does not block; they must fit what a pipe that is ready takes
/// (PIPE_BUF, pipe(7)).
fn write_if_ready(to: BorrowedFd<'_>, bytes: &[u8]) -> bool {
    if bytes.len() > libc::PIPE_BUF {
        return false;
    }
    let fd = to.as_raw_fd();
    let mut ready = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: poll(2) reads and writes this one structure; it does not wait.
    let count = unsafe { libc::poll(&raw mut ready, 1, 0) };
    if count != 1 || ready.revents & libc::POLLOUT == 0 {
        return false;
    }
    // SAFETY: write(2) reads these bytes, which live until it returns.
    let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(written) == Ok(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_reader_that_has_stopped_reading_costs_lines_and_no_wait() {
        let (mut reader, writer) = io::pipe().unwrap();
        let line = [b'x'; 100];
        // A pipe holds 64 KiB unless somebody changed that (pipe(7)); a megabyte is the most.
        let printed = (0..20_000).take_while(|_| write_if_ready(writer.as_fd(), &line)).count();
        assert!((1..20_000).contains(&printed), "{printed}");
        let mut bytes = vec![0; printed * line.len()];
        reader.read_exact(&mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == b'x'));
        assert!(write_if_ready(writer.as_fd(), &line), "and goes on when it is read again");
        drop(reader);
        assert!(!write_if_ready(writer.as_fd(), &line), "nobody reads any more");
    }
}
