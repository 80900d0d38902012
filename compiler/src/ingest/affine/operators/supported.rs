//! One row of the table of operators in `docs/onnx.md`.

/// The supported forms of some ONNX operators; `docs/onnx.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supported {
    /// Names of ONNX operators.
    pub operators: &'static str,
    /// Under which condition, where their input depends on the graph's.
    pub when: &'static str,
    /// Their part of the map.
    pub becomes: &'static str,
}
