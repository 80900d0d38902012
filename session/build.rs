//! The network's messages, and with the feature `network` its services, from `proto`.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["contributor.proto", "evaluation.proto"], ["proto"])?;
    let descriptor_file =
        std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(descriptor_file, descriptors.encode_to_vec())?;
    let network = std::env::var_os("CARGO_FEATURE_NETWORK").is_some();
    let mut build = tonic_prost_build::configure()
        .build_client(network)
        .build_server(network)
        .bytes(".")
        .skip_debug([".zklora.v1.SessionRef"]);
    for message in ["Batch", "Call", "Rows", "InferResponse"] {
        let (from, to) =
            (format!(".zklora.v1.{message}"), format!("crate::bounded_messages::{message}"));
        build = build.extern_path(from, to);
    }
    build.compile_fds(descriptors)?;
    Ok(())
}
