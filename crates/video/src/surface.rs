// SPDX-License-Identifier: MIT OR Apache-2.0

//! A guest's picture in its memory.

use busway_memory::{Bytes, GuestAddress, GuestMemory};
use busway_wire::video::Output;

use crate::VRAM_MIB;
use crate::rect::Rect;

/// Bytes of a pixel: blue, green, red, and one that means nothing.
const PIXEL: usize = 4;

/// Pixels that a side may have: what VNC can say, and more than fits the memory for pictures.
const MAX_SIDE: u32 = u16::MAX as u32;

/// A picture of a guest's screen.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// Pixels of a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Four bytes for each pixel, line by line: blue, green, red, and one that means nothing.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// The pixels of a part of it, line by line. What is not in the picture is left out.
    pub fn part(&self, rect: Rect) -> Vec<u8> {
        let rect = rect.within((self.width, self.height));
        let pitch = self.width as usize * PIXEL;
        let columns = rect.x as usize * PIXEL..(rect.x + rect.width) as usize * PIXEL;
        let lines = self.pixels.chunks_exact(pitch.max(1));
        let lines = lines.skip(rect.y as usize).take(rect.height as usize);
        lines.filter_map(|line| line.get(columns.clone())).flatten().copied().collect()
    }
}

/// A picture that a guest paints.
#[derive(Clone, Debug)]
pub(crate) struct Surface {
    memory: GuestMemory,
    address: u64,
    width: u32,
    height: u32,
    pitch: u32,
}

impl Surface {
    /// What `output` says to be shown of the memory from `address` on; `None` if it is not there, or
    /// is no picture of a kind that guests make.
    pub(crate) fn new(memory: &GuestMemory, address: u64, output: &Output) -> Option<Self> {
        let (width, height) = (output.width.get(), output.height.get());
        let pitch = output.pitch.get();
        let len = u64::from(pitch) * u64::from(height);
        if output.depth != 32
            || !(1..=MAX_SIDE).contains(&width)
            || !(1..=MAX_SIDE).contains(&height)
            || u64::from(pitch) < u64::from(width) * PIXEL as u64
            || len > u64::from(VRAM_MIB) << 20
        {
            return None;
        }
        let address = address.checked_add(output.vram_offset.get().into())?;
        let surface = Self { memory: memory.clone(), address, width, height, pitch };
        surface.is_there(len).then_some(surface)
    }

    fn is_there(&self, len: u64) -> bool {
        let last = self.address.checked_add(len - 1);
        last.is_some_and(|last| {
            let pfns = self.address >> 12..=last >> 12;
            pfns.into_iter().all(|pfn| self.memory.page_offset(pfn).is_some())
        })
    }

    pub(crate) const fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// A part of the picture as it is now, line by line; what is not in it is left out.
    pub(crate) fn part(&self, rect: Rect) -> Vec<u8> {
        let rect = rect.within(self.size());
        let line_len = rect.width as usize * PIXEL;
        let mut pixels = vec![0; line_len * rect.height as usize];
        if line_len == 0 {
            return pixels;
        }
        for (y, line) in (u64::from(rect.y)..).zip(pixels.chunks_exact_mut(line_len)) {
            let offset = y * u64::from(self.pitch) + u64::from(rect.x) * PIXEL as u64;
            // All of it was there when the surface was made, and guest memory does not go.
            let _ = self.memory.read_slice(line, GuestAddress(self.address + offset));
        }
        pixels
    }

    pub(crate) fn picture(&self) -> Picture {
        let pixels = self.part(Rect::whole(self.size()));
        Picture { width: self.width, height: self.height, pixels }
    }
}
