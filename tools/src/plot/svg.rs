//! Percentile curves as an SVG that stands alone in a report.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use sinew_rt::clock::Nanos;

use super::{Curve, Frame, steps};

const WIDTH: u32 = 960;
/// Without the legend.
const HEIGHT: u32 = 550;
/// Left of the plot, for the latencies.
const LEFT: i32 = 96;
/// Of one line of the legend.
const LINE_HEIGHT: u32 = 22;

/// Okabe and Ito's colours, which people with any colour vision tell apart. Black comes last.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(148, 112, 60),
    RGBColor(60, 60, 60),
];
const INK: RGBColor = RGBColor(40, 40, 40);
const BRAND: RGBColor = RGBColor(190, 30, 30);

type Failed = DrawingAreaErrorKind<std::io::Error>;

/// Percentile curves as the text of an SVG. With reasons in `not_real_time`, the plot carries the
/// brand across its whole width.
///
/// # Errors
/// When the plot cannot be laid out: nothing that data can cause.
pub(crate) fn percentiles(
    curves: &[Curve<'_>],
    title: &str,
    not_real_time: &[String],
) -> Result<String, String> {
    let mut text = String::new();
    draw(&mut text, curves, title, not_real_time).map_err(|error| error.to_string())?;
    Ok(text)
}

fn draw(
    text: &mut String,
    curves: &[Curve<'_>],
    title: &str,
    not_real_time: &[String],
) -> Result<(), Failed> {
    let height = HEIGHT + LINE_HEIGHT * u32::try_from(curves.len()).unwrap_or(0);
    let root = SVGBackend::with_string(text, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let heading = ("sans-serif", 24).into_font().style(FontStyle::Bold).color(&INK);
    root.draw_text(title, &heading.pos(Pos::new(HPos::Left, VPos::Top)), (24, 16))?;
    if !not_real_time.is_empty() {
        brand(&root, not_real_time)?;
    }
    let frame = Frame::around(curves);
    let mut chart = ChartBuilder::on(&root)
        .margin_top(if not_real_time.is_empty() { 56 } else { 76 })
        .margin_bottom(height - HEIGHT + 72)
        .margin_left(LEFT)
        .margin_right(36)
        .build_cartesian_2d(0.0..frame.nines, frame.lowest..frame.highest)?;
    grid(&root, &mut chart, &frame)?;
    let mut below = HEIGHT as i32 - 8;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let line: Vec<_> = steps(curve.histogram)
            .into_iter()
            .map(|(nines, log)| (nines, log.max(frame.lowest)))
            .collect();
        let end = line.last().copied();
        chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
        chart.draw_series(end.map(|end| Circle::new(end, 4, colour.filled())))?;
        root.draw(&Rectangle::new([(LEFT, below - 2), (LEFT + 22, below + 2)], colour.filled()))?;
        let style = text_style(15).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw_text(&legend(curve), &style, (LEFT + 34, below))?;
        below += LINE_HEIGHT as i32;
    }
    root.present()
}

fn text_style(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

type Percentiles<'a, 'b> =
    ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// The grid with its labels: written here, because the marks stand where people look for them and
/// not at equal distances.
fn grid(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    chart: &mut Percentiles<'_, '_>,
    frame: &Frame,
) -> Result<(), Failed> {
    let (left, right) = (0.0, frame.nines);
    let across = |height: f64| [(left, height), (right, height)];
    let upright = |nines: f64| [(nines, frame.lowest), (nines, frame.highest)];
    for decade in frame.lowest.floor() as i32..=frame.highest as i32 {
        for figure in 2..10 {
            let height = f64::from(decade) + f64::from(figure).log10();
            if (frame.lowest..frame.highest).contains(&height) {
                chart.draw_series(LineSeries::new(across(height), INK.mix(0.06)))?;
            }
        }
    }
    for (height, label) in frame.latencies() {
        chart.draw_series(LineSeries::new(across(height), INK.mix(0.2)))?;
        let (x, y) = chart.backend_coord(&(left, height));
        let style = text_style(15).pos(Pos::new(HPos::Right, VPos::Center));
        root.draw_text(&label, &style, (x - 10, y))?;
    }
    for (nines, label) in frame.percentiles() {
        chart.draw_series(LineSeries::new(upright(nines), INK.mix(0.2)))?;
        let (x, y) = chart.backend_coord(&(nines, frame.lowest));
        let style = text_style(15).pos(Pos::new(HPos::Center, VPos::Top));
        root.draw_text(&label, &style, (x, y + 10))?;
    }
    for line in [across(frame.lowest), upright(left)] {
        chart.draw_series(LineSeries::new(line, INK.mix(0.7)))?;
    }
    let middle = chart.backend_coord(&(right / 2.0, f64::midpoint(frame.lowest, frame.highest)));
    let below = text_style(15).pos(Pos::new(HPos::Center, VPos::Bottom));
    root.draw_text("percentile", &below, (middle.0, HEIGHT as i32 - 24))?;
    let beside = ("sans-serif", 15).into_font().transform(FontTransform::Rotate270).color(&INK);
    let beside = beside.pos(Pos::new(HPos::Center, VPos::Top));
    root.draw_text("latency (logarithmic)", &beside, (14, middle.1))
}

fn legend(curve: &Curve<'_>) -> String {
    let histogram = curve.histogram;
    if histogram.is_empty() {
        return format!("{}: no values", curve.name);
    }
    let at = |quantile| nanos(histogram.value_at_quantile(quantile));
    format!(
        "{}: p50 {}, p99 {}, max {}, n = {}",
        curve.name,
        at(0.5),
        at(0.99),
        curve.max.unwrap_or_else(|| nanos(histogram.max())),
        histogram.len()
    )
}

fn nanos(value: u64) -> Nanos {
    Nanos::new(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Says on the whole plot, and with the first reason, that these are no real-time figures.
fn brand(root: &DrawingArea<SVGBackend<'_>, Shift>, reasons: &[String]) -> Result<(), Failed> {
    let (width, height) = (WIDTH as i32, HEIGHT as i32);
    let centre = Pos::new(HPos::Center, VPos::Center);
    let across = ("sans-serif", 112).into_font().style(FontStyle::Bold).color(&BRAND.mix(0.10));
    root.draw_text("NOT REAL-TIME", &across.pos(centre), (width / 2 + 30, height / 2))?;
    let mut line = format!("NOT REAL-TIME: {}", reasons[0]);
    if reasons.len() > 1 {
        line = format!("{line} (and {} more)", reasons.len() - 1);
    }
    if line.chars().count() > LINE {
        line = line.chars().take(LINE - 1).chain(['…']).collect();
    }
    let small = ("sans-serif", 16).into_font().style(FontStyle::Bold).color(&BRAND);
    root.draw_text(&line, &small.pos(Pos::new(HPos::Left, VPos::Top)), (24, 46))
}

/// Characters of the line below the title that fit the width.
const LINE: usize = 125;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::example;

    fn plot(not_real_time: &[String]) -> String {
        let histogram = example([(12_000, 99_000), (40_000, 990), (900_000, 10)]);
        let name = "robot <receive> & \"send\"";
        let empty = example([]);
        let curves = [
            Curve { max: Some(Nanos::new(899_999)), ..Curve::new(name, &histogram) },
            Curve::new("idle", &empty),
        ];
        percentiles(&curves, "Execution of the stages", not_real_time).expect("can be drawn")
    }

    #[test]
    fn the_plot_has_title_units_legend_and_one_line_for_each_curve() {
        let svg = plot(&[]);
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in [
            "Execution of the stages",
            "99.99 %",
            "10 µs",
            "1 ms",
            "max 900.0 µs, n = 100000",
            "no values",
        ] {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert!(svg.contains("&lt;receive&gt; &amp;"), "names from elsewhere are escaped");
        assert!(!svg.contains("NOT REAL-TIME"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn a_branded_plot_says_so_across_its_width_and_with_the_reason() {
        let svg = plot(&["scheduling: wanted SCHED_FIFO 75".to_owned(), "memory".to_owned()]);
        assert_eq!(svg.matches("NOT REAL-TIME").count(), 2);
        assert!(svg.contains("wanted SCHED_FIFO 75 (and 1 more)"));
        let long = plot(&["x".repeat(1_000)]);
        assert!(long.contains('…'));
    }

    #[test]
    fn no_curve_at_all_is_still_a_plot() {
        assert!(percentiles(&[], "nothing", &[]).is_ok());
    }
}
