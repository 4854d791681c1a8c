// SPDX-License-Identifier: MIT OR Apache-2.0

//! Relids: the numbers by which the guest names channels, and what it has told about each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::action::ChannelKey;
use crate::gpadl::{Gpadl, GpadlBuilder, GpadlId};

/// Relids are 11 bits: event flags and interrupt pages have that many. 0 names no channel.
const RELID_COUNT: usize = 2048;

/// A relid in use.
#[derive(Debug)]
pub(super) struct Slot {
    /// The channel; none once it was closed and rescinded, when RELID_RELEASED is still to come.
    pub(super) key: Option<ChannelKey>,
    /// The channel that it was rescinded of.
    pub(super) rescinded: Option<ChannelKey>,
    pub(super) gpadls: BTreeMap<GpadlId, GpadlEntry>,
}

/// A list of pages that the guest has started to describe.
#[derive(Debug)]
pub(super) enum GpadlEntry {
    Building(GpadlBuilder),
    Ready(Arc<Gpadl>),
    /// The guest wants it back; it is answered when the channel has let go of it.
    TearingDown(Arc<Gpadl>),
}

impl GpadlEntry {
    pub(super) fn page_count(&self) -> usize {
        match self {
            Self::Building(builder) => builder.page_count(),
            Self::Ready(gpadl) | Self::TearingDown(gpadl) => gpadl.page_count(),
        }
    }
}

/// All relids of a connection.
#[derive(Debug)]
pub(super) struct Relids {
    slots: Vec<Option<Slot>>,
    /// A bit for each relid that is taken.
    taken: [u64; RELID_COUNT / 64],
    /// Which relid each list belongs to: GPADL_BODY names only the list.
    owners: HashMap<GpadlId, u16>,
    /// Pages in all lists.
    pages: usize,
}

impl Relids {
    pub(super) fn new() -> Self {
        let slots = std::iter::repeat_with(|| None).take(RELID_COUNT).collect();
        let mut relids = Self { slots, taken: [0; _], owners: HashMap::new(), pages: 0 };
        relids.set_taken(0, true);
        relids
    }

    /// Takes the lowest free relid for `key`; `None` if all 2047 are taken.
    pub(super) fn allocate(&mut self, key: ChannelKey) -> Option<u16> {
        let (word, bits) = (0..).zip(&self.taken).find(|(_, bits)| **bits != u64::MAX)?;
        let relid = u16::try_from(word * 64 + bits.trailing_ones()).ok()?;
        let gpadls = BTreeMap::new();
        let slot = Slot { key: Some(key), rescinded: None, gpadls };
        *self.slots.get_mut(usize::from(relid))? = Some(slot);
        self.set_taken(relid, true);
        Some(relid)
    }

    fn set_taken(&mut self, relid: u16, taken: bool) {
        let bit = 1 << (relid % 64);
        if let Some(word) = self.taken.get_mut(usize::from(relid / 64)) {
            *word = if taken { *word | bit } else { *word & !bit };
        }
    }

    pub(super) fn get(&self, relid: u32) -> Option<&Slot> {
        self.slots.get(relid as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, relid: u32) -> Option<&mut Slot> {
        self.slots.get_mut(relid as usize)?.as_mut()
    }

    /// Frees a relid and forgets its lists.
    pub(super) fn free(&mut self, relid: u16) {
        let Some(slot) = self.slots.get_mut(usize::from(relid)).and_then(Option::take) else {
            return;
        };
        self.set_taken(relid, false);
        for (id, entry) in slot.gpadls {
            self.owners.remove(&id);
            self.pages -= entry.page_count();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Pages in all lists.
    pub(super) const fn page_count(&self) -> usize {
        self.pages
    }

    /// How many lists there are.
    pub(super) fn gpadl_count(&self) -> usize {
        self.owners.len()
    }

    pub(super) fn owner(&self, id: GpadlId) -> Option<u16> {
        self.owners.get(&id).copied()
    }

    /// Adds a list, or puts another state in its place.
    pub(super) fn put_gpadl(&mut self, relid: u16, id: GpadlId, entry: GpadlEntry) {
        let pages = entry.page_count();
        if let Some(slot) = self.get_mut(relid.into()) {
            let before = slot.gpadls.insert(id, entry).map_or(0, |entry| entry.page_count());
            self.owners.insert(id, relid);
            self.pages = self.pages + pages - before;
        }
    }

    /// Takes a list out.
    pub(super) fn take_gpadl(&mut self, relid: u16, id: GpadlId) -> Option<GpadlEntry> {
        let entry = self.get_mut(relid.into())?.gpadls.remove(&id)?;
        self.owners.remove(&id);
        self.pages -= entry.page_count();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_relid_is_taken() {
        let mut relids = Relids::new();
        let key = ChannelKey(1);
        for expected in 1..=4 {
            assert_eq!(relids.allocate(key), Some(expected));
        }
        relids.free(2);
        assert_eq!(relids.allocate(key), Some(2));
        relids.free(4);
        relids.free(1);
        assert_eq!(relids.allocate(key), Some(1));
        assert_eq!(relids.allocate(key), Some(4));
        assert_eq!(relids.allocate(key), Some(5));
    }

    #[test]
    fn relids_end_at_2047() {
        let mut relids = Relids::new();
        let all: Vec<_> = std::iter::from_fn(|| relids.allocate(ChannelKey(1))).collect();
        assert_eq!((all.len(), all.last()), (2047, Some(&2047)));
    }
}
