//! The base model and its integer model, which both parties of an evaluation have themselves.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use zklora_proof::verifier::SrsPolicy;
use zklora_runtime::{evaluate::TermsOptions, integer::BaseModel};

use super::mapping::mapping;

/// The base model and its integer model.
#[derive(ClapArgs)]
#[command(next_help_heading = "Base model")]
pub struct OwnModel {
    /// The base model: an ONNX causal language model.
    #[arg(long, value_name = "MODEL.onnx")]
    pub base: PathBuf,
    /// Its tokenizer [default: tokenizer.json beside the base model].
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Folder of its integer model, which is made here if there is none. Make it yourself: a file
    /// of the other party may hold other scales.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Folder of the base model's weights (safetensors), for comparing fingerprints [default: the
    /// fingerprint in the ONNX file].
    #[arg(long, value_name = "DIR")]
    pub base_weights: Option<PathBuf>,
    /// Continue although the base model is not the one that the adapter is for.
    #[arg(long)]
    pub allow_other_base: bool,
    /// The ONNX tensor that a layer outputs, for a layer that is not found by its name; may be
    /// repeated.
    #[arg(long, value_name = "MODULE=TENSOR", value_parser = mapping)]
    pub map: Vec<(String, String)>,
}

impl OwnModel {
    /// The options of the base model.
    pub fn base_model(&self) -> BaseModel {
        BaseModel {
            base: self.base.clone(),
            base_weights: self.base_weights.clone(),
            allow_other_base: self.allow_other_base,
            maps: self.map.clone(),
            digest: None,
        }
    }

    /// What a buyer has of its own, with the ceremonies that it accepts.
    pub fn terms(&self, policy: SrsPolicy) -> TermsOptions {
        TermsOptions {
            model: self.model.clone(),
            base: self.base_model(),
            tokenizer: self.tokenizer.clone(),
            policy,
        }
    }
}
