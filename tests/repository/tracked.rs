//! The files of the repository, as git lists them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Tracked files, and new ones that git does not ignore, with their text; without those that are
/// not UTF-8. `None` outside of a clone, for example in an unpacked archive.
pub fn files() -> Option<Vec<(String, String)>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .ok()
        .filter(|output| output.status.success());
    let Some(listed) = listed else {
        assert!(std::env::var_os("CI").is_none(), "git lists no files here");
        eprintln!("skipped: git lists no files here");
        return None;
    };
    let names = String::from_utf8(listed.stdout).unwrap();
    let text = |name: &str| std::fs::read_to_string(root().join(name)).ok();
    Some(
        names
            .split_terminator('\0')
            .filter_map(|name| Some((name.to_string(), text(name)?)))
            .collect(),
    )
}
