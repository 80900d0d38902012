//! Evaluations: what `zklora offer`, `serve`, `claim`, `evaluate`, `deliver`, `settle` and `report`
//! do (docs/evaluation.md).
//!
//! ```text
//! contributor: artifacts + integer model + identity ─ offer → offer.json
//!              offer ─ contributor (scorer) → answers, claim;  answer + adapter ─ deliver
//! buyer:       offer + base model ─ terms (checked) ─ buy → folder with the answer
//!              folder (+ key) ─ settle → verdict, evidence;  folder ─ report
//! ```

mod buy;
mod claim;
mod contributor;
mod deliver;
mod folder;
mod memory;
mod offer;
mod other_party;
mod prove;
mod report;
pub(crate) mod report_lines;
mod sample_proof;
mod scorer;
mod sent_units;
mod settle;
mod terms;

pub use buy::{Bought, BuyOptions, Source, buy, groups};
pub use claim::{Claim, ClaimComparison, make_claim};
pub use contributor::{ContributorOptions, answering, scorer};
pub use deliver::{DeliverOptions, Delivered, deliver};
pub use folder::Folder;
pub use memory::Memory;
pub use offer::{
    OfferOptions, Offered, make_offer, read_offer, registration_beside, require_same_contributor,
};
pub use other_party::{Contributor, OfferedNow, Step};
pub use prove::{Proven, SampleOptions, verify_sample};
pub use report::{GroupReport, Interval, Loss, Report, Right};
pub use report_lines::{Stage, lines, next_step, sample as sample_lines};
pub(crate) use report_lines::{in_nats, in_points};
pub use sent_units::{Earlier, EarlierSamples, SentUnits};
pub use settle::{SettleOptions, Settlement, Verdict, settle, settle_evidence};
pub use terms::{CheckedTerms, OfferFrom, TermsOptions};
