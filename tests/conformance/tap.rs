// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the tap sees of a bus and its channels.

use std::sync::{Arc, Mutex};

use busway_block::{Disk, DiskOptions};
use busway_frames::Network;
use busway_network::{CardOptions, Mac, NetworkCard};
use busway_storage::{Luns, StorageController};
use busway_testkit::{Pair, PairConfig};
use busway_vmbus::{Event, Passing, Side, Tap};
use busway_wire::control::{GuestMessage, HostMessage};
use busway_wire::packet::PacketType;
use busway_wire::rndis::Control;
use busway_wire::{Guid, Version, class};

use crate::echo::{ECHO, Echo};
use crate::netvsc::{Netvsc, message};
use crate::storvsc::{Storvsc, cdb_10};

/// Writes a line for each thing that passes.
#[derive(Default)]
struct Scribe {
    lines: Mutex<Vec<String>>,
    outside: Mutex<Vec<(Side, u64, Vec<u8>)>>,
    data: bool,
}

impl Tap for Scribe {
    fn passes(&self, what: &Passing<'_>) {
        let line = match what {
            Passing::GuestMessage(bytes) => {
                format!("guest {}", GuestMessage::parse(bytes).unwrap())
            }
            Passing::HostMessage(target, bytes) => {
                format!("host vp{} {}", target.vp, HostMessage::parse(bytes).unwrap())
            }
            Passing::Channel(place, event) => {
                assert!(place.class == ECHO || place.class != Guid::ZERO);
                match event {
                    Event::Packet { side, at, descriptor, header, payload } => {
                        let (header, payload) = (header.len(), payload.len());
                        let (kind, id) = (descriptor.kind, descriptor.transaction_id);
                        format!("{side:?} @{at} {kind} #{id} {header}+{payload}")
                    }
                    Event::Published(published) => format!(
                        "in {}/{} out {}/{} mask {} {} {} {}/{}",
                        published.incoming_read,
                        published.incoming_write,
                        published.outgoing_read,
                        published.outgoing_write,
                        published.outgoing_mask,
                        published.reader_waits,
                        published.writer_waits,
                        published.taken.packets,
                        published.put.bytes
                    ),
                    Event::Outside { side, transaction_id, len, read } => {
                        let mut bytes = vec![0; *len];
                        assert_eq!(read(&mut bytes), *len);
                        self.outside.lock().unwrap().push((*side, *transaction_id, bytes));
                        return;
                    }
                    Event::Opened { incoming_len, outgoing_len, .. } => {
                        format!("open {incoming_len} {outgoing_len}")
                    }
                    Event::Turn(cause) => format!("turn {cause:?}"),
                    Event::Timed(latency) => format!("timed {}", latency.requests),
                    Event::Closed => "closed".to_owned(),
                }
            }
        };
        self.lines.lock().unwrap().push(line);
    }

    fn wants_data(&self) -> bool {
        self.data
    }
}

impl Scribe {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }

    fn outside(&self) -> Vec<(Side, u64, Vec<u8>)> {
        std::mem::take(&mut *self.outside.lock().unwrap())
    }
}

fn tapped(data: bool) -> (Pair, Arc<Scribe>) {
    let mut pair = Pair::new(PairConfig::default());
    let scribe = Arc::new(Scribe { data, ..Scribe::default() });
    pair.bus.tap(scribe.clone());
    (pair, scribe)
}

#[test]
fn messages_pass_in_both_directions() {
    let (mut pair, scribe) = tapped(false);
    assert!(pair.contact(Version::V5_2, 0));
    let lines = scribe.take();
    assert!(lines[0].starts_with("guest INITIATE_CONTACT version=5.2"), "{lines:?}");
    assert!(lines[1].starts_with("host vp0 VERSION_RESPONSE"), "{lines:?}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn packets_pass_with_their_place_and_what_the_guest_was_told() {
    let (mut pair, scribe) = tapped(false);
    pair.add(Echo::default());
    let offer = *pair.connect(Version::V5_3).offer(ECHO);
    scribe.take();
    let mut channel = pair.open(&offer, 4, 0).unwrap();
    let lines = scribe.take();
    let opened = lines.iter().position(|line| line == "open 12288 12288").unwrap();
    assert!(lines[opened..].iter().any(|line| line == "turn Start"), "{lines:?}");
    channel.request(&mut pair, 7, b"hello");
    channel.receive(&mut pair);
    // 16 B of descriptor, 8 of payload, 8 of trailer.
    let first = ["turn Signal", "Guest @0 DATA_IN_BAND #7 0+8", "Host @0 COMPLETION #7 0+8"];
    let first = first.into_iter().chain(["in 32/32 out 0/32 mask 0 true false 1/24"]);
    let lines = scribe.take();
    assert_eq!(lines, first.collect::<Vec<_>>());
    channel.incoming.mask();
    channel.request(&mut pair, 8, b"");
    channel.receive(&mut pair);
    let lines = scribe.take();
    assert_eq!(lines[1..3], ["Guest @32 DATA_IN_BAND #8 0+0", "Host @32 COMPLETION #8 0+0"]);
    assert_eq!(lines[3], "in 56/56 out 32/56 mask 1 false false 1/16");
    pair.close(channel);
    assert_eq!(scribe.take().iter().filter(|line| *line == "closed").count(), 1);
}

/// RNDIS requests and answers are few, and a packet alone says nothing of them.
#[test]
fn control_messages_of_a_card_are_shown_and_frames_where_data_is_wanted() {
    for data in [false, true] {
        let (mut pair, scribe) = tapped(data);
        let instance = Guid::from_text_order(1);
        let options = CardOptions { instance, mac: Mac([2, 0, 0, 0, 0, 7]), mtu: 9000, queues: 1 };
        pair.add(NetworkCard::new(&options, Network::loopback()));
        let offer = *pair.connect(Version::V5_3).offer(class::NETWORK);
        let mut driver = Netvsc::open(&mut pair, &offer, 32);
        driver.init(&mut pair, busway_wire::nvsp::Version::V6_1);
        driver.share(&mut pair);
        driver.initialize(&mut pair);
        let shown = scribe.outside();
        let [(Side::Guest, _, request), (Side::Host, _, answer)] = &*shown else {
            panic!("{shown:?}");
        };
        assert!(matches!(Control::parse(request), Ok(Control::Initialize(_))));
        assert_eq!(answer[..4], [2, 0, 0, 0x80]);
        let message = message(&[], &[0xff; 60]);
        driver.send_pages(&mut pair, &[&message], None);
        let frames = scribe.outside();
        assert_eq!(!frames.is_empty(), data);
        if let Some((side, _, bytes)) = frames.first() {
            assert_eq!((*side, bytes), (Side::Guest, &message));
        }
    }
}

#[test]
fn data_of_a_disk_is_shown_where_it_is_wanted_and_whole() {
    for data in [false, true] {
        let (mut pair, scribe) = tapped(data);
        let disk = Disk::ram(1 << 20, &DiskOptions::default()).unwrap();
        let luns = Luns::new([(0, disk)]).unwrap();
        let controller = StorageController::new(Guid::from_text_order(1), luns);
        let units = controller.units();
        pair.add(controller);
        let offer = *pair.connect(Version::V5_3).offer(class::SCSI);
        let channel = pair.open(&offer, 32, 0).unwrap();
        let mut storvsc = Storvsc { pair, offer, channel, units, packet_len: 64 };
        storvsc.handshake(0x0602);
        let buffer = storvsc.buffer(0, 512);
        storvsc.write(0, &cdb_10(0x2a, 0, 0, 1), &buffer);
        storvsc.read(0, &cdb_10(0x28, 0, 0, 1), &buffer);
        storvsc.read(0, &[0x12, 0, 0, 0, 36, 0], &buffer);
        let lines = scribe.take();
        let id = |kind: PacketType| {
            let is = |line: &&String| line.contains(&kind.to_string());
            let line = lines.iter().find(is).unwrap();
            line.split(['#', ' ']).nth(4).unwrap().parse::<u64>().unwrap()
        };
        let shown = scribe.outside();
        let lens: Vec<_> = shown.iter().map(|(side, _, bytes)| (*side, bytes.len())).collect();
        if data {
            assert_eq!(lens, [(Side::Guest, 512), (Side::Host, 512), (Side::Host, 36)]);
            assert_eq!(shown[0].2, shown[1].2, "what was written is read");
            assert_eq!(shown[0].1, id(PacketType::DATA_USING_GPA_DIRECT));
        } else {
            assert_eq!(lens, []);
        }
    }
}
