//! Writes an adapter as ONNX: one file per submodule, and `export.json`, which lists them.
//!
//! Must not know how the adapter was read. Export changes no weight: the initialisers are the
//! module's constants, which for LoRA are the tensors that `peft` saved, bit for bit (widened to
//! f32).

mod index;
mod onnx;
mod selection;

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

pub use index::{ExportIndex, ExportedModule, INDEX_FILE, INDEX_VERSION, read_index};
pub use onnx::onnx_model;
use zklora_files::Access;

use crate::{
    Error,
    adapter::{
        module_name,
        peft::{Adapter, AdapterModule},
    },
};

/// Writes the selected modules of `adapter` to the folder `out`, and creates the folder if it does
/// not exist.
///
/// `selection` holds patterns for whole module names: `*` matches any run of characters, dots
/// included, and `?` matches one. A module is written if any pattern matches; without patterns, all
/// are. Each module becomes `<module>.onnx` ([`onnx_model`]). `export.json` is written last, so a
/// folder that has it is complete. Files are written under a temporary name and renamed; their
/// bytes depend on the adapter only. Returns the content of `export.json`.
///
/// # Errors
/// A pattern matches nothing; a module name cannot be a file name, or differs from another one only
/// in case; the fields of a module do not fit together; a file cannot be written.
pub fn export(adapter: &Adapter, selection: &[String], out: &Path) -> Result<ExportIndex, Error> {
    let modules = selection::select(&adapter.modules, selection)?;
    check_names(&modules)?;
    let index = ExportIndex {
        base_model: adapter.base_model.clone(),
        left_out: adapter
            .left_out
            .iter()
            .map(|left| left.tensor.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        modules: modules.iter().map(|module| ExportedModule::of(module)).collect(),
        version: INDEX_VERSION,
    };

    zklora_files::create_folder(out, Access::Public)?;
    // The index of an earlier export must not describe a half-written new one.
    let index_path = out.join(INDEX_FILE);
    zklora_files::remove(&index_path)?;
    // Private, because an adapter is its contributor's property.
    for module in modules {
        let path = out.join(index::file_name(&module.name));
        zklora_files::write(&path, &onnx_model(module)?, Access::Private)?;
    }
    zklora_files::write(&index_path, &index.to_bytes(&index_path)?, Access::Private)?;
    Ok(index)
}

/// Checks that every module has its own file, even where file names ignore case.
fn check_names(modules: &[&AdapterModule]) -> Result<(), Error> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for module in modules {
        module_name::check(&module.name)?;
        if let Some(other) = seen.insert(module.name.to_ascii_lowercase(), &module.name) {
            let reason = if other == module.name {
                "is in the adapter twice".to_owned()
            } else {
                format!("would overwrite the file of {other} where file names ignore case")
            };
            return Err(Error::ModuleName { module: module.name.clone(), reason });
        }
    }
    Ok(())
}
