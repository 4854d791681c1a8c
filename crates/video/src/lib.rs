// SPDX-License-Identifier: MIT OR Apache-2.0

//! The synthetic screen.
//!
//! A guest keeps its picture in memory that it names ([`VRAM_MIB`] of it, where the machine put
//! them or in its RAM), says how the picture lies there, and then which parts of it have changed.
//! [`Screen`] is the handle that outlives the machine's resets: the picture can be had from it at any
//! time, and [`Viewer`]s wait for changes. When the guest's driver goes, the last picture stays.
//!
//! Source: Linux `drivers/gpu/drm/hyperv/`, `drivers/video/fbdev/hyperv_fb.c`.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod channel;
mod rect;
mod screen;
mod surface;

use busway_vmbus::{ChannelHandler, Device, Fault, Offer, Opening};
use busway_wire::{Guid, class};

use channel::VideoChannel;

pub use rect::Rect;
pub use screen::{Changes, Screen, Viewer};
pub use surface::Picture;

/// Memory for pictures, in MiB, for which the guest is to find room among its devices: enough for
/// the largest.
pub const VRAM_MIB: u16 = 8;

/// The least width and height, in pixels, that guests take.
pub const MIN_SIZE: (u16, u16) = (640, 480);

/// The greatest.
pub const MAX_SIZE: (u16, u16) = (1920, 1080);

impl Device for Screen {
    fn offer(&self) -> Offer {
        let instance = Guid::from_text_order(0x5620e0c7_8062_4dce_aeb7_520c7ef76171);
        Offer { mmio_megabytes: VRAM_MIB, ..Offer::new(class::VIDEO, instance) }
    }

    fn open(&mut self, opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
        Ok(Box::new(VideoChannel::new(self.clone(), opening.memory.clone())))
    }
}
