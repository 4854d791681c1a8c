// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames through each kind of queue that needs no rights.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use busway_memory::{GuestAddress, GuestMemory, GuestSlices, Region};

use crate::{FrameHeader, GsoType, HeaderFlags, MAX_FRAME, Network, Queue};

/// Two pages that are no neighbours, with `bytes` in them from 40 bytes before their border on.
fn slices(bytes: &[u8]) -> GuestSlices {
    let region = Region { start: GuestAddress(0), len: 64 * 4096 };
    let memory = GuestMemory::allocate(&[region]).unwrap();
    let mut slices = GuestSlices::new(memory);
    slices.push(GuestAddress(5 * 4096 - 40), 40).unwrap();
    slices.push(GuestAddress(9 * 4096), 20 * 4096).unwrap();
    slices.write(bytes);
    slices
}

fn send(queue: &mut Queue, frame: &[u8]) {
    let slices = slices(frame);
    queue.send(&FrameHeader::none(), &[], slices.part(0, frame.len()).unwrap()).unwrap();
}

fn receive(queue: &mut Queue, room: usize) -> Option<Vec<u8>> {
    let slices = slices(&[]);
    let len = queue.receive(slices.part(0, room).unwrap()).unwrap()?;
    let mut bytes = vec![0; len];
    slices.read_at(0, &mut bytes);
    Some(bytes)
}

fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 % 251) as u8).collect()
}

#[test]
fn what_is_sent_to_nobody_comes_back() {
    let mut queue = Network::loopback().queue(0).unwrap();
    assert_eq!(receive(&mut queue, 100), None);
    let frame = noise(300);
    let slices = slices(&frame[14..]);
    let header = FrameHeader {
        flags: HeaderFlags(HeaderFlags::NEEDS_CHECKSUM),
        gso_type: GsoType::TCP4,
        header_len: 54,
        segment_len: 1448,
        checksum_start: 34,
        checksum_offset: 16,
    };
    queue.send(&header, &frame[..14], slices.part(0, 286).unwrap()).unwrap();
    let received = receive(&mut queue, 1000).unwrap();
    assert_eq!(received[..10], [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0]);
    assert_eq!(received[10..], frame);
    send(&mut queue, &frame);
    assert_eq!(receive(&mut queue, 60).unwrap().len(), 60, "what does not fit is cut off");
    send(&mut queue, &frame);
    assert!(queue.discard().unwrap() && !queue.discard().unwrap());
}

#[test]
fn a_sockets_frames_stand_behind_their_lengths() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut queue = Network::connected(ours).unwrap().queue(0).unwrap();
    let frame = noise(300);
    send(&mut queue, &frame);
    let mut bytes = [0; 304];
    theirs.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes[..4], [0, 0, 1, 44]);
    assert_eq!(bytes[4..], frame);
    assert_eq!(receive(&mut queue, 1000), None);
    // In pieces, and two at once.
    theirs.write_all(&bytes[..3]).unwrap();
    assert_eq!(receive(&mut queue, 1000), None);
    theirs.write_all(&bytes[3..200]).unwrap();
    assert_eq!(receive(&mut queue, 1000), None);
    theirs.write_all(&bytes[200..]).unwrap();
    theirs.write_all(&bytes).unwrap();
    for _ in 0..2 {
        let received = receive(&mut queue, 1000).unwrap();
        assert_eq!((&received[..10], &received[10..]), (&[0; 10][..], &frame[..]));
    }
    theirs.write_all(&bytes).unwrap();
    assert!(queue.discard().unwrap() && !queue.discard().unwrap());
}

#[test]
fn a_slow_socket_holds_frames_back_and_loses_none() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let network = Network::connected(ours).unwrap();
    let mut queue = network.queue(0).unwrap();
    let frame = noise(60_000);
    let mut sent = 0;
    while !queue.is_full() {
        send(&mut queue, &frame);
        sent += 1;
    }
    assert!(sent < 1000);
    // The channel is closed and opened again in the middle of a frame.
    drop(queue);
    let mut queue = network.queue(0).unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = vec![0; 60_004];
        for _ in 0..sent {
            theirs.read_exact(&mut bytes).unwrap();
            assert!(bytes[4..] == noise(60_000));
        }
    });
    while queue.is_full() {
        std::thread::yield_now();
    }
    reader.join().unwrap();
}

#[test]
fn nonsense_on_a_socket_ends_it() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut queue = Network::connected(ours).unwrap().queue(0).unwrap();
    let too_long = u32::try_from(MAX_FRAME + 1).unwrap();
    theirs.write_all(&too_long.to_be_bytes()).unwrap();
    assert_eq!(receive(&mut queue, 1000), None);
    theirs.write_all(&[0, 0, 0, 1, 7]).unwrap();
    assert_eq!(receive(&mut queue, 1000), None, "nothing is believed any more");
    let slices = slices(&[1]);
    assert!(queue.send(&FrameHeader::none(), &[], slices.part(0, 1).unwrap()).is_err());
}

#[test]
fn a_socket_that_closes_is_quiet() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut queue = Network::connected(ours).unwrap().queue(0).unwrap();
    drop(theirs);
    assert_eq!(receive(&mut queue, 1000), None);
    assert!(!queue.is_full());
}

fn ended(queue: &mut Queue) -> bool {
    let slices = slices(&dhcp_discover());
    queue.send(&FrameHeader::none(), &[], slices.part(0, 342).unwrap()).is_err()
}

/// A question for an address, as a guest asks it (RFC 2131).
fn dhcp_discover() -> Vec<u8> {
    let mac = [2, 0, 0, 0, 0, 7];
    let mut dhcp = vec![0; 300];
    dhcp[..8].copy_from_slice(&[1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78]);
    dhcp[28..34].copy_from_slice(&mac);
    dhcp[236..244].copy_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    let mut frame = [&[0xff; 6], &mac[..], &[8, 0]].concat();
    // IPv4 of 328 bytes, UDP, from nowhere to everybody; its checksum, and none of UDP's.
    frame.extend([0x45, 0, 1, 72, 0, 0, 0, 0, 64, 17, 0x79, 0xa6, 0, 0, 0, 0, 255, 255, 255, 255]);
    frame.extend([0, 68, 0, 67, 1, 52, 0, 0]);
    frame.extend(dhcp);
    frame
}

/// Where passt is installed, and finds a way out of the machine.
#[test]
fn passt_gives_an_address() {
    let network = match Network::passt() {
        Ok(network) => network,
        Err(error) => return println!("left out: {error}"),
    };
    let mut queue = network.queue(0).unwrap();
    send(&mut queue, &dhcp_discover());
    for _ in 0..2000 {
        match receive(&mut queue, 2000) {
            // An offer is for the one who asked, and repeats his number.
            Some(frame) if frame[10 + 46..].starts_with(&[0x12, 0x34, 0x56, 0x78]) => return,
            Some(_) => {}
            None if ended(&mut queue) => return println!("left out: passt has ended"),
            None => std::thread::sleep(std::time::Duration::from_millis(10)),
        }
    }
    panic!("passt does not answer");
}

#[test]
fn what_cannot_be_opened_says_what_helps() {
    let error = |error: crate::OpenError| error.to_string();
    let none = error(Network::tap("busway-none", 1).unwrap_err());
    assert!(none.contains("ip tuntap add busway-none mode tap"), "{none}");
    let not_tap = error(Network::tap("lo", 1).unwrap_err());
    assert!(not_tap.contains("'lo' is no TAP"), "{not_tap}");
    let socket = error(Network::socket("/nonexistent/socket".as_ref()).unwrap_err());
    assert!(socket.contains("start the program"), "{socket}");
}
