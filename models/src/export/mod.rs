//! Writing an adapter as ONNX: one file per submodule, and `export.json` that says what is in the
//! folder.
//!
//! Must not know how the adapter was read, and changes no weight: the initialisers are the
//! module's, which for LoRA are the tensors that `peft` saved, bit for bit (widened to f32).

mod index;
mod onnx;
mod selection;

use std::{collections::HashMap, path::Path};

pub use index::{ExportIndex, ExportedModule, INDEX_FILE, INDEX_VERSION, read_index};
pub use onnx::onnx_model;
use zklora_files::Access;

use crate::{Adapter, AdapterModule, Error, module_name};

/// Writes the selected modules of `adapter` to the folder `out`, which is made if it does not
/// exist.
///
/// `selection` holds patterns over whole module names, with `*` for any run of characters (dots
/// too) and `?` for one; a module is written if any of them matches, and all are if there is none.
/// Each module becomes `<module>.onnx` ([`onnx_model`]); `export.json` comes last, so that a folder
/// with it is complete. Files are written to a temporary name first and renamed; the bytes depend
/// on the adapter only. Returns what `export.json` says.
///
/// Errors: a pattern that matches nothing, a module name that cannot be a file name or differs from
/// another one in case only, fields of a module that do not fit together, and failures to write.
pub fn export(adapter: &Adapter, selection: &[String], out: &Path) -> Result<ExportIndex, Error> {
    let modules = selection::select(&adapter.modules, selection)?;
    check_names(&modules)?;
    let index = ExportIndex {
        base_model: adapter.base_model.clone(),
        modules: modules.iter().map(|module| ExportedModule::of(module)).collect(),
        version: INDEX_VERSION,
    };

    zklora_files::create_folder(out, Access::Public)?;
    // An index of an earlier export must not describe a half-written new one.
    let index_path = out.join(INDEX_FILE);
    zklora_files::remove(&index_path)?;
    // Only the owner may read the files: an adapter is its contributor's property.
    for module in modules {
        let path = out.join(index::file_name(&module.name));
        zklora_files::write(&path, &onnx_model(module)?, Access::Private)?;
    }
    zklora_files::write(&index_path, &index.to_bytes(&index_path)?, Access::Private)?;
    Ok(index)
}

/// Every module has a file of its own, also where file names ignore case.
fn check_names(modules: &[&AdapterModule]) -> Result<(), Error> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for module in modules {
        module_name::check(&module.name)?;
        if let Some(other) = seen.insert(module.name.to_ascii_lowercase(), &module.name) {
            let reason = if other == module.name {
                "comes twice".to_owned()
            } else {
                format!("would overwrite the file of {other} where file names ignore case")
            };
            return Err(Error::ModuleName { module: module.name.clone(), reason });
        }
    }
    Ok(())
}
