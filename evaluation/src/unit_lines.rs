//! Units as a buyer writes them: lines of JSON, in groups.
//!
//! A line is a unit of [`zklora_integer::unit`], with a `group` if there are several. Questions may
//! give the tokens of their choices. A line with `group` and `metrics` alone says what is asked of
//! a group; without one, sequences are asked for `log_probability` and `error`, questions for
//! `accuracy`.

use std::collections::{BTreeMap, btree_map::Entry};

use serde::Deserialize;
use serde_json::{Map, Value};
use zklora_integer::unit::{self, Normalisation, Sequence, Unit};
use zklora_models::language_model::Tokenizer;

use crate::{
    Error,
    metric::Metric,
    offer::MAX_UNITS,
    request::{UnitGroup, is_name},
    unit_bytes::MAX_CHOICES,
};

/// The group of units that name none.
pub const DEFAULT_GROUP: &str = "units";

/// A choice with its tokens.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenChoice {
    tokens: Vec<u32>,
    from: usize,
    #[serde(default)]
    length: Option<usize>,
}

/// Groups with their units, and for each unit its place among the lines' units.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Groups {
    /// The groups, in the order in which they first appear.
    pub groups: Vec<UnitGroup>,
    /// For each unit of the request its index in the file.
    pub places: Vec<u64>,
}

/// Reads lines.
///
/// # Errors
/// A line is no unit, or no group.
pub fn read(lines: &str, tokenizer: Option<&Tokenizer>) -> Result<Groups, Error> {
    let mut groups: Vec<(UnitGroup, Vec<u64>, bool)> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = 0;
    for (at, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let refuse = |why: String| Error::form(&format!("line {}", at + 1), why);
        let Value::Object(mut object) =
            serde_json::from_str(line).map_err(|error| refuse(format!("no JSON: {error}")))?
        else {
            return Err(refuse("it is no JSON object".into()));
        };
        let name = match object.remove("group") {
            None => DEFAULT_GROUP.to_string(),
            Some(Value::String(name)) if is_name(&name) => name,
            Some(_) => {
                return Err(refuse(
                    "a group's name has 1 to 64 letters, digits, `.`, `_`, `-`".into(),
                ));
            }
        };
        let metrics = object.remove("metrics");
        let index = match known.entry(name) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let name = entry.key().clone();
                groups.push((UnitGroup { name, metrics: vec![], units: vec![] }, vec![], false));
                *entry.insert(groups.len() - 1)
            }
        };
        let (group, places, is_declared) = &mut groups[index];
        if let Some(metrics) = metrics {
            if !object.is_empty() {
                return Err(refuse(
                    "metrics are for a group: give them a line of their own".into(),
                ));
            }
            if *is_declared {
                return Err(refuse(format!("group {} has its metrics already", group.name)));
            }
            group.metrics = serde_json::from_value(metrics).map_err(|_| {
                let names = Metric::ALL.map(Metric::name).join(", ");
                refuse(format!("metrics are a list of: {names}"))
            })?;
            *is_declared = true;
            continue;
        }
        if count == MAX_UNITS as u64 {
            return Err(refuse(format!("more than {MAX_UNITS} units")));
        }
        group.units.push(one(object, at, tokenizer)?);
        places.push(count);
        count += 1;
    }
    let mut all = Groups::default();
    for (mut group, places, is_declared) in groups {
        if group.units.is_empty() {
            return Err(Error::form("units", format!("group {} has no units", group.name)));
        }
        if !is_declared {
            group.metrics = default_metrics(&group.units);
        }
        all.groups.push(group);
        all.places.extend(places);
    }
    if all.groups.is_empty() {
        return Err(Error::form("units", "there are none"));
    }
    Ok(all)
}

/// What is asked of a group that says nothing.
pub fn default_metrics(units: &[Unit]) -> Vec<Metric> {
    match units.first() {
        Some(Unit::Choice { normalisation: Normalisation::None, .. }) => vec![Metric::Accuracy],
        Some(Unit::Choice { .. }) => vec![Metric::AccuracyNormalised],
        _ if units.len() < 2 => vec![Metric::LogProbability],
        _ => vec![Metric::Error, Metric::LogProbability],
    }
}

fn one(
    object: Map<String, Value>,
    at: usize,
    tokenizer: Option<&Tokenizer>,
) -> Result<Unit, Error> {
    let has_tokens = matches!(
        object.get("choices"),
        Some(Value::Array(choices)) if choices.first().is_some_and(Value::is_object)
    );
    let mut unit = match has_tokens {
        true => question(object).map_err(|why| Error::form(&format!("line {}", at + 1), why))?,
        false => unit::read_line(&Value::Object(object).to_string(), at + 1, tokenizer)?,
    };
    // The length of a choice is part of the unit, and what is divided by it is a metric.
    if let Unit::Choice { choices, lengths, normalisation: Normalisation::Tokens, .. } = &mut unit {
        *lengths = choices.iter().map(|choice| choice.tokens.len() - choice.from).collect();
    }
    Ok(unit)
}

fn question(mut object: Map<String, Value>) -> Result<Unit, String> {
    let choices = object.remove("choices").unwrap_or_default();
    let choices: Vec<TokenChoice> = serde_json::from_value(choices).map_err(|error| {
        format!("choices are texts, or objects with tokens, from, length: {error}")
    })?;
    let answer = match object.remove("answer") {
        None => None,
        Some(answer) => {
            let index = answer.as_u64().filter(|at| *at < choices.len() as u64);
            Some(index.ok_or("its answer is none of the choices, counted from 0")? as usize)
        }
    };
    if let Some(name) = object.keys().next() {
        return Err(format!("a question of tokens has choices and answer, and no {name:?}"));
    }
    if choices.len() > MAX_CHOICES {
        return Err(format!("more than {MAX_CHOICES} choices"));
    }
    let lengths = choices.iter().map(|choice| choice.length.unwrap_or(1)).collect();
    let sequence = |choice: TokenChoice| {
        let TokenChoice { tokens, from, .. } = choice;
        let count = tokens.len();
        match from >= 1 && from < count {
            true => Ok(Sequence { tokens, from }),
            false => Err(format!("a choice has {count} tokens and scores from token {from}")),
        }
    };
    let choices = choices.into_iter().map(sequence).collect::<Result<_, _>>()?;
    Ok(Unit::Choice { choices, lengths, normalisation: Normalisation::None, answer })
}
