//! Times of the kernels: `cargo bench --workspace`. Wall time, so only on a quiet machine; the test
//! `instructions` counts instead.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use zklora_bench::kernels::kernels;

fn all(criterion: &mut Criterion) {
    for kernel in kernels().unwrap() {
        criterion.bench_function(kernel.name, |bencher| bencher.iter(|| kernel.run()));
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
