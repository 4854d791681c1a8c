// SPDX-License-Identifier: MIT OR Apache-2.0

//! GUIDs in the mixed-endian order in which Microsoft's structures hold them.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A GUID as it stands in memory: the first three fields little-endian, the last eight bytes in
/// order (`guid_t` of Linux's `include/linux/uuid.h`).
///
/// Ordered by its bytes in memory; offers are sorted by it, so that relids come out the same in
/// every run.
#[repr(transparent)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct Guid(pub [u8; 16]);

const _: () = assert!(size_of::<Guid>() == 16);

impl Guid {
    /// All zero: "no GUID" wherever the protocol allows one to be absent.
    pub const ZERO: Self = Self([0; 16]);

    /// From the number that the text form spells: `f8615163-df3e-46c5-913f-f2d2f965ed0e` is
    /// `0xf8615163_df3e_46c5_913f_f2d2f965ed0e`.
    pub const fn from_text_order(value: u128) -> Self {
        Self(Uuid::from_u128(value).to_bytes_le())
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes_le(self.0).fmt(f)
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a GUID; `0` is what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a GUID: expected eight-four-four-four-twelve hexadecimal digits")]
pub struct ParseGuidError(pub String);

impl FromStr for Guid {
    type Err = ParseGuidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Uuid::try_parse(text) {
            Ok(uuid) => Ok(Self(uuid.to_bytes_le())),
            Err(_) => Err(ParseGuidError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `HV_SCSI_GUID` of Linux's `include/linux/hyperv.h` is spelt with `GUID_INIT`, which lays the
    /// first three fields down little-endian.
    #[test]
    fn bytes_are_mixed_endian() {
        let scsi: Guid = "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f".parse().unwrap();
        assert_eq!(
            scsi.0,
            [
                0xd9, 0x63, 0x61, 0xba, 0xa1, 0x04, 0x29, 0x4d, 0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1,
                0xdc, 0x7f
            ]
        );
        assert_eq!(scsi, Guid::from_text_order(0xba6163d9_04a1_4d29_b605_72e2ffb1dc7f));
        assert_eq!(scsi.to_string(), "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f");
    }

    #[test]
    fn junk_is_named_in_the_error() {
        let error = "scsi".parse::<Guid>().unwrap_err();
        assert!(error.to_string().contains("'scsi'"));
    }
}
