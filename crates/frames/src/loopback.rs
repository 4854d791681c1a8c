// SPDX-License-Identifier: MIT OR Apache-2.0

//! A network of one: what is sent comes back.

use std::collections::VecDeque;

use busway_memory::GuestPart;
use zerocopy::IntoBytes;

use crate::FrameHeader;

/// Frames that wait at most; more are lost, as on any network.
const MOST: usize = 512;

/// Frames on their way back.
#[derive(Debug, Default)]
pub(crate) struct Loopback {
    frames: VecDeque<Vec<u8>>,
    /// Buffers of frames that have arrived.
    spare: Vec<Vec<u8>>,
}

impl Loopback {
    pub(crate) fn send(&mut self, header: &FrameHeader, head: &[u8], rest: GuestPart<'_>) {
        if self.frames.len() >= MOST {
            return;
        }
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.clear();
        frame.extend_from_slice(header.as_bytes());
        frame.extend_from_slice(head);
        let start = frame.len();
        frame.resize(start + rest.len(), 0);
        if let Some(place) = frame.get_mut(start..) {
            rest.read(place);
        }
        self.frames.push_back(frame);
    }

    pub(crate) fn receive(&mut self, into: GuestPart<'_>) -> Option<usize> {
        let frame = self.frames.pop_front()?;
        let len = into.write(&frame);
        self.spare.push(frame);
        Some(len)
    }

    pub(crate) fn discard(&mut self) -> bool {
        let frame = self.frames.pop_front();
        let there = frame.is_some();
        self.spare.extend(frame);
        there
    }
}
