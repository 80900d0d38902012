//! Chooses a token from a row of logits; the same seed gives the same tokens.
//!
//! Must not know where logits come from.

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{RngCore, SeedableRng},
};

use crate::Error;

/// How tokens are chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Most tokens that are generated.
    pub max_new_tokens: usize,
    /// 0 always chooses the most likely token; otherwise logits are divided by it.
    pub temperature: f32,
    /// Draws among this many of the most likely tokens; 0 for all.
    pub top_k: usize,
    /// Draws among the most likely tokens that together reach this probability; 1 for all.
    pub top_p: f32,
    /// Seed of the random numbers (ChaCha20).
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { max_new_tokens: 64, temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 }
    }
}

/// Chooses tokens, with a state of random numbers.
pub(super) struct Sampler<'a> {
    sampling: &'a Sampling,
    random: ChaCha20Rng,
}

impl<'a> Sampler<'a> {
    pub fn new(sampling: &'a Sampling) -> Result<Self, Error> {
        let Sampling { temperature, top_p, .. } = sampling;
        if !temperature.is_finite() || *temperature < 0.0 {
            return Err(Error::Options(format!(
                "the temperature is {temperature}; it must be a number of at least 0"
            )));
        }
        if !(*top_p > 0.0 && *top_p <= 1.0) {
            return Err(Error::Options(format!(
                "top-p is {top_p}; it must be a probability above 0 and at most 1"
            )));
        }
        Ok(Sampler { sampling, random: ChaCha20Rng::seed_from_u64(sampling.seed) })
    }

    /// The next token. Among equally likely tokens, the one with the smallest id comes first.
    pub fn next(&mut self, row: &[f32]) -> Result<u32, Error> {
        let mut order: Vec<usize> = (0..row.len()).filter(|&id| !row[id].is_nan()).collect();
        let likeliest = *order
            .iter()
            .max_by(|&&a, &&b| row[a].total_cmp(&row[b]).then(b.cmp(&a)))
            .ok_or(Error::NanLogits)?;
        if self.sampling.temperature == 0.0 {
            return Ok(likeliest as u32);
        }
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        if self.sampling.top_k > 0 {
            order.truncate(self.sampling.top_k);
        }
        let largest = f64::from(row[likeliest]);
        let temperature = f64::from(self.sampling.temperature);
        // With an infinite logit, all finite ones have weight 0.
        let weight = |id: usize| match f64::from(row[id]) - largest {
            difference if difference.is_nan() => 1.0,
            difference => (difference / temperature).exp(),
        };
        let weights: Vec<f64> = order.iter().map(|&id| weight(id)).collect();
        let reach = weights.iter().sum::<f64>() * f64::from(self.sampling.top_p);
        let mut reached = 0.0;
        let mut kept = 0;
        while kept < weights.len() && reached < reach {
            reached += weights[kept];
            kept += 1;
        }
        let total: f64 = weights[..kept].iter().sum();
        // 53 random bits: a number in [0, 1).
        let mut left = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
        for (&id, &weight) in order[..kept].iter().zip(&weights) {
            if left < weight {
                return Ok(id as u32);
            }
            left -= weight;
        }
        Ok(likeliest as u32)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ROW: [f32; 5] = [0.0, 3.0, f32::NAN, 3.0, f32::NEG_INFINITY];

    fn draws(sampling: &Sampling) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling).unwrap();
        (0..200).map(|_| sampler.next(&ROW).unwrap()).collect()
    }

    #[test]
    fn temperature_zero_is_the_likeliest() {
        assert!(draws(&Sampling::default()).iter().all(|&id| id == 1));
    }

    #[test]
    fn a_seed_gives_the_same_draws_and_limits_hold() {
        let all = Sampling { temperature: 2.0, seed: 5, ..Sampling::default() };
        let first = draws(&all);
        assert_eq!(first, draws(&all));
        assert_ne!(first, draws(&Sampling { seed: 6, ..all.clone() }));
        assert!(
            [0, 1, 3].iter().all(|id| first.contains(id))
                && !first.contains(&2)
                && !first.contains(&4)
        );
        assert!(draws(&Sampling { top_k: 1, ..all.clone() }).iter().all(|&id| id == 1));
        let nucleus = draws(&Sampling { top_p: 0.6, ..all.clone() });
        assert!(nucleus.contains(&1) && nucleus.contains(&3) && !nucleus.contains(&0));
        for wrong in [Sampling { top_p: 0.0, ..all.clone() }, Sampling { temperature: -1.0, ..all }]
        {
            assert!(matches!(Sampler::new(&wrong), Err(Error::Options(_))));
        }
    }
}
