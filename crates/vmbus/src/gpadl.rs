// SPDX-License-Identifier: MIT OR Apache-2.0

//! Guest physical address descriptor lists: the pages that a guest shares with a channel.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use busway_memory::GuestMemory;
use busway_wire::packet::GpaRangeHeader;
use zerocopy::FromBytes;

/// The guest's name for a list of pages; unique in a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GpadlId(pub u32);

/// The complete lists of an open channel, which the bus adds to and its worker looks up.
///
/// Shared, because a guest names a list in a packet as soon as it has heard that the list is
/// complete: that may be before the worker turns to anything that the bus could send it.
#[derive(Clone, Debug)]
pub(crate) struct Lists {
    lists: Arc<Mutex<BTreeMap<GpadlId, Arc<Gpadl>>>>,
}

impl Lists {
    pub(crate) fn new(lists: impl IntoIterator<Item = (GpadlId, Arc<Gpadl>)>) -> Self {
        Self { lists: Arc::new(Mutex::new(lists.into_iter().collect())) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GpadlId, Arc<Gpadl>>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, id: GpadlId, gpadl: Arc<Gpadl>) {
        self.lock().insert(id, gpadl);
    }

    pub(crate) fn remove(&self, id: GpadlId) {
        self.lock().remove(&id);
    }

    pub(crate) fn get(&self, id: GpadlId) -> Option<Arc<Gpadl>> {
        self.lock().get(&id).cloned()
    }
}

/// A complete list: ranges of guest pages, every one of them RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpadl {
    ranges: Vec<Range>,
}

/// A range of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Bytes.
    pub byte_count: u32,
    /// Where in the first page they start.
    pub byte_offset: u32,
    /// The pages, in order; a page may stand in it twice.
    pub pfns: Vec<u64>,
}

impl Gpadl {
    /// The ranges; in practice one.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// The pages of the two rings that a channel has in this list: the guest's send ring, and from
    /// page `downstream` on its receive ring. `None` unless the list is one range of whole pages
    /// and leaves each ring a control page and data.
    pub fn rings(&self, downstream: u32) -> Option<(&[u64], &[u64])> {
        let [Range { byte_offset: 0, byte_count, pfns }] = self.ranges.as_slice() else {
            return None;
        };
        let whole = *byte_count as usize == pfns.len().checked_mul(busway_wire::PAGE_SIZE)?;
        let (send, receive) = pfns.split_at_checked(downstream as usize)?;
        (whole && send.len() >= 2 && receive.len() >= 2).then_some((send, receive))
    }

    /// Pages in all ranges.
    pub fn page_count(&self) -> usize {
        self.ranges.iter().map(|range| range.pfns.len()).sum()
    }
}

/// A list is not one that the host takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpadlError {
    /// Nothing is shared.
    #[error("the list has no pages")]
    Empty,
    /// Data that would start beyond the first page.
    #[error("range {range} starts at byte {byte_offset} of its first page")]
    Offset {
        /// Which range.
        range: usize,
        /// Its offset.
        byte_offset: u32,
    },
    /// A page that is no RAM.
    #[error("PFN {pfn:#x} is no RAM")]
    NotMemory {
        /// The page.
        pfn: u64,
    },
    /// More than a guest may have the host remember.
    #[error("the guest's lists would hold {pages} pages, more than {limit}")]
    TooManyPages {
        /// Pages in all lists of the guest with this one.
        pages: usize,
        /// The limit.
        limit: usize,
    },
}

/// A list of which not all messages have come.
///
/// The ranges stand in GPADL_HEADER and the GPADL_BODYs behind it as one stream of 64-bit words: a
/// range's header, its PFNs, the next range's header. Where one message ends and the next begins
/// means nothing. Memory grows with what has arrived, never with what was announced.
#[derive(Debug)]
pub(crate) struct GpadlBuilder {
    ranges: Vec<Range>,
    /// Ranges whose header has not come.
    missing_ranges: u16,
    /// PFNs that the last range still needs.
    missing_pfns: usize,
}

impl GpadlBuilder {
    pub(crate) fn new(range_count: u16) -> Self {
        Self { ranges: Vec::new(), missing_ranges: range_count, missing_pfns: 0 }
    }

    /// Takes the words of one message; what is left over behind the last range is ignored, because
    /// some firmware sends bodies of full length only.
    pub(crate) fn push(&mut self, bytes: &[u8], memory: &GuestMemory) -> Result<(), GpadlError> {
        let (words, _) = bytes.as_chunks::<8>();
        for word in words {
            if self.missing_pfns == 0 {
                if self.missing_ranges == 0 {
                    break;
                }
                self.start_range(word)?;
            } else if let Some(range) = self.ranges.last_mut() {
                let pfn = u64::from_le_bytes(*word);
                memory.page_offset(pfn).ok_or(GpadlError::NotMemory { pfn })?;
                range.pfns.push(pfn);
                self.missing_pfns -= 1;
            }
        }
        Ok(())
    }

    fn start_range(&mut self, word: &[u8; 8]) -> Result<(), GpadlError> {
        let Ok(header) = GpaRangeHeader::read_from_bytes(word) else {
            return Err(GpadlError::Empty);
        };
        let GpaRangeHeader { byte_count, byte_offset } = header;
        if byte_offset as usize >= busway_wire::PAGE_SIZE {
            return Err(GpadlError::Offset { range: self.ranges.len(), byte_offset });
        }
        if byte_count == 0 {
            return Err(GpadlError::Empty);
        }
        self.missing_ranges -= 1;
        self.missing_pfns = header.page_count();
        self.ranges.push(Range { byte_count, byte_offset, pfns: Vec::new() });
        Ok(())
    }

    /// Pages so far.
    pub(crate) fn page_count(&self) -> usize {
        self.ranges.iter().map(|range| range.pfns.len()).sum()
    }

    /// The list, if it is complete.
    pub(crate) fn finish(&mut self) -> Option<Gpadl> {
        let complete = self.missing_ranges == 0 && self.missing_pfns == 0;
        complete.then(|| Gpadl { ranges: std::mem::take(&mut self.ranges) })
    }
}

#[cfg(test)]
mod tests {
    use busway_memory::{GuestAddress, Region};

    use super::*;

    fn memory() -> GuestMemory {
        let region = Region { start: GuestAddress(0), len: 64 * 4096 };
        GuestMemory::allocate(&[region]).unwrap()
    }

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn built(range_count: u16, messages: &[&[u64]]) -> Result<Option<Gpadl>, GpadlError> {
        let mut builder = GpadlBuilder::new(range_count);
        for words in messages {
            builder.push(&bytes(words), &memory())?;
        }
        Ok(builder.finish())
    }

    #[test]
    fn a_list_may_come_in_parts_and_end_with_surplus() {
        let gpadl = built(1, &[&[0x4000, 5, 6], &[7, 9, 0xdead]]).unwrap().unwrap();
        assert_eq!(gpadl.ranges()[0].pfns, [5, 6, 7, 9]);
        assert_eq!(built(1, &[&[0x4000, 5, 6], &[7]]), Ok(None));
    }

    #[test]
    fn several_ranges_run_on_across_messages() {
        let gpadl = built(2, &[&[0x10 << 32 | 0x1000, 5], &[6, 0x1000, 7]]).unwrap().unwrap();
        let pfns: Vec<_> = gpadl.ranges().iter().map(|range| range.pfns.clone()).collect();
        assert_eq!(pfns, [vec![5, 6], vec![7]]);
    }

    #[test]
    fn lies_are_refused() {
        assert_eq!(built(1, &[&[0x1000, 64]]), Err(GpadlError::NotMemory { pfn: 64 }));
        assert_eq!(built(1, &[&[0]]), Err(GpadlError::Empty));
        let offset = GpadlError::Offset { range: 0, byte_offset: 0x1000 };
        assert_eq!(built(1, &[&[0x1000 << 32 | 1]]), Err(offset));
        // A list of 2^20 pages is announced and nothing comes: nothing is allocated.
        let mut builder = GpadlBuilder::new(1);
        builder.push(&bytes(&[u64::from(u32::MAX)]), &memory()).unwrap();
        assert_eq!(builder.ranges[0].pfns.capacity(), 0);
    }

    #[test]
    fn rings_are_whole_pages_and_have_room_for_data() {
        let gpadl = built(1, &[&[0x4000, 5, 6, 7, 9]]).unwrap().unwrap();
        assert_eq!(gpadl.rings(2), Some(([5, 6].as_slice(), [7, 9].as_slice())));
        for downstream in [0, 1, 3, 4, u32::MAX] {
            assert_eq!(gpadl.rings(downstream), None);
        }
        let part = built(1, &[&[0x3fff, 5, 6, 7, 9]]).unwrap().unwrap();
        assert_eq!(part.rings(2), None);
        let two = built(2, &[&[0x4000, 5, 6, 7, 9, 0x1000, 1]]).unwrap().unwrap();
        assert_eq!(two.rings(2), None);
    }
}
