//! The network's messages and services, from `proto`.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["contributor.proto"], ["proto"])?;
    let descriptor_file =
        std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("contributor.bin");
    std::fs::write(descriptor_file, descriptors.encode_to_vec())?;
    let mut build = tonic_prost_build::configure().bytes(".").skip_debug([".zklora.v1.SessionRef"]);
    for bounded in ["Batch", "Rows", "InferResponse"] {
        build =
            build.extern_path(format!(".zklora.v1.{bounded}"), format!("crate::parts::{bounded}"));
    }
    build.compile_fds(descriptors)?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(protox::compile(["bench.proto"], ["proto"])?)?;
    Ok(())
}
