//! Where the delta of a module is added: an enum that both `adapter` and `language_model` use.

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
