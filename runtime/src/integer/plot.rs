//! Draws a comparison: how large the differences of tokens are.

use super::check::{Comparison, Side};
use crate::{
    html::number,
    svg::{self, Scale},
};

/// Shares of the tokens that are marked, in per mille.
const SHARES: [usize; 8] = [100, 250, 500, 750, 900, 950, 990, 1000];

/// The content of an SVG file: for shares of the tokens, the largest difference among them.
pub fn plot(comparison: &Comparison) -> String {
    let names: Vec<String> =
        SHARES.iter().map(|share| format!("{} %", *share as f64 / 10.0)).collect();
    let sides = [("one", "base model", Some(&comparison.base))].into_iter().chain([(
        "two",
        "with the adapter",
        comparison.adapted.as_ref(),
    )]);
    let series: Vec<(&str, &str, Vec<f64>)> =
        sides.filter_map(|(class, name, side)| Some((class, name, quantiles(side?)))).collect();
    let scale = Scale::of_sizes(series.iter().flat_map(|(.., values)| values.iter().copied()));
    let curves: Vec<(&str, Vec<f64>)> =
        series.iter().map(|(class, _, values)| (*class, values.clone())).collect();
    let title = "Differences of log-probabilities, integers against floats (nats)";
    let inner = svg::curves(title, "share of the tokens", &names, &curves, scale, number);
    let legend: Vec<(&str, &str)> = series.iter().map(|(class, name, _)| (*class, *name)).collect();
    svg::picture(title, &legend, &inner)
}

fn quantiles(side: &Side) -> Vec<f64> {
    let all = &side.differences;
    let at = |share: &usize| (all.len() * share).div_ceil(1000).max(1) - 1;
    SHARES.iter().map(|share| all.get(at(share)).copied().unwrap_or(0.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(differences: Vec<f64>) -> Side {
        Side {
            tokens: differences.len(),
            float_loss: 0.0,
            integer_loss: 0.0,
            mean: 0.0,
            largest: 0.0,
            out_of_range: vec![],
            units: vec![],
            differences,
        }
    }

    #[test]
    fn a_plot_has_a_line_for_each_side() {
        let mut comparison = Comparison {
            base: side(vec![0.0, 0.25, 0.5]),
            adapted: None,
            worst: vec![],
            headroom: vec![],
            seconds: (0.0, 0.0),
        };
        assert_eq!(quantiles(&comparison.base), [0.0, 0.0, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5]);
        assert_eq!(plot(&comparison).matches("<polyline").count(), 1);
        comparison.adapted = Some(side(vec![]));
        let both = plot(&comparison);
        assert_eq!(both.matches("<polyline").count(), 2);
        assert!(!both.contains("NaN") && !both.contains("inf"));
    }
}
