//! Where the delta of a module is added: the one word that adapters and language models share.

use serde::{Deserialize, Serialize};

/// Where a delta is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppliesTo {
    /// To the output of the base layer.
    Output,
    /// To the input of the base layer, before the layer runs.
    Input,
}
