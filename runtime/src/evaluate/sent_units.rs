//! The buyer's memory: which units were sent, when, and to which offer, and which samples of them
//! were asked for. A contributor who saw a unit can train on it and come back with another adapter,
//! under another key. One that proves no sample which it does not like chooses the sample.
//!
//! One JSON object a line. A unit is kept as the first half of its leaf digest.

use std::{
    collections::HashSet,
    fs::OpenOptions,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use zklora_evaluation::{digest::Digest, merkle, offer::SignedOffer, request::FullRequest};

use crate::Error;

const MAX_BYTES: u64 = 1 << 30;
const VERSION: u32 = 1;
/// Of lines about samples.
const SAMPLES: u32 = 2;

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Fate {
    /// It was asked for.
    Asked,
    /// Its proof holds.
    Proven,
}

/// One line: an offer that was seen, units that were sent to it, or a sample of units that were
/// sent before.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    adapter_id: Digest,
    key: Digest,
    /// The request whose units are sent; none if the offer was only seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<Digest>,
    /// What became of the request's sample, from version 2 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sample: Option<Fate>,
    /// Seconds since 1970.
    time: u64,
    /// Digests of units, one after the other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    units: String,
    v: u32,
}

/// Units that were sent before, in another request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// The adapter that they were sent for.
    pub adapter_id: Digest,
    /// The key of its contributor.
    pub key: Digest,
    /// When, in seconds since 1970.
    pub time: u64,
    /// How many of this request's units.
    pub units: u64,
    /// Whether the adapter of this request was first seen after that: it may have been trained on
    /// these units.
    pub before_adapter: bool,
}

/// Samples of some of these units that were asked for before, in other requests, of this adapter or
/// this key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierSamples {
    /// All of them.
    pub asked: u64,
    /// Those without a proof that holds. A contributor that refuses until a sample flatters has
    /// some.
    pub unproven: u64,
}

/// The file.
#[derive(Debug, Clone)]
pub struct SentUnits {
    path: PathBuf,
}

fn leaves(full: &FullRequest) -> Result<Vec<[u8; 16]>, Error> {
    let mut bytes = Vec::new();
    let leaf = |unit| {
        bytes.clear();
        zklora_evaluation::unit_bytes::encode(unit, &mut bytes)?;
        let mut half = [0; 16];
        half.copy_from_slice(&merkle::leaf(&bytes).0[..16]);
        Ok(half)
    };
    full.units.iter().map(leaf).collect()
}

/// Without a line that a crash cut: its units were not sent.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)]
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl SentUnits {
    /// The file at a path, which may not exist yet.
    pub fn new(path: &Path) -> SentUnits {
        SentUnits { path: path.to_path_buf() }
    }

    fn lines(&self) -> Result<Vec<Line>, Error> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let bytes = zklora_files::read(&self.path, MAX_BYTES)?;
        let lines = whole_lines(&bytes).split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        let parse = |line| {
            let line: Line = serde_json::from_slice(line).map_err(|error| {
                Error::file(&self.path, format!("a line is not of this program: {error}"))
            })?;
            match line.v {
                VERSION | SAMPLES => Ok(line),
                v => Err(Error::file(&self.path, format!("version {v}: use a newer zklora"))),
            }
        };
        lines.map(parse).collect()
    }

    /// Appends a line after the last whole one, under a lock.
    fn append(&self, line: &Line) -> Result<(), Error> {
        let failed = |error: std::io::Error| Error::file(&self.path, error);
        let folder = zklora_files::folder_of(&self.path);
        zklora_files::create_folder(folder, zklora_files::Access::Private)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let mut file = options.open(&self.path).map_err(failed)?;
        file.lock().map_err(failed)?;
        let known = zklora_files::read(&self.path, MAX_BYTES)?;
        let mut bytes = serde_json::to_vec(line).map_err(|e| Error::input(e.to_string()))?;
        bytes.push(b'\n');
        let end = whole_lines(&known).len() as u64;
        file.set_len(end)
            .and_then(|()| file.seek(SeekFrom::Start(end)))
            .and_then(|_| file.write_all(&bytes))
            .and_then(|()| file.sync_all())
            .map_err(failed)
    }

    fn line(offer: &SignedOffer, full: Option<&FullRequest>) -> Result<Line, Error> {
        let units = full.map(leaves).transpose()?.unwrap_or_default();
        Ok(Line {
            adapter_id: offer.offer.adapter_id,
            key: offer.offer.key,
            request: full.map(|full| full.digest),
            sample: None,
            time: now(),
            units: hex::encode(units.concat()),
            v: VERSION,
        })
    }

    /// An offer was seen. The first time counts.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn saw(&self, offer: &SignedOffer) -> Result<(), Error> {
        let adapter = offer.offer.adapter_id;
        match self.lines()?.iter().any(|line| line.adapter_id == adapter) {
            true => Ok(()),
            false => self.append(&SentUnits::line(offer, None)?),
        }
    }

    /// Units are about to be sent.
    ///
    /// # Errors
    /// The file cannot be written: nothing may be sent.
    pub fn sending(&self, offer: &SignedOffer, full: &FullRequest) -> Result<(), Error> {
        match self.lines()?.iter().any(|line| line.request == Some(full.digest)) {
            true => Ok(()),
            false => self.append(&SentUnits::line(offer, Some(full))?),
        }
    }

    /// A sample is about to be asked for.
    ///
    /// # Errors
    /// The file cannot be written: nothing may be asked.
    pub fn asking(&self, offer: &SignedOffer, full: &FullRequest) -> Result<(), Error> {
        self.sample(offer, full, Fate::Asked)
    }

    /// The proof of a sample holds.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn proven(&self, offer: &SignedOffer, full: &FullRequest) -> Result<(), Error> {
        self.sample(offer, full, Fate::Proven)
    }

    fn sample(&self, offer: &SignedOffer, full: &FullRequest, fate: Fate) -> Result<(), Error> {
        let is_it = |line: &Line| line.request == Some(full.digest) && line.sample == Some(fate);
        if self.lines()?.iter().any(is_it) {
            return Ok(());
        }
        // The units of the request are in a line of their own, unless they were sent with another
        // memory.
        self.sending(offer, full)?;
        let line = SentUnits::line(offer, None)?;
        self.append(&Line { request: Some(full.digest), sample: Some(fate), v: SAMPLES, ..line })
    }

    /// Samples that were asked for before, in other requests that had some of these units.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn earlier_samples(
        &self,
        offer: &SignedOffer,
        full: &FullRequest,
    ) -> Result<EarlierSamples, Error> {
        let own: HashSet<[u8; 16]> = leaves(full)?.into_iter().collect();
        let lines = self.lines()?;
        let is_same =
            |line: &&Line| line.adapter_id == offer.offer.adapter_id || line.key == offer.offer.key;
        let shares = |line: &&Line| {
            let units = hex::decode(&line.units).unwrap_or_default();
            units.as_chunks::<16>().0.iter().any(|unit| own.contains(unit))
        };
        let others = lines.iter().filter(is_same).filter(shares);
        let requests: HashSet<Digest> =
            others.filter_map(|line| line.request).filter(|of| *of != full.digest).collect();
        let with = |fate: Fate| -> HashSet<Digest> {
            let lines = lines.iter().filter(|line| line.sample == Some(fate));
            lines.filter_map(|line| line.request).filter(|of| requests.contains(of)).collect()
        };
        let (asked, proven) = (with(Fate::Asked), with(Fate::Proven));
        Ok(EarlierSamples {
            asked: asked.len() as u64,
            unproven: asked.difference(&proven).count() as u64,
        })
    }

    /// Earlier requests that had some of these units.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn earlier(&self, offer: &SignedOffer, full: &FullRequest) -> Result<Vec<Earlier>, Error> {
        let own: HashSet<[u8; 16]> = leaves(full)?.into_iter().collect();
        let lines = self.lines()?;
        let adapter = offer.offer.adapter_id;
        // Lines are in their order; clocks may be set back.
        let first_seen = lines.iter().position(|line| line.adapter_id == adapter);
        let mut found = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            if line.request.is_none() || line.request == Some(full.digest) {
                continue;
            }
            let units = hex::decode(&line.units).unwrap_or_default();
            let shared: HashSet<&[u8; 16]> =
                units.as_chunks::<16>().0.iter().filter(|unit| own.contains(*unit)).collect();
            if !shared.is_empty() {
                found.push(Earlier {
                    adapter_id: line.adapter_id,
                    key: line.key,
                    time: line.time,
                    units: shared.len() as u64,
                    before_adapter: first_seen.is_none_or(|first| at < first),
                });
            }
        }
        Ok(found)
    }
}
