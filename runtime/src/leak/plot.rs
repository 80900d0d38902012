//! Draws a measurement as one self-contained SVG file, readable in light and in dark.

use super::measurement::Measurement;
use crate::{
    html::percent,
    svg::{self, Scale},
};

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
    let legend: Vec<(&str, &str)> = series.iter().map(|(class, name, _)| (*class, *name)).collect();
    svg::picture(&title, &legend, &inner)
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
