//! The ladder against its table and against a slow, obvious model.

use super::*;
use proptest::prelude::*;

fn rung(overruns: u16, window: u16) -> Option<Rung> {
    Some(Rung { overruns, window })
}

/// The table of the module documentation, written the slow and obvious way.
struct Model {
    config: LadderConfig,
    history: Vec<bool>,
    level: Level,
    clean: u32,
}

impl Model {
    fn step(&mut self, overran: bool) -> Level {
        self.history.push(overran);
        if overran {
            self.clean = 0;
            for (level, rung) in [
                (Level::Late, self.config.late),
                (Level::Degraded, self.config.degrade),
                (Level::SafeStop, self.config.stop),
            ] {
                let Some(rung) = rung else { continue };
                let last = self.history.iter().rev().take(rung.window.into());
                if last.filter(|overran| **overran).count() >= rung.overruns.into() {
                    self.level = self.level.max(level);
                }
            }
        } else if self.level != Level::Ok {
            self.clean += 1;
            if self.clean >= self.config.recovery {
                self.clean = 0;
                self.level = match self.level {
                    Level::Ok | Level::Late => Level::Ok,
                    Level::Degraded => Level::Late,
                    Level::SafeStop => Level::SafeStop,
                };
            }
        }
        self.level
    }
}

fn any_rung() -> impl Strategy<Value = Option<Rung>> {
    let windows = prop_oneof![1..=8u16, 60..=70u16, 120..=130u16, 1_000..=MAX_WINDOW];
    prop::option::of(windows.prop_flat_map(|window| {
        (1..=window.min(12)).prop_map(move |overruns| Rung { overruns, window })
    }))
}

proptest! {
    #[test]
    fn it_does_what_the_table_says(
        (late, degrade, stop) in (any_rung(), any_rung(), any_rung()),
        recovery in 1..200u32,
        // Runs of clean executions between overruns, long ones included: more than a history.
        gaps in prop::collection::vec(prop_oneof![0..4usize, 50..80usize, 900..2_200usize], 1..40),
        rearm_after in prop::option::of(0..40usize),
    ) {
        let config = LadderConfig { late, degrade, stop, recovery, on_hang: Level::SafeStop };
        let mut ladder = Ladder::new(config).expect("valid");
        let mut model = Model { config, history: Vec::new(), level: Level::Ok, clean: 0 };
        for (round, gap) in gaps.into_iter().enumerate() {
            for _ in 0..gap {
                prop_assert_eq!(ladder.clean(), model.step(false));
            }
            prop_assert_eq!(ladder.overrun(), model.step(true));
            if rearm_after == Some(round) {
                ladder.rearm();
                model = Model { config, history: Vec::new(), level: Level::Ok, clean: 0 };
            }
            prop_assert_eq!(ladder.level(), model.level);
        }
    }

    #[test]
    fn safe_stop_is_left_by_rearm_alone(steps in prop::collection::vec(0..4u8, 0..500)) {
        let mut ladder = Ladder::new(LadderConfig { recovery: 1, ..LadderConfig::standard() })
            .expect("valid");
        ladder.force(Level::SafeStop);
        for step in steps {
            match step {
                0 => ladder.overrun(),
                1 => ladder.force(Level::Ok),
                2 => ladder.force(Level::Degraded),
                _ => ladder.clean(),
            };
            prop_assert_eq!(ladder.level(), Level::SafeStop);
        }
        ladder.rearm();
        prop_assert_eq!(ladder.level(), Level::Ok);
    }
}

/// Every level × every event, with rungs set so that the outcome of an overrun is known.
#[test]
fn every_transition_of_the_table() {
    for from in Level::ALL {
        for reached in Level::ALL {
            let at = |level| (reached == level).then_some(Rung { overruns: 1, window: 1 });
            let config = LadderConfig {
                late: at(Level::Late),
                degrade: at(Level::Degraded),
                stop: at(Level::SafeStop),
                recovery: 2,
                on_hang: Level::SafeStop,
            };
            let start = || {
                let mut ladder = Ladder::new(config).expect("valid");
                ladder.force(from);
                ladder
            };
            assert_eq!(start().overrun(), from.max(reached), "{from}, reaching {reached}");

            let below = match from {
                Level::Ok | Level::Late => Level::Ok,
                Level::Degraded => Level::Late,
                Level::SafeStop => Level::SafeStop,
            };
            let mut ladder = start();
            assert_eq!(ladder.clean(), from, "one clean execution is not two");
            assert_eq!(ladder.clean(), below);

            let mut ladder = start();
            ladder.clean();
            ladder.overrun();
            let level = ladder.level();
            assert_eq!(ladder.clean(), level, "an overrun starts the recovery anew");

            let mut ladder = start();
            ladder.rearm();
            assert_eq!(ladder.level(), Level::Ok);
            for to in Level::ALL {
                assert_eq!(start().force(to), from.max(to));
            }
        }
    }
}

#[test]
fn report_only_never_stops() {
    let mut ladder = Ladder::new(LadderConfig::report_only()).expect("valid");
    for _ in 0..5_000 {
        ladder.overrun();
    }
    assert_eq!(ladder.level(), Level::Degraded);
    assert_eq!(LadderConfig::report_only().on_hang, Level::Degraded);
}

#[test]
fn impossible_rungs_are_refused_with_their_numbers() {
    let with = |stop| Ladder::new(LadderConfig { stop, ..LadderConfig::standard() }).map(|_| ());
    let level = Level::SafeStop;
    assert_eq!(with(rung(1, 0)), Err(LadderError::Window { level, window: 0 }));
    assert_eq!(with(rung(1, 1_025)), Err(LadderError::Window { level, window: 1_025 }));
    for overruns in [0, 11] {
        let window = 10;
        let expected = Err(LadderError::Overruns { level, overruns, window });
        assert_eq!(with(rung(overruns, window)), expected);
    }
    assert_eq!(with(rung(1_024, 1_024)), Ok(()));
    let no_recovery = LadderConfig { recovery: 0, ..LadderConfig::standard() };
    assert_eq!(Ladder::new(no_recovery).err(), Some(LadderError::Recovery));
}
