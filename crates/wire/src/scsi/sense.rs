// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sense data: why a command was not done (SPC-4, "Sense data").

use std::fmt;

use zerocopy::byteorder::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;

open_enum! {
    /// What kind of thing went wrong; four bits.
    pub enum SenseKey: u8 {
        /// Nothing.
        NO_SENSE = 0x0,
        /// Done, with help.
        RECOVERED_ERROR = 0x1,
        /// Not accessible now.
        NOT_READY = 0x2,
        /// Flaw in the medium or the data on it.
        MEDIUM_ERROR = 0x3,
        /// Failure of the device.
        HARDWARE_ERROR = 0x4,
        /// The command is wrong.
        ILLEGAL_REQUEST = 0x5,
        /// Something changed of which the guest was not told yet.
        UNIT_ATTENTION = 0x6,
        /// The medium is protected.
        DATA_PROTECT = 0x7,
        /// The device gave the command up; it may be sent again.
        ABORTED_COMMAND = 0xb,
        /// Data compared unequal.
        MISCOMPARE = 0xe,
    }
}

/// What went wrong exactly: additional sense code and its qualifier.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AdditionalSense {
    /// The code (ASC).
    pub code: u8,
    /// Its qualifier (ASCQ).
    pub qualifier: u8,
}

macro_rules! additional_sense {
    ($( $(#[$meta:meta])* $name:ident = $code:literal / $qualifier:literal, $text:literal; )*) => {
        impl AdditionalSense {
            $( $(#[$meta])* pub const $name: Self = Self { code: $code, qualifier: $qualifier }; )*

            /// The standard's text (SPC-4, "ASC and ASCQ assignments"), in lower case; `None` for
            /// a pair that is not listed here.
            pub const fn text(self) -> Option<&'static str> {
                match (self.code, self.qualifier) {
                    $( ($code, $qualifier) => Some($text), )*
                    _ => None,
                }
            }
        }
    };
}

additional_sense! {
    /// Nothing to add.
    NONE = 0x00 / 0x00, "no additional sense";
    /// A block could not be written.
    WRITE_ERROR = 0x0c / 0x00, "write error";
    /// A block could not be read.
    UNRECOVERED_READ_ERROR = 0x11 / 0x00, "unrecovered read error";
    /// Parameter data is shorter than it says.
    PARAMETER_LIST_LENGTH_ERROR = 0x1a / 0x00, "parameter list length error";
    /// No such command.
    INVALID_COMMAND_OPERATION_CODE = 0x20 / 0x00, "invalid command operation code";
    /// Blocks beyond the end.
    LBA_OUT_OF_RANGE = 0x21 / 0x00, "logical block address out of range";
    /// A field of the command has a value that is not supported.
    INVALID_FIELD_IN_CDB = 0x24 / 0x00, "invalid field in CDB";
    /// No such logical unit.
    LOGICAL_UNIT_NOT_SUPPORTED = 0x25 / 0x00, "logical unit not supported";
    /// A field of the parameter data has a value that is not supported.
    INVALID_FIELD_IN_PARAMETER_LIST = 0x26 / 0x00, "invalid field in parameter list";
    /// The disk is read-only.
    WRITE_PROTECTED = 0x27 / 0x00, "write protected";
    /// A thinly provisioned disk has no room left.
    SPACE_ALLOCATION_FAILED = 0x27 / 0x07, "space allocation failed write protect";
    /// There is another medium than before.
    MEDIUM_MAY_HAVE_CHANGED = 0x28 / 0x00, "not ready to ready change, medium may have changed";
    /// The capacity is another than before.
    CAPACITY_DATA_HAS_CHANGED = 0x2a / 0x09, "capacity data has changed";
    /// Mode pages cannot be saved.
    SAVING_NOT_SUPPORTED = 0x39 / 0x00, "saving parameters not supported";
    /// No disc in the drive.
    MEDIUM_NOT_PRESENT = 0x3a / 0x00, "medium not present";
    /// The medium is locked in the device.
    MEDIUM_REMOVAL_PREVENTED = 0x53 / 0x02, "medium removal prevented";
    /// The device failed within.
    INTERNAL_TARGET_FAILURE = 0x44 / 0x00, "internal target failure";
}

impl fmt::Display for AdditionalSense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}/{:02x}", self.code, self.qualifier)?;
        match self.text() {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for AdditionalSense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a command was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// The kind.
    pub key: SenseKey,
    /// The exact reason.
    pub additional: AdditionalSense,
}

impl Sense {
    /// Nothing is wrong: what REQUEST SENSE returns when no sense data is pending.
    pub const NONE: Self = Self::new(SenseKey::NO_SENSE, AdditionalSense::NONE);

    /// `key` because of `additional`.
    pub const fn new(key: SenseKey, additional: AdditionalSense) -> Self {
        Self { key, additional }
    }

    /// ILLEGAL REQUEST because of `additional`.
    pub const fn illegal(additional: AdditionalSense) -> Self {
        Self::new(SenseKey::ILLEGAL_REQUEST, additional)
    }

    /// In fixed format, current.
    pub const fn fixed(self) -> FixedSense {
        FixedSense {
            response_code: FixedSense::CURRENT,
            obsolete: 0,
            key: self.key.0,
            information: U32::ZERO,
            additional_length: 18 - 8,
            command_specific: U32::ZERO,
            additional_code: self.additional.code,
            additional_qualifier: self.additional.qualifier,
            replaceable_unit: 0,
            key_specific: [0; 3],
        }
    }

    /// In descriptor format, current, with no descriptors (SPC-4, "Descriptor format sense data").
    pub const fn descriptor(self) -> [u8; 8] {
        let AdditionalSense { code, qualifier } = self.additional;
        [0x72, self.key.0, code, qualifier, 0, 0, 0, 0]
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.additional)
    }
}

/// Sense data in fixed format (SPC-4, "Fixed format sense data").
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FixedSense {
    /// 0x70 for an error of this command, 0x71 for one of an earlier command; bit 7: `information`
    /// counts.
    pub response_code: u8,
    /// Zero.
    pub obsolete: u8,
    /// The sense key in bits 3:0; ILI, EOM and FILEMARK above.
    pub key: u8,
    /// Depends on the command; often a block address.
    pub information: U32,
    /// Bytes that follow.
    pub additional_length: u8,
    /// Depends on the command.
    pub command_specific: U32,
    /// Additional sense code.
    pub additional_code: u8,
    /// Its qualifier.
    pub additional_qualifier: u8,
    /// Zero.
    pub replaceable_unit: u8,
    /// Which field was wrong, where bit 7 of the first byte is set.
    pub key_specific: [u8; 3],
}

impl FixedSense {
    /// Bytes of it: what storvsc of every version has room for.
    pub const LEN: usize = 18;

    /// [`response_code`](Self::response_code) of an error of this command.
    pub const CURRENT: u8 = 0x70;

    /// What it says.
    pub const fn sense(&self) -> Sense {
        let additional =
            AdditionalSense { code: self.additional_code, qualifier: self.additional_qualifier };
        Sense { key: SenseKey(self.key & 0xf), additional }
    }
}

const _: () = assert!(size_of::<FixedSense>() == FixedSense::LEN);

impl fmt::Display for FixedSense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.response_code & 0x7f {
            0x70 | 0x71 => fmt::Display::fmt(&self.sense(), f),
            other => write!(f, "sense of format {other:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The offsets at which Linux's `scsi_normalize_sense` and `scsi_set_sense_information`
    /// (`drivers/scsi/scsi_common.c`) look: key in byte 2, length in 7, ASC in 12, ASCQ in 13.
    #[test]
    fn fixed_format_is_laid_out_as_guests_read_it() {
        let sense = Sense::illegal(AdditionalSense::LBA_OUT_OF_RANGE).fixed();
        let mut bytes = [0; 18];
        bytes[0] = 0x70;
        bytes[2] = 0x05;
        bytes[7] = 10;
        bytes[12] = 0x21;
        assert_eq!(sense.as_bytes(), bytes);
    }

    #[test]
    fn descriptor_format_is_laid_out_as_guests_read_it() {
        let sense = Sense::new(SenseKey::DATA_PROTECT, AdditionalSense::SPACE_ALLOCATION_FAILED);
        assert_eq!(sense.descriptor(), [0x72, 7, 0x27, 7, 0, 0, 0, 0]);
    }

    #[test]
    fn sense_prints_with_numbers_and_words() {
        let sense = Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE);
        assert_eq!(
            sense.fixed().to_string(),
            "ILLEGAL_REQUEST 20/00 (invalid command operation code)"
        );
        let unknown = Sense::new(SenseKey(0x9), AdditionalSense { code: 0x80, qualifier: 1 });
        assert_eq!(unknown.to_string(), "SenseKey(0x9) 80/01");
        let mut vendor = sense.fixed();
        vendor.response_code = 0x7f;
        assert_eq!(vendor.to_string(), "sense of format 0x7f");
    }
}
