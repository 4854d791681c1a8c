// SPDX-License-Identifier: MIT OR Apache-2.0

//! A ring as it stands at one moment, for whoever looks into it.

use busway_wire::packet::{DESCRIPTOR_LEN, Descriptor, TRAILER_LEN};
use zerocopy::FromBytes;

use crate::{Packet, Reader, RingError, RingMem, Word, Writer, advance, used};

/// A ring's words, and what stands between its indices, in private memory.
///
/// The other end goes on meanwhile: its words are those of one moment, the bytes those of the moments
/// after it. What is copied is checked as it is walked through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes of the data area.
    pub data_len: u32,
    /// The word of that name.
    pub write_index: u32,
    /// The word of that name.
    pub read_index: u32,
    /// The word of that name.
    pub interrupt_mask: u32,
    /// The word of that name.
    pub pending_send_size: u32,
    /// The word of that name.
    pub feature_bits: u32,
    /// Where the end that took the snapshot goes on, whatever the words say.
    pub position: u32,
    /// Where [`data`](Self::data) begins.
    pub start: u32,
    /// The packets; nothing if an index of the other end makes no sense.
    pub data: Vec<u8>,
}

impl<M: RingMem> Reader<M> {
    /// The ring as it stands: what the writer has written and this end has not taken.
    pub fn snapshot(&self) -> Snapshot {
        let end = self.mem().load(Word::WriteIndex);
        Snapshot::of(self.mem(), self.position(), self.position(), end)
    }
}

impl<M: RingMem> Writer<M> {
    /// The ring as it stands: what this end has written and the reader has not taken.
    pub fn snapshot(&self) -> Snapshot {
        let start = self.mem().load(Word::ReadIndex);
        Snapshot::of(self.mem(), self.position(), start, self.position())
    }
}

impl Snapshot {
    fn of<M: RingMem>(mem: &M, position: u32, start: u32, end: u32) -> Self {
        let data_len = mem.data_len();
        let is_index = |index: u32| index < data_len && index.is_multiple_of(8);
        let mut data = Vec::new();
        if is_index(start) && is_index(end) {
            data.resize(used(end, start, data_len) as usize, 0);
            mem.read(start, &mut data);
        }
        Self {
            data_len,
            write_index: mem.load(Word::WriteIndex),
            read_index: mem.load(Word::ReadIndex),
            interrupt_mask: mem.load(Word::InterruptMask),
            pending_send_size: mem.load(Word::PendingSendSize),
            feature_bits: mem.load(Word::FeatureBits),
            position,
            start,
            data,
        }
    }

    /// The index of the two that makes no sense, if one does not.
    pub fn broken_index(&self) -> Option<RingError> {
        let &Self { data_len: len, write_index, read_index, .. } = self;
        let words = [(Word::WriteIndex, write_index), (Word::ReadIndex, read_index)];
        let broken = |(_, index): &(Word, u32)| *index >= len || !index.is_multiple_of(8);
        let (word, index) = words.into_iter().find(broken)?;
        Some(RingError::Index { word, index, len })
    }

    /// The packets, each with its place in the ring. The first that makes no sense is the last.
    pub fn packets(&self) -> impl Iterator<Item = Result<(u32, Packet<'_>), RingError>> {
        let (mut rest, mut at) = (&*self.data, self.start);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let here = at;
            match cut(rest, here) {
                Ok((packet, behind)) => {
                    let count = u32::try_from(rest.len() - behind.len()).unwrap_or(0);
                    at = advance(at, count, self.data_len);
                    rest = behind;
                    Some(Ok((here, packet)))
                }
                Err(error) => {
                    rest = &[];
                    Some(Err(error))
                }
            }
        })
    }
}

/// The packet that `bytes` begin with, at `at` of the ring, and what stands behind its trailer.
fn cut(bytes: &[u8], at: u32) -> Result<(Packet<'_>, &[u8]), RingError> {
    let available = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let wrong = |total| RingError::PacketLength { at, total, available };
    let (descriptor, _) = Descriptor::read_from_prefix(bytes).map_err(|_| wrong(0))?;
    let total = descriptor.total_len();
    let too_long = || wrong(total + TRAILER_LEN);
    if total < DESCRIPTOR_LEN {
        return Err(too_long());
    }
    let (packet, behind) = bytes.split_at_checked(total).ok_or_else(too_long)?;
    let behind = behind.get(TRAILER_LEN..).ok_or_else(too_long)?;
    let offset = descriptor.data_offset();
    let misplaced = RingError::DataOffset { at, offset, total };
    let body = packet.get(DESCRIPTOR_LEN..).unwrap_or_default();
    let split = offset.checked_sub(DESCRIPTOR_LEN).ok_or(misplaced)?;
    let (header, payload) = body.split_at_checked(split).ok_or(misplaced)?;
    Ok((Packet { descriptor, header, payload }, behind))
}
