//! Finds the base layer of a module, with its sizes and its orientation.
//!
//! Linear layers are stored `[d_out, d_in]`, GPT-2's Conv1D and token tables `[d_in, d_out]`.
//! `peft` uses the class of the layer, which is in no file. The config's `fan_in_fan_out` states it
//! for the whole adapter (for the layer that was wrapped last, if there are both kinds). For a
//! layer that is not square, the shape confirms or corrects the config (GPT-2's `lm_head` is
//! Linear). A square layer has the orientation of the config unless another layer contradicts it:
//! see [`BaseLayers::check`].

use super::{config::Config, module::Kind};
use crate::{
    Error,
    adapter::base_weights::{BaseTensor, BaseWeights},
};

/// The base layers of an adapter's modules.
pub(super) struct BaseLayers<'b> {
    pub(super) base: &'b mut BaseWeights,
    fan_in_fan_out: bool,
    /// Square layers, which were read in the orientation of the config, with their class.
    square: Vec<(BaseTensor, Class)>,
    /// Evidence from other layers, for each class.
    classes: [ClassEvidence; 2],
}

/// 1 for layers with the name of a Conv1D in `transformers`, 0 for all others.
type Class = usize;

/// What the layers of one class show.
#[derive(Default)]
struct ClassEvidence {
    /// Whether there is a linear layer of this class.
    any: bool,
    /// Whether a layer that is not square is stored `[d_out, d_in]`, and whether one is stored
    /// `[d_in, d_out]`.
    stored: [bool; 2],
}

/// Last part of the names of the Conv1D layers of `transformers` (GPT, GPT-2, ImageGPT, Decision
/// Transformer).
pub(super) const CONV1D: &[&str] = &["c_attn", "c_fc", "c_proj", "q_attn"];

/// The weight of a base layer.
pub(super) struct BaseLayer {
    pub(super) weight: BaseTensor,
    pub(super) d_in: usize,
    pub(super) d_out: usize,
    /// Whether it is stored `[d_in, d_out]`.
    pub(super) transposed: bool,
    /// Its class, if only the config states its orientation.
    square: Option<Class>,
}

impl<'b> BaseLayers<'b> {
    pub(super) fn new(base: &'b mut BaseWeights, config: &Config) -> BaseLayers<'b> {
        BaseLayers {
            base,
            fan_in_fan_out: config.fan_in_fan_out,
            square: Vec::new(),
            classes: Default::default(),
        }
    }

    /// The base layer of a module with `d_out` output features and, if known, `d_in` input
    /// features.
    pub(super) fn find(
        &mut self,
        module: &str,
        kind: Kind,
        d_in: Option<usize>,
        d_out: usize,
    ) -> Result<BaseLayer, Error> {
        let weight = self.base.weight(module)?;
        let mut shape = self.base.shape(&weight)?;
        // Tensors of a convolution may be matrices over patches.
        let kind = match (kind, shape.len()) {
            (Kind::Linear, 3..) => Kind::Convolution,
            _ => kind,
        };
        if kind == Kind::Convolution {
            shape = as_matrix(&shape);
        }
        let stated = match kind {
            Kind::Linear => self.fan_in_fan_out,
            Kind::Convolution | Kind::Expert => false,
            Kind::Embedding => true,
        };
        // `d_in` of a weight of this shape, if it fits.
        let fits = |transposed: bool| match (shape.as_slice(), transposed) {
            (&[found_in, out], true) | (&[out, found_in], false) => {
                (out == d_out && d_in.is_none_or(|d_in| d_in == found_in) && found_in > 0)
                    .then_some(found_in)
            }
            _ => None,
        };
        let class = Class::from(CONV1D.contains(&module.rsplit('.').next().unwrap_or_default()));
        let mut square = None;
        let (d_in, transposed) = match (fits(stated), fits(!stated)) {
            (Some(d_in), Some(_)) if kind == Kind::Linear => {
                square = Some(class);
                (d_in, stated)
            }
            (Some(d_in), _) => (d_in, stated),
            (None, Some(d_in)) if kind == Kind::Linear => (d_in, !stated),
            _ => {
                let d_in = d_in.map_or_else(|| "d_in".into(), |d_in| d_in.to_string());
                let reason = format!(
                    "has the shape {shape:?}, but the adapter's module has {d_in} -> {d_out} features; pass the folder \
                     of the model that the adapter was trained on"
                );
                return Err(self.base.error(&weight, reason));
            }
        };
        if kind == Kind::Linear {
            self.classes[class].any = true;
            self.classes[class].stored[usize::from(transposed)] |= square.is_none();
        }
        Ok(BaseLayer { weight, d_in, d_out, transposed, square })
    }

    /// The weight as `[d_out, d_in]`, row-major.
    pub(super) fn read(&mut self, layer: &BaseLayer) -> Result<Vec<f32>, Error> {
        let stored = self.base.read(&layer.weight)?;
        self.square.extend(layer.square.map(|class| (layer.weight.clone(), class)));
        if !layer.transposed {
            return Ok(stored);
        }
        let mut turned = Vec::with_capacity(stored.len());
        for out in 0..layer.d_out {
            turned.extend(stored.iter().skip(out).step_by(layer.d_out));
        }
        Ok(turned)
    }

    /// To be called after the last module. Refuses an adapter with a square layer whose orientation
    /// is doubtful: another layer of its class has the other orientation, or there are layers
    /// of both classes and neither another layer nor the name agrees with the config.
    pub(super) fn check(&self) -> Result<(), Error> {
        let stated = usize::from(self.fan_in_fan_out);
        let doubtful = |class: Class| {
            let [same, other] = [&self.classes[class], &self.classes[1 - class]];
            same.stored[1 - stated] || (other.any && !same.stored[stated] && class != stated)
        };
        match self.square.iter().find(|(_, class)| doubtful(*class)) {
            Some((square, _)) => {
                let reason = format!(
                    "is square, and the adapter's fan_in_fan_out = {} is not right for all of its modules, so its orientation \
                     is not known; train separate adapters for Linear and Conv1D layers",
                    self.fan_in_fan_out
                );
                Err(self.base.error(square, reason))
            }
            None => Ok(()),
        }
    }
}

/// The shape of a kernel `[outputs, channels, …]` as that of the matrix over patches.
pub(super) fn as_matrix(shape: &[usize]) -> Vec<usize> {
    match shape {
        [rows, cols @ ..] if cols.len() > 1 => {
            vec![*rows, cols.iter().fold(1, |product, &size| product.saturating_mul(size))]
        }
        _ => shape.to_vec(),
    }
}
