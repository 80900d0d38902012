//! Opens a base model as a folder of shards, and computes its fingerprint, which depends on the
//! weights and not on the files that hold them.
//!
//! Must not know about adapters or about the meaning of tensors.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    Error,
    adapter::{strict_json::StrictJson, tensor_file::TensorFile},
    error::quoted,
};

/// Longest `model.safetensors.index.json`, in bytes.
const MAX_INDEX: u64 = 64 << 20;

#[derive(Deserialize)]
struct ShardIndex {
    /// Tensor name to file name.
    weight_map: BTreeMap<String, String>,
}

/// BLAKE3 of the tensors of a base model folder as Hugging Face saves it, as 64 hexadecimal digits.
///
/// The hash covers every tensor, in the bytewise order of names: name (UTF-8), type (as in the
/// safetensors header, `F32`), shape (each dimension as u64), content. Each of the four is preceded
/// by its length in bytes as u64; all integers are little-endian. The same weights in one
/// `model.safetensors` or in shards have the same fingerprint; the files' metadata is not part of
/// it. Tensors are read a piece at a time.
///
/// # Errors
/// The folder has neither `model.safetensors` nor `model.safetensors.index.json`, a file is
/// malformed, or a tensor is in two shards or not in the shard that the index names.
pub fn fingerprint(base_dir: &Path) -> Result<String, Error> {
    let mut shards = open_shards(base_dir)?;
    let mut tensors: Vec<(String, usize)> = shards
        .iter()
        .enumerate()
        .flat_map(|(at, shard)| shard.names().into_iter().map(move |name| (name, at)))
        .collect();
    tensors.sort_unstable();
    if let Some(pair) = tensors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let reason = "is also in another file of the model; save the model again".into();
        return Err(shards[pair[1].1].tensor_error(&pair[1].0, reason));
    }
    let mut hasher = blake3::Hasher::new();
    for (name, shard) in tensors {
        let shard = &mut shards[shard];
        let info = shard.info(&name)?;
        let shape: Vec<u8> =
            info.shape.iter().flat_map(|&dim| (dim as u64).to_le_bytes()).collect();
        for part in [name.as_bytes(), info.dtype.to_string().as_bytes(), &shape] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let (start, end) = info.data_offsets;
        hasher.update(&((end - start) as u64).to_le_bytes());
        shard.stream(&name, |bytes| {
            hasher.update(bytes);
        })?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Opens the files of a base model folder, and checks that every tensor of an index is in the file
/// that the index names.
pub(crate) fn open_shards(base_dir: &Path) -> Result<Vec<TensorFile>, Error> {
    let single = base_dir.join("model.safetensors");
    // `transformers` prefers the single file, too.
    if single.exists() {
        return Ok(vec![TensorFile::open(&single, u64::MAX)?]);
    }
    let index_path = base_dir.join("model.safetensors.index.json");
    if !index_path.exists() {
        return Err(Error::Missing {
            path: single,
            hint: "pass the folder of the base model, saved with save_pretrained (safetensors, in one file or in shards)",
        });
    }
    let index = read_shard_index(&index_path)?;
    let files = files_of(&index);
    let shards: Vec<TensorFile> = files
        .iter()
        .map(|file| TensorFile::open(&base_dir.join(file), u64::MAX))
        .collect::<Result<_, _>>()?;
    for (tensor, file) in &index.weight_map {
        // `files` is sorted and holds every value of the map.
        if let Ok(at) = files.binary_search(file) {
            shards[at].info(tensor)?;
        }
    }
    Ok(shards)
}

/// The files of an index, sorted.
fn files_of(index: &ShardIndex) -> Vec<String> {
    let mut files: Vec<String> = index.weight_map.values().cloned().collect();
    files.sort_unstable();
    files.dedup();
    files
}

/// The files that an index of shards names, in its folder.
pub(crate) fn shards(index: &Path) -> Result<Vec<PathBuf>, Error> {
    let folder = zklora_files::folder_of(index);
    Ok(files_of(&read_shard_index(index)?).iter().map(|file| folder.join(file)).collect())
}

fn read_shard_index(path: &Path) -> Result<ShardIndex, Error> {
    let content = zklora_files::read(path, MAX_INDEX)?;
    let json_error = |reason| Error::Json { path: path.to_owned(), reason };
    StrictJson::parse(&content).map_err(json_error)?;
    let index: ShardIndex =
        serde_json::from_slice(&content).map_err(|error| json_error(error.to_string()))?;
    let reject = |reason| Err(Error::Index { path: path.to_owned(), reason });
    if index.weight_map.is_empty() {
        return reject("weight_map names no tensor".into());
    }
    for file in index.weight_map.values() {
        // A plain file name: no path separator of any system.
        if !file.ends_with(".safetensors") || file.contains(['/', '\\', ':', '\0']) {
            return reject(format!(
                "names the file {}, which is not a safetensors file of this folder",
                quoted(file)
            ));
        }
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use safetensors::{Dtype, tensor::TensorView};

    use super::*;

    /// Name, content and shape of a U8 tensor.
    type Tensor<'a> = (&'a str, &'a [u8], Vec<usize>);

    fn save(path: &Path, tensors: &[Tensor]) {
        let views = tensors.iter().map(|(name, data, shape)| {
            (*name, TensorView::new(Dtype::U8, shape.clone(), data).unwrap())
        });
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    fn sharded(weight_map: &str, shards: &[(&str, &[Tensor])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let index = format!(r#"{{"metadata":{{"total_size":6}},"weight_map":{weight_map}}}"#);
        std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
        for (file, tensors) in shards {
            save(&dir.path().join(file), tensors);
        }
        dir
    }

    #[test]
    fn the_fingerprint_is_the_documented_hash() {
        let dir = tempfile::tempdir().unwrap();
        save(
            &dir.path().join("model.safetensors"),
            &[("b", b"xy", vec![2]), ("a", b"1234", vec![2, 2])],
        );
        let mut by_hand = Vec::new();
        let number = |n: u64| n.to_le_bytes();
        for (name, shape, data) in [("a", vec![2u64, 2], &b"1234"[..]), ("b", vec![2], b"xy")] {
            by_hand.extend(number(1));
            by_hand.extend(name.as_bytes());
            by_hand.extend(number(2));
            by_hand.extend(b"U8");
            by_hand.extend(number(8 * shape.len() as u64));
            by_hand.extend(shape.into_iter().flat_map(number));
            by_hand.extend(number(data.len() as u64));
            by_hand.extend(data);
        }
        assert_eq!(fingerprint(dir.path()).unwrap(), blake3::hash(&by_hand).to_hex().to_string());
    }

    #[test]
    fn sharding_does_not_change_the_fingerprint_and_any_byte_does() {
        let whole = tempfile::tempdir().unwrap();
        save(
            &whole.path().join("model.safetensors"),
            &[("a", b"1234", vec![2, 2]), ("b", b"xy", vec![2])],
        );
        let map = r#"{"b":"model-1.safetensors","a":"model-2.safetensors"}"#;
        let split = |b: &[u8]| {
            sharded(
                map,
                &[
                    ("model-1.safetensors", &[("b", b, vec![2])]),
                    ("model-2.safetensors", &[("a", b"1234", vec![2, 2])]),
                ],
            )
        };
        let expected = fingerprint(whole.path()).unwrap();
        assert_eq!(fingerprint(split(b"xy").path()).unwrap(), expected);
        assert_ne!(fingerprint(split(b"xz").path()).unwrap(), expected);
        save(
            &whole.path().join("model.safetensors"),
            &[("a", b"1234", vec![4]), ("b", b"xy", vec![2])],
        );
        assert_ne!(fingerprint(whole.path()).unwrap(), expected);
    }

    #[test]
    fn an_index_that_leaves_the_folder_or_lies_is_refused() {
        for map in [
            r#"{"a":"../model.safetensors"}"#,
            r#"{"a":"/model.safetensors"}"#,
            r#"{"a":"model.bin"}"#,
            "{}",
            r#"{"a":"m.safetensors","a":"m.safetensors"}"#,
            r#"{"c":"m.safetensors"}"#,
            r#"{"a":"absent.safetensors"}"#,
        ] {
            let dir = sharded(map, &[("m.safetensors", &[("a", b"1", vec![1])])]);
            assert!(fingerprint(dir.path()).is_err(), "{map}");
        }
        let twice = sharded(
            r#"{"a":"m.safetensors","b":"n.safetensors"}"#,
            &[
                ("m.safetensors", &[("a", b"1", vec![1])]),
                ("n.safetensors", &[("a", b"1", vec![1]), ("b", b"1", vec![1])]),
            ],
        );
        assert!(
            fingerprint(twice.path())
                .unwrap_err()
                .to_string()
                .contains("`a`: is also in another file")
        );
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(fingerprint(empty.path()), Err(Error::Missing { .. })));
    }
}
