// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets byte by byte as guests' drivers lay them out.

use super::*;

/// `struct vstor_packet` of Linux 6.1 with a `struct vmscsi_request` in it, field by field, as
/// `storvsc_queuecommand` and `storvsc_do_io` fill them for a READ(10) of 8 blocks.
fn linux_read() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(3_u32.to_le_bytes()); // operation
    bytes.extend(1_u32.to_le_bytes()); // flags
    bytes.extend(0_u32.to_le_bytes()); // status
    bytes.extend(52_u16.to_le_bytes()); // length
    bytes.extend([0, 0]); // srb_status, scsi_status
    bytes.extend([2, 0, 0, 5]); // port_number, path_id, target_id, lun
    bytes.extend([10, 20, 1, 0]); // cdb_length, sense_info_length, data_in, reserved
    bytes.extend(4096_u32.to_le_bytes()); // data_transfer_length
    bytes.extend([0x28, 0, 0, 0, 8, 0, 0, 0, 8, 0]); // cdb
    bytes.extend([0; 10]);
    bytes.extend(0_u16.to_le_bytes()); // reserve
    bytes.extend([0xff, 0x20]); // queue_tag, queue_action
    bytes.extend(0x14a_u32.to_le_bytes()); // srb_flags
    bytes.extend(60_u32.to_le_bytes()); // time_out_value
    bytes.extend(0_u32.to_le_bytes()); // queue_sort_ey
    bytes
}

#[test]
fn a_read_of_linux() {
    let bytes = linux_read();
    assert_eq!(bytes.len(), 64);
    let (packet, answer_len) = Packet::parse(&bytes).unwrap();
    assert_eq!((packet.operation, packet.flags), (Operation::EXECUTE_SRB, REQUEST_COMPLETION));
    assert_eq!(answer_len, 64);
    let srb: Srb = packet.body();
    assert_eq!((srb.port, srb.path, srb.target, srb.lun), (2, 0, 0, 5));
    assert_eq!((srb.cdb_len, srb.sense_len), (10, 20));
    assert_eq!((srb.direction, srb.data_transfer_length), (Direction::READ, 4096));
    assert_eq!(srb.cdb().unwrap(), [0x28, 0, 0, 0, 8, 0, 0, 0, 8, 0]);
    assert_eq!((srb.queue_tag, srb.queue_action), (0xff, 0x20));
    assert_eq!((srb.srb_flags, srb.timeout), (0x14a, 60));
    assert_eq!(packet.to_string(), "EXECUTE_SRB 0:0:5 READ_10 lba=2048 blocks=8 READ len=4096");
}

/// Linux 5.10 and FreeBSD start with 48 bytes: a packet without the fields that Windows 8 added.
#[test]
fn a_short_packet_is_answered_with_48_bytes_and_reads_as_zero_behind_them() {
    let mut bytes = linux_read();
    let long = bytes.clone();
    bytes.truncate(48);
    let (packet, answer_len) = Packet::parse(&bytes).unwrap();
    assert_eq!(answer_len, 48);
    assert_eq!(packet.as_bytes()[..48], long[..48]);
    assert_eq!(packet.as_bytes()[48..], [0; 16]);
    assert_eq!(Packet::parse(&bytes[..40]), Err(PacketError { have: 40 }));
    // A ring rounds payloads up to 8; nothing between the two sizes is a size.
    assert_eq!(Packet::parse(&long[..56]).unwrap().1, 48);
}

#[test]
fn what_stands_behind_a_packet_is_ignored() {
    let mut bytes = linux_read();
    bytes.extend([0xee; 16]);
    let (packet, answer_len) = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.as_bytes(), &bytes[..64]);
    assert_eq!(answer_len, 64);
}

/// `struct vmstorage_protocol_version` at offset 12; `VMSTOR_PROTO_VERSION(6, 2)`.
#[test]
fn a_version_query_of_linux() {
    let mut bytes = vec![0; 64];
    bytes[0] = 9;
    bytes[4] = 1;
    bytes[12..14].copy_from_slice(&((6_u16 << 8) | 2).to_le_bytes());
    let (packet, _) = Packet::parse(&bytes).unwrap();
    let query: ProtocolVersion = packet.body();
    assert_eq!(query.version, Version::V6_2);
    assert!(query.version.is_known() && !Version::new(6, 1).is_known());
    assert_eq!(packet.to_string(), "QUERY_PROTOCOL_VERSION 6.2");
}

/// `struct vmstorage_channel_properties`: count at 16 of the packet, flags at 20, bytes at 24.
#[test]
fn properties_are_laid_out_as_guests_read_them() {
    let properties = Properties {
        protocol: 0,
        path: 0,
        target: 0,
        max_channel_count: 3,
        port: 0,
        flags: Properties::MULTI_CHANNEL,
        max_transfer_bytes: 0x0004_0000,
        reserved: [0; 2],
    };
    let packet = Packet::answer(NtStatus::SUCCESS).with_body(&properties);
    let mut expected = [0; 64];
    expected[0] = 1;
    expected[16] = 3;
    expected[20] = 1;
    expected[24..28].copy_from_slice(&0x0004_0000_u32.to_le_bytes());
    assert_eq!(packet.as_bytes(), expected);
    let answer = Answer { packet: &packet, to: Operation::QUERY_PROPERTIES };
    assert_eq!(
        answer.to_string(),
        "COMPLETE_IO SUCCESS to QUERY_PROPERTIES channels=3 flags=0x1 max-transfer=262144"
    );
}

#[test]
fn an_answer_prints_its_sense_data() {
    let (packet, _) = Packet::parse(&linux_read()).unwrap();
    let mut srb: Srb = packet.body();
    srb.srb_status = SrbStatus::with_sense(SrbCode::ERROR);
    srb.scsi_status = scsi::Status::CHECK_CONDITION;
    srb.data_transfer_length = 0;
    let sense = scsi::Sense::illegal(scsi::AdditionalSense::LBA_OUT_OF_RANGE).fixed();
    srb.cdb_or_sense = [0; CDB_OR_SENSE_LEN];
    srb.cdb_or_sense[..18].copy_from_slice(sense.as_bytes());
    let packet = Packet::answer(NtStatus::IO_DEVICE_ERROR).with_body(&srb);
    // Offsets of `srb_status`, `scsi_status` and `sense_data` in the packet.
    assert_eq!(packet.as_bytes()[14..16], [0x84, 2]);
    assert_eq!(packet.as_bytes()[28..31], [0x70, 0, 5]);
    let answer = Answer { packet: &packet, to: Operation::EXECUTE_SRB };
    assert_eq!(
        answer.to_string(),
        "COMPLETE_IO IO_DEVICE_ERROR to EXECUTE_SRB srb=ERROR+sense scsi=CHECK_CONDITION moved=0 \
         ILLEGAL_REQUEST 21/00 (logical block address out of range)"
    );
}

#[test]
fn a_block_longer_than_a_command_is_refused() {
    let mut srb: Srb = Packet::parse(&linux_read()).unwrap().0.body();
    for (len, valid) in [(0, true), (16, true), (17, false), (20, false), (255, false)] {
        srb.cdb_len = len;
        assert_eq!(srb.cdb().is_some(), valid);
    }
    assert_eq!(srb.to_string(), "0:0:5 (cdb of 255 B) READ len=4096");
}
