//! Explains what the compiler made of an ONNX file, node by node, for `compile --explain`.
//!
//! For the owner of the adapter: shows shapes and scalar factors, and no other values of weights.

use std::{fmt, path::Path};

use serde::Serialize;
use zklora_files::text::shown;

use crate::{
    ingest::{IngestError, Ingested, NodeOutcome, ingest_in},
    layout::Layout,
    linear_map::Term,
};

/// The normal form of a module and how each ONNX node became part of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The module.
    pub name: String,
    /// Its inputs.
    pub inputs: Vec<InputShape>,
    /// Length of an output row.
    pub d_out: usize,
    /// Layout of the rows of the output in the graph's tensor.
    pub layout: Layout,
    /// The scalar factor that all terms have in common.
    pub scale: f64,
    /// Every ONNX node, in the order of the file.
    pub steps: Vec<NodeOutcome>,
    /// The terms whose sum, times `scale`, is a row of the output.
    pub terms: Vec<TermShape>,
    /// Warnings for the owner of the adapter, before anything is published.
    pub warnings: Vec<String>,
}

/// An input of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InputShape {
    /// Its name in the graph.
    pub name: String,
    /// Length of a row.
    pub dim: usize,
    /// Layout of its rows in the graph's tensor.
    pub layout: Layout,
}

/// A term without its weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum TermShape {
    /// `x · A · B`.
    LowRank {
        /// Name of `x`.
        input: String,
        /// Rows of `A`.
        d_in: usize,
        /// Columns of `A`.
        rank: usize,
        /// Columns of `B`.
        d_out: usize,
    },
    /// A constant row.
    Bias {
        /// Its length.
        d_out: usize,
    },
    /// `y ∘ g`.
    ElementScale {
        /// Name of `y`.
        input: String,
        /// Length of `g`.
        d_out: usize,
    },
}

/// Explains an ONNX model; `folder` holds its external data.
///
/// # Errors
/// As [`ingest_in`]: the error of a refused model is its explanation.
pub fn explain(
    bytes: &[u8],
    name: &str,
    folder: Option<&Path>,
) -> Result<Explanation, IngestError> {
    ingest_in(bytes, name, folder).map(Explanation::from)
}

impl From<Ingested> for Explanation {
    fn from(ingested: Ingested) -> Self {
        let Ingested { map, inputs, output, warnings, steps } = ingested;
        let name_of =
            |input: usize| map.inputs.get(input).map_or_else(String::new, |spec| spec.name.clone());
        let terms = map.terms.iter().map(|term| match term {
            Term::LowRank { input, a, b } => TermShape::LowRank {
                input: name_of(*input),
                d_in: a.rows,
                rank: a.cols,
                d_out: b.cols,
            },
            Term::Bias { b } => TermShape::Bias { d_out: b.len() },
            Term::ElementScale { input, g } => {
                TermShape::ElementScale { input: name_of(*input), d_out: g.len() }
            }
        });
        let terms = terms.collect();
        let inputs = map.inputs.into_iter().zip(inputs);
        let inputs = inputs
            .map(|(spec, layout)| InputShape { name: spec.name, dim: spec.dim, layout })
            .collect();
        Self {
            name: map.name,
            inputs,
            d_out: map.d_out,
            layout: output,
            scale: map.scale,
            steps,
            terms,
            warnings,
        }
    }
}

impl Explanation {
    /// The explanation for people, line by line. Names are as in the file; the caller escapes each
    /// line before it is shown.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.name.clone()];
        for input in &self.inputs {
            lines.push(format!(
                "  input  {}: rows of {}{}",
                input.name,
                input.dim,
                layout_text(input.layout)
            ));
        }
        lines.push(format!("  output rows of {}{}", self.d_out, layout_text(self.layout)));
        lines.push("  nodes".into());
        // Columns are aligned by the escaped text, which is what is shown.
        let cells = |of: fn(&NodeOutcome) -> &str| {
            self.steps.iter().map(|step| shown(of(step))).collect::<Vec<_>>()
        };
        let (nodes, operators) = (cells(|step| &step.node), cells(|step| &step.operator));
        let longest =
            |cells: &[String]| cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
        let (node, operator) = (longest(&nodes), longest(&operators));
        for ((name, by), step) in nodes.iter().zip(&operators).zip(&self.steps) {
            lines.push(format!("    {name:node$}  {by:operator$}  {}", step.became));
        }
        lines.push(format!("  delta = {} · (", self.scale));
        lines.extend(self.terms.iter().map(|term| format!("      {term}")));
        lines.push("  )".into());
        lines.extend(self.warnings.iter().map(|warning| format!("  warning: {warning}")));
        lines
    }
}

impl fmt::Display for Explanation {
    /// [`Explanation::lines`], escaped.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(out, "{}", shown(line)))
    }
}

impl fmt::Display for TermShape {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LowRank { input, d_in, rank, d_out } => {
                write!(out, "+ {input} · A [{d_in} x {rank}] · B [{rank} x {d_out}]")
            }
            Self::Bias { d_out } => write!(out, "+ bias [{d_out}]"),
            Self::ElementScale { input, d_out } => write!(out, "+ {input} ∘ g [{d_out}]"),
        }
    }
}

fn layout_text(layout: Layout) -> String {
    match layout {
        Layout::FeaturesLast => String::new(),
        Layout::FeaturesFirst { positions } => {
            format!(", one for each of {positions} positions (channels first)")
        }
    }
}
