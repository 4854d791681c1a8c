// SPDX-License-Identifier: MIT OR Apache-2.0

//! A guest's storage driver, as fast as one can be: requests are made beforehand.

use busway_block::Disk;
use busway_ring::Outgoing;
use busway_storage::{Luns, StorageController};
use busway_testkit::{GuestChannel, Pair, PairConfig};
use busway_vmbus::Bus;
use busway_wire::packet::{COMPLETION_REQUESTED, PacketType};
use busway_wire::storvsc::{
    Direction, NtStatus, Operation, Packet, ProtocolVersion, REQUEST_COMPLETION, Srb, Version,
};
use busway_wire::{Guid, Version as BusVersion, class};
use zerocopy::{FromZeros, IntoBytes};

/// A guest whose driver has a disk.
pub struct Guest {
    pub pair: Pair,
    pub channel: GuestChannel,
}

impl Guest {
    /// A guest with rings of `ring_pages` pages each way, and `disk` ready behind them.
    pub fn new(disk: Disk, ring_pages: usize, ram_pages: usize) -> Self {
        Self::on_bus(disk, ring_pages, ram_pages, |_| {})
    }

    /// The same on a bus that has been prepared for it.
    pub fn on_bus(
        disk: Disk,
        ring_pages: usize,
        ram_pages: usize,
        prepare: impl FnOnce(&mut Bus),
    ) -> Self {
        let mut pair = Pair::new(PairConfig { ram_pages, ..PairConfig::default() });
        prepare(&mut pair.bus);
        let luns = Luns::new([(0, disk)]).expect("one disk");
        pair.add(StorageController::new(Guid::from_text_order(1), luns));
        let offer = *pair.connect(BusVersion::V5_3).offer(class::SCSI);
        let channel = pair.open(&offer, ring_pages, 0).expect("an open channel");
        let mut guest = Self { pair, channel };
        guest.handshake();
        guest
    }

    fn handshake(&mut self) {
        let version = ProtocolVersion { version: Version::V6_2, revision: 0 };
        for operation in [
            Operation::BEGIN_INITIALIZATION,
            Operation::QUERY_PROTOCOL_VERSION,
            Operation::QUERY_PROPERTIES,
            Operation::END_INITIALIZATION,
        ] {
            let request = packet(operation).with_body(&version);
            self.channel.request(&mut self.pair, 1, request.as_bytes());
            let answer = self.channel.receive(&mut self.pair);
            let (answer, _) = Packet::parse(&answer.payload).expect("an answer");
            assert_eq!(answer.status, NtStatus::SUCCESS, "{operation}");
        }
    }
}

fn packet(operation: Operation) -> Packet {
    Packet { operation, flags: REQUEST_COMPLETION, ..Packet::new_zeroed() }
}

/// A READ(10) or WRITE(10) with its pages: everything but the place on the disk is fixed.
pub struct Request {
    header: Vec<u8>,
    packet: Packet,
    srb: Srb,
    blocks: u32,
}

impl Request {
    /// Of `len` bytes, on pages of its own.
    pub fn new(guest: &mut Guest, len: u32, write: bool) -> Self {
        let pfns = guest.pair.pages.take_many(len.div_ceil(4096) as usize);
        let mut header = (1_u64 << 32).to_le_bytes().to_vec();
        header.extend(u64::from(len).to_le_bytes());
        header.extend(pfns.iter().flat_map(|pfn| pfn.to_le_bytes()));
        let mut srb = Srb::new_zeroed();
        srb.cdb_len = 10;
        srb.sense_len = 20;
        srb.direction = if write { Direction::WRITE } else { Direction::READ };
        srb.data_transfer_length = len;
        srb.cdb_or_sense[0] = if write { 0x2a } else { 0x28 };
        srb.cdb_or_sense[7..9].copy_from_slice(&((len / 512) as u16).to_be_bytes());
        Self { header, packet: packet(Operation::EXECUTE_SRB), srb, blocks: len / 512 }
    }

    /// Puts it into the guest's ring, for the piece of the disk with number `index`.
    pub fn push(&mut self, channel: &mut GuestChannel, id: u64, index: u64) {
        let lba = index as u32 * self.blocks;
        self.srb.cdb_or_sense[2..6].copy_from_slice(&lba.to_be_bytes());
        let packet = self.packet.with_body(&self.srb);
        let packet = Outgoing {
            kind: PacketType::DATA_USING_GPA_DIRECT,
            flags: COMPLETION_REQUESTED,
            transaction_id: id,
            header: &self.header,
            payload: packet.as_bytes(),
        };
        channel.outgoing.push(&packet).expect("room for a request");
    }
}
