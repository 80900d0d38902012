//! One safetensors file without settings: of kohya's scripts and LyCORIS, whose names are
//! `lora_unet_down_blocks_0_…to_q.lora_down.weight`, and of diffusers, whose names are
//! `unet.down_blocks.0.….to_q.lora_A.weight` or older ones.
//!
//! | tensor | of `peft` |
//! | -- | -- |
//! | `lora_down`, `lora_A`, `_lora.down`, `lora.down`, `lora_linear_layer.down` | `lora_A` |
//! | `lora_up`, … | `lora_B` |
//! | `lora_mid` | the core of a convolution, see `tucker` |
//! | `dora_scale` `[d_out, 1, …]`, `lora_magnitude_vector` | `lora_magnitude_vector` |
//! | `hada_w1_a`, …, `lokr_w1`, … | the same |
//! | `alpha` | alpha of the module; missing or 0 is the rank |
//!
//! Scaling is alpha / rank (LyCORIS writes alpha · √rank for rsLoRA), and 1 for LoKr with two whole
//! factors. diffusers may write the settings of each part of the pipeline into the header. Names of
//! modules are those of the file: kohya's do not say where their dots were.

use std::{collections::BTreeMap, path::Path};

use super::part::{Open, Part, peft_name};
use crate::{
    Error,
    adapter::{
        peft::{
            config::{Config, Keys, Ranked, Ranks, Settings, ranks_of_lora},
            dora, loha, lokr, lora,
        },
        strict_json::StrictJson,
        weights::{View, Weights},
    },
    error::quoted,
};

/// The forms that are read apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Lora,
    LoHa,
    LoKr,
}

const ALPHA: &str = ".alpha";
const DORA_SCALE: &str = ".dora_scale";

/// Ends of names of LoRA, with what `peft` calls the tensor. The first that fits counts. Those of
/// LoHa and LoKr are `peft`'s.
const ENDS: &[(&str, &str, Option<View>)] = &[
    (".lora_down.weight", lora::A, None),
    (".lora_up.weight", lora::B, None),
    (lora::A, lora::A, None),
    (lora::B, lora::B, None),
    (".lora_linear_layer.down.weight", lora::A, None),
    (".lora_linear_layer.up.weight", lora::B, None),
    (".lora.down.weight", lora::A, None),
    (".lora.up.weight", lora::B, None),
    ("_lora.down.weight", lora::A, None),
    ("_lora.up.weight", lora::B, None),
    (lora::BIAS, lora::BIAS, None),
    (lora::MID, lora::MID, None),
    (DORA_SCALE, dora::MAGNITUDE, None),
    (dora::MAGNITUDE, dora::MAGNITUDE, None),
];

/// Ends of names of what is not supported.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &[".lokr_t1"],
        "belongs to a convolution whose first factor is decomposed, which LyCORIS does not write: \
         leave the module out with --module",
    ),
    (
        &[".diff", ".diff_b", ".w_norm", ".b_norm"],
        "is a change of the base layer's own weight, trained whole (LyCORIS full or norm): leave \
         the module out with --module",
    ),
    (
        &[
            ".oft_blocks",
            ".oft_diag",
            ".rescale",
            ".a1.weight",
            ".a2.weight",
            ".b1.weight",
            ".b2.weight",
            ".bm.weight",
            ".on_input",
        ],
        "belongs to a form of LyCORIS that is not supported (OFT, BOFT, GLoRA, (IA)³); LoRA, DoRA, \
         LoHa and LoKr are",
    ),
];

/// Parts of a pipeline that diffusers writes settings of.
const COMPONENTS: &[&str] =
    &["unet", "transformer", "transformer_2", "text_encoder", "text_encoder_2"];
/// The key of the header for them.
const SETTINGS: &str = "lora_adapter_metadata";

/// What is known of a module by the names of its tensors.
struct Found {
    form: Form,
    dora: bool,
    /// A tensor of it, for messages.
    tensor: String,
    /// The tensor whose first dimension is the rank; none for LoKr with two whole factors.
    rank: Option<String>,
}

/// What `peft` calls tensors whose first dimension is the rank.
const OF_RANK: &[&str] = &[lora::A, ".hada_w1_b", ".lokr_w1_b", ".lokr_w2_b"];

pub(super) fn read(path: &Path, open: Open) -> Result<Vec<Part>, Error> {
    let paths = [path.to_owned()];
    let weights = open(&paths)?;
    let modules = modules(&weights)?;
    if modules.is_empty() {
        return Err(unknown(path, &weights));
    }
    let header = header_settings(path, &weights)?;
    let mut parts = Vec::new();
    let forms = [Form::Lora, Form::LoHa, Form::LoKr];
    for (form, dora) in forms.into_iter().flat_map(|form| [(form, false), (form, true)]) {
        for component in header.keys().map(|key| Some(*key)).chain([None]) {
            // Modules of this form, and of this part of the pipeline if the header has settings.
            let is_of = |module: &str| {
                let of = COMPONENTS.iter().find(|of| {
                    header.contains_key(**of)
                        && module.strip_prefix(**of).is_some_and(|rest| rest.starts_with('.'))
                });
                of.copied() == component
                    && modules.get(module).is_some_and(|of| (of.form, of.dora) == (form, dora))
            };
            if !modules.keys().any(|module| is_of(module)) {
                continue;
            }
            let mut all = open(&paths)?;
            let ranks = match component.and_then(|of| Some((of, header.get(of)?))) {
                Some((component, keys)) => {
                    let own = modules.keys().filter(|module| is_of(module));
                    let mut alphas = own.map(|module| format!("{module}{ALPHA}"));
                    if let Some(alpha) = alphas.find(|alpha| all.has(alpha)) {
                        let reason = "is in the file beside settings in its header, which diffusers \
                                      refuses: remove one of the two";
                        return Err(all.error(&alpha, reason));
                    }
                    if keys.flag("use_dora")? != dora {
                        let reason = "does not agree with the tensors: DoRA has magnitude vectors";
                        return Err(keys.error("use_dora", reason));
                    }
                    ranks_of_lora(keys, &format!("{component}."))?
                }
                None => {
                    let mut ranks = BTreeMap::new();
                    for (module, found) in modules.iter().filter(|(module, _)| is_of(module)) {
                        ranks.insert(module.clone(), ranked(&mut all, module, found)?);
                    }
                    Ranks::Modules(ranks)
                }
            };
            let weights = all.renamed(|name| {
                let Meaning { module, suffix, view, .. } = meaning(name)?;
                is_of(&module).then(|| (peft_name(&module, suffix), view))
            })?;
            let bias = weights.names().iter().any(|name| name.ends_with(lora::BIAS));
            let settings = match form {
                Form::Lora => Settings::Lora { ranks, bias, dora },
                Form::LoHa => Settings::LoHa { ranks, dora },
                Form::LoKr => Settings::LoKr { ranks, dora },
            };
            let name = weights.metadata("ss_sd_model_name").unwrap_or_default().to_owned();
            parts.push(Part { config: Config::of_other(path, name, settings)?, weights });
        }
    }
    Ok(parts)
}

/// What a tensor is, by its name.
struct Meaning {
    module: String,
    form: Form,
    /// What `peft` calls it.
    suffix: &'static str,
    view: Option<View>,
}

fn meaning(name: &str) -> Option<Meaning> {
    for (form, suffixes) in [(Form::LoHa, loha::SUFFIXES), (Form::LoKr, lokr::SUFFIXES)] {
        for &suffix in suffixes {
            if let Some(module) = name.strip_suffix(suffix) {
                return Some(Meaning { module: module.to_owned(), form, suffix, view: None });
            }
        }
    }
    let &(end, suffix, view) = ENDS.iter().find(|(end, ..)| name.ends_with(end))?;
    let stem = name.strip_suffix(end)?;
    // diffusers of before 2024 adapted the processors of attention.
    let processor = stem.rsplit_once(".processor.").filter(|_| end.starts_with('_'));
    let module = match processor {
        Some((attention, "to_out")) => format!("{attention}.to_out.0"),
        Some((attention, layer)) => format!("{attention}.{layer}"),
        None => stem.to_owned(),
    };
    Some(Meaning { module, form: Form::Lora, suffix, view })
}

/// All modules.
///
/// # Errors
/// A tensor is of no known kind, or of one that is not supported.
fn modules(weights: &Weights) -> Result<BTreeMap<String, Found>, Error> {
    let mut modules: BTreeMap<String, Found> = BTreeMap::new();
    let (mut others, mut magnitudes) = (Vec::new(), Vec::new());
    for name in weights.names() {
        if let Some((_, reason)) =
            REFUSED.iter().find(|(ends, _)| ends.iter().any(|end| name.ends_with(end)))
        {
            return Err(weights.error(&name, *reason));
        }
        let Some(Meaning { module, form, suffix, .. }) = meaning(&name) else {
            others.push(name);
            continue;
        };
        let is_magnitude = suffix == dora::MAGNITUDE;
        // LyCORIS also has magnitudes of the inputs, `[1, d_in]`.
        if name.ends_with(DORA_SCALE)
            && matches!(weights.shape(&name)?.as_slice(), [1, rest @ ..] if rest.iter().any(|&size| size != 1))
        {
            let reason = "holds magnitudes of the inputs (wd_on_out=False), which is not supported: \
                          train with wd_on_out, or leave the module out with --module";
            return Err(weights.error(&name, reason));
        }
        if is_magnitude {
            magnitudes.push((module, name));
            continue;
        }
        let new = Found { form, dora: false, tensor: name.clone(), rank: None };
        let found = modules.entry(module).or_insert(new);
        if found.form != form {
            let reason = format!("and {} are of two forms in one module", quoted(&found.tensor));
            return Err(weights.error(&name, reason));
        }
        if OF_RANK.contains(&suffix) {
            found.rank = Some(name);
        }
    }
    for (module, name) in magnitudes {
        match modules.get_mut(&module) {
            Some(found) => found.dora = true,
            None => others.push(name),
        }
    }
    // An alpha belongs to a module; anything else could change more than the deltas.
    let is_alpha =
        |name: &String| name.strip_suffix(ALPHA).is_some_and(|of| modules.contains_key(of));
    match others.iter().find(|name| !is_alpha(name)) {
        Some(other) if !modules.is_empty() => {
            let reason = "is none of an adapter's tensors (lora_down, lora_up, alpha, dora_scale, \
                          hada_*, lokr_*, lora_A, lora_B): leave its module out with --module";
            Err(weights.error(other, reason))
        }
        _ => Ok(modules),
    }
}

/// Rank and scaling of a module, as its tensors say.
fn ranked(weights: &mut Weights, module: &str, found: &Found) -> Result<Ranked, Error> {
    let Some(tensor) = &found.rank else {
        // Two whole factors; or a tensor is missing, which the reader of modules says.
        return Ok(Ranked { rank: 1, scaling: 1.0 });
    };
    let rank = weights.shape(tensor)?.first().copied().unwrap_or(0);
    let alpha_name = format!("{module}{ALPHA}");
    let alpha = match weights.has(&alpha_name) {
        true => match weights.read_f32(&alpha_name)?.as_slice() {
            &[alpha] if alpha.is_finite() => f64::from(alpha),
            _ => return Err(weights.error(&alpha_name, "must be one number, which is finite")),
        },
        false => 0.0,
    };
    let alpha = if alpha == 0.0 { rank as f64 } else { alpha };
    Ranked::new(rank, alpha / rank.max(1) as f64)
        .map_err(|reason| weights.error(&alpha_name, reason))
}

/// The settings that diffusers wrote into the header, by part of the pipeline.
fn header_settings<'a>(
    path: &'a Path,
    weights: &Weights,
) -> Result<BTreeMap<&'static str, Keys<'a>>, Error> {
    let Some(text) = weights.metadata(SETTINGS) else { return Ok(BTreeMap::new()) };
    let malformed = |reason: String| Error::Safetensors {
        path: path.to_owned(),
        reason: format!("{SETTINGS} in its header: {reason}"),
    };
    let StrictJson::Object(entries) = StrictJson::parse(text.as_bytes()).map_err(&malformed)?
    else {
        return Err(malformed("it is not an object".into()));
    };
    let mut settings = BTreeMap::new();
    for component in COMPONENTS {
        let of = |(key, value): &(String, StrictJson)| {
            let key = key.strip_prefix(component)?.strip_prefix('.')?;
            Some((key.to_owned(), value.clone()))
        };
        let own: Vec<(String, StrictJson)> = entries.iter().filter_map(of).collect();
        if !own.is_empty() {
            settings.insert(*component, Keys { path, entries: own });
        }
    }
    Ok(settings)
}

/// A file that is no adapter of a known format.
fn unknown(path: &Path, weights: &Weights) -> Error {
    let names = weights.names();
    let has = |test: &dyn Fn(&str) -> bool| names.iter().any(|name| test(name));
    let refuse = |what: &str, hint: &str| Error::Format {
        path: path.to_owned(),
        what: what.into(),
        hint: hint.into(),
    };
    if has(&|name| name.ends_with(".lora_a")) {
        return refuse(
            "these are the weights of an MLX adapter without their settings",
            "pass the folder, with adapter_config.json beside adapters.safetensors",
        );
    }
    match names.as_slice() {
        [] => refuse("this file has no tensors", "save the adapter again"),
        _ => refuse(
            "no tensor of this file is one of an adapter",
            "pass the folder that peft's save_pretrained wrote; the weights of a whole model are no \
             adapter",
        ),
    }
}
