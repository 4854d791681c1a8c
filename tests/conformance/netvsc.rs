// SPDX-License-Identifier: MIT OR Apache-2.0

//! A network driver's end: what `hv_netvsc` does, in the order in which it does it, with every step
//! apart so that a test can do one of them wrong.

use busway_memory::{Bytes, GuestAddress, GuestBuffer, PAGE_SIZE};
use busway_ring::Outgoing;
use busway_testkit::{GuestChannel, GuestPacket, Pair};
use busway_wire::control::layout::OfferChannel;
use busway_wire::nvsp::{
    Init, InitComplete, Message, MessageType, NdisConfig, ReceiveBufferComplete, RevokeBuffer,
    RndisChannel, RndisPacket, RndisPacketComplete, SendBufferComplete, ShareBuffer, Status,
    Version,
};
use busway_wire::packet::{COMPLETION_REQUESTED, PacketType};
use busway_wire::rndis::{Oid, Status as RndisStatus};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Pages of the receive buffer and of the send buffer.
const RECEIVE_PAGES: usize = 256;
const SEND_PAGES: usize = 16;

const RECEIVE_ID: u16 = 0xcafe;

/// Little-endian words.
pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Memory that the guest shares with the card.
pub(crate) struct Shared {
    pub(crate) gpadl: u32,
    pub(crate) memory: GuestBuffer,
}

impl Shared {
    fn new(pair: &mut Pair, relid: u32, pages: usize) -> Self {
        let pfns = pair.pages.take_many(pages);
        let memory = GuestBuffer::new(&pair.memory, &pfns, 0, pages * PAGE_SIZE).unwrap();
        Self { gpadl: pair.make_gpadl(relid, &pfns).unwrap(), memory }
    }

    fn read(&self, offset: u32, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        assert_eq!(self.memory.read_at(offset as usize, &mut bytes), bytes.len());
        bytes
    }
}

/// A frame as it comes in: its notes by their kinds, and its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) notes: Vec<(u32, u32)>,
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    pub(crate) fn note(&self, kind: u32) -> Option<u32> {
        self.notes.iter().find(|note| note.0 == kind).map(|note| note.1)
    }
}

/// Kinds of notes.
pub(crate) const CHECKSUM: u32 = 0;
pub(crate) const LARGE_SEND: u32 = 2;
pub(crate) const VLAN: u32 = 6;
pub(crate) const HASH: u32 = 9;
pub(crate) const PACKET_ID: u32 = 0x8000_0001;

/// The message of a frame.
pub(crate) fn message(notes: &[(u32, u32)], frame: &[u8]) -> Vec<u8> {
    let info = notes.len() as u32 * 16;
    let len = 44 + info + frame.len() as u32;
    let mut bytes = words(&[1, len, 36 + info, frame.len() as u32, 0, 0, 0, 36, info, 0, 0]);
    for (kind, value) in notes {
        bytes.extend(words(&[16, *kind, 12, *value]));
    }
    bytes.extend(frame);
    bytes
}

/// A driver on an open channel.
pub(crate) struct Netvsc {
    pub(crate) channel: GuestChannel,
    pub(crate) receive: Shared,
    pub(crate) send: Shared,
    pub(crate) part_len: u32,
    pub(crate) parts: u32,
    next: u64,
    /// Packets from the card that came while something else was waited for.
    pub(crate) waiting: Vec<GuestPacket>,
}

impl Netvsc {
    /// Opens the channel and shares the buffers, without a word to the card.
    pub(crate) fn open(pair: &mut Pair, offer: &OfferChannel, ring_pages: usize) -> Self {
        let channel = pair.open(offer, ring_pages, 0).unwrap();
        let receive = Shared::new(pair, offer.relid, RECEIVE_PAGES);
        let send = Shared::new(pair, offer.relid, SEND_PAGES);
        Self { channel, receive, send, part_len: 0, parts: 0, next: 1, waiting: Vec::new() }
    }

    /// All of what a driver does until frames can pass.
    pub(crate) fn start(pair: &mut Pair, offer: &OfferChannel, version: Version) -> Self {
        let mut driver = Self::open(pair, offer, 16);
        assert_eq!(driver.init(pair, version).status, Status::SUCCESS);
        driver.configure(pair, 1514, 0x8c);
        driver.share(pair);
        driver.initialize(pair);
        assert_eq!(driver.set_filter(pair, 0x0d), RndisStatus::SUCCESS);
        driver
    }

    /// Sends a request and returns what its completion holds.
    pub(crate) fn ask(&mut self, pair: &mut Pair, payload: &[u8]) -> Vec<u8> {
        let id = self.next;
        self.next += 1;
        self.channel.request(pair, id, payload);
        self.completion(pair, id)
    }

    pub(crate) fn completion(&mut self, pair: &mut Pair, id: u64) -> Vec<u8> {
        loop {
            let packet = self.channel.receive(pair);
            if packet.descriptor.kind == PacketType::COMPLETION {
                assert_eq!(packet.descriptor.transaction_id, id);
                return packet.payload;
            }
            self.waiting.push(packet);
        }
    }

    pub(crate) fn ask_for<T: FromBytes>(
        &mut self,
        pair: &mut Pair,
        kind: MessageType,
        body: &(impl IntoBytes + Immutable),
    ) -> (MessageType, T) {
        let answer = self.ask(pair, Message::new(kind, body).as_bytes());
        assert_eq!(answer.len(), 40);
        let answer = Message::parse(&answer).unwrap();
        (answer.kind, answer.body())
    }

    pub(crate) fn init(&mut self, pair: &mut Pair, version: Version) -> InitComplete {
        let body = Init { min: version, max: version };
        let (kind, complete) = self.ask_for(pair, MessageType::INIT, &body);
        assert_eq!(kind, MessageType::INIT_COMPLETE);
        complete
    }

    /// Tells what the guest can do; nothing is answered.
    pub(crate) fn configure(&mut self, pair: &mut Pair, mtu: u32, capabilities: u64) {
        let body = NdisConfig { mtu, reserved: 0, capabilities };
        let message = Message::new(MessageType::SEND_NDIS_CONFIG, &body);
        self.channel.send(pair, &Outgoing::in_band(0, message.as_bytes()));
    }

    pub(crate) fn share_receive(&mut self, pair: &mut Pair, gpadl: u32) -> ReceiveBufferComplete {
        let body = ShareBuffer { gpadl, id: RECEIVE_ID, reserved: 0 };
        self.ask_for(pair, MessageType::SEND_RECEIVE_BUFFER, &body).1
    }

    pub(crate) fn share(&mut self, pair: &mut Pair) {
        let complete = self.share_receive(pair, self.receive.gpadl);
        assert_eq!((complete.status, complete.section_count), (Status::SUCCESS, 1));
        (self.part_len, self.parts) = (complete.part_len, complete.part_count);
        let body = ShareBuffer { gpadl: self.send.gpadl, id: 0, reserved: 0 };
        let kind = MessageType::SEND_SEND_BUFFER;
        let complete: SendBufferComplete = self.ask_for(pair, kind, &body).1;
        assert_eq!((complete.status, complete.section_len), (Status::SUCCESS, 6144));
    }

    pub(crate) fn revoke(&mut self, pair: &mut Pair) {
        let body = RevokeBuffer { id: RECEIVE_ID, reserved: 0 };
        assert!(
            self.ask(pair, Message::new(MessageType::REVOKE_RECEIVE_BUFFER, &body).as_bytes())
                .is_empty()
        );
        let body = RevokeBuffer { id: 0, reserved: 0 };
        assert!(
            self.ask(pair, Message::new(MessageType::REVOKE_SEND_BUFFER, &body).as_bytes())
                .is_empty()
        );
    }

    /// Sends messages that stand in section `index` of the send buffer.
    pub(crate) fn send_section(
        &mut self,
        pair: &mut Pair,
        channel: RndisChannel,
        index: u32,
        bytes: &[u8],
    ) -> Status {
        self.send.memory.write_at(index as usize * 6144, bytes);
        self.send_named(pair, channel, index, bytes.len() as u32)
    }

    pub(crate) fn send_named(
        &mut self,
        pair: &mut Pair,
        channel: RndisChannel,
        section_index: u32,
        section_len: u32,
    ) -> Status {
        let body = RndisPacket { channel, section_index, section_len };
        let (kind, complete) = self.ask_for(pair, MessageType::SEND_RNDIS_PACKET, &body);
        assert_eq!(kind, MessageType::SEND_RNDIS_PACKET_COMPLETE);
        let RndisPacketComplete { status } = complete;
        status
    }

    /// Sends messages from pages: each slice in a range of its own, at some odd place of a page. With
    /// a `section`, they follow what stands there.
    pub(crate) fn send_pages(
        &mut self,
        pair: &mut Pair,
        parts: &[&[u8]],
        section: Option<(u32, u32)>,
    ) -> Status {
        let header = Self::lay_out(pair, parts);
        self.send_ranges(pair, &header, section)
    }

    /// Puts messages into pages, each slice at some odd place; the ranges that name them.
    pub(crate) fn lay_out(pair: &mut Pair, parts: &[&[u8]]) -> Vec<u8> {
        let mut header = words(&[0, parts.len() as u32]);
        for part in parts {
            let count = (100 + part.len()).div_ceil(PAGE_SIZE);
            let pfns = pair.pages.take_many(count);
            let buffer = GuestBuffer::new(&pair.memory, &pfns, 100, part.len()).unwrap();
            buffer.write_at(0, part);
            header.extend(words(&[part.len() as u32, 100]));
            header.extend(pfns.iter().flat_map(|pfn| pfn.to_le_bytes()));
        }
        header
    }

    pub(crate) fn send_ranges(
        &mut self,
        pair: &mut Pair,
        header: &[u8],
        section: Option<(u32, u32)>,
    ) -> Status {
        let (section_index, section_len) = section.unwrap_or((RndisPacket::NO_SECTION, 0));
        let body = RndisPacket { channel: RndisChannel::DATA, section_index, section_len };
        let message = Message::new(MessageType::SEND_RNDIS_PACKET, &body);
        let id = self.next;
        self.next += 1;
        let packet = Outgoing {
            kind: PacketType::DATA_USING_GPA_DIRECT,
            flags: COMPLETION_REQUESTED,
            transaction_id: id,
            header,
            payload: message.as_bytes(),
        };
        self.channel.send(pair, &packet);
        let answer = Message::parse(&self.completion(pair, id)).unwrap();
        answer.body::<RndisPacketComplete>().status
    }

    /// Sends a frame.
    pub(crate) fn send_frame(&mut self, pair: &mut Pair, notes: &[(u32, u32)], frame: &[u8]) {
        let status = self.send_section(pair, RndisChannel::DATA, 0, &message(notes, frame));
        assert_eq!(status, Status::SUCCESS);
    }

    /// The messages of the next packet from the card, which is completed; whether they are frames.
    pub(crate) fn take_packet(&mut self, pair: &mut Pair) -> Option<(RndisChannel, Vec<Vec<u8>>)> {
        let packet = self.next_packet(pair)?;
        let taken = self.messages(&packet);
        self.complete(pair, &packet);
        Some(taken)
    }

    pub(crate) fn next_packet(&mut self, pair: &mut Pair) -> Option<GuestPacket> {
        pair.work();
        if !self.waiting.is_empty() {
            return Some(self.waiting.remove(0));
        }
        self.channel.try_receive(pair)
    }

    /// The messages that a packet names.
    pub(crate) fn messages(&self, packet: &GuestPacket) -> (RndisChannel, Vec<Vec<u8>>) {
        let descriptor = &packet.descriptor;
        assert_eq!(descriptor.kind, PacketType::DATA_USING_TRANSFER_PAGES);
        assert!(descriptor.wants_completion());
        let (id, rest) = u16::read_from_prefix(&packet.header).unwrap();
        let (_, rest) = u16::read_from_prefix(rest).unwrap();
        let (count, ranges) = u32::read_from_prefix(rest).unwrap();
        assert_eq!(id, RECEIVE_ID);
        assert_eq!(ranges.len(), count as usize * 8);
        let body: RndisPacket = Message::parse(&packet.payload).unwrap().body();
        let messages = ranges.chunks(8).map(|range| {
            let len = u32::from_le_bytes(range[..4].try_into().unwrap());
            let offset = u32::from_le_bytes(range[4..].try_into().unwrap());
            assert!(len <= self.part_len && offset % self.part_len == 0);
            assert!(offset / self.part_len < self.parts);
            self.receive.read(offset, len)
        });
        (body.channel, messages.collect())
    }

    pub(crate) fn complete(&mut self, pair: &mut Pair, packet: &GuestPacket) {
        let body = RndisPacketComplete { status: Status::SUCCESS };
        let message = Message::new(MessageType::SEND_RNDIS_PACKET_COMPLETE, &body);
        let id = packet.descriptor.transaction_id;
        self.channel.send(pair, &Outgoing::completion(id, &message.as_bytes()[..8]));
    }

    /// The frames that have come, put together.
    pub(crate) fn frames(&mut self, pair: &mut Pair) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some((channel, messages)) = self.take_packet(pair) {
            assert_eq!(channel, RndisChannel::DATA);
            frames.extend(whole(&messages));
        }
        frames
    }

    /// A control message and its answer, which comes in a packet of the card's own.
    pub(crate) fn control(&mut self, pair: &mut Pair, bytes: &[u8]) -> Vec<u8> {
        let status = self.send_section(pair, RndisChannel::CONTROL, 1, bytes);
        assert_eq!(status, Status::SUCCESS);
        let (channel, mut messages) = self.take_packet(pair).expect("an answer");
        assert_eq!((channel, messages.len()), (RndisChannel::CONTROL, 1));
        let answer = messages.remove(0);
        assert_eq!(answer.len(), u32::from_le_bytes(answer[4..8].try_into().unwrap()) as usize);
        answer
    }

    pub(crate) fn initialize(&mut self, pair: &mut Pair) {
        let answer = self.control(pair, &words(&[2, 24, 0x1_0001, 1, 0, 0x4000]));
        let expected = [0x8000_0002, 52, 0x1_0001, 0, 1, 0, 1, 0, 8, 0x2_0000, 3, 0, 0];
        assert_eq!(answer, words(&expected));
    }

    pub(crate) fn query(&mut self, pair: &mut Pair, oid: Oid, info: usize) -> Result<Vec<u8>, u32> {
        let mut request = words(&[4, 28 + info as u32, 77, oid.0, info as u32, 20, 0]);
        request.resize(28 + info, 0);
        let answer = self.control(pair, &request);
        let head: Vec<u32> = answer[..24]
            .chunks(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!((head[0], head[2], head[5]), (0x8000_0004, 77, 16));
        assert_eq!(answer.len(), 24 + head[4] as usize);
        if head[3] == 0 { Ok(answer[24..].to_vec()) } else { Err(head[3]) }
    }

    pub(crate) fn set(&mut self, pair: &mut Pair, oid: Oid, value: &[u8]) -> RndisStatus {
        let len = value.len() as u32;
        let mut request = words(&[5, 28 + len, 78, oid.0, len, 20, 0]);
        request.extend(value);
        let answer = self.control(pair, &request);
        assert_eq!(answer[..12], words(&[0x8000_0005, 16, 78]));
        RndisStatus(u32::from_le_bytes(answer[12..].try_into().unwrap()))
    }

    pub(crate) fn set_filter(&mut self, pair: &mut Pair, filter: u32) -> RndisStatus {
        self.set(pair, Oid::GEN_CURRENT_PACKET_FILTER, &filter.to_le_bytes())
    }
}

/// Frames out of the messages of one packet, as `rndis_filter_receive_data` of Linux puts them
/// together.
pub(crate) fn whole(messages: &[Vec<u8>]) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut more = false;
    for message in messages {
        let word = |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4) as usize), (1, message.len()));
        let (data, len) = (8 + word(8) as usize, word(12) as usize);
        let (info, info_len) = (8 + word(28) as usize, word(32) as usize);
        let mut notes = Vec::new();
        if info_len != 0 {
            for note in message[info..info + info_len].chunks(16) {
                let word = |at: usize| u32::from_le_bytes(note[at..at + 4].try_into().unwrap());
                assert_eq!((word(0), word(8)), (16, 12));
                notes.push((word(4), word(12)));
            }
        }
        let piece = notes.iter().find(|note| note.0 == PACKET_ID).map(|note| note.1 >> 8);
        let bytes = &message[data..data + len];
        match piece {
            Some(flags) if flags & 2 == 0 => {
                assert!(more, "a piece of nothing");
                frames.last_mut().unwrap().bytes.extend(bytes);
                more = flags & 4 == 0;
            }
            flags => {
                assert!(!more, "a frame without its end");
                frames.push(Frame { notes, bytes: bytes.to_vec() });
                more = flags.is_some_and(|flags| flags & 4 == 0);
            }
        }
    }
    assert!(!more, "a frame that goes on in another packet");
    frames
}

/// Writes to guest memory, for tests that lie.
pub(crate) fn poke(pair: &Pair, pfn: u64, bytes: &[u8]) {
    pair.memory.write_slice(bytes, GuestAddress(pfn << 12)).unwrap();
}
