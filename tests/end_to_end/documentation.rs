//! docs/cli.md holds the output of `--help`, and `zklora man` writes a page for every command. To
//! regenerate docs/cli.md: `ZKLORA_WRITE_DOCS=1 cargo test --release --workspace documentation`.

use std::{collections::BTreeSet, io::ErrorKind, path::Path, process::Command};

use crate::{zk, zklora::zklora};

const COMMANDS: [&[&str]; 41] = [
    &["run"],
    &["export"],
    &["compile"],
    &["srs", "info"],
    &["srs", "verify"],
    &["trace", "record"],
    &["trace", "info"],
    &["trace", "commit"],
    &["trace", "check"],
    &["trace", "prove-row"],
    &["trace", "check-row"],
    &["prove"],
    &["verify"],
    &["serve"],
    &["sessions"],
    &["sessions", "list"],
    &["sessions", "show"],
    &["sessions", "prune"],
    &["sessions", "abandon"],
    &["sessions", "give-up"],
    &["sessions", "retry"],
    &["infer"],
    &["audit"],
    &["offer", "make"],
    &["offer", "fetch"],
    &["offer", "show"],
    &["offer", "rotate"],
    &["evaluate"],
    &["claim"],
    &["deliver"],
    &["settle"],
    &["verify-sample"],
    &["report"],
    &["leak"],
    &["integer", "compile"],
    &["integer", "run"],
    &["integer", "check"],
    &["integer", "prove"],
    &["bench"],
    &["completions"],
    &["man"],
];

const INTRODUCTION: &str = "# The command line

This page is the output of `--help`; a test compares the two. `zklora man --out DIR` writes the same
text as manual pages.

Every command except `completions` takes `--json` and then prints one object on stdout. Progress
goes to stderr, and only to a terminal. Errors say what, where, and what to do next; with `--json`
they are also an object with the key `error`. Outputs are written beside their final name and
renamed, so an incomplete file never has its final name. A killed process may leave temporary files;
the next one removes them ([formats.md](formats.md#temporary-files)). Foreign names are shown on one
line, with codes for characters that are not printable; JSON is ASCII on one line.

| exit code | meaning |
| -- | -- |
| 0 | success |
| 1 | the answer is no: a proof does not verify, a pin, session id or SRS does not match, a trace is not of your activations, committed values differ, an audit finds a difference, the prover refuses a false or unserved trace, a limit of rows is reached |
| 2 | bad usage or unusable input |

`ZKLORA_CACHE_DIR` sets the folder for the points of manifests
([formats.md](formats.md#kept-points)).
";

#[test]
fn the_command_line_page_is_what_help_prints() {
    let mut page = INTRODUCTION.to_string();
    for command in COMMANDS {
        let help = zklora(command.iter().chain(&["--help"])).ok().stdout;
        page.push_str(&format!(
            "\n## zklora {}\n\n```text\n{}\n```\n",
            command.join(" "),
            help.trim_end()
        ));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    if std::env::var_os("ZKLORA_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap() == page,
        "docs/cli.md is stale: the first lines of this file tell how to regenerate it"
    );
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("man1");
    let run = zk!["--json", "man", "--out", out].ok().json();
    let written: BTreeSet<String> = std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // A group of commands, such as `zklora trace`, has its own page.
    let expected: BTreeSet<String> = COMMANDS
        .iter()
        .flat_map(|command| (0..=command.len()).map(|words| &command[..words]))
        .map(|words| format!("{}.1", [&["zklora"], words].concat().join("-")))
        .collect();
    assert_eq!(written, expected);
    assert_eq!(run["pages"].as_array().unwrap().len(), expected.len());
    let page = std::fs::read_to_string(out.join("zklora-verify.1")).unwrap();
    assert!(page.contains("adapter") && page.contains("pinned before the session"), "{page}");
    for name in &written {
        // -ww: print all warnings. -z: print no page.
        match Command::new("groff")
            .args(["-man", "-Kutf8", "-Tutf8", "-ww", "-z"])
            .arg(out.join(name))
            .output()
        {
            Ok(checked) => {
                let messages = String::from_utf8_lossy(&checked.stderr);
                assert!(checked.status.success() && messages.is_empty(), "{name}: {messages}");
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                eprintln!("skipped: the pages are not checked, because groff is not installed");
                return;
            }
            Err(e) => panic!("groff: {e}"),
        }
    }
}
