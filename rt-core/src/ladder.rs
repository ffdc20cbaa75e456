//! The trip ladder: from single overruns to the level that says how much is still trusted.
//!
//! Pure and table-driven: no clock, no memory beyond 1,024 bits. Each rung is "k overruns in the
//! last n executions". Levels rise as soon as a rung is reached; they fall one at a time, after a
//! configured run of clean executions; and [`Level::SafeStop`] latches until [`Ladder::rearm`].
//!
//! | from | overrun | `recovery` clean executions in a row | `rearm` |
//! |---|---|---|---|
//! | `Ok` | highest rung reached | `Ok` | `Ok` |
//! | `Late` | highest rung reached, at least `Late` | `Ok` | `Ok` |
//! | `Degraded` | highest rung reached, at least `Degraded` | `Late` | `Ok` |
//! | `SafeStop` | `SafeStop` | `SafeStop` | `Ok` |

use std::fmt;

/// The longest window of a rung, in executions.
pub const MAX_WINDOW: u16 = 1_024;

const WORDS: usize = MAX_WINDOW as usize / 64;

/// How much a stage or loop is still trusted to keep its budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Level {
    /// Within budget.
    #[default]
    Ok = 0,
    /// Overran: counted and reported, nothing else.
    Late = 1,
    /// Overruns often: sheds best-effort work, and control loops are told.
    Degraded = 2,
    /// Not trusted any more. Latched: only an explicit re-arm leaves it.
    SafeStop = 3,
}

impl Level {
    /// All levels, rising.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Late, Self::Degraded, Self::SafeStop];

    /// The level that a panel word stands for.
    #[must_use]
    pub const fn from_word(word: u32) -> Option<Self> {
        match word {
            0 => Some(Self::Ok),
            1 => Some(Self::Late),
            2 => Some(Self::Degraded),
            3 => Some(Self::SafeStop),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Late => "late",
            Self::Degraded => "degraded",
            Self::SafeStop => "safe stop",
        })
    }
}

/// "`overruns` in the last `window` executions".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// How many overruns reach the rung: at least 1, at most `window`.
    pub overruns: u16,
    /// How many executions are looked at: at least 1, at most [`MAX_WINDOW`].
    pub window: u16,
}

impl From<(u16, u16)> for Rung {
    fn from((overruns, window): (u16, u16)) -> Self {
        Self { overruns, window }
    }
}

/// When a ladder rises, and when it recovers. A rung that is `None` is never reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LadderConfig {
    /// The rung of [`Level::Late`].
    pub late: Option<Rung>,
    /// The rung of [`Level::Degraded`].
    pub degrade: Option<Rung>,
    /// The rung of [`Level::SafeStop`].
    pub stop: Option<Rung>,
    /// Clean executions in a row after which the level falls by one. At least 1.
    pub recovery: u32,
    /// The least level after a hang, that is when the supervisor found the stage inside for longer
    /// than its hard limit.
    pub on_hang: Level,
}

impl LadderConfig {
    /// Late on every overrun, degraded at 3 in 100, safe stop at 10 in 1,000 and on a hang.
    #[must_use]
    pub const fn standard() -> Self {
        Self {
            late: Some(Rung { overruns: 1, window: 1 }),
            degrade: Some(Rung { overruns: 3, window: 100 }),
            stop: Some(Rung { overruns: 10, window: 1_000 }),
            recovery: 100,
            on_hang: Level::SafeStop,
        }
    }

    /// For stages whose overruns are to be seen but must not stop a robot: as
    /// [`standard`](Self::standard), without safe stop, and a hang only degrades.
    #[must_use]
    pub const fn report_only() -> Self {
        Self { stop: None, on_hang: Level::Degraded, ..Self::standard() }
    }

    fn rungs(&self) -> [(Level, Option<Rung>); 3] {
        [(Level::SafeStop, self.stop), (Level::Degraded, self.degrade), (Level::Late, self.late)]
    }
}

impl Default for LadderConfig {
    fn default() -> Self {
        Self::standard()
    }
}

/// Why a [`LadderConfig`] was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LadderError {
    /// A window of no executions, or one longer than the history that is kept.
    #[error("the window of rung `{level}` is {window} executions; use 1 to {MAX_WINDOW}")]
    Window {
        /// The rung.
        level: Level,
        /// Its window.
        window: u16,
    },
    /// A rung that is always reached, or never.
    #[error(
        "rung `{level}` asks for {overruns} overruns in {window} executions; use 1 to {window}"
    )]
    Overruns {
        /// The rung.
        level: Level,
        /// Overruns asked for.
        overruns: u16,
        /// Its window.
        window: u16,
    },
    /// Recovery after no clean execution at all would make every rung meaningless.
    #[error("`recovery` is 0 clean executions; use 1 or more")]
    Recovery,
}

/// The state of one ladder. All methods but [`new`](Self::new) are wait-free and bounded.
#[derive(Clone, Debug)]
pub struct Ladder {
    config: LadderConfig,
    level: Level,
    /// Executions so far.
    executions: u64,
    /// Executions at the time of the last overrun.
    last_overrun: u64,
    /// Clean executions since the last overrun or the last step down.
    clean: u32,
    /// One bit for each of the last 1,024 executions, set when it overran. Brought up to date by
    /// overruns alone, so that a clean execution touches nothing but a count.
    history: [u64; WORDS],
}

impl Ladder {
    /// A ladder at [`Level::Ok`].
    ///
    /// # Errors
    /// When a rung can never be reached, is always reached, or looks back too far.
    pub fn new(config: LadderConfig) -> Result<Self, LadderError> {
        for (level, rung) in config.rungs() {
            let Some(Rung { overruns, window }) = rung else { continue };
            if !(1..=MAX_WINDOW).contains(&window) {
                return Err(LadderError::Window { level, window });
            }
            if !(1..=window).contains(&overruns) {
                return Err(LadderError::Overruns { level, overruns, window });
            }
        }
        if config.recovery == 0 {
            return Err(LadderError::Recovery);
        }
        Ok(Self {
            config,
            level: Level::Ok,
            executions: 0,
            last_overrun: 0,
            clean: 0,
            history: [0; WORDS],
        })
    }

    /// The present level.
    #[inline]
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &LadderConfig {
        &self.config
    }

    /// Counts an execution within its budget. Some nanoseconds.
    #[inline]
    pub fn clean(&mut self) -> Level {
        self.executions += 1;
        if self.level != Level::Ok {
            self.recover();
        }
        self.level
    }

    /// Counts an execution that overran. At most 16 words of history are looked at per rung.
    pub fn overrun(&mut self) -> Level {
        self.forget_stale();
        self.executions += 1;
        let slot = self.executions % u64::from(MAX_WINDOW);
        self.history[(slot / 64) as usize] |= 1 << (slot % 64);
        self.last_overrun = self.executions;
        let reached = self
            .config
            .rungs()
            .into_iter()
            .find(|(_, rung)| rung.is_some_and(|r| self.overruns_in(r.window) >= r.overruns));
        if let Some((level, _)) = reached {
            self.level = self.level.max(level);
        }
        self.clean = 0;
        self.level
    }

    /// Raises the level to at least `level`, for instance because a hang was found.
    pub fn force(&mut self, level: Level) -> Level {
        self.level = self.level.max(level);
        self.clean = 0;
        self.level
    }

    /// Back to [`Level::Ok`] with an empty history: the only way out of [`Level::SafeStop`].
    pub fn rearm(&mut self) {
        self.level = Level::Ok;
        self.clean = 0;
        self.history = [0; WORDS];
    }

    #[cold]
    fn recover(&mut self) {
        self.clean = self.clean.saturating_add(1);
        if self.clean >= self.config.recovery {
            self.clean = 0;
            self.level = match self.level {
                Level::SafeStop => Level::SafeStop,
                Level::Degraded => Level::Late,
                Level::Late | Level::Ok => Level::Ok,
            };
        }
    }

    /// Clears the bits of executions since the last overrun: they were clean, and their slots still
    /// hold what happened 1,024 executions earlier.
    fn forget_stale(&mut self) {
        if self.executions - self.last_overrun >= u64::from(MAX_WINDOW) {
            self.history = [0; WORDS];
            return;
        }
        let mut slot = self.last_overrun + 1;
        let end = self.executions + 1;
        while slot < end {
            // Up to the end of the word at a time: at most 17 rounds.
            let bit = slot % 64;
            let run = (64 - bit).min(end - slot);
            let mask = (u64::MAX >> (64 - run)) << bit;
            self.history[(slot % u64::from(MAX_WINDOW) / 64) as usize] &= !mask;
            slot += run;
        }
    }

    /// Overruns among the last `window` executions. Called right after an overrun was entered.
    fn overruns_in(&self, window: u16) -> u16 {
        let mut count = 0;
        let mut end = self.executions + 1;
        let mut left = u64::from(window);
        while left > 0 {
            // `end` is exclusive; the word that holds the execution before it.
            let last = end.wrapping_sub(1);
            let bit = last % 64;
            let run = (bit + 1).min(left);
            let mask = (u64::MAX >> (64 - run)) << (bit + 1 - run);
            let word = self.history[(last % u64::from(MAX_WINDOW) / 64) as usize];
            count += (word & mask).count_ones() as u16;
            end = end.wrapping_sub(run);
            left -= run;
        }
        count
    }
}

#[cfg(test)]
mod tests;
