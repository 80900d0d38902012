//! What can go wrong with an adapter, a base model or an export, one variant per reason.
//!
//! Messages say what, where and what to do. Text that comes out of a file is escaped and shortened
//! before it is shown, for it may be hostile. Must not know how anything is read.

use std::path::PathBuf;

use zklora_files::text;

/// Why an adapter or base model was not read or not run, or an export not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error(transparent)]
    File(#[from] zklora_files::Error),
    /// A file is not the JSON that it should be.
    #[error("{} is not valid JSON: {}", .path.display(), shown(.reason))]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// A key of `adapter_config.json` is wrong, or changes what the adapter computes in a way that
    /// is not supported.
    #[error("{}: key {} is {}: {reason}", .path.display(), quoted(.key), shown(.value))]
    Config {
        /// The `adapter_config.json`.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value, as JSON; `missing` if it is not there.
        value: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// The folder holds its weights as a pickle only.
    #[error(
        "{} is a Python pickle, which can run code when it is read; if you trust the file, convert it in its folder: \
         python -c \"import torch, safetensors.torch as s; s.save_file({{k: v.contiguous() for k, v in \
         torch.load('adapter_model.bin', map_location='cpu', weights_only=True).items()}}, \
         'adapter_model.safetensors')\"",
        .path.display()
    )]
    Pickle {
        /// The `adapter_model.bin`.
        path: PathBuf,
    },
    /// A file that the folder must hold is not there.
    #[error("{} does not exist: {hint}", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// A folder holds no adapter itself, but its subfolders hold several.
    #[error("{} holds several adapters, {}: give the folder of one of them", .path.display(), listed(.names))]
    SeveralAdapters {
        /// The folder.
        path: PathBuf,
        /// Its subfolders with an adapter, sorted.
        names: Vec<String>,
    },
    /// A file is not a well-formed safetensors file.
    #[error("{} is not a well-formed safetensors file: {}; download or save it again", .path.display(), shown(.reason))]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor is not one that a supported adapter has, or not of its shape or type.
    #[error("{}: tensor {}: {reason}", .path.display(), quoted(.tensor))]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "{}: module {}: tensor {} holds {value} at position {position}: an adapter with weights that are not finite \
         cannot be proven; train it again or use an earlier checkpoint",
        .path.display(), quoted(.module), quoted(.tensor)
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The module that the tensor belongs to.
        module: String,
        /// The tensor's name in the file.
        tensor: String,
        /// Row-major position of the first such weight.
        position: usize,
        /// `NaN`, `inf` or `-inf`.
        value: f64,
    },
    /// A module is called something that cannot be a file name.
    #[error("module name {}: {reason}", quoted(.module))]
    ModuleName {
        /// The name.
        module: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A module's fields do not fit together, so that it has no ONNX form.
    #[error("module {}: {reason}", quoted(.module))]
    Module {
        /// The module.
        module: String,
        /// What does not fit.
        reason: String,
    },
    /// A pattern given on the command line matches no module.
    #[error("no module matches {}; near it: {}", quoted(.glob), listed(.near))]
    NoSuchModule {
        /// The pattern.
        glob: String,
        /// Names of modules that are spelled most like it, nearest first.
        near: Vec<String>,
    },
    /// A file is no ONNX model that can be run here.
    #[error("{}: {reason}", .path.display())]
    Onnx {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// A language model has no layer of the name that an adapter's module has.
    #[error(
        "the model has no layer called {}; near it: {}; give the tensor that the layer puts out with --map {}=TENSOR",
        quoted(.module), listed(.near), shown(.module)
    )]
    NoSuchLayer {
        /// The module.
        module: String,
        /// Names of layers that are spelled most like it, nearest first.
        near: Vec<String>,
    },
    /// Several layers of a language model may be the one that an adapter's module means.
    #[error(
        "{} may be any of the layers {}; give the tensor that the right one puts out with --map {}=TENSOR",
        quoted(.module), listed(.layers), shown(.module)
    )]
    AmbiguousLayer {
        /// The module.
        module: String,
        /// The layers and what they put out, in the order of the graph.
        layers: Vec<String>,
    },
    /// A tensor of a language model has not the size that an adapter's module needs.
    #[error(
        "module {}: tensor {} of the model has {found} features where the adapter has {expected}; the adapter belongs to another base model, or --map names the wrong tensor",
        quoted(.module), quoted(.tensor)
    )]
    LayerSize {
        /// The module.
        module: String,
        /// The tensor, by its name in the ONNX file.
        tensor: String,
        /// Features that the adapter's module has.
        expected: usize,
        /// Features that the tensor has.
        found: usize,
    },
    /// Tokens that a language model cannot take in.
    #[error("{0}")]
    Tokens(String),
    /// What was to be injected into a language model could not be computed.
    #[error(transparent)]
    Injector(Box<dyn std::error::Error + Send + Sync>),
    /// A file is no tokenizer, or it cannot read a text.
    #[error("{}: {}", .path.display(), shown(.reason))]
    Tokenizer {
        /// The `tokenizer.json`.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A list of files (`export.json`, `model.safetensors.index.json`) says something that cannot
    /// be right.
    #[error("{}: {}", .path.display(), shown(.reason))]
    Index {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Longest piece of a file's own text that a message repeats, in characters.
const SHOWN: usize = 160;

/// `text` as it may be shown ([`text::shortened`]), cut after [`SHOWN`] characters.
pub(crate) fn shown(text: &str) -> String {
    text::shortened(text, SHOWN)
}

/// [`shown`] between backquotes.
pub(crate) fn quoted(text: &str) -> String {
    format!("`{}`", shown(text))
}

/// Most names that a message lists.
const LISTED: usize = 10;

/// [`quoted`] names, the first few of them.
fn listed(names: &[String]) -> String {
    let mut shown: Vec<String> = names.iter().take(LISTED).map(|name| quoted(name)).collect();
    if names.len() > LISTED {
        shown.push("…".into());
    }
    shown.join(", ")
}
