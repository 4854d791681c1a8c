// SPDX-License-Identifier: MIT OR Apache-2.0

//! The handshake: BEGIN, versions until one fits, properties, END; then, maybe, subchannels.

use busway_vmbus::Step;
use busway_wire::storvsc::{
    NtStatus, Operation, Packet, Properties, ProtocolVersion, SubChannels, Version,
};

use crate::MAX_TRANSFER_BYTES;

/// How far the handshake of a channel has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Begun,
    Versioned(Version),
    Described(Version),
    Ready(Version),
}

/// The handshake of one channel.
#[derive(Debug)]
pub(crate) struct Handshake {
    phase: Phase,
    /// Subchannels that the guest may still ask for, and those that it may have in all.
    left: u16,
    most: u16,
    newest: Version,
}

impl Handshake {
    /// That of a primary channel, which may have up to `subchannels` subchannels, by a host that
    /// speaks versions up to `newest`.
    pub(crate) const fn new(subchannels: u16, newest: Version) -> Self {
        Self { phase: Phase::Closed, left: subchannels, most: subchannels, newest }
    }

    /// That of a subchannel: commands may come at once.
    pub(crate) const fn over() -> Self {
        let newest = Version::V6_2;
        Self { phase: Phase::Ready(newest), left: 0, most: 0, newest }
    }

    /// Whether it is over, so that commands may come.
    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready(_))
    }

    /// What a witness is told of it.
    pub(crate) const fn step(&self) -> Option<Step> {
        match self.phase {
            Phase::Versioned(Version(version)) => {
                let [major, minor] = version.to_be_bytes();
                Some(Step::Version { major: major as u16, minor: minor as u16 })
            }
            Phase::Ready(_) => Some(Step::Ready),
            Phase::Closed | Phase::Begun | Phase::Described(_) => None,
        }
    }

    /// Answers a request that is no command, and says how many subchannels follow from it. One out
    /// of turn is refused, and changes nothing.
    pub(crate) fn answer(&mut self, request: &Packet) -> (Packet, u16) {
        let mut granted = 0;
        let answer = match (request.operation, self.phase) {
            (Operation::BEGIN_INITIALIZATION, Phase::Closed) => self.enter(Phase::Begun),
            // A guest asks for one version after another, and may ask again for an older one.
            (Operation::QUERY_PROTOCOL_VERSION, Phase::Begun | Phase::Versioned(_)) => {
                let query: ProtocolVersion = request.body();
                let is_spoken = query.version.is_known() && query.version <= self.newest;
                let answer = if is_spoken {
                    self.enter(Phase::Versioned(query.version))
                } else {
                    Packet::answer(NtStatus::REVISION_MISMATCH)
                };
                answer.with_body(&query)
            }
            (Operation::QUERY_PROPERTIES, Phase::Versioned(version)) => {
                // Older guests know of none.
                let most = if version >= Version::V5_1 { self.most } else { 0 };
                self.left = most;
                self.enter(Phase::Described(version)).with_body(&properties(most))
            }
            (Operation::END_INITIALIZATION, Phase::Described(version)) => {
                self.enter(Phase::Ready(version))
            }
            (Operation::CREATE_SUB_CHANNELS, Phase::Described(_) | Phase::Ready(_)) => {
                let wanted: SubChannels = request.body();
                match self.left.checked_sub(wanted.count) {
                    Some(left) => {
                        (self.left, granted) = (left, wanted.count);
                        Packet::answer(NtStatus::SUCCESS)
                    }
                    None => Packet::answer(NtStatus::INVALID_PARAMETER),
                }
            }
            (operation, _) if is_known(operation) => Packet::answer(NtStatus::INVALID_DEVICE_STATE),
            _ => Packet::answer(NtStatus::INVALID_DEVICE_REQUEST),
        };
        (answer, granted)
    }

    fn enter(&mut self, phase: Phase) -> Packet {
        if let Phase::Ready(version) = phase {
            log::debug!("storvsc {version} is ready");
        }
        self.phase = phase;
        Packet::answer(NtStatus::SUCCESS)
    }
}

const fn properties(subchannels: u16) -> Properties {
    Properties {
        protocol: 0,
        path: 0,
        target: 0,
        max_channel_count: subchannels,
        port: 0,
        flags: if subchannels == 0 { 0 } else { Properties::MULTI_CHANNEL },
        max_transfer_bytes: MAX_TRANSFER_BYTES,
        reserved: [0; 2],
    }
}

/// Whether it is an operation that has its time, but not now.
const fn is_known(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::EXECUTE_SRB
            | Operation::RESET_LUN
            | Operation::RESET_ADAPTER
            | Operation::RESET_BUS
            | Operation::BEGIN_INITIALIZATION
            | Operation::END_INITIALIZATION
            | Operation::QUERY_PROTOCOL_VERSION
            | Operation::QUERY_PROPERTIES
            | Operation::CREATE_SUB_CHANNELS
    )
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromBytes, IntoBytes};

    use super::*;

    /// A request as a guest lays it out: the operation at 0, two bytes of body at 12.
    fn request(operation: u32, body: u16) -> Packet {
        let mut bytes = [0; 64];
        bytes[..4].copy_from_slice(&operation.to_le_bytes());
        bytes[12..14].copy_from_slice(&body.to_le_bytes());
        Packet::read_from_bytes(&bytes).unwrap()
    }

    fn ask(handshake: &mut Handshake, operation: u32, body: u16) -> u32 {
        let (answer, _) = handshake.answer(&request(operation, body));
        assert_eq!(answer.operation, Operation::COMPLETE_IO);
        answer.status.0
    }

    #[test]
    fn every_version_gets_through() {
        for version in [0x0200, 0x0402, 0x0501, 0x0600, 0x0602] {
            let mut handshake = Handshake::new(0, Version::V6_2);
            assert_eq!(ask(&mut handshake, 7, 0), 0);
            assert_eq!(ask(&mut handshake, 9, version), 0);
            assert_eq!(ask(&mut handshake, 10, 0), 0);
            assert!(!handshake.is_ready());
            assert_eq!(ask(&mut handshake, 8, 0), 0);
            assert!(handshake.is_ready());
        }
    }

    #[test]
    fn a_version_that_is_not_spoken_is_refused_and_the_next_one_taken() {
        let mut handshake = Handshake::new(0, Version::V6_2);
        ask(&mut handshake, 7, 0);
        assert_ne!(ask(&mut handshake, 9, 0x0700), 0);
        assert_ne!(ask(&mut handshake, 10, 0), 0, "there is no version yet");
        let (answer, _) = handshake.answer(&request(9, 0x0602));
        assert_eq!(answer.status, NtStatus::SUCCESS);
        assert_eq!(answer.as_bytes()[12..14], [0x02, 0x06]);
        assert_eq!(ask(&mut handshake, 9, 0x0501), 0);
    }

    #[test]
    fn nothing_newer_is_spoken_than_was_said() {
        for newest in Version::ALL {
            let mut handshake = Handshake::new(0, newest);
            ask(&mut handshake, 7, 0);
            for version in Version::ALL {
                let refused = ask(&mut handshake, 9, version.0) != 0;
                assert_eq!(refused, version > newest, "{version} of a host of {newest}");
            }
        }
    }

    /// Offsets of `struct vmstorage_channel_properties` in the packet.
    #[test]
    fn properties_tell_the_transfer_length_and_the_subchannels() {
        for (subchannels, flags) in [(0, 0), (3, 1)] {
            let mut handshake = Handshake::new(subchannels, Version::V6_2);
            ask(&mut handshake, 7, 0);
            ask(&mut handshake, 9, 0x0602);
            let (answer, _) = handshake.answer(&request(10, 0));
            let bytes = answer.as_bytes();
            assert_eq!(bytes[12..16], [0; 4]);
            assert_eq!(bytes[16..18], subchannels.to_le_bytes());
            assert_eq!(bytes[18..24], [0, 0, flags, 0, 0, 0]);
            assert_eq!(bytes[24..28], (1_u32 << 20).to_le_bytes());
        }
    }

    #[test]
    fn what_is_out_of_turn_is_refused_and_changes_nothing() {
        let mut handshake = Handshake::new(0, Version::V6_2);
        for operation in [3, 4, 5, 6, 8, 9, 10, 13] {
            assert_eq!(ask(&mut handshake, operation, 0x0602), 0xc000_0184, "{operation}");
        }
        assert_eq!(ask(&mut handshake, 7, 0), 0);
        assert_eq!(ask(&mut handshake, 7, 0), 0xc000_0184);
        assert_eq!(ask(&mut handshake, 9, 0x0602), 0);
        assert_eq!(ask(&mut handshake, 8, 0), 0xc000_0184);
        assert_eq!(ask(&mut handshake, 10, 0), 0);
        assert_eq!(ask(&mut handshake, 8, 0), 0);
        assert_eq!(ask(&mut handshake, 9, 0x0602), 0xc000_0184);
        assert!(handshake.is_ready());
    }

    #[test]
    fn subchannels_are_granted_up_to_the_most_and_none_is_fine() {
        let mut handshake = Handshake::new(3, Version::V6_2);
        for (operation, body) in [(7, 0), (9, 0x0602), (10, 0), (8, 0)] {
            ask(&mut handshake, operation, body);
        }
        let mut wants = |count| {
            let (answer, granted) = handshake.answer(&request(13, count));
            (answer.status.0, granted)
        };
        assert_eq!(wants(0), (0, 0));
        assert_eq!(wants(4), (0xc000_000d, 0));
        assert_eq!(wants(2), (0, 2));
        assert_eq!(wants(2), (0xc000_000d, 0), "one is left");
        assert_eq!(wants(1), (0, 1));
    }

    /// Source: Linux `drivers/scsi/storvsc_drv.c` (`storvsc_channel_init`).
    #[test]
    fn guests_from_before_subchannels_get_none() {
        for (version, most) in [(0x0200, 0), (0x0402, 0), (0x0501, 3), (0x0602, 3)] {
            let mut handshake = Handshake::new(3, Version::V6_2);
            ask(&mut handshake, 7, 0);
            ask(&mut handshake, 9, version);
            let (answer, _) = handshake.answer(&request(10, 0));
            let flags = u8::from(most != 0);
            assert_eq!(answer.as_bytes()[16..24], [most, 0, 0, 0, flags, 0, 0, 0]);
            ask(&mut handshake, 8, 0);
            assert_eq!(ask(&mut handshake, 13, 1) == 0, most != 0, "{version:#x}");
        }
    }

    #[test]
    fn a_subchannel_takes_commands_at_once_and_has_no_subchannels() {
        let mut handshake = Handshake::over();
        assert!(handshake.is_ready());
        assert_eq!(ask(&mut handshake, 7, 0), 0xc000_0184);
        assert_eq!(ask(&mut handshake, 13, 1), 0xc000_000d);
    }

    #[test]
    fn what_no_guest_may_send_is_refused() {
        let mut handshake = Handshake::new(0, Version::V6_2);
        for operation in [0, 1, 2, 11, 12, 14, u32::MAX] {
            assert_eq!(ask(&mut handshake, operation, 0), 0xc000_0010, "{operation}");
        }
    }
}
