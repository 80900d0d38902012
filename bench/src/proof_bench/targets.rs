//! The performance targets as data, and the comparison with figures. They are for two idle cores.

use serde::Serialize;

use super::{
    bench_stage::BenchStage,
    figures::{Item, Measured, Size},
};

/// The quantity that a target limits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Sum of these times, in seconds.
    Seconds(&'static [Item]),
    /// Peak memory of a stage, in bytes.
    Memory(BenchStage),
    /// Bytes.
    Bytes(Size),
    /// The time of the second item over the time of the first: the speed of the first as a share of
    /// the second's.
    Speed(Item, Item),
}

impl Quantity {
    /// Whether only another process can measure it.
    pub fn is_of_a_process(self) -> bool {
        match self {
            Quantity::Seconds(items) => items.iter().any(|item| item.is_of_a_process()),
            Quantity::Memory(stage) => stage == BenchStage::Process,
            Quantity::Bytes(_) | Quantity::Speed(..) => false,
        }
    }

    fn of(self, measured: &Measured) -> Option<f64> {
        let seconds = |item: &Item| measured.cost(*item).map(|cost| cost.seconds);
        match self {
            Quantity::Seconds(items) => items.iter().map(seconds).sum(),
            Quantity::Memory(stage) => measured.peak_memory.get(&stage).map(|bytes| *bytes as f64),
            Quantity::Bytes(size) => measured.size(size).map(|bytes| bytes as f64),
            Quantity::Speed(item, other) => Some(seconds(&other)? / seconds(&item)?),
        }
    }
}

/// One target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Target {
    /// Its profile.
    pub profile: &'static str,
    /// Its name.
    pub what: &'static str,
    /// The quantity.
    pub quantity: Quantity,
    /// The limit: an upper one, but for a speed a lower one.
    pub limit: f64,
}

const fn target(
    profile: &'static str,
    what: &'static str,
    quantity: Quantity,
    limit: f64,
) -> Target {
    Target { profile, what, quantity, limit }
}

const MB: f64 = 1e6;
const START_UP: &[Item] = &[Item::Srs, Item::KnownManifest, Item::VerifyingKey];
const START_UP_WITHOUT_CACHE: &[Item] = &[Item::Srs, Item::Manifest, Item::VerifyingKey];

/// All targets of the issue, except the comparison with EZKL, which needs another program, and the
/// growth of the pass, which [`super::curves`] shows. "Besides the pass" is the cost of a session
/// of one row per module.
pub const TARGETS: [Target; 28] = [
    target("llama-3.3-70b", "commit to 11.8 M weights", Quantity::Seconds(&[Item::Commit]), 4.0),
    target("llama-3.3-70b", "memory of it", Quantity::Memory(BenchStage::Commit), 500.0 * MB),
    target(
        "llama-3.3-70b",
        "keys (vk and pk)",
        Quantity::Seconds(&[Item::VerifyingKey, Item::ProvingKey]),
        0.1,
    ),
    target(
        "llama-3.3-70b",
        "prove, besides the pass",
        Quantity::Seconds(&[Item::ProveOneRow]),
        0.55,
    ),
    target("llama-3.3-70b", "memory of proving", Quantity::Memory(BenchStage::Prove), 500.0 * MB),
    target(
        "llama-3.3-70b",
        "zklora verify, besides the pass",
        Quantity::Seconds(&[Item::ProcessOneRow]),
        0.09,
    ),
    target("llama-3.3-70b", "proof", Quantity::Bytes(Size::Proof), 1700.0),
    target(
        "llama-3.3-70b",
        "pass, speed of memcpy",
        Quantity::Speed(Item::PassOneCore, Item::MemcpyOneCore),
        0.5,
    ),
    target("llama-3.3-70b", "start of verify, from the cache", Quantity::Seconds(START_UP), 0.03),
    target(
        "llama-3.3-70b",
        "start of verify, without it",
        Quantity::Seconds(START_UP_WITHOUT_CACHE),
        0.3,
    ),
    target(
        "llama-3.3-70b",
        "row of 8192×16×8192, speed of f32",
        Quantity::Speed(Item::RowIntegers, Item::RowFloats),
        1.0,
    ),
    target("llama-3.1-8b-all", "commit to 41.9 M weights", Quantity::Seconds(&[Item::Commit]), 9.0),
    target("llama-3.1-8b-all", "memory of it", Quantity::Memory(BenchStage::Commit), 500.0 * MB),
    target("llama-3.1-8b-all", "prove", Quantity::Seconds(&[Item::Prove]), 1.0),
    target(
        "llama-3.1-8b-all",
        "first verify, with the manifest",
        Quantity::Seconds(&[Item::Manifest, Item::Verify]),
        0.6,
    ),
    target("llama-3.1-8b-all", "verify again", Quantity::Seconds(&[Item::Verify]), 0.2),
    target("llama-3.1-8b-all", "manifest", Quantity::Bytes(Size::Manifest), 1.0 * MB),
    target("distilgpt2", "prove", Quantity::Seconds(&[Item::Prove]), 0.16),
    target("distilgpt2", "verify", Quantity::Seconds(&[Item::Verify]), 0.022),
    target("distilgpt2", "proof", Quantity::Bytes(Size::Proof), 1500.0),
    target(
        "distilgpt2",
        "pass, speed of memcpy",
        Quantity::Speed(Item::PassOneCore, Item::MemcpyOneCore),
        0.5,
    ),
    target("module", "prove", Quantity::Seconds(&[Item::Prove]), 0.07),
    target("module", "verify", Quantity::Seconds(&[Item::Verify]), 0.007),
    target("module", "proof", Quantity::Bytes(Size::Proof), 1250.0),
    target("module", "zklora prove, one row", Quantity::Seconds(&[Item::ProveProcessOneRow]), 0.12),
    target("module", "zklora verify, one row", Quantity::Seconds(&[Item::ProcessOneRow]), 0.015),
    target("module", "start of verify, from the cache", Quantity::Seconds(START_UP), 0.03),
    target("module", "start of verify, without it", Quantity::Seconds(START_UP_WITHOUT_CACHE), 0.3),
];

/// A target and its measured value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Judged {
    /// The target.
    #[serde(flatten)]
    pub target: Target,
    /// The value. `None` if it was not measured.
    pub measured: Option<f64>,
    /// Whether the target is met. `None` if it was not measured.
    pub met: Option<bool>,
}

/// Compares the measured profiles with their targets.
pub fn judge(measured: &[Measured]) -> Vec<Judged> {
    let of = |target: &Target| {
        let profile = measured.iter().find(|measured| measured.profile == target.profile)?;
        let value = target.quantity.of(profile);
        let fits = |value: f64| match target.quantity {
            Quantity::Speed(..) => value >= target.limit,
            _ => value <= target.limit,
        };
        Some(Judged { target: *target, measured: value, met: value.map(fits) })
    };
    TARGETS.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::proof_bench::{Cost, Profile, StageReport};

    #[test]
    fn targets_are_of_profiles_and_a_speed_is_the_other_way_round() {
        assert!(TARGETS.iter().all(|target| Profile::named(target.profile).is_some()));
        let mut measured = Measured::of(&Profile::named("distilgpt2").unwrap(), 64);
        assert!(judge(std::slice::from_ref(&measured)).iter().all(|judged| judged.met.is_none()));
        let cost = |seconds| Cost { seconds, cpu_seconds: seconds };
        let mut report = StageReport::default();
        report.costs.extend([(Item::PassOneCore, cost(4.0)), (Item::MemcpyOneCore, cost(3.0))]);
        report.costs.insert(Item::Prove, cost(0.5));
        report.sizes.insert(Size::Proof, 1500);
        measured.add(BenchStage::Pass, report);
        let judged = judge(std::slice::from_ref(&measured));
        let of = |what: &str| {
            judged
                .iter()
                .find(|j| j.target.what == what)
                .map(|j| (j.measured.unwrap(), j.met.unwrap()))
        };
        assert_eq!(of("pass, speed of memcpy"), Some((0.75, true)));
        assert_eq!(of("prove"), Some((0.5, false)));
        assert_eq!(of("proof"), Some((1500.0, true)));
        assert!(judge(&[]).is_empty());
    }
}
