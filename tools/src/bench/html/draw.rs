//! What the page's plots share: their frame, their axes, the values under the pointer.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::super::stats::Series;

/// How many colours the style sheet has for curves.
pub(super) const COLOURS: usize = 8;

/// Text from elsewhere, as text of a page or of an attribute in double quotes.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Not allowed in a page, and nothing to see.
                c if c.is_control() && c != '\n' => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A series with its name and colour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines<'a> {
    pub(super) name: &'a str,
    pub(super) colour: usize,
    pub(super) of: &'a Series,
}

/// Where a plot lies in its picture, and which values its edges have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) height: f64,
    pub(super) x: (f64, f64),
    pub(super) y: (f64, f64),
}

pub(super) const WIDTH: f64 = 880.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 864.0;
const TOP: f64 = 10.0;
const BELOW: f64 = 40.0;

impl Area {
    pub(super) fn x(&self, value: f64) -> f64 {
        LEFT + (value - self.x.0) / (self.x.1 - self.x.0) * (RIGHT - LEFT)
    }

    pub(super) fn y(&self, value: f64) -> f64 {
        let share = (value - self.y.0) / (self.y.1 - self.y.0);
        let bottom = self.height - BELOW;
        bottom - share.clamp(0.0, 1.0) * (bottom - TOP)
    }

    /// Pixels of the picture for a difference in x.
    pub(super) fn wide(&self, difference: f64) -> f64 {
        difference / (self.x.1 - self.x.0) * (RIGHT - LEFT)
    }

    /// Grid and labels. A label that would touch the one before it is left out.
    pub(super) fn axes(
        &self,
        along: &[(f64, String)],
        upright: &[(f64, String)],
        caption: &str,
    ) -> String {
        let bottom = self.height - BELOW;
        let mut svg = "<g class=\"grid\">".to_owned();
        let mut free = 0.0;
        for (value, label) in along {
            let x = self.x(*value);
            let _ = write!(svg, "<path d=\"M{x:.1} {TOP}V{bottom}\"/>");
            let half = 3.4 * label.chars().count() as f64;
            if x - half >= free && x + half <= WIDTH {
                let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{}\">{label}</text>", bottom + 16.0);
                free = x + half + 6.0;
            }
        }
        for (value, label) in upright {
            let y = self.y(*value);
            let _ = write!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{RIGHT}\"/><text class=\"end\" x=\"{}\" y=\"{:.1}\">{label}</text>",
                LEFT - 8.0,
                y + 4.0
            );
        }
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{RIGHT}\"/><text x=\"{}\" y=\"{}\">{caption}</text></g>",
            f64::midpoint(LEFT, RIGHT),
            self.height - 6.0
        );
        svg
    }
}

/// One curve under the pointer: points of the picture with what to say about each.
#[derive(Debug, Serialize)]
pub(super) struct Hover {
    pub(super) name: String,
    pub(super) colour: usize,
    pub(super) points: Vec<(f64, f64, String)>,
}

/// A plot with its caption: `inside` in a picture of `height`, and the values for the pointer.
pub(super) fn figure(
    class: &str,
    caption: &str,
    height: f64,
    inside: &str,
    hover: &[Hover],
) -> String {
    let caption = Escaped(caption);
    // In a page, `</script` ends a script wherever it stands; no other character matters there.
    let values = serde_json::to_string(hover).unwrap_or_else(|_| "[]".to_owned());
    let values = values.replace('<', "\\u003c");
    format!(
        "<figure class=\"plot {class}\"><figcaption>{caption}</figcaption>\n\
         <svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{caption}\">{inside}\
         <path class=\"cursor\" d=\"M0 {TOP}V{}\"/></svg>\n\
         <script type=\"application/json\">{values}</script><div class=\"tip\" hidden></div></figure>\n",
        height - BELOW
    )
}

/// The names of curves with their colours.
pub(super) fn legend<'a>(names: impl Iterator<Item = (&'a str, usize)>) -> String {
    let mut html = "<p class=\"legend\">".to_owned();
    for (name, colour) in names {
        let _ = write!(html, "<span><i class=\"key c{colour}\"></i>{}</span> ", Escaped(name));
    }
    html.push_str("</p>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_become_markup() {
        let text = "a<script>alert('1')</script>&\"\u{0}\u{1b}[31m";
        let wanted =
            "a&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;\u{fffd}\u{fffd}[31m";
        assert_eq!(Escaped(text).to_string(), wanted);
        let points = vec![(1.0, 2.0, "</script><b>".to_owned())];
        let hover = [Hover { name: "<!--".to_owned(), colour: 0, points }];
        let html = figure("x", "\"><i>", 100.0, "", &hover);
        assert_eq!(html.matches("</script>").count(), 1, "{html}");
        assert!(!html.contains("<!--") && !html.contains("<b>") && !html.contains("<i>"));
    }
}
