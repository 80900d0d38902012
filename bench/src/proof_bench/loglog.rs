//! Curves with logarithmic axes as one self-contained SVG file, readable in light and in dark.
//!
//! Not the crate `plotters`: its SVG has fixed colours and no classes, so it cannot follow the
//! reader's light or dark style, and its points have no tooltips.

use std::fmt::Write;

use zklora_runtime::html::text;

/// A named curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Places and values; those that are not positive and finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// Curves over one axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What the horizontal axis counts.
    pub axis: String,
    /// The curves.
    pub lines: Vec<Line>,
}

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 48.0;
const LEGEND: f64 = 150.0;

/// Colours that differ in lightness as well, for light and for dark.
const STYLE: &str = "svg{background:#fff;color:#1f2328;font:12px system-ui,sans-serif}\
text{fill:currentColor}.title{font-size:15px;font-weight:600}.grid{stroke:currentColor;opacity:.15}\
.frame{fill:none;stroke:currentColor;opacity:.5}.line{fill:none;stroke-width:2}\
.c0{stroke:#0b57d0;fill:#0b57d0}.c1{stroke:#b3261e;fill:#b3261e}.c2{stroke:#137333;fill:#137333}\
.c3{stroke:#9334e6;fill:#9334e6}.c4{stroke:#b06000;fill:#b06000}.c5{stroke:#00838f;fill:#00838f}.line{fill:none}\
@media(prefers-color-scheme:dark){svg{background:#0d1117;color:#e6edf3}\
.c0{stroke:#7cacf8;fill:#7cacf8}.c1{stroke:#f2b8b5;fill:#f2b8b5}.c2{stroke:#81c995;fill:#81c995}\
.c3{stroke:#d7aefb;fill:#d7aefb}.c4{stroke:#fdd663;fill:#fdd663}.c5{stroke:#78d9e4;fill:#78d9e4}.line{fill:none}}";

/// Colours of [`STYLE`].
const COLOURS: usize = 6;
/// What tells curves apart without colour.
const DASHES: [&str; COLOURS] = ["none", "7 3", "2 3", "none", "7 3", "2 3"];

/// Powers of ten around values.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Decades {
    low: f64,
    high: f64,
}

impl Decades {
    /// Decades of the vertical axis are whole; those of the horizontal one end at its first and
    /// last place.
    fn of(values: impl Iterator<Item = f64>, whole: bool) -> Decades {
        let logs: Vec<f64> = values.map(f64::log10).collect();
        let (low, high) = (
            logs.iter().fold(f64::MAX, |a, b| a.min(*b)),
            logs.iter().fold(f64::MIN, |a, b| a.max(*b)),
        );
        match (low <= high, whole) {
            (false, _) => Decades { low: 0.0, high: 1.0 },
            (true, true) => Decades { low: low.floor(), high: high.ceil().max(low.floor() + 1.0) },
            (true, false) => Decades { low: low - 0.06, high: high.max(low + 0.1) + 0.06 },
        }
    }

    fn share(self, value: f64) -> f64 {
        ((value.log10() - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

fn drawn(line: &Line) -> impl Iterator<Item = (f64, f64)> {
    line.points.iter().copied().filter(|(x, y)| [x, y].iter().all(|v| v.is_finite() && **v > 0.0))
}

/// A number of the vertical axis.
fn power(value: f64) -> String {
    match value {
        v if (1e-5..1e4).contains(&v) => format!("{v}"),
        v => format!("{v:e}"),
    }
}

/// The file. All panels share the vertical axis, whose unit is `unit`.
pub fn drawing(title: &str, unit: &str, panels: &[Panel]) -> String {
    let values = panels.iter().flat_map(|panel| &panel.lines).flat_map(drawn).map(|(_, y)| y);
    let vertical = Decades::of(values, true);
    let width = WIDTH * panels.len().max(1) as f64 + LEGEND;
    let height = TOP + HEIGHT;
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\
         <title>{0}</title><style>{STYLE}</style><text class=\"title\" x=\"16\" y=\"30\">{0}</text>\
         <text x=\"16\" y=\"52\">{1}, wall time; both axes logarithmic</text>",
        text(title),
        text(unit),
    );
    for (index, panel) in panels.iter().enumerate() {
        draw(&mut out, panel, index as f64 * WIDTH, vertical, unit);
    }
    for (index, name) in
        panels.first().iter().flat_map(|panel| &panel.lines).map(|line| &line.name).enumerate()
    {
        let (x, y) = (width - LEGEND + 8.0, TOP + 10.0 + 24.0 * index as f64);
        let (colour, dash) = (index % COLOURS, DASHES[index % COLOURS]);
        let _ = write!(
            out,
            "<line class=\"line c{colour}\" stroke-dasharray=\"{dash}\" x1=\"{x}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            x + 26.0,
            x + 34.0,
            y + 4.0,
            text(name),
        );
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel, left: f64, vertical: Decades, unit: &str) {
    let mut places: Vec<f64> = panel.lines.iter().flat_map(drawn).map(|(x, _)| x).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let horizontal = Decades::of(places.iter().copied(), false);
    let (from, to, bottom) = (left + LEFT, left + WIDTH - RIGHT, TOP + HEIGHT - BOTTOM);
    let x = |value: f64| from + (to - from) * horizontal.share(value);
    let y = |value: f64| bottom - (bottom - TOP) * vertical.share(value);
    for exponent in vertical.low as i32..=vertical.high as i32 {
        let value = 10f64.powi(exponent);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/>\
             <text x=\"{1:.1}\" y=\"{2:.1}\" text-anchor=\"end\">{3}</text>",
            y(value),
            from - 8.0,
            y(value) + 4.0,
            power(value),
        );
    }
    for value in &places {
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/>\
             <text x=\"{0:.1}\" y=\"{1:.1}\" text-anchor=\"middle\">{value}</text>",
            x(*value),
            bottom + 18.0,
        );
    }
    let _ = write!(
        out,
        "<rect class=\"frame\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"translate({:.1} {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        to - from,
        bottom - TOP,
        (from + to) / 2.0,
        bottom + 38.0,
        text(&panel.axis),
        left + 18.0,
        (TOP + bottom) / 2.0,
        text(unit),
    );
    for (index, line) in panel.lines.iter().enumerate() {
        let (colour, dash) = (index % COLOURS, DASHES[index % COLOURS]);
        let points: Vec<String> =
            drawn(line).map(|(px, py)| format!("{:.1},{:.1}", x(px), y(py))).collect();
        let _ = write!(
            out,
            "<polyline class=\"line c{colour}\" stroke-dasharray=\"{dash}\" points=\"{}\"/>",
            points.join(" ")
        );
        for (px, py) in drawn(line) {
            let _ = write!(
                out,
                "<circle class=\"c{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>{}: {py:.3e} {}</title></circle>",
                x(px),
                y(py),
                text(&line.name),
                text(unit),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element is closed by its own name, and every coordinate is a number.
    fn is_well_formed(svg: &str) -> bool {
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1).filter_map(|part| part.split('>').next()) {
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
            match (tag.starts_with('/'), tag.ends_with('/')) {
                (true, _) if open.pop() != Some(name) => return false,
                (false, false) => open.push(name),
                _ => {}
            }
        }
        open.is_empty() && !["NaN", "inf"].iter().any(|bad| svg.contains(bad))
    }

    fn line(name: &str, points: &[(f64, f64)]) -> Line {
        Line { name: name.into(), points: points.to_vec() }
    }

    #[test]
    fn drawings_are_well_formed_whatever_the_numbers_are() {
        let lines = vec![
            line("a <b> & \"c\"", &[(64.0, 1e-6), (640.0, 0.5), (6400.0, 1e9)]),
            line("odd", &[(0.0, 1.0), (f64::NAN, 1.0), (10.0, f64::INFINITY), (10.0, -1.0)]),
            line("one", &[(64.0, 2.0)]),
            line("none", &[]),
        ];
        let svg = drawing("title", "seconds", &[Panel { axis: "rows & more".into(), lines }]);
        assert!(is_well_formed(&svg), "{svg}");
        assert!(
            svg.contains("rows &amp; more")
                && svg.contains("seconds")
                && svg.contains("prefers-color-scheme:dark")
        );
        assert!(svg.contains("a &lt;b&gt;"));
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(is_well_formed(&drawing("nothing", "seconds", &[])));
        assert!(!is_well_formed("<svg><text></svg>"));
    }

    #[test]
    fn a_decade_is_as_wide_as_any_other() {
        let decades = Decades::of([0.002, 30.0].into_iter(), true);
        assert_eq!(decades, Decades { low: -3.0, high: 2.0 });
        assert!(
            (decades.share(0.01) - 0.2).abs() < 1e-12 && (decades.share(10.0) - 0.8).abs() < 1e-12
        );
    }
}
