//! The base layer of a module: its weight's features, and which way round it is stored.
//!
//! Linear layers are stored `[d_out, d_in]`, GPT-2's Conv1D and token tables `[d_in, d_out]`. `peft` goes by the class of the
//! layer, which no file names: the config's `fan_in_fan_out` says it for the whole adapter, and the shape confirms or corrects
//! it for a layer that is not square (GPT-2's `lm_head` is Linear). If it ever corrects, the config cannot be trusted with
//! square layers, and [`Layers::check`] refuses them.

use super::config::Config;
use super::module::Kind;
use crate::Error;
use crate::base_weights::{BaseTensor, BaseWeights};

/// The base layers of an adapter's modules.
pub(super) struct Layers<'b> {
    pub(super) base: &'b mut BaseWeights,
    fan_in_fan_out: bool,
    /// A square layer, taken as the config says.
    square: Option<BaseTensor>,
    /// A layer of another orientation than the config says.
    turned: Option<BaseTensor>,
}

/// The weight of a base layer.
pub(super) struct Layer {
    pub(super) weight: BaseTensor,
    pub(super) d_in: usize,
    pub(super) d_out: usize,
    /// Whether it is stored `[d_in, d_out]`.
    pub(super) transposed: bool,
}

impl<'b> Layers<'b> {
    pub(super) fn new(base: &'b mut BaseWeights, config: &Config) -> Layers<'b> {
        Layers { base, fan_in_fan_out: config.fan_in_fan_out, square: None, turned: None }
    }

    /// The base layer of a module with `d_out` features and, if that is known, `d_in`.
    pub(super) fn find(&mut self, module: &str, kind: Kind, d_in: Option<usize>, d_out: usize) -> Result<Layer, Error> {
        let weight = self.base.weight(module)?;
        let shape = self.base.shape(&weight)?;
        let stated = self.fan_in_fan_out || kind == Kind::Embedding;
        // `d_in` of a weight of this shape, if it fits.
        let fits = |transposed: bool| match (shape.as_slice(), transposed) {
            (&[found_in, out], true) | (&[out, found_in], false) => {
                (out == d_out && d_in.is_none_or(|d_in| d_in == found_in) && found_in > 0).then_some(found_in)
            }
            _ => None,
        };
        let (d_in, transposed) = match (fits(stated), fits(!stated)) {
            (Some(d_in), other) => {
                if other.is_some() && kind == Kind::Linear {
                    self.square.get_or_insert_with(|| weight.clone());
                }
                (d_in, stated)
            }
            (None, Some(d_in)) if kind == Kind::Linear => {
                self.turned.get_or_insert_with(|| weight.clone());
                (d_in, !stated)
            }
            _ => {
                let d_in = d_in.map_or_else(|| "d_in".into(), |d_in| d_in.to_string());
                let reason = format!(
                    "has the shape {shape:?}, but the adapter's module has {d_in} -> {d_out} features; give the folder \
                     of the model that the adapter was trained on"
                );
                return Err(self.base.error(&weight, reason));
            }
        };
        Ok(Layer { weight, d_in, d_out, transposed })
    }

    /// The weight as `[d_out, d_in]`, row-major.
    pub(super) fn read(&mut self, layer: &Layer) -> Result<Vec<f32>, Error> {
        let stored = self.base.read(&layer.weight)?;
        if !layer.transposed {
            return Ok(stored);
        }
        let mut turned = Vec::with_capacity(stored.len());
        for out in 0..layer.d_out {
            turned.extend(stored.iter().skip(out).step_by(layer.d_out));
        }
        Ok(turned)
    }

    /// After the last module: refuses an adapter whose square layers may be the other way round.
    pub(super) fn check(&self) -> Result<(), Error> {
        match (&self.square, &self.turned) {
            (Some(square), Some(_)) => {
                let reason = format!(
                    "is square, and the adapter's fan_in_fan_out = {} is wrong for another of its modules, so nothing \
                     says which way round it is stored; train adapters of Linear and Conv1D layers apart",
                    self.fan_in_fan_out
                );
                Err(self.base.error(square, reason))
            }
            _ => Ok(()),
        }
    }
}
