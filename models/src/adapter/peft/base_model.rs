//! How an adapter names its base model.

use serde::{Deserialize, Serialize};

// The fields are in alphabetical order, because export.json has sorted keys.
/// The base model that an adapter was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseModel {
    /// [`fingerprint`](crate::fingerprint) of the base model's weights, if the base model was
    /// given.
    pub fingerprint: Option<String>,
    /// `base_model_name_or_path` of the adapter; empty if it is missing.
    pub name: String,
    /// `revision` of the base model that the adapter names.
    pub revision: Option<String>,
}
