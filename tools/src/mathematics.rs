//! The functions of mathematics that the command uses (plots, the demo's pole, statistics), from
//! Rust's own library instead of the C library's.
//!
//! The standard library calls them by their C names. With these names defined here, the C library's
//! shared `libm` has nothing to add and is not loaded: a node locks every page of its process into
//! memory, and that library is 0.9 MB of them. A function that is missing here is no error: then it is
//! loaded again, and `sinew bench pipeline --idle` shows it.

/// Defines `name` of one or two arguments as the C library does.
macro_rules! from_libm {
    ($($name:ident($($argument:ident),+)),+ $(,)?) => {$(
        // SAFETY: the name, the arguments and the meaning are those of ISO C's <math.h>.
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: f64),+) -> f64 {
            libm::$name($($argument),+)
        }
    )+};
}

from_libm! { cos(x), exp(x), log(x), log10(x), log2(x), pow(x, y), sin(x), tanh(x) }

/// Sine and cosine at once, a GNU extension that the compiler makes of the two.
// SAFETY: the name, the arguments and the meaning are those of sincos(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn sincos(x: f64, sine: *mut f64, cosine: *mut f64) {
    let (s, c) = libm::sincos(x);
    // SAFETY: whoever calls it passes two places to write to.
    unsafe {
        sine.write(s);
        cosine.write(c);
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::{E, LN_2, PI};
    use std::hint::black_box;

    /// To some units in the last place.
    fn same(a: f64, b: f64) {
        assert!((a - b).abs() <= 4.0 * f64::EPSILON * b.abs().max(1.0), "{a} and {b}");
    }

    #[test]
    fn the_standard_librarys_functions_mean_what_they_mean() {
        let x = black_box;
        same(x(1.0_f64).exp(), E);
        same(x(2.0_f64).ln(), LN_2);
        same(x(1_000.0_f64).log10(), 3.0);
        same(x(1_024.0_f64).log2(), 10.0);
        same(x(2.0_f64).powf(x(0.5)), 2.0_f64.sqrt());
        same(x(PI / 6.0).sin(), 0.5);
        same(x(PI / 3.0).cos(), 0.5);
        same(x(0.5_f64).tanh(), (E - 1.0) / (E + 1.0));
        let (sine, cosine) = x(PI / 4.0).sin_cos();
        same(sine, cosine);
        same(sine * sine + cosine * cosine, 1.0);
        assert!(x(-1.0_f64).ln().is_nan() && x(0.0_f64).ln() == f64::NEG_INFINITY);
    }
}
