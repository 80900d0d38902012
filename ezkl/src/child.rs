//! Runs one Python process that answers calls, within limits of time and memory. The process leads
//! its own process group, and only that group is ever killed. On Linux it also ends when the thread
//! that started it ends.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use zklora_files::text::printable;

use super::{EzklError, Python, VERSION};
use crate::Error;

const DRIVER: &str = include_str!("driver.py");

/// Longest answer that is read, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// How many bytes of stderr are kept, and how many are shown.
const KEPT: usize = 64 << 10;
const SHOWN: usize = 3000;

/// How often the limits are checked.
const STEP: Duration = Duration::from_millis(25);

/// Most time for the interpreter to start.
const START: Duration = Duration::from_secs(120);

/// The time and memory of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Cost {
    /// Wall time, in seconds.
    pub seconds: f64,
    /// Processor time of all threads, in seconds.
    pub cpu_seconds: f64,
    /// Largest memory of the process so far, in bytes.
    pub peak_bytes: u64,
}

/// The process.
pub struct Ezkl<'a> {
    python: &'a Python,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Arc<Mutex<Vec<u8>>>,
    calls: u64,
    until: Option<Instant>,
}

impl<'a> Ezkl<'a> {
    /// Starts the interpreter in `folder` and checks the version of the package.
    ///
    /// # Errors
    /// [`EzklError::Interpreter`], or [`EzklError::Package`] with the command that installs the
    /// package.
    pub fn start(python: &'a Python, folder: &Path) -> Result<Ezkl<'a>, Error> {
        let interpreter = &python.interpreter;
        // A relative path refers to the user's current folder, not to `folder`.
        let program = match interpreter.components().count() {
            0 | 1 => interpreter.clone(),
            _ => std::path::absolute(interpreter).map_err(|e| Error::file(interpreter, e))?,
        };
        let mut command = Command::new(&program);
        let [parent, memory] = [std::process::id().to_string(), python.memory.to_string()];
        command.args(["-u", "-c", DRIVER, &parent, VERSION, &memory]).current_dir(folder);
        command.env("RUST_BACKTRACE", "0").env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let named = || interpreter.display().to_string();
        let mut child = command
            .spawn()
            .map_err(|e| EzklError::Interpreter { python: named(), why: e.to_string() })?;
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let (sender, lines) = mpsc::channel();
        if let Some(pipe) = child.stderr.take() {
            let kept = stderr.clone();
            std::thread::spawn(move || keep(pipe, &kept));
        }
        if let Some(pipe) = child.stdout.take() {
            std::thread::spawn(move || forward(pipe, &sender));
        }
        let input = child.stdin.take();
        let mut ezkl = Ezkl { python, child, input, lines, stderr, calls: 0, until: None };
        let first = ezkl.line("start", "the interpreter", START).map_err(|e| match e {
            EzklError::Died { how, stderr, .. } => {
                EzklError::Interpreter { python: named(), why: format!("it ended: {how}{stderr}") }
            }
            e => e,
        })?;
        let found = |text: &Value| text.as_str().map(printable);
        match (found(&first["ezkl"]), found(&first["why"])) {
            (Some(version), _) if version == VERSION => Ok(ezkl),
            (Some(version), _) => Err(EzklError::Package {
                found: format!("`{}` has ezkl {version}", named()),
                python: named(),
            }
            .into()),
            (None, why) => {
                let why = why.unwrap_or_default();
                Err(EzklError::Package {
                    found: format!("`{}` has no usable ezkl ({why})", named()),
                    python: named(),
                }
                .into())
            }
        }
    }

    /// From now on, all calls together get the time limit of one.
    pub fn limit_all(&mut self) {
        self.until = Some(Instant::now() + self.python.timeout);
    }

    /// Calls a function of the package. `what` names its subject for error messages.
    pub fn call(&mut self, call: &'static str, what: &str, args: Value) -> Result<Cost, EzklError> {
        self.calls += 1;
        let request = json!({ "id": self.calls, "call": call, "args": args });
        let sent = self
            .input
            .as_mut()
            .map(|input| writeln!(input, "{request}").and_then(|()| input.flush()));
        if !matches!(sent, Some(Ok(()))) {
            return Err(self.died(call, what));
        }
        let deadline = self.until.unwrap_or_else(|| Instant::now() + self.python.timeout);
        loop {
            let answer =
                self.line(call, what, deadline.saturating_duration_since(Instant::now()))?;
            if answer["id"].as_u64() != Some(self.calls) || answer.get("progress").is_some() {
                continue;
            }
            let failed = |why: String, stderr| EzklError::Failed {
                call,
                what: what.to_string(),
                why,
                stderr,
            };
            if let Some(why) = answer["error"].as_str() {
                if why.starts_with("MemoryError") {
                    return Err(self.too_large(call, what));
                }
                return Err(failed(printable(why), self.last_words()));
            }
            if answer["ok"] != json!(true) {
                return Err(failed("it did not give back `True`".into(), self.last_words()));
            }
            let number = |name: &str| answer[name].as_f64().unwrap_or(0.0);
            return Ok(Cost {
                seconds: number("seconds"),
                cpu_seconds: number("cpu_seconds"),
                peak_bytes: answer["peak_bytes"].as_u64().unwrap_or(0),
            });
        }
    }

    /// Reads the next line of the process, within the limits.
    fn line(
        &mut self,
        call: &'static str,
        what: &str,
        within: Duration,
    ) -> Result<Value, EzklError> {
        let deadline = Instant::now() + within;
        loop {
            match self.lines.recv_timeout(STEP) {
                Ok(line) => {
                    return serde_json::from_str(&line).map_err(|e| {
                        EzklError::answer(
                            "the EZKL process",
                            format!("an answer that is not JSON ({e})"),
                        )
                    });
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.died(call, what)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.python.cancel.is_cancelled() {
                self.kill();
                return Err(EzklError::Cancelled);
            }
            if Instant::now() >= deadline {
                self.kill();
                return Err(EzklError::Timeout {
                    call,
                    what: what.to_string(),
                    limit: self.python.timeout,
                });
            }
            if resident(self.child.id()).is_some_and(|mib| mib > self.python.memory) {
                self.kill();
                return Err(self.too_large(call, what));
            }
        }
    }

    fn too_large(&self, call: &'static str, what: &str) -> EzklError {
        EzklError::Memory { call, what: what.to_string(), limit: self.python.memory }
    }

    fn died(&mut self, call: &'static str, what: &str) -> EzklError {
        // Its output has ended, but the process may still be ending.
        let deadline = Instant::now() + Duration::from_secs(5);
        let status = loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(STEP),
                Ok(status) => break status,
                Err(_) => break None,
            }
        };
        let stderr = self.last_words();
        // A Rust program that gets no memory ends with this message.
        if stderr.contains("memory allocation of ") {
            return self.too_large(call, what);
        }
        EzklError::Died {
            call,
            what: what.to_string(),
            how: status.map_or("no status".into(), how),
            stderr,
        }
    }

    /// The end of stderr, in one printable line.
    fn last_words(&self) -> String {
        let Ok(kept) = self.stderr.lock() else { return String::new() };
        let text = String::from_utf8_lossy(&kept[kept.len().saturating_sub(SHOWN)..]).into_owned();
        let lines: Vec<String> =
            text.lines().map(printable).filter(|line| !line.trim().is_empty()).collect();
        // An error is one line.
        if lines.is_empty() {
            String::new()
        } else {
            format!("; EZKL wrote: {}", lines.join(" | "))
        }
    }

    /// Kills the process and its descendants, and nothing else.
    fn kill(&mut self) {
        // The process leads the group, and the system does not reuse its number before the process
        // was waited for.
        #[cfg(unix)]
        if let Ok(None) = self.child.try_wait() {
            let group = format!("-{}", self.child.id());
            let kill = Command::new("kill")
                .args(["-KILL", "--", &group])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            let _ = kill;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Ezkl<'_> {
    fn drop(&mut self) {
        // The process would end without input, but there is nothing to wait for.
        self.input = None;
        self.kill();
    }
}

fn how(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return match signal {
            9 => "killed by signal 9 (by a user, or by the system because memory ran out)".into(),
            signal => format!("killed by signal {signal}"),
        };
    }
    status.code().map_or("no exit code".into(), |code| format!("exit code {code}"))
}

/// Resident memory of a process, in MiB (Linux).
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib / 1024)
}

fn keep(mut pipe: impl Read, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0u8; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut buffer) {
        let Ok(mut kept) = kept.lock() else { return };
        kept.extend_from_slice(&buffer[..count]);
        let over = kept.len().saturating_sub(KEPT);
        kept.drain(..over);
    }
}

fn forward(pipe: impl Read, lines: &mpsc::Sender<String>) {
    let mut pipe = BufReader::new(pipe);
    loop {
        let mut line = Vec::new();
        match (&mut pipe).take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(1..) if line.ends_with(b"\n") => {}
            _ => return,
        }
        if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
    }
}
