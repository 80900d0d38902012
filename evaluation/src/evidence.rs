//! What convinces a third party: the files of a settlement, or two answers, in one archive.

use crate::{
    Error,
    answer::{Answer, contradiction},
    archive::{self, Entry},
    digest::Digest,
    offer::{Offer, SignedOffer},
    request::{Request, digest_of},
};

const WHAT: &str = "evidence";

/// The files of a settlement, by their names in the buyer's folder and in the archive.
pub const OFFER: &str = "offer.json";
/// The manifest.
pub const MANIFEST: &str = "manifest.json";
/// The request.
pub const REQUEST: &str = "request.json";
/// Its units.
pub const UNITS: &str = "units.bin";
/// The answer.
pub const ANSWER: &str = "answer.json";
/// The delivery statement.
pub const DELIVERY: &str = "delivery.json";
/// The ciphertext.
pub const CIPHERTEXT: &str = "delivery.age";
/// The key.
pub const KEY: &str = "key";

/// The files of a settlement, in the order of the archive.
pub const SETTLEMENT: [&str; 8] =
    [OFFER, MANIFEST, REQUEST, UNITS, ANSWER, DELIVERY, CIPHERTEXT, KEY];
/// The files of two answers.
const TWO_ANSWERS: [&str; 6] = [
    "first/offer.json",
    "first/request.json",
    "first/answer.json",
    "second/offer.json",
    "second/request.json",
    "second/answer.json",
];

/// Evidence.
pub enum Evidence {
    /// All files of a settlement, in the order of [`SETTLEMENT`].
    Settlement(Vec<Entry>),
    /// Two answers.
    TwoAnswers(TwoAnswers),
}

/// Two answers that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwoAnswers {
    /// The key that signed both.
    pub key: Digest,
    /// The adapter.
    pub adapter_id: Digest,
    /// Names of the groups whose values differ.
    pub groups: (String, String),
}

/// Offer, request and answer, as bytes.
pub type Statement<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Whether two answers contradict each other.
///
/// # Errors
/// One of them is not signed by the key of its offer, or is for another request.
pub fn two_answers(a: Statement<'_>, b: Statement<'_>) -> Result<Option<TwoAnswers>, Error> {
    let read = |(offer, request, answer): Statement<'_>| {
        let offer = SignedOffer::parse(offer)?;
        let answer = Answer::signed(answer, &offer)?;
        let digest = digest_of(request);
        let request = Request::parse(request)?;
        answer.check_request(&request, &digest)?;
        Ok::<_, Error>((offer, request, answer))
    };
    let (a, b) = (read(a)?, read(b)?);
    let groups = contradiction((&a.0, &a.1, &a.2), (&b.0, &b.1, &b.2));
    let Offer { key, adapter_id, .. } = a.0.offer;
    Ok(groups.map(|groups| TwoAnswers { key, adapter_id, groups }))
}

/// The archive of two answers.
///
/// # Errors
/// [`Error::Internal`].
pub fn write_two_answers(a: Statement<'_>, b: Statement<'_>) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let contents = [a.0, a.1, a.2, b.0, b.1, b.2];
    archive::write(TWO_ANSWERS.into_iter().zip(contents), &mut bytes)?;
    Ok(bytes)
}

/// Reads an archive of evidence. A settlement is not repeated yet.
///
/// # Errors
/// It is no evidence, or two answers that do not contradict each other.
pub fn read(bytes: &[u8]) -> Result<Evidence, Error> {
    let entries = archive::read(bytes, WHAT)?;
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    if names == SETTLEMENT {
        return Ok(Evidence::Settlement(entries));
    }
    if names != TWO_ANSWERS {
        return Err(Error::form(WHAT, "it has other files than evidence of zklora"));
    }
    let at = |index: usize| entries[index].bytes.as_slice();
    match two_answers((at(0), at(1), at(2)), (at(3), at(4), at(5)))? {
        Some(found) => Ok(Evidence::TwoAnswers(found)),
        None => Err(Error::mismatch(WHAT, "its two answers do not contradict each other")),
    }
}
