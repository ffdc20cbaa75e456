//! The balancing gain, computed from the plant instead of written down.
//!
//! Linear-quadratic regulation in discrete time (B. Anderson and J. Moore, *Optimal Control: Linear
//! Quadratic Methods*, chapter 2): iterate the Riccati difference equation until it stands still.

use thiserror::Error;

/// Iterations before giving up. A pole of this size needs a few thousand at 1 kHz.
const ITERATIONS_MAX: usize = 100_000;

/// No gain balances this plant.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[error(
    "the Riccati iteration did not settle within {iterations} steps (last change {change:.1e}); \
     the plant is not controllable by its motor, or the weights are not positive"
)]
pub(crate) struct NoGain {
    iterations: usize,
    change: f64,
}

/// `next = a · state + b · torque`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    pub(crate) a: [[f64; 4]; 4],
    pub(crate) b: [f64; 4],
}

impl Linear {
    /// The linear part of `step(state, torque)` around `(at, 0)`, by central differences.
    pub(crate) fn of(step: impl Fn([f64; 4], f64) -> [f64; 4], at: [f64; 4]) -> Self {
        const SPAN: f64 = 1e-5;
        let slope = |low: [f64; 4], high: [f64; 4]| -> [f64; 4] {
            std::array::from_fn(|i| (high[i] - low[i]) / (2.0 * SPAN))
        };
        let mut a = [[0.0; 4]; 4];
        for column in 0..4 {
            let (mut low, mut high) = (at, at);
            low[column] -= SPAN;
            high[column] += SPAN;
            let slope = slope(step(low, 0.0), step(high, 0.0));
            for row in 0..4 {
                a[row][column] = slope[row];
            }
        }
        Self { a, b: slope(step(at, -SPAN), step(at, SPAN)) }
    }

    /// The gain k of `torque = -k · state` that minimises the sum of
    /// `Σ state[i]²·state_weight[i] + torque²·torque_weight` over all time.
    pub(crate) fn regulator(
        &self,
        state_weight: [f64; 4],
        torque_weight: f64,
    ) -> Result<[f64; 4], NoGain> {
        let Self { a, b } = self;
        let q: [[f64; 4]; 4] = std::array::from_fn(|i| {
            std::array::from_fn(|j| if i == j { state_weight[i] } else { 0.0 })
        });
        let mut cost = q;
        let mut gain = [0.0; 4];
        let mut change = f64::INFINITY;
        for _ in 0..ITERATIONS_MAX {
            // k = (r + b'Pb)⁻¹ b'PA,   P ← Q + k'rk + (A - bk)'P(A - bk)
            // (Joseph's form, which keeps P symmetric in spite of rounding).
            let pb = times(&cost, b);
            let scale = torque_weight + dot(b, &pb);
            let next: [f64; 4] = std::array::from_fn(|j| dot(&column(a, j), &pb) / scale);
            let closed: [[f64; 4]; 4] =
                std::array::from_fn(|i| std::array::from_fn(|j| a[i][j] - b[i] * next[j]));
            let p_closed: [[f64; 4]; 4] = std::array::from_fn(|i| {
                std::array::from_fn(|j| dot(&cost[i], &column(&closed, j)))
            });
            cost = std::array::from_fn(|i| {
                std::array::from_fn(|j| {
                    let effort = torque_weight * next[i] * next[j];
                    q[i][j] + effort + dot(&column(&closed, i), &column(&p_closed, j))
                })
            });
            let size = gain.iter().map(|g: &f64| g.abs()).fold(0.0, f64::max);
            change = (0..4).map(|i| (next[i] - gain[i]).abs()).fold(0.0, f64::max) / size;
            gain = next;
            if change < 1e-10 {
                return Ok(gain);
            }
            if !change.is_finite() && size > 0.0 {
                break;
            }
        }
        Err(NoGain { iterations: ITERATIONS_MAX, change })
    }
}

fn dot(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    (0..4).map(|i| a[i] * b[i]).sum()
}

fn column(m: &[[f64; 4]; 4], j: usize) -> [f64; 4] {
    std::array::from_fn(|i| m[i][j])
}

fn times(m: &[[f64; 4]; 4], v: &[f64; 4]) -> [f64; 4] {
    std::array::from_fn(|i| dot(&m[i], v))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two independent plants side by side; the torque reaches only the first.
    fn double_integrator() -> Linear {
        Linear {
            a: [[1.0, 0.01, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0; 4], [0.0; 4]],
            b: [0.0, 0.01, 0.0, 0.0],
        }
    }

    #[test]
    fn the_gain_of_a_double_integrator_is_the_known_one() {
        // In continuous time with unit weights: k = (1, √3). Sampling at 10 ms moves it by about
        // one percent.
        let gain = double_integrator().regulator([0.01, 0.01, 0.0, 0.0], 0.01).unwrap();
        assert!((gain[0] - 1.0).abs() < 0.02, "{gain:?}");
        assert!((gain[1] - 3.0_f64.sqrt()).abs() < 0.02, "{gain:?}");
        assert_eq!(gain[2..], [0.0, 0.0]);
    }

    #[test]
    fn an_unstable_part_that_the_motor_cannot_reach_has_no_gain() {
        let mut plant = double_integrator();
        plant.a[2][2] = 1.5;
        assert!(plant.regulator([1.0; 4], 1.0).is_ok(), "the cost grows, the gain does not");
        plant.b = [0.0; 4];
        assert!(plant.regulator([1.0; 4], 1.0).is_err());
    }

    #[test]
    fn the_linear_part_of_a_linear_map_is_itself() {
        let plant = double_integrator();
        let step = |x: [f64; 4], u: f64| {
            let ax = times(&plant.a, &x);
            std::array::from_fn(|i| ax[i] + plant.b[i] * u)
        };
        let found = Linear::of(step, [0.3, -0.2, 0.1, 0.0]);
        for i in 0..4 {
            assert!((found.b[i] - plant.b[i]).abs() < 1e-9);
            for j in 0..4 {
                assert!((found.a[i][j] - plant.a[i][j]).abs() < 1e-9);
            }
        }
    }
}
