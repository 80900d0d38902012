//! The format of a trace file: a session's rows as `.safetensors` (docs/formats.md).
//!
//! Per module: `<module>.<input>` (i32 `[N, dim]`), `<module>.one` (i32 `[N]`, only with a bias),
//! `<module>.scale` (f32 `[N]`), `<module>.delta` (i64 `[N, d_out]`). Metadata: format, version,
//! adapter id, session id.

/// Name of the format, in the metadata of the file.
pub(crate) const FORMAT: &str = "zklora-trace";
/// Version of the format.
pub(crate) const VERSION: &str = "1";
