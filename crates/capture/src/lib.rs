// SPDX-License-Identifier: MIT OR Apache-2.0

//! Captures: what passed between a guest and its host, as a file, and what it means.
//!
//! ```text
//!   Recorder ──▶ file.pcapng ──▶ Reader ──▶ Record ──▶ Decoder ──▶ Decoded ──▶ text, JSON
//!   (a thread)                                                         └─────▶ Timeline
//! ```
//!
//! The file is pcapng, link type USER0; what its packets hold is said once, in [`layout`], for the
//! writer, the reader, and the dissector in `docs/wireshark`. Protocols are explained by the types of
//! `busway_wire` alone; a new device joins by a line in `decode/payload.rs`.
//!
//! Recording is bounded: what finds no room between the machine and the disk is counted, and the
//! count stands in the file where it was lost.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod decode;
pub mod layout;
mod pcapng;
mod reader;
mod recorder;
mod timeline;

pub use decode::{Decoded, Decoder};
pub use reader::{ReadError, Reader, Record, Statistics};
pub use recorder::{Recorder, Summary, Write};
pub use timeline::Timeline;
