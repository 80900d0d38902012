//! Finds the files of an adapter and tells which library wrote them, by what is in them: a folder
//! that `peft` or MLX saved, or one file without settings.
//!
//! What is no adapter is named, with what makes one of it. Must not know tensors.

use std::path::{Path, PathBuf};

use super::config::Keys;
use crate::{Error, adapter::base_model};

/// The settings file of an adapter folder.
const CONFIG_FILE: &str = "adapter_config.json";

/// The weights of an adapter folder, as `peft` and MLX name them.
const WEIGHTS_FILE: &str = "adapter_model.safetensors";
const WEIGHTS_INDEX: &str = "adapter_model.safetensors.index.json";
const MLX_WEIGHTS: &str = "adapters.safetensors";

/// Most entries of a folder that are read.
const MAX_ENTRIES: usize = 4096;

/// The files of an adapter.
#[derive(Debug, PartialEq)]
pub(super) enum AdapterFiles {
    /// Of `peft`: the weights are one file, or shards.
    Peft { config: PathBuf, weights: Vec<PathBuf> },
    /// Of MLX.
    Mlx { config: PathBuf, weights: PathBuf },
    /// One safetensors file, whose names and header say everything: of kohya's scripts, LyCORIS,
    /// diffusers.
    SingleFile(PathBuf),
    /// Of llama.cpp.
    Gguf(PathBuf),
}

/// Finds the files of the adapter at `path`: a file, a folder, or a folder whose only subfolder
/// holds one.
pub(super) fn find(path: &Path) -> Result<AdapterFiles, Error> {
    match path.is_file() {
        true => in_file(path),
        false => in_folder(path),
    }
}

fn in_file(path: &Path) -> Result<AdapterFiles, Error> {
    match content(path)? {
        Content::Gguf => Ok(AdapterFiles::Gguf(path.to_owned())),
        Content::Other if [WEIGHTS_FILE, MLX_WEIGHTS].iter().any(|name| path.ends_with(name)) => {
            // Its settings lie beside it.
            in_folder(zklora_files::folder_of(path))
        }
        Content::Other => Ok(AdapterFiles::SingleFile(path.to_owned())),
    }
}

fn in_folder(dir: &Path) -> Result<AdapterFiles, Error> {
    let mut dir = dir.to_owned();
    let names = entries(&dir)?;
    if !dir.join(CONFIG_FILE).exists() {
        let mut named: Vec<String> = names
            .iter()
            .filter(|name| dir.join(name).join(CONFIG_FILE).is_file())
            .cloned()
            .collect();
        match named.len() {
            0 => return without_config(&dir, &names),
            1 => dir.push(named.remove(0)),
            _ => return Err(Error::SeveralAdapters { path: dir, names: named }),
        }
    }
    let config = dir.join(CONFIG_FILE);
    let mlx = dir.join(MLX_WEIGHTS);
    content(&config)?;
    if mlx.is_file() && is_mlx(&config)? {
        content(&mlx)?;
        return Ok(AdapterFiles::Mlx { config, weights: mlx });
    }
    let (weights, index) = (dir.join(WEIGHTS_FILE), dir.join(WEIGHTS_INDEX));
    if weights.exists() {
        content(&weights)?;
        return Ok(AdapterFiles::Peft { config, weights: vec![weights] });
    }
    if index.exists() {
        return Ok(AdapterFiles::Peft { config, weights: base_model::shards(&index)? });
    }
    let names = entries(&dir)?;
    Err(match other_weights(&dir, &names) {
        Some(error) => error,
        None => Error::Missing {
            path: weights,
            hint: "save the adapter with save_pretrained of a current peft",
        },
    })
}

/// A folder without settings: one file that says everything, or something that is no adapter yet.
fn without_config(dir: &Path, names: &[String]) -> Result<AdapterFiles, Error> {
    if names.iter().any(|name| name == "snapshots") && dir.join("snapshots").is_dir() {
        let snapshots = entries(&dir.join("snapshots"))?;
        let path = snapshots
            .iter()
            .max()
            .map_or_else(|| dir.join("snapshots"), |newest| dir.join("snapshots").join(newest));
        return Err(Error::Format {
            path: dir.to_owned(),
            what: "this is a folder of Hugging Face's cache".into(),
            hint: format!("pass the folder of a snapshot: {}", path.display()),
        });
    }
    let with = |end: &str| {
        let mut found = names.iter().filter(|name| name.ends_with(end));
        found.next().filter(|_| found.next().is_none()).map(|name| dir.join(name))
    };
    if let Some(error) = other_weights(dir, names) {
        return Err(error);
    }
    match (with(".safetensors"), with(".gguf")) {
        (Some(path), None) | (None, Some(path)) if path.is_file() => in_file(&path),
        _ => Err(Error::Missing {
            path: dir.join(CONFIG_FILE),
            hint: "pass the folder that peft's save_pretrained wrote, or the file of an adapter",
        }),
    }
}

/// Weights that are none of an adapter that can be read, with what to do.
fn other_weights(dir: &Path, names: &[String]) -> Option<Error> {
    let has = |test: &dyn Fn(&str) -> bool| names.iter().find(|name| test(name));
    let refuse = |name: &str, what: &str, hint: &str| {
        let (path, what, hint) = (dir.join(name), what.into(), hint.into());
        Some(Error::Format { path, what, hint })
    };
    if has(&|name| name == WEIGHTS_FILE || name == MLX_WEIGHTS).is_some() {
        return None;
    }
    for name in ["adapter_model", "pytorch_lora_weights"] {
        let file = format!("{name}.bin");
        if has(&|found| found == file).is_some() {
            return Some(Error::Pickle { path: dir.join(file), name });
        }
    }
    if let Some(name) =
        has(&|name| name.starts_with("pytorch_model_fsdp") || name.ends_with(".distcp"))
    {
        return refuse(
            name,
            "this is a sharded checkpoint of FSDP",
            "merge it (accelerate merge-weights FOLDER OUT), load the result into the PeftModel, and \
             save it with save_pretrained; fsdp_state_dict_type: FULL_STATE_DICT saves adapters whole",
        );
    }
    if let Some(name) = has(&|name| name == "zero_to_fp32.py" || name.starts_with("global_step")) {
        return refuse(
            name,
            "this is a checkpoint of DeepSpeed",
            "run python zero_to_fp32.py . OUT in it, load the result into the PeftModel, and \
             save_pretrained",
        );
    }
    if let Some(name) = has(&|name| name.ends_with(".nemo") || name == "model_config.yaml") {
        return refuse(
            name,
            "this is an adapter of NeMo",
            "export it for peft: llm.export_ckpt(path, target=\"hf-peft\") of NeMo 2, or \
             AutoBridge.export_adapter_ckpt of Megatron Bridge",
        );
    }
    if let Some(name) = has(&|name| {
        let is_pt = [".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end));
        name.starts_with("adapter") && is_pt
    }) {
        return refuse(
            name,
            "this is a checkpoint of torchtune, a Python pickle",
            "set safe_serialization: True and save_adapter_weights_only: True in its config: the \
             folder of the epoch then has adapter_config.json and adapter_model.safetensors",
        );
    }
    None
}

/// What the first bytes of a file say.
enum Content {
    Gguf,
    /// Nothing that is known by its first bytes.
    Other,
}

/// Looks at the first bytes of a file.
///
/// # Errors
/// It is a pointer, a web page or a pickle in the place of the file.
fn content(path: &Path) -> Result<Content, Error> {
    let start = zklora_files::read_start(path, 64)?;
    let text = String::from_utf8_lossy(&start).trim_start().to_ascii_lowercase();
    let refuse = |what: &str, hint: &str| {
        let (path, what, hint) = (path.to_owned(), what.into(), hint.into());
        Err(Error::Format { path, what, hint })
    };
    if text.starts_with("version https://git-lfs") {
        return refuse(
            "this is a pointer of Git LFS, and not the file",
            "run git lfs install, and git lfs pull in the folder",
        );
    }
    if ["<!doctype", "<html", "<?xml"].iter().any(|tag| text.starts_with(tag)) {
        return refuse(
            "this is a web page, and not the file",
            "download it again: huggingface-cli download REPOSITORY, or the link with /resolve/ \
             instead of /blob/; private models need a token",
        );
    }
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"\x80\x02") {
        return refuse(
            "this is a Python pickle, which can run code when it is read",
            "if you trust it, load it with torch.load(FILE, weights_only=True), and write it with \
             safetensors.torch.save_file",
        );
    }
    Ok(if start.starts_with(b"GGUF") { Content::Gguf } else { Content::Other })
}

/// Whether settings are those of MLX. Settings that cannot be read are not.
fn is_mlx(config: &Path) -> Result<bool, Error> {
    let keys = match Keys::read(config) {
        Ok(keys) => keys,
        Err(Error::Json { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    let has = |name: &str| keys.get(name).is_some();
    Ok(!has("peft_type") && (has("fine_tune_type") || has("lora_parameters")))
}

/// The names in a folder, sorted; empty if it cannot be listed: the caller then reports the missing
/// file.
fn entries(dir: &Path) -> Result<Vec<String>, Error> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries.take(MAX_ENTRIES) {
        let entry = entry.map_err(|e| zklora_files::Error::new(dir, e))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}
