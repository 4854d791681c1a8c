// SPDX-License-Identifier: MIT OR Apache-2.0

//! The control plane against a guest that is played message by message.

mod absence;

use busway_memory::{Bytes, GuestAddress, Region};
use busway_wire::control::layout::{
    GpadlCreated, GpadlTorndown, ModifyChannelResponse, OpenResult, Relid,
};
use busway_wire::control::{HostMessage, MessageBuf};
use busway_wire::{Guid, class};

use super::*;
use crate::action::InterruptTarget;
use crate::gpadl::GpadlId;
use crate::offer::Offer;

/// A server and what it has asked for.
struct Host {
    server: Server,
    messages: Vec<HostMessage>,
    /// Every action that is no message.
    actions: Vec<Action>,
}

const RAM_PAGES: usize = 4096;

impl Host {
    fn new() -> Self {
        let region = Region { start: GuestAddress(0), len: RAM_PAGES * 4096 };
        let memory = GuestMemory::allocate(&[region]).unwrap();
        let config = ServerConfig { vp_count: 4, newest_version: Version::V6_0 };
        Self { server: Server::new(config, memory), messages: vec![], actions: vec![] }
    }

    /// A host with one disk controller, whose relid will be 1, that a guest has connected to.
    fn connected(version: Version) -> (Self, ChannelKey) {
        let mut host = Self::new();
        let key = host.server.offer(disk(), None);
        host.contact(version, 0).unwrap();
        host.send(&[3, 0]).unwrap();
        host.drain();
        (host, key)
    }

    /// The same with the channel open, on a ring of 4 and 4 pages in GPADL 0x10.
    fn open(version: Version) -> (Self, ChannelKey) {
        let (mut host, key) = Self::connected(version);
        host.gpadl(1, 0x10, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        host.send(&open(1, 0x10, 4, 2)).unwrap();
        host.server.complete(Completion::Opened(key, true));
        host.drain();
        (host, key)
    }

    /// The same with a subchannel, whose relid is 2, open too.
    fn with_subchannel() -> (Self, ChannelKey, ChannelKey) {
        let (mut host, key) = Self::open(Version::V5_3);
        let child = host.server.offer(disk(), Some((key, 1)));
        host.gpadl(2, 0x20, &[11, 12, 13, 14, 15, 16, 17, 18]).unwrap();
        host.send(&open(2, 0x20, 4, 2)).unwrap();
        host.server.complete(Completion::Opened(child, true));
        host.drain();
        (host, key, child)
    }

    /// Sends 32-bit words as a channel message.
    fn send(&mut self, words: &[u32]) -> Result<(), ControlError> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let result = self.server.guest_message(&bytes);
        self.collect();
        result
    }

    fn contact(&mut self, version: Version, vp: u32) -> Result<(), ControlError> {
        let sint = if version >= Version::V5_0 { 2 } else { 0x3000 };
        self.send(&[14, 0, version.0, vp, sint, 0, 0, 0, 0, 0])
    }

    fn gpadl(&mut self, relid: u32, id: u32, pfns: &[u64]) -> Result<(), ControlError> {
        let (first, rest) = pfns.split_at(pfns.len().min(26));
        let len = (pfns.len() * 4096) as u32;
        let mut header = vec![8, 0, relid, id, 1 << 16 | (8 + pfns.len() as u32 * 8), len, 0];
        header.extend(first.iter().flat_map(|pfn| [*pfn as u32, 0]));
        let mut result = self.send(&header);
        for part in rest.chunks(28) {
            let mut body = vec![9, 0, 0, id];
            body.extend(part.iter().flat_map(|pfn| [*pfn as u32, 0]));
            result = self.send(&body);
        }
        result
    }

    fn complete(&mut self, completion: Completion) {
        self.server.complete(completion);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(action) = self.server.next_action() {
            match action {
                Action::Post(_, message) => self.messages.push(message),
                Action::DropMessages => self.messages.clear(),
                other => self.actions.push(other),
            }
        }
    }

    fn drain(&mut self) -> (Vec<HostMessage>, Vec<Action>) {
        self.collect();
        (std::mem::take(&mut self.messages), std::mem::take(&mut self.actions))
    }

    fn messages(&mut self) -> Vec<HostMessage> {
        self.drain().0
    }
}

fn disk() -> Offer {
    Offer::new(class::SCSI, Guid::from_text_order(1))
}

/// OPEN_CHANNEL with its 120 bytes of user data.
fn open(relid: u32, gpadl: u32, downstream: u32, vp: u32) -> Vec<u32> {
    let mut words = vec![5, 0, relid, 0xabcd, gpadl, vp, downstream];
    words.resize(37, 0);
    words
}

fn open_result(status: u32) -> HostMessage {
    HostMessage::OpenResult(OpenResult { relid: 1, open_id: 0xabcd, status })
}

fn created(gpadl: u32, status: u32) -> HostMessage {
    HostMessage::GpadlCreated(GpadlCreated { relid: 1, gpadl, status })
}

fn torndown(gpadl: u32) -> HostMessage {
    HostMessage::GpadlTorndown(GpadlTorndown { gpadl })
}

fn rescind(relid: u32) -> HostMessage {
    HostMessage::Rescind(Relid { relid })
}

fn relids(messages: &[HostMessage]) -> Vec<u32> {
    let offers = messages.iter().filter_map(|message| match message {
        HostMessage::Offer(offer) => Some(offer.relid),
        _ => None,
    });
    offers.collect()
}

fn bytes_of(message: &HostMessage) -> MessageBuf {
    message.encode()
}

#[test]
fn every_known_version_is_accepted_in_its_own_form() {
    for version in Version::ALL {
        let mut host = Host::new();
        host.contact(version, 1).unwrap();
        let messages = host.messages();
        let bytes = bytes_of(&messages[0]);
        let bytes = bytes.as_bytes();
        assert_eq!(bytes.len(), if version == Version::V6_0 { 20 } else { 16 }, "{version}");
        assert_eq!(bytes[8..12], [1, 0, 0, 0], "{version}");
        let word = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
        assert_eq!(word, if version >= Version::V5_0 { 4 } else { version.0 }, "{version}");
        assert_eq!(host.server.version(), Some(version));
    }
}

#[test]
fn unknown_and_capped_versions_are_refused_with_sixteen_bytes_of_nothing() {
    let mut host = Host::new();
    host.server.config.newest_version = Version::V5_2;
    for version in [Version::new(7, 0), Version::V5_3, Version::new(5, 4), Version(0)] {
        assert!(matches!(host.contact(version, 0), Err(ControlError::Contact { .. })));
        let messages = host.messages();
        assert_eq!(bytes_of(&messages[0]).as_bytes()[8..], [0; 8], "{version}");
        assert_eq!(host.server.version(), None);
    }
    host.contact(Version::V5_2, 0).unwrap();
    assert_eq!(host.server.version(), Some(Version::V5_2));
}

#[test]
fn messages_go_to_the_vp_that_the_contact_names_from_3_0_on() {
    for (version, vp) in [(Version::V2_4, 0), (Version::V3_0, 3), (Version::V5_3, 3)] {
        let mut host = Host::new();
        host.server.guest_message(&contact_bytes(version, 3)).unwrap();
        let Some(Action::Post(target, _)) = host.server.next_action() else { panic!() };
        assert_eq!(target, MessageTarget { vp, sint: 2 }, "{version}");
    }
    let mut host = Host::new();
    assert!(host.contact(Version::V5_3, 4).is_err(), "there are four VPs");
}

fn contact_bytes(version: Version, vp: u32) -> Vec<u8> {
    let sint = if version >= Version::V5_0 { 2 } else { 0x3000 };
    let words = [14, 0, version.0, vp, sint, 0, 0, 0, 0, 0];
    words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect()
}

#[test]
fn pages_of_a_contact_must_be_ram() {
    let contact = |version: Version, page: u32, monitors: [u32; 2]| {
        let mut host = Host::new();
        host.send(&[14, 0, version.0, 0, page, 0, monitors[0], 0, monitors[1], 0])
    };
    let beyond = RAM_PAGES as u32 * 4096;
    assert!(contact(Version::V4_0, 0x3000, [0x4000, 0x5000]).is_ok());
    assert!(contact(Version::V4_0, 0x3000, [0x4000, 0]).is_err());
    assert!(contact(Version::V4_0, 0x3000, [0x4000, beyond]).is_err());
    assert!(contact(Version::V4_0, 0x3000, [0x4001, 0x5000]).is_err());
    assert!(contact(Version::V0_13, 0, [0; 2]).is_ok());
    assert!(contact(Version::V0_13, beyond, [0; 2]).is_err());
    assert!(contact(Version::V5_3, 3, [0; 2]).is_err(), "messages on another SINT");
    assert!(contact(Version::V5_3, 0x0102, [0; 2]).is_err(), "another VTL");
}

#[test]
fn offers_are_sorted_and_all_delivered_follows_them() {
    let mut host = Host::new();
    let instances = [3, 1, 2];
    for instance in instances {
        host.server.offer(Offer::new(class::SCSI, Guid::from_text_order(instance)), None);
    }
    host.contact(Version::V5_3, 0).unwrap();
    host.messages();
    host.send(&[3, 0]).unwrap();
    let messages = host.messages();
    assert_eq!(messages.last(), Some(&HostMessage::AllOffersDelivered));
    let offers = messages.iter().filter_map(|message| match message {
        HostMessage::Offer(offer) => Some((offer.relid, offer.instance, offer.connection_id)),
        _ => None,
    });
    let expected = (1..=3).map(|n| (n, Guid::from_text_order(n.into()), 0x2000 | n));
    assert!(offers.eq(expected));
    assert_eq!(host.send(&[3, 0]), Err(ControlError::OffersAgain));
}

#[test]
fn an_offer_says_what_all_guests_need() {
    let mut host = Host::new();
    host.server.offer(disk(), None);
    host.contact(Version::V5_3, 0).unwrap();
    host.messages();
    host.send(&[3, 0]).unwrap();
    let messages = host.messages();
    let bytes = bytes_of(&messages[0]);
    let bytes = bytes.as_bytes();
    assert_eq!(bytes[56..58], [0, 0], "no flag that 7.3 would refuse");
    assert_eq!(bytes[188..196], [0xff, 0, 1, 0, 1, 0x20, 0, 0], "no monitor, dedicated, 0x2001");
}

#[test]
fn without_a_connection_nothing_is_done() {
    let mut host = Host::new();
    let requests: [&[u32]; 3] = [&[3, 0], &[7, 0, 1], &[11, 0, 1, 1]];
    for request in requests {
        assert!(matches!(host.send(request), Err(ControlError::NotConnected(_))));
    }
    assert!(host.messages().is_empty());
}

#[test]
fn a_gpadl_of_many_messages_is_answered_once() {
    let (mut host, _) = Host::connected(Version::V5_3);
    let pfns: Vec<u64> = (1..=100).collect();
    host.gpadl(1, 0xe1e10, &pfns).unwrap();
    assert_eq!(host.messages(), [created(0xe1e10, 0)]);
}

#[test]
fn bad_gpadls_are_answered_with_a_failure() {
    let (mut host, _) = Host::connected(Version::V5_3);
    let failure = status::INVALID_PARAMETER;
    assert!(host.gpadl(1, 1, &[RAM_PAGES as u64]).is_err());
    assert_eq!(host.messages(), [created(1, failure)], "beyond RAM");
    host.gpadl(1, 2, &[5]).unwrap();
    host.messages();
    assert_eq!(host.gpadl(1, 2, &[6]), Err(ControlError::GpadlExists { gpadl: 2 }));
    assert_eq!(host.messages(), [created(2, failure)]);
    assert!(matches!(host.gpadl(9, 3, &[5]), Err(ControlError::NoChannel { relid: 9, .. })));
    assert_eq!(host.messages().len(), 1);
    assert!(matches!(host.send(&[9, 0, 0, 77]), Err(ControlError::NoGpadl { gpadl: 77, .. })));
    assert_eq!(host.messages(), []);
    // No ranges at all.
    assert!(host.send(&[8, 0, 1, 4, 0, 0, 0]).is_err());
    assert_eq!(host.messages(), [created(4, failure)]);
}

#[test]
fn a_guest_cannot_make_the_host_remember_pages_without_end() {
    let (mut host, _) = Host::connected(Version::V5_3);
    // One range of 2^19 pages, three times, with bodies that repeat one page.
    let body: Vec<u32> = [9, 0, 0].into_iter().chain([0; 57]).collect();
    let mut refused = false;
    'lists: for id in 1..=3 {
        host.send(&[8, 0, 1, id, 1 << 16, 1 << 31, 0]).unwrap();
        let mut body = body.clone();
        body[3] = id;
        for _ in 0..(1 << 19) / 28 {
            if let Err(error) = host.send(&body) {
                assert!(error.to_string().contains("more than 1048576"), "{error}");
                refused = true;
                break 'lists;
            }
        }
    }
    assert!(refused);
}

#[test]
fn teardown_of_what_nothing_uses_is_immediate() {
    let (mut host, _) = Host::connected(Version::V5_3);
    host.gpadl(1, 5, &[1]).unwrap();
    host.messages();
    host.send(&[11, 0, 1, 5]).unwrap();
    assert_eq!(host.messages(), [torndown(5)]);
    assert!(host.send(&[11, 0, 1, 5]).is_err());
    assert_eq!(host.messages(), [torndown(5)], "the guest waits without a time-out");
}

#[test]
fn open_hands_rings_interrupt_and_lists_to_the_device() {
    let (mut host, key) = Host::connected(Version::V5_3);
    host.gpadl(1, 0x10, &[1, 2, 3, 4, 5, 6, 7]).unwrap();
    host.gpadl(1, 0x11, &[9]).unwrap();
    host.drain();
    host.send(&open(1, 0x10, 4, 3)).unwrap();
    let (messages, actions) = host.drain();
    assert_eq!(messages, [], "the device has not answered");
    let [Action::Open(opened, request)] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(*opened, key);
    assert_eq!(request.ring.rings(request.downstream_page).unwrap().1, [5, 6, 7]);
    assert_eq!(request.interrupt, InterruptTarget::EventFlag { vp: 3, sint: 2, flag: 1 });
    assert_eq!(request.connection_id, 0x2001);
    assert_eq!(request.gpadls.len(), 2);
    host.complete(Completion::Opened(key, true));
    assert_eq!(host.messages(), [open_result(0)]);
}

#[test]
fn an_open_that_cannot_be_is_answered_with_a_failure() {
    let (mut host, key) = Host::connected(Version::V5_3);
    host.gpadl(1, 0x10, &[1, 2, 3, 4]).unwrap();
    host.drain();
    let bad = [
        open(1, 0x99, 2, 0),
        open(1, 0x10, 1, 0),
        open(1, 0x10, 4, 0),
        open(1, 0x10, 2, 4),
        open(7, 0x10, 2, 0),
    ];
    for words in bad {
        assert!(host.send(&words).is_err());
        let (messages, actions) = host.drain();
        let [HostMessage::OpenResult(result)] = messages.as_slice() else { panic!() };
        assert_ne!(result.status, 0);
        assert!(actions.is_empty());
    }
    host.send(&open(1, 0x10, 2, u32::MAX)).unwrap();
    host.complete(Completion::Opened(key, false));
    assert_eq!(host.messages(), [open_result(status::UNSUCCESSFUL)]);
    host.send(&open(1, 0x10, 2, 0)).unwrap();
}

#[test]
fn torndown_waits_until_the_device_has_let_go() {
    let (mut host, key) = Host::open(Version::V5_3);
    host.send(&[7, 0, 1]).unwrap();
    host.send(&[11, 0, 1, 0x10]).unwrap();
    let (messages, actions) = host.drain();
    assert_eq!(messages, []);
    assert!(matches!(actions.as_slice(), [Action::Close(_)]));
    host.complete(Completion::Closed(key));
    assert_eq!(host.messages(), [torndown(0x10)]);
}

#[test]
fn teardown_of_a_ring_in_use_closes_its_channel() {
    let (mut host, key) = Host::open(Version::V5_3);
    host.send(&[11, 0, 1, 0x10]).unwrap();
    let (messages, actions) = host.drain();
    assert_eq!(messages, []);
    assert!(matches!(actions.as_slice(), [Action::Close(_)]));
    host.complete(Completion::Closed(key));
    assert_eq!(host.messages(), [torndown(0x10)]);
}

#[test]
fn an_open_device_gets_and_gives_back_lists() {
    let (mut host, key) = Host::open(Version::V5_3);
    host.gpadl(1, 0x20, &[9]).unwrap();
    let (messages, actions) = host.drain();
    assert_eq!(messages, [created(0x20, 0)]);
    assert!(matches!(actions.as_slice(), [Action::AddGpadl(_, GpadlId(0x20), _)]));
    host.send(&[11, 0, 1, 0x20]).unwrap();
    let (messages, actions) = host.drain();
    assert_eq!(messages, []);
    assert!(matches!(actions.as_slice(), [Action::DropGpadl(_, GpadlId(0x20))]));
    host.complete(Completion::GpadlDropped(key, GpadlId(0x20)));
    assert_eq!(host.messages(), [torndown(0x20)]);
}

#[test]
fn an_open_during_a_close_follows_it() {
    let (mut host, key) = Host::open(Version::V5_3);
    host.send(&[7, 0, 1]).unwrap();
    host.send(&open(1, 0x10, 4, 0)).unwrap();
    let (messages, actions) = host.drain();
    assert!(messages.is_empty() && matches!(actions.as_slice(), [Action::Close(_)]));
    host.complete(Completion::Closed(key));
    let (_, actions) = host.drain();
    assert!(matches!(actions.as_slice(), [Action::Open(..)]));
    host.complete(Completion::Opened(key, true));
    assert_eq!(host.messages(), [open_result(0)]);
}

#[test]
fn a_close_during_an_open_follows_it() {
    let (mut host, key) = Host::connected(Version::V5_3);
    host.gpadl(1, 0x10, &[1, 2, 3, 4]).unwrap();
    host.send(&open(1, 0x10, 2, 0)).unwrap();
    host.send(&[7, 0, 1]).unwrap();
    host.drain();
    host.complete(Completion::Opened(key, true));
    let (messages, actions) = host.drain();
    assert!(messages.is_empty() && matches!(actions.as_slice(), [Action::Close(_)]));
}

#[test]
fn modify_is_answered_from_5_3_on_and_after_the_move() {
    for (version, answered) in [(Version::V4_1, false), (Version::V5_3, true)] {
        let (mut host, key) = Host::open(version);
        host.send(&[22, 0, 1, 3]).unwrap();
        let (messages, actions) = host.drain();
        assert_eq!(messages, []);
        let target = InterruptTarget::EventFlag { vp: 3, sint: 2, flag: 1 };
        assert!(matches!(actions.as_slice(), [Action::Retarget(_, to)] if *to == target));
        host.complete(Completion::Retargeted(key));
        let response = ModifyChannelResponse { relid: 1, status: 0 };
        let expected = [HostMessage::ModifyChannelResponse(response)];
        assert_eq!(host.messages(), if answered { &expected[..] } else { &[] }, "{version}");
    }
}

#[test]
fn a_modify_that_cannot_be_is_answered_too() {
    let (mut host, _) = Host::open(Version::V5_3);
    for vp in [4, u32::MAX] {
        assert!(host.send(&[22, 0, 1, vp]).is_err());
        let [HostMessage::ModifyChannelResponse(response)] = host.messages()[..] else { panic!() };
        assert_ne!(response.status, 0);
    }
    let (mut host, _) = Host::connected(Version::V5_3);
    assert!(host.send(&[22, 0, 1, 1]).is_err(), "closed");
    assert_eq!(host.messages().len(), 1);
}

#[test]
fn before_2_4_interrupts_go_through_the_interrupt_page() {
    let (mut host, _) = Host::connected(Version::V1_1);
    host.gpadl(1, 0x10, &[1, 2, 3, 4]).unwrap();
    host.drain();
    host.send(&open(1, 0x10, 2, 0)).unwrap();
    let (_, actions) = host.drain();
    let [Action::Open(_, request)] = actions.as_slice() else { panic!() };
    assert_eq!(request.interrupt, InterruptTarget::InterruptPage { page: 0x3000, bit: 1 });
}

/// What a guest does there is its own affair: the host's half, and bits of no channel.
#[test]
fn before_2_4_a_guest_says_by_the_interrupt_page_which_channels_it_means() {
    let page = |offset: u64| GuestAddress(0x3000 + offset);
    let (mut host, key) = Host::open(Version::V1_1);
    host.server.memory.write_obj(!0_u32, page(0)).unwrap();
    assert_eq!(host.server.take_signals(), []);
    host.server.memory.write_obj(1_u32 << 1 | 1 << 7, page(2048)).unwrap();
    host.server.memory.write_obj(!0_u32, page(2048 + 252)).unwrap();
    host.server.memory.write_obj(!0_u32, page(2048 + 256)).unwrap();
    assert_eq!(host.server.take_signals(), [key]);
    assert_eq!(host.server.take_signals(), [], "once");
    let left =
        [0, 2048, 2048 + 256].map(|at| host.server.memory.read_obj::<u32>(page(at)).unwrap());
    assert_eq!(left, [!0, 0, !0]);

    let (mut host, _) = Host::open(Version::V2_4);
    host.server.memory.write_obj(!0_u32, page(2048)).unwrap();
    assert_eq!(host.server.take_signals(), []);
    assert_eq!(
        host.server.memory.read_obj::<u32>(page(2048)).unwrap(),
        !0,
        "no page of the host's"
    );
}

#[test]
fn unload_is_answered_when_all_channels_are_closed() {
    let (mut host, key) = Host::open(Version::V5_3);
    host.send(&[16, 0]).unwrap();
    let (messages, actions) = host.drain();
    assert_eq!(messages, []);
    assert!(matches!(actions.as_slice(), [Action::Close(_)]));
    assert!(matches!(host.send(&[3, 0]), Err(ControlError::Ending(_))));
    host.complete(Completion::Closed(key));
    assert_eq!(host.messages(), [HostMessage::UnloadResponse]);
    assert_eq!(host.server.version(), None);

    // The next guest finds everything as the first did.
    host.contact(Version::V5_3, 0).unwrap();
    host.messages();
    host.send(&[3, 0]).unwrap();
    assert_eq!(relids(&host.messages()), [1]);
    host.gpadl(1, 0x10, &[1, 2, 3, 4]).unwrap();
    assert_eq!(host.messages(), [created(0x10, 0)], "the old guest's lists are forgotten");
}

#[test]
fn a_second_contact_is_a_reset_without_an_answer_of_its_own() {
    let (mut host, key) = Host::open(Version::V5_3);
    host.contact(Version::V4_0, 2).unwrap();
    let (messages, actions) = host.drain();
    assert_eq!(messages, []);
    assert!(matches!(actions.as_slice(), [Action::Close(_)]));
    host.complete(Completion::Closed(key));
    let messages = host.messages();
    assert!(matches!(messages.as_slice(), [HostMessage::VersionResponse(_)]));
    assert_eq!(host.server.version(), Some(Version::V4_0));
}

#[test]
fn unload_and_contact_without_waiting_are_both_answered() {
    let (mut host, key) = Host::open(Version::V5_3);
    host.send(&[16, 0]).unwrap();
    host.contact(Version::V0_13, 0).unwrap();
    host.drain();
    host.complete(Completion::Closed(key));
    let messages = host.messages();
    assert!(matches!(
        messages.as_slice(),
        [HostMessage::UnloadResponse, HostMessage::VersionResponse(_)]
    ));
}

#[test]
fn unload_goes_where_the_contact_wanted_messages() {
    let mut host = Host::new();
    host.contact(Version::V5_3, 3).unwrap();
    host.drain();
    host.server.guest_message(&[16, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let targets: Vec<_> = std::iter::from_fn(|| host.server.next_action())
        .filter_map(|action| match action {
            Action::Post(target, _) => Some(target.vp),
            _ => None,
        })
        .collect();
    assert_eq!(targets, [3]);
}

#[test]
fn a_machine_reset_says_nothing_to_anybody() {
    let (mut host, key) = Host::open(Version::V5_3);
    host.send(&[16, 0]).unwrap();
    host.server.reset();
    assert!(!host.server.is_quiet());
    host.drain();
    host.complete(Completion::Closed(key));
    assert!(host.server.is_quiet());
    assert_eq!(host.messages(), [], "whoever asked for UNLOAD is gone");
}

/// Linux frees a rescinded channel's rings and buffers without asking.
#[test]
fn a_channel_is_rescinded_when_nothing_of_it_is_in_use() {
    let (mut host, key) = Host::open(Version::V5_3);
    host.server.revoke(key);
    let (messages, actions) = host.drain();
    assert_eq!(messages, []);
    assert!(matches!(actions.as_slice(), [Action::Close(_)]));
    assert!(matches!(host.send(&[13, 0, 1]), Err(ControlError::ChannelState { .. })));
    host.send(&[7, 0, 1]).unwrap();
    host.complete(Completion::Closed(key));
    let (messages, actions) = host.drain();
    assert_eq!(messages, [rescind(1)]);
    assert!(matches!(actions.as_slice(), [Action::Gone(_)]));
}

/// A card's subchannels write into the buffer that was shared over its primary channel.
#[test]
fn a_primary_channel_is_rescinded_after_its_subchannels_are_closed() {
    let (mut host, key, child) = Host::with_subchannel();
    host.server.revoke(key);
    host.complete(Completion::Closed(key));
    assert_eq!(host.messages(), []);
    host.complete(Completion::Closed(child));
    let (messages, actions) = host.drain();
    assert_eq!(messages, [rescind(2), rescind(1)]);
    assert!(matches!(actions.as_slice(), [Action::Gone(first), Action::Gone(second)]
        if (*first, *second) == (child, key)));
}

#[test]
fn a_revoked_relid_is_reused_only_after_its_release() {
    let (mut host, key) = Host::open(Version::V5_3);
    host.server.revoke(key);
    host.complete(Completion::Closed(key));
    host.drain();
    host.server.offer(disk(), None);
    assert_eq!(relids(&host.messages()), [2], "1 is not released");
    host.send(&[7, 0, 1]).unwrap();
    host.send(&[11, 0, 1, 0x10]).unwrap();
    assert_eq!(host.messages(), [torndown(0x10)], "a late teardown is answered");
    host.send(&[13, 0, 1]).unwrap();
    host.server.offer(Offer::new(class::SCSI, Guid::from_text_order(2)), None);
    assert_eq!(relids(&host.messages()), [1]);
}

#[test]
fn a_guest_may_release_an_offer_that_it_does_not_want() {
    let (mut host, _) = Host::connected(Version::V5_3);
    host.send(&[13, 0, 1]).unwrap();
    assert!(matches!(host.send(&[13, 0, 1]), Err(ControlError::NoChannel { .. })));
    let (mut host, _) = Host::open(Version::V5_3);
    assert!(matches!(host.send(&[13, 0, 1]), Err(ControlError::ChannelState { .. })));
}

#[test]
fn a_withdrawn_channel_comes_back_with_the_next_connection() {
    let (mut host, key) = Host::open(Version::V5_3);
    host.server.withdraw(key);
    host.complete(Completion::Closed(key));
    let (messages, actions) = host.drain();
    assert_eq!(messages, [rescind(1)]);
    assert!(!actions.iter().any(|action| matches!(action, Action::Gone(_))));
    host.contact(Version::V5_3, 0).unwrap();
    host.messages();
    host.send(&[3, 0]).unwrap();
    assert_eq!(relids(&host.messages()), [1]);
}

#[test]
fn subchannels_are_rescinded_when_their_primary_is_closed() {
    let (mut host, key) = Host::open(Version::V5_3);
    let child = host.server.offer(disk(), Some((key, 1)));
    let messages = host.messages();
    let [HostMessage::Offer(offer)] = messages.as_slice() else { panic!() };
    assert_eq!((offer.relid, offer.subchannel_index), (2, 1));
    host.send(&[7, 0, 1]).unwrap();
    let (messages, actions) = host.drain();
    assert_eq!(messages, [rescind(2)]);
    assert!(matches!(actions[0], Action::Gone(gone) if gone == child));
    assert!(matches!(actions[1], Action::Close(closed) if closed == key));
}

#[test]
fn subchannels_do_not_outlive_a_connection() {
    let (mut host, key) = Host::open(Version::V5_3);
    let child = host.server.offer(disk(), Some((key, 1)));
    host.drain();
    host.contact(Version::V5_3, 0).unwrap();
    host.complete(Completion::Closed(key));
    let (_, actions) = host.drain();
    assert!(matches!(actions.last(), Some(Action::Gone(gone)) if *gone == child));
}

#[test]
fn a_connect_request_is_refused_while_no_socket_listens() {
    let (mut host, _) = Host::connected(Version::V5_3);
    let words: Vec<u32> = [21, 0].into_iter().chain(1..=8).collect();
    host.send(&words).unwrap();
    let (_, actions) = host.drain();
    let [Action::Connect(request)] = &actions[..] else {
        panic!("{actions:?}");
    };
    host.server.refuse_connect(request);
    let messages = host.messages();
    let bytes = bytes_of(&messages[0]);
    let bytes = bytes.as_bytes();
    assert_eq!((bytes.len(), bytes[0]), (44, 23));
    assert_eq!(bytes[40..], 0xc000_0236_u32.to_le_bytes());
}

#[test]
fn a_message_of_the_host_changes_nothing() {
    let (mut host, _) = Host::connected(Version::V5_3);
    for kind in [1, 2, 4, 6, 10, 12, 15, 17, 20, 23, 24, 26, 28, 30, u32::MAX] {
        let result = host.send(&[kind, 0, 1, 1, 1, 1, 1, 1]);
        assert!(matches!(result, Err(ControlError::Malformed(_))), "{kind}");
    }
    assert_eq!(host.messages(), []);
}
