//! The buyer's part of an evaluation: check the offer, send the units, check the answer.

use std::path::PathBuf;

use rand_core::{OsRng, RngCore};
use zeroize::Zeroizing;
use zklora_evaluation::{
    Error as Statement,
    answer::{Answer, UnitValues},
    digest::Digest,
    evidence::{ANSWER, OFFER, REQUEST},
    proving::ProofLimits,
    request::{Choices, FullRequest, UnitGroup, scored_tokens, sequences},
    sample::{MAX_SAMPLE, Sample, candidates, price},
    unit_lines::{self, DEFAULT_GROUP, Groups},
    unit_scores::{UnitScores, side},
};
use zklora_integer::{evaluate::check_unit, score::score, unit::Unit};
use zklora_proof::srs::Srs;

use super::{
    claim::{Claim, ClaimComparison},
    folder::{Folder, nonce_of},
    memory::Memory,
    offer::read_offer,
    other_party::{Contributor, Step},
    prove::{Proven, SampleOptions, prove},
    report::Report,
    sample_proof::refusal,
    sent_units::{Earlier, EarlierSamples, SentUnits},
    terms::{CheckedTerms, OfferFrom, TermsOptions},
};
use crate::{Error, infer, integer};

/// Longest file of units or text.
const MAX_UNITS: u64 = 1 << 30;

/// Where units come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Lines of JSON in a file.
    Units(PathBuf),
    /// The lines themselves.
    Lines(String),
    /// Windows of a text.
    Text {
        /// The file.
        file: PathBuf,
        /// Tokens of a window.
        context: usize,
    },
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct BuyOptions {
    /// The offer that the buyer pinned.
    pub offer: PathBuf,
    /// The buyer's own model.
    pub terms: TermsOptions,
    /// The units.
    pub source: Source,
    /// Ask for scores of single units.
    pub per_unit: bool,
    /// How many units without a score the answer may list.
    pub list_unscored: u32,
    /// Compute the values of the base model, too.
    pub check_base: bool,
    /// Have a sample proven.
    pub prove: Option<SampleOptions>,
    /// Public claims to compare with.
    pub claims: Vec<PathBuf>,
    /// What the buyer's tool remembers.
    pub memory: Memory,
    /// The buyer's folder.
    pub out: PathBuf,
}

/// An accepted answer.
pub struct Bought {
    /// The terms.
    pub terms: CheckedTerms,
    /// The request.
    pub request: FullRequest,
    /// For each unit of the request its index in what the buyer gave.
    pub places: Vec<u64>,
    /// The answer.
    pub answer: Answer,
    /// What was proven of a sample, if that was asked for.
    pub proven: Option<Proven>,
    /// Whether the base model's values were computed here, too: they are equal.
    pub base_checked: bool,
    /// How each public claim compares.
    pub claims: Vec<(PathBuf, ClaimComparison)>,
    /// Units that were sent before.
    pub earlier: Vec<Earlier>,
    /// Samples of these units that were asked for before; none without a memory.
    pub earlier_samples: Option<EarlierSamples>,
}

impl Bought {
    /// The report of the buyer's folder, also where nothing marks the buyer's own files.
    ///
    /// # Errors
    /// Those of [`Report::of`].
    pub fn report(&self, folder: &Folder) -> Result<Report, Error> {
        Ok(Report::of(folder)?.with_proven(self.proven.clone()))
    }

    /// Scores of single units, in the order in which the buyer gave the units.
    pub fn per_unit(&self) -> Option<Vec<Option<&UnitValues>>> {
        let values = self.answer.per_unit.as_ref()?;
        let mut all = vec![None; values.len()];
        for (value, place) in values.iter().zip(&self.places) {
            if let Some(slot) = all.get_mut(usize::try_from(*place).unwrap_or(usize::MAX)) {
                *slot = value.as_ref();
            }
        }
        Some(all)
    }
}

/// Evaluates, or goes on where an earlier call was interrupted.
///
/// # Errors
/// The offer does not fit the buyer's own model, the contributor is unreachable or refuses, or its
/// answer is not valid.
pub fn buy(
    contributor: &mut dyn Contributor,
    srs: &Srs,
    options: &BuyOptions,
    progress: &mut dyn FnMut(Step),
) -> Result<Bought, Error> {
    let folder = Folder::new(&options.out, &options.memory);
    let _lock = folder.lock()?;
    if options.prove.is_some_and(|sample| !(1..=MAX_SAMPLE).contains(&sample.units)) {
        return Err(Error::input(format!("a sample has 1 to {MAX_SAMPLE} units")));
    }
    let offer = read_offer(&options.offer)?;
    let sent = options.memory.sent.as_deref().map(SentUnits::new);
    if let Some(sent) = &sent {
        sent.saw(&offer)?;
    }
    let mut claims = Vec::new();
    for path in &options.claims {
        claims.push((path.clone(), Claim::read(path)?));
    }
    let is_known = folder.has_request();
    if is_known && folder.offer()?.digest != offer.digest {
        let why = "this folder has an evaluation for another offer: name another --out";
        return Err(Error::file(&folder.path, why));
    }
    // The nonce of a draw is shown once. What the contributor would refuse is checked before that,
    // also if an earlier call asked for no proof.
    let draws = options.prove.is_some() && !folder.has_proof_request();
    let offered = match is_known && !draws {
        true => None,
        false => {
            progress(Step::Local("ask for the offer"));
            let now = contributor.offered()?;
            if now.offer != offer.bytes {
                return Err(Statement::Mismatch {
                    what: options.offer.display().to_string(),
                    why: "the contributor offers something else now: get its offer again \
                          (zklora offer fetch), and compare"
                        .into(),
                }
                .into());
            }
            if options.prove.is_some() && (now.proofs.tokens == 0 || now.registration.is_none()) {
                return Err(Statement::Refused(
                    "this contributor proves no samples: ask it to serve with --prove, or leave \
                     --prove out"
                        .into(),
                )
                .into());
            }
            Some(now)
        }
    };
    let left = offered.as_ref().map(|now| now.bits_left);
    let proofs = offered.as_ref().map(|now| now.proofs);
    let (manifest, registration) = match offered.filter(|_| !is_known) {
        Some(now) => (now.manifest, now.registration),
        None => (folder.manifest()?, folder.registration()?),
    };
    progress(Step::Local("check the offer with your base model"));
    let published = (manifest.as_slice(), registration.as_deref());
    let terms = CheckedTerms::check((offer, OfferFrom::Buyer), published, srs, &options.terms)?;
    let Groups { groups, places } =
        groups(&options.source, &options.terms, terms.bound.model.tokens)?;
    let request = match is_known {
        true => {
            let known = folder.request()?;
            let own = FullRequest::new(terms.offer.digest, &choices_of(&known), groups)?;
            let asked = (known.request.per_unit, known.request.list_unscored);
            if own.digest != known.digest || asked != (options.per_unit, options.list_unscored) {
                let why = "this folder has another request: name another --out";
                return Err(Error::file(&folder.path, why));
            }
            known
        }
        false => new_request(&folder, &terms, published, left, groups, options)?,
    };
    let bits = request.price(&terms.offer)?;
    if let Some((sample, most)) = options.prove.zip(proofs) {
        check_sample(&terms, &request, sample, most)?;
    }
    if let Some(left) = left {
        let bits = match (is_known, options.prove) {
            // The request itself may be paid for.
            (true, Some(sample)) => price_of(sample, &request, &terms)?,
            _ => bits,
        };
        check_price(bits, left)?;
        progress(Step::Price { bits, left });
    }
    let earlier = sent.as_ref().map(|sent| sent.earlier(&terms.offer, &request)).transpose()?;
    let earlier_samples =
        sent.as_ref().map(|sent| sent.earlier_samples(&terms.offer, &request)).transpose()?;
    if !folder.has_answer() {
        if let Some(sent) = &sent {
            sent.sending(&terms.offer, &request)?;
        }
        let bytes = contributor.evaluate(&request, progress)?;
        if let Err(error) = Answer::read(&bytes, &terms.offer, &request) {
            folder.write("answer.refused", &bytes)?;
            return Err(error.into());
        }
        folder.write(ANSWER, &bytes)?;
    }
    let answer = folder.answer(&terms.offer, &request)?;
    if options.check_base {
        progress(Step::Local("score with the base model alone"));
        check_base(&terms, &request, &answer)?;
    }
    let proven = match options.prove {
        Some(sample) => {
            let of = (&terms, &request, &answer);
            let kept = (&folder, sent.as_ref().zip(earlier_samples));
            Some(prove(contributor, kept, srs, of, sample, options.terms.policy, progress)?)
        }
        None => None,
    };
    let mut compared = Vec::new();
    for (at, (path, claim)) in claims.into_iter().enumerate() {
        let comparison = claim.compare(&terms.offer, &request.request, &answer);
        if let ClaimComparison::Contradicts(_) = comparison {
            let own = (
                folder.read(OFFER, MAX_UNITS)?,
                folder.read(REQUEST, MAX_UNITS)?,
                folder.read(ANSWER, MAX_UNITS)?,
            );
            let name = format!("claim-evidence-{}.tar", at + 1);
            folder.write(&name, &claim.evidence((&own.0, &own.1, &own.2))?)?;
        }
        compared.push((path, comparison));
    }
    Ok(Bought {
        terms,
        request,
        places,
        answer,
        proven,
        base_checked: options.check_base,
        claims: compared,
        earlier: earlier.unwrap_or_default(),
        earlier_samples,
    })
}

/// Whether a sample can be drawn, and whichever it is be proven: there is one draw an answer, so
/// that it must not fail for public reasons.
fn check_sample(
    terms: &CheckedTerms,
    full: &FullRequest,
    options: SampleOptions,
    limits: ProofLimits,
) -> Result<(), Error> {
    let metric = options.metric(full)?;
    let refuse = |why: String| Err(Statement::Refused(why).into());
    let ProofLimits { tokens: most, leaves, samples } = limits;
    if samples == 0 {
        let why = "this contributor has proven for you what it proves for one client: ask it for \
                   more";
        return refuse(why.into());
    }
    let tokens = |unit: &Unit| sequences(unit).iter().map(|of| of.tokens.len()).sum::<usize>();
    let scored = |unit: &Unit| sequences(unit).iter().map(scored_tokens).sum::<usize>();
    let units: Vec<&Unit> = candidates(full, metric).map(|(_, unit)| unit).collect();
    let mut lengths: Vec<u64> = units.iter().map(|unit| tokens(unit) as u64).collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    let count = options.units as usize;
    if lengths.len() < count {
        return refuse(format!(
            "a sample of {count} units, and {} can be drawn: units of groups that ask for {}",
            lengths.len(),
            metric.name()
        ));
    }
    let longest = lengths[..count].iter().sum::<u64>();
    if longest > most {
        return refuse(format!(
            "a sample of {count} units may have {longest} tokens, and this contributor proves up \
             to {most}: ask for fewer, or send shorter units"
        ));
    }
    // What one unit takes: those with the most tokens, and with the most to score.
    let largest =
        [units.iter().max_by_key(|of| tokens(of)), units.iter().max_by_key(|of| scored(of))];
    let program = terms.adapted_shape()?;
    for unit in largest.into_iter().flatten() {
        let sample = Sample { metric, numbers: vec![0], units: vec![(*unit).clone()] };
        if let Some(why) = refusal(&sample, &program, &terms.manifest, leaves) {
            return refuse(format!("not every sample of these units can be proven: {why}"));
        }
    }
    Ok(())
}

fn choices_of(full: &FullRequest) -> Choices {
    let of = &full.request;
    Choices {
        nonce: of.nonce,
        draw: of.draw,
        list_unscored: of.list_unscored,
        per_unit: of.per_unit,
    }
}

/// The groups of the buyer's units.
///
/// # Errors
/// The units cannot be read.
pub fn groups(source: &Source, options: &TermsOptions, longest: usize) -> Result<Groups, Error> {
    let (base, named) = (&options.base.base, options.tokenizer.as_deref());
    let has_tokenizer = named.is_some() || base.with_file_name("tokenizer.json").exists();
    let lines = |lines: &str| -> Result<Groups, Error> {
        let tokenizer = has_tokenizer.then(|| infer::tokenizer(base, named)).transpose()?;
        Ok(unit_lines::read(lines, tokenizer.as_ref())?)
    };
    match source {
        Source::Lines(text) => lines(text),
        Source::Units(file) => {
            let bytes = zklora_files::read(file, MAX_UNITS)?;
            let text =
                std::str::from_utf8(&bytes).map_err(|_| Error::file(file, "not text in UTF-8"))?;
            lines(text).map_err(|error| Error::file(file, error.to_string()))
        }
        Source::Text { file, context } => {
            let tokenizer = infer::tokenizer(base, named)?;
            let units = integer::units_of_text(file, &tokenizer, *context, longest)?;
            let metrics = unit_lines::default_metrics(&units);
            let places = (0..units.len() as u64).collect();
            let group = UnitGroup { name: DEFAULT_GROUP.into(), metrics, units };
            Ok(Groups { groups: vec![group], places })
        }
    }
}

fn new_request(
    folder: &Folder,
    terms: &CheckedTerms,
    published: (&[u8], Option<&[u8]>),
    left: Option<u64>,
    groups: Vec<UnitGroup>,
    options: &BuyOptions,
) -> Result<FullRequest, Error> {
    let random = || {
        let mut bytes = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(bytes.as_mut());
        bytes
    };
    let draw = random();
    let choices = Choices {
        nonce: Digest(*random()),
        draw: Digest::of(&nonce_of(&draw)),
        list_unscored: options.list_unscored,
        per_unit: options.per_unit,
    };
    let full = FullRequest::new(terms.offer.digest, &choices, groups)?;
    let proof = match options.prove {
        Some(sample) => price_of(sample, &full, terms)?,
        None => 0,
    };
    if let Some(left) = left {
        check_price(full.price(&terms.offer)? + proof, left)?;
    }
    for (at, unit) in full.units.iter().enumerate() {
        for sequence in sequences(unit) {
            check_unit(&terms.base, at, &sequence.tokens)?;
        }
    }
    folder.keep_request(&terms.offer, published, &full, &draw)?;
    Ok(full)
}

/// What the proof of a sample costs.
fn price_of(sample: SampleOptions, full: &FullRequest, terms: &CheckedTerms) -> Result<u64, Error> {
    Ok(price(sample.metric(full)?, sample.units, &terms.offer))
}

fn check_price(bits: u64, left: u64) -> Result<(), Error> {
    match bits <= left {
        true => Ok(()),
        false => Err(Statement::Refused(format!(
            "this request costs {bits} bits, and {left} are left for you: ask for fewer metrics or \
             groups, or the contributor for more"
        ))
        .into()),
    }
}

/// Computes the values of the base model, and compares them.
fn check_base(terms: &CheckedTerms, full: &FullRequest, answer: &Answer) -> Result<(), Error> {
    let scores = score(&terms.base, &full.units)?.0;
    // As if the adapter changed nothing: the base values do not depend on it.
    let scores: Vec<UnitScores> =
        scores.iter().map(|score| UnitScores { base: side(score), adapted: side(score) }).collect();
    let own = Answer::compute(&terms.offer, full, &scores)?;
    let differs = own.base_unscored != answer.base_unscored
        || own.groups.iter().zip(&answer.groups).any(|(own, theirs)| {
            own.metrics.as_ref().map(|of| of.base()) != theirs.metrics.as_ref().map(|of| of.base())
        });
    match differs {
        false => Ok(()),
        true => Err(Statement::Mismatch {
            what: ANSWER.into(),
            why: "its values of the base model are not those of your base model: the contributor \
                  scored with something else"
                .into(),
        }
        .into()),
    }
}
