//! Explanations name every node of the file, and warnings name a remedy.

#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use zklora_compiler::{Explanation, explain};

fn explained(case: &str) -> Explanation {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/onnx").join(case);
    explain(&fs::read(folder.join("model.onnx")).unwrap(), case, Some(&folder)).unwrap()
}

#[test]
fn every_node_has_an_outcome() {
    let explanation = explained("peft_delta_3d_op17");
    let text = explanation.to_string();
    assert!(
        explanation
            .steps
            .iter()
            .any(|step| step.operator == "MatMul" && step.became.contains("[64 x 4]")),
        "{text}"
    );
    assert!(text.contains("+ x · A [64 x 4] · B [4 x 192]"), "{text}");
    assert!(explanation.warnings.is_empty(), "{text}");
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["terms"][0]["kind"], "low_rank");
    assert_eq!(json["layout"]["kind"], "features_last");
}

#[test]
fn the_original_exporters_sums_are_warned_about_with_their_remedy() {
    for case in [
        "flat1d_sums_64x4x192_op17",
        "flat1d_sums_64x4x192_dynamo",
        "smollm2_l0_q_proj_flat1d_sums_op11",
    ] {
        let warnings = explained(case).warnings;
        assert!(
            warnings[0].contains("sum of all weights") && warnings[0].contains("`zklora export`"),
            "{warnings:?}"
        );
        assert!(
            warnings[1].contains("mixes its") && warnings[1].contains("`zklora export`"),
            "{warnings:?}"
        );
    }
    for case in
        ["flat1d_64x4x192_op11", "peft_delta_lora_bias_3d_op17", "gemm_transB_zero_bias_op17"]
    {
        assert_eq!(explained(case).warnings, Vec::<String>::new(), "{case}");
    }
}

#[test]
fn rows_of_an_image_are_its_positions() {
    let explanation = explained("conv1x1_delta_op17");
    assert_eq!((explanation.inputs[0].dim, explanation.d_out), (16, 24));
    assert!(explanation.warnings[0].contains("channels last"), "{:?}", explanation.warnings);
    assert!(explanation.to_string().contains("one for each of 36 positions"));
}

#[test]
fn a_dense_matrix_is_warned_about_with_its_cost() {
    let warnings = explained("merged_single_matmul_op17").warnings;
    assert!(
        warnings[0].contains("dense matrix of 64 x 192") && warnings[0].contains("64 pairs"),
        "{warnings:?}"
    );
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}
