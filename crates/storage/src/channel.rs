// SPDX-License-Identifier: MIT OR Apache-2.0

//! A channel: packets in, answers out, and the commands that are between.
//!
//! Each command that needs its disk has one of `depth` slots from its packet to its answer. While
//! all are taken, packets stay in the ring.

use std::sync::Arc;

use busway_block::{
    Completion, Disk, IoError, Operation as BlockOperation, Queue, Reaction,
    Request as BlockRequest,
};
use busway_memory::{GuestMemory, GuestSlices};
use busway_ring::{Outgoing, Packet};
use busway_vmbus::{
    ChannelHandler, Closing, Fault, Io, LogLimit, Progress, Sent, Side, Wakeup, When,
    external_pages,
};
use busway_wire::packet::PacketType;
use busway_wire::storvsc::{
    Direction, NtStatus, Operation, Packet as VstorPacket, PacketError, Srb,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::Reply;
use crate::handshake::Handshake;
use crate::held::Held;
use crate::luns::{Address, Luns, PLACES};
use crate::shared::{Port, Shared, Table};
use crate::stops::Stops;
use crate::target::{self, Extent, Step};

/// Most bytes of the page lists of one packet: pages for 16 MiB, more than any guest moves at once.
/// A longer list would be kept, vector by vector, as long as its slot.
const MAX_PAGE_LISTS: usize = 32 << 10;

/// What wakes a channel: its disks, or another channel.
const QUEUE: u32 = 0;
const BELL: u32 = 1;

/// A packet that no storvsc sends.
#[derive(Debug, thiserror::Error)]
enum ChannelError {
    /// A ring packet of a type that is not used here.
    #[error("a packet of type {0} on a storage channel")]
    PacketType(PacketType),
    /// Too short for any version.
    #[error(transparent)]
    Payload(#[from] PacketError),
    /// More pages than a command can have.
    #[error("a packet with {len} B of page lists, {max} B are the most", max = MAX_PAGE_LISTS)]
    PageLists {
        /// Bytes.
        len: usize,
    },
    /// A packet came when there was no room for one.
    #[error("a packet came while all {depth} commands were under way")]
    NoRoom {
        /// Commands.
        depth: usize,
    },
}

/// What a guest waits for.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    transaction_id: u64,
    /// Bytes of the answer: as many as the request had.
    answer_len: usize,
    /// It asked for an answer.
    wants_answer: bool,
}

/// A command under way, or a reset that waits for those before it.
struct Slot {
    waiting: Waiting,
    /// Its place in the order in which requests came; 0 for a free slot.
    sequence: u64,
    srb: Srb,
    kind: Kind,
    moved: u32,
    /// What an UNMAP still has to do, the last one first.
    more: Vec<Extent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Command {
        disk: usize,
        operation: BlockOperation,
        offset: u64,
    },
    /// By its number, to other channels.
    Reset {
        lun_only: bool,
        number: u64,
    },
}

/// The host's end of one channel.
pub(crate) struct StorageChannel {
    pub(crate) table: Table,
    /// Places of disks that are not in the table any more, and whose requests are under way.
    leaving: Vec<usize>,
    queue: Queue,
    handshake: Handshake,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Lists that no request owns.
    spare: Vec<GuestSlices>,
    sequence: u64,
    /// The guest has sent a command here.
    is_used: bool,
    /// It is to be told to look for units.
    scans: bool,
    /// Resets that are not answered yet.
    resets: usize,
    pub(crate) shared: Arc<Shared>,
    port: Arc<Port>,
    /// The reset of another channel that waits for this one, and the last request that it waits for.
    settling: Option<(u64, u64)>,
    /// Requests that wait for the user after an error of the host.
    pub(crate) held: Vec<Held>,
    /// What the machine stands still by, if it does because of one of them.
    pub(crate) stops: Option<Arc<Stops>>,
    pub(crate) warnings: LogLimit,
    closing: bool,
}

impl StorageChannel {
    /// A channel that works on at most `depth` commands at once, by `queue`, which has as much room,
    /// and no disks yet. It has joined the others by `port`.
    pub(crate) fn new(
        queue: Queue,
        depth: usize,
        memory: &GuestMemory,
        handshake: Handshake,
        (shared, port): (Arc<Shared>, Arc<Port>),
    ) -> Result<Self, Fault> {
        let waiting = Waiting { transaction_id: 0, answer_len: 0, wants_answer: false };
        let kind = Kind::Reset { lun_only: false, number: 0 };
        let srb = Srb::new_zeroed();
        let slot = || Slot { waiting, sequence: 0, srb, kind, moved: 0, more: Vec::new() };
        let table = Table { number: 0, luns: Arc::new(Luns::empty()) };
        let mut channel = Self {
            table,
            leaving: Vec::new(),
            queue,
            handshake,
            slots: (0..depth).map(|_| slot()).collect(),
            free: (0..depth).rev().collect(),
            spare: (0..depth).map(|_| GuestSlices::new(memory.clone())).collect(),
            sequence: 0,
            is_used: false,
            scans: false,
            resets: 0,
            shared,
            port,
            settling: None,
            held: Vec::new(),
            stops: None,
            warnings: LogLimit::default(),
            closing: false,
        };
        channel.use_table()?;
        Ok(channel)
    }

    /// The same, which says by `stops` when the machine is to stand still.
    pub(crate) fn with_stops(mut self, stops: Option<Arc<Stops>>) -> Self {
        self.stops = stops;
        self
    }

    fn execute(
        &mut self,
        packet: &Packet<'_>,
        srb: &Srb,
        waiting: Waiting,
        io: &mut Io<'_>,
    ) -> Result<(), Fault> {
        let len = packet.header.len();
        if len > MAX_PAGE_LISTS {
            return Err(Fault::protocol(ChannelError::PageLists { len }));
        }
        if !self.is_used {
            self.is_used = true;
            self.shared.guest_looks();
        }
        let mut data = self.spare.pop().ok_or_else(|| self.no_room())?;
        external_pages(packet, &mut data)?;
        match self.step(srb, &mut data)? {
            Step::Done(reply) => {
                if srb.direction == Direction::READ {
                    show(io, Side::Host, waiting.transaction_id, &data, reply.moved);
                }
                self.spare.push(data);
                answer(io, waiting, &reply.packet(srb))
            }
            Step::Io(step) => {
                let target::Io { disk, operation, offset, moved } = step;
                if matches!(operation, BlockOperation::Write { .. }) {
                    show(io, Side::Guest, waiting.transaction_id, &data, moved);
                }
                let kind = Kind::Command { disk, operation, offset };
                let index = self.take_slot(waiting, srb, kind, moved)?;
                let token = index as u64;
                self.submit(disk, BlockRequest { token, operation, offset, data })
            }
        }
    }

    /// Checks what the guest says about its own request, and executes the command in it.
    fn step(&mut self, srb: &Srb, data: &mut GuestSlices) -> Result<Step, Fault> {
        let pages = data.len();
        let wanted = srb.data_transfer_length as usize;
        // Without data the length may be anything.
        let has_pages = wanted <= pages || pages == 0 && srb.direction == Direction::NONE;
        data.truncate(wanted);
        let address = Address { path: srb.path, target: srb.target, lun: srb.lun };
        let slot = *self.free.last().ok_or_else(|| self.no_room())?;
        let step = match (srb.cdb(), self.slots.get_mut(slot)) {
            (Some(cdb), Some(slot)) if has_pages => {
                let request = target::Request { address, cdb, direction: srb.direction };
                target::execute(&self.table.luns, &request, data, &mut slot.more)
            }
            _ => Step::Done(Reply::invalid()),
        };
        if step == Step::Done(Reply::invalid())
            && let Some(seen) = self.warnings.next()
        {
            log::warn!("storage: a request makes no sense: {srb}, {pages} B of pages{seen}");
        }
        Ok(step)
    }

    /// Gives up what is under way, and answers when that has ended.
    fn reset(
        &mut self,
        operation: Operation,
        srb: &Srb,
        waiting: Waiting,
        io: &mut Io<'_>,
    ) -> Result<(), Fault> {
        let lun_only = operation == Operation::RESET_LUN;
        let number = self.shared.reset(&self.port, !lun_only);
        self.take_slot(waiting, srb, Kind::Reset { lun_only, number }, 0)?;
        self.resets += 1;
        if !lun_only {
            self.queue.cancel_all().map_err(Fault::host)?;
        }
        self.end_resets(io)
    }

    fn take_slot(
        &mut self,
        waiting: Waiting,
        srb: &Srb,
        kind: Kind,
        moved: u32,
    ) -> Result<usize, Fault> {
        let index = self.free.pop().ok_or_else(|| self.no_room())?;
        self.sequence += 1;
        if let Some(slot) = self.slots.get_mut(index) {
            (slot.waiting, slot.srb, slot.kind, slot.moved) = (waiting, *srb, kind, moved);
            slot.sequence = self.sequence;
        }
        Ok(index)
    }

    /// Whether somebody waits for the end of what is under way.
    pub(crate) const fn gives_up(&self) -> bool {
        self.resets != 0 || self.settling.is_some()
    }

    pub(crate) fn submit(&mut self, disk: usize, request: BlockRequest) -> Result<(), Fault> {
        self.queue.submit(disk, request).map_err(|_| self.no_room())
    }

    fn no_room(&self) -> Fault {
        Fault::host(ChannelError::NoRoom { depth: self.slots.len() })
    }

    /// Gives the disks what was submitted, and answers what has ended.
    fn turn(&mut self, io: &mut Io<'_>) -> Result<(), Fault> {
        self.queue.push().map_err(Fault::host)?;
        while let Some(completion) = self.queue.reap().map_err(Fault::host)? {
            self.end(completion, io)?;
        }
        if self.held.is_empty() { Ok(()) } else { self.end_held(io) }
    }

    fn end(&mut self, completion: Completion, io: &mut Io<'_>) -> Result<(), Fault> {
        let Completion { token, result, data } = completion;
        let index = token as usize;
        let given_up = self.gives_up();
        let Some(slot) = self.slots.get_mut(index) else {
            return Ok(());
        };
        let Kind::Command { disk, operation, offset } = slot.kind else {
            return Ok(());
        };
        if let Err(error) = result
            && !given_up
            && let Some(medium) = self.table.luns.medium(disk)
            && let reaction @ (Reaction::Wait | Reaction::Stop) = medium.reaction(operation, error)
        {
            let request = BlockRequest { token, operation, offset, data };
            self.hold(Held { disk, request, error }, reaction);
            return Ok(());
        }
        let result = match (result, slot.more.pop()) {
            (Ok(()), Some(Extent { offset, len })) if !given_up => {
                let operation = BlockOperation::Discard { len };
                slot.kind = Kind::Command { disk, operation, offset };
                return self.submit(disk, BlockRequest { token, operation, offset, data });
            }
            (Ok(()), Some(_)) => Err(IoError::Cancelled),
            (result, _) => result,
        };
        self.finish(index, result, data, io)
    }

    /// Answers a command that has ended.
    pub(crate) fn finish(
        &mut self,
        index: usize,
        result: Result<(), IoError>,
        data: GuestSlices,
        io: &mut Io<'_>,
    ) -> Result<(), Fault> {
        let Some(slot) = self.slots.get(index) else {
            return Ok(());
        };
        let Kind::Command { disk, operation, .. } = slot.kind else {
            return Ok(());
        };
        if result.is_ok() && operation == BlockOperation::Read {
            show(io, Side::Host, slot.waiting.transaction_id, &data, slot.moved);
        }
        let reply = match result {
            Ok(()) => Reply::good(slot.moved),
            Err(error) => Reply::failed(error, operation == BlockOperation::Read),
        };
        let packet = reply.packet(&slot.srb);
        match result {
            Ok(()) if operation == BlockOperation::Read => io.worked(),
            Ok(()) => {}
            Err(error) => self.warn_of(disk, operation, error),
        }
        self.spare.push(data);
        self.answer_slot(index, &packet, io)?;
        self.settle();
        if !self.leaving.is_empty() {
            self.let_go()?;
        }
        if self.resets == 0 { Ok(()) } else { self.end_resets(io) }
    }

    /// It was rung: a reset waits for this channel, or this one's has gone on, or units have changed.
    fn hear(&mut self, io: &mut Io<'_>) -> Result<(), Fault> {
        self.port.bell.heard();
        if let Some(number) = self.port.asked() {
            self.settling = Some((number, self.sequence));
            if self.port.take_cancel() {
                self.queue.cancel_all().map_err(Fault::host)?;
            }
            self.settle();
        }
        if self.shared.table().number != self.table.number {
            self.use_table()?;
        }
        if self.port.take_resume() {
            self.retry_held()?;
        }
        self.scans |= self.port.take_scan();
        self.tell_to_scan(io)?;
        if self.resets == 0 { Ok(()) } else { self.end_resets(io) }
    }

    /// Uses the units as they are now.
    fn use_table(&mut self) -> Result<(), Fault> {
        let table = self.shared.table();
        for place in 0..PLACES {
            match (self.table.luns.medium(place), table.luns.medium(place)) {
                (None, Some(disk)) => {
                    self.queue.plug(place, disk.clone()).map_err(Fault::host)?;
                }
                (Some(_), None) => self.leaving.push(place),
                // A disk gives way to another only when no channel has it any more.
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        self.table = table;
        self.let_go()
    }

    /// Lets go of disks that are not in the table any more and have nothing under way.
    fn let_go(&mut self) -> Result<(), Fault> {
        let Self { leaving, slots, queue, .. } = self;
        let is_busy = |place: usize| {
            let uses =
                |slot: &Slot| matches!(slot.kind, Kind::Command { disk, .. } if disk == place);
            slots.iter().any(|slot| slot.sequence != 0 && uses(slot))
        };
        let mut result = Ok(());
        leaving.retain(|place| {
            let stays = is_busy(*place);
            if !stays && let Err(error) = queue.unplug(*place) {
                result = Err(Fault::host(error));
            }
            stays
        });
        if leaving.is_empty() {
            self.shared.uses_table(&self.port, self.table.number);
        }
        result
    }

    /// Tells the guest to look for units (Linux `drivers/scsi/storvsc_drv.c`, `storvsc_on_receive`).
    fn tell_to_scan(&mut self, io: &mut Io<'_>) -> Result<(), Fault> {
        if self.scans {
            let packet = VstorPacket {
                operation: Operation::ENUMERATE_BUS,
                ..VstorPacket::answer(NtStatus::SUCCESS)
            };
            self.scans = io.send(&Outgoing::in_band(0, packet.as_bytes()))? == Sent::NoRoom;
        }
        Ok(())
    }

    /// Tells other channels when nothing is under way any more that their reset waits for.
    fn settle(&mut self) {
        let Some((number, last)) = self.settling else {
            return;
        };
        let concerns = |slot: &Slot| {
            matches!(slot.kind, Kind::Command { .. }) && (1..=last).contains(&slot.sequence)
        };
        if !self.slots.iter().any(concerns) {
            self.settling = None;
            self.port.settle(number);
            self.shared.ring_all();
        }
    }

    /// Answers the request of a slot, which is free then.
    fn answer_slot(
        &mut self,
        index: usize,
        packet: &VstorPacket,
        io: &mut Io<'_>,
    ) -> Result<(), Fault> {
        let Some(slot) = self.slots.get_mut(index) else {
            return Ok(());
        };
        slot.sequence = 0;
        self.free.push(index);
        answer(io, slot.waiting, packet)
    }

    /// Answers each reset before which nothing is under way any more.
    fn end_resets(&mut self, io: &mut Io<'_>) -> Result<(), Fault> {
        while let Some(index) = self.slots.iter().position(|slot| self.is_over(slot)) {
            self.resets -= 1;
            self.answer_slot(index, &VstorPacket::answer(NtStatus::SUCCESS), io)?;
        }
        Ok(())
    }

    /// Whether `reset` is a reset that has no more to wait for.
    fn is_over(&self, reset: &Slot) -> bool {
        let Kind::Reset { lun_only, number } = reset.kind else {
            return false;
        };
        let concerns = |slot: &Slot| {
            matches!(slot.kind, Kind::Command { .. })
                && (1..reset.sequence).contains(&slot.sequence)
                && (!lun_only || slot.srb.lun == reset.srb.lun)
        };
        reset.sequence != 0
            && !self.slots.iter().any(concerns)
            && self.shared.is_settled(&self.port, number)
    }

    fn warn_of(&mut self, disk: usize, operation: BlockOperation, error: IoError) {
        if error != IoError::Cancelled
            && let Some(seen) = self.warnings.next()
        {
            let name = self.table.luns.medium(disk).map_or("a disk that is gone", Disk::name);
            log::warn!("storage: {operation:?} on '{name}' failed: {error}{seen}");
        }
    }
}

/// Shows the data of a command, of which `moved` bytes count, to whoever wants that.
fn show(io: &Io<'_>, side: Side, transaction_id: u64, data: &GuestSlices, moved: u32) {
    if io.shows_data() {
        let len = data.len().min(moved as usize);
        io.show(side, transaction_id, len, &|out| data.read_at(0, out));
    }
}

/// Answers a request as it wants to be answered: in its own size, or not at all.
fn answer(io: &mut Io<'_>, waiting: Waiting, packet: &VstorPacket) -> Result<(), Fault> {
    let Waiting { transaction_id, answer_len, wants_answer } = waiting;
    if !wants_answer {
        return Ok(());
    }
    let bytes = packet.as_bytes();
    io.complete(transaction_id, bytes.get(..answer_len).unwrap_or(bytes))
}

impl ChannelHandler for StorageChannel {
    fn on_packet(&mut self, packet: Packet<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
        match packet.descriptor.kind {
            PacketType::DATA_IN_BAND | PacketType::DATA_USING_GPA_DIRECT => {}
            // What is under way is answered all the same; nothing that we ask is waited for.
            PacketType::CANCEL_REQUEST | PacketType::COMPLETION => return Ok(()),
            kind => return Err(Fault::protocol(ChannelError::PacketType(kind))),
        }
        let parsed = VstorPacket::parse(packet.payload).map_err(ChannelError::from);
        let (request, answer_len) = parsed.map_err(Fault::protocol)?;
        let waiting = Waiting {
            transaction_id: packet.descriptor.transaction_id,
            answer_len,
            wants_answer: packet.descriptor.wants_completion(),
        };
        match request.operation {
            Operation::EXECUTE_SRB if self.handshake.is_ready() => {
                self.execute(&packet, &request.body(), waiting, io)
            }
            Operation::RESET_LUN | Operation::RESET_ADAPTER | Operation::RESET_BUS
                if self.handshake.is_ready() =>
            {
                self.reset(request.operation, &request.body(), waiting, io)
            }
            _ => {
                let (reply, subchannels) = self.handshake.answer(&request);
                if subchannels != 0 {
                    io.offer_subchannels(subchannels);
                }
                if let Some(step) = self.handshake.step() {
                    io.reached(step);
                }
                answer(io, waiting, &reply)
            }
        }
    }

    fn on_batch(&mut self, io: &mut Io<'_>) -> Result<Progress, Fault> {
        self.turn(io)?;
        self.tell_to_scan(io)?;
        Ok(Progress::Idle)
    }

    fn on_ready(&mut self, token: u32, io: &mut Io<'_>) -> Result<(), Fault> {
        if token == BELL {
            self.hear(io)?;
        }
        if self.closing { Ok(()) } else { self.turn(io) }
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    fn wakeups(&self) -> Vec<Wakeup<'_>> {
        let wakeup = |token, fd| Wakeup { token, fd, when: When::Readable };
        let bell = wakeup(BELL, self.port.bell.fd());
        self.queue.fds().map(|fd| wakeup(QUEUE, fd)).chain([bell]).collect()
    }

    fn close(&mut self) -> Closing {
        let begun = if self.closing { Ok(()) } else { self.queue.cancel_all() };
        self.closing = true;
        let reaped = begun.and_then(|()| {
            while self.queue.reap()?.is_some() {}
            Ok(())
        });
        if let Err(error) = reaped {
            log::error!("storage: the disks of a channel do not let go of it: {error}");
        }
        if self.queue.in_flight() == 0 { Closing::Drained } else { Closing::InFlight }
    }
}

impl Drop for StorageChannel {
    /// A reset may have waited for this channel; it waits no more.
    fn drop(&mut self) {
        self.held.iter().for_each(|held| self.shared.goes_on(held.disk));
        self.port.settle(u64::MAX);
        self.shared.ring_all();
        // Nor does whoever changes units.
        self.shared.uses_table(&self.port, u64::MAX);
    }
}
