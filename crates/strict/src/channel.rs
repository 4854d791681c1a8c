// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets and signals of one open channel.

use std::collections::{HashMap, HashSet};

use busway_vmbus::{Cause, Event, Place, Published, Side};
use busway_wire::packet::{Descriptor, GpaDirectHeader, GpaRanges, PacketType};
use busway_wire::{class, packet};
use zerocopy::FromBytes;

use crate::{At, Finding, Rule, demand, network, pipe, storage};

/// Transaction ids that are followed, of each side; what goes beyond is not checked.
const MAX_IDS: usize = 16 << 10;

/// Signals that may still be on their way: each processor of a guest may have been interrupted
/// between its packet and its signal.
const MAX_LATE: u32 = 64;

/// Room below which the host may have asked for a signal when there is more.
const CROWDED: u32 = 32 << 10;

/// What an open channel has shown so far.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    /// The guest's requests that the host has not answered.
    asked: HashSet<u64>,
    /// The host's packets that the guest has not completed, and how many have each id.
    told: HashMap<u64, u32>,
    /// There were more of the host's than are followed.
    overflowed: bool,
    /// Bytes that the host can have in its ring.
    outgoing_len: u32,
    /// Signals that the guest may have owed the host, and that are not seen yet.
    late: u32,
    /// The turn was for a signal, and nothing was found so far.
    idle_turn: bool,
    pub(crate) component: pipe::Component,
}

/// A packet of the guest's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) place: &'a Place,
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) payload: &'a [u8],
    /// Bytes in its external pages, if all of its ranges make sense.
    pub(crate) outside: Option<u64>,
}

impl Packet<'_> {
    /// What is wrong with it.
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike, at many calls")]
    pub(crate) fn finding(
        &self,
        rule: Rule,
        field: &'static str,
        value: impl ToString,
        expected: impl ToString,
    ) -> Finding {
        let at = At::on(self.place, Some(self.descriptor.transaction_id), self.descriptor.kind);
        Finding { rule, at, field, value: value.to_string(), expected: expected.to_string() }
    }
}

impl Channel {
    pub(crate) fn see(&mut self, place: &Place, event: &Event<'_>, found: &mut Vec<Finding>) {
        match *event {
            Event::Opened { outgoing_len, .. } => {
                *self = Self { outgoing_len, ..Self::default() };
            }
            Event::Turn(cause) => self.turn(place, cause, found),
            Event::Packet { side: Side::Guest, descriptor, header, payload, .. } => {
                self.guest_packet(place, descriptor, header, payload, found);
            }
            Event::Packet { side: Side::Host, descriptor, payload, .. } => {
                self.host_packet(place, descriptor, payload);
            }
            Event::Outside { side: Side::Guest, transaction_id, len, read } => {
                if place.class == class::NETWORK {
                    network::messages(place, transaction_id, len, read, found);
                }
            }
            Event::Published(published) => self.published(&published),
            Event::Outside { .. } | Event::Timed(_) | Event::Closed => {}
        }
    }

    #[cfg(test)]
    pub(crate) fn ids(&self) -> (usize, usize) {
        (self.asked.len(), self.told.len())
    }

    /// The last turn is over, and another begins.
    ///
    /// A signal that finds nothing is not wrong by itself: what it was for may have been found in a
    /// turn that it did not cause. So each batch of packets allows for one such signal.
    fn turn(&mut self, place: &Place, cause: Cause, found: &mut Vec<Finding>) {
        if std::mem::take(&mut self.idle_turn) {
            match self.late.checked_sub(1) {
                Some(late) => self.late = late,
                None => {
                    let at = At::on(place, None, "signal");
                    let (field, value) = ("the guest's ring", "empty, as before".to_owned());
                    let expected = "a new packet, or room that was waited for".to_owned();
                    let rule = Rule::SignalNeedless;
                    found.push(Finding { rule, at, field, value, expected });
                }
            }
        }
        match cause {
            Cause::Signal => self.idle_turn = true,
            // The host may have called itself, and that call comes as a signal after this turn.
            Cause::Start | Cause::More | Cause::BackEnd(_) => self.may_be_late(),
        }
    }

    fn may_be_late(&mut self) {
        self.late = (self.late + 1).min(MAX_LATE);
    }

    fn published(&mut self, rings: &Published) {
        if rings.taken.packets != 0 {
            // The first batch is what this turn's signal was for.
            if !std::mem::take(&mut self.idle_turn) {
                self.may_be_late();
            }
        }
        let (write, read, len) = (rings.outgoing_write, rings.outgoing_read, self.outgoing_len);
        let used = write.checked_sub(read).unwrap_or_else(|| len.saturating_sub(read - write));
        let free = len.saturating_sub(used);
        if used != 0 && (free < CROWDED || free < len / 2) {
            self.may_be_late();
        }
    }

    fn host_packet(&mut self, place: &Place, descriptor: &Descriptor, payload: &[u8]) {
        let id = descriptor.transaction_id;
        if descriptor.kind == PacketType::COMPLETION {
            self.asked.remove(&id);
            return;
        }
        if descriptor.wants_completion() {
            if self.told.len() < MAX_IDS || self.told.contains_key(&id) {
                let count = self.told.entry(id).or_default();
                *count = count.saturating_add(1);
            } else {
                self.overflowed = true;
            }
        }
        self.component.host(place.class, payload);
    }

    fn guest_packet(
        &mut self,
        place: &Place,
        descriptor: &Descriptor,
        header: &[u8],
        payload: &[u8],
        found: &mut Vec<Finding>,
    ) {
        let outside = match descriptor.kind {
            PacketType::DATA_USING_GPA_DIRECT => outside_len(header),
            _ => None,
        };
        let packet = Packet { place, descriptor, payload, outside };
        check_descriptor(&packet, header, found);
        self.check_ids(&packet, found);
        match place.class {
            _ if !is_request(descriptor.kind) => {}
            class::SCSI | class::IDE | class::FIBRE_CHANNEL => storage::request(&packet, found),
            class::NETWORK => network::request(&packet, found),
            class::MOUSE => pipe::packet(&packet, found),
            class if pipe::is_component(class) => {
                pipe::packet(&packet, found);
                self.component.guest(&packet, found);
            }
            _ => {}
        }
    }

    fn check_ids(&mut self, packet: &Packet<'_>, found: &mut Vec<Finding>) {
        let id = packet.descriptor.transaction_id;
        if packet.descriptor.kind == PacketType::COMPLETION {
            let known = match self.told.get_mut(&id) {
                Some(1) => self.told.remove(&id).is_some(),
                Some(count) => {
                    *count -= 1;
                    true
                }
                None => self.overflowed,
            };
            demand(known, found, || {
                let expected = "the id of a packet of the host's that waits for one";
                packet.finding(Rule::CompletionUnknown, "trans_id", hex(id), expected)
            });
        } else if packet.descriptor.wants_completion() && self.asked.len() < MAX_IDS {
            let is_new = self.asked.insert(id);
            demand(is_new, found, || {
                let expected = "one that no request without answer has";
                packet.finding(Rule::IdReused, "trans_id", hex(id), expected)
            });
        }
    }
}

fn is_request(kind: PacketType) -> bool {
    kind == PacketType::DATA_IN_BAND || kind == PacketType::DATA_USING_GPA_DIRECT
}

fn check_descriptor(packet: &Packet<'_>, header: &[u8], found: &mut Vec<Finding>) {
    let descriptor = packet.descriptor;
    let kind = descriptor.kind;
    demand(kind.name().is_some(), found, || {
        packet.finding(Rule::PacketType, "type", kind.0, "6 to 12")
    });
    let allowed = match kind {
        PacketType::COMPLETION => 0,
        _ => packet::COMPLETION_REQUESTED,
    };
    demand(descriptor.flags & !allowed == 0, found, || {
        let expected = if allowed == 0 { "0" } else { "0 or 1" };
        packet.finding(Rule::PacketFlags, "flags", hex(descriptor.flags.into()), expected)
    });
    match kind {
        PacketType::DATA_USING_GPA_DIRECT => check_ranges(packet, header, found),
        PacketType::DATA_IN_BAND | PacketType::COMPLETION | PacketType::CANCEL_REQUEST => {
            demand(header.is_empty(), found, || {
                let offset = descriptor.data_offset8;
                packet.finding(Rule::PacketOffset, "offset8", offset, "2")
            });
        }
        _ => {}
    }
}

fn check_ranges(packet: &Packet<'_>, header: &[u8], found: &mut Vec<Finding>) {
    if let Ok((GpaDirectHeader { reserved, .. }, _)) = GpaDirectHeader::read_from_prefix(header) {
        demand(reserved == 0, found, || {
            packet.finding(Rule::GpaReserved, "reserved", hex(reserved.into()), "0")
        });
    }
    let wrong = match GpaRanges::parse(header) {
        Ok(mut ranges) => ranges.find_map(Result::err),
        Err(error) => Some(error),
    };
    if let Some(error) = wrong {
        let expected = "ranges that fit before the data";
        found.push(packet.finding(Rule::GpaRanges, "the ranges", error, expected));
    }
}

/// Bytes in the ranges.
fn outside_len(header: &[u8]) -> Option<u64> {
    let mut sum = 0_u64;
    for range in GpaRanges::parse(header).ok()? {
        sum += u64::from(range.ok()?.header.byte_count);
    }
    Some(sum)
}

fn hex(value: u64) -> String {
    format!("{value:#x}")
}
