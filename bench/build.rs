//! Compiles the messages and services of `proto`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(protox::compile(["bench.proto"], ["proto"])?)?;
    Ok(())
}
