// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's end of an open channel.

use busway_memory::{GuestMemory, RingArea};
use busway_ring::{Outgoing, PacketBuf, Reader, Writer};
use busway_wire::control::layout::OfferChannel;
use busway_wire::packet::{COMPLETION_REQUESTED, Descriptor, PacketType};

use crate::pair::Pair;

/// The guest's end of an open channel: rings of its own, and the rules of a driver.
pub struct GuestChannel {
    relid: u32,
    connection_id: u32,
    /// It signals by its monitor page, which is to say not at all.
    monitored: bool,
    gpadl: u32,
    vp: u32,
    /// The ring that the guest writes.
    pub outgoing: Writer<RingArea>,
    /// The ring that the guest reads.
    pub incoming: Reader<RingArea>,
    buf: PacketBuf,
}

/// A packet from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestPacket {
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// What stands between descriptor and payload.
    pub header: Vec<u8>,
    /// The payload, rounded up to 8 bytes.
    pub payload: Vec<u8>,
}

impl GuestChannel {
    pub(crate) fn new(
        memory: &GuestMemory,
        offer: &OfferChannel,
        gpadl: u32,
        pfns: &[u64],
        downstream: usize,
        vp: u32,
    ) -> Self {
        let (send, receive) = pfns.split_at(downstream);
        let outgoing = Writer::new(RingArea::map(memory, send).unwrap()).unwrap();
        let incoming = Reader::new(RingArea::map(memory, receive).unwrap()).unwrap();
        let buf = PacketBuf::for_ring(incoming.mem().data_len());
        let OfferChannel { relid, connection_id, .. } = *offer;
        let monitored = offer.monitor_allocated & 1 != 0;
        Self { relid, connection_id, monitored, gpadl, vp, outgoing, incoming, buf }
    }

    /// The channel's number on the wire.
    pub const fn relid(&self) -> u32 {
        self.relid
    }

    /// The list that its rings are in.
    pub const fn gpadl(&self) -> u32 {
        self.gpadl
    }

    /// The VP that takes its interrupts.
    pub const fn vp(&self) -> u32 {
        self.vp
    }

    /// The connection by which it signals.
    pub const fn connection_id(&self) -> u32 {
        self.connection_id
    }

    /// Sends a packet and signals the host if the rules ask for it.
    ///
    /// # Panics
    ///
    /// If it does not fit.
    pub fn send(&mut self, pair: &mut Pair, packet: &Outgoing<'_>) {
        self.outgoing.push(packet).unwrap();
        if self.outgoing.publish() && !self.monitored {
            pair.signal(self.connection_id);
        }
    }

    /// Sends a request with all of its data in it.
    pub fn request(&mut self, pair: &mut Pair, transaction_id: u64, payload: &[u8]) {
        let flags = COMPLETION_REQUESTED;
        self.send(pair, &Outgoing { flags, ..Outgoing::in_band(transaction_id, payload) });
    }

    /// Sends a request on external pages: one range of `len` bytes that starts `offset` bytes into
    /// the first of `pfns`, as `hv_storvsc` does.
    pub fn request_on_pages(
        &mut self,
        pair: &mut Pair,
        transaction_id: u64,
        payload: &[u8],
        pfns: &[u64],
        (offset, len): (u32, u32),
    ) {
        let mut header = (1_u64 << 32).to_le_bytes().to_vec();
        header.extend(len.to_le_bytes());
        header.extend(offset.to_le_bytes());
        header.extend(pfns.iter().flat_map(|pfn| pfn.to_le_bytes()));
        let packet = Outgoing {
            kind: PacketType::DATA_USING_GPA_DIRECT,
            flags: COMPLETION_REQUESTED,
            transaction_id,
            header: &header,
            payload,
        };
        self.send(pair, &packet);
    }

    /// The next packet from the host, if one is there. Gives its room back at once, and signals the
    /// host if it waits for that.
    pub fn try_receive(&mut self, pair: &mut Pair) -> Option<GuestPacket> {
        let packet = self.incoming.next(&mut self.buf).unwrap()?;
        let packet = GuestPacket {
            descriptor: packet.descriptor,
            header: packet.header.to_vec(),
            payload: packet.payload.to_vec(),
        };
        if self.incoming.publish() && !self.monitored {
            pair.signal(self.connection_id);
        }
        Some(packet)
    }

    /// Waits for the next packet from the host.
    ///
    /// # Panics
    ///
    /// If none comes.
    pub fn receive(&mut self, pair: &mut Pair) -> GuestPacket {
        pair.wait("a packet", |pair| self.try_receive(pair))
    }
}
