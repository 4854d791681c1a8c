// SPDX-License-Identifier: MIT OR Apache-2.0

//! A host's bus and its guest, in one thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use busway_hyperv::synic::{Synic, SynicRegisters};
use busway_memory::{Bytes, GuestAddress, GuestMemory, PAGE_SIZE, Region};
use busway_vmbus::{Bus, Channel, Device, DeviceId, Fault, ServerConfig};
use busway_wire::control::layout::{
    GpadlBody, GpadlHeader, GpadlTeardown, InitiateContactBody, ModifyChannel, OfferChannel,
    OpenChannelBody, Relid,
};
use busway_wire::control::{GuestMessage, HostMessage, InitiateContact, OpenChannel};
use busway_wire::synic::{MESSAGE_SLOT_LEN, SlotHeader, VMBUS_SINT};
use busway_wire::{Guid, Version};
use vm_memory::{GuestMemoryBackend, VolatileMemory};
use vmm_sys_util::eventfd::EventFd;

use crate::guest_channel::GuestChannel;
use crate::pages::Pages;
use crate::platform::{Event, InlinePlatform, State, TestInterrupts};

/// What a pair is made of.
#[derive(Clone, Copy, Debug)]
pub struct PairConfig {
    /// VPs of the guest.
    pub vps: u32,
    /// RAM of the guest in pages.
    pub ram_pages: usize,
    /// The newest VMBus version that the host accepts.
    pub newest_version: Version,
}

impl Default for PairConfig {
    fn default() -> Self {
        Self { vps: 2, ram_pages: 16_384, newest_version: Version::V6_0 }
    }
}

/// How a connection began.
#[derive(Clone, Debug)]
pub struct Connected {
    /// The version.
    pub version: Version,
    /// The offers, in the order in which they came.
    pub offers: Vec<OfferChannel>,
}

/// A host's bus and its guest. See the [crate's description](crate).
pub struct Pair {
    /// The host's bus.
    pub bus: Bus,
    /// The guest's memory.
    pub memory: GuestMemory,
    /// Pages of it that nothing uses yet.
    pub pages: Pages,
    synic: Arc<Synic>,
    state: Rc<RefCell<State>>,
    interrupts: Arc<TestInterrupts>,
    /// Faults of channels, in order: why the host closed them.
    pub faults: Vec<Fault>,
    /// Messages of the host that no step has waited for.
    pub unread: Vec<HostMessage>,
    next_gpadl: u32,
}

const FIRST_SYNIC_PAGE: u64 = 1;

/// How long a back end may take for a step; far more than any needs.
const PATIENCE: Duration = Duration::from_secs(30);

impl Pair {
    /// A host without devices and a guest whose SynIC is on.
    pub fn new(config: PairConfig) -> Self {
        let region = Region { start: GuestAddress(0), len: config.ram_pages * PAGE_SIZE };
        let memory = GuestMemory::allocate(&[region]).unwrap();
        let synic = Arc::new(Synic::new(memory.clone(), config.vps));
        let raised = AtomicU64::new(0);
        let bell = OnceLock::new();
        let interrupts = Arc::new(TestInterrupts { synic: synic.clone(), bell, raised });
        let state = Rc::new(RefCell::new(State::default()));
        let platform = InlinePlatform { synic: synic.clone(), state: state.clone() };
        let server = ServerConfig { vp_count: config.vps, newest_version: config.newest_version };
        let bus = Bus::new(server, memory.clone(), interrupts.clone(), Box::new(platform));
        let first_free = FIRST_SYNIC_PAGE + 2 * u64::from(config.vps);
        let pages = Pages::new(first_free, config.ram_pages as u64);
        let (faults, unread, next_gpadl) = (Vec::new(), Vec::new(), 0xe1e10);
        let mut pair =
            Self { bus, memory, pages, synic, state, interrupts, faults, unread, next_gpadl };
        for vp in 0..config.vps {
            pair.enable_synic(vp);
        }
        pair
    }

    /// Puts a device on the bus.
    pub fn add(&mut self, device: impl Device + 'static) -> DeviceId {
        self.bus.add(Box::new(device))
    }

    /// Writes a VP's SynIC MSRs as a driver's start does: pages on, SynIC on.
    pub fn enable_synic(&mut self, vp: u32) {
        let page = |index: u64| (FIRST_SYNIC_PAGE + 2 * u64::from(vp) + index) << 12;
        let registers =
            SynicRegisters { control: 1, message_page: page(0) | 1, event_page: page(1) | 1 };
        self.synic.configure(vp, registers);
        self.bus.deliver();
    }

    /// Turns a VP's SynIC off, as taking a CPU offline does.
    pub fn disable_synic(&mut self, vp: u32) {
        self.synic.configure(vp, SynicRegisters::default());
    }

    /// Interrupts that the host has raised so far.
    pub fn interrupts(&self) -> u64 {
        self.interrupts.raised.load(Ordering::Relaxed)
    }

    /// Rings `bell` with each interrupt from now on, for a guest end that sleeps in a thread.
    ///
    /// # Panics
    ///
    /// If there is a bell already.
    pub fn set_bell(&mut self, bell: EventFd) {
        self.interrupts.bell.set(bell).unwrap();
    }

    /// Takes the host's end of an open channel out, for a worker of the caller's to run.
    ///
    /// # Panics
    ///
    /// If there is no such channel.
    pub fn take_channel(&mut self, channel: &GuestChannel) -> Channel {
        self.state.borrow_mut().take(channel.connection_id()).unwrap()
    }

    /// Channels that the host has open.
    pub fn open_channels(&self) -> usize {
        self.state.borrow().channels.len()
    }

    /// The host's own fault, if it had one.
    pub fn host_fault(&self) -> Option<String> {
        self.state.borrow().host_fault.as_ref().map(ToString::to_string)
    }

    /// Posts a channel message, as HvPostMessage does.
    pub fn post(&mut self, message: &GuestMessage<'_>) {
        self.post_bytes(message.encode().as_bytes());
    }

    /// Posts bytes that need not be a channel message.
    pub fn post_bytes(&mut self, bytes: &[u8]) {
        self.bus.guest_message(bytes);
        self.work();
    }

    /// Signals a connection, as HvSignalEvent does.
    pub fn signal(&mut self, connection_id: u32) {
        self.state.borrow_mut().signal(connection_id);
    }

    /// Lets the host work until there is nothing more that it can do at once.
    pub fn work(&mut self) {
        loop {
            let worked = self.state.borrow_mut().run_channels();
            let events: Vec<_> = self.state.borrow_mut().events.drain(..).collect();
            if !worked && events.is_empty() {
                return;
            }
            for event in events {
                match event {
                    Event::Completed(completion) => self.bus.complete(completion),
                    Event::Failed(key, fault) => {
                        self.faults.push(Fault::protocol(fault.to_string()));
                        self.bus.channel_failed(key, fault);
                    }
                    Event::Subchannels(key, count) => self.bus.offer_subchannels(key, count),
                    Event::Ended(key, absence) => self.bus.end(key, absence),
                }
            }
        }
    }

    /// Lets the host work until `done` gives something, as long as a back end may still bring it.
    ///
    /// # Panics
    ///
    /// If nothing more can come and `done` has nothing; `what` says what was waited for.
    pub fn wait<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            self.work();
            if let Some(result) = done(self) {
                return result;
            }
            let may_come = self.state.borrow().waits_for_backend();
            assert!(may_come && started.elapsed() < PATIENCE, "waited in vain for {what}");
            std::thread::yield_now();
        }
    }

    /// Takes the next message out of any VP's slot, and writes EOM if the host asked for it.
    pub fn take_message(&mut self) -> Option<HostMessage> {
        let vps = self.synic.vp_count() as u64;
        (0..vps).find_map(|vp| self.take_message_of(vp))
    }

    fn take_message_of(&mut self, vp: u64) -> Option<HostMessage> {
        let page = (FIRST_SYNIC_PAGE + 2 * vp) << 12;
        let address = page + u64::from(VMBUS_SINT) * MESSAGE_SLOT_LEN as u64;
        let slot = self.memory.get_slice(GuestAddress(address), MESSAGE_SLOT_LEN).unwrap();
        let kind = slot.get_atomic_ref::<AtomicU32>(0).unwrap();
        if kind.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut bytes = [0; MESSAGE_SLOT_LEN];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        let payload = &bytes[size_of::<SlotHeader>()..][..usize::from(bytes[4])];
        let message = HostMessage::parse(payload).unwrap();
        kind.store(0, Ordering::SeqCst);
        let flags: u8 = self.memory.read_obj(GuestAddress(address + 5)).unwrap();
        if flags & 1 != 0 {
            self.bus.deliver();
        }
        Some(message)
    }

    /// Waits for the message that `wanted` takes; others are kept in [`unread`](Self::unread).
    pub fn expect<T>(&mut self, what: &str, wanted: impl Fn(&HostMessage) -> Option<T>) -> T {
        self.wait(what, |pair| {
            loop {
                let message = pair.take_message()?;
                match wanted(&message) {
                    Some(result) => return Some(result),
                    None => pair.unread.push(message),
                }
            }
        })
    }

    /// Contacts the host in one version; whether it was accepted.
    pub fn contact(&mut self, version: Version, vp: u32) -> bool {
        let interrupt_page = self.pages.take() << 12;
        let target = if version >= Version::V5_0 { VMBUS_SINT.into() } else { interrupt_page };
        let body = InitiateContactBody {
            version,
            target_vp: vp,
            interrupt_page_or_target: target,
            monitor_page_to_guest: 0,
            monitor_page_to_host: 0,
        };
        self.post(&GuestMessage::InitiateContact(InitiateContact { body, client_id: None }));
        self.expect("VERSION_RESPONSE", |message| match message {
            HostMessage::VersionResponse(response) => Some(response.body.supported != 0),
            _ => None,
        })
    }

    /// Connects and asks for all offers, as a driver's start does.
    ///
    /// # Panics
    ///
    /// If the host refuses `version`.
    pub fn connect(&mut self, version: Version) -> Connected {
        assert!(self.contact(version, 0), "the host refuses {version}");
        self.post(&GuestMessage::RequestOffers);
        let mut offers = Vec::new();
        loop {
            let next = self.expect("an offer", |message| Some(message.clone()));
            match next {
                HostMessage::Offer(offer) => offers.push(*offer),
                HostMessage::AllOffersDelivered => return Connected { version, offers },
                other => panic!("{other} among the offers"),
            }
        }
    }

    /// Ends the connection.
    pub fn unload(&mut self) {
        self.post(&GuestMessage::Unload);
        self.expect("UNLOAD_RESPONSE", |message| {
            matches!(message, HostMessage::UnloadResponse).then_some(())
        });
    }

    /// Shares pages with a channel; the list's id, or the host's status if it refused.
    pub fn make_gpadl(&mut self, relid: u32, pfns: &[u64]) -> Result<u32, u32> {
        let gpadl = self.next_gpadl;
        self.next_gpadl += 1;
        let words = |pfns: &[u64]| pfns.iter().flat_map(|pfn| pfn.to_le_bytes()).collect();
        let (first, rest) = pfns.split_at(pfns.len().min(26));
        let byte_count = (pfns.len() * PAGE_SIZE) as u64;
        let mut ranges = byte_count.to_le_bytes().to_vec();
        ranges.extend::<Vec<u8>>(words(first));
        let range_buffer_len = (8 + pfns.len() * 8) as u16;
        let header = GpadlHeader { relid, gpadl, range_buffer_len, range_count: 1 };
        self.post(&GuestMessage::GpadlHeader(header, &ranges));
        for part in rest.chunks(28) {
            let bytes: Vec<u8> = words(part);
            self.post(&GuestMessage::GpadlBody(GpadlBody { message_number: 0, gpadl }, &bytes));
        }
        let status = self.expect("GPADL_CREATED", |message| match message {
            HostMessage::GpadlCreated(created) if created.gpadl == gpadl => Some(created.status),
            _ => None,
        });
        if status == 0 { Ok(gpadl) } else { Err(status) }
    }

    /// Takes a list of pages back, and waits until the host has let go of it.
    pub fn teardown(&mut self, relid: u32, gpadl: u32) {
        self.post(&GuestMessage::GpadlTeardown(GpadlTeardown { relid, gpadl }));
        self.teardown_answered(gpadl);
    }

    /// Waits until the host has let go of a list of pages.
    pub fn teardown_answered(&mut self, gpadl: u32) {
        self.expect("GPADL_TORNDOWN", |message| match message {
            HostMessage::GpadlTorndown(torndown) if torndown.gpadl == gpadl => Some(()),
            _ => None,
        });
    }

    /// Opens an offered channel on new rings of `ring_pages` pages each way, control pages counted;
    /// its interrupts go to `vp`.
    pub fn open(
        &mut self,
        offer: &OfferChannel,
        ring_pages: usize,
        vp: u32,
    ) -> Result<GuestChannel, u32> {
        let pfns = self.pages.take_many(2 * ring_pages);
        for &pfn in &pfns {
            self.memory.write_slice(&[0; PAGE_SIZE], GuestAddress(pfn << 12)).unwrap();
        }
        let gpadl = self.make_gpadl(offer.relid, &pfns)?;
        self.reopen(offer, gpadl, &pfns, ring_pages, vp)
    }

    /// Opens an offered channel on rings that have been shared before.
    pub fn reopen(
        &mut self,
        offer: &OfferChannel,
        gpadl: u32,
        pfns: &[u64],
        downstream: usize,
        vp: u32,
    ) -> Result<GuestChannel, u32> {
        let relid = offer.relid;
        let channel = GuestChannel::new(&self.memory, offer, gpadl, pfns, downstream, vp);
        let body = OpenChannelBody {
            relid,
            open_id: relid,
            ring_gpadl: gpadl,
            target_vp: vp,
            downstream_page_offset: downstream as u32,
            user_data: [0; 120],
        };
        self.post(&GuestMessage::OpenChannel(OpenChannel { body, signal: None }));
        let status = self.expect("OPEN_RESULT", |message| match message {
            HostMessage::OpenResult(result) if result.relid == relid => Some(result.status),
            _ => None,
        });
        if status == 0 { Ok(channel) } else { Err(status) }
    }

    /// Closes a channel and takes its rings back.
    pub fn close(&mut self, channel: GuestChannel) {
        let (relid, gpadl) = (channel.relid(), channel.gpadl());
        self.close_only(channel);
        self.teardown(relid, gpadl);
    }

    /// Closes a channel and leaves its rings shared.
    pub fn close_only(&mut self, channel: GuestChannel) {
        let relid = channel.relid();
        drop(channel);
        self.post(&GuestMessage::CloseChannel(Relid { relid }));
    }

    /// Waits for an offer.
    pub fn expect_offer(&mut self) -> OfferChannel {
        self.expect("an offer", |message| match message {
            HostMessage::Offer(offer) => Some(**offer),
            _ => None,
        })
    }

    /// Waits for a rescind; the relid in it.
    pub fn expect_rescind(&mut self) -> u32 {
        self.expect("RESCIND", |message| match message {
            HostMessage::Rescind(rescind) => Some(rescind.relid),
            _ => None,
        })
    }

    /// Says that a relid may be used again.
    pub fn release(&mut self, relid: u32) {
        self.post(&GuestMessage::RelidReleased(Relid { relid }));
    }

    /// Sends a channel's interrupts to another VP; the host's status where the version has an
    /// answer.
    pub fn modify(&mut self, relid: u32, vp: u32) -> Option<u32> {
        self.post(&GuestMessage::ModifyChannel(ModifyChannel { relid, target_vp: vp }));
        if self.bus.version() < Some(Version::V5_3) {
            return None;
        }
        Some(self.expect("MODIFY_CHANNEL_RESPONSE", |message| match message {
            HostMessage::ModifyChannelResponse(response) => Some(response.status),
            _ => None,
        }))
    }

    /// Whether the event flag of a channel stands on a VP; clears it.
    pub fn take_event(&mut self, vp: u32, relid: u32) -> bool {
        let page = (FIRST_SYNIC_PAGE + 2 * u64::from(vp) + 1) << 12;
        let address = page + u64::from(VMBUS_SINT) * 256 + u64::from(relid / 8);
        let slice = self.memory.get_slice(GuestAddress(address), 1).unwrap();
        let flags = slice.get_atomic_ref::<AtomicU8>(0).unwrap();
        let bit = 1 << (relid % 8);
        flags.fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }
}

impl Connected {
    /// The first offer of a class.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn offer(&self, class: Guid) -> &OfferChannel {
        self.offers.iter().find(|offer| offer.interface_type == class).unwrap()
    }
}
