//! When two processes measure: bursts at instants of `CLOCK_MONOTONIC` that both were told, and the
//! send times within them.
//!
//! Everything that spins spins within a burst, and a burst is shorter than what the kernel lets a
//! real-time thread run at a time, so no mistake elsewhere can take a core away for good.

use serde::{Deserialize, Serialize};
use sinew_rt::clock::{self, Nanos};

/// The longest burst in which threads may spin: real-time throttling begins at 0.95 s in a second.
pub(crate) const SPIN_MAX: Nanos = Nanos::from_millis(800);
/// The shortest pause after a burst of spinning.
pub(crate) const PAUSE_MIN: Nanos = Nanos::from_millis(200);

/// Nothing is sent so soon after the start of a burst: both ends are up by then.
const LEAD: Nanos = Nanos::from_millis(2);
/// Nothing is sent so shortly before the end of a burst: what was sent arrives within it.
const TAIL: Nanos = Nanos::from_millis(2);

/// Messages of a leg before those that are counted: sockets, caches and branch predictors have seen
/// everything once.
pub(crate) const WARM_UP: u64 = 20;

/// Bursts of equal length at equal distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bursts {
    /// Length of a burst in ns.
    pub(crate) on_ns: i64,
    /// From the start of one burst to the start of the next, in ns.
    pub(crate) every_ns: i64,
    /// How many there are.
    pub(crate) count: i64,
}

/// When a receiver does nothing for a while, to see what becomes of the messages meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stall {
    /// After the start of the leg, in ns.
    pub(crate) after_ns: i64,
    /// For so long, in ns.
    pub(crate) for_ns: i64,
}

impl Stall {
    /// Sleeps if it is time to, once: `stall` is taken.
    #[inline]
    pub(crate) fn pause(stall: &mut Option<Self>, start: Nanos, now: Nanos) {
        if let Some(due) = stall.take_if(|stall| now >= start + Nanos::new(stall.after_ns)) {
            clock::sleep_until(now + Nanos::new(due.for_ns));
        }
    }
}

/// Where an instant lies among bursts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    /// Before the burst that starts at this instant.
    Pause(Nanos),
    /// In the burst that ends at this instant.
    Burst(Nanos),
    /// After the last burst.
    Over,
}

impl Bursts {
    /// Bursts in which threads may spin, of `on` or less, `total` together.
    pub(crate) fn spinning(on: Nanos, total: Nanos) -> Self {
        Self::new(on.min(SPIN_MAX), PAUSE_MIN, total)
    }

    /// One long burst in which nobody spins.
    pub(crate) fn single(total: Nanos) -> Self {
        Self::new(total, Nanos::from_millis(20), total)
    }

    fn new(on: Nanos, pause: Nanos, total: Nanos) -> Self {
        let on_ns = on.as_nanos().max((LEAD + TAIL).as_nanos());
        let count = (total.as_nanos() + on_ns - 1) / on_ns;
        Self { on_ns, every_ns: on_ns + pause.as_nanos(), count: count.max(1) }
    }

    /// Where `now` lies when the first burst starts at `start`.
    pub(crate) fn window(&self, start: Nanos, now: Nanos) -> Window {
        let since = (now - start).as_nanos();
        if since < 0 {
            return Window::Pause(start);
        }
        let (burst, within) = (since / self.every_ns, since % self.every_ns);
        let at = |burst: i64| start + Nanos::new(burst * self.every_ns);
        if burst >= self.count {
            Window::Over
        } else if within < self.on_ns {
            Window::Burst(at(burst) + Nanos::new(self.on_ns))
        } else if burst + 1 < self.count {
            Window::Pause(at(burst + 1))
        } else {
            Window::Over
        }
    }

    /// From the start of the first burst to the end of the last.
    pub(crate) fn span(&self) -> Nanos {
        Nanos::new((self.count - 1) * self.every_ns + self.on_ns)
    }

    /// The part of the burst that starts at `burst` in which messages are sent.
    fn sends(&self, start: Nanos, burst: i64) -> (Nanos, Nanos) {
        let at = start + Nanos::new(burst * self.every_ns);
        (at + LEAD, at + Nanos::new(self.on_ns) - TAIL)
    }
}

/// The scheduled send times: every `interval` within bursts, whatever happens to the messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks {
    bursts: Bursts,
    start: Nanos,
    interval: Nanos,
    burst: i64,
    tick: i64,
}

impl Ticks {
    pub(crate) fn new(bursts: Bursts, start: Nanos, interval: Nanos) -> Self {
        Self { bursts, start, interval, burst: 0, tick: 0 }
    }
}

impl Iterator for Ticks {
    type Item = Nanos;

    #[inline]
    fn next(&mut self) -> Option<Nanos> {
        while self.burst < self.bursts.count {
            let (from, until) = self.bursts.sends(self.start, self.burst);
            let due = from + self.interval * self.tick;
            if due < until {
                self.tick += 1;
                return Some(due);
            }
            self.burst += 1;
            self.tick = 0;
        }
        None
    }
}

/// When the first message of each burst is sent, and until when others follow their answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Volleys {
    bursts: Bursts,
    start: Nanos,
    burst: i64,
}

impl Volleys {
    pub(crate) fn new(bursts: Bursts, start: Nanos) -> Self {
        Self { bursts, start, burst: 0 }
    }
}

impl Iterator for Volleys {
    type Item = (Nanos, Nanos);

    fn next(&mut self) -> Option<(Nanos, Nanos)> {
        let burst = self.burst;
        self.burst += 1;
        (burst < self.bursts.count).then(|| self.bursts.sends(self.start, burst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Nanos = Nanos::from_secs(100);

    #[test]
    fn spinning_bursts_leave_room_for_others_and_add_up() {
        let bursts = Bursts::spinning(Nanos::from_secs(9), Nanos::from_millis(2_000));
        assert_eq!(bursts.count, 3);
        assert!(bursts.on_ns <= SPIN_MAX.as_nanos());
        assert!(bursts.every_ns - bursts.on_ns >= PAUSE_MIN.as_nanos());
    }

    #[test]
    fn an_instant_is_in_a_burst_or_waits_for_the_next_or_all_is_over() {
        let bursts = Bursts::spinning(Nanos::from_millis(100), Nanos::from_millis(200));
        let at = |ms| bursts.window(START, START + Nanos::from_millis(ms));
        assert_eq!(at(-1), Window::Pause(START));
        assert_eq!(at(0), Window::Burst(START + Nanos::from_millis(100)));
        assert_eq!(at(99), Window::Burst(START + Nanos::from_millis(100)));
        assert_eq!(at(100), Window::Pause(START + Nanos::from_millis(300)));
        assert_eq!(at(399), Window::Burst(START + Nanos::from_millis(400)));
        assert_eq!(at(400), Window::Over);
        assert_eq!(at(10_000), Window::Over);
        assert_eq!(bursts.span(), Nanos::from_millis(400));
    }

    #[test]
    fn every_send_time_lies_within_a_burst_at_its_distance() {
        let bursts = Bursts::spinning(Nanos::from_millis(50), Nanos::from_millis(150));
        let interval = Nanos::from_micros(997);
        let ticks: Vec<_> = Ticks::new(bursts, START, interval).collect();
        assert_eq!(ticks.len(), 3 * 47, "46 ms at 997 µs in each of three bursts");
        for due in &ticks {
            assert!(matches!(bursts.window(START, *due), Window::Burst(end) if *due < end));
        }
        for pair in ticks.windows(2) {
            let distance = pair[1] - pair[0];
            assert!(distance == interval || distance > PAUSE_MIN, "{distance}");
        }
        assert_eq!(Volleys::new(bursts, START).count(), 3);
    }
}
