//! Runs the binary, and makes a session with all commands, once for all tests.

use std::{
    ffi::OsString,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

/// The result of a run of the binary.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    #[track_caller]
    pub fn ok(self) -> Run {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn refused(self, code: i32, why: &str) -> Run {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert!(
            self.stderr.contains(why) || self.stdout.contains(why),
            "expected `{why}` in: {}{}",
            self.stdout,
            self.stderr
        );
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

/// Time limit for a command, so that a hanging command fails.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// Like [`Command::output`], within [`LIMIT`].
pub fn output(command: &mut Command) -> Result<Output, String> {
    let program = command.get_program().to_owned();
    let failed = |e: std::io::Error| format!("{program:?}: {e}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
            bytes
        })
    }
    let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if start.elapsed() > LIMIT {
            child.kill().map_err(failed)?;
            child.wait().map_err(failed)?;
            return Err(format!("{program:?} was stopped after {LIMIT:?}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let read = |pipe: JoinHandle<Vec<u8>>| {
        pipe.join().map_err(|_| format!("{program:?}: its output cannot be read"))
    };
    Ok(Output { status, stdout: read(stdout)?, stderr: read(stderr)? })
}

/// The binary, with a cache folder and a state folder of the tests.
pub fn zklora_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zklora"));
    command.env("ZKLORA_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"));
    command.env("XDG_STATE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"));
    command
}

pub fn zklora<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    zklora_with(&[], args)
}

/// The same with more environment variables.
pub fn zklora_with<S: AsRef<std::ffi::OsStr>>(
    variables: &[(&str, &Path)],
    args: impl IntoIterator<Item = S>,
) -> Run {
    run(zklora_command().args(args).envs(variables.iter().copied()))
}

/// Runs a command.
pub fn run(command: &mut Command) -> Run {
    let output = output(command).expect("the binary runs");
    Run {
        code: output.status.code().expect("it ended by itself"),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Arguments of any string-like type.
#[macro_export]
macro_rules! args {
    ($($arg:expr),* $(,)?) => {
        [$(std::ffi::OsString::from(&$arg)),*]
    };
}

/// `zk!["verify", "--public", path]`: the binary, run with these arguments.
#[macro_export]
macro_rules! zk {
    ($($arg:expr),* $(,)?) => {
        $crate::zklora::zklora($crate::args![$($arg),*])
    };
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}

/// Copies a folder, and those in it.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// A folder in which a small real adapter was exported, compiled, run, and proven.
pub struct Session {
    folder: tempfile::TempDir,
    pub id: String,
}

impl Session {
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `zklora verify` on this session, with some of the files replaced.
    pub fn verify_with(&self, public: &Path, trace: &Path, proof: &Path, id: &str) -> Run {
        zk!["verify", "--public", public, "--trace", trace, "--proof", proof, "--adapter-id", id]
    }

    /// `zklora verify` on this session without a pin, with more arguments.
    pub fn verify_unpinned(&self, more: &[OsString]) -> Run {
        let [public, trace, proof] =
            ["artifacts", "trace.safetensors", "session.pf"].map(|name| self.path(name));
        zklora(
            [&args!["verify", "--public", public, "--trace", trace, "--proof", proof], more]
                .concat(),
        )
    }

    pub fn verify_proof(&self, proof: &Path) -> Run {
        self.verify_with(
            &self.path("artifacts/public"),
            &self.path("trace.safetensors"),
            proof,
            &self.id,
        )
    }

    pub fn verify_trace(&self, trace: &Path) -> Run {
        self.verify_with(&self.path("artifacts/public"), trace, &self.path("session.pf"), &self.id)
    }

    /// A copy of the artifact folder that a test may change.
    pub fn copy_of_artifacts(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for part in ["public", "private"] {
            copy_folder(&self.path("artifacts").join(part), &copy.path().join(part));
        }
        copy
    }
}

pub const ADAPTER: &str = "adapters/llama_qv_r4";

/// The session of [`ADAPTER`], made on first use.
pub fn session() -> &'static Session {
    static SESSION: OnceLock<Session> = OnceLock::new();
    SESSION.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        zk!["export", "--adapter", fixture(ADAPTER), "--out", path("onnx")].ok();
        let compiled =
            zk!["--json", "compile", path("onnx"), "--out", path("artifacts")].ok().json();
        let inputs = fixture(ADAPTER).join("activations.safetensors");
        zk![
            "trace",
            "record",
            "--artifacts",
            path("artifacts"),
            "--inputs",
            inputs,
            "--out",
            path("trace.safetensors")
        ]
        .ok();
        zk![
            "prove",
            "--artifacts",
            path("artifacts"),
            "--trace",
            path("trace.safetensors"),
            "--out",
            path("session.pf")
        ]
        .ok();
        Session { id: compiled["adapter_id"].as_str().unwrap().to_string(), folder }
    })
}

/// A ceremony of the tests, in the format of the consensus specifications. Its τ is known, so it is
/// insecure.
pub fn foreign_ceremony() -> String {
    let srs = zklora_proof::srs::Srs::insecure_dev(12).unwrap();
    srs.to_json()
}
