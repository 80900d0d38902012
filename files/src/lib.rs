//! Reads files with a limit, writes them atomically, makes temporary ones, and escapes text from
//! other parties.
//!
//! All other crates of zklora use this one. It must not know the content of files.

pub mod error;
pub mod inside;
pub mod read;
pub mod temporary;
pub mod text;
pub mod write;

pub use error::{Error, Kind};
