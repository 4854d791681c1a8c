// SPDX-License-Identifier: MIT OR Apache-2.0

//! bus/churn: what the control plane costs, with many channels beside the one that is worked on.

use busway_ring::Packet;
use busway_testkit::{Pair, PairConfig};
use busway_vmbus::{ChannelHandler, Device, Fault, Io, Offer, Opening};
use busway_wire::control::layout::OfferChannel;
use busway_wire::{Guid, Version};

use crate::report::{Line, time};

struct Idle(u128);

struct IdleChannel;

impl Device for Idle {
    fn offer(&self) -> Offer {
        Offer::new(Guid::from_text_order(0xb), Guid::from_text_order(self.0))
    }

    fn open(&mut self, _opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
        Ok(Box::new(IdleChannel))
    }
}

impl ChannelHandler for IdleChannel {
    fn on_packet(&mut self, _packet: Packet<'_>, _io: &mut Io<'_>) -> Result<(), Fault> {
        Ok(())
    }
}

pub fn run(lines: &mut Vec<Line>) {
    let mut alone = [None; 3];
    for channels in [1, 16, 256, 2000] {
        let config = PairConfig { ram_pages: 65_536, ..PairConfig::default() };
        let mut pair = Pair::new(config);
        for instance in 0..channels {
            pair.add(Idle(instance));
        }
        let offers = pair.connect(Version::V5_3).offers;
        let last = *offers.last().expect("an offer");
        let pfns = pair.pages.take_many(8190);
        let rings = pair.pages.take_many(8);
        let gpadl = pair.make_gpadl(last.relid, &rings).expect("a list");

        let figures = [
            ("open+close", time(1, || open_and_close(&mut pair, &last, gpadl, &rings))),
            ("gpadl of 8190 pages", time(1, || make_and_drop(&mut pair, last.relid, &pfns))),
            ("offer+rescind", time(1, || come_and_go(&mut pair))),
        ];
        for ((what, value), alone) in figures.into_iter().zip(&mut alone) {
            let limit = *alone.get_or_insert(value);
            let params = format!("{what} channels={channels}");
            lines.push(Line::nanoseconds("bus/churn", params, value, Some(limit)));
        }
    }
}

fn open_and_close(pair: &mut Pair, offer: &OfferChannel, gpadl: u32, pfns: &[u64]) {
    let channel = pair.reopen(offer, gpadl, pfns, 4, 0).expect("an open channel");
    pair.close_only(channel);
}

fn make_and_drop(pair: &mut Pair, relid: u32, pfns: &[u64]) {
    let gpadl = pair.make_gpadl(relid, pfns).expect("a list");
    pair.teardown(relid, gpadl);
}

fn come_and_go(pair: &mut Pair) {
    let id = pair.add(Idle(u128::MAX));
    let relid = pair.expect_offer().relid;
    pair.bus.remove(id);
    pair.expect_rescind();
    pair.release(relid);
}
