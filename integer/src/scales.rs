//! Chooses the scales of every operator by the rules.

use crate::{
    calibrate::{Seen, exponent},
    fixed,
    graph::{Graph, Operator, Purpose},
    rules,
};

/// The numbers that fix an operator's integers. A real number `x` is stored as `x·2^bits`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Scale {
    /// A table or a rounding: fractional bits of the result.
    Bits {
        /// Fractional bits.
        bits: i32,
    },
    /// A norm.
    Norm {
        /// Fractional bits of the result.
        bits: i32,
        /// Additional bits of the root at position 0.
        first_bits: u32,
        /// Fractional bits of the root, for an input without fractional bits.
        root_bits: i32,
    },
    /// A linear layer.
    Linear {
        /// Fractional bits of the gains, where adapters read them.
        gain_bits: i32,
        /// Most fractional bits of the result with an adapter, where a sum or a product reads it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part_bits: Option<i32>,
        /// Fractional bits of the matrix.
        weight_bits: i32,
    },
    /// Attention: scores are divided by this power of two.
    Attention {
        /// The exponent.
        score_shift: i32,
    },
    /// An activation: fractional bits of the table's entries.
    Activation {
        /// Fractional bits.
        entry_bits: i32,
    },
    /// An operator without scales of its own.
    None {},
}

/// The scales of every operator, and fractional bits of scores.
pub fn choose(graph: &Graph, seen: &[Seen]) -> (Vec<Scale>, i32) {
    let widths = graph.widths();
    let is_part = parts(graph);
    let scales: Vec<Scale> = graph
        .operators
        .iter()
        .enumerate()
        .map(|(at, operator)| match operator {
            Operator::Embedding { .. } | Operator::Positions { .. } => {
                Scale::Bits { bits: residual_bits(&stream(graph, seen, at)) }
            }
            Operator::Round { purpose: Purpose::Residual, .. } => {
                Scale::Bits { bits: residual_bits(&seen[at]) }
            }
            Operator::Round { purpose: Purpose::Attention, .. } => {
                Scale::Bits { bits: narrow_bits(seen[at].largest) }
            }
            Operator::Round { purpose: Purpose::Index, .. } => Scale::Bits {
                bits: narrow_bits(seen[at].largest)
                    .clamp(*fixed::ACTIVATION_BITS.start(), *fixed::ACTIVATION_BITS.end()),
            },
            Operator::Norm { x, kind, .. } => Scale::Norm {
                bits: norm_bits(widths[at]),
                root_bits: root_bits(seen[*x].spread, *kind, widths[at]),
                first_bits: first_bits(&seen[*x]),
            },
            Operator::Linear { affine, weight, .. } => {
                let gain = affine.gain.as_deref();
                let root = graph.weights[*weight].root_mean_square(gain);
                let most = gain.map_or(1.0, |gain| {
                    f64::from(gain.iter().fold(0.0, |most: f32, gain| most.max(gain.abs())))
                });
                Scale::Linear {
                    gain_bits: limited(rules::GAIN_BITS - exponent(most)),
                    part_bits: is_part[at].then(|| part_bits(seen[at].largest)),
                    weight_bits: limited(rules::WEIGHT_BITS - exponent(root) + 1),
                }
            }
            Operator::Attention { q, k, scale, .. } => {
                let [q, k] = [*q, *k].map(|x| narrow_bits(seen[x].largest));
                Scale::Attention { score_shift: score_shift(q + k, *scale, seen[at].nats) }
            }
            Operator::Activation { .. } => {
                Scale::Activation { entry_bits: entry_bits(seen[at].largest) }
            }
            Operator::Sum { .. }
            | Operator::Select { .. }
            | Operator::Rotary { .. }
            | Operator::Product { .. } => Scale::None {},
        })
        .collect();
    let scores = (0..=rules::SCORE_BITS)
        .rev()
        .find(|bits| fits_table(seen[graph.logits].nats, crate::weight::power_of_two(-bits)))
        .unwrap_or(0);
    (scales, scores)
}

/// Which values a sum or a product reads.
pub fn parts(graph: &Graph) -> Vec<bool> {
    let mut is_part = vec![false; graph.operators.len()];
    for operator in &graph.operators {
        if matches!(operator, Operator::Sum { .. } | Operator::Product { .. }) {
            operator.inputs().into_iter().for_each(|x| is_part[x] = true);
        }
    }
    is_part
}

fn limited(bits: i32) -> i32 {
    bits.clamp(-rules::MAX_BITS, rules::MAX_BITS)
}

/// What was seen of the sum of tables that a table belongs to.
fn stream(graph: &Graph, seen: &[Seen], table: usize) -> Seen {
    let sum = graph.operators.iter().position(|operator| {
        matches!(operator, Operator::Sum { terms } if terms.contains(&table)
        && terms.iter().all(|term| matches!(
            graph.operators[*term],
            Operator::Embedding { .. } | Operator::Positions { .. }
        )))
    });
    seen[sum.unwrap_or(table)]
}

/// The residual stream: the median has [`rules::RESIDUAL_MEDIAN_BITS`] bits, as long as the largest
/// value fits [`rules::WIDE`] bits with headroom.
fn residual_bits(seen: &Seen) -> i32 {
    let by_median = rules::RESIDUAL_MEDIAN_BITS - exponent(seen.median);
    let by_range = rules::WIDE as i32 - 1 - exponent(seen.largest * rules::HEADROOM);
    limited(by_median.min(by_range))
}

/// 16 bits for twice the largest value.
fn narrow_bits(largest: f64) -> i32 {
    limited(rules::NARROW as i32 - 1 - exponent(largest * rules::HEADROOM))
}

/// 64 bits for twice the largest value.
fn part_bits(largest: f64) -> i32 {
    limited(rules::PART as i32 - 1 - exponent(largest * rules::HEADROOM))
}

/// Results of a norm lie within `±√width`.
fn norm_bits(width: usize) -> i32 {
    let root = (width as f64).sqrt();
    rules::NARROW as i32 - 1 - exponent(root)
}

/// So many that the root of a row of median size has [`rules::ROOT_BITS`] bits.
fn root_bits(spread: f64, kind: crate::graph::NormKind, width: usize) -> i32 {
    let scale = match kind {
        crate::graph::NormKind::Rms => 1.0,
        // LayerNorm's integers are `n·x − Σx`.
        crate::graph::NormKind::Layer => width as f64,
    };
    limited(rules::ROOT_BITS + exponent(spread * scale))
}

/// As many as the rows of position 0 are larger than others.
fn first_bits(seen: &Seen) -> u32 {
    if seen.spread <= 0.0 {
        return 0;
    }
    let bits = exponent(seen.first_spread / seen.spread) - 1;
    bits.clamp(0, rules::FIRST_BITS as i32) as u32
}

/// Whether differences of scores up to twice `nats` are indices of a table whose steps are `unit`.
fn fits_table(nats: f64, unit: f64) -> bool {
    nats * rules::HEADROOM < unit * (rules::TABLE - 1) as f64
}

/// The largest shift whose unit is at most `2^−INDEX_BITS` nats; more if the table would be too
/// small for twice the differences that were seen.
fn score_shift(bits: i32, scale: f64, nats: f64) -> i32 {
    let unit = |shift: i32| scale.abs() * crate::weight::power_of_two(shift - bits);
    let fine = crate::weight::power_of_two(-rules::INDEX_BITS);
    if !scale.is_finite() {
        return 0;
    }
    let mut shift = bits - rules::INDEX_BITS - exponent(scale.abs()) + 1;
    while unit(shift) > fine {
        shift -= 1;
    }
    while !fits_table(nats, unit(shift)) && shift < bits {
        shift += 1;
    }
    shift
}

/// Entries of an activation's table have this many bits for twice the largest result.
fn entry_bits(largest: f64) -> i32 {
    limited(rules::ENTRY_BITS as i32 - 1 - exponent(largest * rules::HEADROOM))
}
