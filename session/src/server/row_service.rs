//! Whether a server serves rows. Rows give an adapter away, so its contributor has to choose it.

use std::{num::NonZeroU64, str::FromStr};

/// Whether a server serves rows, and how many. Deltas of a few rows give away most of what an
/// adapter does (docs/security.md), so a server serves none unless its contributor says so.
///
/// As text: a number from 1, or `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowService {
    /// No rows. Sessions of earlier runs can still be ended and proven.
    #[default]
    Off,
    /// At most this many rows of a module, over all sessions and users.
    Limited(NonZeroU64),
    /// Any number of rows.
    Unlimited,
}

impl RowService {
    /// The limit of a module's rows, if there is one.
    pub fn limit(self) -> Option<u64> {
        match self {
            RowService::Limited(rows) => Some(rows.get()),
            RowService::Off | RowService::Unlimited => None,
        }
    }
}

impl TryFrom<u64> for RowService {
    type Error = String;

    fn try_from(rows: u64) -> Result<RowService, String> {
        let rows = NonZeroU64::new(rows);
        rows.map(RowService::Limited)
            .ok_or_else(|| "0 is no limit: to serve no rows, leave it out".into())
    }
}

impl FromStr for RowService {
    type Err = String;

    fn from_str(text: &str) -> Result<RowService, String> {
        if text == "unlimited" {
            return Ok(RowService::Unlimited);
        }
        let rows = text.parse::<u64>();
        rows.map_err(|_| "expected a number of rows, or `unlimited`".to_string())?.try_into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_number_or_the_word_switches_the_service_on() {
        assert_eq!(RowService::default(), RowService::Off);
        assert_eq!("unlimited".parse(), Ok(RowService::Unlimited));
        assert_eq!("7".parse::<RowService>().unwrap().limit(), Some(7));
        for text in ["", "0", "-1", "none", "Unlimited", "1e3", "18446744073709551616"] {
            text.parse::<RowService>().unwrap_err();
        }
    }
}
