//! The budget of a lineage: the bits that answers told of an adapter and its recompilations.
//!
//! One JSON object a line, appended and flushed before anything is scored. A torn last line (a
//! crash while writing) is cut: nothing was scored for it. A lock on the file orders charges of
//! several processes.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Error, digest::Digest, offer::Bits};

const VERSION: u32 = 1;
/// Of charges for samples.
const SAMPLES: u32 = 2;
const MAX_BYTES: u64 = 1 << 30;

/// One charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charge {
    /// The adapter.
    pub adapter_id: Digest,
    /// The price.
    pub bits: u64,
    /// Who asked.
    pub client: String,
    /// The offer.
    pub offer: Digest,
    /// The request.
    pub request: Digest,
    /// Whether it is for the proof of a sample, from version 2 on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sample: bool,
    /// Units of the request.
    pub units: u64,
    v: u32,
}

impl Charge {
    /// A charge.
    pub fn new(
        adapter_id: Digest,
        offer: Digest,
        request: Digest,
        client: &str,
        bits: u64,
        units: u64,
    ) -> Charge {
        let client = client.to_string();
        Charge { adapter_id, bits, client, offer, request, sample: false, units, v: VERSION }
    }
}

/// What a lineage has spent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spent {
    /// All charges, in their order.
    pub charges: Vec<Charge>,
}

impl Spent {
    /// Bits of all clients.
    pub fn bits(&self) -> u64 {
        self.charges.iter().fold(0, |all: u64, charge| all.saturating_add(charge.bits))
    }

    /// Bits of one client.
    pub fn bits_of(&self, client: &str) -> u64 {
        let own = self.charges.iter().filter(|charge| charge.client == client);
        own.fold(0, |all: u64, charge| all.saturating_add(charge.bits))
    }

    /// Samples that one client has had proven.
    pub fn samples_of(&self, client: &str) -> u64 {
        let own = self.charges.iter().filter(|charge| charge.sample && charge.client == client);
        own.count() as u64
    }

    /// Each client with its bits.
    pub fn clients(&self) -> Vec<(String, u64)> {
        let mut clients = BTreeMap::<&str, u64>::new();
        for charge in &self.charges {
            let bits = clients.entry(&charge.client).or_default();
            *bits = bits.saturating_add(charge.bits);
        }
        clients.into_iter().map(|(client, bits)| (client.to_string(), bits)).collect()
    }

    /// The charge of a request.
    pub fn of_request(&self, request: &Digest) -> Option<&Charge> {
        self.charges.iter().find(|charge| charge.request == *request)
    }

    /// Why a charge exceeds the budget; none if it does not.
    fn refuses(&self, charge: &Charge, budget: &Bits, samples: u64) -> Option<String> {
        if charge.sample && self.samples_of(&charge.client) >= samples {
            return Some(format!(
                "this contributor proves {samples} samples for each client, and yours are used up: \
                 ask it for more"
            ));
        }
        let (all, own) = (self.bits(), self.bits_of(&charge.client));
        let exceeds = |spent: u64, limit: u64| spent.saturating_add(charge.bits) > limit;
        let bits = charge.bits;
        if exceeds(own, budget.bits_per_client) {
            return Some(format!(
                "this request costs {bits} bits, and {own} of your {} are spent: ask for less \
                 metrics or groups, or the contributor for more",
                budget.bits_per_client
            ));
        }
        // How much others have spent is not for this client to know.
        exceeds(all, budget.bits).then(|| {
            format!("this request costs {bits} bits, and fewer are left of the adapter's budget")
        })
    }
}

/// Whether a request was charged now, or earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charged {
    /// Now.
    Now,
    /// Earlier, to the same client: it costs nothing again.
    Before,
}

/// The file of a lineage's charges.
#[derive(Debug, Clone)]
pub struct Spending {
    path: PathBuf,
}

impl Spending {
    /// The file at a path, which may not exist yet.
    pub fn new(path: &Path) -> Spending {
        Spending { path: path.to_path_buf() }
    }

    /// What is spent.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn read(&self) -> Result<Spent, Error> {
        if !self.path.try_exists().map_err(|error| self.error(error))? {
            return Ok(Spent::default());
        }
        let bytes = zklora_files::read(&self.path, MAX_BYTES)?;
        Ok(self.parse(&bytes)?.0)
    }

    fn error(&self, error: std::io::Error) -> Error {
        zklora_files::Error::new(&self.path, error).into()
    }

    /// The charges, and the length of their lines.
    fn parse(&self, bytes: &[u8]) -> Result<(Spent, usize), Error> {
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = bytes[..end].split(|byte| *byte == b'\n').enumerate();
        let mut spent = Spent::default();
        for (at, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let refuse = |why: String| {
                let why = format!(
                    "line {}: {why}; this file says how much of the adapter is told: restore it",
                    at + 1
                );
                zklora_files::Error::new(&self.path, why)
            };
            let charge: Charge =
                serde_json::from_slice(line).map_err(|error| refuse(error.to_string()))?;
            if charge.v != VERSION && charge.v != SAMPLES {
                return Err(refuse(format!("version {}: use a newer zklora", charge.v)).into());
            }
            spent.charges.push(charge);
        }
        Ok((spent, end))
    }

    /// Charges a request, once. When this returns, the charge is on the disk.
    ///
    /// # Errors
    /// [`Error::Refused`]: the budget is spent, or another client paid for this request.
    /// [`Error::File`]: the charge could not be written, and nothing may be answered.
    pub fn charge(&self, charge: &Charge, budget: &Bits) -> Result<Charged, Error> {
        self.charge_within(charge, budget, 0)
    }

    /// The same for the proof of a sample, of which each client gets so many: what proofs take of
    /// the machine has no price in bits.
    ///
    /// # Errors
    /// Those of [`Spending::charge`].
    pub fn charge_sample(
        &self,
        charge: Charge,
        budget: &Bits,
        samples: u64,
    ) -> Result<Charged, Error> {
        self.charge_within(&Charge { sample: true, v: SAMPLES, ..charge }, budget, samples)
    }

    fn charge_within(
        &self,
        charge: &Charge,
        budget: &Bits,
        samples: u64,
    ) -> Result<Charged, Error> {
        zklora_files::require_folder_of(&self.path)?;
        let mut file = self.open().map_err(|error| self.error(error))?;
        // Dropping the file unlocks it.
        file.lock().map_err(|error| self.error(error))?;
        let mut bytes = Vec::new();
        let read = (&mut file).take(MAX_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.error(error))?;
        if bytes.len() as u64 > MAX_BYTES {
            let why = "it is longer than 1 GiB: begin another lineage";
            return Err(zklora_files::Error::new(&self.path, why).into());
        }
        let (spent, end) = self.parse(&bytes)?;
        if let Some(known) = spent.of_request(&charge.request) {
            return match known.client == charge.client {
                true => Ok(Charged::Before),
                false => Err(Error::Refused("another client sent this request".into())),
            };
        }
        if let Some(why) = spent.refuses(charge, budget, samples) {
            return Err(Error::Refused(why));
        }
        let mut line =
            serde_json::to_vec(charge).map_err(|error| Error::Internal(error.to_string()))?;
        line.push(b'\n');
        append(&mut file, end as u64, &line).map_err(|error| self.error(error))?;
        Ok(Charged::Now)
    }

    fn open(&self) -> std::io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let is_new = !self.path.exists();
        let file = options.open(&self.path)?;
        if is_new {
            // The folder's entry must survive a crash, too.
            File::open(zklora_files::folder_of(&self.path))?.sync_all()?;
        }
        Ok(file)
    }
}

/// Writes a line after the last whole one.
fn append(file: &mut File, end: u64, line: &[u8]) -> std::io::Result<()> {
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    file.write_all(line)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const BUDGET: Bits = Bits { bits: 100, bits_per_client: 40 };

    fn charge(request: u8, client: &str, adapter: u8, bits: u64) -> Charge {
        let digest = |byte| Digest([byte; 32]);
        Charge::new(digest(adapter), digest(adapter), digest(request), client, bits, 1)
    }

    fn spending() -> (tempfile::TempDir, Spending) {
        let folder = tempfile::tempdir().unwrap();
        let spending = Spending::new(&folder.path().join("spent.jsonl"));
        (folder, spending)
    }

    proptest! {
        /// Repeated requests, many clients, recompiled adapters, restarts and torn lines: what was
        /// allowed never exceeds the budget, and is what the file says.
        #[test]
        fn no_sequence_of_requests_exceeds_the_budget(
            requests in prop::collection::vec((0u8..30, 0u8..5, 0u8..3, 1u64..25, any::<bool>()), 40),
        ) {
            let (_folder, spending) = spending();
            let (mut allowed, mut known) = (std::collections::BTreeMap::new(), 0);
            for (request, client, adapter, bits, tear) in requests {
                let client = format!("client {client}");
                match Spending::new(&spending.path).charge(
                    &charge(request, &client, adapter, bits), &BUDGET,
                ) {
                    Ok(Charged::Now) => {
                        prop_assert!(allowed.insert(request, (client, bits)).is_none());
                        known += bits;
                    }
                    Ok(Charged::Before) => prop_assert_eq!(&allowed[&request].0, &client),
                    Err(Error::Refused(_)) => {}
                    Err(error) => prop_assert!(false, "{error}"),
                }
                if tear {
                    let mut file = OpenOptions::new().append(true).open(&spending.path).unwrap();
                    file.write_all(b"{\"adapter_id\":\"0").unwrap();
                }
                let spent = spending.read().unwrap();
                prop_assert_eq!(spent.bits(), known);
                prop_assert!(known <= BUDGET.bits);
                for client in 0..5 {
                    let own = spent.bits_of(&format!("client {client}"));
                    prop_assert!(own <= BUDGET.bits_per_client);
                }
            }
        }
    }

    #[test]
    fn parallel_charges_do_not_exceed_the_budget() {
        let (_folder, spending) = spending();
        let allowed: Vec<u64> = std::thread::scope(|scope| {
            let each = |at: u8| {
                let spending = spending.clone();
                scope.spawn(move || {
                    let client = format!("{}", at % 8);
                    match spending.charge(&charge(at, &client, 0, 7), &BUDGET) {
                        Ok(Charged::Now) => 7,
                        _ => 0,
                    }
                })
            };
            let threads: Vec<_> = (0..64).map(each).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(allowed.iter().sum::<u64>(), 98);
        assert_eq!(spending.read().unwrap().bits(), 98);
    }

    #[test]
    fn a_damaged_file_charges_nothing_and_frees_nothing() {
        let (folder, spending) = spending();
        spending.charge(&charge(1, "a", 0, 7), &BUDGET).unwrap();
        let path = folder.path().join("spent.jsonl");
        let good = std::fs::read(&path).unwrap();
        for damage in [
            [b"x".as_slice(), &good].concat(),
            [&good[..good.len() / 2], b"\n"].concat(),
            String::from_utf8(good).unwrap().replace("\"v\":1", "\"v\":3").into_bytes(),
        ] {
            std::fs::write(&path, damage).unwrap();
            assert!(spending.read().is_err());
            assert!(spending.charge(&charge(2, "a", 0, 7), &BUDGET).is_err());
        }
    }

    #[test]
    fn each_client_has_so_many_samples() {
        let (_folder, spending) = spending();
        let prove = |request, client| {
            spending.charge_sample(charge(request, client, 0, 1), &BUDGET, 2).map(|_| ())
        };
        // Requests do not count, nor do samples of others, nor does the same one again.
        spending.charge(&charge(1, "a", 0, 1), &BUDGET).unwrap();
        for request in [2, 3, 3] {
            prove(request, "a").unwrap();
        }
        assert!(prove(4, "a").unwrap_err().to_string().contains("2 samples for each client"));
        prove(5, "b").unwrap();
        let spent = spending.read().unwrap();
        assert_eq!((spent.samples_of("a"), spent.samples_of("b"), spent.bits()), (2, 1, 4));
    }

    #[test]
    fn another_client_does_not_get_what_one_paid_for() {
        let (_folder, spending) = spending();
        spending.charge(&charge(1, "a", 0, 7), &BUDGET).unwrap();
        assert_eq!(spending.charge(&charge(1, "a", 0, 7), &BUDGET).unwrap(), Charged::Before);
        let refused = spending.charge(&charge(1, "b", 0, 7), &BUDGET).unwrap_err();
        assert!(refused.to_string().contains("another client"));
    }
}
