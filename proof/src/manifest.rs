//! The published description of an adapter: shapes, bit widths, public scales and commitments
//! (docs/protocol.md, "Manifest and adapter id").
//!
//! A manifest is canonical JSON: sorted keys, no white space, one encoding per value. Its BLAKE3 is
//! the adapter id that the user pins. This module has the document and the rules for its fields.
//! The prover and the verifier take only a `CheckedManifest`, which obeys all rules.

use group::{GroupEncoding, prime::PrimeCurveAffine};
use serde::{Deserialize, Serialize};

use crate::{Error, error::manifest as refuse, field::G1Affine, layout::columns_for};

/// The `format` field of every manifest.
pub const FORMAT: &str = "zklora-manifest";
/// The `version` field of every manifest that this build reads and writes.
pub const VERSION: u32 = 1;
/// Largest manifest that is parsed, in bytes.
pub const MAX_BYTES: usize = 1 << 27;
/// Most modules of an adapter.
pub const MAX_MODULES: usize = 1 << 16;
/// Most pairs (rank components, biases, scales) of an adapter.
pub const MAX_PAIRS: usize = 1 << 20;
/// Largest input or output dimension. A verifier spends memory on each feature of the longest
/// vector, even if the module was never called.
pub const MAX_DIM: usize = 1 << 20;
/// Most tensors that a manifest names as left out.
pub const MAX_LEFT_OUT: usize = 1 << 16;
/// Longest module or input name, in bytes.
pub const MAX_NAME: usize = 512;
/// Names that an input cannot have: traces use them for other tensors.
pub const RESERVED_INPUTS: [&str; 3] = ["one", "scale", "delta"];
/// Widest activation integer, sign included. The projection relies on it.
pub const MAX_X_BITS: u32 = 24;
/// Widest weight integer, sign included.
pub const MAX_WEIGHT_BITS: u32 = 24;
/// Most bits of a delta's magnitude: |D| < 2^63.
pub const MAX_DELTA_BITS: u32 = 63;

/// A compressed commitment, as 96 hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Point(pub [u8; 48]);

impl Point {
    /// The bytes of a point.
    pub fn of(point: &G1Affine) -> Self {
        let mut bytes = [0u8; 48];
        bytes.copy_from_slice(point.to_bytes().as_ref());
        Self(bytes)
    }
}

impl std::fmt::Debug for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for Point {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let mut bytes = [0u8; 48];
        hex::decode_to_slice(text.as_bytes(), &mut bytes)
            .map_err(|_| serde::de::Error::custom("a commitment is not 96 hex digits"))?;
        Ok(Point(bytes))
    }
}

/// The base model that the adapter is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseModel {
    /// Digest of the base model's weights, as hex, if the contributor had them.
    pub fingerprint: Option<String>,
    /// Name, as in the adapter's configuration.
    pub name: String,
}

/// One input of a module: rows of `dim` features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Features of a row.
    pub dim: usize,
    /// Name, unique within the module, without dots and none of [`RESERVED_INPUTS`].
    pub name: String,
}

/// The kinds of terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TermKind {
    /// `X · A · B`: `rank` pairs with both sides committed.
    LowRank,
    /// `2^shift · w · b`, where `w` is the integer that stands for 1 at the row's scale: one pair,
    /// no A side.
    Bias,
    /// `2^shift · y ∘ g`: one pair, no B side; its public vector contains γ.
    Scale,
}

/// Parses the commitments of a side. Each vector has at least one commitment: an empty list takes
/// three bytes of a file and many of memory.
fn vectors<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<Point>>, D::Error> {
    struct Vectors;
    impl<'de> serde::de::Visitor<'de> for Vectors {
        type Value = Vec<Vec<Point>>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of lists of commitments")
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut list: A,
        ) -> Result<Self::Value, A::Error> {
            let mut vectors = Vec::new();
            while let Some(vector) = list.next_element::<Vec<Point>>()? {
                if vector.is_empty() {
                    return Err(serde::de::Error::custom("a vector has no commitments"));
                }
                vectors.push(vector);
            }
            Ok(vectors)
        }
    }
    deserializer.deserialize_seq(Vectors)
}

/// One summand of a module's map, with its commitments: `a[j][column]`, `b[j][column]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// Commitments to the A side: one list of columns per pair; empty for a bias.
    #[serde(deserialize_with = "vectors")]
    pub a: Vec<Vec<Point>>,
    /// Commitments to the B side: one list of columns per pair; empty for a scale.
    #[serde(deserialize_with = "vectors")]
    pub b: Vec<Vec<Point>>,
    /// Index of the input that the term reads; none for a bias.
    pub input: Option<usize>,
    /// The kind.
    pub kind: TermKind,
    /// Number of pairs: the LoRA rank, or 1.
    pub rank: usize,
    /// Public power of two of a bias or scale; 0 for low rank.
    pub shift: u32,
}

/// One module: `delta ≈ D · row_scale · scaling · 2^scale_log2`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// |A| < 2^(a_bits − 1).
    pub a_bits: u32,
    /// |B| < 2^(b_bits − 1).
    pub b_bits: u32,
    /// Output features.
    pub d_out: usize,
    /// |D| < 2^delta_bits for every row: the certified bound, rounded up to a power of two.
    pub delta_bits: u32,
    /// Inputs, in the order of the trace.
    pub inputs: Vec<Input>,
    /// Name, unique in the adapter.
    pub name: String,
    /// Exponent of the public power of two in the output scale.
    pub scale_log2: i32,
    /// Public LoRA scaling (alpha / r, or 1).
    pub scaling: f64,
    /// Summands.
    pub terms: Vec<Term>,
    /// |x| < 2^(x_bits − 1).
    pub x_bits: u32,
}

impl Module {
    /// Whether the module has a bias, so that its rows carry the integer that stands for 1.
    pub fn has_bias(&self) -> bool {
        self.terms.iter().any(|term| term.kind == TermKind::Bias)
    }

    /// Integers on the A side and on the B side of each pair of a term; 0 for a side that the kind
    /// does not have.
    pub fn side_lengths(&self, term: &Term) -> (usize, usize) {
        let input = term.input.and_then(|input| self.inputs.get(input));
        let b = match term.kind {
            TermKind::LowRank | TermKind::Bias => self.d_out,
            TermKind::Scale => 0,
        };
        (input.map_or(0, |input| input.dim), b)
    }

    /// The output scale of a row whose activations have scale 1.
    pub fn output_scale(&self) -> f64 {
        self.scaling * power_of_two(self.scale_log2)
    }
}

fn power_of_two(exponent: i32) -> f64 {
    // Halving and doubling are exact in every binade, subnormals included.
    let step = if exponent < 0 { 0.5 } else { 2.0 };
    (0..exponent.unsigned_abs()).fold(1.0, |value, _| value * step)
}

/// The published description of an adapter. `commit::commit` builds one, and
/// `CheckedManifest::parse` reads one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The base model.
    pub base_model: BaseModel,
    /// [`FORMAT`].
    pub format: String,
    /// log₂ of the rows of a column.
    pub k: u32,
    /// Tensors of layers that were trained whole besides the adapter and that no module computes,
    /// by name, sorted. The contributor says so, and nothing else does. Not in the file if there
    /// are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Modules; their order is part of the commitment.
    pub modules: Vec<Module>,
    /// BLAKE3 of the canonical settings, hex.
    pub settings_digest: String,
    /// Digest of the SRS, hex.
    pub srs_digest: String,
    /// [`VERSION`].
    pub version: u32,
}

impl Manifest {
    /// The canonical bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self)
            .map_err(|e| Error::Internal(format!("a manifest cannot be serialised: {e}")))
    }

    /// The canonical bytes without the commitments: the mask key is bound to them.
    pub fn bytes_without_commitments(&self) -> Result<Vec<u8>, Error> {
        let mut bare = self.clone();
        for term in bare.modules.iter_mut().flat_map(|module| &mut module.terms) {
            term.a.clear();
            term.b.clear();
        }
        bare.to_bytes()
    }

    /// Checks all rules but those for the commitments.
    pub(crate) fn check_shapes(&self) -> Result<(), Error> {
        if self.format != FORMAT || self.version != VERSION {
            return Err(refuse(format!(
                "format `{}` version {}: this build reads `{FORMAT}` version {VERSION}",
                self.format, self.version
            )));
        }
        if self.modules.is_empty() || self.modules.len() > MAX_MODULES {
            return Err(refuse(format!(
                "{} modules: expected 1 to {MAX_MODULES}",
                self.modules.len()
            )));
        }
        check_name(&self.base_model.name, "the base model's name", true)?;
        if let Some(fingerprint) = &self.base_model.fingerprint {
            check_name(fingerprint, "the base model's fingerprint", false)?;
        }
        check_left_out(&self.left_out).map_err(refuse)?;
        let mut names = std::collections::HashSet::new();
        for module in &self.modules {
            check_name(&module.name, "a module's name", false)?;
            if !names.insert(module.name.as_str()) {
                return Err(refuse(format!("two modules are called `{}`", module.name)));
            }
            check_module(module)
                .map_err(|why| refuse(format!("module `{}`: {why}", module.name)))?;
        }
        Ok(())
    }

    /// Checks that each side has as many commitments as its shape requires.
    pub(crate) fn check_commitments(&self) -> Result<(), Error> {
        for module in &self.modules {
            for term in &module.terms {
                let (a_length, b_length) = module.side_lengths(term);
                let fits = |side: &[Vec<Point>], length| {
                    let (count, columns) = match length {
                        0 => (0, 0),
                        length => (term.rank, columns_for(length, self.k)),
                    };
                    side.len() == count && side.iter().all(|vector| vector.len() == columns)
                };
                if !fits(&term.a, a_length) || !fits(&term.b, b_length) {
                    return Err(refuse(format!(
                        "module `{}`: the number of commitments does not fit its shape",
                        module.name
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Checks the names of tensors that are left out: sorted, without doubles.
pub fn check_left_out(tensors: &[String]) -> Result<(), String> {
    if tensors.len() > MAX_LEFT_OUT || !tensors.is_sorted_by(|left, right| left < right) {
        return Err(format!(
            "left_out is not sorted, names a tensor twice or more than {MAX_LEFT_OUT} of them"
        ));
    }
    let check = |name: &String| check_name(name, "the name of a tensor that is left out", false);
    tensors.iter().try_for_each(check).map_err(|error| error.to_string())
}

fn check_name(name: &str, what: &str, may_be_empty: bool) -> Result<(), Error> {
    if name.len() > MAX_NAME
        || name.chars().any(char::is_control)
        || (name.is_empty() && !may_be_empty)
    {
        return Err(refuse(format!(
            "{what} is empty, longer than {MAX_NAME} bytes or has control characters: {name:.80?}"
        )));
    }
    Ok(())
}

fn check_module(module: &Module) -> Result<(), String> {
    let within = |value: u32, low: u32, high: u32, what: &str| {
        if (low..=high).contains(&value) {
            Ok(())
        } else {
            Err(format!("{what} = {value} is outside {low}..={high}"))
        }
    };
    within(module.x_bits, 2, MAX_X_BITS, "x_bits")?;
    within(module.a_bits, 2, MAX_WEIGHT_BITS, "a_bits")?;
    within(module.b_bits, 2, MAX_WEIGHT_BITS, "b_bits")?;
    within(module.delta_bits, 1, MAX_DELTA_BITS, "delta_bits")?;
    if !(-1000..=1000).contains(&module.scale_log2)
        || !module.scaling.is_finite()
        || module.scaling == 0.0
    {
        return Err(format!(
            "output scale {} · 2^{} is not a usable number",
            module.scaling, module.scale_log2
        ));
    }
    let dim_ok = |dim: usize| (1..=MAX_DIM).contains(&dim);
    if !dim_ok(module.d_out) || module.inputs.iter().any(|input| !dim_ok(input.dim)) {
        return Err(format!("a dimension is outside 1..={MAX_DIM}"));
    }
    let mut names = std::collections::HashSet::new();
    for input in &module.inputs {
        check_name(&input.name, "an input's name", false).map_err(|e| e.to_string())?;
        // The tensors of a trace are called `<module>.<input>`, `<module>.scale` and so on: no two
        // may have one name.
        if input.name.contains('.') || RESERVED_INPUTS.contains(&input.name.as_str()) {
            return Err(format!(
                "an input is called `{}`: the name has a dot or is taken by traces",
                input.name
            ));
        }
        if !names.insert(&input.name) {
            return Err(format!("two inputs are called `{}`", input.name));
        }
    }
    if module.terms.is_empty() || module.inputs.len() > 16 || module.terms.len() > 1 << 12 {
        return Err("no terms, more than 4096 terms or more than 16 inputs".into());
    }
    for term in &module.terms {
        let input_dim = match term.input {
            None => None,
            Some(index) => Some(
                module
                    .inputs
                    .get(index)
                    .ok_or("a term names an input that the module does not have")?
                    .dim,
            ),
        };
        let fits = match term.kind {
            TermKind::LowRank => {
                input_dim.is_some() && term.shift == 0 && (1..=MAX_PAIRS).contains(&term.rank)
            }
            TermKind::Bias => input_dim.is_none() && term.rank == 1 && term.shift < MAX_DELTA_BITS,
            TermKind::Scale => {
                input_dim == Some(module.d_out) && term.rank == 1 && term.shift < MAX_DELTA_BITS
            }
        };
        if !fits {
            return Err(format!(
                "a term of kind {:?} has an impossible input, rank or shift",
                term.kind
            ));
        }
    }
    Ok(())
}

/// The id of an adapter: BLAKE3 of its canonical manifest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AdapterId(pub [u8; 32]);

impl AdapterId {
    /// The id of the adapter whose manifest has these bytes.
    pub fn of(manifest_bytes: &[u8]) -> AdapterId {
        AdapterId(*blake3::hash(manifest_bytes).as_bytes())
    }
}

impl std::fmt::Display for AdapterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for AdapterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for AdapterId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut id = [0u8; 32];
        hex::decode_to_slice(text.trim(), &mut id)
            .map_err(|_| Error::AdapterId(text.chars().take(80).collect()))?;
        Ok(AdapterId(id))
    }
}

/// The commitments of every pair, in manifest order.
pub(crate) fn commitments(modules: &[Module]) -> impl Iterator<Item = (&[Point], &[Point])> {
    modules.iter().flat_map(|module| &module.terms).flat_map(|term| {
        (0..term.rank).map(|j| {
            (
                term.a.get(j).map_or(&[][..], Vec::as_slice),
                term.b.get(j).map_or(&[][..], Vec::as_slice),
            )
        })
    })
}

/// A compressed point of the prime-order group that is not the identity.
pub fn parse_point(bytes: &[u8; 48]) -> Result<G1Affine, &'static str> {
    let mut repr = <G1Affine as GroupEncoding>::Repr::default();
    repr.as_mut().copy_from_slice(bytes);
    check_not_identity(
        Option::from(G1Affine::from_bytes(&repr))
            .ok_or("is not a point of the prime-order group")?,
    )
}

/// The point of the curve that these bytes are, which may lie outside the prime-order group.
pub(crate) fn parse_on_curve(bytes: &[u8; 48]) -> Result<G1Affine, &'static str> {
    let mut repr = <G1Affine as GroupEncoding>::Repr::default();
    repr.as_mut().copy_from_slice(bytes);
    let point = Option::from(G1Affine::from_bytes_unchecked(&repr));
    check_not_identity(point.ok_or("is not a point of the prime-order group")?)
}

/// Refuses the identity: it is a commitment without masks to a column that is known to be zero.
pub(crate) fn check_not_identity(point: G1Affine) -> Result<G1Affine, &'static str> {
    if bool::from(point.is_identity()) { Err("is the identity") } else { Ok(point) }
}
