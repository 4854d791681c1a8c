// SPDX-License-Identifier: MIT OR Apache-2.0

//! The interrupt page of guests before VMBus 2.4. A bit for each relid: in its first half the host tells
//! which channels it means, in its second half the guest does, and then signals a connection that
//! all channels share.
//!
//! Source: Linux 5.10 `drivers/hv/connection.c`, `vmbus_connect` and `vmbus_set_event`.

use std::sync::atomic::{AtomicU32, Ordering};

use busway_wire::{PAGE_SIZE, Version};
use vm_memory::{GuestAddress, GuestMemoryBackend, VolatileMemory};

use super::Server;
use crate::action::ChannelKey;

/// Where the guest's half begins.
const TO_HOST: u64 = PAGE_SIZE as u64 / 2;

/// Words of 32 bits that have bits of relids, of which there are 2048.
const WORDS: u32 = 2048 / 32;

impl Server {
    /// Takes the bits that the guest has set, and says which channels they mean. None with guests that
    /// signal each channel by a connection of its own.
    pub fn take_signals(&mut self) -> Vec<ChannelKey> {
        let contact = self.connection.contact();
        let Some(contact) = contact.filter(|contact| contact.version < Version::V2_4) else {
            return Vec::new();
        };
        let page = contact.interrupt_page + TO_HOST;
        let words = (0..WORDS).map(|word| (word, self.take_word(page + u64::from(word) * 4)));
        let relids = words.flat_map(|(word, bits)| {
            (0..32).filter(move |bit| bits & 1 << bit != 0).map(move |bit| word * 32 + bit)
        });
        relids.filter_map(|relid| self.relids.get(relid)?.key).collect()
    }

    /// A word of guest memory, which is zero then. The page was RAM when the guest named it, and is.
    fn take_word(&self, address: u64) -> u32 {
        let Ok(slice) = self.memory.get_slice(GuestAddress(address), 4) else {
            return 0;
        };
        slice.get_atomic_ref::<AtomicU32>(0).map_or(0, |word| word.swap(0, Ordering::SeqCst))
    }
}
