// SPDX-License-Identifier: MIT OR Apache-2.0

//! Scripts on a bus with a guest in process, whose device echoes.

use busway_memory::PAGE_SIZE;
use busway_ring::{Outgoing, Packet};
use busway_testkit::{GuestChannel, Pair, PairConfig};
use busway_vmbus::{ChannelHandler, Device, Io, Offer, Opening, Rewrite, Sent};
use busway_wire::Version;
use busway_wire::control::layout::OfferChannel;
use busway_wire::packet::PacketType;
use rustix::event::{PollFd, PollFlags, poll};

use super::*;

/// Answers each request with its own payload.
struct Echo;

impl Device for Echo {
    fn offer(&self) -> Offer {
        Offer::new(class::HEARTBEAT, Guid::from_text_order(1))
    }

    fn open(&mut self, _opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
        Ok(Box::new(Self))
    }
}

impl ChannelHandler for Echo {
    fn on_packet(&mut self, packet: Packet<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
        io.complete(packet.descriptor.transaction_id, packet.payload)
    }
}

/// Sends a packet that refers to data for each of the guest's, and answers with what is to change there.
struct Referring;

impl Device for Referring {
    fn offer(&self) -> Offer {
        Offer::new(class::NETWORK, Guid::from_text_order(2))
    }

    fn open(&mut self, _opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
        Ok(Box::new(Self))
    }
}

impl ChannelHandler for Referring {
    fn on_packet(&mut self, packet: Packet<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
        let kind = PacketType::DATA_USING_TRANSFER_PAGES;
        let (header, payload) = ([0; 8].as_slice(), packet.payload);
        let refers = Outgoing { kind, flags: 0, transaction_id: 0, header, payload };
        assert_eq!(io.send(&refers)?, Sent::Yes);
        let bytes = io.rewrite().map(|Rewrite { at, bytes }| [vec![at as u8], bytes].concat());
        io.complete(packet.descriptor.transaction_id, &bytes.unwrap_or_default())
    }
}

#[test]
fn a_device_is_told_what_changes_in_what_its_packet_refers_to() {
    let mut scene = Scene::unconnected(
        "[[rule]]\nfrom = \"host\"\npacket = \"transfer-pages\"\nnth = 2\n\
         do = { set-data = { at = 3, bytes = [8, 9, 10, 11, 12, 13, 14] } }",
    );
    scene.pair.add(Referring);
    scene.offers = scene.pair.connect(Version::V5_3).offers;
    let offer = *scene.offers.iter().find(|offer| offer.interface_type == class::NETWORK).unwrap();
    let mut channel = scene.pair.open(&offer, 2, 0).unwrap();
    let mut answer = |id| {
        channel.request(&mut scene.pair, id, &[0; 8]);
        channel.receive(&mut scene.pair);
        channel.receive(&mut scene.pair).payload
    };
    assert_eq!(answer(1), [0; 0]);
    assert_eq!(answer(2), [3, 8, 9, 10, 11, 12, 13, 14]);
    assert_eq!(answer(3), [0; 0]);
}

/// A guest that is connected to a bus with this script.
struct Scene {
    pair: Pair,
    faults: Arc<Faults>,
    offers: Vec<OfferChannel>,
}

impl Scene {
    fn new(rules: &str) -> Self {
        let mut scene = Self::unconnected(rules);
        scene.offers = scene.pair.connect(Version::V5_3).offers;
        scene
    }

    fn unconnected(rules: &str) -> Self {
        let script = Script::parse(rules, Some(1), 0).unwrap();
        let faults = Faults::start(Path::new("a.toml"), script).unwrap();
        let mut pair = Pair::new(PairConfig::default());
        pair.bus.meddle(Some(faults.meddler()));
        pair.add(Echo);
        Self { pair, faults, offers: Vec::new() }
    }

    fn open(&mut self) -> GuestChannel {
        let offer = self.offers[0];
        self.pair.open(&offer, 2, 0).unwrap()
    }

    /// What has happened, without its times.
    fn events(&self) -> Vec<String> {
        let events = self.faults.summary().events;
        events.iter().map(|event| format!("{} of {}", event.at, event.place)).collect()
    }
}

/// A rule about the host's packets.
fn host(action: &str) -> String {
    format!("[[rule]]\nfrom = \"host\"\ndo = {action}\n")
}

fn answers(scene: &mut Scene, channel: &mut GuestChannel) -> Vec<(u64, Vec<u8>)> {
    scene.pair.work();
    let next = || channel.try_receive(&mut scene.pair);
    let packets = std::iter::from_fn(next);
    packets.map(|packet| (packet.descriptor.transaction_id, packet.payload)).collect()
}

#[test]
fn answers_are_what_the_script_makes_of_them() {
    let right = || vec![0, 1, 2, 3, 4, 5, 6, 7];
    let with = |at: usize, byte: u8| {
        let mut payload = right();
        payload[at] = byte;
        payload
    };
    for (action, expected) in [
        ("\"drop\"", vec![]),
        ("\"duplicate\"", vec![(7, right()), (7, right())]),
        ("{ truncate = 0 }", vec![(7, vec![])]),
        ("{ flip = { at = 3, mask = 0x80 } }", vec![(7, with(3, 0x83))]),
        ("{ set = { at = 7, bytes = [9, 9] } }", vec![(7, with(7, 9))]),
        ("{ transaction-id = 0xdead }", vec![(0xdead, right())]),
    ] {
        let mut scene = Scene::new(&(host(action) + "nth = 2"));
        let mut channel = scene.open();
        channel.request(&mut scene.pair, 6, &right());
        channel.request(&mut scene.pair, 7, &right());
        channel.request(&mut scene.pair, 8, &right());
        let all = [vec![(6, right())], expected, vec![(8, right())]].concat();
        assert_eq!(answers(&mut scene, &mut channel), all, "{action}");
        let [event] = &*scene.events() else { panic!("one fault") };
        assert!(event.starts_with("host packet 2 of heartbeat#"), "{event}");
    }
}

#[test]
fn a_late_answer_comes_and_is_overtaken() {
    let mut scene = Scene::new(&(host("{ delay = \"20ms\" }") + "nth = 1"));
    let mut channel = scene.open();
    channel.request(&mut scene.pair, 1, &[1; 8]);
    channel.request(&mut scene.pair, 2, &[2; 8]);
    assert_eq!(channel.receive(&mut scene.pair).descriptor.transaction_id, 2);
    scene.pair.take_event(0, channel.relid());
    let late = channel.receive(&mut scene.pair);
    assert_eq!((late.descriptor.transaction_id, late.payload), (1, vec![1; 8]));
    assert!(scene.pair.take_event(0, channel.relid()), "the guest is told of it");
}

#[test]
fn an_answer_is_told_apart_by_what_was_asked() {
    let rule = host("\"drop\"") + "request = { at = 0, bytes = [7] }";
    let mut scene = Scene::new(&rule);
    let mut channel = scene.open();
    for id in 6..=8 {
        channel.request(&mut scene.pair, 0x60 + id, &[id as u8; 8]);
    }
    let expected = [(0x66, vec![6; 8]), (0x68, vec![8; 8])];
    assert_eq!(answers(&mut scene, &mut channel), expected);
}

#[test]
fn nothing_is_lost_that_finds_no_room() {
    let mut scene = Scene::new(&host("\"duplicate\""));
    let mut channel = scene.open();
    for id in 1..=12 {
        channel.request(&mut scene.pair, id, &[0; 256]);
        scene.pair.work();
    }
    const { assert!(24 * 280 > PAGE_SIZE, "that is more than the ring takes") };
    let received = (0..24).map(|_| channel.receive(&mut scene.pair).descriptor.transaction_id);
    let received: Vec<_> = received.collect();
    let expected: Vec<_> = (1..=12).flat_map(|id| [id, id]).collect();
    assert_eq!(received, expected);
}

#[test]
fn a_request_that_is_lost_has_no_answer() {
    let mut scene = Scene::new("[[rule]]\nfrom = \"guest\"\nnth = 2\ndo = \"drop\"");
    let mut channel = scene.open();
    for id in 1..=3 {
        channel.request(&mut scene.pair, id, &[0; 8]);
    }
    let ids: Vec<_> = answers(&mut scene, &mut channel).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [1, 3]);
}

#[test]
fn a_device_is_rescinded_at_a_packet_of_either_side() {
    for from in ["host", "guest"] {
        let rule = format!("[[rule]]\nfrom = \"{from}\"\nnth = 2\ndo = \"rescind\"");
        let mut scene = Scene::new(&rule);
        let mut channel = scene.open();
        let relid = channel.relid();
        channel.request(&mut scene.pair, 1, &[0; 8]);
        channel.request(&mut scene.pair, 2, &[0; 8]);
        let ids = answers(&mut scene, &mut channel).into_iter().map(|(id, _)| id);
        assert_eq!(ids.collect::<Vec<_>>(), [1, 2], "{from}");
        assert_eq!(scene.pair.expect_rescind(), relid);
        scene.pair.work();
        assert_eq!(scene.pair.open_channels(), 0);
    }
}

/// A scene whose device has been taken from the guest at its first packet, for so long.
fn vanished(time: &str) -> Scene {
    let rule = "[[rule]]\nfrom = \"guest\"\ntimes = 1\ndo = { rescind-for = \"TIME\" }";
    let mut scene = Scene::new(&rule.replace("TIME", time));
    let mut channel = scene.open();
    channel.request(&mut scene.pair, 1, &[0; 8]);
    assert_eq!(scene.pair.expect_rescind(), channel.relid());
    scene
}

/// The device is offered to the guest, and is of use.
fn is_back(scene: &mut Scene) {
    scene.offers = vec![scene.pair.expect_offer()];
    let mut channel = scene.open();
    channel.request(&mut scene.pair, 1, &[7; 8]);
    assert_eq!(answers(scene, &mut channel), [(1, vec![7; 8])]);
}

#[test]
fn a_device_comes_back_when_its_time_has_come_and_the_guest_has_let_go() {
    let mut scene = vanished("20ms");
    let offer = scene.offers[0];
    wait_for_the_timer(&mut scene);
    assert!(scene.pair.take_message().is_none(), "the guest may name it still");
    scene.pair.release(offer.relid);
    is_back(&mut scene);
    assert_eq!(scene.offers[0].instance, offer.instance);
    assert_eq!(scene.events().len(), 1, "times counts over its absence");

    let mut scene = vanished("20ms");
    scene.pair.release(offer.relid);
    assert!(scene.pair.take_message().is_none(), "its time has not come");
    wait_for_the_timer(&mut scene);
    is_back(&mut scene);
}

#[test]
fn a_device_that_is_away_comes_back_to_the_next_guest() {
    let mut scene = vanished("20ms");
    scene.pair.unload();
    assert!(scene.pair.connect(Version::V5_3).offers.is_empty());
    wait_for_the_timer(&mut scene);
    is_back(&mut scene);
}

#[test]
fn the_machines_end_waits_for_no_device_that_is_away() {
    let mut scene = vanished("20ms");
    scene.pair.bus.reset();
    assert!(scene.pair.bus.is_quiet());
    wait_for_the_timer(&mut scene);
    assert!(scene.pair.take_message().is_none());
}

#[test]
fn a_device_that_is_away_comes_back_when_the_rules_go() {
    let mut scene = vanished("3600s");
    change(&mut scene, None);
    assert!(scene.pair.take_message().is_none());
    scene.pair.release(scene.offers[0].relid);
    is_back(&mut scene);
}

#[test]
fn a_device_that_is_removed_while_it_is_away_does_not_come_back() {
    let mut scene = vanished("20ms");
    let offer = scene.offers[0];
    scene.pair.bus.remove_instance(offer.instance);
    scene.pair.release(offer.relid);
    wait_for_the_timer(&mut scene);
    assert!(scene.pair.take_message().is_none());
    // Another has taken its place.
    scene.pair.add(Echo);
    is_back(&mut scene);
}

/// Echoes on three channels.
struct ManyFold;

impl Device for ManyFold {
    fn offer(&self) -> Offer {
        Offer::new(class::NETWORK, Guid::from_text_order(3))
    }

    fn open(&mut self, _opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
        Ok(Box::new(Self))
    }
}

impl ChannelHandler for ManyFold {
    fn on_packet(&mut self, packet: Packet<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
        if packet.payload == b"subchans" {
            io.offer_subchannels(2);
        }
        io.complete(packet.descriptor.transaction_id, packet.payload)
    }
}

/// It goes as a whole, whichever channel the rule fires on.
#[test]
fn a_device_with_subchannels_vanishes_and_comes_back() {
    for action in ["\"rescind\"", "{ rescind-for = \"20ms\" }"] {
        let rule = "payload = { at = 0, bytes = [9] }\ntimes = 1";
        let rule = format!("[[rule]]\nfrom = \"guest\"\n{rule}\ndo = {action}");
        let mut scene = Scene::unconnected(&rule);
        let pair = &mut scene.pair;
        pair.add(ManyFold);
        let mut offer = *pair.connect(Version::V5_3).offer(class::NETWORK);
        for is_last in [false, true] {
            let mut primary = pair.open(&offer, 2, 0).unwrap();
            primary.request(pair, 1, b"subchans");
            primary.receive(pair);
            let offers = [pair.expect_offer(), pair.expect_offer()];
            let mut subchannels = offers.map(|offer| pair.open(&offer, 2, 0).unwrap());
            subchannels[1].request(pair, 2, &[9; 8]);
            subchannels[1].receive(pair);
            if is_last {
                subchannels[0].request(pair, 3, &[9; 8]);
                subchannels[0].receive(pair);
                assert_eq!(pair.open_channels(), 3, "that was all");
                break;
            }
            let mut gone = [pair.expect_rescind(), pair.expect_rescind(), pair.expect_rescind()];
            gone.sort_unstable();
            assert_eq!(gone, [offer.relid, offers[0].relid, offers[1].relid], "{action}");
            pair.work();
            assert_eq!(pair.open_channels(), 0);
            gone.iter().for_each(|relid| pair.release(*relid));
            if action == "\"rescind\"" {
                break;
            }
            wait_for_the_timer_of(&scene.faults, pair);
            let again = pair.expect_offer();
            assert_eq!((again.instance, again.subchannel_index), (offer.instance, 0));
            offer = again;
        }
    }
}

#[test]
fn a_paused_device_leaves_packets_where_they_are_and_goes_on() {
    for (span, goes_on) in [("60s", false), ("20ms", true)] {
        let rule = format!("[[rule]]\nfrom = \"guest\"\nnth = 1\ndo = {{ pause = \"{span}\" }}");
        let mut scene = Scene::new(&rule);
        let mut channel = scene.open();
        channel.request(&mut scene.pair, 1, &[0; 8]);
        channel.request(&mut scene.pair, 2, &[0; 8]);
        assert_eq!(channel.receive(&mut scene.pair).descriptor.transaction_id, 1);
        if goes_on {
            assert_eq!(channel.receive(&mut scene.pair).descriptor.transaction_id, 2);
        } else {
            assert_eq!(answers(&mut scene, &mut channel), []);
            scene.pair.close(channel);
            assert_eq!(scene.pair.open_channels(), 0, "it is closed all the same");
        }
    }
}

#[test]
fn interrupts_are_lost_late_and_too_many() {
    // Whether the guest is interrupted at the channel's first turn, which brings nothing, and at that
    // of a request.
    let interrupted = |scene: &mut Scene| {
        let mut channel = scene.open();
        scene.pair.work();
        let at_first = scene.pair.take_event(0, channel.relid());
        channel.request(&mut scene.pair, 1, &[0; 8]);
        scene.pair.work();
        (at_first, scene.pair.take_event(0, channel.relid()), channel)
    };
    for (rule, expected) in [
        ("nth = 9\ndo = \"no-interrupt\"", (false, true)),
        ("do = \"no-interrupt\"", (false, false)),
        ("do = { interrupt-late = \"60s\" }", (false, false)),
        ("do = \"interrupt\"", (true, true)),
    ] {
        let mut scene = Scene::new(&format!("[[rule]]\n{rule}"));
        let (at_first, at_request, _channel) = interrupted(&mut scene);
        assert_eq!((at_first, at_request), expected, "{rule}");
    }
    let mut scene = Scene::new("[[rule]]\ndo = { interrupt-late = \"20ms\" }");
    let (_, was_interrupted, channel) = interrupted(&mut scene);
    assert!(scene.events()[0].starts_with("interrupt 1 of heartbeat#"));
    let relid = channel.relid();
    let is_interrupted = |pair: &mut Pair| was_interrupted || pair.take_event(0, relid);
    scene.pair.wait("an interrupt", |pair| is_interrupted(pair).then_some(()));
}

#[test]
fn a_refused_open_and_a_refused_list_are_answered_and_may_be_tried_again() {
    let rule = |name| format!("[[rule]]\nmessage = \"{name}\"\nnth = 1\ndo = \"refuse\"\n");
    let mut scene = Scene::new(&(rule("OPEN_CHANNEL") + &rule("GPADL_HEADER")));
    let offer = scene.offers[0];
    // Forty pages: a header and a body. The second time the channel is refused, the third time nothing.
    assert!(scene.pair.open(&offer, 20, 0).is_err());
    assert!(scene.pair.open(&offer, 20, 0).is_err());
    assert!(scene.events()[0].starts_with("GPADL_HEADER 1 of heartbeat"));
    assert!(scene.events()[1].starts_with("OPEN_CHANNEL 1 of heartbeat"));
    let mut channel = scene.pair.open(&offer, 20, 0).unwrap();
    channel.request(&mut scene.pair, 1, &[0; 8]);
    assert_eq!(answers(&mut scene, &mut channel).len(), 1);
    assert_eq!(scene.events().len(), 2);
}

#[test]
fn messages_are_lost_and_doubled() {
    let rule = |name, action| format!("[[rule]]\nmessage = \"{name}\"\ndo = \"{action}\"\n");
    let scene = Scene::new(&rule("OFFER_CHANNEL", "duplicate"));
    assert_eq!(scene.offers.len(), 2);
    let other = rule("OFFER_CHANNEL", "drop") + "device = \"storage\"";
    assert_eq!(Scene::new(&other).offers.len(), 1);
    let scene = Scene::new(&(rule("OFFER_CHANNEL", "drop") + "device = \"heartbeat\""));
    assert_eq!(scene.offers.len(), 0);
    let mut scene = Scene::unconnected(&(rule("REQUEST_OFFERS", "drop") + "nth = 1"));
    assert!(scene.pair.contact(Version::V5_3, 0));
    scene.pair.post(&busway_wire::control::GuestMessage::RequestOffers);
    assert!(scene.pair.take_message().is_none());
    scene.pair.post(&busway_wire::control::GuestMessage::RequestOffers);
    scene.pair.expect_offer();
}

#[test]
fn messages_change() {
    let version = "[[rule]]\nmessage = \"VERSION_RESPONSE\"\nnth = 1\n";
    let mut scene =
        Scene::unconnected(&format!("{version}do = {{ set = {{ at = 8, bytes = [0] }} }}"));
    assert!(!scene.pair.contact(Version::V5_3, 0));
    assert!(scene.pair.contact(Version::V5_2, 0));
    let offer = "[[rule]]\nmessage = \"OFFER_CHANNEL\"\ndevice = \"heartbeat\"\n";
    let scene = Scene::new(&format!("{offer}do = {{ flip = {{ at = 9, mask = 0x81 }} }}"));
    let mut class = class::HEARTBEAT;
    class.0[1] ^= 0x81;
    assert_eq!(scene.offers[0].interface_type, class);
}

fn late_offers(delay: &str) -> Scene {
    let offer = "[[rule]]\nmessage = \"OFFER_CHANNEL\"\n";
    let scene = Scene::new(&format!("{offer}do = {{ delay = \"{delay}\" }}"));
    assert_eq!(scene.offers.len(), 0, "all have been delivered without it");
    scene
}

/// Until something that was put off is due, and then the bus is told.
fn wait_for_the_timer(scene: &mut Scene) {
    wait_for_the_timer_of(&scene.faults, &mut scene.pair);
}

fn wait_for_the_timer_of(faults: &Faults, pair: &mut Pair) {
    let put_off = lock(&faults.put_off);
    let mut timer = [PollFd::new(&put_off.timer, PollFlags::IN)];
    assert_eq!(poll(&mut timer, None).unwrap(), 1);
    drop(put_off);
    pair.bus.overdue();
}

#[test]
fn messages_come_later_while_their_guest_is_there() {
    let mut scene = late_offers("20ms");
    wait_for_the_timer(&mut scene);
    assert_eq!(scene.pair.expect_offer().interface_type, class::HEARTBEAT);

    let mut scene = late_offers("20ms");
    scene.pair.unload();
    wait_for_the_timer(&mut scene);
    assert!(scene.pair.take_message().is_none(), "for nobody");

    let mut scene = late_offers("1000s");
    change(&mut scene, None);
    scene.pair.expect_offer();
}

#[test]
fn what_was_done_is_summed_up() {
    let mut scene = Scene::new(&(host("\"drop\"") + "name = \"lossy\"\nevery = 2"));
    let mut channel = scene.open();
    for id in 0..5 {
        channel.request(&mut scene.pair, id, &[0; 8]);
    }
    scene.pair.work();
    let Summary { seed, rules, events } = scene.faults.summary();
    assert_eq!((seed, rules.len(), events.len()), (1, 1, 2));
    assert_eq!((&*rules[0].name, rules[0].action, rules[0].fired), ("lossy", "drop", 2));
    assert_eq!((events[1].rule, &*events[1].at), (0, "host packet 4"));
}

/// As `busway ctl SOCKET fault add` and `clear` do it.
fn change(scene: &mut Scene, rules: Option<&str>) {
    match rules {
        Some(rules) => scene.faults.add(Script::parse(rules, Some(2), 0).unwrap()),
        None => scene.faults.clear(),
    }
    let active = scene.faults.is_active();
    scene.pair.bus.meddle(active.then(|| scene.faults.meddler()));
}

#[test]
fn rules_come_to_open_channels_and_go() {
    let mut scene = Scene::new("[[rule]]\nmessage = \"UNLOAD\"\ndo = \"drop\"");
    let mut channel = scene.open();
    let mut ids = |scene: &mut Scene, first: u64| -> Vec<u64> {
        for id in first..first + 3 {
            channel.request(&mut scene.pair, id, &[0; 8]);
        }
        answers(scene, &mut channel).into_iter().map(|(id, _)| id).collect()
    };
    assert_eq!(ids(&mut scene, 1), [1, 2, 3]);
    change(&mut scene, Some(&(host("\"drop\"") + "nth = 2")));
    assert_eq!(ids(&mut scene, 11), [11, 13]);
    // What the first has counted stays when another comes.
    change(&mut scene, Some(&(host("\"drop\"") + "nth = 1")));
    assert_eq!(ids(&mut scene, 21), [22, 23]);
    change(&mut scene, None);
    assert_eq!(ids(&mut scene, 31), [31, 32, 33]);
    let fired: Vec<_> = scene.faults.summary().rules.iter().map(|rule| rule.fired).collect();
    assert_eq!(fired, [0, 1, 1]);
    // Numbers go on behind those of the rules that are gone.
    change(&mut scene, Some(&(host("{ truncate = 0 }") + "nth = 1")));
    assert_eq!(ids(&mut scene, 41), [41, 42, 43]);
    assert_eq!(scene.faults.summary().events.last().unwrap().rule, 3);
}

#[test]
fn the_time_of_an_added_rule_begins_when_it_is_added() {
    let mut scene = Scene::new("[[rule]]\nmessage = \"UNLOAD\"\ndo = \"drop\"");
    std::thread::sleep(Duration::from_millis(1));
    change(&mut scene, Some(&(host("\"drop\"") + "after = \"3600s\"")));
    let after = scene.faults.script().rules[1].after;
    assert!(after > Duration::from_secs(3600), "{after:?}");
}

#[test]
fn what_was_put_off_comes_when_the_rules_go() {
    let mut scene = Scene::new(&(host("{ delay = \"3600s\" }") + "nth = 1"));
    let mut channel = scene.open();
    channel.request(&mut scene.pair, 1, &[0; 8]);
    assert_eq!(answers(&mut scene, &mut channel), []);
    change(&mut scene, None);
    assert_eq!(channel.receive(&mut scene.pair).descriptor.transaction_id, 1);

    let mut scene = Scene::new("[[rule]]\nfrom = \"guest\"\nnth = 1\ndo = { pause = \"3600s\" }");
    let mut channel = scene.open();
    channel.request(&mut scene.pair, 1, &[0; 8]);
    channel.request(&mut scene.pair, 2, &[0; 8]);
    assert_eq!(answers(&mut scene, &mut channel).len(), 1);
    change(&mut scene, None);
    assert_eq!(channel.receive(&mut scene.pair).descriptor.transaction_id, 2);

    let mut scene = Scene::new("[[rule]]\ndo = { interrupt-late = \"3600s\" }");
    let mut channel = scene.open();
    channel.request(&mut scene.pair, 1, &[0; 8]);
    scene.pair.work();
    assert!(!scene.pair.take_event(0, channel.relid()));
    change(&mut scene, None);
    assert!(scene.pair.take_event(0, channel.relid()));
}

#[test]
fn a_packet_goes_behind_the_next_or_alone() {
    let mut scene = Scene::new(&(host("\"reorder\"") + "every = 2"));
    let mut channel = scene.open();
    for id in 1..=4 {
        channel.request(&mut scene.pair, id, &[0; 8]);
    }
    let ids: Vec<_> = answers(&mut scene, &mut channel).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [1, 3, 2]);
    // Nothing follows: it comes when it has waited long enough.
    assert_eq!(channel.receive(&mut scene.pair).descriptor.transaction_id, 4);
}
