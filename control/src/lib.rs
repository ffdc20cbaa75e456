//! Control loops with absolute periods, budgets, inputs that cannot hide their age, and a latched
//! safe stop; and the first typed robot messages.
//!
//! **A software stop is not a certified safety function.** See [`safety`].

pub mod control_loop;
pub mod input;
pub mod message;
pub mod safety;
mod schedule;
