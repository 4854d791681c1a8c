// SPDX-License-Identifier: MIT OR Apache-2.0

//! Channels of a network card that hand frames to each other from thread to thread.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use busway_ring::{Outgoing, PacketBuf};
use busway_vmbus::{Channel, Progress};
use busway_wire::nvsp::{Message, MessageType, RndisChannel, RndisPacket};
use busway_wire::packet::{COMPLETION_REQUESTED, PacketType};
use busway_wire::rndis::Oid;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use zerocopy::IntoBytes;

use crate::netvsc::{message, words};
use crate::network::{rss, started, tcp_frame};
use crate::network_plug::open_subchannels;

/// Frames on their way at a time.
const WINDOW: u64 = 48;
const FRAMES: u64 = 40_000;

/// A worker that sleeps until its bell rings or its guest signals, and never looks otherwise.
fn serve(mut channel: Channel, kick: &OwnedFd, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        let (rung, kicked) = {
            let wakeups = channel.wakeups();
            let bell = wakeups.iter().find(|wakeup| wakeup.token == 1).expect("a bell");
            let kick = kick.as_fd();
            let mut fds = [&bell.fd, &kick].map(|fd| PollFd::new(fd, PollFlags::IN));
            poll(&mut fds, None).unwrap();
            let [bell, kick] = fds.map(|fd| !fd.revents().is_empty());
            (bell, kick)
        };
        if rung {
            while channel.ready(1).unwrap() == Progress::More {}
        }
        if kicked {
            let _ = rustix::io::read(kick, &mut [0; 8]);
            while channel.run().unwrap() == Progress::More {}
        }
    }
}

#[test]
fn no_frame_is_forgotten_between_threads() {
    let (mut setup, mut driver) = started(4);
    let pair = &mut setup.pair;
    let mut others = open_subchannels(pair, &mut driver, 3);
    driver.set(pair, Oid::GEN_RECEIVE_SCALE_PARAMETERS, &rss(&[2; 128], &[0x6d; 40]));
    let bytes = message(&[], &tcp_frame(100, 4000, false));
    driver.send.memory.write_at(0, &bytes);
    let (channel, section_len) = (RndisChannel::DATA, bytes.len() as u32);
    let request = RndisPacket { channel, section_index: 0, section_len };
    let request = Message::new(MessageType::SEND_RNDIS_PACKET, &request);
    let mut first = pair.take_channel(&driver.channel);
    let third = pair.take_channel(&others[1]);
    let (kick, done) = (Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap()), Arc::default());
    let worker = thread::spawn({
        let (kick, done) = (Arc::clone(&kick), Arc::clone(&done));
        move || serve(third, &kick, &done)
    });
    let mut buf = PacketBuf::for_ring(64 << 10);
    let (mut sent, mut came, mut patience) = (0, 0, 10_000);
    while came < FRAMES {
        for _ in 0..4.min(FRAMES - sent).min(WINDOW - (sent - came)) {
            let packet = Outgoing::in_band(1, request.as_bytes());
            let packet = Outgoing { flags: COMPLETION_REQUESTED, ..packet };
            driver.channel.outgoing.push(&packet).unwrap();
            sent += 1;
        }
        let _ = driver.channel.outgoing.publish();
        while first.run().unwrap() == Progress::More {}
        while driver.channel.incoming.next(&mut buf).unwrap().is_some() {}
        let _ = driver.channel.incoming.publish();
        let before = came;
        while let Some(packet) = others[1].incoming.next(&mut buf).unwrap() {
            assert_eq!(packet.descriptor.kind, PacketType::DATA_USING_TRANSFER_PAGES);
            came += (packet.header.len() / 8 - 1) as u64;
            let id = packet.descriptor.transaction_id;
            others[1].outgoing.push(&Outgoing::completion(id, &words(&[108, 1]))).unwrap();
        }
        if others[1].incoming.publish() | others[1].outgoing.publish() {
            rustix::io::write(&*kick, &1_u64.to_ne_bytes()).unwrap();
        }
        if came == before && sent - came == WINDOW.min(FRAMES - came) {
            // Only the worker can go on.
            patience -= 1;
            assert!(patience > 0, "{} frames lie somewhere, of {sent}", sent - came);
            thread::sleep(Duration::from_millis(1));
        } else {
            patience = 10_000;
        }
    }
    done.store(true, Ordering::Relaxed);
    rustix::io::write(&*kick, &1_u64.to_ne_bytes()).unwrap();
    worker.join().unwrap();
}
