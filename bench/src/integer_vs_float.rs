//! Compares the time of integer deltas with the same products in `f32`, on one thread each.

use ndarray::Array2;
use zklora_artifacts::{folder::Artifacts, synthetic};
use zklora_session::deltas::Deltas;

use crate::{
    Error,
    compared::{Compared, timed},
};

/// Compares `rows` rows of every module. Modules with other terms than one of low rank are left out
/// on both sides.
pub(crate) fn compare(
    artifacts: &Artifacts,
    rows: usize,
    repetitions: usize,
) -> Result<Compared, Error> {
    let modules = artifacts.manifest.modules();
    let activations = synthetic::activations(modules, rows);
    let deltas = Deltas::new(modules, &artifacts.weights);
    let mut cases = Vec::new();
    for (m, module) in modules.iter().enumerate() {
        let Some(inputs) = activations.modules.get(&module.name).filter(|inputs| inputs.len() == 1)
        else {
            continue;
        };
        if !deltas.is_fast(m) {
            continue;
        }
        let quantized = zklora_artifacts::module_quantizer::quantized(module, &[&inputs[0]])?;
        let pairs = artifacts.weights.of_module(modules, m);
        let d_in = module.inputs[0].dim;
        let x = Array2::from_shape_fn((rows, d_in), |(row, i)| inputs[0][row * d_in + i]);
        let a = Array2::from_shape_fn((d_in, pairs.len()), |(i, j)| pairs[j].a[i] as f32);
        let b = Array2::from_shape_fn((pairs.len(), module.d_out), |(j, k)| pairs[j].b[k] as f32);
        cases.push((m, quantized, x, a, b));
    }
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let one = one.map_err(|e| Error::input(format!("a thread cannot be started: {e}")))?;
    let (mut integer_times, mut float_times) = (Vec::new(), Vec::new());
    one.install(|| {
        for _ in 0..repetitions {
            let integers = timed(|| {
                cases.iter().for_each(|(m, rows, ..)| {
                    std::hint::black_box(deltas.compute(modules, &artifacts.weights, *m, rows));
                });
                Ok::<_, Error>(())
            })?;
            let floats = timed(|| {
                cases.iter().for_each(|(_, _, x, a, b)| {
                    std::hint::black_box(x.dot(a).dot(b));
                });
                Ok::<_, Error>(())
            })?;
            integer_times.push(integers);
            float_times.push(floats);
        }
        Ok::<_, Error>(())
    })?;
    Ok(Compared::of(integer_times, float_times))
}
