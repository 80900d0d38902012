//! The columns of a session and the rows of a column (docs/protocol.md, "Rows of a column").
//!
//! A [`Layout`] alone fixes the circuit: k and the number of columns of each kind. It depends on no
//! module, rank or row, so a handful of verifying keys serves every adapter.

use crate::{Error, srs};

/// Blinding rows that halo2 keeps for this circuit's columns. Key generation compares it with the
/// library's number.
pub const BLINDING_FACTORS: usize = 5;
/// Rows at the end of the usable ones that hold the two masks of a committed column.
pub const MASKS: usize = 2;
/// Rows that one round of the sumcheck takes: `g(0), g(1), g(2)`.
pub const ROUND_ROWS: usize = 3;
/// Most columns of one kind.
pub const MAX_COLUMNS: usize = 1 << 12;

/// k and the number of columns of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Columns of `A**`: 0 if the adapter has no committed A side.
    pub a_columns: usize,
    /// Columns of `B*`: 0 if the adapter has no committed B side.
    pub b_columns: usize,
    /// log₂ of the rows of a column.
    pub k: u32,
    /// Columns of `T`, and of `U`.
    pub pair_columns: usize,
    /// Rounds of the sumcheck, one column each: μ = ⌈log₂ G⌉.
    pub rounds: usize,
}

impl Layout {
    /// Checks the bounds that all users of a layout rely on.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |what: &str| Err(Error::Manifest(format!("impossible layout: {what}")));
        if !(srs::MIN_K..=srs::MAX_K).contains(&self.k) {
            return bad(&format!("k = {} is outside {}..={}", self.k, srs::MIN_K, srs::MAX_K));
        }
        if self.pair_columns == 0 || (self.a_columns == 0 && self.b_columns == 0) {
            return bad("no committed columns");
        }
        if self.a_columns == 0 && self.rounds > 0 {
            return bad("rounds without A columns");
        }
        if self.pair_columns > MAX_COLUMNS
            || self.a_columns > MAX_COLUMNS
            || self.b_columns > MAX_COLUMNS
            || self.rounds > 32
        {
            return bad(&format!("more than {MAX_COLUMNS} columns of a kind or 32 rounds"));
        }
        // Short columns are for small adapters: many of them would cost their verifier more.
        let is_short = (srs::LEAST_SHORTER_K..srs::ETHEREUM_K).contains(&self.k);
        if is_short && self.committed_columns() > MAX_COLUMNS {
            return bad(&format!("more than {MAX_COLUMNS} columns of 2^{} rows", self.k));
        }
        Ok(())
    }

    /// Rows of a column: n = 2^k.
    pub fn rows(&self) -> usize {
        rows(self.k)
    }

    /// Usable rows: u = n − (blinding factors + 1).
    pub fn usable(&self) -> usize {
        usable_rows(self.k)
    }

    /// Data rows: u − 2; address i lies in column `i div (u−2)` at row `i mod (u−2)`.
    pub fn data_rows(&self) -> usize {
        data_rows(self.k)
    }

    /// The rows of the two mask slots: u − 2 and u − 1. Row u − 2 of another, public column is the
    /// output cell.
    pub fn mask_rows(&self) -> [usize; MASKS] {
        [self.usable() - 2, self.usable() - 1]
    }

    /// The row at which the accumulator's end value is compared with the public output.
    pub fn output_row(&self) -> usize {
        self.usable() - 2
    }

    /// Committed instance columns, in this order: T, U, S, B, A.
    pub fn committed_columns(&self) -> usize {
        2 * self.pair_columns + self.rounds + self.b_columns + self.a_columns
    }

    /// Public instance columns: a weight column for each committed one, the product weights, the
    /// output.
    pub fn public_columns(&self) -> usize {
        self.committed_columns() + self.pair_columns + 1
    }
}

/// n = 2^k.
pub fn rows(k: u32) -> usize {
    1 << k
}

/// u = n − (blinding factors + 1).
pub fn usable_rows(k: u32) -> usize {
    rows(k) - (BLINDING_FACTORS + 1)
}

/// u − 2.
pub fn data_rows(k: u32) -> usize {
    usable_rows(k) - MASKS
}

/// Columns that a vector of `length` takes.
pub fn columns_for(length: usize, k: u32) -> usize {
    length.div_ceil(data_rows(k))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_layouts_are_refused() {
        let good = Layout { a_columns: 1, b_columns: 1, k: 12, pair_columns: 1, rounds: 2 };
        assert!(good.check().is_ok());
        for bad in [
            Layout { k: 3, ..good },
            Layout { k: 21, ..good },
            Layout { pair_columns: 0, ..good },
            Layout { a_columns: 0, ..good },
            Layout { a_columns: 0, b_columns: 0, rounds: 0, ..good },
            Layout { a_columns: MAX_COLUMNS + 1, ..good },
            Layout { b_columns: MAX_COLUMNS + 1, ..good },
            Layout { pair_columns: MAX_COLUMNS + 1, ..good },
            Layout { rounds: 33, ..good },
            Layout { k: 11, a_columns: 3000, b_columns: 2000, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn rows_are_those_of_the_protocol_for_k_12() {
        let layout = Layout { a_columns: 1, b_columns: 1, k: 12, pair_columns: 1, rounds: 0 };
        assert_eq!(
            (layout.usable(), layout.data_rows(), layout.mask_rows(), layout.output_row()),
            (4090, 4088, [4088, 4089], 4088)
        );
        assert_eq!(columns_for(4088, 12), 1);
        assert_eq!(columns_for(4089, 12), 2);
        assert_eq!(columns_for(8192, 12), 3);
    }
}
