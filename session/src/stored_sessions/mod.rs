//! The sessions of an artifacts folder for their operator: what the ledger says of them, and which
//! files they have.
//!
//! Reading takes no lock, so a server may run meanwhile. Changes are in [`upkeep`].

mod files;
mod folder;
mod ledger_lines;
mod stored;
pub mod upkeep;

pub use folder::Folder;
pub use stored::{State, Stored};
