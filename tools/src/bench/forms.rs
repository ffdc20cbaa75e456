//! Commands with several forms: an option that would do nothing in the form that was asked for is
//! refused, with the forms that it is for.

use std::ops::Deref;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Id};

/// Options that only some forms of their command have.
pub(crate) struct Only {
    /// Whether one of those forms was asked for.
    pub(crate) asked: bool,
    /// The options' ids.
    pub(crate) options: &'static [&'static str],
    /// Those forms, as a person is told.
    pub(crate) forms: &'static str,
}

/// The options of a command with several forms.
pub(crate) trait Forms: Args {
    /// The options that not every form has.
    fn only(&self) -> Vec<Only>;
}

/// The options of a command with several forms, none of which does nothing. Told from the command
/// line and not from the values: a default that is not used contradicts nothing.
#[derive(Debug)]
pub(crate) struct Checked<A>(A);

impl<A> Deref for Checked<A> {
    type Target = A;
    fn deref(&self) -> &A {
        &self.0
    }
}

impl<A: Forms> FromArgMatches for Checked<A> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let args = A::from_arg_matches(matches)?;
        for Only { asked, options, forms } in args.only() {
            let given = |id: &&&str| matches.value_source(id) == Some(ValueSource::CommandLine);
            if let (false, Some(id)) = (asked, options.iter().find(given)) {
                let option = id.replace('_', "-");
                let message = format!("--{option} would do nothing here: it is for {forms}");
                return Err(Error::raw(ErrorKind::ArgumentConflict, message));
            }
        }
        Ok(Self(args))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<A: Forms> Args for Checked<A> {
    fn group_id() -> Option<Id> {
        A::group_id()
    }

    fn augment_args(command: Command) -> Command {
        A::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        A::augment_args_for_update(command)
    }
}
