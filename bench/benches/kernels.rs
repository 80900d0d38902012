//! Times the hot functions: `cargo bench --workspace --bench kernels`. Wall time is only meaningful
//! on an idle machine. The test `instructions` counts instructions instead.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use zklora_bench::hot_functions::hot_functions;

fn all(criterion: &mut Criterion) {
    for function in hot_functions().unwrap() {
        criterion.bench_function(function.name, |bencher| bencher.iter(|| function.run()));
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
