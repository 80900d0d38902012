//! Checks of the repository itself: its pages, comments and files, not what the programs do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod citations;
mod files;
