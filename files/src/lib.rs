//! Files and foreign text, for all crates above: bounded reads, atomic writes, temporary files, and
//! text from elsewhere made safe to show.
//!
//! This crate must not know what is in a file.

mod error;
mod reading;
pub mod temporary;
pub mod text;
mod writing;

pub use error::{Error, Kind, is_out_of_descriptors};
pub use reading::{MAX_FILE, open, read, read_start};
pub use temporary::{Scratch, folder_of, sweep, temporary_in};
pub use writing::{Access, create_folder, remove, require_folder_of, scratch, write};
