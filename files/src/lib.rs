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
pub use read::{MAX_FILE, open, read, read_start};
pub use temporary::{Scratch, folder_of, sweep, temporary_in};
pub use write::{Access, create_folder, remove, require_folder_of, scratch, write};
