// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests of storvsc.

use busway_wire::storvsc::{
    CDB_OR_SENSE_LEN, Direction, MAX_CDB_LEN, Operation, Packet as VstorPacket, REQUEST_COMPLETION,
    Srb,
};

use crate::channel::Packet;
use crate::{Finding, Rule, demand};

/// Bytes of an SRB before version 5.1, which has as many behind it as the packet is longer.
const SHORT_SRB: usize = 36;

/// Checks a request.
pub(crate) fn request(packet: &Packet<'_>, found: &mut Vec<Finding>) {
    let have = packet.payload.len();
    demand([VstorPacket::SHORT_LEN, VstorPacket::LEN].contains(&have), found, || {
        packet.finding(Rule::VstorLength, "payload", format!("{have} B"), "64 B or 48 B")
    });
    let Ok((request, len)) = VstorPacket::parse(packet.payload) else {
        return;
    };
    let operation = request.operation;
    demand(is_a_guests(operation), found, || {
        let expected = "an operation that guests ask for";
        packet.finding(Rule::VstorOperation, "operation", operation, expected)
    });
    demand(request.flags & !REQUEST_COMPLETION == 0, found, || {
        packet.finding(Rule::VstorFlags, "flags", format!("{:#x}", request.flags), "0 or 1")
    });
    if operation == Operation::EXECUTE_SRB {
        check_srb(packet, &request.body(), len, found);
    }
}

fn is_a_guests(operation: Operation) -> bool {
    let hosts = [Operation::COMPLETE_IO, Operation::REMOVE_DEVICE, Operation::ENUMERATE_BUS];
    operation.name().is_some() && !hosts.contains(&operation)
}

fn check_srb(packet: &Packet<'_>, srb: &Srb, packet_len: usize, found: &mut Vec<Finding>) {
    let len = match packet_len {
        VstorPacket::LEN => size_of::<Srb>(),
        _ => SHORT_SRB,
    };
    demand(usize::from(srb.length) == len, found, || {
        packet.finding(Rule::SrbLength, "length", srb.length, len)
    });
    check_cdb(packet, srb, found);
    demand(usize::from(srb.sense_len) <= CDB_OR_SENSE_LEN, found, || {
        packet.finding(Rule::SrbSenseLength, "sense_info_length", srb.sense_len, "20 or less")
    });
    demand(srb.direction.0 <= Direction::NONE.0, found, || {
        packet.finding(Rule::SrbDirection, "data_in", srb.direction.0, "0, 1 or 2")
    });
    let reserved = (srb.reserved, srb.reserved2);
    demand(reserved == (0, 0), found, || {
        packet.finding(Rule::SrbReserved, "reserved", format!("{reserved:x?}"), "(0, 0)")
    });
    // Ranges that make no sense have a rule of their own.
    let is_in_band = packet.descriptor.kind == busway_wire::packet::PacketType::DATA_IN_BAND;
    if let Some(outside) = packet.outside.or(is_in_band.then_some(0)) {
        let says = srb.data_transfer_length;
        demand(u64::from(says) == outside, found, || {
            packet.finding(Rule::SrbDataLength, "data_transfer_length", says, outside)
        });
    }
}

fn check_cdb(packet: &Packet<'_>, srb: &Srb, found: &mut Vec<Finding>) {
    let len = usize::from(srb.cdb_len);
    let [opcode, ..] = srb.cdb_or_sense;
    let (fits, expected) = match opcode >> 5 {
        0 => (len == 6, "6"),
        1 | 2 => (len == 10, "10"),
        4 => (len == 16, "16"),
        5 => (len == 12, "12"),
        _ => ((1..=MAX_CDB_LEN).contains(&len), "1 to 16"),
    };
    demand(fits, found, || {
        let expected = format!("{expected} for operation code {opcode:#04x}");
        packet.finding(Rule::SrbCdbLength, "cdb_length", len, expected)
    });
}
