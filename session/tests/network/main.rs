//! The contributor's server and the user's client, over real sockets on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod away;
mod child;
mod counting;
mod crash;
mod evaluations;
mod fair;
mod flood;
mod honest;
mod http2;
mod identity;
mod in_flight;
mod large;
mod load;
mod malicious_contributor;
mod malicious_user;
mod operator;
mod packed;
mod party;
mod proxy;
mod raw;
mod rows_off;
mod tap;
mod wire;
