// SPDX-License-Identifier: MIT OR Apache-2.0

//! Strictness: what `--strict` says.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// What becomes of a guest that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strictness {
    /// It is told of.
    Warn,
    /// That too, and at its end it has failed.
    Fail,
}

impl FromStr for Strictness {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "warn" => Ok(Self::Warn),
            "fail" => Ok(Self::Fail),
            _ => Err(ValueError("give warn or fail".to_owned())),
        }
    }
}
