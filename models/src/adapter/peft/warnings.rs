//! What the owner of an adapter should know of its export.

use std::collections::BTreeMap;

use super::adapter::Adapter;

/// Most names in a line.
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
            warnings.push(format!(
                "left out, as only the adapter's own deltas are exported: {} ({reason}); the \
                 manifest and the verdict say so",
                first_of(&tensors)
            ));
        }
        warnings
    }
}

/// Names in one line: the first eight, and how many more there are.
#[must_use]
pub fn first_of<T: AsRef<str>>(names: &[T]) -> String {
    let first: Vec<&str> = names.iter().take(NAMED).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Whether the name of a model is a path: those of Hugging Face have one slash at most.
fn is_path(name: &str) -> bool {
    let is_windows = name.contains('\\') || name.get(1..3) == Some(":/");
    is_windows || name.starts_with(['/', '.', '~']) || name.matches('/').count() > 1
}
