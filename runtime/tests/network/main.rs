//! The contributor's server and the user's client, over real sockets on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod honest;
mod malicious_contributor;
mod malicious_user;
mod party;
mod proxy;
mod raw;
