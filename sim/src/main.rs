//! The `sinew-sim` command.

fn main() {}
