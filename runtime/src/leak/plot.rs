//! Draws a measurement as one self-contained SVG file, readable in light and in dark.

use std::fmt::Write;

use super::measurement::Measurement;
use crate::{
    html::{percent, text},
    svg::{self, Scale},
};

const STYLE: &str = "svg{background:#fff;color:#1b1f24;font:13px system-ui,sans-serif;--soft:#5a6370;--line:#dfe3e8;\
--one:#7a8594;--two:#1f6fd6}text{fill:var(--soft)}text.title{fill:currentColor;font-size:16px;font-weight:600}\
.grid{stroke:var(--line)}.line{fill:none;stroke-width:2.2}.line.one{stroke:var(--one);stroke-dasharray:6 4}\
.line.two{stroke:var(--two)}.dot.one{fill:var(--one)}.dot.two{fill:var(--two)}\
@media(prefers-color-scheme:dark){svg{background:#14171b;color:#e7eaee;--soft:#9aa4b1;--line:#333a43;\
--one:#98a3b1;--two:#6aabff}}";

/// The content of the file: shares over the number of rows.
pub fn plot(measured: &Measurement) -> String {
    let names: Vec<String> =
        measured.recovered.iter().map(|recovered| recovered.rows.to_string()).collect();
    let energy =
        measured.recovered.iter().map(|recovered| recovered.energy.map(|energy| energy.median));
    let gain = measured.recovered.iter().map(|recovered| recovered.gain);
    let series: Vec<(&str, &str, Vec<f64>)> = [
        (
            "one",
            "of the deltas' energy (median of the modules)",
            energy.collect::<Option<Vec<f64>>>(),
        ),
        ("two", "of the adapter's gain", gain.collect::<Option<Vec<f64>>>()),
    ]
    .into_iter()
    .filter_map(|(class, name, values)| Some((class, name, values?)))
    .collect();
    let most = series
        .iter()
        .flat_map(|(_, _, values)| values)
        .fold(1.0, |most: f64, value| most.max(*value));
    let scale = Scale::Linear(0.0, if most > 1.001 { 1.2 } else { 1.0 });
    let curves: Vec<(&str, Vec<f64>)> =
        series.iter().map(|(class, _, values)| (*class, values.clone())).collect();
    let title = format!("What ordinary rows give away of an adapter of {}", measured.base_model);
    let inner = svg::curves(&title, "rows a module", &names, &curves, scale, percent);
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 820 350\" width=\"820\" height=\"350\" role=\"img\">\
         <title>{0}</title><style>{STYLE}</style><text class=\"title\" x=\"16\" y=\"28\">{0}</text>",
        text(&title),
    );
    for (index, (class, name, _)) in series.iter().enumerate() {
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

#[cfg(test)]
mod tests {
    use super::{
        super::measurement::{FORMAT, Recovered, Spread, VERSION},
        *,
    };

    fn measured(recovered: Vec<Recovered>) -> Measurement {
        Measurement {
            format: FORMAT.into(),
            version: VERSION,
            adapter_id: String::new(),
            base_model: "</title><script>".into(),
            text: String::new(),
            held_out: String::new(),
            held_out_tokens: 0,
            context: 0,
            modules: 0,
            base_loss: 0.0,
            adapted_loss: 0.0,
            recovered,
        }
    }

    #[test]
    fn a_plot_is_well_formed_whatever_the_numbers_are() {
        let point = |rows, gain, median| Recovered {
            rows,
            loss: 0.0,
            gain,
            energy: Some(Spread { least: -1.0, median, most: 1.0 }),
        };
        let svg = plot(&measured(vec![
            point(1, Some(-3.0), -1e300),
            point(2, Some(1e300), 0.5),
            point(4, Some(1.0), 1.0),
        ]));
        assert_eq!((svg.matches("<circle").count(), svg.matches("<polyline").count()), (6, 2));
        assert_eq!((svg.matches("<svg ").count(), svg.matches("</svg>").count()), (2, 2));
        assert!(!["NaN", "inf", "<script"].iter().any(|bad| svg.contains(bad)), "{svg}");
        // Without a gain, one line; without anything, none.
        assert_eq!(plot(&measured(vec![point(1, None, 0.1)])).matches("<polyline").count(), 1);
        assert_eq!(plot(&measured(vec![])).matches("<circle").count(), 0);
    }
}
