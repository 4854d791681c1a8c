// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rings in guest memory, for the tests of both ends.

use busway_memory::{GuestAddress, GuestMemory, Region, RingArea};
use busway_ring::{Reader, Writer};

/// Both ends of one ring with `data_pages` scattered pages of data, and a third view of it for
/// looking and for doing harm.
pub struct Ring {
    pub writer: Writer<RingArea>,
    pub reader: Reader<RingArea>,
    pub view: RingArea,
}

/// A ring whose reading end is doubled and whose writing end is sliced.
pub fn ring(data_pages: u64) -> Ring {
    let region = Region { start: GuestAddress(0), len: 4096 * (2 * data_pages as usize + 2) };
    let memory = GuestMemory::allocate(&[region]).unwrap();
    let pfns: Vec<u64> = (0..=data_pages).map(|page| 2 * (data_pages - page)).collect();
    Ring {
        writer: Writer::new(RingArea::map_sliced(&memory, &pfns).unwrap()).unwrap(),
        reader: Reader::new(RingArea::map(&memory, &pfns).unwrap()).unwrap(),
        view: RingArea::map(&memory, &pfns).unwrap(),
    }
}
