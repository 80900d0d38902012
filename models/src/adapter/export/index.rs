//! Reads and writes `export.json`, the list of the modules and files of an export folder.
//!
//! The JSON is canonical: sorted keys, two spaces, a newline at the end, numbers that read back to
//! the same value. Must not know about ONNX.

use std::{collections::HashSet, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    AppliesTo, Error,
    adapter::{
        module_name,
        peft::{AdapterModule, BaseModel, Form, Kind, ModuleInput},
    },
    error::quoted,
};

/// Name of the index in an export folder.
pub const INDEX_FILE: &str = "export.json";

/// Version of the format that this crate writes and reads.
pub const INDEX_VERSION: u32 = 1;

/// Longest `export.json`, in bytes.
const MAX_INDEX: u64 = 64 << 20;

/// Longest name of a tensor that is left out, in bytes, as in a manifest.
const MAX_TENSOR: usize = 512;

/// Largest dimension that an index may claim; readers multiply two of them.
const MAX_DIMENSION: usize = 1 << 31;

// The fields of both structs are in alphabetical order, so the keys of the file are sorted.

/// The content of an export folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportIndex {
    /// The base model of the adapter.
    pub base_model: BaseModel,
    /// Tensors of layers that were trained whole, which no module computes, sorted; not in the file
    /// if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The modules, in the order of the adapter.
    pub modules: Vec<ExportedModule>,
    /// [`INDEX_VERSION`].
    pub version: u32,
}

/// One module of an export folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportedModule {
    /// Where its delta is added: to the output or to the input of the base layer.
    pub applies_to: AppliesTo,
    /// Output features.
    pub d_out: usize,
    /// Its file, in the folder of the index.
    pub file: String,
    /// The form of the adapter.
    pub form: Form,
    /// The inputs of the graph, in its order.
    pub inputs: Vec<ModuleInput>,
    /// The kind of layer; rows of an embedding are one-hot.
    pub kind: Kind,
    /// Name of the module in the base model.
    pub name: String,
    /// Sum of the ranks of its branches; 0 if features are only scaled.
    pub rank: usize,
    /// The factor of the last `Mul`, before rounding to f32.
    pub scaling: f64,
}

impl ExportedModule {
    pub(super) fn of(module: &AdapterModule) -> ExportedModule {
        ExportedModule {
            applies_to: module.applies_to,
            d_out: module.d_out,
            file: file_name(&module.name),
            form: module.form,
            inputs: module.inputs.clone(),
            kind: module.kind,
            name: module.name.clone(),
            rank: module.rank(),
            scaling: module.scaling,
        }
    }
}

impl ExportIndex {
    pub(super) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, Error> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::Internal { what: format!("{}: {error}", path.display()) })?;
        text.push('\n');
        Ok(text.into_bytes())
    }

    /// Checks names, files, sizes and the fingerprint; the error says what is wrong.
    fn check(&self) -> Result<(), String> {
        if !self.left_out.is_sorted_by(|left, right| left < right)
            || self.left_out.iter().any(|name| name.is_empty() || name.len() > MAX_TENSOR)
        {
            return Err("left_out is not a sorted list of names of tensors; export again".into());
        }
        let mut names = HashSet::new();
        for module in &self.modules {
            let name = quoted(&module.name);
            module_name::check(&module.name).map_err(|error| error.to_string())?;
            if !names.insert(module.name.to_ascii_lowercase()) {
                return Err(format!("the module {name} is listed twice; export again"));
            }
            if module.file != file_name(&module.name) {
                return Err(format!(
                    "the file of module {name} is {}, which is not its name with .onnx; export again",
                    quoted(&module.file)
                ));
            }
            let inputs = module.inputs.iter().map(|input| input.dim);
            if let Some(size) =
                inputs.chain([module.d_out]).find(|&size| size == 0 || size > MAX_DIMENSION)
            {
                return Err(format!("a dimension of module {name} is {size}"));
            }
            if module.rank > MAX_DIMENSION {
                return Err(format!("the rank of module {name} is {}", module.rank));
            }
            let mut inputs = module.inputs.iter().map(|input| input.name.as_str());
            if !matches!(
                (inputs.next(), inputs.next(), inputs.next()),
                (Some("x" | "base"), None, _) | (Some("x"), Some("base"), None)
            ) {
                return Err(format!("the inputs of module {name} are not x, base or both"));
            }
            if !module.scaling.is_finite() {
                return Err(format!("the scaling of module {name} is not finite"));
            }
        }
        match &self.base_model.fingerprint {
            Some(hex)
                if hex.len() != 64
                    || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) =>
            {
                Err(format!(
                    "the fingerprint {} is not 64 lower-case hexadecimal digits",
                    quoted(hex)
                ))
            }
            _ => Ok(()),
        }
    }
}

/// The file of a module.
pub(super) fn file_name(module: &str) -> String {
    format!("{}.onnx", module_name::escaped(module))
}

/// Reads the `export.json` of a folder. Checks that its version is known, that every file is in the
/// folder and that every module is listed once; does not check that the files exist.
///
/// # Errors
/// The file is missing, not valid JSON, of another version, or contradicts itself.
pub fn read_index(dir: &Path) -> Result<ExportIndex, Error> {
    /// The field that every version has.
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    let path = dir.join(INDEX_FILE);
    if !path.exists() {
        return Err(Error::Missing {
            path,
            hint: "pass a folder that `zklora export` finished writing",
        });
    }
    let bytes = zklora_files::read(&path, MAX_INDEX)?;
    let json_error =
        |error: serde_json::Error| Error::Json { path: path.clone(), reason: error.to_string() };
    let reject = |reason| Error::Index { path: path.clone(), reason };
    // The version first, because another version may have other fields.
    let Versioned { version } = serde_json::from_slice(&bytes).map_err(json_error)?;
    if version != u64::from(INDEX_VERSION) {
        return Err(reject(format!(
            "has version {version}, but this program reads version {INDEX_VERSION}; export again"
        )));
    }
    let index: ExportIndex = serde_json::from_slice(&bytes).map_err(json_error)?;
    index.check().map_err(reject)?;
    Ok(index)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: &str = r#"{
  "base_model": {
    "fingerprint": null,
    "name": "tiny",
    "revision": null
  },
  "modules": [
    {
      "applies_to": "output",
      "d_out": 3,
      "file": "a.q.onnx",
      "form": "lora",
      "inputs": [
        {
          "dim": 4,
          "name": "x"
        }
      ],
      "kind": "linear",
      "name": "a.q",
      "rank": 2,
      "scaling": 0.1
    }
  ],
  "version": 1
}
"#;

    fn read(text: &str) -> Result<ExportIndex, Error> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(INDEX_FILE), text).unwrap();
        read_index(dir.path())
    }

    #[test]
    fn the_index_is_written_as_it_is_read() {
        let with_left_out = GOOD.replacen(
            "  \"modules\"",
            "  \"left_out\": [\n    \"score.weight\"\n  ],\n  \"modules\"",
            1,
        );
        for text in [GOOD, &with_left_out] {
            let index = read(text).unwrap();
            assert_eq!(String::from_utf8(index.to_bytes(Path::new("x")).unwrap()).unwrap(), text);
        }
        assert_eq!(read(&with_left_out).unwrap().left_out, ["score.weight"]);
    }

    #[test]
    fn an_index_that_cannot_be_right_is_refused() {
        for (from, to) in [
            ("\"version\": 1", "\"version\": 2"),
            ("\"version\": 1", "\"version\": 0"),
            ("  \"modules\": [", "  \"left_out\": [\"b\", \"a\"],\n  \"modules\": ["),
            ("  \"modules\": [", "  \"left_out\": [\"a\", \"a\"],\n  \"modules\": ["),
            ("  \"modules\": [", "  \"left_out\": [\"\"],\n  \"modules\": ["),
            ("\"version\": 1", "\"version\": 1, \"version\": 1"),
            ("\"version\": 1", "\"version\": 1, \"more\": 1"),
            ("a.q.onnx", "../a.q.onnx"),
            ("a.q.onnx", "b.onnx"),
            ("\"a.q\"", "\"../a\""),
            ("\"dim\": 4", "\"dim\": 0"),
            ("\"dim\": 4", "\"dim\": -1"),
            ("\"d_out\": 3", "\"d_out\": 4294967296"),
            ("\"x\"", "\"y\""),
            ("\"lora\"", "\"oft\""),
            ("\"output\"", "\"both\""),
            ("\"rank\": 2", "\"rank\": 18446744073709551615"),
            ("\"scaling\": 0.1", "\"scaling\": 1e999"),
            ("\"fingerprint\": null", "\"fingerprint\": \"abc\""),
            ("{\n  \"base", "[\n  \"base"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD);
            assert!(matches!(read(&text), Err(Error::Index { .. } | Error::Json { .. })), "{to}");
        }
        for cut in 0..GOOD.len() - 2 {
            assert!(read(&GOOD[..cut]).is_err());
        }
    }

    #[test]
    fn a_folder_without_an_index_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_index(dir.path()).unwrap_err().to_string().contains("zklora export"));
    }
}
