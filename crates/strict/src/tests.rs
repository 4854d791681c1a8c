// SPDX-License-Identifier: MIT OR Apache-2.0

//! Each rule on a guest that breaks it, and all of them on a guest that breaks none.

mod control;
mod packets;
mod payloads;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use busway_integration::Heartbeat;
use busway_testkit::{Pair, PairConfig};
use busway_vmbus::{
    Cause, Event, InterruptTarget, MessageTarget, Passing, Place, Published, Side, Tap, Traffic,
};
use busway_wire::control::HostMessage;
use busway_wire::packet::{Descriptor, PacketType};
use busway_wire::{Guid, Version, class};

use crate::{Checker, Finding, Rule};

/// Bytes of each ring.
const RING: u32 = 128 << 10;

/// A checker, and what it has found.
#[derive(Default)]
struct Bench {
    checker: Checker,
    found: Vec<Finding>,
}

impl Bench {
    fn see(&mut self, what: &Passing<'_>) {
        self.checker.see(what, &mut self.found);
    }

    fn guest(&mut self, bytes: &[u8]) {
        self.see(&Passing::GuestMessage(bytes));
    }

    fn host(&mut self, message: &HostMessage) {
        let bytes = message.encode();
        self.see(&Passing::HostMessage(MessageTarget { vp: 0, sint: 2 }, bytes.as_bytes()));
    }

    fn event(&mut self, place: &Place, event: Event<'_>) {
        self.see(&Passing::Channel(place, event));
    }

    fn packet(&mut self, place: &Place, side: Side, sent: &Sent<'_>) {
        let Sent { kind, flags, id, header, payload } = *sent;
        let data_offset8 = 2 + (header.len() / 8) as u16;
        let total_len8 = data_offset8 + payload.len().div_ceil(8) as u16;
        let transaction_id = id;
        let descriptor = Descriptor { kind, data_offset8, total_len8, flags, transaction_id };
        let descriptor = &descriptor;
        self.event(place, Event::Packet { side, at: 0, descriptor, header, payload });
    }

    /// The rules that were broken since this was asked last.
    fn broken(&mut self) -> Vec<Rule> {
        self.found.drain(..).map(|finding| finding.rule).collect()
    }
}

/// A packet of either side.
#[derive(Clone, Copy)]
struct Sent<'a> {
    kind: PacketType,
    flags: u16,
    id: u64,
    header: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Sent<'a> {
    const fn in_band(id: u64, payload: &'a [u8]) -> Self {
        Self { kind: PacketType::DATA_IN_BAND, flags: 1, id, header: &[], payload }
    }

    const fn completion(id: u64) -> Self {
        Self { kind: PacketType::COMPLETION, flags: 0, id, header: &[], payload: &[0; 8] }
    }
}

/// An open channel of this class.
fn place(class: Guid) -> Place {
    struct Opened(Mutex<Option<Place>>);
    impl Tap for Opened {
        fn passes(&self, what: &Passing<'_>) {
            if let Passing::Channel(place, Event::Opened { .. }) = what {
                *self.0.lock().unwrap() = Some(**place);
            }
        }

        fn wants_data(&self) -> bool {
            false
        }
    }
    let tap = Arc::new(Opened(Mutex::default()));
    let mut pair = Pair::new(PairConfig { ram_pages: 64, ..PairConfig::default() });
    pair.bus.tap(tap.clone());
    pair.add(Heartbeat::new(Duration::from_secs(2)).unwrap().device());
    let offer = *pair.connect(Version::V5_3).offer(class::HEARTBEAT);
    pair.open(&offer, 4, 0).unwrap();
    let place = tap.0.lock().unwrap().unwrap();
    Place { class, ..place }
}

/// What a tap sees of a guest that keeps to the rules, from contact to unload.
#[test]
fn a_guest_of_the_testkit_breaks_none() {
    struct Checking(Mutex<Bench>);
    impl Tap for Checking {
        fn passes(&self, what: &Passing<'_>) {
            self.0.lock().unwrap().see(what);
        }

        fn wants_data(&self) -> bool {
            true
        }
    }
    let tap = Arc::new(Checking(Mutex::default()));
    let mut pair = Pair::new(PairConfig::default());
    pair.bus.tap(tap.clone());
    pair.add(Heartbeat::new(Duration::from_secs(2)).unwrap().device());
    let offer = *pair.connect(Version::V5_3).offer(class::HEARTBEAT);
    let channel = pair.open(&offer, 4, 0).unwrap();
    assert_eq!(pair.modify(offer.relid, 1), Some(0));
    pair.close(channel);
    // More pages than one message holds.
    let pfns = pair.pages.take_many(100);
    let gpadl = pair.make_gpadl(offer.relid, &pfns).unwrap();
    pair.teardown(offer.relid, gpadl);
    pair.unload();
    pair.connect(Version::V2_4);
    assert_eq!(tap.0.lock().unwrap().found, []);
    // And one that does not, by the same way.
    pair.post_bytes(&[7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(tap.0.lock().unwrap().broken(), [Rule::UseAfterClose]);
}

#[test]
fn a_finding_names_all_that_is_known_of_it() {
    let mut bench = Bench::default();
    let place = place(class::SCSI);
    let packet = Sent { kind: PacketType(1), ..Sent::in_band(0x2a, &[0; 64]) };
    bench.packet(&place, Side::Guest, &packet);
    assert_eq!(
        bench.found[0].to_string(),
        format!(
            "packet-type: storage, channel {}: PacketType(0x1) id=0x2a: type is 1, expected 6 to 12 \
             (include/linux/hyperv.h, enum vmbus_packet_type)",
            place.key
        )
    );
}

#[test]
fn every_rule_is_written_down() {
    let page = include_str!("../../../docs/strict.md");
    for rule in Rule::ALL {
        let line = format!("| `{}` | {} | {} |", rule.name(), rule.demand(), rule.source());
        assert!(page.contains(&line), "docs/strict.md: {line}");
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Rule::ALL.len());
}
