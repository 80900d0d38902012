//! Errors of adapters, exports and language models: one variant per cause.
//!
//! A message says what is wrong, where, and what to do. Text from a file may be hostile, so it is
//! escaped and shortened before it is shown. Must not know how files are read.

use std::path::PathBuf;

use zklora_files::text;

/// Why an adapter or a base model was not read, an export not written, or a language model not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error(transparent)]
    File(#[from] zklora_files::Error),
    /// A file is not valid JSON.
    #[error("{} is not valid JSON: {}", .path.display(), shown(.reason))]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// A key of `adapter_config.json` has a wrong value, or a value that changes the delta in an
    /// unsupported way.
    #[error("{}: key {} is {}: {reason}", .path.display(), quoted(.key), shown(.value))]
    Config {
        /// The `adapter_config.json`.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value, as JSON; `missing` if the file has no such key.
        value: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// A path holds something else than an adapter of a known format.
    #[error("{}: {}; {hint}", .path.display(), shown(.what))]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// What it is.
        what: String,
        /// What makes an adapter of it.
        hint: String,
    },
    /// The folder holds its weights only as a pickle.
    #[error(
        "{} is a Python pickle, which can run code when it is read; if you trust the file, convert it in its folder: \
         python -c \"import torch, safetensors.torch as s; s.save_file({{k: v.contiguous() for k, v in \
         torch.load('{name}.bin', map_location='cpu', weights_only=True).items()}}, \
         '{name}.safetensors')\"",
        .path.display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
        /// Its name without `.bin`.
        name: &'static str,
    },
    /// A folder lacks a file that it must have.
    #[error("{} does not exist: {hint}", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// A folder holds no adapter, but several of its subfolders do.
    #[error("{} holds several adapters, {}: pass the folder of one of them", .path.display(), listed(.names))]
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
    /// A tensor is not part of a supported adapter, or has another shape or type than it must have.
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
        "{}: module {}: tensor {} holds {value} at position {position}: weights must be finite; train the adapter again \
         or use an earlier checkpoint",
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
    /// The name of a module cannot be the name of a file.
    #[error("module name {}: {reason}", quoted(.module))]
    ModuleName {
        /// The name.
        module: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The fields of a module do not fit together, so that it has no ONNX form.
    #[error("module {}: {reason}", quoted(.module))]
    Module {
        /// The module.
        module: String,
        /// What does not fit.
        reason: String,
    },
    /// The matrices of a module, written out, exceed a limit.
    #[error("module {} is too large: {reason}", quoted(.module))]
    ModuleTooLarge {
        /// The module.
        module: String,
        /// Which limit, and what to do.
        reason: String,
    },
    /// A pattern given on the command line matches no module.
    #[error("no module matches {}; similar names: {}", quoted(.glob), listed(.similar))]
    NoSuchModule {
        /// The pattern.
        glob: String,
        /// The module names with the most similar spelling, most similar first.
        similar: Vec<String>,
    },
    /// A file is not an ONNX language model of a supported form.
    #[error("{}: {reason}", .path.display())]
    Onnx {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// tract cannot run the graph of an ONNX file.
    #[error("{}: cannot be run: {what}", .path.display())]
    Unrunnable {
        /// The file.
        path: PathBuf,
        /// What tract said, on one line.
        what: String,
    },
    /// A language model has no layer with the name of an adapter's module.
    #[error(
        "the model has no layer called {}; similar names: {}; pass the output tensor of the layer with --map {}=TENSOR",
        quoted(.module), listed(.similar), shown(.module)
    )]
    NoSuchLayer {
        /// The module.
        module: String,
        /// The layer names with the most similar spelling, most similar first.
        similar: Vec<String>,
    },
    /// Several layers of a language model match the name of an adapter's module.
    #[error(
        "{} may be any of the layers {}; pass the output tensor of the right one with --map {}=TENSOR",
        quoted(.module), listed(.layers), shown(.module)
    )]
    AmbiguousLayer {
        /// The module.
        module: String,
        /// The layers and their outputs, in the order of the graph.
        layers: Vec<String>,
    },
    /// Two modules of an adapter mean one layer of a language model.
    #[error(
        "module {} is the layer with the output {}, which another module is, too; a layer can be adapted once",
        quoted(.module), quoted(.output)
    )]
    LayerTaken {
        /// The second module.
        module: String,
        /// The layer's output, by its name in the ONNX file.
        output: String,
    },
    /// A tensor given with `--map` is not the output of a layer.
    #[error("module {}: --map names the tensor {}, {reason}", quoted(.module), quoted(.tensor))]
    MappedTensor {
        /// The module.
        module: String,
        /// The tensor.
        tensor: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// A tensor of a language model is not of the type that deltas are added in.
    #[error(
        "module {}: tensor {} is of type {found} in the model; export the model in float32",
        quoted(.module), quoted(.tensor)
    )]
    LayerType {
        /// The module.
        module: String,
        /// The tensor, by its name in the ONNX file.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// A tensor of a language model has another size than an adapter's module.
    #[error(
        "module {}: tensor {} of the model has {found} features where the adapter has {expected}; the adapter belongs to \
         another base model, or --map names the wrong tensor",
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
    /// Tokens that a language model cannot read.
    #[error("{0}")]
    Tokens(String),
    /// An option of generation or evaluation is out of its range.
    #[error("{0}")]
    Options(String),
    /// tract failed while it ran a language model.
    #[error("the model cannot be run on {tokens} tokens: {what}")]
    Run {
        /// Number of tokens.
        tokens: usize,
        /// What tract said, on one line.
        what: String,
    },
    /// All logits of a token are NaN, so no token can be chosen.
    #[error(
        "the model's logits are all NaN; its weights, or the deltas that were added, are damaged"
    )]
    NanLogits,
    /// The injector failed.
    #[error(transparent)]
    Injector(Box<dyn std::error::Error + Send + Sync>),
    /// A file is not a tokenizer, or the tokenizer fails on a text.
    #[error("{}: {}", .path.display(), shown(.reason))]
    Tokenizer {
        /// The `tokenizer.json`.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A list of files (`export.json`, `model.safetensors.index.json`) contradicts itself or leaves
    /// its folder.
    #[error("{}: {}", .path.display(), shown(.reason))]
    Index {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A check of zklora's own work failed.
    #[error("internal error: {what}; this is a bug in zklora, please report it")]
    Internal {
        /// Which check.
        what: String,
    },
}

/// Longest piece of text from a file that a message repeats, in characters.
const SHOWN: usize = 160;

/// `text`, escaped and cut after [`SHOWN`] characters ([`text::shortened`]).
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
