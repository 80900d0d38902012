//! A trace that is written in pieces is the one that is written at once, and one that is not whole
//! is never there.
#![allow(clippy::unwrap_used)]

use std::{collections::HashMap, fs, path::Path};

use proptest::prelude::*;
use safetensors::{Dtype, tensor::TensorView};
use zklora_artifacts::{
    module_rows::ModuleRows, trace_reader::TraceReader, trace_writer::TraceWriter,
};
use zklora_proof::manifest::{AdapterId, Input, Module, Term, TermKind};

const ID: AdapterId = AdapterId([3; 32]);
const SESSION: [u8; 32] = [9; 32];

fn module(name: &str, dims: &[usize], has_bias: bool, d_out: usize) -> Module {
    let term = |kind, input| Term { a: Vec::new(), b: Vec::new(), input, kind, rank: 1, shift: 0 };
    let bias = has_bias.then(|| term(TermKind::Bias, None));
    Module {
        a_bits: 8,
        b_bits: 8,
        d_out,
        delta_bits: 40,
        inputs: dims
            .iter()
            .enumerate()
            .map(|(i, dim)| Input { dim: *dim, name: format!("in{i}") })
            .collect(),
        name: name.into(),
        scale_log2: 0,
        scaling: 1.0,
        terms: [term(TermKind::LowRank, Some(0))].into_iter().chain(bias).collect(),
        x_bits: 12,
    }
}

/// Rows `from..to` of a module, without their deltas.
fn rows(module: &Module, from: usize, to: usize) -> (ModuleRows, Vec<i64>) {
    let numbers = |width: usize, salt: usize| {
        (from * width..to * width).map(move |at| (at * 31 + salt) as i32 - 50)
    };
    let rows = ModuleRows {
        inputs: module
            .inputs
            .iter()
            .enumerate()
            .map(|(i, input)| numbers(input.dim, i).collect())
            .collect(),
        ones: if module.has_bias() { numbers(1, 7).collect() } else { Vec::new() },
        scales: (from..to).map(|row| row as f32 / 3.0).collect(),
        delta: Vec::new(),
    };
    (rows, numbers(module.d_out, 11).map(|d| i64::from(d) * 12345).collect())
}

/// The file as the `safetensors` crate writes it from memory.
fn reference(modules: &[Module], counts: &[usize]) -> Vec<u8> {
    let all: Vec<_> = modules.iter().zip(counts).map(|(module, n)| rows(module, 0, *n)).collect();
    let mut tensors: Vec<(String, TensorView<'_>)> = Vec::new();
    for ((module, n), (rows, delta)) in
        modules.iter().zip(counts).zip(&all).filter(|((_, n), _)| **n > 0)
    {
        let mut add = |suffix: &str, dtype, shape: Vec<usize>, data| {
            tensors.push((
                format!("{}.{suffix}", module.name),
                TensorView::new(dtype, shape, data).unwrap(),
            ));
        };
        for (input, values) in module.inputs.iter().zip(&rows.inputs) {
            add(&input.name, Dtype::I32, vec![*n, input.dim], bytemuck::cast_slice(values));
        }
        if module.has_bias() {
            add("one", Dtype::I32, vec![*n], bytemuck::cast_slice(&rows.ones));
        }
        add("scale", Dtype::F32, vec![*n], bytemuck::cast_slice(&rows.scales));
        add("delta", Dtype::I64, vec![*n, module.d_out], bytemuck::cast_slice(delta));
    }
    let metadata = [
        ("format", "zklora-trace".to_string()),
        ("version", "1".to_string()),
        ("adapter_id", ID.to_string()),
        ("session_id", hex::encode(SESSION)),
    ];
    let metadata: HashMap<String, String> =
        metadata.map(|(key, value)| (key.to_string(), value)).into();
    with_sorted_metadata(&safetensors::serialize(tensors, Some(metadata)).unwrap())
}

/// That crate writes its metadata in an order that changes from call to call.
fn with_sorted_metadata(file: &[u8]) -> Vec<u8> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_string();
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header = text(&file[8..8 + length]);
    let (begin, rest) = header.split_once(r#""__metadata__":{"#).unwrap();
    let (metadata, rest) = rest.split_once('}').unwrap();
    let mut entries: Vec<&str> = metadata.split(',').collect();
    entries.sort_unstable();
    let header = format!("{begin}\"__metadata__\":{{{}}}{rest}", entries.join(","));
    [&file[..8], header.as_bytes(), &file[8 + length..]].concat()
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn shapes() -> impl Strategy<Value = Vec<(Module, usize)>> {
    let name = "[a-c.\"\\\\é]{0,6}";
    let one = (name, prop::collection::vec(1usize..6, 1..4), any::<bool>(), 1usize..6, 0usize..40);
    prop::collection::vec(one, 1..6).prop_map(|all| {
        let named = all.into_iter().enumerate();
        named
            .map(|(at, (name, dims, bias, d_out, n))| {
                (module(&format!("{name}{at}"), &dims, bias, d_out), n)
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The file does not depend on how the rows are split: it has the bytes that
    /// `SessionRows::write` writes, and reading gives the rows that were written.
    #[test]
    fn pieces_give_the_file_that_is_written_at_once(shapes in shapes(), steps in prop::collection::vec((any::<prop::sample::Index>(), 1usize..9), 0..400)) {
        let (modules, counts): (Vec<Module>, Vec<usize>) = shapes.into_iter().unzip();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.safetensors");
        let mut writer = TraceWriter::create(&path, ID, SESSION, &modules, &counts).unwrap();
        let mut written = vec![0; modules.len()];
        let rest = (0..modules.len()).map(|m| (m, usize::MAX));
        let steps: Vec<_> = steps.iter().map(|(m, most)| (m.index(modules.len()), *most)).chain(rest).collect();
        for (m, most) in steps {
            let to = counts[m].min(written[m] + most.min(counts[m]));
            let (rows, delta) = rows(&modules[m], written[m], to);
            writer.push(m, &rows, &delta).unwrap();
            written[m] = to;
        }
        prop_assert!(!path.exists());
        writer.finish().unwrap();
        prop_assert_eq!(names_in(folder.path()), ["trace.safetensors"]);
        let bytes = fs::read(&path).unwrap();
        prop_assert_eq!(&bytes, &reference(&modules, &counts));
        let all = TraceReader::open(&path, ID, &modules).unwrap().read_all().unwrap();
        prop_assert_eq!((all.adapter, all.session), (ID, SESSION));
        for ((module, found), n) in modules.iter().zip(&all.modules).zip(&counts) {
            let (expected, delta) = rows(module, 0, *n);
            prop_assert_eq!(found, &ModuleRows { delta, ..expected });
        }
    }
}

#[test]
fn large_rows_are_written_past_the_buffer() {
    // Pieces of more and of less than what waits, in turn.
    let modules = [module("wide", &[3000], false, 2000), module("narrow", &[2], true, 1)];
    let counts = [90, 70_000];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let mut writer = TraceWriter::create(&path, ID, SESSION, &modules, &counts).unwrap();
    for (m, ends) in [(0, vec![1, 2, 40, 41, 90]), (1, vec![5, 60_000, 60_001, 70_000])] {
        let mut from = 0;
        for to in ends {
            let (rows, delta) = rows(&modules[m], from, to);
            writer.push(m, &rows, &delta).unwrap();
            from = to;
        }
    }
    writer.finish().unwrap();
    assert!(fs::read(&path).unwrap() == reference(&modules, &counts));
}

#[test]
fn rows_that_do_not_fit_are_refused_by_name_and_harm_nothing() {
    let modules = [module("a", &[2, 3], true, 4)];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let mut writer = TraceWriter::create(&path, ID, SESSION, &modules, &[3]).unwrap();
    let (good, delta) = rows(&modules[0], 0, 2);
    writer.push(0, &good, &delta).unwrap();
    let mut refuse = |m: usize, rows: &ModuleRows, delta: &[i64], why: &str| {
        let error = writer.push(m, rows, delta).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("trace"), "{error}");
    };
    refuse(0, &good, &delta, "module `a`: 2 rows after 2 of 3");
    refuse(1, &good, &delta, "rows of module 1, and it has 1 modules");
    let (last, delta) = rows(&modules[0], 2, 3);
    refuse(0, &last, &delta[1..], "3 values of deltas for 1 rows of 4");
    let changed = |change: fn(&mut ModuleRows)| {
        let mut rows = last.clone();
        change(&mut rows);
        rows
    };
    refuse(0, &changed(|rows| drop(rows.inputs.pop())), &delta, "1 inputs, expected 2");
    refuse(
        0,
        &changed(|rows| rows.inputs[1].push(1)),
        &delta,
        "4 values of an input for 1 rows of 3",
    );
    refuse(
        0,
        &changed(|rows| rows.ones.clear()),
        &delta,
        "0 values of the constant 1 for 1 rows of 1",
    );
    refuse(0, &changed(|rows| rows.scales.clear()), &delta, "values of an input for 0 rows");
    writer.push(0, &last, &delta).unwrap();
    writer.finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), reference(&modules, &[3]));
}

#[test]
fn a_trace_without_all_its_rows_is_never_there() {
    let modules = [module("a", &[2], false, 1), module("b", &[2], false, 1)];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    fs::write(&path, "the one before").unwrap();
    let mut writer = TraceWriter::create(&path, ID, SESSION, &modules, &[1, 2]).unwrap();
    for (m, n) in [(0, 1), (1, 1)] {
        let (rows, delta) = rows(&modules[m], 0, n);
        writer.push(m, &rows, &delta).unwrap();
    }
    let temporary = names_in(folder.path());
    assert!(
        temporary[0].starts_with(".zklora-") && temporary[0].ends_with(".tmp"),
        "{temporary:?}"
    );
    let error = writer.finish().unwrap_err().to_string();
    assert!(error.contains("module `b`: 1 rows were written of 2"), "{error}");
    assert_eq!(names_in(folder.path()), ["trace"]);
    drop(TraceWriter::create(&path, ID, SESSION, &modules, &[1, 2]).unwrap());
    assert_eq!(
        (names_in(folder.path()), fs::read(&path).unwrap()),
        (vec!["trace".into()], b"the one before".to_vec())
    );
}

#[test]
fn what_cannot_be_a_trace_is_not_begun() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let refuse = |path: &Path, modules: &[Module], counts: &[usize], why: &str| {
        let error =
            TraceWriter::create(path, ID, SESSION, modules, counts).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    let one = || module("a", &[2], false, 1);
    refuse(&path, &[one()], &[1, 1], "2 numbers of rows for 1 modules");
    refuse(&path, &[one(), one()], &[1, 1], "two of its tensors have the name `a.delta`");
    refuse(&path, &[one()], &[usize::MAX / 2], "bytes: no trace so large is read");
    refuse(&path, &[one()], &[(64 << 30) / 8], "bytes: no trace so large is read");
    refuse(&folder.path().join("none/trace"), &[one()], &[1], "its folder does not exist");
    assert!(names_in(folder.path()).is_empty());
}

#[cfg(unix)]
#[test]
fn only_its_owner_can_read_a_trace() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    TraceWriter::create(&path, ID, SESSION, &[module("a", &[2], false, 1)], &[0])
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}
