//! Named shapes: the models of the original ZKLoRA paper (arXiv 2501.13965), one module, and an
//! adapter of all projections, as trainers make it.
//!
//! The paper gives the number of modules and the average number of weights of a module.
//! `docs/benchmarks.md` says which projections of the models have these numbers.

use serde::{Deserialize, Serialize};

/// One module: `d_in × rank × d_out`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// The layer that the module belongs to.
    pub projection: String,
    /// Input features.
    pub d_in: usize,
    /// Rank of the adapter.
    pub rank: usize,
    /// Output features.
    pub d_out: usize,
}

impl Shape {
    fn of(projection: &str, d_in: usize, rank: usize, d_out: usize) -> Shape {
        Shape { projection: projection.into(), d_in, rank, d_out }
    }
}

/// An adapter's shapes: the same in every layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Its name on the command line.
    pub name: String,
    /// Layers.
    pub layers: usize,
    /// The modules of a layer.
    pub shapes: Vec<Shape>,
}

/// The names, from small to large.
pub const PROFILES: [&str; 8] = [
    "module",
    "distilgpt2",
    "gpt2",
    "llama-3.2-1b",
    "llama-3.3-70b",
    "llama-3.1-8b",
    "mixtral-8x7b",
    "llama-3.1-8b-all",
];

impl Profile {
    /// The profile of this name.
    pub fn named(name: &str) -> Option<Profile> {
        let (layers, shapes) = match name {
            "module" => (1, vec![Shape::of("q_proj", 768, 4, 2304)]),
            "distilgpt2" => (24, vec![Shape::of("attn.c_attn", 768, 8, 2304)]),
            "gpt2" => (
                12,
                vec![
                    Shape::of("attn.c_attn", 768, 16, 2304),
                    Shape::of("attn.c_proj", 768, 16, 768),
                    Shape::of("mlp.c_fc", 768, 16, 3072),
                    Shape::of("mlp.c_proj", 3072, 16, 768),
                ],
            ),
            "llama-3.2-1b" => (
                16,
                vec![
                    Shape::of("self_attn.q_proj", 2048, 8, 2048),
                    Shape::of("self_attn.v_proj", 2048, 8, 512),
                ],
            ),
            "llama-3.1-8b" => (32, vec![Shape::of("self_attn.v_proj", 4096, 32, 1024)]),
            "mixtral-8x7b" => (32, vec![Shape::of("self_attn.v_proj", 4096, 64, 1024)]),
            "llama-3.1-8b-all" => (
                32,
                vec![
                    Shape::of("self_attn.q_proj", 4096, 16, 4096),
                    Shape::of("self_attn.k_proj", 4096, 16, 1024),
                    Shape::of("self_attn.v_proj", 4096, 16, 1024),
                    Shape::of("self_attn.o_proj", 4096, 16, 4096),
                    Shape::of("mlp.gate_proj", 4096, 16, 14336),
                    Shape::of("mlp.up_proj", 4096, 16, 14336),
                    Shape::of("mlp.down_proj", 14336, 16, 4096),
                ],
            ),
            "llama-3.3-70b" => (80, vec![Shape::of("self_attn.v_proj", 8192, 16, 1024)]),
            _ => return None,
        };
        Some(Profile { name: name.into(), layers, shapes })
    }

    /// One module of 8192×16×8192. [`super::Item::RowIntegers`] is the time of one of its rows.
    pub(super) fn large_module() -> Profile {
        Profile { name: "row".into(), layers: 1, shapes: vec![Shape::of("o_proj", 8192, 16, 8192)] }
    }

    /// One narrow module of 64×4×64, for sessions of very many rows.
    pub(crate) fn narrow_module() -> Profile {
        Profile { name: "narrow".into(), layers: 1, shapes: vec![Shape::of("q_proj", 64, 4, 64)] }
    }

    /// With `times` as many layers.
    pub fn with_layers(&self, times: usize) -> Profile {
        Profile { layers: self.layers * times, ..self.clone() }
    }

    /// With this rank in every module.
    pub fn with_rank(&self, rank: usize) -> Profile {
        let shapes = self.shapes.iter().map(|shape| Shape { rank, ..shape.clone() }).collect();
        Profile { shapes, ..self.clone() }
    }

    /// The modules, layer by layer: name and shape.
    pub fn modules(&self) -> impl Iterator<Item = (String, &Shape)> {
        (0..self.layers).flat_map(|layer| {
            self.shapes
                .iter()
                .map(move |shape| (format!("layers.{layer}.{}", shape.projection), shape))
        })
    }

    /// Weights of all modules.
    pub fn parameters(&self) -> usize {
        self.layers * self.shapes.iter().map(|s| s.rank * (s.d_in + s.d_out)).sum::<usize>()
    }

    /// The shapes in short, for example `24 × 768×8×2304`.
    pub fn summary(&self) -> String {
        let each = |s: &Shape| format!("{} × {}×{}×{}", self.layers, s.d_in, s.rank, s.d_out);
        self.shapes.iter().map(each).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Modules, and weights of a module on average: table of the paper. `module` is the one of the
    /// issue.
    #[test]
    fn every_profile_has_the_modules_and_weights_of_the_paper() {
        let paper = [
            ("module", 1, 12_288),
            ("distilgpt2", 24, 24_576),
            ("gpt2", 48, 49_152),
            ("llama-3.2-1b", 32, 26_624),
            ("llama-3.3-70b", 80, 147_456),
            ("llama-3.1-8b", 32, 163_840),
            ("mixtral-8x7b", 32, 327_680),
        ];
        assert_eq!(paper.map(|(name, ..)| name), PROFILES[..7]);
        for (name, modules, average) in paper {
            let profile = Profile::named(name).unwrap();
            assert_eq!(profile.modules().count(), modules, "{name}");
            assert_eq!(profile.parameters(), modules * average, "{name}");
        }
        let all = Profile::named(PROFILES[7]).unwrap();
        assert_eq!((all.modules().count(), all.parameters()), (224, 41_943_040));
        assert!(Profile::named("gpt-5").is_none());
    }

    #[test]
    fn scaled_profiles_keep_their_other_dimensions() {
        let profile = Profile::named("distilgpt2").unwrap().with_layers(2).with_rank(32);
        assert_eq!(profile.summary(), "48 × 768×32×2304");
    }
}
