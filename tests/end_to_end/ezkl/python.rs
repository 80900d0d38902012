//! Python environments with the package.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::zklora::output;

/// The requirements file of the package, with hashes.
const REQUIREMENTS: &str = include_str!("requirements.txt");

/// Python with the package; `None` if it cannot be installed and `CI` is not set.
pub fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PYTHON.get_or_init(environment) {
        Ok(python) => Some(python),
        Err(reason) => {
            assert!(std::env::var_os("CI").is_none(), "ezkl is not available: {reason}");
            eprintln!("EZKL WAS NOT TESTED: an environment with it could not be made: {reason}");
            None
        }
    }
}

fn environment() -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("ezkl-env");
    let python = dir.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    // Records what is installed. Written last, so that an interrupted set-up is repeated.
    let stamp = dir.join("requirements.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == REQUIREMENTS) {
        return Ok(python);
    }
    succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/end_to_end/ezkl/requirements.txt");
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
        "-r",
    ];
    succeed(Command::new(&python).args(install).arg(file))?;
    std::fs::write(&stamp, REQUIREMENTS).map_err(|error| error.to_string())?;
    Ok(python)
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = output(command)?;
    let text = [output.stdout, output.stderr].concat();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&text).into_owned()) }
}

/// Runs a script with the package, in a folder.
pub fn script(python: &Path, folder: &Path, script: &str) {
    let mut command = Command::new(python);
    command.args(["-c", script]).current_dir(folder).env("RUST_BACKTRACE", "0");
    succeed(&mut command).unwrap();
}
