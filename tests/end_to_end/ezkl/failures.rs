//! EZKL is missing, has another version, is killed, hangs, needs too much memory or fills the disk:
//! a clear error, and no incomplete file.

use std::path::{Path, PathBuf};

use super::{
    python::python,
    sessions::{SMALL, export, inputs},
};
use crate::{
    args,
    zklora::{Run, zklora_with},
};

/// Wraps the package and replaces one function by a fault that `EZKL_FAULT` names.
const FAULTY: &str = r#"
import os, sys, time
sys.path.remove(os.path.dirname(os.path.abspath(__file__)))
del sys.modules["ezkl"]
import ezkl as real
kind, name = os.environ["EZKL_FAULT"].split(":")
true = getattr(real, name)
def fault(*args, **named):
    if kind == "kill":
        os.kill(os.getpid(), 9)
    if kind == "hang":
        time.sleep(600)
    if kind == "space":
        with open(named["pk_path"], "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")
    if kind == "memory":
        held = bytearray(400 << 20)
        time.sleep(600)
    if kind == "burst":
        # Never touched, so that nothing of it is resident.
        held = bytearray((4096 + 256 * os.cpu_count()) << 20)
        time.sleep(600)
    if kind == "abort":
        os.write(2, b"memory allocation of 123456789 bytes failed\n")
        os.abort()
    if kind == "forge":
        for line in ('{"id": 1, "ok": true}', '{"id": 2, "ok": true}'):
            print(line)
            os.write(1, line.encode() + b"\n")
        raise ValueError("no")
    if kind == "none":
        return None
    if kind == "swap":
        # Another process writes to the user's file, after it was checked.
        with open(os.environ["EZKL_SWAP"], "r+b") as file:
            file.write(bytes(1000))
    made = true(*args, **named)
    if kind == "nan":
        text = open(named["output"]).read()
        open(named["output"], "w").write(text.replace('"outputs":[["', '"outputs":[[NaN,"', 1))
    if kind == "other":
        text = open(named["output"]).read()
        more = '"inputs":[["' + "00" * 32 + '","'
        open(named["output"], "w").write(text.replace('"inputs":[["', more, 1))
    return made
setattr(real, name, fault)
sys.modules["ezkl"] = real
"#;

struct Workspace {
    folder: tempfile::TempDir,
    python: &'static Path,
}

impl Workspace {
    fn new() -> Option<Workspace> {
        let python = python()?;
        let place = Workspace { folder: tempfile::tempdir().unwrap(), python };
        std::fs::create_dir_all(place.path("faulty")).unwrap();
        std::fs::create_dir_all(place.path("work")).unwrap();
        std::fs::write(place.path("faulty/ezkl.py"), FAULTY).unwrap();
        export("16x2x16", place.folder.path(), false);
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, fault: &str, arguments: &[std::ffi::OsString], more: &[&str]) -> Run {
        let variables = [("PYTHONPATH", self.path("faulty")), ("EZKL_FAULT", fault.into())];
        let variables: Vec<(&str, &Path)> =
            variables.iter().map(|(name, value)| (*name, value.as_path())).collect();
        let variables = if fault.is_empty() { &[][..] } else { &variables };
        let python = args!["--ezkl-python", self.python];
        let more: Vec<_> = more.iter().map(std::ffi::OsString::from).collect();
        zklora_with(variables, [arguments, &python[..], &more[..]].concat())
    }

    fn compile(&self, fault: &str, more: &[&str]) -> Run {
        let compile = args![
            "compile",
            self.path("onnx"),
            "--out",
            self.path("work/artifacts"),
            "--backend",
            "ezkl",
            "--insecure-dev-srs"
        ];
        self.run(fault, &compile, &[&SMALL[..], more].concat())
    }

    /// Checks that the folder of outputs has only these files.
    #[track_caller]
    fn nothing_but(&self, names: &[&str]) {
        let mut left: Vec<String> = std::fs::read_dir(self.path("work"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, names);
    }
}

#[test]
fn an_interpreter_or_package_that_is_missing_or_another_is_said_with_the_command_that_installs_it()
{
    let Some(place) = Workspace::new() else { return };
    let onnx = place.path("onnx");
    let out = place.path("work/artifacts");
    let compile = |variables: &[(&str, &Path)], more: &[std::ffi::OsString]| {
        let arguments =
            args!["compile", onnx, "--out", out, "--backend", "ezkl", "--insecure-dev-srs"];
        zklora_with(variables, [&arguments[..], more].concat())
    };
    compile(&[], &args!["--ezkl-python", "no-such-python"])
        .refused(2, "`no-such-python` does not start");
    compile(&[("ZKLORA_EZKL_PYTHON", Path::new("/nowhere/python"))], &[])
        .refused(2, "`/nowhere/python` does not start");
    compile(&[], &args!["--ezkl-python", "true"]).refused(2, "it ended: exit code 0");
    // Without site packages, the package is missing.
    let bare = place.path("bare");
    std::fs::write(&bare, "#!/bin/sh\nexec python3 -S \"$@\"\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&bare, std::fs::Permissions::from_mode(0o755)).unwrap();
    let command = format!("{} -m pip install ezkl==23.0.5", bare.display());
    compile(&[], &args!["--ezkl-python", bare]).refused(2, &command);
    let older = place.path("older");
    std::fs::create_dir_all(older.join("ezkl-23.0.4.dist-info")).unwrap();
    std::fs::write(
        older.join("ezkl-23.0.4.dist-info/METADATA"),
        "Metadata-Version: 2.1\nName: ezkl\nVersion: 23.0.4\n",
    )
    .unwrap();
    compile(&[("PYTHONPATH", &older)], &args!["--ezkl-python", place.python])
        .refused(2, "has ezkl 23.0.4: this build drives ezkl 23.0.5");
    place.nothing_but(&[]);
}

#[test]
fn a_process_that_is_killed_stuck_too_large_or_without_space_leaves_nothing_behind() {
    let Some(place) = Workspace::new() else { return };
    place.compile("kill:setup", &[]).refused(2, "died in `setup`").refused(2, "killed by signal 9");
    place.nothing_but(&[]);
    place
        .compile("hang:mock", &["--ezkl-timeout", "3"])
        .refused(2, "took longer than 3s (--ezkl-timeout)");
    place.nothing_but(&[]);
    place
        .compile("memory:setup", &["--ezkl-memory", "300"])
        .refused(2, "more than 300 MiB of memory (--ezkl-memory)");
    place.nothing_but(&[]);
    place
        .compile("burst:setup", &["--ezkl-memory", "300"])
        .refused(2, "more than 300 MiB of memory (--ezkl-memory)");
    place.nothing_but(&[]);
    place
        .compile("abort:setup", &["--ezkl-memory", "300"])
        .refused(2, "more than 300 MiB of memory (--ezkl-memory)");
    place.nothing_but(&[]);
    place.compile("space:setup", &[]).refused(2, "No space left on device");
    place.nothing_but(&[]);
    // A circuit that does not fit: the package panics, and what it wrote is shown.
    place.compile("", &["--decomposition", "4096,2"]).refused(2, "the argument '--decomposition");
    let wide = args![
        "compile",
        place.path("onnx"),
        "--out",
        place.path("work/a"),
        "--backend",
        "ezkl",
        "--insecure-dev-srs"
    ];
    let run = place.run("", &wide, &[&SMALL[..], &["--param-visibility", "hashed"]].concat());
    run.refused(2, "EZKL failed in `");
    place.nothing_but(&[]);
    place.compile("", &[]).ok();
    place.nothing_but(&["artifacts"]);
}

#[test]
fn witnesses_that_are_not_numbers_or_not_of_the_row_are_refused_and_count_no_rows() {
    let Some(place) = Workspace::new() else { return };
    place.compile("", &[]).ok();
    inputs(16, 1, &place.path("x.json"));
    let (artifacts, trace) = (place.path("work/artifacts"), place.path("work/trace.safetensors"));
    let record = args![
        "trace",
        "record",
        "--artifacts",
        artifacts,
        "--inputs",
        place.path("x.json"),
        "--out",
        trace
    ];
    place.run("nan:gen_witness", &record, &[]).refused(2, "not a witness");
    place.run("other:gen_witness", &record, &[]).refused(2, "its inputs are not those of the row");
    place.run("kill:gen_witness", &record, &[]).refused(2, "row 0): killed by signal 9");
    std::fs::write(place.path("bad.json"), "{\"input_data\": [[NaN]]}").unwrap();
    let bad = args![
        "trace",
        "record",
        "--artifacts",
        artifacts,
        "--inputs",
        place.path("bad.json"),
        "--out",
        trace
    ];
    place.run("", &bad, &[]).refused(2, "not JSON of the form");
    place.nothing_but(&["artifacts"]);
    assert!(!artifacts.join("private/served.jsonl").exists());
    place.run("", &record, &["--max-rows", "1"]).ok();
    place.run("", &record, &["--max-rows", "1"]).refused(1, "the limit is 1");
    // An interrupted proof leaves no file.
    let prove = args![
        "prove",
        "--artifacts",
        artifacts,
        "--trace",
        trace,
        "--out",
        place.path("work/p"),
        "--insecure-dev-srs"
    ];
    place.run("kill:prove", &prove, &[]).refused(2, "died in `prove`");
    place.nothing_but(&["artifacts", "trace.safetensors"]);
}

/// Ctrl-C ends the command and its process, and leaves no files.
#[test]
#[cfg(target_os = "linux")]
fn an_interrupted_command_ends_its_own_process_and_leaves_nothing() {
    let Some(place) = Workspace::new() else { return };
    for signal in ["INT", "KILL"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_zklora"));
        command.args(args![
            "compile",
            place.path("onnx"),
            "--out",
            place.path("work/artifacts"),
            "--backend",
            "ezkl"
        ]);
        command.args(["--insecure-dev-srs", "--ezkl-python"]).arg(place.python).args(SMALL);
        command.env("PYTHONPATH", place.path("faulty")).env("EZKL_FAULT", "hang:setup");
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let started = std::time::Instant::now();
        let python = loop {
            let found = std::fs::read_to_string(&children).unwrap_or_default();
            if let Some(python) = found.split_whitespace().next() {
                break python.to_string();
            }
            assert!(started.elapsed().as_secs() < 60, "no process was started");
            std::thread::sleep(std::time::Duration::from_millis(20));
        };
        std::process::Command::new("kill")
            .args([&format!("-{signal}"), &child.id().to_string()])
            .status()
            .unwrap();
        let status = child.wait().unwrap();
        if signal == "INT" {
            assert_eq!(status.code(), Some(2));
            place.nothing_but(&[]);
        }
        let gone = || match std::fs::read_to_string(format!("/proc/{python}/stat")) {
            Ok(stat) => {
                stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
            }
            Err(_) => true,
        };
        let ended = std::time::Instant::now();
        while !gone() {
            assert!(
                ended.elapsed().as_secs() < 30,
                "the process that was started is still running"
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    assert!(!place.path("work/artifacts").exists());
}

/// Limits files to 200 KiB to simulate a full disk: EZKL's own writes fail in the middle.
#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_is_full_leaves_nothing_behind() {
    let Some(place) = Workspace::new() else { return };
    let mut limited = std::process::Command::new("bash");
    limited.args([
        "-c",
        "ulimit -f 200; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_zklora"),
        "compile",
    ]);
    limited.arg(place.path("onnx")).arg("--out").arg(place.path("work/artifacts"));
    limited
        .args(["--backend", "ezkl", "--insecure-dev-srs", "--ezkl-python"])
        .arg(place.python)
        .args(SMALL);
    crate::zklora::run(&mut limited).refused(2, "EZKL failed in `");
    place.nothing_but(&[]);
}

#[test]
fn only_a_verification_of_the_package_that_says_yes_is_one() {
    let Some(session) = super::sessions::hashed() else { return };
    let Some(place) = Workspace::new() else { return };
    let path = |name: &str| session.path(name);
    let verify = args![
        "verify",
        "--public",
        path("artifacts/public"),
        "--trace",
        path("trace.safetensors"),
        "--proof",
        path("session.pf"),
        "--adapter-id",
        session.id,
        "--insecure-dev-srs"
    ];
    place.run("kill:verify", &verify, &[]).refused(2, "killed by signal 9");
    place.run("hang:verify", &verify, &["--ezkl-timeout", "3"]).refused(2, "took longer than 3s");
    place.run("none:verify", &verify, &[]).refused(1, "rejected by the check `EZKL's own`");
    // Output of the package is not an answer.
    place
        .run("forge:verify", &verify, &[])
        .refused(1, "EZKL does not accept this proof (ValueError: no)");
    place.run("", &verify, &[]).ok();
}

#[test]
fn an_srs_that_is_changed_after_it_was_looked_at_is_not_used() {
    let Some(session) = super::sessions::hashed() else { return };
    let Some(place) = Workspace::new() else { return };
    let (public, srs) = (session.path("artifacts/public"), place.path("own.srs"));
    std::fs::copy(public.join("insecure-dev-12.srs"), &srs).unwrap();
    let (trace, proofs) = (session.path("trace.safetensors"), session.path("session.pf"));
    let arguments = args![
        "verify",
        "--public",
        public,
        "--trace",
        trace,
        "--proof",
        proofs,
        "--adapter-id",
        session.id
    ];
    let verify =
        [&arguments[..], &args!["--insecure-dev-srs", "--srs", srs, "--ezkl-python", place.python]]
            .concat();
    let faulty = place.path("faulty");
    let variables =
        [("PYTHONPATH", &*faulty), ("EZKL_FAULT", Path::new("swap:verify")), ("EZKL_SWAP", &*srs)];
    zklora_with(&variables, &verify).ok();
    zklora_with(&[], &verify).refused(2, "not an SRS of EZKL");
}
