//! The network's messages and services, from `proto/contributor.proto`.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["contributor.proto"], ["proto"])?;
    let descriptor_file = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("contributor.bin");
    std::fs::write(descriptor_file, descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
