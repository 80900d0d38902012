//! The value of `--map`, which several commands take.

/// Parses a value of `--map`: a module and an ONNX tensor.
pub(super) fn mapping(text: &str) -> Result<(String, String), String> {
    let (module, tensor) = text.split_once('=').ok_or("expected MODULE=TENSOR")?;
    Ok((module.to_string(), tensor.to_string()))
}
