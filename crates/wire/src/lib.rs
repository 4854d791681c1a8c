// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every byte layout that crosses the border between a guest and its VMBus host, said once.
//!
//! Three things live here for each layout: the bytes (a `repr(C)` zerocopy type whose size is
//! asserted), the meaning (a parsed form, where the bytes alone are ambiguous) and the text (its
//! `Display`, which traces, the decoder and error messages share). There is no I/O, no state, no
//! clock and no `unsafe`, and nothing here can panic on bytes from outside: a parser returns an
//! error that carries the numbers.
//!
//! Integers are little-endian on the wire and native here; busway runs on x86-64 only.
//! Sources of the layouts are named on each item: files of the Linux drivers (`drivers/hv/…`,
//! `include/linux/hyperv.h`), and sections of the Hypervisor Top-Level Functional Specification
//! (TLFS).

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::cast_possible_truncation))]

#[cfg(target_endian = "big")]
compile_error!("the layouts are read in place: busway needs a little-endian host");

mod open_enum;

pub mod balloon;
pub mod class;
pub mod control;
pub mod guid;
pub mod hvsock;
pub mod hypercall;
pub mod ic;
pub mod keyboard;
pub mod mouse;
pub mod nvsp;
pub mod packet;
pub mod pipe;
pub mod ring;
pub mod rndis;
pub mod scsi;
pub mod storvsc;
pub mod synic;
pub mod utf16;
pub mod version;
pub mod video;

pub use guid::Guid;
pub use version::{FeatureFlags, Version};

/// The size of a guest page, and of everything that is counted in PFNs, in bytes.
pub const PAGE_SIZE: usize = 4096;
