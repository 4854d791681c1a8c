// SPDX-License-Identifier: MIT OR Apache-2.0

//! A channel: the guest's packets in, its frames out, and the network's frames in.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use busway_frames::{Lost, Offloads, Queue};
use busway_memory::GuestMemory;
use busway_ring::{Outgoing, Packet};
use busway_vmbus::{
    ChannelHandler, Closing, Fault, GpadlId, Io, LogLimit, Progress, Sent, Side, Step, Wakeup,
    When, append_external_pages,
};
use busway_wire::nvsp::{
    INDIRECTION_ENTRIES, Message, MessageError, MessageType, RndisChannel, RndisPacket,
    RndisPacketComplete, SendIndirectionTable, Status, Version,
};
use busway_wire::packet::PacketType;
use busway_wire::rndis::{Answer, Control};
use zerocopy::IntoBytes;

use crate::buffers::Parts;
use crate::control::{self, Nature};
use crate::counters::Counters;
use crate::handshake::{self, Outcome};
use crate::mail::{Mail, Parcel};
use crate::outbox::{Outbox, Piece};
use crate::receive::{Received, Receiver};
use crate::send::Sender;
use crate::settings::Settings;
use crate::shared::{Port, Shared};

/// Most bytes of the messages in one packet: twice what guests are told.
const MOST_BYTES: usize = 2 * control::MAX_TRANSFER as usize;

/// Most bytes of a control message: RSS's longest parameters are a third of it.
const MOST_CONTROL: usize = 4096;

/// Most bytes of the page lists of one packet: four times what the longest message needs if none
/// of its bytes are neighbours.
const MOST_PAGE_LISTS: usize = 32 << 10;

/// Answers that may wait for the guest; then it must take some before it asks more.
const MOST_ANSWERS: usize = 16;

/// Frames taken from the network before others have their turn.
const BATCH: usize = 64;

/// Pieces that wait for room in the ring, and no more are taken from the network.
const MOST_WAITING: usize = 256;

const QUEUE: u32 = 0;
const BELL: u32 = 1;

/// A packet that no netvsc sends.
#[derive(Debug, thiserror::Error)]
enum ChannelError {
    /// A ring packet of a type that is not used here.
    #[error("a packet of type {0} on a network channel")]
    PacketType(PacketType),
    /// Too short for anything.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// More pages than messages can have.
    #[error("a packet with {len} B of page lists, {max} B are the most", max = MOST_PAGE_LISTS)]
    PageLists {
        /// Bytes.
        len: usize,
    },
}

/// The host's end of one channel.
pub(crate) struct NetworkChannel {
    /// 0 for the first.
    index: u16,
    nature: Arc<Nature>,
    shared: Arc<Shared>,
    port: Arc<Port>,
    queue: Queue,
    memory: GuestMemory,
    settings: Arc<Settings>,
    /// How often the settings had changed when these were taken.
    changes: u64,
    sender: Sender,
    receiver: Option<Receiver>,
    parts: Parts,
    outbox: Outbox,
    /// Frames for other channels, while a batch is taken.
    mail: Mail,
    /// Frames from other channels, while they are looked at.
    parcel: Parcel,
    answers: VecDeque<Answer>,
    /// What a packet of frames that were taken is answered with.
    taken: Message,
    /// The open channels that the guest was told to send on.
    announced: usize,
    /// The network may have a frame.
    readable: bool,
    /// The network takes no frame now.
    full: bool,
    /// Frames given to the network since it was last flushed.
    given: u64,
    warnings: LogLimit,
    offloads: Option<Offloads>,
    closing: bool,
}

impl NetworkChannel {
    pub(crate) fn new(
        index: u16,
        nature: Arc<Nature>,
        shared: Arc<Shared>,
        port: Arc<Port>,
        queue: Queue,
        memory: GuestMemory,
    ) -> Self {
        let (changes, settings) = shared.settings();
        let readable = queue.receives();
        let sender = Sender::new(&memory, nature.offloads);
        let body = RndisPacketComplete { status: Status::SUCCESS };
        let taken = Message::new(MessageType::SEND_RNDIS_PACKET_COMPLETE, &body);
        let mut channel = Self {
            index,
            nature,
            shared,
            port,
            queue,
            memory,
            settings,
            changes,
            sender,
            receiver: None,
            parts: Parts::default(),
            outbox: Outbox::default(),
            mail: Mail::default(),
            parcel: Parcel::default(),
            answers: VecDeque::new(),
            taken,
            announced: 1,
            readable,
            full: false,
            given: 0,
            warnings: LogLimit::default(),
            offloads: None,
            closing: false,
        };
        channel.use_settings();
        channel
    }

    fn warn(&mut self, what: &dyn fmt::Display) {
        if let Some(seen) = self.warnings.next() {
            log::warn!("network '{}': {what}{seen}", self.nature.name);
        }
    }

    /// Takes the settings if they have changed.
    #[inline]
    fn sync(&mut self) {
        if self.shared.changes() != self.changes {
            (self.changes, self.settings) = self.shared.settings();
            self.use_settings();
            if self.index != 0 {
                self.shared.ring_first();
            }
        }
    }

    fn use_settings(&mut self) {
        let wanted = self.settings.receive.clone();
        let same = match (&self.receiver, &wanted) {
            (Some(receiver), Some(wanted)) => Arc::ptr_eq(&receiver.buffer, wanted),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.let_go();
            let settings = &self.settings;
            let new = |buffer| Receiver::new(&self.memory, buffer, settings);
            self.receiver = wanted.map(new);
        }
        if let Some(receiver) = &mut self.receiver {
            receiver.set_longest(self.settings.longest_packet());
        }
        let (tcp4, tcp6) = self.settings.coalesce;
        let offloads = Offloads { checksum: self.nature.offloads, tcp4, tcp6 };
        if self.index == 0 && self.nature.offloads && self.offloads != Some(offloads) {
            self.offloads = Some(offloads);
            if let Err(error) = self.queue.set_offloads(offloads) {
                self.warn(&format_args!("the network's offloads stay as they were: {error}"));
            }
        }
    }

    /// Uses the receive buffer no more.
    fn let_go(&mut self) {
        self.flush();
        self.outbox.clear();
        self.drop_mail();
        if let Some(mut receiver) = self.receiver.take() {
            receiver.clear(&mut self.parts);
            if self.parts.clear(&receiver.buffer) {
                self.shared.ring_all();
            }
        }
        self.sender.slices.clear();
    }

    fn message(&mut self, packet: &Packet<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
        let parsed = Message::parse(packet.payload).map_err(ChannelError::from);
        let message = parsed.map_err(Fault::protocol)?;
        log::trace!("network '{}', channel {}: {message}", self.nature.name, self.index);
        let answer = match message.kind {
            MessageType::SEND_RNDIS_PACKET => {
                let status = self.rndis(packet, message.body(), io)?;
                if status == Status::SUCCESS && packet.descriptor.wants_completion() {
                    return io.complete(packet.descriptor.transaction_id, self.taken.as_bytes());
                }
                let body = RndisPacketComplete { status };
                Some(Message::new(MessageType::SEND_RNDIS_PACKET_COMPLETE, &body))
            }
            _ if self.index == 0 => {
                let (nature, shared) = (&*self.nature, &*self.shared);
                let Outcome { answer, warning } =
                    handshake::take(&message, nature, &self.settings, shared, io);
                if let Some(warning) = warning {
                    self.warn(&warning);
                }
                self.sync();
                if message.kind == MessageType::INIT
                    && let Some(Version(version)) = self.settings.version
                {
                    let (major, minor) = ((version >> 16) as u16, version as u16);
                    io.reached(Step::Version { major, minor });
                }
                answer
            }
            kind => {
                self.warn(&format_args!("{kind} on a subchannel"));
                None
            }
        };
        if !packet.descriptor.wants_completion() {
            return Ok(());
        }
        let bytes = answer.as_ref().map_or(&[][..], IntoBytes::as_bytes);
        io.complete(packet.descriptor.transaction_id, bytes)
    }

    /// Takes a packet of RNDIS messages; what its completion says.
    fn rndis(
        &mut self,
        packet: &Packet<'_>,
        body: RndisPacket,
        io: &mut Io<'_>,
    ) -> Result<Status, Fault> {
        let len = packet.header.len();
        if len > MOST_PAGE_LISTS {
            return Err(Fault::protocol(ChannelError::PageLists { len }));
        }
        if let Err(reason) = self.gather(packet, &body)? {
            self.warn(&reason);
            return Ok(Status::INVALID_RNDIS_PACKET);
        }
        if body.channel == RndisChannel::CONTROL || io.shows_data() {
            let messages = &self.sender.slices;
            let read = |out: &mut [u8]| messages.read_at(0, out);
            io.show(Side::Guest, packet.descriptor.transaction_id, messages.len(), &read);
        }
        let done = match body.channel {
            RndisChannel::DATA if self.settings.link_up && self.settings.ready => {
                self.frames().inspect(|()| io.worked())
            }
            // Nobody is at the other end.
            RndisChannel::DATA => Ok(()),
            RndisChannel::CONTROL if self.index == 0 => {
                let done = self.control();
                if self.settings.ready {
                    io.reached(Step::Ready);
                }
                done
            }
            other => Err(format!("{other} messages on channel {}", self.index)),
        };
        self.sender.slices.clear();
        match done {
            Ok(()) => Ok(Status::SUCCESS),
            Err(reason) => {
                self.warn(&format_args!("the guest's message is refused: {reason}"));
                Ok(Status::INVALID_RNDIS_PACKET)
            }
        }
    }

    /// Finds the bytes of a packet's messages: a section's, and the external pages' behind them.
    fn gather(
        &mut self,
        packet: &Packet<'_>,
        body: &RndisPacket,
    ) -> Result<Result<(), String>, Fault> {
        let RndisPacket { section_index: index, section_len: len, .. } = *body;
        let slices = &mut self.sender.slices;
        slices.clear();
        if index != RndisPacket::NO_SECTION {
            let send = self.settings.send.as_ref();
            let section = send.and_then(|send| Some((send, send.section(index, len)?)));
            let Some((send, start)) = section else {
                return Ok(Err(format!(
                    "there are no {len} B in section {index} of the send buffer"
                )));
            };
            slices.push_buffer(&send.memory, start, len as usize)?;
        }
        append_external_pages(packet, slices)?;
        let total = slices.len();
        if total == 0 || total > MOST_BYTES {
            return Ok(Err(format!("a packet with {total} B of messages")));
        }
        Ok(Ok(()))
    }

    fn frames(&mut self) -> Result<(), String> {
        let (mut given, mut lost) = (0, Lost::default());
        let done = self.sender.send(&mut self.queue, |result| match result {
            Ok(()) => given += 1,
            Err(error) => lost = Lost { frames: lost.frames + 1, error: Some(error) },
        });
        self.given += given;
        self.lost(lost);
        if done.is_err() {
            self.count(|counters| counters.not_sent.add(1));
        }
        self.full = self.queue.is_full();
        // What was sent to a network of one has arrived.
        self.readable |= self.queue.is_loopback();
        done.map_err(|error| error.to_string())
    }

    /// Has the network send what it was given: before the guest hears that its bytes are its own again.
    fn flush(&mut self) {
        let given = std::mem::take(&mut self.given);
        if given != 0 {
            let lost = self.queue.flush();
            self.count(|counters| counters.sent.add(given.saturating_sub(lost.frames)));
            self.lost(lost);
        }
    }

    fn lost(&mut self, Lost { frames, error }: Lost) {
        if let Some(error) = error {
            self.count(|counters| counters.not_sent.add(frames));
            self.warn(&format_args!("a frame is lost: {error}"));
        }
    }

    fn count(&self, count: impl FnOnce(&Counters)) {
        self.shared.counters.get(usize::from(self.index)).map(count);
    }

    fn control(&mut self) -> Result<(), String> {
        let total = self.sender.slices.len();
        if total > MOST_CONTROL {
            return Err(format!("a control message of {total} B"));
        }
        if self.settings.receive.is_none() {
            return Err("a control message before there is a receive buffer".to_owned());
        }
        let mut bytes = vec![0; total];
        self.sender.slices.read_at(0, &mut bytes);
        let request = Control::parse(&bytes).map_err(|error| error.to_string())?;
        log::debug!("network '{}': guest: {request}", self.nature.name);
        let answer = control::answer(&request, &self.nature, &self.settings, &self.shared);
        if let Some(answer) = answer {
            log::debug!("network '{}': host: {answer}", self.nature.name);
            self.answers.push_back(answer);
        } else {
            self.answers.clear();
        }
        self.sync();
        Ok(())
    }

    /// Puts answers into the receive buffer, as far as it has room.
    fn write_answers(&mut self) {
        if self.index != 0 {
            return;
        }
        for news in self.shared.take_news() {
            if self.settings.ready && self.answers.len() < MOST_ANSWERS {
                self.answers.push_back(control::indication(news));
            }
        }
        let Some(receiver) = &self.receiver else { return };
        let buffer = &receiver.buffer;
        while let Some(answer) = self.answers.front() {
            if self.parts.want(buffer, 1) == 0 {
                return;
            }
            let Some(part) = self.parts.take() else { return };
            let bytes = answer.as_bytes();
            buffer.memory.write_at(buffer.start_of(part), bytes);
            let len = bytes.len() as u32;
            self.outbox.push_control(Piece { part, len, ends: true });
            self.answers.pop_front();
        }
    }

    /// Tells the guest which channels to send on, when all of those are open that it has asked for.
    fn announce(&mut self, io: &mut Io<'_>) -> Result<(), Fault> {
        let open = self.settings.ports.iter().flatten().count();
        if self.index != 0 || open == self.announced || open != usize::from(self.settings.granted) {
            return Ok(());
        }
        let table = SendIndirectionTable {
            kind: MessageType::SEND_INDIRECTION_TABLE,
            count: INDIRECTION_ENTRIES as u32,
            offset: std::mem::offset_of!(SendIndirectionTable, entries) as u32,
            entries: std::array::from_fn(|entry| (entry % open) as u32),
        };
        if io.send(&Outgoing::in_band(0, table.as_bytes()))? == Sent::Yes {
            self.announced = open;
        }
        Ok(())
    }

    /// Takes frames from the network; whether there may be more.
    fn receive(&mut self) -> Progress {
        let accepts = self.settings.receives();
        let Some(receiver) = self.receiver.as_mut().filter(|_| accepts) else {
            return self.discard();
        };
        let (mut progress, mut warning) = (Progress::More, None);
        let (mut received, mut too_long) = (0, 0);
        for _ in 0..BATCH {
            if self.outbox.waiting() >= MOST_WAITING {
                progress = Progress::Idle;
                break;
            }
            match receiver.receive(&mut self.queue, &mut self.parts, &self.settings) {
                Ok(Received::Frame(channel)) => {
                    received += 1;
                    let open = self.settings.port(channel).is_some();
                    let channel = if open { channel } else { self.index };
                    if channel == self.index {
                        receiver.pieces.drain(..).for_each(|piece| self.outbox.push_frame(piece));
                    } else {
                        self.mail.add(channel, &mut receiver.pieces);
                    }
                    continue;
                }
                Ok(Received::Dropped) => continue,
                Ok(Received::TooLong) => {
                    too_long += 1;
                    continue;
                }
                Ok(Received::Nothing) => self.readable = false,
                // A completion brings some, or a bell says that another channel has given some.
                Ok(Received::NoParts) => {}
                Err(error) => {
                    self.readable = false;
                    warning = Some(error);
                }
            }
            progress = Progress::Idle;
            break;
        }
        self.count(|counters| {
            counters.received.add(received);
            counters.too_long.add(too_long);
        });
        if too_long != 0 {
            let mtu = self.settings.mtu;
            self.warn(&format_args!("frames are lost that are longer than the guest's MTU, {mtu}"));
        }
        if let Some(error) = warning {
            self.warn(&format_args!("the network gives no frames: {error}"));
        }
        progress
    }

    /// Drops what comes for a guest that takes nothing.
    fn discard(&mut self) -> Progress {
        for _ in 0..BATCH {
            match self.queue.discard() {
                Ok(true) => {}
                Ok(false) => {
                    self.readable = false;
                    return Progress::Idle;
                }
                Err(error) => {
                    self.readable = false;
                    self.warn(&format_args!("the network gives no frames: {error}"));
                    return Progress::Idle;
                }
            }
        }
        Progress::More
    }

    /// Hands frames to the channels that they belong to.
    fn post_mail(&mut self) {
        let Some(Receiver { buffer, .. }) = &self.receiver else { return };
        let (settings, mut lost, mut starving) = (&self.settings, 0, false);
        self.mail.post(|channel, pieces| {
            let port = settings.port(channel);
            if !port.is_some_and(|port| port.post(buffer, pieces)) {
                lost += pieces.iter().filter(|piece| piece.ends).count() as u64;
                starving |= buffer.give_back(pieces.drain(..).map(|piece| piece.part));
            }
        });
        if lost != 0 {
            self.count(|counters| counters.no_room.add(lost));
        }
        if starving {
            self.shared.ring_all();
        }
    }

    /// Takes the frames that other channels have brought.
    fn take_mail(&mut self) {
        self.port.take_mail(&mut self.parcel);
        if self.parcel.pieces.is_empty() {
            return;
        }
        let current = self.receiver.as_ref();
        if current.is_some_and(|receiver| self.parcel.is_of(&receiver.buffer)) {
            self.parcel.pieces.drain(..).for_each(|piece| self.outbox.push_frame(piece));
            self.parcel.empty();
        } else {
            // The buffer is one that the guest may be waiting for.
            self.parcel.empty();
            self.shared.ring_first();
        }
    }

    /// Drops those frames.
    fn drop_mail(&mut self) {
        self.port.take_mail(&mut self.parcel);
        if self.parcel.empty() {
            self.shared.ring_all();
        }
    }
}

impl ChannelHandler for NetworkChannel {
    fn on_packet(&mut self, packet: Packet<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
        self.sync();
        match packet.descriptor.kind {
            PacketType::DATA_IN_BAND | PacketType::DATA_USING_GPA_DIRECT => {
                self.message(&packet, io)
            }
            PacketType::COMPLETION => {
                let parts = &mut self.parts;
                let id = packet.descriptor.transaction_id;
                if !self.outbox.complete(id, |part| parts.put(part)) && self.receiver.is_some() {
                    self.warn(&format_args!("the guest completes {id:#x}, which is not its"));
                }
                Ok(())
            }
            PacketType::CANCEL_REQUEST => Ok(()),
            kind => Err(Fault::protocol(ChannelError::PacketType(kind))),
        }
    }

    fn on_batch(&mut self, io: &mut Io<'_>) -> Result<Progress, Fault> {
        self.flush();
        self.sync();
        self.announce(io)?;
        self.write_answers();
        self.take_mail();
        let progress = if self.readable { self.receive() } else { Progress::Idle };
        self.post_mail();
        if let Some(receiver) = &self.receiver {
            let buffer = &receiver.buffer;
            self.outbox.send(io, buffer)?;
            if self.parts.share(buffer) {
                self.shared.ring_all();
            }
        }
        Ok(progress)
    }

    fn on_ready(&mut self, token: u32, _io: &mut Io<'_>) -> Result<(), Fault> {
        match token {
            QUEUE => {
                self.readable = true;
                self.full = self.queue.is_full();
            }
            BELL => self.port.bell.heard(),
            _ => {}
        }
        if !self.closing {
            self.sync();
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        !self.full && self.answers.len() < MOST_ANSWERS
    }

    fn wakeups(&self) -> Vec<Wakeup<'_>> {
        let bell = Wakeup { token: BELL, fd: self.port.bell.fd(), when: When::Readable };
        let queue = self.queue.fd().map(|fd| Wakeup { token: QUEUE, fd, when: When::Changed });
        queue.into_iter().chain([bell]).collect()
    }

    fn release_gpadl(&mut self, id: GpadlId) -> Closing {
        self.flush();
        if self.settings.receive.as_ref().is_some_and(|buffer| buffer.gpadl == id) {
            self.shared.change(|settings| settings.receive = None);
        }
        if self.settings.send.as_ref().is_some_and(|buffer| buffer.gpadl == id) {
            self.shared.change(|settings| settings.send = None);
        }
        self.sync();
        if self.shared.uses(Some(id)) { Closing::InFlight } else { Closing::Drained }
    }

    fn close(&mut self) -> Closing {
        if !self.closing {
            self.closing = true;
            self.let_go();
            self.shared.change(|settings| {
                if self.index == 0 {
                    (settings.receive, settings.send, settings.ready) = (None, None, false);
                    settings.steering = None;
                }
                // The first channel is still to hear of the others.
                let place = settings.ports.get_mut(usize::from(self.index));
                if let Some(place) = place.filter(|_| self.index != 0) {
                    *place = None;
                }
            });
        }
        (self.changes, self.settings) = self.shared.settings();
        self.drop_mail();
        if self.index != 0 {
            self.shared.ring_first();
            return Closing::Drained;
        }
        if self.shared.uses(None) { Closing::InFlight } else { Closing::Drained }
    }
}

impl Drop for NetworkChannel {
    fn drop(&mut self) {
        // Whoever waits for this channel to let go of a buffer is told when it has.
        self.let_go();
        if self.index != 0 {
            self.settings = Arc::new(Settings::new(self.nature.mac));
            self.shared.ring_first();
        }
    }
}
