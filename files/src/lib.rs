//! Reads files with a limit, writes them atomically, makes temporary ones, and escapes text from
//! other parties.
//!
//! All other crates of zklora use this one. It must not know the content of files.

mod error;
mod inside;
mod reading;
pub mod temporary;
pub mod text;
mod writing;

pub use error::{Error, Kind, is_out_of_descriptors};
pub use inside::{PathError, resolve_inside};
pub use reading::{MAX_FILE, open, read, read_start};
pub use temporary::{Scratch, folder_of, sweep, temporary_in};
pub use writing::{Access, create_folder, remove, require_folder_of, scratch, write};
