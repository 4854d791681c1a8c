// SPDX-License-Identifier: MIT OR Apache-2.0

//! The balloon's channel: a handshake of the guest's, then one request of the host's at a time.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;

use busway_memory::GuestMemory;
use busway_ring::{Outgoing, Packet};
use busway_vmbus::{ChannelHandler, Fault, Io, Progress, Sent, Step, Wakeup, When};
use busway_wire::balloon::{
    Answer, BalloonRequest, Capabilities, Header, HotAddRequest, HotAdded, MessageType, PageRange,
    Status, UnballoonRequest, Version,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::pages::Lent;
use crate::{Shared, Shortfall, State};

/// Ranges in one message back to the guest, whose buffer has a page.
const MAX_RANGES: usize = 500;

/// Pages asked for at once: 256 MiB, so that a new target need not wait long.
const MAX_REQUEST: u64 = 64 << 10;

/// A message that says less than it must.
#[derive(Debug, thiserror::Error)]
#[error("a message of {have} B of the balloon's driver")]
struct Short {
    have: usize,
}

/// An answer about memory to take that does not fit what was offered.
#[derive(Debug, thiserror::Error)]
#[error("the guest says that it has taken {taken} pages of new memory; {offered} were offered")]
struct Untrue {
    taken: u64,
    offered: u64,
}

/// A request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    /// So many pages more may come.
    ForPages(u64),
    ToTakeBack,
    /// So many pages that it did not start with.
    ToTakeNew(u64),
}

/// The host's end of the channel.
pub(crate) struct BalloonChannel {
    newest: Version,
    shared: Arc<Shared>,
    memory: GuestMemory,
    lent: Lent,
    asked: Asked,
    transaction_id: u32,
    /// What new memory must be a multiple of, in pages, for a guest that takes any.
    alignment: Option<u64>,
    outgoing: VecDeque<Vec<u8>>,
}

impl BalloonChannel {
    /// On a host that speaks no newer version than this.
    pub(crate) fn new(shared: Arc<Shared>, memory: GuestMemory, newest: Version) -> Self {
        Self {
            newest,
            shared,
            memory,
            lent: Lent::default(),
            asked: Asked::Nothing,
            transaction_id: 0,
            alignment: None,
            outgoing: VecDeque::new(),
        }
    }

    fn answer(&mut self, kind: MessageType, to: Header, accepted: bool) {
        let len = size_of::<Answer>() as u16;
        let header = Header { kind, len, transaction_id: to.transaction_id };
        let answer = Answer { header, accepted: accepted.into() };
        self.outgoing.push_back(answer.as_bytes().to_vec());
    }

    /// Takes what the guest lends.
    fn borrow(&mut self, body: &[u8]) -> Result<(), Fault> {
        let Asked::ForPages(mut wanted) = self.asked else {
            return Ok(());
        };
        let short = |_| Fault::protocol(Short { have: body.len() });
        let ([_, front], ranges) = <[u32; 2]>::read_from_prefix(body).map_err(short)?;
        let (count, more) = (front >> 1, front & 1 != 0);
        let ranges = ranges.chunks_exact(8).take(count as usize);
        for range in ranges.filter_map(|bytes| PageRange::read_from_bytes(bytes).ok()) {
            let lent = self.lent.lend(range, wanted, &self.memory);
            let (offset, len) = lent.map_err(Fault::protocol)?;
            self.memory.discard(offset, len).map_err(Fault::host)?;
            wanted -= range.count();
        }
        self.asked = if more { Asked::ForPages(wanted) } else { Asked::Nothing };
        let mut state = self.shared.lock();
        state.held = self.lent.pages();
        // It was asked for more and had no more.
        if !more && wanted != 0 && state.held < state.wanted() {
            state.shortfall = Some(Shortfall::LendsNoMore);
        }
        Ok(())
    }

    /// Notes down what the guest has taken of the memory that it was offered.
    fn grow(&mut self, body: &[u8]) -> Result<(), Fault> {
        let short = |_| Fault::protocol(Short { have: body.len() });
        let (answer, _) = HotAdded::read_from_prefix(body).map_err(short)?;
        let offered = match self.asked {
            Asked::ToTakeNew(pages) => pages,
            _ => 0,
        };
        let taken = u64::from(answer.pages);
        if offered == 0 || taken > offered {
            return Err(Fault::protocol(Untrue { taken, offered }));
        }
        self.asked = Asked::Nothing;
        let mut state = self.shared.lock();
        if taken != 0 {
            state.added += taken;
            self.shared.room().next += offered;
            return Ok(());
        }
        state.shortfall = Some(Shortfall::TakesNoMore);
        if answer.result != 0 {
            self.alignment = None;
        }
        Ok(())
    }

    /// The next block of memory that the guest does not have, if there is one that it could take.
    fn block(&self) -> Option<PageRange> {
        let alignment = self.alignment?;
        let mut room = self.shared.room();
        let first = room.next.checked_next_multiple_of(alignment)?;
        if first.checked_add(alignment)? > room.end {
            return None;
        }
        room.next = first;
        Some(PageRange::new(first, alignment))
    }

    /// Asks for what the target still needs.
    fn ask(&mut self) {
        let state = *self.shared.lock();
        let State { target, ready, added, shortfall, .. } = state;
        if !ready || self.asked != Asked::Nothing || !self.outgoing.is_empty() {
            return;
        }
        let held = self.lent.pages();
        let wanted = state.wanted();
        if held < wanted && shortfall.is_none() {
            let pages = (wanted - held).min(MAX_REQUEST);
            let header = self.header(MessageType::BALLOON_REQUEST, size_of::<BalloonRequest>());
            let pages_32 = u32::try_from(pages).unwrap_or(u32::MAX);
            let request = BalloonRequest { header, pages: pages_32, reserved: 0 };
            self.outgoing.push_back(request.as_bytes().to_vec());
            self.asked = Asked::ForPages(pages);
        } else if held > wanted {
            let ranges = self.lent.give_back(held - wanted, MAX_RANGES);
            let range_count = u32::try_from(ranges.len()).unwrap_or(0);
            let len = size_of::<UnballoonRequest>() + size_of_val(ranges.as_slice());
            let header = self.header(MessageType::UNBALLOON_REQUEST, len);
            let request = UnballoonRequest { header, more: 0, range_count };
            let message = [request.as_bytes(), ranges.as_bytes()].concat();
            self.outgoing.push_back(message);
            self.asked = Asked::ToTakeBack;
        } else if target < 0 && added < target.unsigned_abs() && shortfall.is_none() {
            let Some(range) = self.block() else {
                self.shared.lock().shortfall = Some(Shortfall::TakesNoMore);
                return;
            };
            let header = self.header(MessageType::HOT_ADD_REQUEST, size_of::<HotAddRequest>());
            let request = HotAddRequest { header, range };
            self.outgoing.push_back(request.as_bytes().to_vec());
            self.asked = Asked::ToTakeNew(range.count());
        }
    }

    fn header(&mut self, kind: MessageType, len: usize) -> Header {
        self.transaction_id = self.transaction_id.wrapping_add(1);
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        Header { kind, len, transaction_id: self.transaction_id }
    }
}

impl ChannelHandler for BalloonChannel {
    fn on_packet(&mut self, packet: Packet<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
        let short = |_| Fault::protocol(Short { have: packet.payload.len() });
        let (header, body) = Header::read_from_prefix(packet.payload).map_err(short)?;
        match header.kind {
            MessageType::VERSION_REQUEST => {
                let version = u32::read_from_prefix(body).map_or(0, |(version, _)| version);
                self.outgoing.clear();
                let asked = Version(version);
                let known = Version::ALL.contains(&asked) && asked <= self.newest;
                self.answer(MessageType::VERSION_RESPONSE, header, known);
                if known {
                    let (major, minor) = ((version >> 16) as u16, version as u16);
                    io.reached(Step::Version { major, minor });
                }
            }
            MessageType::CAPABILITIES_REPORT => {
                let word = u64::read_from_prefix(body).map_or(0, |(word, _)| word);
                let can = Capabilities(word);
                self.alignment = can.hot_add().then(|| can.hot_add_alignment());
                self.answer(MessageType::CAPABILITIES_RESPONSE, header, true);
                self.shared.lock().ready = true;
                io.reached(Step::Ready);
            }
            MessageType::STATUS_REPORT => {
                if let Ok((status, _)) = Status::read_from_prefix(body) {
                    let mut state = self.shared.lock();
                    state.available = status.available;
                    state.committed = status.committed;
                }
            }
            MessageType::BALLOON_RESPONSE => self.borrow(body)?,
            MessageType::HOT_ADD_RESPONSE => self.grow(body)?,
            MessageType::UNBALLOON_RESPONSE if self.asked == Asked::ToTakeBack => {
                self.asked = Asked::Nothing;
                self.shared.lock().held = self.lent.pages();
            }
            // Of what else a driver says, nothing is needed.
            _ => {}
        }
        match packet.descriptor.wants_completion() {
            true => io.complete(packet.descriptor.transaction_id, &[]),
            false => Ok(()),
        }
    }

    fn on_batch(&mut self, io: &mut Io<'_>) -> Result<Progress, Fault> {
        self.ask();
        while let Some(message) = self.outgoing.front() {
            if io.send(&Outgoing::in_band(0, message))? == Sent::NoRoom {
                break;
            }
            self.outgoing.pop_front();
        }
        Ok(Progress::Idle)
    }

    /// A guest that repeats its handshake and reads no answer is not listened to.
    fn has_room(&self) -> bool {
        self.outgoing.len() < 8
    }

    fn on_ready(&mut self, _token: u32, _io: &mut Io<'_>) -> Result<(), Fault> {
        let _ = rustix::io::read(&self.shared.bell, &mut [0; 8]);
        Ok(())
    }

    fn wakeups(&self) -> Vec<Wakeup<'_>> {
        vec![Wakeup { token: 0, fd: self.shared.bell.as_fd(), when: When::Readable }]
    }
}

impl Drop for BalloonChannel {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ready = false;
        state.held = 0;
        state.shortfall = None;
    }
}
