//! Selects the modules to export, by patterns with `*` and `?` for their names.
//!
//! Must not know anything of a module but its name.

use crate::{
    Error,
    adapter::{glob::matches, peft::AdapterModule},
    similar_names::similar_names,
};

/// The modules that any of `globs` matches, in their order; all modules if there is no glob. A glob
/// that matches nothing is an error.
pub(super) fn select<'a>(
    modules: &'a [AdapterModule],
    globs: &[String],
) -> Result<Vec<&'a AdapterModule>, Error> {
    for glob in globs {
        if !modules.iter().any(|module| matches(glob, &module.name)) {
            return Err(Error::NoSuchModule {
                glob: glob.clone(),
                similar: similar_names(glob, modules.iter().map(|module| module.name.as_str())),
            });
        }
    }
    Ok(modules
        .iter()
        .filter(|module| globs.is_empty() || globs.iter().any(|glob| matches(glob, &module.name)))
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::LoraWeights;

    fn modules(names: &[&str]) -> Vec<AdapterModule> {
        let weights =
            || LoraWeights { d_in: 1, d_out: 1, rank: 1, a: vec![0.0], b: vec![0.0], bias: None };
        let module = |name: &&str| AdapterModule::lora((*name).to_owned(), weights(), 1.0);
        names.iter().map(module).collect()
    }

    #[test]
    fn modules_keep_their_order_and_come_once() {
        let all = modules(&["l.0.q", "l.0.v", "l.1.q"]);
        let names = |globs: &[&str]| -> Vec<String> {
            let globs: Vec<String> = globs.iter().map(|g| (*g).to_owned()).collect();
            select(&all, &globs).unwrap().iter().map(|m| m.name.clone()).collect()
        };
        assert_eq!(names(&[]), ["l.0.q", "l.0.v", "l.1.q"]);
        assert_eq!(names(&["l.1.*", "*.q"]), ["l.0.q", "l.1.q"]);
    }

    #[test]
    fn a_glob_without_a_match_lists_similar_names() {
        let all = modules(&["l.0.k_proj", "l.0.q_proj", "l.0.up"]);
        let Err(Error::NoSuchModule { similar, .. }) =
            select(&all, &["*".into(), "*.q_prj".into()])
        else {
            unreachable!("the second glob matches nothing");
        };
        assert_eq!(similar[0], "l.0.q_proj");
    }
}
