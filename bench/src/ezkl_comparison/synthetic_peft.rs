//! Writes a synthetic PEFT adapter of one module, for any shape.

use std::{collections::HashMap, path::Path};

use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;
use zklora_files::Access;

use crate::Error;

/// Input features, rank, output features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Input features.
    pub d_in: usize,
    /// Rank.
    pub rank: usize,
    /// Output features.
    pub d_out: usize,
}

impl std::str::FromStr for Shape {
    type Err = String;
    fn from_str(text: &str) -> Result<Shape, String> {
        let numbers: Option<Vec<usize>> = text
            .split(['x', '×'])
            .map(|part| part.parse().ok().filter(|n| (1..=65_536).contains(n)))
            .collect();
        match numbers.as_deref() {
            Some([d_in, rank, d_out]) => Ok(Shape { d_in: *d_in, rank: *rank, d_out: *d_out }),
            _ => Err(format!(
                "`{text}` is not a shape such as 64x4x64 (input features, rank, output features)"
            )),
        }
    }
}

/// Writes a PEFT folder with one LoRA module of this shape, the same in every run. Returns the
/// module's name.
pub fn synthetic_adapter(shape: Shape, out: &Path) -> Result<&'static str, Error> {
    const NAME: &str = "model.layers.0.self_attn.v_proj";
    zklora_files::create_folder(out, Access::Private)?;
    let config = json!({
        "peft_type": "LORA", "r": shape.rank, "lora_alpha": 2 * shape.rank, "target_modules": ["v_proj"],
        "base_model_name_or_path": "synthetic", "task_type": "CAUSAL_LM",
    });
    zklora_files::write(
        &out.join("adapter_config.json"),
        config.to_string().as_bytes(),
        Access::Private,
    )?;
    let matrix = |part: &str, rows: usize, columns: usize| {
        let name = format!("base_model.model.{NAME}.lora_{part}.weight");
        let mut stream = blake3::Hasher::new_derive_key("zklora synthetic adapter")
            .update(name.as_bytes())
            .finalize_xof();
        let mut bytes = vec![0u8; rows * columns * 2];
        stream.fill(&mut bytes);
        let deviation = 1.0 / (columns as f32).sqrt();
        let value =
            |b: &[u8]| (f32::from(u16::from_le_bytes([b[0], b[1]])) / 32768.0 - 1.0) * deviation;
        let data: Vec<u8> = bytes.chunks_exact(2).flat_map(|b| value(b).to_le_bytes()).collect();
        (name, vec![rows, columns], data)
    };
    let tensors = [matrix("A", shape.rank, shape.d_in), matrix("B", shape.d_out, shape.rank)];
    let path = out.join("adapter_model.safetensors");
    let views = tensors
        .iter()
        .map(|(name, shape, data)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), data)?)));
    let views: Result<Vec<_>, safetensors::SafeTensorError> = views.collect();
    let failed = |e: safetensors::SafeTensorError| Error::file(&path, e);
    let bytes = safetensors::serialize(views.map_err(failed)?, None::<HashMap<String, String>>)
        .map_err(failed)?;
    zklora_files::write(&path, &bytes, Access::Private)?;
    Ok(NAME)
}
