// SPDX-License-Identifier: MIT OR Apache-2.0

//! Both ends of a ring, in guest memory.

use busway_memory::{GuestAddress, GuestMemory, Region, RingArea};
use busway_ring::{Reader, Writer};

/// A ring with `data_pages` pages of data, which stand next to each other in memory.
pub fn ring(data_pages: u64) -> (Writer<RingArea>, Reader<RingArea>) {
    let region = Region { start: GuestAddress(0), len: 4096 * (data_pages as usize + 1) };
    let memory = GuestMemory::allocate(&[region]).expect("memory for a ring");
    let pfns: Vec<u64> = (0..=data_pages).collect();
    let area = || RingArea::map(&memory, &pfns).expect("a ring");
    (Writer::new(area()).expect("indices"), Reader::new(area()).expect("indices"))
}
