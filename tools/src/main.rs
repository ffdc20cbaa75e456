//! Placeholder.
mod doctor;
mod host;

fn main() {}
