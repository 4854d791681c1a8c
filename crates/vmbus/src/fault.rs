// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why a channel cannot go on.

use std::error::Error;

use busway_memory::BeyondMemory;
use busway_ring::{Full, RingError};
use busway_wire::packet::RangeError;

/// A channel must be closed: by the guest's fault, which the guest is shown, or by the host's,
/// which stops the machine.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A ring makes no sense any more.
    #[error("the ring is broken: {0}")]
    Ring(#[from] RingError),
    /// The ranges of a packet are not what they claim.
    #[error("bad external pages: {0}")]
    Ranges(#[from] RangeError),
    /// A packet names memory that the guest does not have.
    #[error("bad external pages: {0}")]
    Memory(#[from] BeyondMemory),
    /// An answer is longer than the ring that it must go through.
    #[error("the guest's ring of {len} B is too small for an answer of {need} B")]
    RingTooSmall {
        /// Bytes of the answer in the ring.
        need: usize,
        /// Bytes of the ring's data.
        len: u32,
    },
    /// The device's protocol was broken; the device says how.
    #[error("{0}")]
    Protocol(#[source] Box<dyn Error + Send + Sync>),
    /// The host cannot go on: no guest is to blame.
    #[error("{0}")]
    Host(#[source] Box<dyn Error + Send + Sync>),
}

impl Fault {
    /// The guest broke the device's protocol.
    pub fn protocol(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Protocol(error.into())
    }

    /// The host failed.
    pub fn host(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Host(error.into())
    }
}

/// Turns a failed write into its fault; `None` if there is just no room now.
pub(crate) fn lasting(full: Full) -> Option<Fault> {
    match full {
        Full::NoRoom { .. } => None,
        Full::Never { need, len } => Some(Fault::RingTooSmall { need, len }),
        Full::Broken(error) => Some(error.into()),
    }
}
