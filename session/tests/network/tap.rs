//! A cable that can be cut: it passes bytes on, remembers those of the client, and breaks or falls
//! silent when it is told to.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
};

/// No cut is planned.
const NEVER: i64 = i64::MAX;

#[derive(Default)]
struct State {
    /// Bytes, both ways together, until the connection that carries the last of them breaks.
    left: AtomicI64,
    /// It does not break: it falls silent.
    is_silent_cut: AtomicBool,
    /// Connections up to this one stay open and carry nothing any more.
    silent: AtomicUsize,
    /// Everything that clients sent.
    sent: Mutex<Vec<u8>>,
    connections: AtomicUsize,
    /// Connections that the server ended.
    ended_by_server: AtomicUsize,
}

pub struct Tap {
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Tap {
    pub fn start(upstream: SocketAddr) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { left: AtomicI64::new(NEVER), ..State::default() });
        let shared = Arc::clone(&state);
        // Ends with the tests' process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(upstream) else { continue };
                let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                let ends = [(&client, &server, true), (&server, &client, false)];
                for (from, to, is_client) in ends {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let _ = from.set_nodelay(true);
                    let state = Arc::clone(&shared);
                    std::thread::spawn(move || pump(from, to, is_client, number, &state));
                }
            }
        });
        Tap { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks the connection after this many bytes from now on; the ones after it are whole again.
    pub fn cut_after(&self, bytes: usize) {
        self.state.left.store(bytes as i64, Ordering::SeqCst);
    }

    /// From now on the connections that there are swallow everything, as if a machine on the way
    /// had lost its memory of them.
    pub fn silence(&self) {
        self.state.silent.store(self.connections(), Ordering::SeqCst);
    }

    /// So do all later ones.
    pub fn silence_for_ever(&self) {
        self.state.silent.store(usize::MAX, Ordering::SeqCst);
    }

    /// The connection that carries this byte, counted from now on, is silent from then on; the ones
    /// after it are whole again.
    pub fn silence_after(&self, bytes: usize) {
        self.state.is_silent_cut.store(true, Ordering::SeqCst);
        self.cut_after(bytes);
    }

    /// Bytes until the planned cut.
    pub fn left(&self) -> usize {
        self.state.left.load(Ordering::SeqCst) as usize
    }

    pub fn sent(&self) -> Vec<u8> {
        self.state.sent.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub fn ended_by_server(&self) -> usize {
        self.state.ended_by_server.load(Ordering::SeqCst)
    }

    pub fn was_cut(&self) -> bool {
        self.state.left.load(Ordering::SeqCst) == NEVER
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, is_client: bool, number: usize, state: &State) {
    let mut buffer = [0u8; 16 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        if number <= state.silent.load(Ordering::SeqCst) {
            match read {
                // A side that hangs up is not read from either.
                0 => return,
                _ => continue,
            }
        }
        if read == 0 {
            if !is_client {
                state.ended_by_server.fetch_add(1, Ordering::SeqCst);
            }
            break;
        }
        if is_client {
            state.sent.lock().unwrap().extend(&buffer[..read]);
        }
        // One atomic step, because both directions of a connection count at the same time.
        let after = |left: i64| match left {
            NEVER => NEVER,
            _ if left < read as i64 => NEVER,
            _ => left - read as i64,
        };
        let count = |left| Some(after(left));
        let left = state.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count).unwrap();
        let passes = read.min(usize::try_from(left).unwrap_or(usize::MAX));
        if to.write_all(&buffer[..passes]).is_err() {
            break;
        }
        if passes < read {
            if state.is_silent_cut.load(Ordering::SeqCst) {
                state.silent.fetch_max(number, Ordering::SeqCst);
                continue;
            }
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
