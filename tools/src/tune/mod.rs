//! `sinew tune`: measures this machine and writes the configuration that the measurements speak for.

mod candidates;
mod cores;
mod facts;
mod kernel_line;
#[cfg(test)]
mod tests;
