//! Verifies the proof of one row with EZKL.
//!
//! EZKL gets the settings and the key that the caller checked, and a proof file that is written
//! here: the public values of the row, and the bytes of the proof.

use std::path::{Path, PathBuf};

use serde_json::json;
use zklora_artifacts::module_rows::ModuleRows;
use zklora_files::Access;

use super::{
    Check, EzklError,
    child::Ezkl,
    circuit::argument,
    folder::{Keys, SETTINGS, VK},
    manifest::Module,
    proof_file::{self, ProofFile, Statement},
    rows,
};
use crate::Error;

/// A module, with files whose digests are those of the manifest.
pub(super) struct RowVerifier<'a> {
    pub module: &'a Module,
    pub keys: &'a Keys,
    pub srs: &'a Path,
    /// A folder for the files that EZKL reads.
    pub work: PathBuf,
}

impl RowVerifier<'_> {
    /// Verifies the proof of a row, and returns its size in bytes.
    pub fn verify(
        &self,
        ezkl: &mut Ezkl<'_>,
        rows: &ModuleRows,
        row: usize,
        path: &Path,
    ) -> Result<u64, Error> {
        let module = self.module;
        let what = format!("{}, row {row}", module.name);
        let bytes = zklora_files::read(path, proof_file::MAX_BYTES)?;
        let proof = ProofFile::parse(&bytes)
            .map_err(|why| EzklError::refused(Check::Proof, format!("{what}: {why}")))?;
        let delta = &rows.delta[row * module.d_out..(row + 1) * module.d_out];
        let statement = Statement { module, inputs: rows::row(module, rows, row), delta };
        let named = |e| match e {
            EzklError::Refused { check, why } => {
                EzklError::Refused { check, why: format!("{what}: {why}") }
            }
            e => e,
        };
        let given = proof.for_row(&statement).map_err(named)?;
        zklora_files::create_folder(&self.work, Access::Private)?;
        let file = |name: &str| self.work.join(name);
        zklora_files::write(&file("proof.json"), given.to_string().as_bytes(), Access::Private)?;
        // Once per circuit.
        if row == 0 || !file(VK).is_file() {
            zklora_files::write(&file(SETTINGS), &self.keys.settings, Access::Private)?;
            zklora_files::write(&file(VK), &self.keys.vk, Access::Private)?;
        }
        let args = json!({
            "proof_path": argument(&file("proof.json"))?,
            "settings_path": argument(&file(SETTINGS))?,
            "vk_path": argument(&file(VK))?,
            "srs_path": argument(self.srs)?,
        });
        match ezkl.call("verify", &what, args) {
            Ok(_) => Ok(bytes.len() as u64),
            // The other files were checked, so EZKL rejects the proof.
            Err(EzklError::Failed { why, .. }) => Err(EzklError::refused(
                Check::Proof,
                format!("{what}: EZKL does not accept this proof ({why})"),
            )
            .into()),
            Err(e) => Err(e.into()),
        }
    }
}
