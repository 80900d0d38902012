//! The next process removes what a killed process left, but not the files of a running process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use zklora_files::temporary::{Scratch, temporary_in};

use crate::{
    args,
    zklora::{ADAPTER, fixture, run, session, zklora_command},
};

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// `zklora run` with this folder for temporary files.
fn pipeline(temporary: &Path, rows: &str) -> Command {
    let mut command = zklora_command();
    command
        .args(args!["run", "--adapter", fixture(ADAPTER), "--rows", rows])
        .env("TMPDIR", temporary);
    command
}

/// Waits for a file of this name in a subfolder.
fn wait_for(folder: &Path, child: &mut Child, name: &str) -> PathBuf {
    let start = Instant::now();
    loop {
        let entries = fs::read_dir(folder).unwrap().flatten();
        if let Some(found) = entries.map(|entry| entry.path().join(name)).find(|path| path.exists())
        {
            return found;
        }
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before there was anything to leave behind"
        );
        assert!(start.elapsed() < Duration::from_secs(300), "there is no {name}");
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_seed_of_a_killed_run_is_removed_by_the_next_and_that_of_a_living_one_is_not() {
    let temporary = tempfile::tempdir().unwrap();
    let start_silently = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut killed = start_silently(&mut pipeline(temporary.path(), "2000"));
    let seed = wait_for(temporary.path(), &mut killed, "private/seed");
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(seed.exists(), "SIGKILL leaves it");
    let left = names(temporary.path());
    assert!(left.len() == 1 && left[0].starts_with("zklora-scratch-"), "{left:?}");

    let living = Scratch::within(temporary.path()).unwrap();
    assert!(!seed.exists(), "creating the next folder removes it");
    fs::write(living.path().join("seed"), "secret").unwrap();
    run(&mut pipeline(temporary.path(), "1")).ok();
    assert!(living.path().join("seed").exists());
    drop(living);
    assert!(names(temporary.path()).is_empty());
}

#[test]
fn a_run_removes_what_a_killed_run_left() {
    let temporary = tempfile::tempdir().unwrap();
    let mut killed = pipeline(temporary.path(), "2000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(temporary.path(), &mut killed, "private/seed");
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(names(temporary.path()).len(), 1);
    run(&mut pipeline(temporary.path(), "1")).ok();
    assert!(names(temporary.path()).is_empty(), "{:?}", names(temporary.path()));
}

/// The system ends the process in the middle of the file: SIGXFSZ, which like SIGKILL leaves it no
/// time to clean up.
#[test]
fn half_a_trace_of_a_killed_record_is_removed_by_the_next_and_that_of_a_living_one_is_not() {
    let out = tempfile::tempdir().unwrap();
    let artifacts = session().copy_of_artifacts();
    let inputs = fixture(ADAPTER).join("activations.safetensors");
    let record = |name: &str| {
        args![
            "trace",
            "record",
            "--artifacts",
            artifacts.path(),
            "--inputs",
            inputs,
            "--out",
            out.path().join(name)
        ]
    };
    let mut limited = Command::new("bash");
    // In blocks of 1024 bytes: the ledger's lines are shorter, the trace is longer.
    limited
        .args(["-c", "ulimit -c 0 -f 4; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_zklora"))
        .args(record("a"));
    let ended = limited.env("ZKLORA_CACHE_DIR", out.path().join("cache")).output().unwrap();
    assert_eq!(
        ended.status.code(),
        None,
        "it was to be killed: {}",
        String::from_utf8_lossy(&ended.stderr)
    );
    let left = names(out.path());
    assert!(
        left.len() == 1 && left[0].starts_with(".zklora-") && left[0].ends_with(".tmp"),
        "{left:?}"
    );
    assert!(fs::metadata(out.path().join(&left[0])).unwrap().len() > 0);

    let other = tempfile::tempdir().unwrap();
    let living = temporary_in(other.path()).unwrap();
    fs::copy(out.path().join(&left[0]), other.path().join(".zklora-left.tmp")).unwrap();
    for folder in [out.path(), other.path()] {
        let mut again = record("b");
        *again.last_mut().unwrap() = folder.join("b").into();
        run(zklora_command().args(again)).ok();
    }
    assert_eq!(names(out.path()), ["b"]);
    let living_name = living.path().file_name().unwrap().to_str().unwrap().to_string();
    assert_eq!(names(other.path()), [living_name, "b".to_string()]);
}
