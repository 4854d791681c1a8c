// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sizes with units: "512M", "2G".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// Bytes, written with a unit of 1024 to some power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];

impl FromStr for Size {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError("give a number and a unit, like 512M or 2G".to_owned());
        let unit = text.chars().next_back().ok_or_else(error)?;
        let (_, shift) = UNITS
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(&unit))
            .ok_or_else(error)?;
        let number = text.strip_suffix(unit).unwrap_or_default();
        let number: u64 = number.parse().map_err(|_| error())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |shift: u32| self.0.is_multiple_of(1 << shift) && self.0 != 0;
        match UNITS.into_iter().rev().find(|&(_, shift)| whole(shift)) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl TryFrom<String> for Size {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!("512M".parse(), Ok(Size(512 << 20)));
        assert_eq!("2g".parse(), Ok(Size(2 << 30)));
        for wrong in ["", "512", "M", "-1M", "1.5G", "512MB", "99999999999999T", "1 G"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_are_shown_with_the_largest_unit() {
        assert_eq!(Size(1536 << 20).to_string(), "1536M");
        assert_eq!(Size(4 << 30).to_string(), "4G");
    }
}
