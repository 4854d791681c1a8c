// SPDX-License-Identifier: MIT OR Apache-2.0

//! The bus: the control plane, the devices on it, and the platform that runs their channels.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use busway_memory::GuestMemory;
use busway_wire::control::layout::TlConnectRequest;
use busway_wire::control::{GuestMessage, Header, HostMessage, MessageBuf, MessageType};
use busway_wire::{Guid, Version};
use zerocopy::FromBytes;

use crate::action::{Action, ChannelKey, Completion, MessageTarget, OpenRequest};
use crate::channel::{Channel, Command, RingSnapshots, Rings};
use crate::device::{Connector, Device, Opening};
use crate::fault::Fault;
use crate::gpadl::Lists;
use crate::io::Interrupts;
use crate::limit::LogLimit;
use crate::meddler::{Absence, Meddler, MessageFate};
use crate::milestone::{Milestone, Reporter, Step, Witness};
use crate::offer::Offer;
use crate::server::{ControlError, Server, ServerConfig};
use crate::tap::{Passing, Place, Side, Tap, Tapped};

/// What the bus needs of the machine around it. Called on the bus's thread; must not block.
pub trait Platform {
    /// Puts a message into a VP's slot and raises the SINT. [`Delivery::Later`] means that the slot
    /// is not free, or not there: [`Bus::deliver`] is to be called when that may have changed.
    fn post(&mut self, target: MessageTarget, message: &MessageBuf) -> Delivery;

    /// Runs an open channel: gives it [turns](Channel::run) when the guest signals `connection_id`
    /// or a back end is ready, and reports what it completes. It has its first turn at once.
    fn start(&mut self, channel: Channel, connection_id: u32) -> Result<(), Fault>;

    /// Gives an open channel a turn: the guest has signalled it by the interrupt page.
    fn kick(&mut self, key: ChannelKey);

    /// Hands a command to a running channel.
    fn command(&mut self, key: ChannelKey, command: Command);

    /// The host cannot go on.
    fn fail(&mut self, fault: Fault);
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The guest has it.
    Done,
    /// There is no free slot now.
    Later,
}

/// A device on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(u32);

/// A device with the channel that it offers by itself.
struct OnBus {
    device: Box<dyn Device>,
    primary: ChannelKey,
}

/// The host's VMBus: everything of it that is not a channel's own.
pub struct Bus {
    server: Server,
    platform: Box<dyn Platform>,
    memory: GuestMemory,
    interrupts: Arc<dyn Interrupts>,
    devices: BTreeMap<DeviceId, OnBus>,
    next_device: u32,
    connector: Option<Box<dyn Connector>>,
    /// The device behind each channel, and which of its channels it is.
    channels: HashMap<ChannelKey, (DeviceId, u16)>,
    /// Each open channel, and its lists.
    open: HashMap<ChannelKey, (Place, Lists)>,
    /// Messages that the guest has not got yet.
    undelivered: VecDeque<(MessageTarget, MessageBuf)>,
    /// Those that the meddler has put off, by its names for them.
    put_off: Vec<(u64, MessageTarget, MessageBuf)>,
    /// Devices that are away, by the meddler's names for when that has been long enough.
    away: Vec<(u64, ChannelKey)>,
    warnings: LogLimit,
    witness: Option<Arc<dyn Witness>>,
    tap: Option<Arc<dyn Tap>>,
    meddler: Option<Arc<dyn Meddler>>,
    /// The list that the meddler has refused last: what follows of it is not for the server.
    refused: Option<u32>,
}

impl Bus {
    /// A bus without devices.
    pub fn new(
        config: ServerConfig,
        memory: GuestMemory,
        interrupts: Arc<dyn Interrupts>,
        platform: Box<dyn Platform>,
    ) -> Self {
        Self {
            server: Server::new(config, memory.clone()),
            platform,
            memory,
            interrupts,
            devices: BTreeMap::new(),
            next_device: 1,
            connector: None,
            channels: HashMap::new(),
            open: HashMap::new(),
            undelivered: VecDeque::new(),
            put_off: Vec::new(),
            away: Vec::new(),
            warnings: LogLimit::default(),
            witness: None,
            tap: None,
            meddler: None,
            refused: None,
        }
    }

    /// Tells `witness` from now on how far the guest comes.
    pub fn watch(&mut self, witness: Arc<dyn Witness>) {
        self.witness = Some(witness);
    }

    /// Lets `tap` see every message from now on, and every packet of channels that are opened from
    /// now on.
    pub fn tap(&mut self, tap: Arc<dyn Tap>) {
        self.tap = Some(tap);
    }

    /// Lets `meddler` change every message from now on, and what passes on channels, those that are
    /// open included; or nobody any more: then what was put off is sent, and who is away comes back.
    pub fn meddle(&mut self, meddler: Option<Arc<dyn Meddler>>) {
        self.meddler = meddler;
        if self.meddler.is_none() {
            let messages = self.put_off.drain(..).map(|(_, target, message)| (target, message));
            self.undelivered.extend(messages);
            for (_, primary) in std::mem::take(&mut self.away) {
                self.bring_back(primary);
            }
            self.act();
        }
        for (key, (place, _)) in &self.open {
            let meddler = self.meddler.as_ref().map(|meddler| meddler.channel(place));
            match meddler.transpose() {
                Ok(meddler) => self.platform.command(*key, Command::Meddle(meddler.flatten())),
                Err(fault) => self.platform.fail(fault),
            }
        }
    }

    /// Adds a device; a connected guest finds it at once.
    pub fn add(&mut self, device: Box<dyn Device>) -> DeviceId {
        let id = self.put(device);
        self.act();
        id
    }

    fn put(&mut self, device: Box<dyn Device>) -> DeviceId {
        let id = DeviceId(self.next_device);
        self.next_device += 1;
        let offer = device.offer();
        if let Some(reporter) = self.reporter(&offer) {
            reporter.report(Step::Offered);
        }
        let key = self.server.offer(offer, None);
        self.devices.insert(id, OnBus { device, primary: key });
        self.channels.insert(key, (id, 0));
        id
    }

    /// Lets the guest make connections. Without a connector all are refused.
    pub fn set_connector(&mut self, connector: Box<dyn Connector>) {
        self.connector = Some(connector);
    }

    /// Takes the device of this instance from the guest, unless it has opened it.
    pub fn remove_unopened(&mut self, instance: Guid) {
        if let Some(primary) = self.primary(instance).filter(|key| !self.server.is_open(*key)) {
            self.server.revoke(primary);
            self.act();
        }
    }

    /// Takes the device of this instance from the guest, which may use it. It is dropped when its
    /// channels are closed.
    pub fn remove_instance(&mut self, instance: Guid) {
        if let Some(primary) = self.primary(instance) {
            self.server.revoke(primary);
            self.act();
        }
    }

    fn primary(&self, instance: Guid) -> Option<ChannelKey> {
        let mut devices = self.devices.values();
        let on_bus = devices.find(|on_bus| on_bus.device.offer().instance == instance)?;
        Some(on_bus.primary)
    }

    /// Takes the device behind a channel from the guest: [`Channel::wants_end`] has said so.
    pub fn end(&mut self, key: ChannelKey, absence: Absence) {
        let id = self.channels.get(&key).map(|(id, _)| id);
        let Some(&OnBus { primary, .. }) = id.and_then(|id| self.devices.get(id)) else {
            return;
        };
        match absence {
            Absence::Lasting => self.server.revoke(primary),
            Absence::For(time) => self.send_away(primary, time),
        }
        self.act();
    }

    fn send_away(&mut self, primary: ChannelKey, time: Duration) {
        if !self.server.take_away(primary) {
            return;
        }
        match self.meddler.as_ref().and_then(|meddler| meddler.remind(time)) {
            Some(name) => self.away.push((name, primary)),
            None => self.bring_back(primary),
        }
    }

    /// A device has been away long enough.
    fn bring_back(&mut self, primary: ChannelKey) {
        if !self.server.bring_back(primary) {
            let name = self.server.name(primary);
            self.warn(&format_args!(
                "{name} is offered again when the guest has released its relid"
            ));
        }
    }

    /// Takes a device from the guest. It is dropped when its channels are closed.
    pub fn remove(&mut self, id: DeviceId) {
        if let Some(on_bus) = self.devices.get(&id) {
            self.server.revoke(on_bus.primary);
            self.act();
        }
    }

    /// Offers the guest `count` more subchannels of a primary channel that is open.
    pub fn offer_subchannels(&mut self, primary: ChannelKey, count: u16) {
        if let Some(&(id, 0)) = self.channels.get(&primary)
            && let Some(on_bus) = self.devices.get(&id)
        {
            let offer = on_bus.device.offer();
            for (key, index) in self.server.offer_subchannels(primary, &offer, count) {
                self.channels.insert(key, (id, index));
            }
            self.act();
        }
    }

    /// Has the rings of the open channel with this relid sent to `to`, which is dropped if there is
    /// none.
    pub fn show(&mut self, relid: u32, to: SyncSender<RingSnapshots>) {
        let key = self.server.key_of(relid);
        if let Some((key, (place, _))) = key.and_then(|key| Some((key, self.open.get(&key)?))) {
            self.platform.command(key, Command::Show(*place, to));
        }
    }

    /// The version of the guest's connection, if it has one.
    pub fn version(&self) -> Option<Version> {
        self.server.version()
    }

    /// Whether no channel uses the guest's memory.
    pub const fn is_quiet(&self) -> bool {
        self.server.is_quiet()
    }

    /// Messages that wait for a slot. A guest that does not read them must not be let post more.
    pub fn undelivered(&self) -> usize {
        self.undelivered.len()
    }

    /// Takes a channel message from the guest.
    pub fn guest_message(&mut self, bytes: &[u8]) {
        log::debug!("vmbus: guest: {:?}", MessageBuf::from_bytes(bytes));
        if let Some(tap) = &self.tap {
            tap.passes(&Passing::GuestMessage(bytes));
        }
        let times = if self.meddler.is_some() { self.meddled(bytes) } else { 1 };
        for _ in 0..times {
            self.obey(bytes);
        }
        self.act();
    }

    fn obey(&mut self, bytes: &[u8]) {
        if let Err(error) = self.server.guest_message(bytes) {
            if let ControlError::Contact { version, reason, .. } = error {
                self.saw(Milestone::Refused(version, reason));
            }
            self.warn(&error);
        }
    }

    /// How often the server is to get a message of the guest's.
    fn meddled(&mut self, bytes: &[u8]) -> usize {
        let message = GuestMessage::parse(bytes);
        if let Ok(GuestMessage::GpadlBody(body, _)) = &message
            && self.refused == Some(body.gpadl)
        {
            return 0;
        }
        match (self.fate(Side::Guest, bytes), message) {
            (MessageFate::Lost, _) => 0,
            (MessageFate::Twice, _) => 2,
            (MessageFate::Refused, Ok(GuestMessage::OpenChannel(open))) => {
                self.server.refuse_open(&open.body);
                0
            }
            (MessageFate::Refused, Ok(GuestMessage::GpadlHeader(header, _))) => {
                self.refused = Some(header.gpadl);
                self.server.refuse_gpadl(&header);
                0
            }
            (_, Ok(GuestMessage::GpadlHeader(..))) => {
                self.refused = None;
                1
            }
            _ => 1,
        }
    }

    /// What becomes of a message.
    fn fate(&self, side: Side, bytes: &[u8]) -> MessageFate {
        let Some(meddler) = &self.meddler else {
            return MessageFate::Passes;
        };
        let Ok((Header { kind, .. }, body)) = Header::read_from_prefix(bytes) else {
            return MessageFate::Passes;
        };
        let class = if kind == MessageType::OFFER_CHANNEL {
            Guid::read_from_prefix(body).ok().map(|(class, _)| class)
        } else if kind.starts_with_relid() {
            let relid = u32::read_from_prefix(body).ok().map(|(relid, _)| relid);
            relid.and_then(|relid| self.server.class_of(relid))
        } else {
            None
        };
        meddler.message(side, kind, class, bytes)
    }

    /// Takes what a channel has completed.
    pub fn complete(&mut self, completion: Completion) {
        self.server.complete(completion);
        self.act();
    }

    /// A channel has stopped. Its offer is withdrawn, so that the guest sees it gone and its driver
    /// lets go, until the guest connects anew; a fault of the host's goes to the platform.
    pub fn channel_failed(&mut self, key: ChannelKey, fault: Fault) {
        match fault {
            Fault::Host(_) => self.platform.fail(fault),
            fault => {
                let name = self.server.name(key);
                self.warn(&format_args!("{name}: the guest's channel is closed: {fault}"));
                self.report(key, Step::Failed(fault.to_string()));
                self.server.withdraw(key);
                self.act();
            }
        }
    }

    /// Delivers what waits: a slot may have become free.
    pub fn deliver(&mut self) {
        while let Some((target, message)) = self.undelivered.front() {
            if self.platform.post(*target, message) == Delivery::Later {
                return;
            }
            if let Some(tap) = &self.tap {
                tap.passes(&Passing::HostMessage(*target, message.as_bytes()));
            }
            log::debug!("vmbus: host: {message:?}");
            self.undelivered.pop_front();
        }
    }

    /// The guest has signalled the connection that all channels of an old guest share
    /// (`connection::EVENT`).
    pub fn signalled(&mut self) {
        for key in self.server.take_signals() {
            self.platform.kick(key);
        }
    }

    /// The machine is being reset: closes everything and forgets the guest. Complete when
    /// [`is_quiet`](Self::is_quiet).
    pub fn reset(&mut self) {
        self.server.reset();
        self.act();
    }

    fn warn(&mut self, what: &dyn std::fmt::Display) {
        if let Some(seen) = self.warnings.next() {
            log::warn!("vmbus: {what}{seen}");
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.server.next_action() {
            match action {
                Action::Post(target, message) => self.post(target, &message),
                Action::DropMessages => {
                    self.undelivered.clear();
                    self.put_off.clear();
                }
                Action::Open(key, request) => {
                    let opened = self.open(key, *request);
                    self.server.complete(Completion::Opened(key, opened));
                }
                Action::Connect(request) => self.connect(&request),
                Action::Close(key) => {
                    self.open.remove(&key);
                    self.platform.command(key, Command::Close);
                }
                Action::Retarget(key, target) => {
                    self.platform.command(key, Command::Retarget(target));
                }
                Action::AddGpadl(key, id, gpadl) => {
                    if let Some((_, lists)) = self.open.get(&key) {
                        lists.add(id, gpadl);
                    }
                }
                Action::DropGpadl(key, id) => self.platform.command(key, Command::DropGpadl(id)),
                Action::Gone(key) => self.forget(key),
            }
        }
        self.deliver();
    }

    fn post(&mut self, target: MessageTarget, message: &HostMessage) {
        let mut bytes = message.encode();
        if self.meddler.is_some() {
            match self.fate(Side::Host, bytes.as_bytes()) {
                MessageFate::Lost => return,
                MessageFate::Twice => self.undelivered.push_back((target, bytes)),
                MessageFate::Becomes(others) => bytes = MessageBuf::from_bytes(&others),
                MessageFate::PutOff(name) => {
                    self.put_off.push((name, target, bytes));
                    return;
                }
                MessageFate::Passes | MessageFate::Refused => {}
            }
        }
        self.notice(message);
        self.undelivered.push_back((target, bytes));
    }

    /// Sends those of the host's messages that the meddler has put off and whose time has come, and brings
    /// back devices that have been away long enough.
    pub fn overdue(&mut self) {
        while let Some(name) = self.meddler.as_ref().and_then(|meddler| meddler.overdue()) {
            // It is gone if its guest is.
            if let Some(at) = self.put_off.iter().position(|(other, ..)| *other == name) {
                let (_, target, message) = self.put_off.remove(at);
                self.undelivered.push_back((target, message));
            } else if let Some(at) = self.away.iter().position(|(other, _)| *other == name) {
                let (_, primary) = self.away.remove(at);
                self.bring_back(primary);
            }
        }
        self.act();
    }

    fn connect(&mut self, request: &TlConnectRequest) {
        let TlConnectRequest { guest_endpoint, host_service } = *request;
        let connector = self.connector.as_mut();
        match connector.and_then(|it| it.connect(guest_endpoint, host_service)) {
            Some(device) => {
                self.put(device);
            }
            None => {
                let reason = format!("nobody took its connection to service {host_service}");
                let (class, instance) = (host_service, guest_endpoint);
                self.saw(Milestone::Device { class, instance, step: Step::Failed(reason) });
                self.server.refuse_connect(request);
            }
        }
    }

    fn open(&mut self, key: ChannelKey, request: OpenRequest) -> bool {
        let rings = match Rings::map(&self.memory, &request) {
            Ok(rings) => rings,
            Err(error) => {
                let name = self.server.name(key);
                self.warn(&format_args!("{name} cannot be opened: {error}"));
                self.report(key, Step::Failed(error.to_string()));
                return false;
            }
        };
        match self.start(key, request, rings) {
            Ok(()) => true,
            Err(fault) => {
                self.platform.fail(fault);
                false
            }
        }
    }

    fn start(&mut self, key: ChannelKey, request: OpenRequest, rings: Rings) -> Result<(), Fault> {
        let no_device = || Fault::host(format!("{key:?} has no device"));
        let &(id, subchannel) = self.channels.get(&key).ok_or_else(no_device)?;
        let OnBus { device, .. } = self.devices.get_mut(&id).ok_or_else(no_device)?;
        let opening = Opening {
            memory: self.memory.clone(),
            version: request.version,
            subchannel,
            user_data: request.user_data,
        };
        let handler = device.open(&opening)?;
        let offer = device.offer();
        let reporter = self.reporter(&offer);
        if let Some(reporter) = &reporter {
            reporter.report(Step::Opened);
        }
        let connection_id = request.connection_id;
        let (memory, interrupts) = (self.memory.clone(), Arc::clone(&self.interrupts));
        let lists = Lists::new(request.gpadls);
        let (class, instance) = (offer.interface_type, offer.instance);
        let place = Place { key, class, instance, subchannel, connection_id };
        self.open.insert(key, (place, lists.clone()));
        let target = request.interrupt;
        let channel = Channel::new(key, handler, rings, memory, interrupts, target, lists);
        let tapped = self.tap.clone().map(|tap| Tapped::new(tap, place));
        let meddler = self.meddler.as_ref().map(|meddler| meddler.channel(&place)).transpose()?;
        let channel = channel.watched(reporter).tapped(tapped).meddled(meddler.flatten());
        self.platform.start(channel, connection_id)
    }

    /// What the guest is told says how far it has come.
    fn notice(&self, message: &HostMessage) {
        match (message, self.server.version()) {
            (HostMessage::VersionResponse(response), Some(version))
                if response.body.supported != 0 =>
            {
                self.saw(Milestone::Connected(version));
            }
            (HostMessage::AllOffersDelivered, _) => self.saw(Milestone::OffersRequested),
            _ => {}
        }
    }

    fn saw(&self, milestone: Milestone) {
        if let Some(witness) = &self.witness {
            witness.saw(milestone);
        }
    }

    fn report(&self, key: ChannelKey, step: Step) {
        let id = self.channels.get(&key).map(|(id, _)| id);
        if let Some(OnBus { device, .. }) = id.and_then(|id| self.devices.get(id))
            && let Some(reporter) = self.reporter(&device.offer())
        {
            reporter.report(step);
        }
    }

    fn reporter(&self, offer: &Offer) -> Option<Reporter> {
        let &Offer { interface_type: class, instance, .. } = offer;
        let reporter = |witness| Reporter { witness, class, instance };
        self.witness.clone().map(reporter)
    }

    fn forget(&mut self, key: ChannelKey) {
        if let Some((id, 0)) = self.channels.remove(&key) {
            self.devices.remove(&id);
            self.away.retain(|(_, primary)| *primary != key);
        }
    }
}
