//! `zklora srs`

use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;
use zklora_artifacts::srs_file;
use zklora_proof::srs::Srs;

use super::outcome::Outcome;
use crate::{
    args,
    output::{Output, count},
};

pub fn info(args: &args::SrsFile, output: &Output) -> Outcome {
    print(&srs_file::load(args.srs.as_deref())?, "as stated", output)
}

pub fn verify(args: &args::SrsFile, output: &Output) -> Outcome {
    let srs = match &args.srs {
        Some(path) => srs_file::load(Some(path))?,
        // Reads the ceremony's own file rather than the built-in copy, and checks every point and
        // both pairing equations.
        None => {
            let ceremony = Srs::ethereum_from_ceremony()?;
            if ceremony.to_bytes() != Srs::ethereum()?.to_bytes() {
                bail!("the built-in SRS differs from the ceremony's: do not use this program");
            }
            ceremony
        }
    };
    print(
        &srs,
        "checked: subgroups, generators, consecutive powers of one secret, secret outside the \
         domain",
        output,
    )
}

fn print(srs: &Srs, checks: &str, output: &Output) -> Outcome {
    output.result(
        &json!({
            "ceremony": srs.provenance().to_string(),
            "checks": checks,
            "digest": srs.digest_hex(),
            "k": srs.k(),
            "tau_g2": srs.tau_g2_hex(),
            "trusted": srs.provenance().is_trusted(),
        }),
        &[
            ("Ceremony", srs.provenance().to_string()),
            ("Points", format!("{} (k = {})", count(1 << srs.k()), srs.k())),
            ("Digest", srs.digest_hex()),
            ("[τ]₂", srs.tau_g2_hex()),
            ("Checks", checks.into()),
        ],
    );
    Ok(ExitCode::SUCCESS)
}
