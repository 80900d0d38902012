//! Reads EZKL's settings file, and refuses settings whose proofs would be meaningless.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{VERSION, circuit_options::Visibility, interface::MAX_FEATURES};

/// Largest settings file that is read, in bytes.
pub const MAX_BYTES: u64 = 1 << 24;

/// Largest fixed-point scale: values of ±2^8 and more still fit the 32 bits that a trace has for
/// them.
const MAX_SCALE: i32 = 24;

/// Rows of a column that EZKL's circuits reserve for blinding, even without blinding. They hold no
/// parameters.
const BLINDING_ROWS: usize = 6;

#[derive(Deserialize)]
struct File {
    run_args: RunArgs,
    model_instance_shapes: Vec<Vec<usize>>,
    model_output_scales: Vec<i32>,
    model_input_scales: Vec<i32>,
    module_sizes: ModuleSizes,
    version: String,
}

#[derive(Deserialize)]
struct ModuleSizes {
    /// Number of committed values.
    polycommit: Vec<usize>,
}

#[derive(Deserialize)]
struct RunArgs {
    logrows: u32,
    input_visibility: Value,
    output_visibility: Value,
    param_visibility: Value,
    ignore_range_check_inputs_outputs: bool,
}

/// The settings of a circuit that this crate uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The circuit has 2^`logrows` rows.
    pub logrows: u32,
    /// How a proof treats the parameters.
    pub visibility: Visibility,
    /// Number of commitments that a proof begins with: columns that the parameters fill.
    pub commitments: usize,
    /// Features of each input.
    pub inputs: Vec<usize>,
    /// Features of the output.
    pub output: usize,
    /// A value in floats is `integer · 2^-input_scale`.
    pub input_scale: u32,
    /// A delta in floats is `integer · 2^-output_scale`.
    pub output_scale: u32,
}

impl Settings {
    /// Reads settings.
    ///
    /// # Errors
    /// Says what is wrong. Among others: inputs or outputs that are not public, or range checks
    /// that are switched off, either of which would make a proof meaningless.
    pub fn parse(bytes: &[u8]) -> Result<Settings, String> {
        let file: File = serde_json::from_slice(bytes)
            .map_err(|e| format!("not settings of EZKL {VERSION}: {e}"))?;
        if file.version != VERSION {
            return Err(format!(
                "settings of EZKL {:.40}, this build works with {VERSION}",
                file.version
            ));
        }
        let args = &file.run_args;
        for (what, visibility) in
            [("inputs", &args.input_visibility), ("outputs", &args.output_visibility)]
        {
            if visibility != "Public" {
                return Err(format!(
                    "the {what} are not public in this circuit, so that its proofs say nothing about a given row"
                ));
            }
        }
        if args.ignore_range_check_inputs_outputs {
            return Err(
                "range checks are switched off in this circuit (ignore_range_check_inputs_outputs)"
                    .into(),
            );
        }
        let visibility = visibility(&args.param_visibility)?;
        if !(1..=28).contains(&args.logrows) {
            return Err(format!("logrows is {}", args.logrows));
        }
        let features = |shape: &Vec<usize>| {
            let product = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
            product
                .filter(|f| (1..=MAX_FEATURES).contains(f))
                .ok_or(format!("a shape of {shape:?}"))
        };
        let shapes =
            file.model_instance_shapes.iter().map(features).collect::<Result<Vec<_>, _>>()?;
        let ([inputs @ .., output], [output_scale]) =
            (shapes.as_slice(), file.model_output_scales.as_slice())
        else {
            return Err("the circuit has not one output".into());
        };
        let Some(input_scale) = file.model_input_scales.first() else {
            return Err("the circuit has no inputs".into());
        };
        if file.model_input_scales.len() != inputs.len()
            || file.model_input_scales.iter().any(|s| s != input_scale)
        {
            return Err("its inputs do not have one scale in common".into());
        }
        let scale = |which: &str, scale: i32| match u32::try_from(scale) {
            Ok(fits) if scale <= MAX_SCALE => Ok(fits),
            _ => {
                Err(format!("the scale of its {which} is {scale}, 0 to {MAX_SCALE} are supported"))
            }
        };
        let column = (1usize << args.logrows).saturating_sub(BLINDING_ROWS);
        let commitments = match (visibility, file.module_sizes.polycommit.as_slice(), column) {
            (Visibility::Polycommit, [values], 1..) if *values > 0 => values / column + 1,
            (Visibility::Polycommit, sizes, _) => {
                return Err(format!(
                    "its parameters are committed to, but their number is {sizes:?}"
                ));
            }
            (_, [], _) => 0,
            _ => {
                return Err(
                    "this circuit commits (`polycommit`) to values that are not its parameters"
                        .into(),
                );
            }
        };
        Ok(Settings {
            logrows: args.logrows,
            visibility,
            commitments,
            inputs: inputs.to_vec(),
            output: *output,
            input_scale: scale("inputs", *input_scale)?,
            output_scale: scale("output", *output_scale)?,
        })
    }
}

fn visibility(value: &Value) -> Result<Visibility, String> {
    match value {
        Value::String(text) if text == "Private" => Ok(Visibility::Private),
        Value::String(text) if text == "Fixed" => Ok(Visibility::Fixed),
        Value::String(text) if text == "KZGCommit" => Ok(Visibility::Polycommit),
        hashed if *hashed == json!({ "Hashed": { "hash_is_public": true, "outlets": [] } }) => {
            Ok(Visibility::Hashed)
        }
        other => Err(format!(
            "its parameters have the visibility {:.80}, which is not supported",
            other.to_string()
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file() -> Value {
        json!({
            "run_args": { "logrows": 11, "input_visibility": "Public", "output_visibility": "Public",
                "param_visibility": "Private", "ignore_range_check_inputs_outputs": false, "input_scale": 10 },
            "model_instance_shapes": [[1, 16], [1, 8]], "model_output_scales": [9], "model_input_scales": [10],
            "module_sizes": { "polycommit": [], "poseidon": [0, [0]] },
            "version": VERSION, "timestamp": 1 })
    }

    fn with(path: &str, value: Value) -> String {
        let mut changed = file();
        *changed.pointer_mut(path).unwrap() = value;
        Settings::parse(changed.to_string().as_bytes()).unwrap_err()
    }

    #[test]
    fn settings_are_read_and_meaningless_ones_refused() {
        let settings = Settings::parse(file().to_string().as_bytes()).unwrap();
        assert_eq!(
            (settings.inputs.as_slice(), settings.output, settings.input_scale),
            (&[16][..], 8, 10)
        );
        for (path, value, why) in [
            ("/run_args/input_visibility", "Private".into(), "inputs are not public"),
            ("/run_args/output_visibility", "Fixed".into(), "outputs are not public"),
            ("/run_args/ignore_range_check_inputs_outputs", true.into(), "range checks"),
            (
                "/run_args/param_visibility",
                json!({"Hashed": {"hash_is_public": false, "outlets": []}}),
                "not supported",
            ),
            (
                "/run_args/param_visibility",
                json!({"Hashed": {"hash_is_public": true, "outlets": [0]}}),
                "not supported",
            ),
            ("/run_args/param_visibility", json!({"Encrypted": {}}), "not supported"),
            ("/run_args/param_visibility", "KZGCommit".into(), "their number is []"),
            ("/module_sizes/polycommit", json!([65]), "values that are not its parameters"),
            ("/run_args/logrows", 64.into(), "logrows"),
            ("/model_output_scales", json!([-3]), "scale of its output"),
            ("/model_input_scales", json!([1, 2]), "one scale in common"),
            ("/model_instance_shapes", json!([[1, 0], [8]]), "a shape"),
            ("/model_instance_shapes", json!([[u64::MAX, 9], [8]]), "a shape"),
            ("/version", "23.0.4".into(), "23.0.4"),
        ] {
            let said = with(path, value);
            assert!(said.contains(why), "{path}: {said}");
        }
        let text = file().to_string();
        let twice =
            text.replacen("\"run_args\":{", "\"run_args\":{\"input_visibility\":\"Private\",", 1);
        assert!(Settings::parse(twice.as_bytes()).unwrap_err().contains("duplicate field"));
        assert!(Settings::parse(b"{\"run_args\": NaN}").is_err());
        assert!(Settings::parse(file().to_string().replace("10]", "1e999]").as_bytes()).is_err());
    }

    #[test]
    fn settings_say_how_many_columns_the_parameters_fill() {
        // Numbers of parameters and commitments of circuits that version 23.0.5 made with 2^11
        // rows.
        for (values, commitments) in [(65, 1), (2041, 1), (2042, 2), (2049, 2), (4097, 3)] {
            let mut changed = file();
            changed["run_args"]["param_visibility"] = "KZGCommit".into();
            changed["module_sizes"]["polycommit"] = json!([values]);
            assert_eq!(
                Settings::parse(changed.to_string().as_bytes()).unwrap().commitments,
                commitments
            );
        }
    }
}
