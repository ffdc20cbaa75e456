//! The safety states of a control loop, as one table.
//!
//! A loop moves only while running or degraded. What goes wrong leads to
//! [`SafeStop`](State::SafeStop), which latches: nothing but a re-arm that somebody authorised
//! leaves it. Not the end of the cause, not fresh input, not a start or stop request.
//!
//! **This is not a certified safety function.** It is software on a general-purpose computer: a
//! crashed kernel, a stuck core or a cut cable stops it too. Drives need a command timeout of their
//! own, and the machine an emergency stop in hardware (ISO 13850, IEC 60204-1).

use std::fmt;

/// What a loop is allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum State {
    /// Not started yet, or stopped on request. Outputs are safe.
    Idle = 0,
    /// Normal motion.
    Running = 1,
    /// Moving, but budgets were missed repeatedly.
    DegradedTiming = 2,
    /// Moving, but an input is stale or was never received.
    DegradedInput = 3,
    /// Moving, with both troubles at once; either may end before the other.
    DegradedBoth = 4,
    /// Outputs are safe and stay so until an authorised re-arm.
    SafeStop = 5,
}

impl State {
    /// Every state, in the order of their codes.
    pub const ALL: [Self; 6] = [
        Self::Idle,
        Self::Running,
        Self::DegradedTiming,
        Self::DegradedInput,
        Self::DegradedBoth,
        Self::SafeStop,
    ];

    /// The number that messages and the instrument panel carry.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The state with this number. For a number that is no state, assume that its sender does not
    /// move.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }

    /// Whether the loop's body may command motion.
    #[must_use]
    pub const fn may_move(self) -> bool {
        !matches!(self, Self::Idle | Self::SafeStop)
    }

    /// Whether it moves with less than everything in order.
    #[must_use]
    pub const fn is_degraded(self) -> bool {
        matches!(self, Self::DegradedTiming | Self::DegradedInput | Self::DegradedBoth)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::DegradedTiming => "degraded (timing)",
            Self::DegradedInput => "degraded (input)",
            Self::DegradedBoth => "degraded (timing and input)",
            Self::SafeStop => "safe stop",
        })
    }
}

/// The permission to leave one particular safe stop.
///
/// It can be neither copied nor made by accident: whoever calls [`authorise`](Self::authorise)
/// asserts that a person, or a rule that a person approved, looked at the cause of *that* stop and
/// found the machine clear. It does not open a stop that happened since. For a request from the
/// network, check the sender's role first.
#[derive(Debug, PartialEq, Eq)]
pub struct RearmToken {
    stop: u64,
}

impl RearmToken {
    /// Takes the responsibility for leaving stop number `stop`, as [`Safety::stops`] counts them
    /// from 1.
    #[must_use]
    pub const fn authorise(stop: u64) -> Self {
        Self { stop }
    }

    /// The stop that may be left.
    #[must_use]
    pub const fn stop(&self) -> u64 {
        self.stop
    }
}

/// What can happen to a loop.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The set-up and the self-test of the safe-stop path succeeded.
    Start,
    /// A budget or deadline was missed, within what the ladder tolerates.
    TimingLate,
    /// The ladder's second rung: missed repeatedly.
    TimingDegraded,
    /// The ladder's last rung.
    TimingSafeStop,
    /// Budgets have been met for long enough.
    TimingRecovered,
    /// Every input that the cycle read was fresh.
    InputFresh,
    /// An input was older than its maximum age, or was never received.
    InputStale,
    /// An input was older than its deadline.
    InputLost,
    /// The supervisor found the body inside one cycle for longer than its hard limit.
    Hang,
    /// The body panicked.
    Panic,
    /// The body asked for a safe stop itself.
    Tripped,
    /// Somebody asked the loop to end.
    StopRequested,
    /// Somebody asked to leave the safe stop, with permission or without.
    Rearm(Option<RearmToken>),
}

use State::{
    DegradedBoth as DB, DegradedInput as DI, DegradedTiming as DT, Idle as ID, Running as RU,
    SafeStop as ST,
};

/// The state that follows each state (columns, in the order of [`State::ALL`]) on one event.
type Row = [State; 6];

impl Event {
    #[rustfmt::skip]
    const fn row(&self) -> Row {
        match self {
            //                           idle  run  timing input both  stop
            Self::Start               => [RU,  RU,  DT,    DI,   DB,   ST],
            Self::TimingLate          => [ID,  RU,  DT,    DI,   DB,   ST],
            Self::TimingDegraded      => [ID,  DT,  DT,    DB,   DB,   ST],
            Self::TimingRecovered     => [ID,  RU,  RU,    DI,   DI,   ST],
            Self::InputFresh          => [ID,  RU,  DT,    RU,   DT,   ST],
            Self::InputStale          => [ID,  DI,  DB,    DI,   DB,   ST],
            Self::StopRequested       => [ID,  ID,  ID,    ID,   ID,   ST],
            Self::TimingSafeStop
            | Self::InputLost
            | Self::Hang
            | Self::Panic
            | Self::Tripped           => [ST,  ST,  ST,    ST,   ST,   ST],
            Self::Rearm(None)         => [ID,  RU,  DT,    DI,   DB,   ST],
            Self::Rearm(Some(_))      => [ID,  RU,  DT,    DI,   DB,   RU],
        }
    }
}

/// Why a loop stands in safe stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum StopCause {
    /// The trip ladder's last rung: budgets were missed too often.
    Timing = 1,
    /// An input was older than its deadline.
    InputLost = 2,
    /// The body was inside one cycle for longer than its hard limit.
    Hang = 3,
    /// The body panicked.
    Panic = 4,
    /// The body asked for it.
    Tripped = 5,
}

impl StopCause {
    const fn of(event: &Event) -> Option<Self> {
        match event {
            Event::TimingSafeStop => Some(Self::Timing),
            Event::InputLost => Some(Self::InputLost),
            Event::Hang => Some(Self::Hang),
            Event::Panic => Some(Self::Panic),
            Event::Tripped => Some(Self::Tripped),
            _ => None,
        }
    }

    /// The number that the instrument panel carries.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The cause with this number; `None` for 0 and for numbers of another version.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Timing),
            2 => Some(Self::InputLost),
            3 => Some(Self::Hang),
            4 => Some(Self::Panic),
            5 => Some(Self::Tripped),
            _ => None,
        }
    }
}

impl fmt::Display for StopCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timing => "this loop or what feeds it missed its budgets too often",
            Self::InputLost => "an input is older than its deadline",
            Self::Hang => "this loop or what feeds it ran longer than its hard limit",
            Self::Panic => "this loop or what feeds it panicked",
            Self::Tripped => "the body asked for it",
        })
    }
}

/// One loop's safety state, and why it stopped. Every operation is wait-free.
#[derive(Debug)]
pub struct Safety {
    state: State,
    cause: Option<StopCause>,
    stops: u64,
}

impl Default for Safety {
    fn default() -> Self {
        Self::new()
    }
}

impl Safety {
    /// Idle.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::Idle, cause: None, stops: 0 }
    }

    /// The present state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Why the loop stands in safe stop: the first cause, not what followed from it. A panic or a
    /// hang that comes later takes its place, and is a stop with a number of its own.
    #[must_use]
    pub const fn cause(&self) -> Option<StopCause> {
        self.cause
    }

    /// How often safe stop was entered, or got a worse cause. It numbers the stops, so that a re-arm can be held to the
    /// one that its author saw.
    #[must_use]
    pub const fn stops(&self) -> u64 {
        self.stops
    }

    /// Follows the table, and returns the state from before. A re-arm for another stop than the
    /// present one is one without permission.
    pub fn apply(&mut self, event: Event) -> State {
        let event = match event {
            Event::Rearm(Some(token)) if token.stop != self.stops => Event::Rearm(None),
            event => event,
        };
        let before = self.state;
        self.state = event.row()[before as usize];
        match (before, self.state) {
            // Whoever looked at the stop so far has not seen this: it needs a permission of its own.
            (State::SafeStop, State::SafeStop) if self.is_worse(&event) => {
                self.cause = StopCause::of(&event);
                self.stops += 1;
            }
            (State::SafeStop, State::SafeStop) => {}
            (_, State::SafeStop) => {
                self.cause = StopCause::of(&event);
                self.stops += 1;
            }
            _ => self.cause = None,
        }
        before
    }

    /// Whether `event` is a panic or a hang that is not what the present stop is about.
    fn is_worse(&self, event: &Event) -> bool {
        let cause = StopCause::of(event);
        matches!(event, Event::Panic | Event::Hang) && self.cause != cause
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: usize = 14;

    fn event(i: usize) -> Event {
        match i {
            0 => Event::Start,
            1 => Event::TimingLate,
            2 => Event::TimingDegraded,
            3 => Event::TimingSafeStop,
            4 => Event::TimingRecovered,
            5 => Event::InputFresh,
            6 => Event::InputStale,
            7 => Event::InputLost,
            8 => Event::Hang,
            9 => Event::Panic,
            10 => Event::Tripped,
            11 => Event::StopRequested,
            12 => Event::Rearm(None),
            13 => Event::Rearm(Some(RearmToken::authorise(1))),
            _ => unreachable!("there are {EVENTS} events"),
        }
    }

    fn safety_in(state: State) -> Safety {
        Safety { state, cause: None, stops: 1 }
    }

    /// The rules in words, written without looking at the table: the two troubles as flags.
    fn by_the_rules(state: State, event: &Event) -> State {
        let (mut timing, mut input) = match state {
            State::SafeStop => {
                let authorised = matches!(event, Event::Rearm(Some(_)));
                return if authorised { State::Running } else { State::SafeStop };
            }
            State::Idle | State::Running => (false, false),
            State::DegradedTiming => (true, false),
            State::DegradedInput => (false, true),
            State::DegradedBoth => (true, true),
        };
        if StopCause::of(event).is_some() {
            return State::SafeStop;
        }
        if *event == Event::StopRequested || (state == State::Idle && *event != Event::Start) {
            return State::Idle;
        }
        match event {
            Event::TimingDegraded => timing = true,
            Event::TimingRecovered => timing = false,
            Event::InputStale => input = true,
            Event::InputFresh => input = false,
            _ => {}
        }
        match (timing, input) {
            (false, false) => State::Running,
            (true, false) => State::DegradedTiming,
            (false, true) => State::DegradedInput,
            (true, true) => State::DegradedBoth,
        }
    }

    #[test]
    fn every_state_answers_every_event_by_the_rules() {
        for state in State::ALL {
            for i in 0..EVENTS {
                let expected = by_the_rules(state, &event(i));
                let mut safety = safety_in(state);
                assert_eq!(safety.apply(event(i)), state);
                assert_eq!(safety.state(), expected, "{state:?} on {:?}", event(i));
            }
        }
    }

    #[test]
    fn the_codes_of_states_and_causes_are_fixed() {
        for (code, state) in (0..).zip(State::ALL) {
            assert_eq!(state.code(), code);
            assert_eq!(State::from_code(code), Some(state));
        }
        assert_eq!(State::from_code(6), None);
        for code in 1..=5 {
            assert_eq!(StopCause::from_code(code).map(StopCause::code), Some(code));
        }
        assert_eq!((StopCause::from_code(0), StopCause::from_code(6)), (None, None));
    }

    #[test]
    fn the_first_cause_is_kept_and_a_rearm_clears_it() {
        let mut safety = Safety::new();
        safety.apply(Event::Start);
        safety.apply(Event::InputLost);
        safety.apply(Event::TimingSafeStop);
        safety.apply(Event::Tripped);
        assert_eq!((safety.cause(), safety.stops()), (Some(StopCause::InputLost), 1));
        safety.apply(Event::Rearm(Some(RearmToken::authorise(1))));
        assert_eq!((safety.cause(), safety.stops()), (None, 1));
        safety.apply(Event::Tripped);
        assert_eq!((safety.cause(), safety.stops()), (Some(StopCause::Tripped), 2));
    }

    #[test]
    fn a_panic_or_hang_during_a_stop_is_a_stop_of_its_own() {
        let mut safety = Safety::new();
        safety.apply(Event::Start);
        safety.apply(Event::InputLost);
        safety.apply(Event::Hang);
        assert_eq!((safety.cause(), safety.stops()), (Some(StopCause::Hang), 2));
        safety.apply(Event::Hang);
        assert_eq!(safety.stops(), 2, "the same cause is no news");
        safety.apply(Event::Panic);
        assert_eq!((safety.cause(), safety.stops()), (Some(StopCause::Panic), 3));
        safety.apply(Event::Rearm(Some(RearmToken::authorise(1))));
        assert_eq!(safety.state(), State::SafeStop, "nobody who permitted stop 1 saw the panic");
        safety.apply(Event::Rearm(Some(RearmToken::authorise(3))));
        assert_eq!(safety.state(), State::Running);
    }

    #[test]
    fn a_permission_for_an_earlier_or_later_stop_opens_nothing() {
        let mut safety = Safety { state: State::SafeStop, cause: None, stops: 5 };
        for stop in [0, 4, 6, u64::MAX] {
            safety.apply(Event::Rearm(Some(RearmToken::authorise(stop))));
            assert_eq!(safety.state(), State::SafeStop, "with a permission for stop {stop}");
        }
        safety.apply(Event::Rearm(Some(RearmToken::authorise(5))));
        assert_eq!(safety.state(), State::Running);
    }

    proptest! {
        #[test]
        fn safe_stop_is_left_only_by_an_authorised_rearm(
            events in prop::collection::vec(0..EVENTS, 0..200),
        ) {
            let mut safety = Safety::new();
            let mut stops = 0;
            for i in events {
                let authorised = i == 13;
                let event = if authorised {
                    Event::Rearm(Some(RearmToken::authorise(stops)))
                } else {
                    event(i)
                };
                let cause = StopCause::of(&event);
                let worse = matches!(event, Event::Panic | Event::Hang) && cause != safety.cause();
                let before = safety.apply(event);
                if before == State::SafeStop && safety.state() != State::SafeStop {
                    prop_assert!(authorised);
                }
                let stands = safety.state() == State::SafeStop;
                if stands && (before != State::SafeStop || worse) {
                    stops += 1;
                }
                prop_assert_eq!(safety.cause().is_some(), safety.state() == State::SafeStop);
                prop_assert_eq!(safety.stops(), stops);
            }
        }
    }
}
