// SPDX-License-Identifier: MIT OR Apache-2.0

//! The control page of a ring: the first 4 KiB of each direction.
//!
//! Source: Linux `include/linux/hyperv.h` (`struct hv_ring_buffer`).

/// Byte offset of `write_index`; the writer owns it.
pub const WRITE_INDEX: usize = 0;
/// Byte offset of `read_index`; the reader owns it.
pub const READ_INDEX: usize = 4;
/// Byte offset of `interrupt_mask`: non-zero while the reader does not want to be signalled; the
/// reader owns it.
pub const INTERRUPT_MASK: usize = 8;
/// Byte offset of `pending_send_sz`: bytes that a stalled writer waits for; the writer owns it.
pub const PENDING_SEND_SIZE: usize = 12;
/// Byte offset of `feature_bits`; the writer owns it.
pub const FEATURE_BITS: usize = 64;

/// The bit of `feature_bits` that says: this writer uses `pending_send_sz`.
pub const FEATURE_PENDING_SEND_SIZE: u32 = 1;

/// Bytes of the control page; the data area follows it.
pub const CONTROL_LEN: usize = 4096;
