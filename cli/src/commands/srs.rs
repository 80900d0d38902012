//! `zklora srs`

use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;
use zklora_artifacts::srs_file;
use zklora_proof::srs::{LEAST_SHORTER_K, MOST_SHORTER_K, Srs};

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
            if ceremony.to_bytes() != Srs::ethereum_bytes() {
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
    // What manifests with a smaller k name.
    let shorter = (LEAST_SHORTER_K..=MOST_SHORTER_K.min(srs.k().saturating_sub(1)))
        .map(|k| Ok((k.to_string(), srs.at(k)?.digest_hex())))
        .collect::<Result<Vec<_>, zklora_proof::Error>>()?;
    let mut table = vec![
        ("Ceremony", srs.provenance().to_string()),
        ("Points", format!("{} (k = {})", count(1 << srs.k()), srs.k())),
        ("Digest", srs.digest_hex()),
    ];
    table.extend(shorter.iter().map(|(k, digest)| ("", format!("{digest} (k = {k})"))));
    table.extend([("[τ]₂", srs.tau_g2_hex()), ("Checks", checks.into())]);
    output.result(
        &json!({
            "ceremony": srs.provenance().to_string(),
            "checks": checks,
            "digest": srs.digest_hex(),
            "k": srs.k(),
            "shorter": shorter.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "tau_g2": srs.tau_g2_hex(),
            "trusted": srs.provenance().is_trusted(),
        }),
        &table,
    );
    Ok(ExitCode::SUCCESS)
}
