//! Two sides and the first of them again, in turn, round after round: what the flood and the throughput
//! have in common.

use super::super::interrupted;
use super::super::length::Length;
use super::super::report::Run;
use super::super::stats::{Comparison, Samples, Side};
use super::crew::Stopped;
use crate::exit::Failure;

/// Measures with what `start` prepares until its length is over or Ctrl-C comes, and adds the
/// comparison to the report. A leg is told the number of its round.
pub(super) fn compare<Crew>(
    run: &mut Run,
    what: &str,
    mut length: Length,
    mut comparison: Comparison,
    start: impl FnOnce() -> Result<Crew, Stopped>,
    mut leg: impl FnMut(&mut Crew, &mut Run, u64, Side) -> Result<Samples, Stopped>,
) -> Result<(), Failure> {
    let bar = length.progress(what);
    let outcome = start().and_then(|mut crew| {
        let mut round = 0;
        while length.goes_on(&bar) {
            comparison.round(|side| {
                if interrupted() {
                    return Err(Stopped::Interrupted);
                }
                bar.set_message(format!("{side:?}"));
                leg(&mut crew, run, round, side)
            })?;
            round += 1;
        }
        Ok(())
    });
    bar.finish_and_clear();
    run.compared(&comparison);
    match outcome {
        Ok(()) | Err(Stopped::Interrupted) => Ok(()),
        Err(Stopped::Failed(failure)) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use sinew_rt::clock::Nanos;

    use super::super::super::stats::Limits;
    use super::*;

    fn comparison() -> Comparison {
        Comparison::new("test", "a", "b", Limits::default())
    }

    #[test]
    fn each_round_measures_both_sides_and_the_first_again_with_the_same_crew() {
        let mut run = Run::elsewhere();
        let mut legs = Vec::new();
        let outcome = compare(
            &mut run,
            "test",
            Length::new(2, None),
            comparison(),
            || Ok("crew"),
            |crew, _, round, side| {
                legs.push((*crew, round, side));
                let mut samples = Samples::new();
                samples.record_n(if side == Side::Base { 10 } else { 20 }, 1, Nanos::ZERO);
                Ok(samples)
            },
        );
        outcome.unwrap();
        let of = |round, side| legs.iter().filter(|leg| **leg == ("crew", round, side)).count();
        assert_eq!([of(0, Side::Base), of(0, Side::Subject)], [2, 1]);
        assert_eq!([of(1, Side::Base), of(1, Side::Subject)], [2, 1]);
        assert_eq!(legs.len(), 6);
    }

    #[test]
    fn a_crew_that_does_not_come_about_is_a_failure_and_ctrl_c_is_none() {
        let mut run = Run::elsewhere();
        let mut start = |stopped| {
            let start = || Err::<(), _>(stopped);
            compare(&mut run, "test", Length::new(1, None), comparison(), start, |(), _, _, _| {
                Ok(Samples::new())
            })
        };
        assert!(start(Stopped::Interrupted).is_ok());
        let failure = start(Stopped::Failed(Failure::machine("no"))).unwrap_err();
        assert_eq!(failure.message, "no");
    }
}
