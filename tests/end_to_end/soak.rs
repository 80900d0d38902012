//! Long runs with transient failures: kills, many sessions, a session larger than the memory, a
//! full disk. Nothing may be lost, and every row that was sent must be counted exactly once.
//!
//! Each test takes some minutes, so they run only by name:
//!
//! ```text
//! cargo test --release --workspace --test end_to_end -- --ignored --nocapture soak
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use zklora_artifacts::{module_rows::ModuleRows, srs_file};
use zklora_proof::{keys::KeyStore, manifest::Module, verifier::SrsPolicy};
use zklora_session::{
    Error,
    client::{ClientTls, ContributorOptions, Finished, Network, Remote, UserSession},
    ledger,
};

use crate::{
    inference::{Server, copy_of, end, first, infer, verify_again},
    zklora::zklora_command,
};

/// Pseudo-random numbers from a fixed seed.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(seed: u64) -> Dice {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        Dice(hasher.finalize_xof())
    }

    fn roll(&mut self, sides: u64) -> u64 {
        let mut bytes = [0u8; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % sides
    }
}

/// Rows of each module.
type Rows = BTreeMap<String, u64>;

fn add(all: &mut Rows, more: impl IntoIterator<Item = (String, u64)>) {
    more.into_iter().for_each(|(module, rows)| *all.entry(module).or_default() += rows);
}

/// The ledger's rows of a folder whose sessions have all ended.
fn counted(artifacts: &Path) -> Rows {
    let book = ledger::index(&artifacts.join("private/served.jsonl")).unwrap();
    assert_eq!(book.open_logs().count(), 0, "sessions are open");
    let mut all = Rows::new();
    book.rows().values().for_each(|rows| add(&mut all, rows.clone()));
    all
}

/// A field of `/proc/PID/status`, in MiB.
fn memory(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0)
        / 1024
}

fn options(url: &str) -> ContributorOptions {
    ContributorOptions {
        url: url.to_string(),
        pin: None,
        token_file: None,
        tls: ClientTls::default(),
        insecure: false,
        call_timeout: Duration::from_secs(20),
        patience: Duration::from_secs(30),
        proof_timeout: Duration::from_secs(600),
        moved: false,
    }
}

/// `count` rows for every module, different for every `number`.
fn rows_of(modules: &[Module], count: usize, number: u64) -> Vec<(usize, Arc<ModuleRows>)> {
    let each = modules.iter().enumerate().map(|(m, module)| {
        let inputs: Vec<Vec<f32>> = module
            .inputs
            .iter()
            .map(|input| {
                let mut bytes = vec![0u8; count * input.dim * 2];
                let mut hasher = blake3::Hasher::new();
                hasher.update(&number.to_le_bytes()).update(&(m as u64).to_le_bytes());
                hasher.finalize_xof().fill(&mut bytes);
                bytes
                    .chunks_exact(2)
                    .map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 4096.0)
                    .collect()
            })
            .collect();
        let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        (m, Arc::new(zklora_artifacts::module_quantizer::quantized(module, &inputs).unwrap()))
    });
    each.collect()
}

fn finish(session: &mut UserSession) -> Result<Finished, Error> {
    session.finish(
        &srs_file::load(None)?,
        &KeyStore::default(),
        SrsPolicy::TrustedOnly,
        &mut |_| {},
    )
}

fn of_verdict(finished: &Finished) -> Vec<(String, u64)> {
    finished.verdict.rows.iter().map(|(name, rows)| (name.clone(), *rows as u64)).collect()
}

#[test]
#[ignore = "some minutes; by name"]
fn soak_100_kills_of_server_and_users_lose_and_double_nothing() {
    const KILLS: usize = 100;
    const USERS: usize = 2;
    let contributor = first();
    let mut server = Server::start(&contributor, "127.0.0.1:0", &[]);
    let (pinned, id, address) = (server.pinned(), server.id.clone(), server.address().to_string());
    let home = tempfile::tempdir().unwrap();
    let mut dice = Dice::new(1);
    let start = Instant::now();
    let mut next = 0;
    let mut begin = || {
        next += 1;
        let text: String =
            (0..24).map(|line| format!("let v{next}_{line} = {};\n", next * 31 + line)).collect();
        (home.path().join(next.to_string()), text)
    };
    let run =
        |out: &Path, text: &str| infer(&[&pinned], out, &["--text", text, "--patience", "60"]);
    let mut users: Vec<(PathBuf, String, Child)> = (0..USERS)
        .map(|_| {
            let (out, text) = begin();
            let child = run(&out, &text);
            (out, text, child)
        })
        .collect();
    let (mut finished, mut kills, mut of_server): (Vec<PathBuf>, usize, usize) = (Vec::new(), 0, 0);
    let is_finished = |out: &Path| out.join("contributor-1/session.pf").exists();
    while kills < KILLS {
        thread::sleep(Duration::from_millis(50 + dice.roll(1500)));
        for (out, text, child) in &mut users {
            let Some(status) = child.try_wait().unwrap() else { continue };
            // Killed, or done. A user that could not reach the server in time starts again.
            if is_finished(out) {
                finished.push(out.clone());
                (*out, *text) = begin();
            } else {
                assert!(!status.success(), "it says that it is done and has no proof");
            }
            *child = run(out, text);
        }
        kills += 1;
        if dice.roll(2) == 0 {
            of_server += 1;
            server.kill();
            server = Server::start(&contributor, &address, &[]);
        } else {
            let user = dice.roll(USERS as u64) as usize;
            users[user].2.kill().unwrap();
            users[user].2.wait().unwrap();
        }
    }
    for (out, text, mut child) in users {
        let _ = child.wait();
        if !is_finished(&out) {
            end(run(&out, &text)).ok();
        }
        finished.push(out);
    }
    let mut proven = Rows::new();
    for out in &finished {
        let verdict = verify_again(&out.join("contributor-1"), &id);
        let rows = verdict["rows"].as_object().unwrap();
        add(&mut proven, rows.iter().map(|(name, rows)| (name.clone(), rows.as_u64().unwrap())));
    }
    server.kill();
    assert_eq!(counted(contributor.path()), proven);
    println!(
        "{kills} kills ({of_server} of the server), {} sessions, {} rows, each proven and counted \
         once, {:.0} s",
        finished.len(),
        proven.values().sum::<u64>(),
        start.elapsed().as_secs_f64()
    );
}

#[test]
#[ignore = "some minutes; by name"]
fn soak_1000_short_sessions_leave_no_more_than_their_count() {
    const SESSIONS: u64 = 1000;
    let contributor = first();
    let server = Server::start(&contributor, "127.0.0.1:0", &[]);
    let (home, network) = (tempfile::tempdir().unwrap(), Arc::new(Network::start().unwrap()));
    let (next, proven) = (AtomicUsize::new(0), std::sync::Mutex::new(Rows::new()));
    let start = Instant::now();
    let early = std::sync::Mutex::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed) as u64;
                    if number >= SESSIONS {
                        return;
                    }
                    if number == SESSIONS / 10 {
                        *early.lock().unwrap() = memory(server.pid(), "VmRSS");
                    }
                    let folder = home.path().join(number.to_string());
                    let remote = Remote::connect(options(&server.url), &network).unwrap();
                    let mut session = UserSession::open(remote, &folder).unwrap();
                    let calls = rows_of(session.remote().manifest.modules(), 1, number);
                    session.deltas(&calls).unwrap();
                    let finished = finish(&mut session).unwrap();
                    add(&mut proven.lock().unwrap(), of_verdict(&finished));
                    drop(session);
                    fs::remove_dir_all(&folder).unwrap();
                }
            });
        }
    });
    let (early, late) = (*early.lock().unwrap(), memory(server.pid(), "VmRSS"));
    let took = start.elapsed().as_secs_f64();
    let address = server.kill();
    assert_eq!(counted(contributor.path()), *proven.lock().unwrap());
    let restart = Instant::now();
    let server = Server::start(&contributor, &address, &[]);
    let restart = restart.elapsed().as_secs_f64();
    assert_eq!(server.said["sessions"]["proven"], SESSIONS);
    println!(
        "{SESSIONS} sessions in {took:.0} s; the server's memory after a tenth {early} MiB, at the \
         end {late} MiB; restarted in {restart:.2} s; every row counted once"
    );
    assert!(late < early + 64 && restart < 2.0, "it grows");
}

/// Memory limit of either party, in MiB.
const LIMIT: u64 = 512;

/// A command whose address space is limited. Threads and the allocator reserve addresses that they
/// never use, so its limit is larger than [`LIMIT`].
fn limited(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("ulimit -v {}; exec \"$0\" \"$@\"", 4 * LIMIT * 1024))
        .arg(command.get_program());
    shell.args(command.get_args());
    for (name, value) in command.get_envs() {
        value.map(|value| shell.env(name, value));
    }
    shell
}

const MILLION: &str = "ZKLORA_SOAK_MILLION_ROWS";

#[test]
#[ignore = "some minutes; by name"]
fn soak_a_million_rows_in_one_session_within_512_mb() {
    let contributor = first();
    let mut command = zklora_command();
    command
        .args(["--json", "serve", "--listen", "127.0.0.1:0", "--artifacts"])
        .arg(contributor.path());
    command.args(["--max-session-rows", "2000000", "--max-rows", "unlimited"]);
    let server = Server::of(limited(&command));
    let user = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "--nocapture", "soak::the_user_of_a_million_rows"]);
    child.env(MILLION, format!("{} {}", server.url, user.path().display()));
    let start = Instant::now();
    let out = limited(&child).stderr(Stdio::inherit()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    print!(
        "{}",
        said.lines().filter(|line| line.starts_with("user: ")).collect::<Vec<_>>().join("\n")
    );
    let peak = memory(server.pid(), "VmHWM");
    println!("\nserver: peak memory {peak} MiB, {:.0} s in all", start.elapsed().as_secs_f64());
    assert!(peak < LIMIT, "the server");
    server.kill();
    let rows = counted(contributor.path());
    assert_eq!(rows.values().sum::<u64>(), 1_000_000);
}

#[test]
#[ignore = "started by `soak_a_million_rows_in_one_session_within_512_mb` in its own process"]
fn the_user_of_a_million_rows() {
    let Ok(said) = std::env::var(MILLION) else { return };
    let (url, folder) = said.split_once(' ').unwrap();
    let remote = Remote::connect(options(url), &Arc::new(Network::start().unwrap())).unwrap();
    let mut session = UserSession::open(remote, Path::new(folder)).unwrap();
    let modules = session.remote().manifest.modules().to_vec();
    for number in 0..1_000_000 / (modules.len() as u64 * 500) {
        session.deltas(&rows_of(&modules, 500, number)).unwrap();
    }
    let served = memory(std::process::id(), "VmHWM");
    let finished = finish(&mut session).unwrap();
    assert_eq!(of_verdict(&finished).iter().map(|(_, rows)| rows).sum::<u64>(), 1_000_000);
    let peak = memory(std::process::id(), "VmHWM");
    println!(
        "user: peak memory {served} MiB before the end, {peak} MiB after it; the proof took \
         {:.1} s, its verification {:.1} s",
        finished.proof_time.as_secs_f64(),
        finished.verify_time.as_secs_f64()
    );
    assert!(peak < LIMIT, "the user");
}

/// A small file system in memory, unmounted on drop.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` if this process may not mount file systems.
    fn mount(megabytes: u32) -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(folder.path());
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then_some(SmallDisk(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
#[ignore = "some minutes, needs to mount a file system; by name"]
fn soak_50_sessions_on_a_disk_that_fills_up_and_is_emptied_lose_nothing() {
    const SESSIONS: u64 = 50;
    let Some(disk) = SmallDisk::mount(64) else {
        println!("NOT RUN: no file system can be mounted here (run it as root)");
        return;
    };
    let contributor = copy_of(&first(), &disk.0.path().join("artifacts"));
    let server = Server::start(&contributor, "127.0.0.1:0", &[]);
    let network = Arc::new(Network::start().unwrap());
    let (done, next, failures) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (proven, fills) = (std::sync::Mutex::new(Rows::new()), AtomicUsize::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            // Fills the disk for a while, then empties it for a while.
            let path = disk.0.path().join("filler");
            let mut dice = Dice::new(2);
            let end = Instant::now() + Duration::from_secs(600);
            while !done.load(Ordering::Relaxed) && Instant::now() < end {
                let mut filler = fs::File::create(&path).unwrap();
                while std::io::Write::write_all(&mut filler, &[1u8; 4096]).is_ok() {}
                fills.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(100 + dice.roll(1200)));
                drop(filler);
                fs::remove_file(&path).unwrap();
                thread::sleep(Duration::from_millis(300 + dice.roll(1500)));
            }
        });
        let users: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed) as u64;
                        if number >= SESSIONS {
                            return;
                        }
                        let folder = disk.0.path().join(format!("user-{number}"));
                        // Like a user who runs the same command again.
                        let start = Instant::now();
                        let finished = loop {
                            match one_session(&server.url, &network, &folder, number) {
                                Ok(finished) => break finished,
                                Err(error) => {
                                    let said = error.to_string();
                                    assert!(!error.is_refusal(), "{said}");
                                    assert!(
                                        start.elapsed() < Duration::from_secs(180),
                                        "session {number}: {said}"
                                    );
                                    failures.fetch_add(1, Ordering::Relaxed);
                                    thread::sleep(Duration::from_millis(200));
                                }
                            }
                        };
                        add(&mut proven.lock().unwrap(), finished);
                        fs::remove_dir_all(&folder).unwrap();
                    }
                })
            })
            .collect();
        users.into_iter().for_each(|user| user.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    let address = server.kill();
    drop(Server::start(&contributor, &address, &[]));
    let proven = proven.into_inner().unwrap();
    assert_eq!(counted(contributor.path()), proven);
    println!(
        "{SESSIONS} sessions, {} rows, on a disk that was full {} times: each proven and counted \
         once; users began again {} times, {:.0} s",
        proven.values().sum::<u64>(),
        fills.into_inner(),
        failures.into_inner(),
        start.elapsed().as_secs_f64()
    );
}

/// Runs a whole session, or the rest of one; returns its rows, from the verdict.
fn one_session(
    url: &str,
    network: &Arc<Network>,
    folder: &Path,
    number: u64,
) -> Result<Vec<(String, u64)>, Error> {
    let remote = Remote::connect(options(url), network)?;
    let mut session = UserSession::open(remote, folder)?;
    let modules = session.remote().manifest.modules().to_vec();
    for batch in 0..8 {
        session.deltas(&rows_of(&modules, 4, number * 8 + batch))?;
        thread::sleep(Duration::from_millis(20));
    }
    finish(&mut session).map(|finished| of_verdict(&finished))
}
