//! Runs the measurement: fits on one part of a text, losses on another.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use zklora_artifacts::folder::Artifacts;
use zklora_models::language_model::{LanguageModel, Tokenizer, loss};
use zklora_session::adapter::ServedAdapter;

use super::{
    measurement::{FORMAT, Measurement, Recovered, Spread, VERSION},
    probe::{Distance, Pass, Probe},
};
use crate::{Error, infer};

/// Longest text that is read, in bytes.
const MAX_TEXT: u64 = 64 << 20;
/// Fewest tokens that give rows.
const LEAST_ROWS: usize = 16;
/// Fewest tokens that are held out. A loss over fewer tokens says little.
const LEAST_HELD_OUT: usize = 64;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// The base model, ONNX.
    pub base: PathBuf,
    /// Its tokenizer. `None` is `tokenizer.json` beside the base model.
    pub tokenizer: Option<PathBuf>,
    /// The folder of its weights, to compare fingerprints.
    pub base_weights: Option<PathBuf>,
    /// Accept another base model than the adapter is for.
    pub allow_other_base: bool,
    /// Layers that are not found by name: module and ONNX tensor.
    pub maps: Vec<(String, String)>,
    /// The text that the rows are of.
    pub text: PathBuf,
    /// The text that is held out. `None` is the rest of `text`.
    pub held_out: Option<PathBuf>,
    /// Most rows per module.
    pub rows: usize,
    /// Most tokens that are held out.
    pub held_out_tokens: usize,
    /// Tokens per window.
    pub context: usize,
}

/// Measures an adapter. Writes nothing.
///
/// # Errors
/// A base model, tokenizer or text that cannot be used, another base model than the adapter's, or a
/// text that is too short.
pub fn measure(
    artifacts: Artifacts,
    options: &Options,
    progress: &mut dyn FnMut(String),
) -> Result<Measurement, Error> {
    let tokenizer = infer::tokenizer(&options.base, options.tokenizer.as_deref())?;
    let (tokens, digest) = encode(&tokenizer, &options.text)?;
    let other = options.held_out.as_deref().map(|file| encode(&tokenizer, file)).transpose()?;
    let (seen, held_out) = split(options, &tokens, other.as_ref().map(|(tokens, _)| &tokens[..]))?;
    let sizes: Vec<usize> =
        std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n <= seen.len()).collect();

    progress(format!("load {}", options.base.display()));
    let name = artifacts.folder.display().to_string();
    let points = infer::points(&[(&name, &artifacts.manifest)], &options.maps)?;
    let injections: Vec<_> = points.iter().map(|point| point.injection.clone()).collect();
    let artifacts = Arc::new(ServedAdapter::new(artifacts));
    let probe = Arc::new(Probe::new(Arc::clone(&artifacts), points, seen));
    let model = LanguageModel::load(&options.base, &injections, Arc::clone(&probe) as _)?;
    if !options.allow_other_base {
        let fingerprint = infer::fingerprint(options.base_weights.as_deref(), model.metadata())?;
        infer::compare(&name, &artifacts.manifest, fingerprint.as_deref())?;
    }
    let context = model.max_tokens().map_or(options.context, |most| most.min(options.context));
    let loss = |pass: Pass| -> Result<f64, Error> {
        probe.turn(pass);
        let windows = loss(&model, held_out, context)?;
        let tokens: usize = windows.iter().map(|window| window.tokens).sum();
        let mean = windows.iter().map(|window| window.nll).sum::<f64>() / tokens.max(1) as f64;
        // JSON has no NaN, and no share of it could be computed.
        if mean.is_finite() {
            Ok(mean)
        } else {
            Err(Error::input("the model's loss on this text is not a number"))
        }
    };

    progress(format!("{} rows a module", seen.len()));
    probe.turn(Pass::Watched);
    seen.chunks(context).try_for_each(|window| model.logits(window).map(|_| ()))?;
    progress("fit every module".into());
    probe.fit();
    progress("held-out text: base model".into());
    let base_loss = loss(Pass::Base)?;
    progress("held-out text: with the adapter".into());
    let adapted_loss = loss(Pass::Compared(sizes.clone()))?;
    let distances = probe.distances();
    let gain = base_loss - adapted_loss;
    let mut recovered = Vec::new();
    for (index, &rows) in sizes.iter().enumerate() {
        progress(format!("held-out text: with what {rows} rows a module give"));
        let loss = loss(Pass::Stolen(rows))?;
        let gain = (gain > 0.0).then(|| (base_loss - loss) / gain);
        recovered.push(Recovered { rows, loss, gain, energy: energy(&distances, index) });
    }
    Ok(Measurement {
        format: FORMAT.into(),
        version: VERSION,
        adapter_id: artifacts.manifest.id().to_string(),
        base_model: artifacts.manifest.contents().base_model.name.clone(),
        held_out: other.as_ref().map_or_else(|| digest.clone(), |(_, digest)| digest.clone()),
        text: digest,
        held_out_tokens: held_out.len(),
        context,
        modules: distances.iter().filter(|distance| !distance.errors.is_empty()).count(),
        base_loss,
        adapted_loss,
        recovered,
    })
}

/// The tokens of a text file, and its digest.
fn encode(tokenizer: &Tokenizer, file: &Path) -> Result<(Vec<u32>, String), Error> {
    let bytes = zklora_files::read(file, MAX_TEXT)?;
    let digest = blake3::hash(&bytes).to_hex().to_string();
    let text = String::from_utf8(bytes).map_err(|_| Error::file(file, "not text in UTF-8"))?;
    Ok((tokenizer.encode(&text)?, digest))
}

/// Tokens whose rows are seen, and tokens that are held out.
fn split<'a>(
    options: &Options,
    tokens: &'a [u32],
    other: Option<&'a [u32]>,
) -> Result<(&'a [u32], &'a [u32]), Error> {
    let short = |file: &Path, tokens: usize, least: usize, what: &str| {
        Err(Error::file(
            file,
            format!("{tokens} tokens are too few: {what} at least {least}. Name a longer text"),
        ))
    };
    let (seen, rest) = match other {
        Some(other) => (tokens, other),
        // A short text is split in half.
        None => tokens.split_at(options.rows.min(tokens.len() / 2)),
    };
    match (&options.held_out, seen.len(), rest.len()) {
        (None, _, rest) if rest < LEAST_HELD_OUT => {
            let what = "one half gives rows and the other is held out, which takes";
            return short(&options.text, tokens.len(), 2 * LEAST_HELD_OUT, what);
        }
        (Some(file), _, rest) if rest < LEAST_HELD_OUT => {
            return short(file, rest, LEAST_HELD_OUT, "a loss takes");
        }
        (Some(_), seen, _) if seen < LEAST_ROWS => {
            return short(&options.text, seen, LEAST_ROWS, "rows take");
        }
        _ => {}
    }
    Ok((&seen[..seen.len().min(options.rows)], &rest[..rest.len().min(options.held_out_tokens)]))
}

/// The share of the deltas' energy that the fits of a size give, over the modules that have any.
fn energy(distances: &[Distance], index: usize) -> Option<Spread> {
    let shares = distances.iter().filter(|distance| distance.deltas > 0.0);
    Spread::of(
        shares
            .filter_map(|distance| Some(1.0 - distance.errors.get(index)? / distance.deltas))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn options(held_out: Option<&str>, rows: usize) -> Options {
        Options {
            base: "model.onnx".into(),
            tokenizer: None,
            base_weights: None,
            allow_other_base: false,
            maps: vec![],
            text: "text.txt".into(),
            held_out: held_out.map(PathBuf::from),
            rows,
            held_out_tokens: 100,
            context: 64,
        }
    }

    #[test]
    fn a_text_is_split_and_one_that_is_too_short_is_refused_by_name() {
        let tokens: Vec<u32> = (0..1000).collect();
        let (seen, rest) = split(&options(None, 300), &tokens, None).unwrap();
        assert_eq!((seen, rest), (&tokens[..300], &tokens[300..400]));
        let (seen, rest) = split(&options(None, 512), &tokens[..140], None).unwrap();
        assert_eq!((seen.len(), rest.len()), (70, 70));
        let (seen, rest) =
            split(&options(Some("other.txt"), 512), &tokens[..20], Some(&tokens)).unwrap();
        assert_eq!((seen.len(), rest.len()), (20, 100));
        let refused = |options: Options, tokens: &[u32], other: Option<&[u32]>, why: &str| {
            let error = split(&options, tokens, other).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        refused(options(None, 512), &tokens[..126], None, "text.txt: 126 tokens are too few");
        refused(options(None, 512), &[], None, "text.txt: 0 tokens are too few");
        refused(
            options(Some("other.txt"), 512),
            &tokens[..15],
            Some(&tokens),
            "text.txt: 15 tokens are too few",
        );
        refused(
            options(Some("other.txt"), 512),
            &tokens,
            Some(&tokens[..63]),
            "other.txt: 63 tokens are too few",
        );
    }

    #[test]
    fn energy_is_over_modules_that_have_deltas() {
        let distance = |deltas, errors: &[f64]| Distance { deltas, errors: errors.to_vec() };
        let all = [
            distance(2.0, &[1.0, 0.0]),
            distance(0.0, &[0.0, 0.0]),
            distance(0.0, &[]),
            distance(4.0, &[4.0, 1.0]),
        ];
        assert_eq!(energy(&all, 1), Some(Spread { least: 0.75, median: 0.875, most: 1.0 }));
        assert_eq!(energy(&all[1..3], 0), None);
    }
}
