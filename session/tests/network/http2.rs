//! A user that speaks HTTP/2 by hand: it opens windows as small as it likes, and never reads an
//! answer.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const INITIAL_WINDOW_SIZE: u8 = 4;
const LONGEST_FRAME: usize = 16 << 10;

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A message as gRPC frames it.
pub fn message(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat()
}

pub struct Conversation {
    pub stream: TcpStream,
    next: u32,
    /// Streams whose answers have begun.
    pub answered: usize,
}

impl Conversation {
    /// A connection that takes so many bytes of each answer.
    pub fn open(address: SocketAddr, window: u32) -> Conversation {
        let mut stream = TcpStream::connect(address).unwrap();
        let settings = [&[0, INITIAL_WINDOW_SIZE][..], &window.to_be_bytes()].concat();
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat()).unwrap();
        let mut conversation = Conversation { stream, next: 1, answered: 0 };
        // What the server takes holds from the moment that this is confirmed.
        let mut told = (false, false);
        while told != (true, true) {
            match conversation.read().expect("the server hangs up") {
                (SETTINGS, 0) => told.0 = true,
                (WINDOW_UPDATE, _) => told.1 = true,
                _ => {}
            }
        }
        conversation.stream.write_all(&frame(SETTINGS, ACK, 0, &[])).unwrap();
        conversation
    }

    /// Kind and flags of the next frame; none if the connection has ended, or nothing comes.
    fn read(&mut self) -> Option<(u8, u8)> {
        let mut head = [0u8; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        std::io::copy(&mut (&self.stream).take(u64::from(length)), &mut std::io::sink()).ok()?;
        Some((head[3], head[4]))
    }

    /// Begins a request; the answer is never read.
    pub fn ask(&mut self, path: &str, token: Option<&str>, messages: &[Vec<u8>], ends: bool) {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        let fields =
            fields.into_iter().chain(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        // Literals that are not remembered; lengths below 127 are one byte.
        let literal = |(name, value): (&str, &str)| {
            [&[0, name.len() as u8][..], name.as_bytes(), &[value.len() as u8], value.as_bytes()]
                .concat()
        };
        let headers: Vec<u8> = fields.flat_map(literal).collect();
        let mut bytes = frame(HEADERS, END_HEADERS, self.next, &headers);
        let data = messages.concat();
        for chunk in data.chunks(LONGEST_FRAME) {
            bytes.extend(frame(DATA, 0, self.next, chunk));
        }
        if ends {
            bytes.extend(frame(DATA, END_STREAM, self.next, &[]));
        }
        self.stream.write_all(&bytes).unwrap();
        self.next += 2;
    }

    /// Reads until so many answers have begun, or for so long.
    pub fn wait_for_answers(&mut self, answers: usize, time: Duration) {
        let until = Instant::now() + time;
        self.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        while self.answered < answers && Instant::now() < until {
            if let Some((HEADERS, _)) = self.read() {
                self.answered += 1;
            }
        }
    }

    /// Whether the server ends the connection within this time.
    pub fn is_closed_within(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        self.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut buffer = [0u8; 4096];
        while Instant::now() < until {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e)
                    if matches!(
                        e.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(_) => return true,
            }
        }
        false
    }
}
