//! A tiny drawing of the pole on its cart, in braille dots.

/// Columns and lines of the drawing.
pub(crate) const COLUMNS: usize = 21;
pub(crate) const LINES: usize = 5;

/// Dots of a braille character across and down.
const ACROSS: usize = 2;
const DOWN: usize = 4;

/// Dots to the metre: the pole of 0.6 m reaches 9 of the 10 dots above and below the rail, and the
/// rail of ±0.6 m with the pole lying beyond its ends fits the width.
const DOTS_PER_M: f64 = 15.0;

/// The bits of a braille character by column and row of its dots (Unicode 2800).
const BITS: [[u8; DOWN]; ACROSS] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];

/// The machine with its cart at `x` (m from the middle) and its pole at `angle` (rad from upright),
/// on a rail of ±`rail` with a pole of `pole` metres.
pub(crate) fn picture(x: f64, angle: f64, rail: f64, pole: f64) -> [String; LINES] {
    let mut dots = [[0_u8; COLUMNS]; LINES];
    let mut dot = |right: f64, up: f64| {
        let column = (COLUMNS * ACROSS) as f64 / 2.0 + right * DOTS_PER_M;
        let row = (LINES * DOWN) as f64 / 2.0 - up * DOTS_PER_M;
        let inside = column >= 0.0 && row >= 0.0;
        let (column, row) = (column as usize, row as usize);
        if inside && column < COLUMNS * ACROSS && row < LINES * DOWN {
            dots[row / DOWN][column / ACROSS] |= BITS[column % ACROSS][row % DOWN];
        }
    };
    let step = 0.4 / DOTS_PER_M;
    let steps = |length: f64| (length / step).ceil() as usize;
    for n in 0..=steps(2.0 * rail) {
        dot(-rail + n as f64 * step, 0.0);
    }
    for n in 0..=steps(0.16) {
        dot(x - 0.08 + n as f64 * step, 0.06);
    }
    for n in 0..=steps(pole) {
        let along = n as f64 * step;
        dot(x + along * angle.sin(), along * angle.cos());
    }
    dots.map(|line| {
        line.iter().map(|bits| char::from_u32(0x2800 + u32::from(*bits)).unwrap_or(' ')).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pole_stands_hangs_and_lies_where_it_should() {
        let up = picture(0.0, 0.0, 0.6, 0.6);
        let down = picture(0.0, std::f64::consts::PI, 0.6, 0.6);
        let dots = |line: &str| line.chars().filter(|c| *c != '\u{2800}').count();
        assert!(dots(&up[0]) == 1 && dots(&up[4]) == 0, "{up:#?}");
        assert!(dots(&down[0]) == 0 && dots(&down[4]) == 1, "{down:#?}");
        let right = picture(0.6, std::f64::consts::FRAC_PI_2, 0.6, 0.6);
        assert!(dots(&right[2]) > dots(&up[2]), "{right:#?}");
        for line in up.iter().chain(&down).chain(&right) {
            assert_eq!(line.chars().count(), COLUMNS);
        }
    }

    #[test]
    fn numbers_that_are_none_draw_nothing_and_harm_nothing() {
        for value in [f64::NAN, f64::INFINITY, -1e300] {
            assert_eq!(picture(value, value, 0.6, 0.6).len(), LINES);
        }
    }
}
