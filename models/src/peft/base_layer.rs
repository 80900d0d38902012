//! The base layer of a module: its weight's features, and which way round it is stored.
//!
//! Linear layers are stored `[d_out, d_in]`, GPT-2's Conv1D and token tables `[d_in, d_out]`.
//! `peft` goes by the class of the layer, which no file names: the config's `fan_in_fan_out` says
//! it for the whole adapter (that of the layer that was wrapped last, if there are both kinds), and
//! the shape confirms or corrects it for a layer that is not square (GPT-2's `lm_head` is
//! Linear). A square layer is believed to lie as the config says unless something speaks against
//! it: see [`Layers::check`].

use super::{config::Config, module::Kind};
use crate::{
    Error,
    base_weights::{BaseTensor, BaseWeights},
};

/// The base layers of an adapter's modules.
pub(super) struct Layers<'b> {
    pub(super) base: &'b mut BaseWeights,
    fan_in_fan_out: bool,
    /// Square layers whose weight was read as the config says, with their class.
    square: Vec<(BaseTensor, Class)>,
    /// What other layers showed, for each class.
    classes: [Shown; 2],
}

/// Layers whose name is one of a Conv1D in `transformers` (1), and all others (0).
type Class = usize;

/// What is known of the layers of one class.
#[derive(Default)]
struct Shown {
    /// There is a linear layer of this class.
    any: bool,
    /// One that is not square is stored `[d_out, d_in]`; one is stored `[d_in, d_out]`.
    stored: [bool; 2],
}

/// Last part of the names of the Conv1D layers of `transformers` (GPT, GPT-2, ImageGPT, Decision
/// Transformer).
const CONV1D: &[&str] = &["c_attn", "c_fc", "c_proj", "q_attn"];

/// The weight of a base layer.
pub(super) struct Layer {
    pub(super) weight: BaseTensor,
    pub(super) d_in: usize,
    pub(super) d_out: usize,
    /// Whether it is stored `[d_in, d_out]`.
    pub(super) transposed: bool,
    /// Its class, if nothing but the config says how it is stored.
    square: Option<Class>,
}

impl<'b> Layers<'b> {
    pub(super) fn new(base: &'b mut BaseWeights, config: &Config) -> Layers<'b> {
        Layers {
            base,
            fan_in_fan_out: config.fan_in_fan_out,
            square: Vec::new(),
            classes: Default::default(),
        }
    }

    /// The base layer of a module with `d_out` features and, if that is known, `d_in`.
    pub(super) fn find(
        &mut self,
        module: &str,
        kind: Kind,
        d_in: Option<usize>,
        d_out: usize,
    ) -> Result<Layer, Error> {
        let weight = self.base.weight(module)?;
        let shape = self.base.shape(&weight)?;
        let stated = self.fan_in_fan_out || kind == Kind::Embedding;
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
                    "has the shape {shape:?}, but the adapter's module has {d_in} -> {d_out} features; give the folder \
                     of the model that the adapter was trained on"
                );
                return Err(self.base.error(&weight, reason));
            }
        };
        if kind == Kind::Linear {
            self.classes[class].any = true;
            self.classes[class].stored[usize::from(transposed)] |= square.is_none();
        }
        Ok(Layer { weight, d_in, d_out, transposed, square })
    }

    /// The weight as `[d_out, d_in]`, row-major.
    pub(super) fn read(&mut self, layer: &Layer) -> Result<Vec<f32>, Error> {
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

    /// After the last module: refuses an adapter with square layers that may be stored the other
    /// way round: where another layer of the class is, or where layers of both classes are
    /// there and neither another layer nor the name agrees with the config.
    pub(super) fn check(&self) -> Result<(), Error> {
        let stated = usize::from(self.fan_in_fan_out);
        let doubtful = |class: Class| {
            let [own, other] = [&self.classes[class], &self.classes[1 - class]];
            own.stored[1 - stated] || (other.any && !own.stored[stated] && class != stated)
        };
        match self.square.iter().find(|(_, class)| doubtful(*class)) {
            Some((square, _)) => {
                let reason = format!(
                    "is square, and the adapter's fan_in_fan_out = {} is not right for all of its modules, so nothing says \
                     which way round it is stored; train adapters of Linear and Conv1D layers apart",
                    self.fan_in_fan_out
                );
                Err(self.base.error(square, reason))
            }
            None => Ok(()),
        }
    }
}
