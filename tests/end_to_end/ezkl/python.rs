//! Python with the package, or with one that fails as a test wants it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

const REQUIREMENT: &str = "ezkl==23.0.5";

/// Set it to run what needs the package: it takes minutes.
const ASKED: &str = "ZKLORA_EZKL_TESTS";

/// Python with the package; none if nobody asks for it.
pub fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if std::env::var_os(ASKED).is_none() {
        eprintln!("skipped: set {ASKED}=1 to run it with the package");
        return None;
    }
    match PYTHON.get_or_init(environment) {
        Ok(python) => Some(python),
        Err(reason) => panic!("ezkl is not available: {reason}"),
    }
}

fn environment() -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("ezkl-env");
    let python = dir.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    // Written last, so that an interrupted set-up is made again; holds what is installed.
    let stamp = dir.join("requirements.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == REQUIREMENT) {
        return Ok(python);
    }
    succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
    succeed(Command::new(&python).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        REQUIREMENT,
    ]))?;
    std::fs::write(&stamp, REQUIREMENT).map_err(|error| error.to_string())?;
    Ok(python)
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    let text = [output.stdout, output.stderr].concat();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&text).into_owned()) }
}

/// Runs a script with the package, in a folder.
pub fn script(python: &Path, folder: &Path, script: &str) {
    let mut command = Command::new(python);
    command.args(["-c", script]).current_dir(folder).env("RUST_BACKTRACE", "0");
    succeed(&mut command).unwrap();
}
