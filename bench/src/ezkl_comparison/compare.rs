//! Runs both systems, one after the other.

use zklora_ezkl::Python;
use zklora_files::Access;

use super::{
    comparison::{Comparison, ratios},
    ezkl_side, native_side,
    run::{Options, Run},
};
use crate::Error;

/// Runs both systems. A stage that fails or hits a limit is reported and ends its system's run.
/// Invalid input is an error.
pub fn compare(
    options: &Options<'_>,
    python: &Python,
    progress: &mut dyn FnMut(&str),
) -> Result<Comparison, Error> {
    let scratch = zklora_files::scratch()?;
    let adapter = zklora_models::Adapter::load_with_base(options.adapter, options.base)?;
    let Some(module) = adapter.modules.iter().find(|module| module.name == options.module) else {
        let names: Vec<&str> = adapter.modules.iter().map(|m| m.name.as_str()).take(8).collect();
        return Err(Error::input(format!(
            "the adapter has no module `{}`; it has {}",
            options.module,
            names.join(", ")
        )));
    };
    // A missing package is an error of the input, not a failed stage.
    drop(zklora_ezkl::child::Ezkl::start(python, scratch.path())?);
    zklora_files::create_folder(&scratch.path().join("onnx"), Access::Private)?;
    let mut run = Run { options, python, folder: scratch.path(), adapter: &adapter, progress };
    let rows = run.activations(module);
    let native = native_side::run(&mut run, &rows)?;
    let (ezkl, ezkl_srs_seconds) = ezkl_side::run(&mut run, &native.1, &rows)?;
    let native = native.0;
    let ratios = ratios(&native, &ezkl);
    Ok(Comparison {
        module: format!("{} {}", module.name, shape(module)),
        rows: options.rows,
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        limit_seconds: python.timeout.as_secs_f64(),
        circuit: options.circuit.clone(),
        native,
        ezkl,
        ezkl_srs_seconds,
        ratios,
    })
}

fn shape(module: &zklora_models::AdapterModule) -> String {
    let dims: usize = module.inputs.iter().map(|input| input.dim).sum();
    format!("{dims}→{}", module.d_out)
}
