//! Fuzz targets for every parser of hostile input: see `tests/parsers.rs`.
