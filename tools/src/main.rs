//! Placeholder.
mod demo;

fn main() {}
