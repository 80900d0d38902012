//! Files and foreign text, for all crates above: bounded reads, atomic writes, temporary files, and
//! text from elsewhere made safe to show.
//!
//! This crate must not know what is in a file.

pub mod error;
pub mod read;
pub mod temporary;
pub mod text;
pub mod write;

pub use error::{Error, Kind};
