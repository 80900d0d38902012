//! The bytes of a unit. A unit has one encoding, and bytes decode to one unit.

use zklora_integer::unit::{Normalisation, Sequence, Unit};

use crate::Error;

const SEQUENCE: u8 = 1;
const CHOICE: u8 = 2;
const NO_ANSWER: u32 = u32::MAX;
/// Most choices of a unit.
pub const MAX_CHOICES: usize = 1 << 10;
/// Bytes of the shortest unit: a sequence of two tokens.
pub(crate) const SHORTEST: usize = 17;
/// Most tokens of a sequence.
pub const MAX_TOKENS: usize = 1 << 20;

fn number(value: usize) -> Result<u32, String> {
    u32::try_from(value).map_err(|_| format!("{value} does not fit 32 bits"))
}

fn put(bytes: &mut Vec<u8>, value: usize) -> Result<(), String> {
    bytes.extend(number(value)?.to_le_bytes());
    Ok(())
}

fn put_tokens(bytes: &mut Vec<u8>, tokens: &[u32]) {
    bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
}

/// The number of tokens that all choices begin with.
fn shared(choices: &[Sequence]) -> usize {
    let Some((first, rest)) = choices.split_first() else { return 0 };
    let with = |other: &Sequence| {
        first.tokens.iter().zip(&other.tokens).take_while(|(a, b)| a == b).count()
    };
    rest.iter().map(with).fold(first.tokens.len(), usize::min)
}

fn check(sequence: &Sequence) -> Result<(), String> {
    let count = sequence.tokens.len();
    if sequence.from == 0 || sequence.from >= count {
        return Err(format!("it has {count} tokens and scores from token {}", sequence.from));
    }
    if count > MAX_TOKENS {
        return Err(format!("{count} tokens, at most {MAX_TOKENS}"));
    }
    Ok(())
}

/// Appends the bytes of a unit.
///
/// # Errors
/// [`Error::Refused`]: the unit generates text, scores nothing, or has too many choices.
pub fn encode(unit: &Unit, bytes: &mut Vec<u8>) -> Result<(), Error> {
    append(unit, bytes).map_err(Error::Refused)
}

fn append(unit: &Unit, bytes: &mut Vec<u8>) -> Result<(), String> {
    match unit {
        Unit::LogProbability(sequence) => {
            check(sequence)?;
            bytes.push(SEQUENCE);
            put(bytes, sequence.from)?;
            put(bytes, sequence.tokens.len())?;
            put_tokens(bytes, &sequence.tokens);
        }
        Unit::Choice { choices, lengths, answer, .. } => {
            if choices.is_empty() || choices.len() > MAX_CHOICES || lengths.len() != choices.len() {
                return Err(format!("a question has 1 to {MAX_CHOICES} choices"));
            }
            if answer.is_some_and(|answer| answer >= choices.len()) {
                return Err("its answer is none of its choices".into());
            }
            choices.iter().try_for_each(check)?;
            let in_all: usize = choices.iter().map(|choice| choice.tokens.len()).sum();
            if in_all > MAX_TOKENS {
                return Err(format!("its choices have more than {MAX_TOKENS} tokens"));
            }
            if lengths.contains(&0) {
                return Err("a choice has a length of at least 1".into());
            }
            bytes.push(CHOICE);
            put(bytes, answer.unwrap_or(NO_ANSWER as usize))?;
            put(bytes, choices.len())?;
            let shared = shared(choices);
            put(bytes, shared)?;
            put_tokens(bytes, &choices[0].tokens[..shared]);
            for (choice, length) in choices.iter().zip(lengths) {
                put(bytes, *length)?;
                put(bytes, choice.from)?;
                put(bytes, choice.tokens.len() - shared)?;
                put_tokens(bytes, &choice.tokens[shared..]);
            }
        }
        Unit::Generate { .. } => {
            return Err("it generates text: an evaluation scores text that the buyer has".into());
        }
    }
    Ok(())
}

/// Reads numbers from bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Result<usize, String> {
        let (first, rest) = self.0.split_first_chunk::<4>().ok_or("it ends early")?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*first) as usize)
    }

    fn tokens(&mut self, count: usize) -> Result<Vec<u32>, String> {
        if count > MAX_TOKENS {
            return Err(format!("{count} tokens, at most {MAX_TOKENS}"));
        }
        // The bytes are there before anything is allocated for them.
        let (first, rest) = self.0.split_at_checked(count * 4).ok_or("it ends early")?;
        self.0 = rest;
        let (numbers, _) = first.as_chunks::<4>();
        Ok(numbers.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    }
}

/// Reads the first unit of `bytes`, and returns it with the number of its bytes.
///
/// # Errors
/// [`Error::Form`]. `at` is the unit's index, for the error.
pub fn decode(bytes: &[u8], at: usize) -> Result<(Unit, usize), Error> {
    let mut reader = Reader(bytes);
    let unit = read(&mut reader).map_err(|why| Error::form(&format!("unit {at}"), why))?;
    Ok((unit, bytes.len() - reader.0.len()))
}

fn read(reader: &mut Reader<'_>) -> Result<Unit, String> {
    let (tag, rest) = reader.0.split_first().ok_or("it ends early")?;
    reader.0 = rest;
    match *tag {
        SEQUENCE => {
            let from = reader.number()?;
            let count = reader.number()?;
            let sequence = Sequence { tokens: reader.tokens(count)?, from };
            check(&sequence)?;
            Ok(Unit::LogProbability(sequence))
        }
        CHOICE => read_choice(reader),
        tag => Err(format!("no unit begins with byte {tag}")),
    }
}

fn read_choice(reader: &mut Reader<'_>) -> Result<Unit, String> {
    let answer = reader.number()?;
    let count = reader.number()?;
    if count == 0 || count > MAX_CHOICES {
        return Err(format!("{count} choices, expected 1 to {MAX_CHOICES}"));
    }
    let prefix = reader.number()?;
    let prefix = reader.tokens(prefix)?;
    let (mut choices, mut lengths) = (Vec::new(), Vec::new());
    let mut in_all = 0;
    for _ in 0..count {
        let length = reader.number()?;
        let from = reader.number()?;
        let own = reader.number()?;
        let own = reader.tokens(own)?;
        // A prefix is sent once and kept for each choice.
        in_all += prefix.len() + own.len();
        if in_all > MAX_TOKENS {
            return Err(format!("its choices have more than {MAX_TOKENS} tokens"));
        }
        let sequence = Sequence { tokens: [prefix.as_slice(), &own].concat(), from };
        check(&sequence)?;
        if length == 0 {
            return Err("a choice has a length of at least 1".into());
        }
        choices.push(sequence);
        lengths.push(length);
    }
    if shared(&choices) != prefix.len() {
        return Err("its shared tokens are not all that its choices share".into());
    }
    let answer = match answer {
        none if none == NO_ANSWER as usize => None,
        answer if answer < count => Some(answer),
        _ => return Err("its answer is none of its choices".into()),
    };
    Ok(Unit::Choice { choices, lengths, normalisation: Normalisation::None, answer })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn sequences() -> impl Strategy<Value = Sequence> {
        (prop::collection::vec(0u32..4, 2..9), any::<prop::sample::Index>()).prop_map(
            |(tokens, at)| {
                let from = 1 + at.index(tokens.len() - 1);
                Sequence { tokens, from }
            },
        )
    }

    fn units() -> impl Strategy<Value = Unit> {
        let choice = (prop::collection::vec((sequences(), 1usize..9), 1..5), any::<u8>());
        prop_oneof![
            sequences().prop_map(Unit::LogProbability),
            choice.prop_map(|(choices, answer)| {
                let answer = Some(answer as usize).filter(|answer| *answer < choices.len());
                let (choices, lengths) = choices.into_iter().unzip();
                Unit::Choice { choices, lengths, normalisation: Normalisation::None, answer }
            }),
        ]
    }

    proptest! {
        #[test]
        fn units_have_one_encoding(unit in units(), rest in prop::collection::vec(any::<u8>(), 3)) {
            let mut bytes = Vec::new();
            encode(&unit, &mut bytes).unwrap();
            let length = bytes.len();
            bytes.extend(rest);
            prop_assert_eq!(decode(&bytes, 0).unwrap(), (unit, length));
            for end in 0..length {
                prop_assert!(decode(&bytes[..end], 0).is_err());
            }
        }

        /// Whatever decodes is the encoding of what it decodes to.
        #[test]
        fn bytes_decode_to_what_encodes_to_them(
            unit in units(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0u8..6), 1..3),
        ) {
            let mut bytes = Vec::new();
            encode(&unit, &mut bytes).unwrap();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Ok((unit, length)) = decode(&bytes, 0) {
                let mut again = Vec::new();
                encode(&unit, &mut again).unwrap();
                prop_assert_eq!(&bytes[..length], &again[..]);
            }
        }
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_allocated() {
        for bytes in [
            [&[1][..], &1u32.to_le_bytes(), &u32::MAX.to_le_bytes()].concat(),
            [&[2][..], &0u32.to_le_bytes(), &u32::MAX.to_le_bytes()].concat(),
            [&[2][..], &0u32.to_le_bytes(), &1u32.to_le_bytes(), &u32::MAX.to_le_bytes()].concat(),
            vec![3],
            vec![],
        ] {
            assert!(decode(&bytes, 0).is_err());
        }
        // A small message must not become large: a long prefix of many choices.
        let prefix = vec![7u32; 100_000];
        let mut bytes = vec![CHOICE];
        for number in [NO_ANSWER, 11, 100_000].iter().chain(&prefix) {
            bytes.extend(number.to_le_bytes());
        }
        let choices = (0..11u32).flat_map(|own| [1, 1, 1, own]);
        bytes.extend(choices.flat_map(u32::to_le_bytes));
        assert!(decode(&bytes, 0).unwrap_err().to_string().contains("more than"));
        let choice = |own| Sequence { tokens: [&prefix[..], &[own]].concat(), from: 1 };
        let unit = Unit::Choice {
            choices: (0..11).map(choice).collect(),
            lengths: vec![1; 11],
            normalisation: Normalisation::None,
            answer: None,
        };
        assert!(encode(&unit, &mut Vec::new()).unwrap_err().to_string().contains("more than"));
    }
}
