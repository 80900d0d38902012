//! Finds the files of the repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders that builds, package managers and tools make.
const GENERATED: [&str; 8] =
    ["target", "node_modules", "build", "dist", "venv", "__pycache__", "book", "mutants.out"];

/// The root of the repository.
pub fn root() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap().to_path_buf()
}

/// All files with one of these extensions, as sorted paths relative to the root. Leaves out
/// generated and hidden folders, except `.github` and `.ci`.
pub fn with_extensions(extensions: &[&str]) -> Vec<PathBuf> {
    let (root, mut found) = (root(), Vec::new());
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_str().unwrap_or(".");
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                let hidden = name.starts_with('.') && name != ".github" && name != ".ci";
                if !hidden && !GENERATED.contains(&name) && !path.join("pyvenv.cfg").exists() {
                    folders.push(path);
                }
            } else if kind.is_file()
                && path.extension().is_some_and(|e| extensions.iter().any(|known| e == *known))
            {
                found.push(path.strip_prefix(&root).unwrap().to_path_buf());
            }
        }
    }
    found.sort();
    found
}

/// [`with_extensions`], with `/` in the paths and the text of each file.
pub fn texts(extensions: &[&str]) -> Vec<(String, String)> {
    let text = |path: PathBuf| {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        (path.to_str().unwrap().replace('\\', "/"), text)
    };
    with_extensions(extensions).into_iter().map(text).collect()
}
