//! Deferred log records: a lane pushes numbers and a static template, housekeeping makes the text.
//!
//! ```
//! use sinew_rt::clock::Nanos;
//! use sinew_rt::log::{self, RateLimit, Severity, Template};
//!
//! static LATE: Template = Template::new(Severity::Warn, "stage took {ns} of {ns}");
//!
//! let (mut sender, mut reader) = log::channel("lane-0", 256, RateLimit::default());
//! sender.send(Nanos::from_millis(3), &LATE, [61_000, 50_000, 0, 0]); // on the lane
//!
//! let mut lines = Vec::new();
//! reader.drain(Nanos::from_millis(5), |line| lines.push(line.to_string()));
//! assert_eq!(lines, ["[0.003000] warn lane-0: stage took 61.0 µs of 50.0 µs"]);
//! ```
//!
//! Nothing disappears silently: records that found the ring full are counted and reported by the
//! next [`LogReader::drain`], and so are the ones that the rate limit held back, per template and
//! with their number.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Nanos;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// For the curious.
    Debug,
    /// Worth a line.
    Info,
    /// Should not happen, and was handled.
    Warn,
    /// Something was lost or stopped.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

/// Values that a record carries.
pub const VALUES: usize = 4;

/// A line with up to [`VALUES`] places for values: `{}` for a number, `{ns}` for a length of time in
/// nanoseconds, `{name}` for a number that stands for one of the reader's
/// [names](LogReader::with_names). Always a `static`: lanes send its address.
#[derive(Debug)]
pub struct Template {
    severity: Severity,
    text: &'static str,
}

impl Template {
    /// A template; in a `static`, a wrong one is an error at compile time.
    ///
    /// # Panics
    /// When `text` has more than [`VALUES`] places, or one that is none of the three.
    #[must_use]
    pub const fn new(severity: Severity, text: &'static str) -> Self {
        let bytes = text.as_bytes();
        let (mut places, mut i) = (0, 0);
        while i < bytes.len() {
            if bytes[i] == b'{' {
                places += 1;
                let (_, rest) = bytes.split_at(i + 1);
                let known = matches!(rest, [b'}', ..] | [b'n', b's', b'}', ..])
                    || matches!(rest, [b'n', b'a', b'm', b'e', b'}', ..]);
                assert!(known, "a place is {{}}, {{ns}} or {{name}}");
            }
            i += 1;
        }
        assert!(places <= VALUES, "a template has at most 4 places for values");
        Self { severity, text }
    }

    /// The text with an ellipsis for each value.
    fn shape(&self) -> String {
        self.text.replace("{ns}", "…").replace("{name}", "…").replace("{}", "…")
    }
}

/// What goes through the ring: 48 bytes, no ownership.
#[derive(Clone, Copy, Debug)]
struct Record {
    at: Nanos,
    template: &'static Template,
    values: [i64; VALUES],
}

/// The lane's end. `Send`, one per lane.
#[derive(Debug)]
pub struct LogSender {
    ring: rtrb::Producer<Record>,
    lost: Arc<AtomicU64>,
}

impl LogSender {
    /// Sends one record; `false` when the ring was full, and then the loss is counted. Wait-free, no
    /// system call, no allocation.
    #[inline]
    pub fn send(&mut self, at: Nanos, template: &'static Template, values: [i64; VALUES]) -> bool {
        let sent = self.ring.push(Record { at, template, values }).is_ok();
        if !sent {
            // This thread is the only writer.
            self.lost.store(self.lost.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        sent
    }
}

/// At most `lines` of each template per `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Lines per template and window; 0 holds back all but the summaries.
    pub lines: u32,
    /// Length of a window. It begins with the first line of a template.
    pub window: Nanos,
}

impl Default for RateLimit {
    /// Five lines per template and second.
    fn default() -> Self {
        Self { lines: 5, window: Nanos::from_secs(1) }
    }
}

/// The housekeeping end.
#[derive(Debug)]
pub struct LogReader {
    source: String,
    ring: rtrb::Consumer<Record>,
    lost: Arc<AtomicU64>,
    lost_reported: u64,
    limit: RateLimit,
    names: Vec<String>,
    /// One per template ever seen; as many as the program has.
    windows: Vec<Window>,
}

#[derive(Debug)]
struct Window {
    template: &'static Template,
    began: Nanos,
    shown: u32,
    suppressed: u64,
}

/// One line for people, made of a record or of a count of missing ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it happened.
    pub at: Nanos,
    /// How much it matters.
    pub severity: Severity,
    /// The lane.
    pub source: String,
    /// The text.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, severity, source, text } = self;
        write!(f, "[{:.6}] {severity} {source}: {text}", at.as_secs_f64())
    }
}

/// A ring for `capacity` records from the lane `source`. Allocates: call before start.
#[must_use]
pub fn channel(source: &str, capacity: usize, limit: RateLimit) -> (LogSender, LogReader) {
    let (producer, ring) = rtrb::RingBuffer::new(capacity);
    let lost = Arc::new(AtomicU64::new(0));
    let sender = LogSender { ring: producer, lost: Arc::clone(&lost) };
    let (source, names, windows) = (source.to_owned(), Vec::new(), Vec::new());
    (sender, LogReader { source, ring, lost, lost_reported: 0, limit, names, windows })
}

impl LogReader {
    /// What the numbers in places `{name}` stand for, from 0 on.
    #[must_use]
    pub fn with_names(mut self, names: Vec<String>) -> Self {
        self.names = names;
        self
    }

    /// Formats what has arrived and hands it to `emit`, line by line: at most one ring full of
    /// records, then what was suppressed in windows that are over, then what was lost. Allocates:
    /// never on a lane.
    pub fn drain(&mut self, now: Nanos, mut emit: impl FnMut(Line)) {
        // A sender that keeps up with us must not hold us here for ever.
        for _ in 0..self.ring.buffer().capacity() {
            let Ok(record) = self.ring.pop() else { break };
            self.take(&record, &mut emit);
        }
        self.close_windows(now, false, &mut emit);
        self.report_losses(now, &mut emit);
    }

    /// Takes in a record of this end's own, as if the lane had sent it: what only housekeeping can
    /// know of the lane. Allocates.
    pub fn note(
        &mut self,
        at: Nanos,
        template: &'static Template,
        values: [i64; VALUES],
        mut emit: impl FnMut(Line),
    ) {
        self.take(&Record { at, template, values }, &mut emit);
    }

    /// [`drain`](Self::drain), and then reports every suppressed record without waiting for the end
    /// of its window: at shutdown.
    pub fn finish(&mut self, now: Nanos, mut emit: impl FnMut(Line)) {
        self.drain(now, &mut emit);
        self.close_windows(now, true, &mut emit);
    }

    /// Whether the lane's end is gone; what it sent can still be drained.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }

    fn line(&self, at: Nanos, severity: Severity, text: String) -> Line {
        Line { at, severity, source: self.source.clone(), text }
    }

    fn take(&mut self, record: &Record, emit: &mut impl FnMut(Line)) {
        if self.admits(record, emit) {
            emit(self.line(record.at, record.template.severity, self.fill(record)));
        }
    }

    /// The template with its places filled in order.
    fn fill(&self, record: &Record) -> String {
        let mut text = String::new();
        let mut rest = record.template.text;
        for value in record.values {
            let Some((before, place)) = rest.split_once('{') else { break };
            let (place, after) = place.split_once('}').unwrap_or((place, ""));
            let name = usize::try_from(value).ok().and_then(|n| self.names.get(n));
            text.push_str(before);
            match (place, name) {
                ("ns", _) => text.push_str(&Nanos::new(value).to_string()),
                ("name", Some(name)) => text.push_str(name),
                _ => text.push_str(&value.to_string()),
            }
            rest = after;
        }
        text.push_str(rest);
        text
    }

    /// Counts the record against its template's window, which begins anew when it is over.
    fn admits(&mut self, record: &Record, emit: &mut impl FnMut(Line)) -> bool {
        let template = record.template;
        let known = self.windows.iter().position(|w| std::ptr::eq(w.template, template));
        let index = known.unwrap_or_else(|| {
            let began = record.at;
            self.windows.push(Window { template, began, shown: 0, suppressed: 0 });
            self.windows.len() - 1
        });
        if record.at - self.windows[index].began >= self.limit.window {
            self.close(index, record.at, emit);
        }
        let window = &mut self.windows[index];
        if window.shown < self.limit.lines {
            window.shown += 1;
            true
        } else {
            window.suppressed += 1;
            false
        }
    }

    fn close_windows(&mut self, now: Nanos, all: bool, emit: &mut impl FnMut(Line)) {
        for index in 0..self.windows.len() {
            if all || now - self.windows[index].began >= self.limit.window {
                self.close(index, now, emit);
            }
        }
    }

    /// Ends a window, saying what it held back, and begins the next one at `at`.
    fn close(&mut self, index: usize, at: Nanos, emit: &mut impl FnMut(Line)) {
        let Window { template, began, suppressed, .. } = self.windows[index];
        self.windows[index] = Window { template, began: at, shown: 0, suppressed: 0 };
        if suppressed > 0 {
            let text = format!("{suppressed} more in {} like \"{}\"", at - began, template.shape());
            emit(self.line(at, template.severity, text));
        }
    }

    fn report_losses(&mut self, now: Nanos, emit: &mut impl FnMut(Line)) {
        let lost = self.lost.load(Ordering::Relaxed);
        let new = lost - self.lost_reported;
        if new > 0 {
            self.lost_reported = lost;
            let text = format!(
                "{new} records lost, {lost} in all: the ring of {} was full",
                self.ring.buffer().capacity()
            );
            emit(self.line(now, Severity::Warn, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static OVERRUN: Template = Template::new(Severity::Warn, "{} of {} ns");
    static PLAIN: Template = Template::new(Severity::Info, "started");
    static FULL: Template = Template::new(Severity::Error, "{}{}, {} and {}.");

    fn ms(ms: i64) -> Nanos {
        Nanos::from_millis(ms)
    }

    fn drain(reader: &mut LogReader, now: Nanos) -> Vec<String> {
        let mut texts = Vec::new();
        reader.drain(now, |line| texts.push(line.text));
        texts
    }

    #[test]
    fn values_go_to_their_places_in_order() {
        let (mut sender, mut reader) = channel("lane", 8, RateLimit::default());
        assert!(sender.send(ms(1), &OVERRUN, [-7, i64::MAX, 0, 0]));
        assert!(sender.send(ms(2), &PLAIN, [1, 2, 3, 4]));
        assert!(sender.send(ms(3), &FULL, [1, 2, 3, 4]));
        assert_eq!(
            drain(&mut reader, ms(4)),
            ["-7 of 9223372036854775807 ns", "started", "12, 3 and 4."]
        );
        assert_eq!(drain(&mut reader, ms(5)), [""; 0]);
    }

    #[test]
    fn lengths_of_time_and_names_are_written_out() {
        static NAMED: Template = Template::new(Severity::Info, "{name} for {ns}, not {name} or {}");
        let (mut sender, reader) = channel("lane", 8, RateLimit::default());
        let mut reader = reader.with_names(vec!["here".to_owned()]);
        assert!(sender.send(ms(1), &NAMED, [0, 1_500_000, -1, 7]));
        assert_eq!(drain(&mut reader, ms(2)), ["here for 1.500 ms, not -1 or 7"]);
    }

    #[test]
    fn what_the_reader_notes_itself_counts_against_the_same_limit() {
        let limit = RateLimit { lines: 2, window: ms(100) };
        let (mut sender, mut reader) = channel("lane", 8, limit);
        let mut texts = Vec::new();
        for n in 0..2 {
            assert!(sender.send(ms(n), &PLAIN, [0; VALUES]));
            reader.note(ms(n), &PLAIN, [0; VALUES], |line| texts.push(line.text));
        }
        assert_eq!(texts, ["started", "started"]);
        let summary = "2 more in 100.000 ms like \"started\"";
        assert_eq!(drain(&mut reader, ms(100)), [summary]);
        static VARIED: Template = Template::new(Severity::Info, "{name} took {ns}, {} times");
        assert_eq!(VARIED.shape(), "… took …, … times", "values differ from record to record");
    }

    #[test]
    fn a_full_ring_counts_what_it_loses_and_says_so_once() {
        let (mut sender, mut reader) = channel("lane", 2, RateLimit::default());
        let sent = (0..7).filter(|i| sender.send(ms(*i), &PLAIN, [0; VALUES])).count();
        assert_eq!(sent, 2);
        let lost = "5 records lost, 5 in all: the ring of 2 was full";
        assert_eq!(drain(&mut reader, ms(8)), ["started", "started", lost]);
        assert!(drain(&mut reader, ms(9)).is_empty());
    }

    #[test]
    fn every_record_is_shown_or_counted_as_suppressed() {
        let limit = RateLimit { lines: 2, window: ms(100) };
        let (mut sender, mut reader) = channel("lane", 2_000, limit);
        // One record a millisecond for a second, drained at odd moments.
        let (mut shown, mut suppressed) = (0, 0);
        let mut count = |line: Line| match line.text.split_once(" more in ") {
            Some((n, _)) => suppressed += n.parse::<u64>().expect("a number"),
            None => shown += 1,
        };
        for i in 0..1_000 {
            assert!(sender.send(ms(i), &OVERRUN, [i, 0, 0, 0]));
            if i % 37 == 0 {
                reader.drain(ms(i), &mut count);
            }
        }
        reader.finish(ms(1_000), &mut count);
        assert_eq!(shown + suppressed, 1_000);
        // Windows begin with a record, so there are at most ten of them and one for the remainder.
        assert!((2 * 9..=2 * 11).contains(&shown), "{shown} shown");
    }

    #[test]
    fn one_noisy_template_does_not_silence_another() {
        let limit = RateLimit { lines: 1, window: ms(100) };
        let (mut sender, mut reader) = channel("lane", 100, limit);
        for _ in 0..50 {
            assert!(sender.send(ms(1), &OVERRUN, [0; VALUES]));
        }
        assert!(sender.send(ms(2), &PLAIN, [0; VALUES]));
        assert_eq!(drain(&mut reader, ms(3)), ["0 of 0 ns", "started"]);
        let summary = "49 more in 100.000 ms like \"… of … ns\"";
        assert_eq!(drain(&mut reader, ms(101)), [summary]);
    }

    #[test]
    fn what_a_finished_lane_sent_is_still_read() {
        let (mut sender, mut reader) = channel("lane", 4, RateLimit::default());
        assert!(sender.send(ms(1), &PLAIN, [0; VALUES]));
        drop(sender);
        assert!(reader.is_abandoned());
        assert_eq!(drain(&mut reader, ms(2)), ["started"]);
    }
}
