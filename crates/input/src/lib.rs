// SPDX-License-Identifier: MIT OR Apache-2.0

//! The synthetic keyboard and mouse.
//!
//! Each is a handle that makes a [`Device`](busway_vmbus::Device) for each life of the machine; what
//! is typed and moved waits in a short queue until the guest's driver takes it. What comes while no
//! driver is there is refused: nobody wants a word that was typed at the last kernel.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod keyboard;
mod keymap;
mod keysym;
mod mouse;
mod queue;

pub use keyboard::{Key, Keyboard};
pub use keymap::strokes;
pub use keysym::key_of;
pub use mouse::{AXIS_MAX, Mouse, Pointer};
pub use queue::Refused;
