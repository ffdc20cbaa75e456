//! Where within a page a function's stack lies.
//!
//! A processor that looks for a store which a load might depend on compares the lower twelve bits of
//! their addresses first. Where a function's stack and the constants that it reads have these bits in
//! common, its loads wait for stores that have nothing to do with them (4K aliasing: Intel 64 and IA-32
//! Architectures Optimization Reference Manual, "Memory disambiguation"). A function that keeps large
//! tables on its stack can take a quarter longer at one position than at another, and a new
//! thread-local variable anywhere in the program is enough to move it.

use std::hint::black_box;
use std::mem::MaybeUninit;

/// The distance in bytes at which positions repeat themselves.
pub const PERIOD: usize = 4096;

/// Bytes by which one step moves the stack, at least: what the position may be off. Smaller steps
/// are more returns in a row than processors predict.
const STEP: usize = 512;

/// Calls `work` with its stack at `offset` bytes within [`PERIOD`], or up to some 600 bytes below
/// that. Takes up to 5 KiB of stack and some tens of ns; wait-free, and does not allocate.
pub fn at_offset<R>(offset: usize, work: impl FnOnce() -> R) -> R {
    let marker = 0u8;
    let here = (&raw const marker).addr();
    let down = here.wrapping_sub(offset) % PERIOD;
    let mut work = Some(work);
    let mut result = None;
    descend(here - down, &mut || result = work.take().map(|work| work()));
    result.unwrap_or_else(|| unreachable!("descend calls its work once"))
}

/// One frame, then the next, until the stack has come down to `target`: safe code that really moves
/// the stack pointer. At most `PERIOD / STEP` frames deep.
#[inline(never)]
fn descend(target: usize, work: &mut dyn FnMut()) {
    let pad = [MaybeUninit::<u8>::uninit(); STEP];
    // The address escapes, so the frame is there; nothing of it is written.
    black_box(&pad);
    if (&raw const pad).addr() > target {
        descend(target, work)
    } else {
        work()
    }
    // Keeps the frame alive across the call: no tail call may reuse it.
    black_box(&pad);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn position() -> usize {
        let marker = 0u8;
        black_box(&raw const marker).addr() % PERIOD
    }

    #[test]
    fn work_runs_below_the_offset_wherever_the_caller_is() {
        // What a frame of this build may take beyond its pad, with the frames of closure and probe.
        const SLACK: usize = 2 * STEP;
        let mut seen = Vec::new();
        for caller in (0..PERIOD).step_by(480) {
            for offset in (0..PERIOD).step_by(512) {
                let found = at_offset(caller, || at_offset(offset, position));
                let below = offset.wrapping_sub(found) % PERIOD;
                assert!(below < SLACK, "asked for {offset}, got {found}, from {caller}");
                seen.push(found);
            }
        }
        assert!(seen.iter().max().unwrap() - seen.iter().min().unwrap() > PERIOD / 2);
    }

    #[test]
    fn the_result_and_a_panic_come_through() {
        assert_eq!(at_offset(17, || String::from("done")), "done");
        std::panic::catch_unwind(|| at_offset(17, || panic!("lost"))).unwrap_err();
    }
}
