// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's storage driver, as far as its host can see: `hv_storvsc` of Linux, or an older one.

use busway_memory::{Bytes, GuestAddress, PAGE_SIZE};
use busway_ring::Outgoing;
use busway_storage::{Luns, StorageController, Units};
use busway_testkit::{GuestChannel, Pair, PairConfig};
use busway_wire::control::layout::OfferChannel;
use busway_wire::packet::PacketType;
use busway_wire::{Guid, Version, class};

pub const BEGIN_INITIALIZATION: u32 = 7;
pub const END_INITIALIZATION: u32 = 8;
pub const QUERY_PROTOCOL_VERSION: u32 = 9;
pub const QUERY_PROPERTIES: u32 = 10;
pub const RESET_LUN: u32 = 4;
pub const RESET_BUS: u32 = 6;

/// The transaction id of the handshake (Linux `include/linux/hyperv.h`, `VMBUS_RQST_INIT`).
pub const INIT: u64 = u64::MAX - 2;
/// That of a reset (`VMBUS_RQST_RESET`).
pub const RESET: u64 = u64::MAX - 3;

pub(crate) const INSTANCE: Guid = Guid::from_text_order(0xf8b3781a_1e82_4818_a1c3_63d806ec15bb);

/// A guest with a storage driver on one channel.
pub struct Storvsc {
    pub pair: Pair,
    pub offer: OfferChannel,
    pub channel: GuestChannel,
    /// For who changes its units.
    pub units: Units,
    /// Bytes of a packet: 64, or 48 before version 5.1.
    pub packet_len: usize,
}

/// The data of a command: pages, where in the first of them it starts, and how long it is.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub pfns: Vec<u64>,
    pub offset: usize,
    pub len: usize,
}

/// What the host says of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub id: u64,
    pub status: u32,
    pub srb_status: u8,
    pub scsi_status: u8,
    pub moved: u32,
    /// Key, code and qualifier.
    pub sense: Option<(u8, u8, u8)>,
}

impl Answer {
    pub const fn good(id: u64, moved: u32) -> Self {
        Self { id, status: 0, srb_status: 1, scsi_status: 0, moved, sense: None }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The fields of a `struct vmscsi_request` that a test sets.
#[derive(Clone, Copy, Debug)]
pub struct Srb<'a> {
    pub path: u8,
    pub target: u8,
    pub lun: u8,
    pub cdb: &'a [u8],
    pub cdb_len: u8,
    pub direction: u8,
    pub data_transfer_length: u32,
}

impl<'a> Srb<'a> {
    pub fn new(lun: u8, cdb: &'a [u8], direction: u8, len: usize) -> Self {
        let (cdb_len, data_transfer_length) = (cdb.len() as u8, len as u32);
        Self { path: 0, target: 0, lun, cdb, cdb_len, direction, data_transfer_length }
    }

    /// `struct vstor_packet` with EXECUTE_SRB, field by field.
    pub fn packet(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(52_u16.to_le_bytes());
        bytes.extend([0, 0, 0, self.path, self.target, self.lun]);
        bytes.extend([self.cdb_len, 20, self.direction, 0]);
        bytes.extend(self.data_transfer_length.to_le_bytes());
        bytes.extend(self.cdb);
        bytes.resize(64, 0);
        bytes
    }
}

impl Storvsc {
    /// A guest that has opened its controller and not said a word on the channel yet.
    pub fn opened(luns: Luns, depth: usize, ring_pages: usize) -> Self {
        Self::with_channels(luns, depth, ring_pages, 1)
    }

    /// The same, with a controller that has `channels` channels.
    pub fn with_channels(luns: Luns, depth: usize, ring_pages: usize, channels: u16) -> Self {
        let controller = StorageController::new(INSTANCE, luns);
        Self::on(controller.with_depth(depth).with_channels(channels), ring_pages)
    }

    /// The same on any controller.
    pub fn on(controller: StorageController, ring_pages: usize) -> Self {
        let mut pair = Pair::new(PairConfig::default());
        let units = controller.units();
        pair.add(controller);
        let offer = *pair.connect(Version::V5_3).offer(class::SCSI);
        let channel = pair.open(&offer, ring_pages, 0).unwrap();
        Self { pair, offer, channel, units, packet_len: 64 }
    }

    /// A guest after the handshake that Linux makes.
    pub fn ready(luns: Luns, depth: usize) -> Self {
        let mut storvsc = Self::opened(luns, depth, 32);
        storvsc.handshake(0x0602);
        storvsc
    }

    pub fn handshake(&mut self, version: u16) {
        for (operation, body) in [
            (BEGIN_INITIALIZATION, 0),
            (QUERY_PROTOCOL_VERSION, version),
            (QUERY_PROPERTIES, 0),
            (END_INITIALIZATION, 0),
        ] {
            let answer = self.operate(INIT, operation, body);
            assert_eq!(u32_at(&answer, 8), 0, "operation {operation}");
        }
    }

    /// Makes a request of the handshake, and returns the packet that answers it.
    pub fn operate(&mut self, id: u64, operation: u32, body: u16) -> Vec<u8> {
        self.send_operation(id, operation, body);
        let answer = self.channel.receive(&mut self.pair);
        assert_eq!(answer.descriptor.kind, PacketType::COMPLETION);
        assert_eq!(answer.descriptor.transaction_id, id);
        assert_eq!(answer.payload.len(), self.packet_len);
        assert_eq!(u32_at(&answer.payload, 0), 1, "COMPLETE_IO");
        answer.payload
    }

    pub fn send_operation(&mut self, id: u64, operation: u32, body: u16) {
        let mut packet = vec![0; self.packet_len];
        packet[..4].copy_from_slice(&operation.to_le_bytes());
        packet[4] = 1;
        packet[12..14].copy_from_slice(&body.to_le_bytes());
        self.channel.request(&mut self.pair, id, &packet);
    }

    /// Pages for `len` bytes that start `offset` bytes into the first.
    pub fn buffer(&mut self, offset: usize, len: usize) -> Buffer {
        let pfns = self.pair.pages.take_many((offset + len).div_ceil(PAGE_SIZE));
        Buffer { pfns, offset, len }
    }

    pub fn fill(&self, buffer: &Buffer, data: &[u8]) {
        assert_eq!(data.len(), buffer.len);
        let mut done = 0;
        for (address, len) in buffer.pieces() {
            let piece = &data[done..done + len];
            self.pair.memory.write_slice(piece, GuestAddress(address)).unwrap();
            done += len;
        }
    }

    pub fn contents(&self, buffer: &Buffer) -> Vec<u8> {
        let mut data = vec![0; buffer.len];
        let mut done = 0;
        for (address, len) in buffer.pieces() {
            let piece = &mut data[done..done + len];
            self.pair.memory.read_slice(piece, GuestAddress(address)).unwrap();
            done += len;
        }
        data
    }

    pub fn send(&mut self, id: u64, srb: &Srb<'_>, buffer: Option<&Buffer>) {
        let packet = &srb.packet()[..self.packet_len];
        match buffer {
            None => self.channel.request(&mut self.pair, id, packet),
            Some(Buffer { pfns, offset, len }) => {
                let place = (*offset as u32, *len as u32);
                self.channel.request_on_pages(&mut self.pair, id, packet, pfns, place);
            }
        }
    }

    pub fn send_raw(&mut self, packet: &Outgoing<'_>) {
        self.channel.send(&mut self.pair, packet);
    }

    pub fn answer(&mut self) -> Answer {
        let packet = self.channel.receive(&mut self.pair);
        assert_eq!(packet.descriptor.kind, PacketType::COMPLETION);
        let bytes = &packet.payload;
        assert_eq!((bytes.len(), u32_at(bytes, 0)), (self.packet_len, 1));
        let has_sense = bytes[14] & 0x80 != 0;
        Answer {
            id: packet.descriptor.transaction_id,
            status: u32_at(bytes, 8),
            srb_status: bytes[14],
            scsi_status: bytes[15],
            moved: u32_at(bytes, 24),
            sense: has_sense.then(|| (bytes[30], bytes[40], bytes[41])),
        }
    }

    /// A command without data.
    pub fn command(&mut self, lun: u8, cdb: &[u8]) -> Answer {
        self.send(1, &Srb::new(lun, cdb, 2, 0), None);
        self.answer()
    }

    pub fn read(&mut self, lun: u8, cdb: &[u8], buffer: &Buffer) -> Answer {
        self.send(1, &Srb::new(lun, cdb, 1, buffer.len), Some(buffer));
        self.answer()
    }

    pub fn write(&mut self, lun: u8, cdb: &[u8], buffer: &Buffer) -> Answer {
        self.send(1, &Srb::new(lun, cdb, 0, buffer.len), Some(buffer));
        self.answer()
    }
}

impl Buffer {
    fn pieces(&self) -> impl Iterator<Item = (u64, usize)> {
        let mut offset = self.offset;
        let mut left = self.len;
        self.pfns.iter().map_while(move |pfn| {
            let len = (PAGE_SIZE - offset).min(left);
            let address = (pfn << 12) + offset as u64;
            offset = 0;
            left -= len;
            (len != 0).then_some((address, len))
        })
    }
}

/// A command of ten bytes: flags, address, count.
pub fn cdb_10(opcode: u8, flags: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    (cdb[0], cdb[1]) = (opcode, flags);
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}
