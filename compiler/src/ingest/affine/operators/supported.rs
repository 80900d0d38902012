//! One row of the table of operators in `docs/onnx.md`.

/// What is supported of some ONNX operators; `docs/onnx.md` lists these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supported {
    /// Names of ONNX operators.
    pub operators: &'static str,
    /// Under which condition, where their input depends on the graph's.
    pub when: &'static str,
    /// What they become.
    pub becomes: &'static str,
}
