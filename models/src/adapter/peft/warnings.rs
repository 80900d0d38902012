//! What the owner of an adapter should know of its export.

use std::collections::BTreeMap;

use super::adapter::Adapter;

/// Most tensors that a warning names.
const NAMED: usize = 8;

impl Adapter {
    /// What is exported otherwise than its owner may think, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let name = &self.base_model.name;
        if is_path(name) {
            warnings.push(format!(
                "the base model is called {name}, a path, which users read in the public manifest: name \
                 it with --base-name (base_name in Python)"
            ));
        }
        // One for each reason.
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for left in &self.left_out {
            reasons.entry(&left.reason).or_default().push(&left.tensor);
        }
        for (reason, tensors) in reasons {
            let more = match tensors.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            warnings.push(format!(
                "left out, as only the adapter's own deltas are exported: {}{more} ({reason}); the \
                 manifest and the verdict say so",
                tensors[..tensors.len().min(NAMED)].join(", ")
            ));
        }
        warnings
    }
}

/// Whether the name of a model is a path: those of Hugging Face have one slash at most.
fn is_path(name: &str) -> bool {
    let is_windows = name.contains('\\') || name.get(1..3) == Some(":/");
    is_windows || name.starts_with(['/', '.', '~']) || name.matches('/').count() > 1
}
