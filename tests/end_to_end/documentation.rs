//! docs/cli.md is what `--help` prints. To write it again: `ZKLORA_WRITE_DOCS=1 cargo test
//! --release --workspace documentation`.

use std::path::Path;

use crate::zklora::zklora;

const COMMANDS: [&[&str]; 26] = [
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
    &["sessions", "retry"],
    &["infer"],
    &["audit"],
    &["report"],
    &["leak"],
    &["bench"],
    &["completions"],
];

const INTRODUCTION: &str = "# The command line

This page is the output of `--help`; a test compares the two.

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
        "docs/cli.md is stale: see the first line of this file"
    );
}
