//! Several measurements in one report.

use super::Run;
use crate::exit::Failure;

impl Run {
    /// Measures, and puts `name` before the name of everything that was added meanwhile.
    pub(crate) fn section(
        &mut self,
        name: &str,
        measure: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let report = &self.report;
        let (measured, compared, added) =
            (report.measured.len(), report.compared.len(), report.added.len());
        let (figures, longest, notes) =
            (report.figures.len(), report.longest.len(), report.notes.len());
        let (curves, plots) = (self.plotted[0].curves.len(), self.plotted.len());
        let outcome = measure(self);
        let report = &mut self.report;
        let names = report.measured[measured..].iter_mut().map(|one| &mut one.name);
        let names = names.chain(report.compared[compared..].iter_mut().map(|one| &mut one.name));
        let names = names.chain(report.added[added..].iter_mut().map(|one| &mut one.name));
        let names = names.chain(report.figures[figures..].iter_mut().map(|one| &mut one.name));
        let names = names.chain(report.longest[longest..].iter_mut().map(|one| &mut one.what));
        let names = names.chain(report.notes[notes..].iter_mut());
        let (alone, plotted) = self.plotted.split_at_mut(plots);
        let names = names.chain(alone[0].curves[curves..].iter_mut().map(|curve| &mut curve.name));
        let names = names.chain(plotted.iter_mut().map(|plot| &mut plot.title));
        names.for_each(|text| text.insert_str(0, &format!("{name}: ")));
        outcome
    }

    #[cfg(test)]
    pub(crate) fn figures(&self) -> &[super::Figure] {
        &self.report.figures
    }

    #[cfg(test)]
    pub(crate) fn notes(&self) -> &[String] {
        &self.report.notes
    }
}

#[cfg(test)]
mod tests {
    use sinew_rt::clock::Nanos;

    use super::super::super::stats::Samples;
    use super::*;

    #[test]
    fn what_a_section_adds_carries_its_name_and_nothing_else_does() {
        let mut run = Run::elsewhere();
        run.figure("before", 1.0, "", None);
        let mut samples = Samples::new();
        samples.record(Nanos::new(5), Nanos::ZERO);
        let outcome = run.section("wake", |run| {
            run.measured("plain sleep", &samples);
            run.figure("rate", 2.0, "Hz", None);
            run.longest("wake-up", Nanos::new(5), Nanos::ZERO, "unknown".to_owned());
            run.note("a note");
            Err(Failure::machine("and what failed still counts up to then"))
        });
        assert!(outcome.is_err());
        let report = &run.report;
        assert_eq!(report.figures[0].name, "before");
        assert_eq!(report.figures[1].name, "wake: rate");
        assert_eq!(report.measured[0].name, "wake: plain sleep");
        assert_eq!(run.plotted[0].curves[0].name, "wake: plain sleep");
        assert_eq!(report.longest[0].what, "wake: wake-up");
        assert_eq!(run.notes().last().unwrap(), "wake: a note");
    }
}
