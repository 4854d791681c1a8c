// SPDX-License-Identifier: MIT OR Apache-2.0

//! A network card whose messages somebody changes where they lie.

use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use busway_ring::{Outgoing, Packet};
use busway_vmbus::{
    ChannelMeddler, Fault, GuestFate, HeldPacket, HostFate, Meddler, MessageFate, Place, Rewrite,
    Side,
};
use busway_wire::Guid;
use busway_wire::control::MessageType;
use busway_wire::nvsp::Version;
use busway_wire::packet::PacketType;

use crate::netvsc::{Netvsc, message};
use crate::network::{frame, setup};

/// Changes each packet that refers to data in the same way.
struct Rewriter(Rewrite);

struct Rewriting {
    rewrite: Rewrite,
    quiet: (PipeReader, PipeWriter),
}

impl Meddler for Rewriter {
    fn message(&self, _: Side, _: MessageType, _: Option<Guid>, _: &[u8]) -> MessageFate {
        MessageFate::Passes
    }

    fn overdue(&self) -> Option<u64> {
        None
    }

    fn remind(&self, _: Duration) -> Option<u64> {
        None
    }

    fn channel(&self, _: &Place) -> Result<Option<Box<dyn ChannelMeddler>>, Fault> {
        let quiet = std::io::pipe().unwrap();
        Ok(Some(Box::new(Rewriting { rewrite: self.0.clone(), quiet })))
    }
}

impl ChannelMeddler for Rewriting {
    fn sends(&mut self, packet: &Outgoing<'_>) -> HostFate {
        if packet.kind == PacketType::DATA_USING_TRANSFER_PAGES {
            HostFate::Rewrites(self.rewrite.clone())
        } else {
            HostFate::Passes
        }
    }

    fn takes(&mut self, _: &Packet<'_>) -> GuestFate {
        GuestFate::Passes
    }

    fn interrupts(&mut self, is_due: bool) -> bool {
        is_due
    }

    fn late(&mut self) -> Option<HeldPacket> {
        None
    }

    fn holds(&self) -> bool {
        false
    }

    fn renew(&mut self) {}

    fn let_go(&mut self) -> (Vec<HeldPacket>, bool) {
        (Vec::new(), false)
    }

    fn wakeup(&self) -> BorrowedFd<'_> {
        self.quiet.0.as_fd()
    }
}

/// The message that the guest finds, of a frame of 100 bytes that came when these bytes were to change.
fn found(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut setup = setup(1);
    let pair = &mut setup.pair;
    let mut driver = Netvsc::start(pair, &setup.offer, Version::V6_1);
    let rewrite = Rewrite { at, bytes: bytes.to_vec() };
    pair.bus.meddle(Some(Arc::new(Rewriter(rewrite))));
    driver.send_frame(pair, &[], &frame(100));
    let (_, messages) = driver.take_packet(pair).unwrap();
    messages.into_iter().next().unwrap()
}

#[test]
fn a_message_changes_where_it_lies_and_no_further() {
    let right = found(usize::MAX, &[9]);
    let data_offset = u32::from_le_bytes(right[8..12].try_into().unwrap()) as usize;
    assert_eq!(right[8 + data_offset..], frame(100));
    assert_eq!(message(&[], &[])[..4], right[..4], "that is a frame's");

    let wrong = found(8, &[1, 2, 3, 4]);
    assert_eq!(wrong[8..12], [1, 2, 3, 4]);
    assert_eq!((&wrong[..8], &wrong[12..]), (&right[..8], &right[12..]));

    let last = right.len() - 1;
    let wrong = found(last, &[0xee; 4096]);
    assert_eq!((wrong.len(), wrong[last]), (right.len(), 0xee));
}
