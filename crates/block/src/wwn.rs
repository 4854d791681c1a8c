// SPDX-License-Identifier: MIT OR Apache-2.0

//! World-wide names.

use std::fmt;
use std::str::FromStr;

/// A name that no other disk in the world has (SPC-4, "NAA designator format"): 8 bytes that begin with a
/// digit 2, 3 or 5, or 16 that begin with 6. Its text is that in hexadecimal, with `0x` before it or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wwn {
    bytes: [u8; 16],
    len: usize,
}

/// A text that is no such name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no world-wide name: give 16 hexadecimal digits, the first 2, 3 or 5, or 32, the first 6"
)]
pub struct UnknownWwn(pub String);

impl Wwn {
    /// The name, 8 or 16 bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

impl fmt::Display for Wwn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Wwn {
    type Err = UnknownWwn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let unknown = || UnknownWwn(text.to_owned());
        let len = match (digits.len(), digits.bytes().next()) {
            (16, Some(b'2' | b'3' | b'5')) => 8,
            (32, Some(b'6')) => 16,
            _ => return Err(unknown()),
        };
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        let number = u128::from_str_radix(digits, 16).map_err(|_| unknown())?;
        let number = if len == 8 { number << 64 } else { number };
        Ok(Self { bytes: number.to_be_bytes(), len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_eight_or_sixteen_bytes() {
        let short = "0x5000c50015ea71ac".parse::<Wwn>().unwrap();
        assert_eq!(short.bytes(), [0x50, 0, 0xc5, 0, 0x15, 0xea, 0x71, 0xac]);
        let long = "60022480000102030405060708090a0b".parse::<Wwn>().unwrap();
        assert_eq!(long.bytes()[..6], [0x60, 0x02, 0x24, 0x80, 0, 1]);
        assert_eq!(long.bytes().len(), 16);
        assert_eq!(short.to_string(), "0x5000c50015ea71ac");
    }

    #[test]
    fn what_no_guest_would_take_is_refused() {
        for wrong in [
            "",
            "0x",
            "5000c50015ea71a",
            "6000c50015ea71ac",
            "+000c50015ea71ac",
            "5000c50015ea71ag",
        ] {
            assert!(wrong.parse::<Wwn>().is_err(), "{wrong:?}");
        }
    }
}
