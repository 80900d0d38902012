//! Measures how costs grow with rows, modules and rank.

use std::path::Path;

use serde::Serialize;

use super::{
    bench_stage::BenchStage,
    figures::{Item, Measured, StageReport},
    loglog::{self, Line, Panel},
    measure::measure,
    profile::Profile,
    task::Task,
};
use crate::Error;

/// The quantity that varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Rows per module: ×1, ×10, ×100.
    Rows,
    /// Modules: ×1, ×2, ×4.
    Modules,
    /// Rank: 4, 8, 16, 32.
    Rank,
    /// Rows of one narrow module: 10⁴, 10⁵, 10⁶.
    LongSession,
}

impl std::fmt::Display for Axis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Axis::Rows => "rows a module",
            Axis::Modules => "modules",
            Axis::Rank => "rank",
            Axis::LongSession => "rows of one 64×4×64",
        })
    }
}

/// One point on an axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Its value.
    pub at: usize,
    /// The figures at this value.
    pub measured: Measured,
}

/// All points of one axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// The quantity that varies.
    pub axis: Axis,
    /// From small to large.
    pub points: Vec<Point>,
}

const STAGES: [BenchStage; 6] = [
    BenchStage::Commit,
    BenchStage::Record,
    BenchStage::Pass,
    BenchStage::Pieces,
    BenchStage::Prove,
    BenchStage::Verify,
];

/// The lines of the drawing: name, and the figures that are added up.
const LINES: [(&str, &[Item]); 7] = [
    ("commit", &[Item::Commit]),
    ("record", &[Item::Record]),
    ("pass", &[Item::Digest, Item::Projection]),
    ("pass, in pieces", &[Item::PassInPieces]),
    ("prove", &[Item::Prove]),
    ("verify", &[Item::Verify]),
    ("verify, one row", &[Item::VerifyOneRow]),
];

/// Measures along all axes, starting from a profile and a number of rows. `run` gets each [`Task`].
/// Every point has its own folder in `scratch`, which is removed afterwards.
///
/// # Errors
/// Those of the stages.
pub fn curves(
    base: &Profile,
    rows: usize,
    scratch: &Path,
    srs: Option<&Path>,
    run: &mut dyn FnMut(&Task) -> Result<StageReport, Error>,
) -> Result<Vec<Curve>, Error> {
    let modules = base.modules().count();
    let axes = [
        (Axis::Rows, [1, 10, 100].map(|times| (rows * times, base.clone(), rows * times)).to_vec()),
        (
            Axis::Modules,
            [1, 2, 4].map(|times| (modules * times, base.with_layers(times), rows)).to_vec(),
        ),
        (Axis::Rank, [4, 8, 16, 32].map(|rank| (rank, base.with_rank(rank), rows)).to_vec()),
        (
            Axis::LongSession,
            [10_000, 100_000, 1_000_000]
                .map(|rows| (rows, Profile::narrow_module(), rows))
                .to_vec(),
        ),
    ];
    let mut curves = Vec::new();
    for (axis, places) in axes {
        let mut points = Vec::new();
        for (at, profile, rows) in places {
            let folder = tempfile::tempdir_in(scratch).map_err(|e| Error::file(scratch, e))?;
            let measured = measure(&profile, rows, folder.path(), srs, &STAGES, run)?;
            points.push(Point { at, measured });
        }
        curves.push(Curve { axis, points });
    }
    Ok(curves)
}

/// Draws the curves as one SVG file.
pub fn drawing(title: &str, curves: &[Curve]) -> String {
    let seconds = |measured: &Measured, items: &[Item]| -> Option<f64> {
        items.iter().map(|item| measured.cost(*item).map(|cost| cost.seconds)).sum()
    };
    let panels: Vec<Panel> = curves
        .iter()
        .map(|curve| Panel {
            axis: curve.axis.to_string(),
            lines: LINES
                .iter()
                .map(|(name, items)| Line {
                    name: (*name).into(),
                    points: curve
                        .points
                        .iter()
                        .filter_map(|point| {
                            Some((point.at as f64, seconds(&point.measured, items)?))
                        })
                        .collect(),
                })
                .collect(),
        })
        .collect();
    loglog::drawing(title, "seconds", &panels)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::proof_bench::Cost;

    #[test]
    fn every_axis_is_measured_from_the_same_profile_on_and_drawn() {
        let base = Profile::named("distilgpt2").unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let mut run = |task: &Task| {
            let mut report = StageReport::default();
            let seconds = (task.rows * task.profile.parameters()) as f64 * 1e-9;
            let cost = Cost { seconds, cpu_seconds: seconds };
            let items = match task.stage {
                BenchStage::Commit => vec![Item::Commit],
                BenchStage::Record => vec![Item::Record],
                BenchStage::Pass => vec![Item::Digest, Item::Projection],
                BenchStage::Pieces => vec![Item::PassInPieces],
                BenchStage::Prove => vec![Item::Prove, Item::ProveOneRow],
                _ => vec![Item::Verify, Item::VerifyOneRow],
            };
            report.costs.extend(items.into_iter().map(|item| (item, cost)));
            Ok(report)
        };
        let curves = curves(&base, 16, scratch.path(), None, &mut run).unwrap();
        let places: Vec<Vec<usize>> =
            curves.iter().map(|c| c.points.iter().map(|p| p.at).collect()).collect();
        assert_eq!(
            places,
            [
                vec![16, 160, 1600],
                vec![24, 48, 96],
                vec![4, 8, 16, 32],
                vec![10_000, 100_000, 1_000_000]
            ]
        );
        let seconds = |curve: usize, point: usize| {
            curves[curve].points[point].measured.cost(Item::Prove).unwrap().seconds
        };
        assert!((seconds(0, 2) / seconds(0, 0) - 100.0).abs() < 1e-9);
        assert_eq!((seconds(1, 0), seconds(2, 1)), (seconds(0, 0), seconds(0, 0)));
        let svg = drawing("title", &curves);
        assert_eq!(svg.matches("<circle").count(), LINES.len() * 13);
        assert!(svg.contains("rows a module") && svg.contains("modules") && svg.contains("rank"));
    }
}
