//! A server in a process of its own: what it has of memory, descriptors and log can be told from
//! what the tests have.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use zklora_proof::keys::KeyStore;
use zklora_session::server::{self, Limits, ServerOptions, Tokens};

use crate::party::{self, Server, load, srs};

pub const ALICE: &str = "Kq3vT0alice00000000000x";
pub const BOB: &str = "9mZr7Ybob0000000000000x";

const FOLDER: &str = "ZKLORA_TEST_SERVER";
const LIMITS: &str = "ZKLORA_TEST_LIMITS";

/// Files of tokens in a folder: of all for the server, and of each.
pub fn tokens(folder: &Path) {
    for (name, text) in [
        ("tokens", format!("alice {ALICE}\nbob {BOB}\n")),
        ("alice", ALICE.to_string()),
        ("bob", BOB.to_string()),
    ] {
        fs::write(folder.join(name), text).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

pub struct Child {
    process: std::process::Child,
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Child {
    /// A server of this folder; `shell` is run before it, and sets limits of the process. The error
    /// is what it says.
    pub fn start(folder: &Path, limits: &str, shell: &str) -> Result<Child, String> {
        let mut process = Command::new("sh")
            .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
            .arg(std::env::current_exe().unwrap())
            .args([
                "child::the_server",
                "--exact",
                "--ignored",
                "--nocapture",
                "--test-threads",
                "1",
            ])
            .env(FOLDER, folder)
            .env(LIMITS, limits)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (written, lines) =
            (Arc::clone(&log), BufReader::new(process.stderr.take().unwrap()).lines());
        // Ends with the process.
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| written.lock().unwrap().push(line))
        });
        let mut said = String::new();
        for line in BufReader::new(process.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((_, address)) = line.split_once("ADDRESS ") {
                return Ok(Child { process, address: address.parse().unwrap(), log });
            }
            said += &line;
        }
        process.wait().unwrap();
        Err(said + &log.lock().unwrap().join("\n"))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes of memory that it has.
    pub fn memory(&self) -> usize {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.process.id())).unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    /// How many lines of its log have this text.
    pub fn logged(&self, text: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }

    pub fn tell(&mut self, what: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{what}").unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn limits(text: &str) -> Limits {
    let mut limits = party::limits();
    for (name, value) in text.split_whitespace().map(|pair| pair.split_once('=').unwrap()) {
        let value: usize = value.parse().unwrap();
        match name {
            "held" => limits.max_held_bytes = value,
            "idle" => limits.idle = Duration::from_millis(value as u64),
            "handshake" => limits.handshake = Duration::from_millis(value as u64),
            "connections" => limits.max_connections = value,
            "unknown" => limits.max_unknown_connections = value,
            "sessions" => limits.max_sessions = value,
            other => panic!("{other}"),
        }
    }
    limits
}

#[test]
#[ignore = "other tests start it as a process of its own"]
fn the_server() {
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let tokens = folder.join("tokens");
    let options = ServerOptions {
        limits: limits(&std::env::var(LIMITS).unwrap()),
        tokens: tokens.exists().then(|| Tokens::read(&tokens).unwrap()),
        ..Server::options(&folder)
    };
    let listening =
        server::start(load(&folder), srs().clone(), KeyStore::default(), &options).unwrap();
    println!("\nADDRESS {}", listening.address);
    std::thread::spawn(move || {
        let mut files = Vec::new();
        for line in std::io::stdin().lines() {
            match line.unwrap().as_str() {
                // Something else in this process takes all descriptors.
                "take files" => {
                    files.extend(std::iter::from_fn(|| fs::File::open("/dev/null").ok()))
                }
                "give files back" => files.clear(),
                other => panic!("{other}"),
            }
        }
        // The process that started it is gone.
        std::process::exit(0);
    });
    listening.run_until(std::future::pending()).unwrap();
}
