// SPDX-License-Identifier: MIT OR Apache-2.0

//! A device that answers each request with its own payload, for what concerns every device.

use busway_memory::{GuestMemory, GuestSlices};
use busway_ring::Packet;
use busway_vmbus::{
    ChannelHandler, Closing, Device, Fault, Io, Offer, Opening, Progress, external_pages,
};
use busway_wire::Guid;

pub const ECHO: Guid = Guid::from_text_order(0x0e00_0e00_0000_4000_8000_0000_0000_0e00);

/// Echoes payloads; data in external pages is turned upside down in place first.
pub struct Echo {
    pub instance: u128,
    /// Requests that a channel holds back until its batch is over.
    pub room: usize,
}

impl Default for Echo {
    fn default() -> Self {
        Self { instance: 1, room: usize::MAX }
    }
}

impl Device for Echo {
    fn offer(&self) -> Offer {
        Offer::new(ECHO, Guid::from_text_order(self.instance))
    }

    fn open(&mut self, opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
        let slices = GuestSlices::new(GuestMemory::clone(&opening.memory));
        Ok(Box::new(Handler { room: self.room, held: Vec::new(), slices }))
    }
}

struct Handler {
    room: usize,
    held: Vec<(u64, Vec<u8>)>,
    slices: GuestSlices,
}

impl ChannelHandler for Handler {
    fn on_packet(&mut self, packet: Packet<'_>, _io: &mut Io<'_>) -> Result<(), Fault> {
        external_pages(&packet, &mut self.slices)?;
        let mut data = vec![0; self.slices.len()];
        self.slices.read_at(0, &mut data);
        data.reverse();
        self.slices.write(&data);
        if packet.payload.starts_with(b"fault") {
            return Err(Fault::protocol("the guest asked for it"));
        }
        if packet.descriptor.wants_completion() {
            self.held.push((packet.descriptor.transaction_id, packet.payload.to_vec()));
        }
        Ok(())
    }

    fn on_batch(&mut self, io: &mut Io<'_>) -> Result<Progress, Fault> {
        for (id, payload) in self.held.drain(..) {
            io.complete(id, &payload)?;
        }
        Ok(Progress::Idle)
    }

    fn has_room(&self) -> bool {
        self.held.len() < self.room
    }

    fn close(&mut self) -> Closing {
        Closing::Drained
    }
}
