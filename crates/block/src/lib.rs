// SPDX-License-Identifier: MIT OR Apache-2.0

//! Disk images: what a disk is, and the queue through which a channel works on its disks.
//!
//! ```text
//!   Disk, shared                          Queue, one for each channel
//!   capacity, identity, image   ◀───────  submit(request with guest slices) … push … reap
//! ```
//!
//! A request owns the pieces of guest memory that its data goes through, from
//! [`Queue::submit`] to the [`Completion`] that gives them back: no kernel ever works on memory
//! that nobody holds. Of raw images, payload bytes go between the guest's pages and the kernel;
//! nothing is copied in between. Images of other formats have threads and buffers of their own.
//!
//! No packet, no SCSI and no thread here. The system calls, and with them all `unsafe` code, are in
//! one file, `kernel.rs`.

mod contents;
mod disk;
mod error;
mod format;
mod kernel;
mod layers;
mod open;
mod ordered;
mod parked;
mod progress;
mod queue;
mod ram;
mod rate;
mod request;
mod resize;
mod scratch;
mod vhd;
mod vhdx;
mod workers;
mod wwn;

pub use disk::{Disk, Identity, Reaction};
pub use error::IoError;
pub use format::{Format, UnknownFormat};
pub use open::{DiskOptions, Layer, OnError, OpenError};
pub use queue::{Queue, QueueError};
pub use rate::RateLimit;
pub use request::{Completion, Operation, Request};
pub use resize::ResizeError;
pub use wwn::{UnknownWwn, Wwn};
