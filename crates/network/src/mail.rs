// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames on their way from the channel that has received them to the one that they belong to. All
//! room is kept from one batch to the next.

use std::sync::Arc;

use crate::buffers::ReceiveBuffer;
use crate::outbox::Piece;

/// What a channel has for others at the end of a batch.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    /// By channel.
    pieces: Vec<Vec<Piece>>,
    /// The channels for which there are any.
    channels: Vec<u16>,
}

impl Mail {
    /// Adds a frame for `channel`, of which nothing is left in `pieces`.
    pub(crate) fn add(&mut self, channel: u16, pieces: &mut Vec<Piece>) {
        let index = usize::from(channel);
        if self.pieces.len() <= index {
            self.pieces.resize_with(index + 1, Vec::new);
        }
        if let Some(place) = self.pieces.get_mut(index) {
            if place.is_empty() {
                self.channels.push(channel);
            }
            place.append(pieces);
        }
    }

    /// Hands each channel's pieces to `post`, which takes all.
    pub(crate) fn post(&mut self, mut post: impl FnMut(u16, &mut Vec<Piece>)) {
        for channel in self.channels.drain(..) {
            if let Some(pieces) = self.pieces.get_mut(usize::from(channel)) {
                post(channel, pieces);
            }
        }
    }
}

/// Pieces of frames in parts of one buffer.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    buffer: Option<Arc<ReceiveBuffer>>,
    pub(crate) pieces: Vec<Piece>,
}

impl Parcel {
    /// Adds pieces; false, and nothing is added, if others of another buffer are there or there
    /// would be more than `most`.
    pub(crate) fn add(
        &mut self,
        buffer: &Arc<ReceiveBuffer>,
        pieces: &mut Vec<Piece>,
        most: usize,
    ) -> bool {
        let same = self.buffer.is_none() || self.is_of(buffer);
        if !same || self.pieces.len() + pieces.len() > most {
            return false;
        }
        self.buffer.get_or_insert_with(|| Arc::clone(buffer));
        self.pieces.append(pieces);
        true
    }

    /// Whether its parts are of this buffer.
    pub(crate) fn is_of(&self, buffer: &Arc<ReceiveBuffer>) -> bool {
        self.buffer.as_ref().is_some_and(|own| Arc::ptr_eq(own, buffer))
    }

    /// Lets go of the buffer. Parts that nobody has taken out are free again; true if a channel
    /// waits for such.
    pub(crate) fn empty(&mut self) -> bool {
        let parts = self.pieces.drain(..).map(|piece| piece.part);
        let buffer = self.buffer.take().filter(|_| parts.len() != 0);
        buffer.is_some_and(|buffer| buffer.give_back(parts))
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        self.empty();
    }
}
