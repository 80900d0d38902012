//! Plots as inline SVG. Every coordinate is finite for any numbers.
//!
//! Not the crate `plotters`: its SVG has fixed colours and no classes, so a plot could not follow
//! the page's light and dark style, and it has neither tooltips nor labels for screen readers.

use std::fmt::Write;

use crate::html::text;

/// How a value maps to a height above the axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// From the first to the second.
    Linear(f64, f64),
    /// Powers of ten, from the first exponent to the second. Smaller values are drawn on the axis.
    Decades(i32, i32),
}

impl Scale {
    /// A linear scale from zero, or one of powers of ten if the positive values differ by more than
    /// a factor of 2000.
    pub fn of_sizes(values: impl Iterator<Item = f64> + Clone) -> Scale {
        let positive = || values.clone().filter(|v| v.is_finite() && *v > 0.0);
        let (least, most) = (positive().fold(f64::MAX, f64::min), positive().fold(0.0, f64::max));
        if most <= 0.0 {
            return Scale::Linear(0.0, 1.0);
        }
        if most / least > 2000.0 {
            let (low, high) = (least.log10().floor() as i32, most.log10().ceil() as i32);
            return Scale::Decades(low.max(high - 12), high);
        }
        Scale::Linear(0.0, round_up(most))
    }

    /// A linear scale that fits the values. It need not begin at zero.
    pub fn around(values: impl Iterator<Item = f64> + Clone) -> Scale {
        let finite = || values.clone().filter(|v| v.is_finite());
        let (least, most) = (finite().fold(f64::MAX, f64::min), finite().fold(f64::MIN, f64::max));
        if least > most {
            return Scale::Linear(0.0, 1.0);
        }
        // Halves, because the difference of two finite numbers may overflow.
        let margin = ((most / 2.0 - least / 2.0) * 0.2).max(most.abs() * 0.01).max(1e-9);
        Scale::Linear((least - margin).max(f64::MIN / 4.0), (most + margin).min(f64::MAX / 4.0))
    }

    /// The height of a value, between 0 and 1.
    pub fn fraction(self, value: f64) -> f64 {
        let share = match self {
            Scale::Linear(low, high) => (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0),
            Scale::Decades(_, _) if value <= 0.0 => 0.0,
            Scale::Decades(low, high) => (value.log10() - f64::from(low)) / f64::from(high - low),
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Values to mark on the axis.
    pub fn marks(self) -> Vec<f64> {
        match self {
            Scale::Linear(low, high) => {
                let step = round_step((high / 4.0 - low / 4.0).max(f64::MIN_POSITIVE));
                let first = (low / step).ceil();
                let marks = (0..=8).map(|i| (first + f64::from(i)) * step);
                marks.filter(|mark| mark.is_finite() && *mark <= high * (1.0 + 1e-9)).collect()
            }
            Scale::Decades(low, high) => {
                let step = ((high - low + 3) / 4).max(1) as usize;
                (low..=high).step_by(step).map(|exponent| 10f64.powi(exponent)).collect()
            }
        }
    }
}

/// The next of these numbers times a power of ten.
fn round_up_to(x: f64, numbers: &[f64]) -> f64 {
    let unit = 10f64.powf(x.log10().floor());
    let up = numbers.iter().map(|m| m * unit).find(|candidate| *candidate >= x);
    up.filter(|up| up.is_finite() && *up > 0.0).unwrap_or(x)
}

fn round_up(x: f64) -> f64 {
    round_up_to(x, &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0])
}

fn round_step(x: f64) -> f64 {
    round_up_to(x, &[1.0, 2.0, 5.0, 10.0])
}

/// Removes trailing zeros from a number, which may have a unit.
fn short(label: &str) -> String {
    let (number, unit) = label
        .split_once(' ')
        .map_or((label, String::new()), |(number, unit)| (number, format!(" {unit}")));
    if !number.contains('.') || number.contains('e') {
        return label.to_string();
    }
    format!("{}{unit}", number.trim_end_matches('0').trim_end_matches('.'))
}

/// A plot area with a labelled vertical axis.
struct Frame {
    width: f64,
    height: f64,
    scale: Scale,
}

const LEFT: f64 = 58.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

impl Frame {
    fn y(&self, value: f64) -> f64 {
        TOP + (self.height - TOP - BOTTOM) * (1.0 - self.scale.fraction(value))
    }

    /// The left end of step `at` of `count` on the horizontal axis. Its middle is at `at + 0.5`.
    fn x(&self, at: f64, count: usize) -> f64 {
        LEFT + (self.width - LEFT - RIGHT) * at / count.max(1) as f64
    }

    /// Begins the picture: horizontal lines, and about eight marks along the horizontal axis.
    fn begin(
        &self,
        label: &str,
        axis: &str,
        shown: impl Fn(f64) -> String,
        along: &[String],
    ) -> String {
        let mut out = String::new();
        let (width, height) = (self.width, self.height);
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">",
            text(label)
        );
        for mark in self.scale.marks() {
            let y = self.y(mark);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                width - RIGHT,
                LEFT - 7.0,
                y + 4.0,
                text(&short(&shown(mark))),
            );
        }
        for (index, name) in along.iter().enumerate().step_by(along.len().div_ceil(8).max(1)) {
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                self.x(index as f64 + 0.5, along.len()),
                height - BOTTOM + 16.0,
                text(name),
            );
        }
        let _ = write!(
            out,
            "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            (width + LEFT - RIGHT) / 2.0,
            height - 5.0,
            text(axis),
        );
        out
    }
}

/// One bar of a plot.
pub struct Bar {
    /// The label below the axis.
    pub name: String,
    /// The tooltip.
    pub full: String,
    /// The height, if there is a value.
    pub value: Option<f64>,
}

/// Draws bars.
pub fn bars(
    label: &str,
    axis: &str,
    bars: &[Bar],
    scale: Scale,
    shown: impl Fn(f64) -> String,
) -> String {
    let frame = Frame { width: 340.0, height: 180.0, scale };
    let names: Vec<String> = bars.iter().map(|bar| bar.name.clone()).collect();
    let mut out = frame.begin(label, axis, &shown, &names);
    let step = frame.x(1.0, bars.len()) - frame.x(0.0, bars.len());
    let bottom = frame.height - BOTTOM;
    for (index, bar) in bars.iter().enumerate() {
        let Some(value) = bar.value else { continue };
        let y = frame.y(value);
        let _ = write!(
            out,
            "<rect class=\"bar\" x=\"{:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{:.2}\" rx=\"{:.2}\"><title>{}: {}</title></rect>",
            frame.x(index as f64, bars.len()) + step * 0.12,
            (step * 0.76).min(40.0),
            bottom - y,
            (step * 0.15).min(2.0),
            text(&bar.full),
            text(&shown(value)),
        );
    }
    let _ = write!(
        out,
        "<line class=\"base\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{bottom:.1}\" y2=\"{bottom:.1}\"/></svg>",
        frame.width - RIGHT
    );
    out
}

/// Most points of a line. More are averaged in groups.
const POINTS: usize = 240;

/// Draws two lines over the same positions: the first values of the pairs (class `one`) and the
/// second (class `two`).
pub fn lines(
    label: &str,
    axis: &str,
    pairs: &[(f64, f64)],
    shown: impl Fn(f64) -> String,
) -> String {
    let group = pairs.len().div_ceil(POINTS).max(1);
    let mean = |of: fn(&(f64, f64)) -> f64| -> Vec<f64> {
        pairs.chunks(group).map(|c| c.iter().map(|p| of(p) / c.len() as f64).sum()).collect()
    };
    let series = [mean(|pair| pair.0), mean(|pair| pair.1)];
    let scale = Scale::around(series.iter().flatten().copied());
    let names: Vec<String> =
        (0..series[0].len()).map(|index| (index * group + 1).to_string()).collect();
    let [first, second] = series;
    curves(label, axis, &names, &[("one", first), ("two", second)], scale, shown)
}

/// Draws lines over the same named positions, each with its class.
pub fn curves(
    label: &str,
    axis: &str,
    names: &[String],
    series: &[(&str, Vec<f64>)],
    scale: Scale,
    shown: impl Fn(f64) -> String,
) -> String {
    let frame = Frame { width: 820.0, height: 270.0, scale };
    let mut out = frame.begin(label, axis, &shown, names);
    for (class, values) in series {
        let at = |index: usize| (frame.x(index as f64 + 0.5, names.len()), frame.y(values[index]));
        let points: Vec<String> =
            (0..values.len()).map(at).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(out, "<polyline class=\"line {class}\" points=\"{}\"/>", points.join(" "));
        if values.len() <= 64 {
            for ((index, value), name) in values.iter().enumerate().zip(names) {
                let (x, y) = at(index);
                let _ = write!(
                    out,
                    "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{}: {}</title></circle>",
                    text(name),
                    text(&shown(*value)),
                );
            }
        }
    }
    out.push_str("</svg>");
    out
}

/// A value with its interval.
pub struct Whisker {
    /// Its name.
    pub name: String,
    /// The value in words.
    pub shown: String,
    /// The value.
    pub value: f64,
    /// Half the width of the interval.
    pub plus_minus: Option<f64>,
}

impl Whisker {
    fn ends(&self) -> [f64; 2] {
        let half = self.plus_minus.unwrap_or(0.0);
        [self.value - half, self.value + half]
    }
}

/// Which side of zero an interval is on, as a class. The colour is for viewers without the page's
/// style.
fn side(of: &Whisker) -> (&'static str, &'static str) {
    let [low, high] = of.ends();
    match of.plus_minus {
        Some(_) if low > 0.0 => ("better", "#2a8a56"),
        Some(_) if high < 0.0 => ("worse", "#c8453c"),
        _ => ("open", "#7a8594"),
    }
}

/// A long name without its middle.
fn shortened(name: &str) -> String {
    const ENDS: usize = 11;
    let all: Vec<char> = name.chars().collect();
    if all.len() <= 2 * ENDS + 1 {
        return name.to_string();
    }
    let (first, last) = (&all[..ENDS], &all[all.len() - ENDS..]);
    first.iter().chain(&['…']).chain(last).collect()
}

/// Draws a dot and its interval for each value, one below the other, on one axis that has zero.
pub fn whiskers(label: &str, axis: &str, of: &[Whisker], shown: impl Fn(f64) -> String) -> String {
    const WIDTH: f64 = 340.0;
    const SIDE: f64 = 20.0;
    const ROW: f64 = 44.0;
    let scale = Scale::around(of.iter().flat_map(Whisker::ends).chain([0.0]));
    let x = |value: f64| SIDE + (WIDTH - 2.0 * SIDE) * scale.fraction(value);
    let bottom = ROW * of.len() as f64;
    let height = bottom + 42.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#7a8594\" aria-label=\"{}\">",
        text(label)
    );
    for mark in scale.marks() {
        let at = x(mark);
        let (class, colour) = if mark == 0.0 { ("base", "#7a8594") } else { ("grid", "#a9b1bb") };
        for row in 0..of.len() {
            let top = ROW * row as f64 + 20.0;
            let _ = write!(
                out,
                "<line class=\"{class}\" stroke=\"{colour}\" x1=\"{at:.1}\" x2=\"{at:.1}\" \
                 y1=\"{top:.1}\" y2=\"{:.1}\"/>",
                top + 18.0
            );
        }
        let _ = write!(
            out,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 14.0,
            text(&short(&shown(mark))),
        );
    }
    for (row, whisker) in of.iter().enumerate() {
        let top = ROW * row as f64;
        let y = top + 29.0;
        let [low, high] = whisker.ends();
        let (class, colour) = side(whisker);
        let name = shortened(&whisker.name);
        let _ = write!(
            out,
            "<text class=\"name\" x=\"0\" y=\"{0:.1}\">{1}</text>\
             <text x=\"{WIDTH}\" y=\"{0:.1}\" text-anchor=\"end\">{2}</text>\
             <g class=\"{class}\" stroke=\"{colour}\" fill=\"{colour}\"><title>{3}: {2}</title>",
            top + 14.0,
            text(&name),
            text(&whisker.shown),
            text(&whisker.name),
        );
        if whisker.plus_minus.is_some() {
            let _ = write!(
                out,
                "<path class=\"whisker\" stroke-width=\"2.4\" \
                 d=\"M{0:.1} {y:.1}H{1:.1}M{0:.1} {2:.1}V{3:.1}M{1:.1} {2:.1}V{3:.1}\"/>",
                x(low),
                x(high),
                y - 5.0,
                y + 5.0,
            );
        }
        let _ = write!(out, "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4.5\"/></g>", x(whisker.value));
    }
    let _ = write!(
        out,
        "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text></svg>",
        WIDTH / 2.0,
        height - 6.0,
        text(axis),
    );
    out
}

const PICTURE_STYLE: &str = "svg{background:#fff;color:#1b1f24;font:13px system-ui,sans-serif;--soft:#5a6370;--line:#dfe3e8;\
--one:#7a8594;--two:#1f6fd6}text{fill:var(--soft)}text.title{fill:currentColor;font-size:16px;font-weight:600}\
.grid{stroke:var(--line)}.line{fill:none;stroke-width:2.2}.line.one{stroke:var(--one);stroke-dasharray:6 4}\
.line.two{stroke:var(--two)}.dot.one{fill:var(--one)}.dot.two{fill:var(--two)}\
@media(prefers-color-scheme:dark){svg{background:#14171b;color:#e7eaee;--soft:#9aa4b1;--line:#333a43;\
--one:#98a3b1;--two:#6aabff}}";

/// A self-contained picture, readable in light and in dark: a title, a legend of classes and names,
/// and [`curves`].
pub fn picture(title: &str, legend: &[(&str, &str)], inner: &str) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 820 350\" width=\"820\" height=\"350\" role=\"img\">\
         <title>{0}</title><style>{PICTURE_STYLE}</style><text class=\"title\" x=\"16\" y=\"28\">{0}</text>",
        text(title),
    );
    for (index, (class, name)) in legend.iter().enumerate() {
        let x = 16.0 + 330.0 * index as f64;
        let _ = write!(
            out,
            "<line class=\"line {class}\" x1=\"{x}\" x2=\"{}\" y1=\"52\" y2=\"52\"/><text x=\"{}\" y=\"56\">{}</text>",
            x + 26.0,
            x + 34.0,
            text(name),
        );
    }
    // The plot is nested in the picture, below the title.
    out.push_str(&inner.replacen("<svg ", "<svg y=\"72\" width=\"820\" height=\"270\" ", 1));
    out.push_str("</svg>\n");
    out
}
