//! Checks of the repository itself: its pages, comments and files, not what the programs do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod circles;
mod citations;
mod files;
mod layers;
mod licences;
mod links;
mod markdown;
mod width;
