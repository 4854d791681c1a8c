// SPDX-License-Identifier: MIT OR Apache-2.0

//! A network of one: what is sent comes back.

use std::collections::VecDeque;

use busway_memory::GuestPart;
use zerocopy::IntoBytes;

use crate::FrameHeader;

/// Frames that wait at most; more are lost, as on any network.
const MOST: usize = 512;

/// A frame and its header, in a buffer that may be longer: clearing it each time would cost as much
/// as the frame.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    len: usize,
}

/// Frames on their way back.
#[derive(Debug, Default)]
pub(crate) struct Loopback {
    frames: VecDeque<Held>,
    /// Buffers of frames that have arrived.
    spare: Vec<Held>,
}

impl Loopback {
    pub(crate) fn send(&mut self, header: &FrameHeader, head: &[u8], rest: GuestPart<'_>) {
        if self.frames.len() >= MOST {
            return;
        }
        let mut held = self.spare.pop().unwrap_or_default();
        let start = FrameHeader::LEN + head.len();
        held.len = start + rest.len();
        if held.bytes.len() < held.len {
            held.bytes.resize(held.len, 0);
        }
        if let Some((first, second)) = held.bytes.split_at_mut_checked(start) {
            let (place, behind) = first.split_at_mut(FrameHeader::LEN);
            place.copy_from_slice(header.as_bytes());
            behind.copy_from_slice(head);
            rest.read(second);
        }
        self.frames.push_back(held);
    }

    pub(crate) fn receive(&mut self, into: GuestPart<'_>) -> Option<usize> {
        let held = self.frames.pop_front()?;
        let len = into.write(held.bytes.get(..held.len).unwrap_or_default());
        self.spare.push(held);
        Some(len)
    }

    pub(crate) fn discard(&mut self) -> bool {
        let frame = self.frames.pop_front();
        let there = frame.is_some();
        self.spare.extend(frame);
        there
    }
}
