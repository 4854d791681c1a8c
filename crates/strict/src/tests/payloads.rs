// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules on what devices' packets hold.

use busway_wire::ic::{self, HeaderFlags};
use busway_wire::nvsp::{Message, MessageType, NdisConfig, RndisChannel, RndisPacket, ShareBuffer};
use busway_wire::packet::PacketType;
use busway_wire::storvsc::{Direction, NtStatus, Operation, Packet as VstorPacket, Srb};
use zerocopy::{FromZeros, IntoBytes};

use super::*;

/// What is found in the payload of a packet with so many bytes outside of it.
fn broken(class: Guid, payload: &[u8], outside: Option<u32>) -> Vec<Rule> {
    let mut bench = Bench::default();
    let mut header = (1_u64 << 32).to_le_bytes().to_vec();
    header.extend(u64::from(outside.unwrap_or_default()).to_le_bytes());
    header.extend([0; 8]);
    let mut packet = Sent::in_band(1, payload);
    if outside.is_some() {
        (packet.kind, packet.header) = (PacketType::DATA_USING_GPA_DIRECT, &header);
    }
    bench.packet(&place(class), Side::Guest, &packet);
    bench.broken()
}

fn vstor(operation: Operation) -> VstorPacket {
    let status = NtStatus::SUCCESS;
    VstorPacket { operation, flags: 1, status, body: [0; 52] }
}

/// What is found in a READ(10) of 4 KiB that was changed.
fn srb(change: impl FnOnce(&mut Srb)) -> Vec<Rule> {
    let mut srb = Srb::new_zeroed();
    (srb.length, srb.cdb_len, srb.sense_len) = (52, 10, 20);
    (srb.direction, srb.data_transfer_length) = (Direction::READ, 4096);
    srb.cdb_or_sense[0] = 0x28;
    change(&mut srb);
    let packet = vstor(Operation::EXECUTE_SRB).with_body(&srb);
    broken(class::SCSI, packet.as_bytes(), Some(4096))
}

#[test]
fn storvsc_packets() {
    let packet = vstor(Operation::BEGIN_INITIALIZATION);
    assert_eq!(broken(class::SCSI, packet.as_bytes(), None), []);
    assert_eq!(broken(class::IDE, &packet.as_bytes()[..48], None), []);
    assert_eq!(broken(class::SCSI, &packet.as_bytes()[..40], None), [Rule::VstorLength]);
    let mut long = packet.as_bytes().to_vec();
    long.extend([0; 8]);
    assert_eq!(broken(class::SCSI, &long, None), [Rule::VstorLength]);
    for operation in [Operation(14), Operation::COMPLETE_IO, Operation::ENUMERATE_BUS] {
        let packet = vstor(operation);
        assert_eq!(broken(class::SCSI, packet.as_bytes(), None), [Rule::VstorOperation]);
    }
    let packet = VstorPacket { flags: 3, ..packet };
    assert_eq!(broken(class::FIBRE_CHANNEL, packet.as_bytes(), None), [Rule::VstorFlags]);
}

#[test]
fn scsi_requests() {
    assert_eq!(srb(|_| {}), []);
    assert_eq!(srb(|srb| srb.length = 64), [Rule::SrbLength]);
    assert_eq!(srb(|srb| srb.cdb_len = 6), [Rule::SrbCdbLength]);
    assert_eq!(srb(|srb| srb.cdb_len = 17), [Rule::SrbCdbLength]);
    assert_eq!(srb(|srb| srb.sense_len = 21), [Rule::SrbSenseLength]);
    assert_eq!(srb(|srb| srb.direction = Direction(3)), [Rule::SrbDirection]);
    assert_eq!(srb(|srb| srb.reserved = 1), [Rule::SrbReserved]);
    assert_eq!(srb(|srb| srb.reserved2 = 1), [Rule::SrbReserved]);
    assert_eq!(srb(|srb| srb.data_transfer_length = 8192), [Rule::SrbDataLength]);
    // A vendor's command has any length up to 16.
    assert_eq!(srb(|srb| (srb.cdb_or_sense[0], srb.cdb_len) = (0xc1, 9)), []);
    let mut short = Srb::new_zeroed();
    (short.length, short.cdb_len) = (36, 6);
    let packet = vstor(Operation::EXECUTE_SRB).with_body(&short);
    assert_eq!(broken(class::SCSI, &packet.as_bytes()[..48], None), []);
    short.data_transfer_length = 1;
    let packet = vstor(Operation::EXECUTE_SRB).with_body(&short);
    let found = broken(class::SCSI, &packet.as_bytes()[..48], None);
    assert_eq!(found, [Rule::SrbDataLength]);
}

fn nvsp<T: IntoBytes + zerocopy::Immutable>(kind: MessageType, body: &T) -> Vec<Rule> {
    broken(class::NETWORK, Message::new(kind, body).as_bytes(), None)
}

#[test]
fn nvsp_messages() {
    let init = MessageType::INIT.as_bytes();
    assert_eq!(nvsp(MessageType::INIT, &[2_u32, 2]), []);
    assert_eq!(broken(class::NETWORK, init, None), [Rule::NvspLength]);
    assert_eq!(broken(class::NETWORK, &init[..2], None), [Rule::NvspLength]);
    assert_eq!(nvsp(MessageType(99), &0_u32), [Rule::NvspType]);
    assert_eq!(nvsp(MessageType::INIT_COMPLETE, &0_u32), [Rule::NvspType]);
    let config = NdisConfig { mtu: 1514, reserved: 0, capabilities: 0 };
    assert_eq!(nvsp(MessageType::SEND_NDIS_CONFIG, &config), []);
    let config = NdisConfig { reserved: 1, ..config };
    assert_eq!(nvsp(MessageType::SEND_NDIS_CONFIG, &config), [Rule::NvspReserved]);
    let buffer = ShareBuffer { gpadl: 1, id: 0xcafe, reserved: 1 };
    assert_eq!(nvsp(MessageType::SEND_RECEIVE_BUFFER, &buffer), [Rule::NvspReserved]);
    let (channel, section_index) = (RndisChannel::CONTROL, RndisPacket::NO_SECTION);
    let rndis = RndisPacket { channel, section_index, section_len: 0 };
    let kind = MessageType::SEND_RNDIS_PACKET;
    assert_eq!(nvsp(kind, &rndis), []);
    assert_eq!(nvsp(kind, &RndisPacket { section_index: 3, section_len: 9, ..rndis }), []);
    assert_eq!(nvsp(kind, &RndisPacket { section_len: 9, ..rndis }), [Rule::NvspSection]);
    let wrong = RndisPacket { channel: RndisChannel(2), ..rndis };
    assert_eq!(nvsp(kind, &wrong), [Rule::NvspChannel]);
    // An answer holds less.
    let mut bench = Bench::default();
    let place = place(class::NETWORK);
    bench.packet(&place, Side::Host, &Sent::in_band(1, &[0; 40]));
    bench.packet(&place, Side::Guest, &Sent::completion(1));
    assert_eq!(bench.broken(), []);
}

/// What is found in RNDIS messages of these words.
fn rndis(words: &[u32]) -> Vec<Rule> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let read = |out: &mut [u8]| {
        let len = bytes.len().min(out.len());
        out[..len].copy_from_slice(&bytes[..len]);
        len
    };
    let mut bench = Bench::default();
    let (side, transaction_id, len) = (Side::Guest, 1, bytes.len());
    let event = Event::Outside { side, transaction_id, len, read: &read };
    bench.event(&place(class::NETWORK), event);
    bench.broken()
}

#[test]
fn rndis_messages() {
    const FRAME: [u32; 13] = [1, 52, 36, 8, 0, 0, 0, 0, 0, 0, 0, 0xaaaa, 0xbbbb];
    assert_eq!(rndis(&FRAME), []);
    assert_eq!(rndis(&[FRAME, FRAME].concat()), []);
    let mut second = FRAME;
    second[3] = 9;
    assert_eq!(rndis(&[FRAME, second].concat()), [Rule::RndisOffset]);
    assert_eq!(rndis(&[[FRAME; 100].concat(), second.to_vec()].concat()), [], "beyond the look");
    let mut long = FRAME;
    long[1] = 56;
    assert_eq!(rndis(&long), [Rule::RndisLength]);
    assert_eq!(rndis(&[2, 24, 1, 1, 0, 0x4000]), []);
    assert_eq!(rndis(&[2, 20, 1, 1, 0]), [Rule::RndisLength]);
    assert_eq!(rndis(&[7, 24, 1, 1, 0, 0]), [Rule::RndisType]);
    assert_eq!(rndis(&[1]), [Rule::RndisLength]);
    // A query that points nowhere, and a set of four bytes.
    assert_eq!(rndis(&[4, 28, 1, 0x10101, 0, 20, 0]), []);
    assert_eq!(rndis(&[5, 32, 1, 0x1010e, 4, 20, 0, 9]), []);
    assert_eq!(rndis(&[5, 32, 1, 0x1010e, 4, 24, 0, 9]), [Rule::RndisOffset]);
    assert_eq!(rndis(&[5, 32, 1, 0x1010e, u32::MAX, u32::MAX, 0, 9]), [Rule::RndisOffset]);
}

#[test]
fn pipes_say_how_much_they_carry() {
    let pipe = |kind: u32, len: u32| {
        let words = [kind, len, 0, 0];
        broken(class::MOUSE, words.as_bytes(), None)
    };
    assert_eq!(pipe(1, 8), []);
    assert_eq!(pipe(1, 5), [], "padded");
    assert_eq!(pipe(1, 9), [Rule::PipeLength]);
    assert_eq!(pipe(2, 8), [Rule::PipeType]);
    assert_eq!(broken(class::MOUSE, &[0; 4], None), [Rule::PipeLength]);
}

#[test]
fn components_answer_what_they_were_asked() {
    let place = place(class::HEARTBEAT);
    let version = ic::Version::new(3, 0);
    let mut bench = Bench::default();
    let header = ic::Header::request(ic::MessageType::HEARTBEAT, version, version, 9);
    let asked = header.payload(&[0; 8]);
    let host = Sent { flags: 0, ..Sent::in_band(1, &asked) };
    let mut answer = header;
    answer.flags = (HeaderFlags::TRANSACTION | HeaderFlags::RESPONSE).bits();
    let mut exchange = |answer: ic::Header| {
        bench.packet(&place, Side::Host, &host);
        let payload = answer.payload(&[0; 8]);
        bench.packet(&place, Side::Guest, &Sent { flags: 0, ..Sent::in_band(1, &payload) });
        bench.broken()
    };
    assert_eq!(exchange(answer), []);
    assert_eq!(exchange(answer), []);
    assert_eq!(exchange(header), [Rule::IcFlags], "no answer");
    assert_eq!(exchange(ic::Header { flags: 0x85, ..answer }), [Rule::IcFlags]);
    assert_eq!(exchange(ic::Header { reserved: [0, 1], ..answer }), [Rule::IcReserved]);
    assert_eq!(exchange(ic::Header { transaction_id: 8, ..answer }), [Rule::IcTransaction]);
    let payload = answer.payload(&[0; 8]);
    let late = Sent { flags: 0, ..Sent::in_band(1, &payload) };
    bench.packet(&place, Side::Guest, &late);
    bench.packet(&place, Side::Guest, &late);
    assert_eq!(bench.broken(), [Rule::IcTransaction], "once");
    bench.packet(
        &place,
        Side::Guest,
        &Sent { flags: 0, ..Sent::in_band(1, &[1, 0, 0, 0, 0, 0, 0, 0]) },
    );
    assert_eq!(bench.broken(), [Rule::PipeLength]);
}
