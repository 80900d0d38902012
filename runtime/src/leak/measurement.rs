//! The file of a measurement, beside the adapter (`docs/formats.md`).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zklora_artifacts::folder::LEAK;
use zklora_files::Access;
use zklora_proof::manifest::AdapterId;

use crate::Error;

/// The `format` field of every file.
pub const FORMAT: &str = "zklora-leak";
/// The `version` field of every file that this build reads and writes.
pub const VERSION: u32 = 1;
const MAX_FILE: u64 = 1 << 20;

/// How much of an adapter's effect is recovered, by number of rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// The adapter.
    pub adapter_id: String,
    /// The base model, as the manifest names it.
    pub base_model: String,
    /// BLAKE3 of the text that the rows are of.
    pub text: String,
    /// BLAKE3 of the text that was held out. Equal to `text` if the rest of that text was held
    /// out.
    pub held_out: String,
    /// Tokens that were held out.
    pub held_out_tokens: usize,
    /// Tokens per window.
    pub context: usize,
    /// Modules that were measured.
    pub modules: usize,
    /// Loss of the base model on the held-out tokens, in nats a token.
    pub base_loss: f64,
    /// Loss with the adapter.
    pub adapted_loss: f64,
    /// One entry per number of rows, rising.
    pub recovered: Vec<Recovered>,
}

/// The recovery from some number of rows per module.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovered {
    /// Rows per module.
    pub rows: usize,
    /// Loss on the held-out tokens with the fits instead of the adapter.
    pub loss: f64,
    /// (base loss − this loss) / (base loss − adapted loss); none if the adapter gains nothing on
    /// the held-out tokens.
    pub gain: Option<f64>,
    /// 1 − ‖D_stolen − D‖²/‖D‖² on the held-out rows; none if all their deltas are zero.
    pub energy: Option<Spread>,
}

/// The spread of a share over the modules.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The least share of a module.
    pub least: f64,
    /// The median.
    pub median: f64,
    /// The largest share of a module.
    pub most: f64,
}

impl Spread {
    /// The spread of these shares. `None` without any.
    pub(super) fn of(mut shares: Vec<f64>) -> Option<Spread> {
        shares.sort_by(f64::total_cmp);
        let (least, most) = (*shares.first()?, *shares.last()?);
        let middle = shares.len() / 2;
        let median = if shares.len() % 2 == 1 {
            shares[middle]
        } else {
            (shares[middle - 1] + shares[middle]) / 2.0
        };
        Some(Spread { least, median, most })
    }
}

/// The sentence for an adapter that was not measured.
const NEVER: &str = "never measured: run zklora leak. Of a SmolLM2-135M adapter of rank 4, 1 to 8 ordinary rows a module \
                     gave 80 to 102 % of its gain";

fn path(artifacts: &Path) -> PathBuf {
    artifacts.join("private").join(LEAK)
}

impl Measurement {
    /// Writes it into an artifact folder. The file is private, because it tells how good the
    /// adapter is, and on which text.
    pub fn write(&self, artifacts: &Path) -> Result<PathBuf, Error> {
        let path = path(artifacts);
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|e| Error::file(&path, e))?;
        bytes.push(b'\n');
        zklora_files::write(&path, &bytes, Access::Private)?;
        Ok(path)
    }

    /// Reads the measurement of this adapter from its artifact folder. `None` if there is none, or
    /// one of another adapter.
    ///
    /// # Errors
    /// The file is not a measurement, or has another version.
    pub fn read(artifacts: &Path, adapter: &AdapterId) -> Result<Option<Measurement>, Error> {
        let path = path(artifacts);
        if !path.exists() {
            return Ok(None);
        }
        let refuse =
            |why: String| Error::file(&path, format!("{why}; remove it and run zklora leak again"));
        let measured: Measurement =
            serde_json::from_slice(&zklora_files::read(&path, MAX_FILE)?)
                .map_err(|e| refuse(format!("not a measurement of zklora leak: {e}")))?;
        if measured.format != FORMAT || measured.version != VERSION {
            let (format, version) = (&measured.format, measured.version);
            return Err(refuse(format!(
                "format {format:?} version {version}: this build reads {FORMAT:?} version {VERSION}"
            )));
        }
        Ok((measured.adapter_id == adapter.to_string()).then_some(measured))
    }

    /// A sentence with the results for one row, for eight and for the largest number.
    pub fn sentence(&self) -> String {
        let told = |recovered: &&Recovered| [1, 8].contains(&recovered.rows);
        let last = self.recovered.last().filter(|last| !told(last));
        let clauses = self.recovered.iter().filter(told).chain(last).map(|recovered| {
            let rows = if recovered.rows == 1 {
                "1 row".into()
            } else {
                format!("{} rows", recovered.rows)
            };
            match (recovered.gain, recovered.energy) {
                (Some(gain), _) => format!("{rows} a module give {} of the gain", percent(gain)),
                (None, Some(energy)) => {
                    format!(
                        "{rows} a module give {} of the deltas' energy (median)",
                        percent(energy.median)
                    )
                }
                (None, None) => format!("{rows} a module give nothing: all deltas were zero"),
            }
        });
        format!(
            "measured: {} (zklora leak; at least that much)",
            clauses.collect::<Vec<_>>().join("; ")
        )
    }
}

/// Formats a share as per cent.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A sentence about how much rows leak, and the measurement if there is one.
pub fn known(artifacts: &Path, adapter: &AdapterId) -> (String, Option<Measurement>) {
    match Measurement::read(artifacts, adapter) {
        Ok(Some(measured)) => (measured.sentence(), Some(measured)),
        Ok(None) => (NEVER.into(), None),
        Err(error) => (format!("not known: {error}"), None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn measurement() -> Measurement {
        let recovered =
            |rows, gain| Recovered { rows, loss: 1.5, gain, energy: Spread::of(vec![0.5]) };
        Measurement {
            format: FORMAT.into(),
            version: VERSION,
            adapter_id: AdapterId([7; 32]).to_string(),
            base_model: "model".into(),
            text: "ab".into(),
            held_out: "ab".into(),
            held_out_tokens: 100,
            context: 64,
            modules: 2,
            base_loss: 2.0,
            adapted_loss: 1.0,
            recovered: vec![
                recovered(1, Some(0.84)),
                recovered(4, Some(0.9)),
                recovered(8, Some(0.97)),
                recovered(16, None),
            ],
        }
    }

    #[test]
    fn the_sentence_names_one_row_eight_and_the_last() {
        let said = measurement().sentence();
        let parts = [
            "1 row a module give 84.0 % of the gain",
            "8 rows a module give 97.0 %",
            "16 rows a module give 50.0 % of the deltas' energy",
        ];
        assert!(parts.iter().all(|part| said.contains(part)) && !said.contains("4 rows"), "{said}");
    }

    #[test]
    fn a_measurement_is_read_back_and_only_for_its_adapter() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("private")).unwrap();
        let adapter = AdapterId([7; 32]);
        assert_eq!(Measurement::read(folder.path(), &adapter).unwrap(), None);
        assert!(known(folder.path(), &adapter).0.starts_with("never measured"));
        let path = measurement().write(folder.path()).unwrap();
        assert_eq!(Measurement::read(folder.path(), &adapter).unwrap(), Some(measurement()));
        assert!(known(folder.path(), &adapter).0.starts_with("measured: 1 row"));
        assert_eq!(known(folder.path(), &AdapterId([8; 32])).1, None);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for (old, new, why) in [
            ("\"version\": 1", "\"version\": 2", "this build reads"),
            ("zklora-leak", "zklora-link", "this build reads"),
            ("\"context\"", "\"contexts\"", "not a measurement"),
            ("1.5", "1e999", "not a measurement"),
        ] {
            std::fs::write(&path, text.replace(old, new)).unwrap();
            let error = Measurement::read(folder.path(), &adapter).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("run zklora leak again"), "{error}");
            assert!(known(folder.path(), &adapter).0.starts_with("not known"));
        }
    }

    #[test]
    fn the_spread_is_over_modules() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(
            Spread::of(vec![0.5, 0.1, 0.9]),
            Some(Spread { least: 0.1, median: 0.5, most: 0.9 })
        );
        assert_eq!(Spread::of(vec![0.5, 0.1]).map(|spread| spread.median), Some(0.3));
    }
}
