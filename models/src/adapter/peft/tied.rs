//! Whether the output layer of a language model is its token table, so that who changes the one
//! changes the other.
//!
//! The base model's `config.json` says it (`tie_word_embeddings`), or leaves it to the class of the
//! model. Classes and their names are those of `transformers` 5.23 (`_tied_weights_keys` and the
//! defaults of the configs); of a model that is not listed, nothing is known.

use super::config::{Config, Keys};
use crate::{
    Error,
    adapter::{base_weights::BaseWeights, strict_json::StrictJson},
};

/// Models whose output layer is called `lm_head`.
struct Models {
    table: &'static str,
    tied_by_default: bool,
    types: &'static [&'static str],
}

const MODELS: &[Models] = &[
    Models {
        table: "model.embed_tokens",
        tied_by_default: false,
        types: &[
            "afmoe",
            "apertus",
            "arcee",
            "bamba",
            "bitnet",
            "cwm",
            "deepseek_v2",
            "deepseek_v3",
            "diffllama",
            "dots1",
            "exaone4",
            "falcon_h1",
            "flex_olmo",
            "glm",
            "glm4",
            "glm4_moe",
            "gpt_oss",
            "granite",
            "granitemoe",
            "granitemoehybrid",
            "granitemoeshared",
            "helium",
            "hunyuan_v1_dense",
            "hunyuan_v1_moe",
            "jamba",
            "llama",
            "llama4_text",
            "longcat_flash",
            "minimax",
            "minimax_m2",
            "ministral",
            "ministral3",
            "mistral",
            "mixtral",
            "nanochat",
            "nemotron",
            "olmo",
            "olmo2",
            "olmo3",
            "olmoe",
            "persimmon",
            "phi",
            "phi3",
            "phimoe",
            "qwen2",
            "qwen2_moe",
            "qwen3",
            "qwen3_5_text",
            "qwen3_moe",
            "qwen3_next",
            "seed_oss",
            "solar_open",
            "stablelm",
        ],
    },
    Models {
        table: "model.embed_tokens",
        tied_by_default: true,
        types: &[
            "cohere",
            "cohere2",
            "ernie4_5",
            "ernie4_5_moe",
            "gemma",
            "gemma2",
            "gemma3_text",
            "gemma3n_text",
            "gemma4_text",
            "jetmoe",
            "lfm2",
            "lfm2_moe",
            "recurrent_gemma",
            "smollm3",
            "starcoder2",
            "vaultgemma",
        ],
    },
    Models {
        table: "transformer.wte",
        tied_by_default: true,
        types: &["gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo", "mpt"],
    },
    Models {
        table: "transformer.wte",
        tied_by_default: false,
        types: &["codegen", "dbrx", "gptj"],
    },
    Models {
        table: "transformer.word_embeddings",
        tied_by_default: true,
        types: &["bloom", "falcon"],
    },
];

/// Why a change of a table or of an output layer is left out.
pub(super) const TIED_OR_UNKNOWN: &str =
    "it is tied to another layer of the base model, or whether it is, is not known for this model";

/// Tasks whose models have no output layer of a language model.
const WITHOUT_OUTPUT: &[&str] = &["FEATURE_EXTRACTION", "QUESTION_ANS", "SEQ_CLS", "TOKEN_CLS"];

/// What a base model's `config.json` says.
pub(super) struct Tie {
    /// `model_type`.
    pub(super) model_type: Option<String>,
    /// Whether table and output layer are one; none if that is not known.
    tied: Option<bool>,
    models: Option<&'static Models>,
}

/// The output layer that is a token table.
#[derive(Debug, PartialEq)]
pub(super) enum Output {
    /// There is none, or it has a weight of its own.
    None,
    /// This one.
    Tied(&'static str),
    /// Not known.
    Unknown,
}

impl Tie {
    pub(super) fn read(base: &BaseWeights) -> Result<Tie, Error> {
        let path = base.dir().join("config.json");
        if !path.exists() {
            return Ok(Tie { model_type: None, tied: None, models: None });
        }
        let keys = Keys::read(&path)?;
        let text = |key: &str| match keys.get(key) {
            Some(StrictJson::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let model_type = text("model_type");
        let is_of =
            |models: &&Models| model_type.as_deref().is_some_and(|of| models.types.contains(&of));
        let models = MODELS.iter().find(is_of);
        let stated = match keys.get("tie_word_embeddings") {
            Some(StrictJson::Bool(tied)) => Some(*tied),
            _ => None,
        };
        let tied = stated.or(models.map(|models| models.tied_by_default));
        Ok(Tie { model_type, tied, models })
    }

    /// Whether nothing is tied.
    pub(super) fn is_none(&self) -> bool {
        self.tied == Some(false)
    }

    /// The output layer that is this token table.
    pub(super) fn output(&self, table: &str, config: &Config) -> Output {
        let task = config.task.as_deref();
        match (self.tied, self.models) {
            (Some(false), _) => Output::None,
            (Some(true), Some(models)) if models.table == table => match task {
                Some("CAUSAL_LM") => Output::Tied("lm_head"),
                Some(task) if WITHOUT_OUTPUT.contains(&task) => Output::None,
                _ => Output::Unknown,
            },
            _ => Output::Unknown,
        }
    }
}
