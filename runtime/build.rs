//! The network's messages and services, from `proto/contributor.proto`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["contributor.proto"], ["proto"])?;
    let descriptor_file = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("contributor.bin");
    tonic_prost_build::configure().bytes(".").file_descriptor_set_path(descriptor_file).compile_fds(descriptors)?;
    Ok(())
}
