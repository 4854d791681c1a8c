// SPDX-License-Identifier: MIT OR Apache-2.0

//! An open channel: its rings, its handler, and the turns in which a worker drives them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use busway_memory::{GuestMemory, MapRingError, RingArea};
use busway_ring::{AdaptivePoll, PacketBuf, Reader, RingError, RingMem, Snapshot, Word, Writer};

use crate::action::{ChannelKey, Completion, InterruptTarget, OpenRequest};
use crate::device::{ChannelHandler, Closing, Wakeup, When};
use crate::fault::Fault;
use crate::gpadl::{GpadlId, Lists};
use crate::io::{Interrupts, Io, Link};
use crate::meddler::{self, Absence, ChannelMeddler, GuestFate};
use crate::milestone::Reporter;
use crate::tap::{Cause, Place, Published, Tapped, Traffic};

/// Packets taken before the answers so far are shown to the guest: enough to spread the cost of a
/// signal and of a back end's system call, few enough not to keep the first answer waiting.
const BATCH: usize = 64;

/// Batches in one turn, before other events of the worker have theirs.
const BATCHES: usize = 16;

/// A channel cannot be opened on the pages that the guest gave.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The GPADL does not hold two rings.
    #[error("the GPADL does not hold two rings")]
    NoRings,
    /// The pages cannot be used as a ring.
    #[error("the {direction} ring: {source}")]
    Map {
        /// Which ring.
        direction: &'static str,
        /// Why.
        source: MapRingError,
    },
    /// A ring's indices make no sense.
    #[error("the {direction} ring: {source}")]
    Ring {
        /// Which ring.
        direction: &'static str,
        /// Why.
        source: RingError,
    },
}

/// Whether a channel wants to go on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a channel that has more to do must be run again"]
pub enum Progress {
    /// Nothing to do until the guest signals or a back end is ready.
    Idle,
    /// More is there; other events may have their turn first.
    More,
}

/// An open channel's rings, as its worker saw them between two turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingSnapshots {
    /// Which channel.
    pub place: Place,
    /// The guest's ring.
    pub incoming: Snapshot,
    /// The host's ring.
    pub outgoing: Snapshot,
    /// Packets that found no room in it.
    pub backlog: usize,
    /// The channel has stopped: what the guest wrote made no sense.
    pub faulted: bool,
}

/// What the bus tells a channel.
pub enum Command {
    /// Somebody wants to see the rings, which are sent there. No answer is due if nobody waits.
    Show(Place, SyncSender<RingSnapshots>),
    /// The guest wants a list back.
    DropGpadl(GpadlId),
    /// What passes is changed by somebody from now on, or by nobody. Who meddles already is
    /// [renewed](ChannelMeddler::renew). The channel's [wake-ups](Channel::wakeups) become others, and
    /// it is to have a turn.
    Meddle(Option<Box<dyn ChannelMeddler>>),
    /// Interrupts go elsewhere.
    Retarget(InterruptTarget),
    /// The guest, or the bus, closes the channel.
    Close,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Show(place, _) => write!(f, "Show({place:?})"),
            Self::Meddle(meddler) => write!(f, "Meddle({})", meddler.is_some()),
            Self::DropGpadl(id) => write!(f, "DropGpadl({id:?})"),
            Self::Retarget(target) => write!(f, "Retarget({target:?})"),
            Self::Close => f.write_str("Close"),
        }
    }
}

/// Both rings of an open channel, mapped.
pub(crate) struct Rings {
    incoming: Reader<RingArea>,
    outgoing: Writer<RingArea>,
}

impl Rings {
    pub(crate) fn map(memory: &GuestMemory, request: &OpenRequest) -> Result<Self, OpenError> {
        let rings = request.ring.rings(request.downstream_page);
        let (guest_to_host, host_to_guest) = rings.ok_or(OpenError::NoRings)?;
        let map = |pfns, direction| {
            RingArea::map(memory, pfns).map_err(|source| OpenError::Map { direction, source })
        };
        let broken = |direction| move |source| OpenError::Ring { direction, source };
        let direction = "guest-to-host";
        let incoming = Reader::new(map(guest_to_host, direction)?).map_err(broken(direction))?;
        let direction = "host-to-guest";
        let outgoing = Writer::new(map(host_to_guest, direction)?).map_err(broken(direction))?;
        Ok(Self { incoming, outgoing })
    }
}

/// An open channel. One worker owns it; see [`crate::device`] for the order of calls.
pub struct Channel {
    key: ChannelKey,
    handler: Box<dyn ChannelHandler>,
    incoming: Reader<RingArea>,
    packet: PacketBuf,
    poll: AdaptivePoll,
    link: Link,
    /// Lists that the guest wants back and the handler still uses.
    releasing: Vec<GpadlId>,
    /// Why the next turn is made, unless a back end asks for it.
    next: Cause,
    faulted: bool,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({:?})", self.key)
    }
}

impl Channel {
    pub(crate) fn new(
        key: ChannelKey,
        handler: Box<dyn ChannelHandler>,
        rings: Rings,
        memory: GuestMemory,
        interrupts: Arc<dyn Interrupts>,
        target: InterruptTarget,
        lists: Lists,
    ) -> Self {
        let Rings { incoming, outgoing } = rings;
        let packet = PacketBuf::for_ring(incoming.mem().data_len());
        let link = Link {
            memory,
            writer: outgoing,
            backlog: VecDeque::new(),
            gpadls: lists,
            interrupts,
            target,
            wanted: 0,
            subchannels: None,
            ended: None,
            awaits_work: false,
            reporter: None,
            tap: None,
            meddler: None,
            rewrite: None,
            closed: false,
        };
        let poll = AdaptivePoll::default();
        let releasing = Vec::new();
        let (next, faulted) = (Cause::Start, false);
        Self { key, handler, incoming, packet, poll, link, releasing, next, faulted }
    }

    /// Lets `tap` see all that passes.
    pub(crate) fn tapped(mut self, tap: Option<Tapped>) -> Self {
        if let Some(tap) = &tap {
            let [incoming, outgoing] = [self.incoming.mem(), self.link.writer.mem()];
            tap.opened(self.link.target, incoming.data_len(), outgoing.data_len());
        }
        self.link.tap = tap;
        self
    }

    /// Lets `meddler` change what passes.
    pub(crate) fn meddled(mut self, meddler: Option<Box<dyn ChannelMeddler>>) -> Self {
        self.link.meddler = meddler;
        self
    }

    /// Reports to `reporter` how far the guest comes with the device.
    pub(crate) fn watched(mut self, reporter: Option<Reporter>) -> Self {
        self.link.awaits_work = reporter.is_some();
        self.link.reporter = reporter;
        self
    }

    /// The host's name for the channel.
    pub const fn key(&self) -> ChannelKey {
        self.key
    }

    /// The descriptors whose readiness is reported by [`ready`](Self::ready), with their tokens.
    pub fn wakeups(&self) -> Vec<Wakeup<'_>> {
        let mut wakeups = self.handler.wakeups();
        if let Some(meddler) = &self.link.meddler {
            let (token, when) = (meddler::TOKEN, When::Changed);
            wakeups.push(Wakeup { token, fd: meddler.wakeup(), when });
        }
        wakeups
    }

    /// Takes what the guest has sent. To be called when the guest signals, once after the start,
    /// and again after [`Progress::More`].
    pub fn run(&mut self) -> Result<Progress, Fault> {
        self.turn(None)
    }

    /// The worker slept this long before the guest's signal woke it: how long the next sleep is put
    /// off depends on it.
    pub fn slept(&mut self, duration: Duration) {
        self.poll.slept(duration);
    }

    /// A back end has something; then as [`run`](Self::run).
    pub fn ready(&mut self, token: u32) -> Result<Progress, Fault> {
        self.turn(Some(token))
    }

    fn turn(&mut self, token: Option<u32>) -> Result<Progress, Fault> {
        if self.faulted {
            return Ok(Progress::Idle);
        }
        if let Some(tap) = &mut self.link.tap {
            tap.turn(token.map_or(self.next, Cause::BackEnd));
        }
        let progress = self.work(token);
        self.faulted = progress.is_err();
        self.next = match progress {
            Ok(Progress::More) => Cause::More,
            _ => Cause::Signal,
        };
        progress
    }

    fn work(&mut self, token: Option<u32>) -> Result<Progress, Fault> {
        if let Some(token) = token.filter(|token| *token != meddler::TOKEN) {
            self.handler.on_ready(token, &mut Io { link: &mut self.link })?;
        }
        if self.link.closed {
            return Ok(Progress::Idle);
        }
        self.link.send_late()?;
        self.incoming.mask();
        for _ in 0..BATCHES {
            self.link.wanted = 0;
            let empty = self.take_batch()?;
            let progress = self.handler.on_batch(&mut Io { link: &mut self.link })?;
            let can_write = self.link.write_backlog()?;
            self.publish();
            if progress == Progress::More || !self.link.wait_for_wanted()? {
                continue;
            }
            if empty && can_write {
                let incoming = &self.incoming;
                if self.poll.look(|| incoming.has_packet()) {
                    continue;
                }
                if self.incoming.rearm() {
                    return Ok(Progress::Idle);
                }
                self.incoming.mask();
            } else if !can_write || !self.handler.has_room() || self.is_held() {
                // The guest signals when it has made room, a back end when it is done.
                return Ok(Progress::Idle);
            }
        }
        Ok(Progress::More)
    }

    /// Hands packets to the handler; true if the ring is empty.
    fn take_batch(&mut self) -> Result<bool, Fault> {
        if self.link.meddler.is_some() {
            return self.take_meddled();
        }
        for _ in 0..BATCH {
            if !self.link.backlog.is_empty() || !self.handler.has_room() {
                return Ok(false);
            }
            let at = self.incoming.position();
            let Some(packet) = self.incoming.next(&mut self.packet)? else {
                return Ok(true);
            };
            if let Some(tap) = &mut self.link.tap {
                tap.read(at, &packet);
            }
            self.handler.on_packet(packet, &mut Io { link: &mut self.link })?;
        }
        Ok(false)
    }

    /// As [`take_batch`](Self::take_batch), past the meddler.
    #[cold]
    fn take_meddled(&mut self) -> Result<bool, Fault> {
        for _ in 0..BATCH {
            if self.is_held() || !self.link.backlog.is_empty() || !self.handler.has_room() {
                return Ok(false);
            }
            let at = self.incoming.position();
            let Some(packet) = self.incoming.next(&mut self.packet)? else {
                return Ok(true);
            };
            if let Some(tap) = &mut self.link.tap {
                tap.read(at, &packet);
            }
            let meddler = self.link.meddler.as_mut();
            match meddler.map_or(GuestFate::Passes, |meddler| meddler.takes(&packet)) {
                GuestFate::Passes => {}
                GuestFate::Lost => continue,
                GuestFate::Rescinds(absence) => self.link.end(absence),
            }
            self.handler.on_packet(packet, &mut Io { link: &mut self.link })?;
        }
        Ok(false)
    }

    /// Whether the meddler leaves the guest's packets in the ring.
    fn is_held(&self) -> bool {
        self.link.meddler.as_ref().is_some_and(|meddler| meddler.holds())
    }

    /// Shows the guest what was written and what was read, with at most one interrupt for both.
    fn publish(&mut self) {
        let reader_waits = self.link.writer.publish();
        let writer_waits = self.incoming.publish();
        if self.link.tap.is_some() {
            self.tap_published(reader_waits, writer_waits);
        }
        let mut is_due = reader_waits || writer_waits;
        if let Some(meddler) = &mut self.link.meddler {
            is_due = meddler.interrupts(is_due);
        }
        if is_due {
            self.link.interrupts.raise(self.link.target);
        }
    }

    /// Says where the rings stand and what that means for the guest's interrupt.
    fn tap_published(&mut self, reader_waits: bool, writer_waits: bool) {
        let (incoming, outgoing) = (self.incoming.mem(), self.link.writer.mem());
        let published = Published {
            incoming_read: self.incoming.position(),
            incoming_write: incoming.load(Word::WriteIndex),
            incoming_pending: incoming.load(Word::PendingSendSize),
            outgoing_read: outgoing.load(Word::ReadIndex),
            outgoing_write: self.link.writer.position(),
            outgoing_mask: outgoing.load(Word::InterruptMask),
            reader_waits,
            writer_waits,
            taken: Traffic::default(),
            put: Traffic::default(),
        };
        if let Some(tap) = &mut self.link.tap {
            tap.published(published);
        }
    }

    /// Does what the bus wants; `Some` if that is complete and the bus is to be told. What is not
    /// complete is asked for by [`poll`](Self::poll).
    pub fn command(&mut self, command: Command) -> Option<Completion> {
        match command {
            Command::DropGpadl(id) => {
                self.link.gpadls.remove(id);
                self.releasing.push(id);
                self.poll()
            }
            Command::Meddle(meddler) => {
                self.meddle(meddler);
                None
            }
            Command::Retarget(target) => {
                self.link.target = target;
                Some(Completion::Retargeted(self.key))
            }
            Command::Show(place, to) => {
                if !self.link.closed {
                    // Whoever asked may have stopped waiting.
                    let _ = to.try_send(self.show(place));
                }
                None
            }
            Command::Close => {
                self.link.closed = true;
                self.link.backlog.clear();
                self.releasing.clear();
                self.poll()
            }
        }
    }

    fn meddle(&mut self, meddler: Option<Box<dyn ChannelMeddler>>) {
        if self.link.closed {
            return;
        }
        match (&mut self.link.meddler, meddler) {
            (Some(old), Some(_)) => old.renew(),
            (old, meddler) => {
                if let Some(mut old) = std::mem::replace(old, meddler) {
                    let (packets, interrupt) = old.let_go();
                    self.link.backlog.extend(packets);
                    if interrupt {
                        self.link.interrupts.raise(self.link.target);
                    }
                }
            }
        }
    }

    fn show(&self, place: Place) -> RingSnapshots {
        let (incoming, outgoing) = (self.incoming.snapshot(), self.link.writer.snapshot());
        let (backlog, faulted) = (self.link.backlog.len(), self.faulted);
        RingSnapshots { place, incoming, outgoing, backlog, faulted }
    }

    /// Asks for what the bus wanted and is complete only now; to be asked after each turn of a back
    /// end until there is nothing. After [`Completion::Closed`] the channel is to be dropped.
    pub fn poll(&mut self) -> Option<Completion> {
        if self.link.closed {
            let drained = self.handler.close() == Closing::Drained;
            if drained && let Some(tap) = self.link.tap.take() {
                tap.closed();
            }
            return drained.then_some(Completion::Closed(self.key));
        }
        if self.faulted {
            // Its close follows, and is an answer for all lists.
            return None;
        }
        let handler = &mut self.handler;
        let done = |id: &GpadlId| handler.release_gpadl(*id) == Closing::Drained;
        let at = self.releasing.iter().position(done)?;
        Some(Completion::GpadlDropped(self.key, self.releasing.swap_remove(at)))
    }

    /// Whether the handler has ended its device in the last turn, or the meddler has, for
    /// [`Bus::end`](crate::Bus::end).
    pub fn wants_end(&mut self) -> Option<Absence> {
        self.link.ended.take()
    }

    /// Subchannels that the handler has asked for in the last turn, for
    /// [`Bus::offer_subchannels`](crate::Bus::offer_subchannels).
    pub fn wanted_subchannels(&mut self) -> Option<u16> {
        self.link.subchannels.take()
    }
}
