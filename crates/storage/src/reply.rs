// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a command ended, in the guest's terms.

use busway_block::IoError;
use busway_wire::scsi::{AdditionalSense, Sense, SenseKey, Status};
use busway_wire::storvsc::{CDB_OR_SENSE_LEN, NtStatus, Packet, Srb, SrbCode, SrbStatus};
use zerocopy::IntoBytes;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// How it ended on its way to the unit.
    pub code: SrbCode,
    /// How it ended at the unit.
    pub status: Status,
    /// Why, if it was not done.
    pub sense: Option<Sense>,
    /// Bytes of data that were moved.
    pub moved: u32,
}

impl Reply {
    /// Done, with `moved` bytes of data.
    pub const fn good(moved: u32) -> Self {
        Self { code: SrbCode::SUCCESS, status: Status::GOOD, sense: None, moved }
    }

    /// Not done by the unit, because of `sense`.
    pub const fn check(sense: Sense) -> Self {
        Self::with_sense(SrbCode::ERROR, sense)
    }

    /// There is no such unit. Without sense data: guests that look at it do not look at the code,
    /// which makes them forget the unit.
    pub const fn no_unit() -> Self {
        let status = Status::CHECK_CONDITION;
        Self { code: SrbCode::INVALID_LUN, status, sense: None, moved: 0 }
    }

    /// The request contradicts itself, or the command that is in it.
    pub const fn invalid() -> Self {
        let sense = Sense::illegal(AdditionalSense::INVALID_FIELD_IN_CDB);
        Self::with_sense(SrbCode::INVALID_REQUEST, sense)
    }

    const fn with_sense(code: SrbCode, sense: Sense) -> Self {
        Self { code, status: Status::CHECK_CONDITION, sense: Some(sense), moved: 0 }
    }

    /// The disk did not do it.
    pub const fn failed(error: IoError, is_read: bool) -> Self {
        let medium = if is_read {
            AdditionalSense::UNRECOVERED_READ_ERROR
        } else {
            AdditionalSense::WRITE_ERROR
        };
        let (key, additional) = match error {
            IoError::Cancelled => {
                let sense = Sense::new(SenseKey::ABORTED_COMMAND, AdditionalSense::NONE);
                return Self::with_sense(SrbCode::ABORTED, sense);
            }
            IoError::BeyondEnd { .. } | IoError::Misaligned { .. } => {
                (SenseKey::ILLEGAL_REQUEST, AdditionalSense::LBA_OUT_OF_RANGE)
            }
            IoError::ReadOnly => (SenseKey::DATA_PROTECT, AdditionalSense::WRITE_PROTECTED),
            IoError::NoSpace { .. } => {
                (SenseKey::DATA_PROTECT, AdditionalSense::SPACE_ALLOCATION_FAILED)
            }
            IoError::Truncated { .. } | IoError::Failed { .. } => (SenseKey::MEDIUM_ERROR, medium),
            IoError::NoDisk { .. } | IoError::Unsupported { .. } => {
                (SenseKey::HARDWARE_ERROR, AdditionalSense::INTERNAL_TARGET_FAILURE)
            }
        };
        Self::check(Sense::new(key, additional))
    }

    const fn nt_status(&self) -> NtStatus {
        match self.code {
            SrbCode::SUCCESS => NtStatus::SUCCESS,
            SrbCode::INVALID_LUN => NtStatus::DEVICE_DOES_NOT_EXIST,
            SrbCode::ABORTED => NtStatus::CANCELLED,
            _ => NtStatus::IO_DEVICE_ERROR,
        }
    }

    /// The answer to `request`: its own fields, with what the host has to say.
    pub fn packet(&self, request: &Srb) -> Packet {
        let mut srb = *request;
        srb.scsi_status = self.status;
        srb.srb_status = SrbStatus::new(self.code);
        srb.data_transfer_length = self.moved;
        srb.sense_len = 0;
        srb.cdb_or_sense = [0; CDB_OR_SENSE_LEN];
        if let Some(sense) = self.sense {
            let sense = sense.fixed();
            // A guest may have room for less, down to nothing.
            let len = size_of_val(&sense).min(request.sense_len.into());
            for (to, from) in srb.cdb_or_sense.iter_mut().zip(sense.as_bytes()).take(len) {
                *to = *from;
            }
            srb.sense_len = len as u8;
            if len != 0 {
                srb.srb_status = SrbStatus::with_sense(self.code);
            }
        }
        Packet::answer(self.nt_status()).with_body(&srb)
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    fn request(sense_len: u8) -> Srb {
        let mut srb = Srb::new_zeroed();
        (srb.lun, srb.sense_len, srb.data_transfer_length) = (9, sense_len, 4096);
        srb.cdb_or_sense = [0xee; CDB_OR_SENSE_LEN];
        srb
    }

    fn answer(reply: Reply, sense_len: u8) -> (NtStatus, Srb) {
        let packet = reply.packet(&request(sense_len));
        (packet.status, packet.body())
    }

    #[test]
    fn a_good_answer_has_the_length_and_no_sense() {
        let (status, srb) = answer(Reply::good(512), 20);
        assert_eq!(status, NtStatus::SUCCESS);
        assert_eq!((srb.srb_status.0, srb.scsi_status), (0x01, Status::GOOD));
        assert_eq!((srb.data_transfer_length, srb.sense_len, srb.lun), (512, 0, 9));
        assert_eq!(srb.cdb_or_sense, [0; 20]);
    }

    #[test]
    fn sense_data_is_18_bytes_or_what_the_guest_has_room_for() {
        let reply = Reply::check(Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE));
        for (room, len) in [(20, 18), (18, 18), (255, 18), (14, 14)] {
            let (status, srb) = answer(reply, room);
            assert_eq!(status, NtStatus::IO_DEVICE_ERROR);
            assert_eq!((srb.srb_status.0, srb.scsi_status.0), (0x84, 2));
            assert_eq!((srb.sense_len, srb.data_transfer_length), (len, 0));
            assert_eq!((srb.cdb_or_sense[2], srb.cdb_or_sense[12]), (5, 0x20));
        }
        let (_, srb) = answer(reply, 0);
        assert_eq!((srb.srb_status.0, srb.sense_len), (0x04, 0));
    }

    #[test]
    fn an_absent_unit_is_0x20_alone() {
        let (status, srb) = answer(Reply::no_unit(), 20);
        assert_eq!(status, NtStatus::DEVICE_DOES_NOT_EXIST);
        assert_eq!((srb.srb_status.0, srb.data_transfer_length, srb.sense_len), (0x20, 0, 0));
    }

    #[test]
    fn the_errors_of_the_host_are_told_apart() {
        let key = |error, is_read| {
            let reply = Reply::failed(error, is_read);
            let sense = reply.sense.unwrap();
            (reply.code, sense.key.0, sense.additional.code, sense.additional.qualifier)
        };
        let io = IoError::Failed { errno: 5 };
        assert_eq!(key(io, true), (SrbCode::ERROR, 3, 0x11, 0));
        assert_eq!(key(io, false), (SrbCode::ERROR, 3, 0x0c, 0));
        assert_eq!(key(IoError::Truncated { at: 0 }, true), (SrbCode::ERROR, 3, 0x11, 0));
        assert_eq!(key(IoError::NoSpace { errno: 28 }, false), (SrbCode::ERROR, 7, 0x27, 7));
        assert_eq!(key(IoError::ReadOnly, false), (SrbCode::ERROR, 7, 0x27, 0));
        assert_eq!(key(IoError::Cancelled, true), (SrbCode::ABORTED, 0xb, 0, 0));
        assert_eq!(key(IoError::Unsupported { errno: 95 }, false), (SrbCode::ERROR, 4, 0x44, 0));
    }
}
