//! `zklora trace commit`, `check`, `prove-row` and `check-row`

use std::process::ExitCode;

use serde_json::json;
use zklora_artifacts::activation_commitment::{Commitment, RowProof, Values};
use zklora_files::Access;

use super::outcome::{Outcome, answer};
use crate::{
    args::activation_commitment as args,
    output::{Output, count, path},
};

pub fn commit(args: &args::Commit, output: &Output) -> Outcome {
    if let Some(out) = &args.out {
        zklora_files::require_folder_of(out)?;
    }
    let values = Values::read(&args.file)?;
    let commitment = Commitment::new(&values)?;
    let root = commitment.root_text();
    let Some(out) = &args.out else {
        let nonce = format!("0x{}", hex::encode(commitment.nonce));
        output.lines(
            &json!({ "root": root, "nonce": nonce, "values": values.numbers.len() }),
            [&commitment],
        );
        return Ok(ExitCode::SUCCESS);
    };
    zklora_files::write(out, format!("{commitment}\n").as_bytes(), Access::Private)?;
    output.result(
        &json!({ "root": root, "values": values.numbers.len(), "out": path(out) }),
        &[
            ("Committed", format!("{} values", count(values.numbers.len()))),
            ("Root", root.clone()),
            ("Commitment", format!("{} (keep it: its nonce opens it)", out.display())),
        ],
    );
    Ok(ExitCode::SUCCESS)
}

pub fn check(args: &args::Check, output: &Output) -> Outcome {
    let commitment = Commitment::read(&args.commitment)?;
    let values = Values::read(&args.file)?;
    let same = commitment.is_to(&values)?;
    let verdict = if same {
        "ACCEPTED: the commitment is to exactly these values, in this order"
    } else {
        "REFUSED: the commitment is not to these values"
    };
    output.result(
        &json!({
            "accepted": same,
            "root": commitment.root_text(),
            "values": values.numbers.len(),
        }),
        &[
            ("Values", count(values.numbers.len())),
            ("Root", commitment.root_text()),
            ("Verdict", verdict.into()),
        ],
    );
    Ok(answer(same))
}

pub fn prove_row(args: &args::ProveRow, output: &Output) -> Outcome {
    zklora_files::require_folder_of(&args.out)?;
    let commitment = Commitment::read(&args.commitment)?;
    let values = Values::read(&args.file)?;
    let proof = RowProof::prove(&values, &commitment, args.row, args.columns)?;
    proof.write(&args.out)?;
    let also_reveals = format!(
        "the nonce and {} hashes of other values, which may be guessed from them \
         (docs/security.md)",
        proof.path.len()
    );
    output.result(
        &json!({
            "first": proof.first,
            "values": proof.values.len(),
            "count": proof.count,
            "hashes": proof.path.len(),
            "root": commitment.root_text(),
            "out": path(&args.out),
        }),
        &[
            ("Proven", format!("row {}: {}", args.row, place(&proof))),
            ("Also reveals", also_reveals),
            ("Root", commitment.root_text()),
            ("Proof", args.out.display().to_string()),
        ],
    );
    Ok(ExitCode::SUCCESS)
}

pub fn check_row(args: &args::CheckRow, output: &Output) -> Outcome {
    let proof = RowProof::read(&args.proof)?;
    proof.check(&args.root.0, args.count)?;
    let numbers: Vec<String> = proof.values.iter().map(|value| format!("{value:?}")).collect();
    let source = if args.count.is_some() { "yours" } else { "as the proof says" };
    output.result(
        &json!({
            "accepted": true,
            "first": proof.first,
            "count": proof.count,
            "count_compared": args.count.is_some(),
            "values": proof.values,
        }),
        &[
            ("Position", place(&proof)),
            ("Number of values", format!("{} ({source})", count(proof.count))),
            ("Values", numbers.join(", ")),
            ("Verdict", "ACCEPTED: these values are at this position under the root".into()),
        ],
    );
    Ok(ExitCode::SUCCESS)
}

fn place(proof: &RowProof) -> String {
    let last = proof.first + proof.values.len() - 1;
    format!("values {} to {} of {} (the first is 0)", proof.first, last, proof.count)
}
