//! Exported files run in onnxruntime, an implementation of ONNX that shares no code with ours.
//!
//! The test creates a Python environment with pinned packages in the target folder, once, from the
//! package index that pip is configured for. Without Python or an index it prints the reason on
//! stderr and passes; if `CI` is set, it fails.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use support::{TRACED, load, recorded};
use zklora_models::export;

/// Packages with their hashes, and the file that lists them.
const REQUIREMENTS: &str = include_str!("requirements.txt");
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/requirements.txt");

/// Relative to the largest value of a module's delta.
const TOLERANCE: &str = "1e-5";

#[test]
fn onnxruntime_computes_what_peft_computed() {
    let python = match environment() {
        Ok(python) => python,
        Err(reason) => {
            assert!(std::env::var_os("CI").is_none(), "onnxruntime is not available: {reason}");
            eprintln!("skipped, as onnxruntime is not available: {reason}");
            return;
        }
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/onnx-check/check.py");
    for name in TRACED {
        let adapter = load(name);
        let out = tempfile::tempdir().unwrap();
        let recorded = recorded(name);
        let modules: Vec<String> = recorded.keys().cloned().collect();
        export(&adapter, &modules, out.path()).unwrap();
        for (module, io) in &recorded {
            let adapted = adapter.modules.iter().find(|m| &m.name == module).unwrap();
            let rows = io.delta.len() / adapted.d_out;
            let file = |part: &str| out.path().join(format!("{module}.{part}.npy"));
            for (input, values) in adapted.inputs.iter().zip(io.inputs(adapted)) {
                std::fs::write(file(&input.name), npy(values, rows)).unwrap();
            }
            std::fs::write(file("expected"), npy(&io.delta, rows)).unwrap();
        }
        let result =
            Command::new(&python).arg(&script).arg(out.path()).arg(TOLERANCE).output().unwrap();
        assert!(result.status.success(), "{name}: {}", output_of(&result));
        let summary: serde_json::Value = serde_json::from_slice(&result.stdout).unwrap();
        assert_eq!(summary["checked"], modules.len(), "{name}");
        assert_eq!(summary["onnxruntime"], version());
    }
}

/// The path of a Python with [`REQUIREMENTS`], in `onnxruntime-env` of the target folder; or why
/// there is none.
fn environment() -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("onnxruntime-env");
    let python = dir.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    // Lists the installed packages. Written last, so that an interrupted set-up is repeated.
    let stamp = dir.join("requirements.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == REQUIREMENTS) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
        "-r",
    ];
    run(Command::new(&python).args(install).arg(FILE))?;
    std::fs::write(&stamp, REQUIREMENTS).map_err(|error| error.to_string())?;
    Ok(python)
}

/// The required version of onnxruntime.
fn version() -> &'static str {
    let line = REQUIREMENTS.lines().find_map(|line| line.strip_prefix("onnxruntime==")).unwrap();
    line.trim_end_matches('\\').trim()
}

fn run(command: &mut Command) -> Result<(), String> {
    let output =
        command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if output.status.success() { Ok(()) } else { Err(output_of(&output)) }
}

fn output_of(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A NumPy file, version 1.0, of f32 `[rows, len / rows]`.
fn npy(values: &[f32], rows: usize) -> Vec<u8> {
    let mut header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {}), }}",
        values.len() / rows
    );
    // Magic, version and length take 10 bytes; the header ends in a newline at a multiple of 64.
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    file
}
