// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a device may do on its own account: packets that nobody asked for, subchannels, lists of
//! pages that it keeps for a while.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use busway_ring::{Outgoing, Packet, PacketBuf, RingMem, Word};
use busway_testkit::{GuestChannel, Pair, PairConfig};
use busway_vmbus::{
    ChannelHandler, Closing, Device, Fault, GpadlId, Io, Offer, Opening, Progress, Sent, Wakeup,
    When,
};
use busway_wire::control::GuestMessage;
use busway_wire::control::layout::GpadlTeardown;
use busway_wire::packet::PacketType;
use busway_wire::{Guid, Version};
use rustix::event::{EventfdFlags, eventfd};

const TALKER: Guid = Guid::from_text_order(0x7a1c_0000_0000_4000_8000_0000_0000_7a1c);

/// A device that sends as many packets as each request says, and offers subchannels.
struct Talker {
    hold: Hold,
}

/// Keeps lists from the guest until the test says otherwise.
#[derive(Clone)]
struct Hold {
    held: Arc<AtomicBool>,
    bell: Arc<OwnedFd>,
}

impl Hold {
    fn new(held: bool) -> Self {
        let bell = eventfd(0, EventfdFlags::empty()).unwrap();
        Self { held: Arc::new(held.into()), bell: Arc::new(bell) }
    }

    fn let_go(&self) {
        self.held.store(false, Ordering::SeqCst);
        rustix::io::write(&self.bell, &1_u64.to_ne_bytes()).unwrap();
    }
}

impl Device for Talker {
    fn offer(&self) -> Offer {
        Offer::new(TALKER, Guid::from_text_order(1))
    }

    fn open(&mut self, opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
        let hold = self.hold.clone();
        Ok(Box::new(Handler { hold, subchannel: opening.subchannel, to_send: 0, len: 0 }))
    }
}

struct Handler {
    hold: Hold,
    subchannel: u16,
    to_send: u64,
    len: usize,
}

/// `[b's', packets, bytes / 8]`: send. `[b'c', subchannels]`: offer. Anything else: who are you?
impl ChannelHandler for Handler {
    fn on_packet(&mut self, packet: Packet<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
        match packet.payload {
            [b's', count, len, ..] => {
                self.to_send = (*count).into();
                self.len = usize::from(*len) * 8;
            }
            [b'c', count, ..] => io.offer_subchannels((*count).into()),
            _ => {}
        }
        let answer = u64::from(self.subchannel).to_le_bytes();
        match packet.descriptor.wants_completion() {
            true => io.complete(packet.descriptor.transaction_id, &answer),
            false => Ok(()),
        }
    }

    fn on_batch(&mut self, io: &mut Io<'_>) -> Result<Progress, Fault> {
        // One at a time, to see that turns go on.
        if self.to_send == 0 {
            return Ok(Progress::Idle);
        }
        let payload = vec![0; self.len];
        match io.send(&Outgoing::in_band(self.to_send, &payload))? {
            Sent::NoRoom => Ok(Progress::Idle),
            Sent::Yes => {
                self.to_send -= 1;
                Ok(Progress::More)
            }
        }
    }

    fn wakeups(&self) -> Vec<Wakeup<'_>> {
        vec![Wakeup { token: 0, fd: self.hold.bell.as_fd(), when: When::Changed }]
    }

    fn release_gpadl(&mut self, _id: GpadlId) -> Closing {
        match self.hold.held.load(Ordering::SeqCst) {
            true => Closing::InFlight,
            false => Closing::Drained,
        }
    }
}

fn open(hold: Hold, ring_pages: usize) -> (Pair, GuestChannel) {
    let mut pair = Pair::new(PairConfig::default());
    pair.add(Talker { hold });
    let offer = *pair.connect(Version::V5_3).offer(TALKER);
    let channel = pair.open(&offer, ring_pages, 0).unwrap();
    (pair, channel)
}

#[test]
fn packets_that_find_no_room_are_sent_when_there_is_some() {
    let (mut pair, mut channel) = open(Hold::new(false), 3);
    channel.send(&mut pair, &Outgoing::in_band(1, &[b's', 200, 64]));
    pair.work();
    assert_ne!(channel.incoming.mem().load(Word::PendingSendSize), 0, "the host waits for room");
    for left in (1..=200).rev() {
        assert_eq!(channel.receive(&mut pair).descriptor.transaction_id, left);
    }
    assert_eq!(channel.try_receive(&mut pair), None);
    assert_eq!(channel.incoming.mem().load(Word::PendingSendSize), 0);
}

#[test]
fn answers_have_room_when_packets_have_none() {
    let (mut pair, mut channel) = open(Hold::new(false), 3);
    channel.send(&mut pair, &Outgoing::in_band(1, &[b's', 200, 64]));
    pair.work();
    for id in 1000..1100 {
        channel.request(&mut pair, id, &[b'?'; 8]);
    }
    pair.work();
    let (mut sent, mut answered) = (0, 0);
    let mut buf = PacketBuf::for_ring(8192);
    while let Some(packet) = channel.incoming.next(&mut buf).unwrap() {
        match packet.descriptor.kind {
            PacketType::COMPLETION => answered += 1,
            _ => sent += 1,
        }
    }
    // Half of 8 KiB is left to answers of 32 B; 535 B is a packet.
    assert_eq!(answered, 100);
    assert!((5..8).contains(&sent), "{sent}");
}

#[test]
fn many_packets_are_one_interrupt() {
    let (mut pair, mut channel) = open(Hold::new(false), 32);
    let before = pair.interrupts();
    channel.send(&mut pair, &Outgoing::in_band(1, &[b's', 10, 1]));
    for _ in 0..10 {
        channel.receive(&mut pair);
    }
    assert_eq!(pair.interrupts() - before, 1);
}

#[test]
fn subchannels_are_opened_beside_their_primary_and_go_with_it() {
    let (mut pair, mut primary) = open(Hold::new(false), 4);
    primary.send(&mut pair, &Outgoing::in_band(0, b"c\x02"));
    pair.work();
    let offers = [pair.expect_offer(), pair.expect_offer()];
    assert_eq!(offers.map(|offer| offer.subchannel_index), [1, 2]);
    assert!(offers.iter().all(|offer| offer.interface_type == TALKER));
    assert_ne!(offers[0].connection_id, offers[1].connection_id);
    let mut subs = offers.map(|offer| pair.open(&offer, 4, 1).unwrap());
    for (sub, index) in subs.iter_mut().zip([1, 2]) {
        sub.request(&mut pair, 5, b"who?");
        assert_eq!(sub.receive(&mut pair).payload[0], index);
    }
    primary.request(&mut pair, 6, b"who?");
    assert_eq!(primary.receive(&mut pair).payload[0], 0);

    let relids = subs.map(|sub| sub.relid());
    pair.close_only(primary);
    assert_eq!([pair.expect_rescind(), pair.expect_rescind()], relids);
    assert_eq!(pair.open_channels(), 0);
    relids.iter().for_each(|relid| pair.release(*relid));
    let offer = offers[0];
    assert!(pair.open(&offer, 4, 0).is_err(), "its relid is nobody's");
}

#[test]
fn subchannels_that_are_asked_for_again_come_behind_the_others() {
    let (mut pair, mut primary) = open(Hold::new(false), 4);
    for first in [1, 3] {
        primary.send(&mut pair, &Outgoing::in_band(0, b"c\x02"));
        pair.work();
        assert_eq!(pair.expect_offer().subchannel_index, first);
        assert_eq!(pair.expect_offer().subchannel_index, first + 1);
    }
}

#[test]
fn a_list_is_given_back_when_the_device_has_let_go_of_it() {
    let hold = Hold::new(true);
    let (mut pair, channel) = open(hold.clone(), 4);
    let relid = channel.relid();
    let pfns = pair.pages.take_many(3);
    let gpadl = pair.make_gpadl(relid, &pfns).unwrap();
    pair.post(&GuestMessage::GpadlTeardown(GpadlTeardown { relid, gpadl }));
    assert_eq!(pair.take_message(), None, "the device still uses it");
    hold.let_go();
    pair.teardown_answered(gpadl);
}

#[test]
fn a_close_answers_for_lists_that_the_device_held() {
    let (mut pair, channel) = open(Hold::new(true), 4);
    let relid = channel.relid();
    let pfns = pair.pages.take_many(3);
    let gpadl = pair.make_gpadl(relid, &pfns).unwrap();
    pair.post(&GuestMessage::GpadlTeardown(GpadlTeardown { relid, gpadl }));
    assert_eq!(pair.take_message(), None, "the device still uses it");
    pair.close_only(channel);
    pair.teardown_answered(gpadl);
}
