// SPDX-License-Identifier: MIT OR Apache-2.0

//! hv_sock: connections as channels, against a guest that does as Linux's `hyperv_transport.c`.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use busway_hvsock::{Connection, Directory};
use busway_memory::{Bytes, GuestAddress, PAGE_SIZE};
use busway_ring::{Full, Outgoing};
use busway_testkit::{GuestChannel, Pair, PairConfig};
use busway_vmbus::Device;
use busway_wire::Version;
use busway_wire::control::layout::{OfferChannel, TlConnectRequest};
use busway_wire::control::{GuestMessage, HostMessage};
use busway_wire::hvsock::service;
use tempfile::TempDir;

/// The port that the host listens on.
const PORT: u32 = 1024;

struct Guest {
    pair: Pair,
    listener: UnixListener,
    _place: TempDir,
}

/// Both ends of a connection.
struct Both {
    offer: OfferChannel,
    channel: GuestChannel,
    host: UnixStream,
}

/// A pipe's packet.
fn packet(data: &[u8]) -> Vec<u8> {
    let mut payload = 1_u32.to_le_bytes().to_vec();
    payload.extend((data.len() as u32).to_le_bytes());
    payload.extend(data);
    payload
}

/// The data of a pipe's packet.
fn data(payload: &[u8]) -> &[u8] {
    assert_eq!(payload[..4], 1_u32.to_le_bytes());
    let len = u32::from_le_bytes(payload[4..8].try_into().unwrap()) as usize;
    &payload[8..8 + len]
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

impl Guest {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(place.path());
        let listener = UnixListener::bind(directory.to_host(PORT)).unwrap();
        let mut pair = Pair::new(PairConfig::default());
        pair.bus.set_connector(Box::new(directory));
        assert!(pair.connect(Version::V5_3).offers.is_empty());
        Self { pair, listener, _place: place }
    }

    fn ask(&mut self, from: u32, to: u32) {
        let (guest_endpoint, host_service) = (service(from), service(to));
        let request = TlConnectRequest { guest_endpoint, host_service };
        self.pair.post(&GuestMessage::TlConnectRequest(request, None));
    }

    /// A connection of the guest's, whose rings have so many pages.
    fn connect(&mut self, ring_pages: usize) -> Both {
        self.ask(77, PORT);
        let offer = self.pair.expect_offer();
        let channel = self.pair.open(&offer, ring_pages, 0).unwrap();
        let (host, _) = self.listener.accept().unwrap();
        Both { offer, channel, host }
    }
}

impl Both {
    fn say(&mut self, guest: &mut Guest, data: &[u8]) {
        self.channel.send(&mut guest.pair, &Outgoing::in_band(0, &packet(data)));
        guest.pair.work();
    }

    fn hear(&mut self, guest: &mut Guest) -> Vec<u8> {
        data(&self.channel.receive(&mut guest.pair).payload).to_vec()
    }

    /// Waits for the RESCIND and gives everything back, as a socket does when it is gone.
    fn rescinded(self, guest: &mut Guest) {
        let relid = self.offer.relid;
        assert_eq!(guest.pair.expect_rescind(), relid);
        guest.pair.teardown(relid, self.channel.gpadl());
        guest.pair.release(relid);
        assert_eq!(guest.pair.open_channels(), 0);
    }
}

#[test]
fn a_guest_talks_to_a_program_of_the_host() {
    let mut guest = Guest::new();
    let mut both = guest.connect(7);
    assert_eq!((both.offer.interface_type, both.offer.instance), (service(PORT), service(77)));
    assert_eq!(both.offer.flags, 0x2000);
    assert_eq!(both.offer.user_defined[4], 0, "the guest has asked for it");
    both.say(&mut guest, b"hello");
    let mut heard = [0; 5];
    both.host.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    both.host.write_all(b"good morning").unwrap();
    assert_eq!(both.hear(&mut guest), b"good morning");
    // The guest has no more to say, and listens on.
    both.say(&mut guest, b"");
    assert_eq!(both.host.read(&mut heard).unwrap(), 0);
    both.host.write_all(b"still").unwrap();
    assert_eq!(both.hear(&mut guest), b"still");
    assert_eq!(guest.pair.take_message(), None);
    both.host.shutdown(Shutdown::Write).unwrap();
    assert_eq!(both.hear(&mut guest), b"");
    both.rescinded(&mut guest);
}

#[test]
fn the_host_may_end_first() {
    let mut guest = Guest::new();
    let mut both = guest.connect(7);
    both.host.shutdown(Shutdown::Write).unwrap();
    assert_eq!(both.hear(&mut guest), b"");
    both.say(&mut guest, b"last words");
    both.say(&mut guest, b"");
    let mut heard = Vec::new();
    both.host.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"last words");
    both.rescinded(&mut guest);
}

#[test]
fn nobody_listens() {
    let mut guest = Guest::new();
    for host_service in [service(9), busway_wire::class::SCSI] {
        let guest_endpoint = service(77);
        let request = TlConnectRequest { guest_endpoint, host_service };
        guest.pair.post(&GuestMessage::TlConnectRequest(request, None));
        let Some(HostMessage::TlConnectResult(result)) = guest.pair.take_message() else {
            panic!("the guest waits");
        };
        assert_eq!((result.guest_endpoint, result.host_service), (guest_endpoint, host_service));
        assert_eq!(result.status, 0xc000_0236);
    }
}

#[test]
fn five_thousand_connections_leave_nothing_behind() {
    let mut guest = Guest::new();
    let pfns = guest.pair.pages.take_many(14);
    for _ in 0..5000 {
        guest.ask(77, PORT);
        let offer = guest.pair.expect_offer();
        assert_eq!(offer.relid, 1, "the same is used again");
        for pfn in &pfns {
            guest.pair.memory.write_slice(&[0; PAGE_SIZE], GuestAddress(pfn << 12)).unwrap();
        }
        let gpadl = guest.pair.make_gpadl(offer.relid, &pfns).unwrap();
        let channel = guest.pair.reopen(&offer, gpadl, &pfns, 7, 0).unwrap();
        let (host, _) = guest.listener.accept().unwrap();
        let mut both = Both { offer, channel, host };
        both.say(&mut guest, b"");
        both.host.shutdown(Shutdown::Both).unwrap();
        assert_eq!(both.hear(&mut guest), b"");
        both.rescinded(&mut guest);
    }
}

#[test]
fn many_connections_at_once_are_told_apart() {
    let mut guest = Guest::new();
    let mut all: Vec<Both> = (0..256).map(|_| guest.connect(7)).collect();
    for (number, both) in (0_u32..).zip(&mut all) {
        both.say(&mut guest, &number.to_le_bytes());
    }
    for (number, both) in (0_u32..).zip(&mut all) {
        let mut heard = [0; 4];
        both.host.read_exact(&mut heard).unwrap();
        assert_eq!(u32::from_le_bytes(heard), number);
    }
}

/// A program that does not read holds its guest back, and nothing is lost.
#[test]
fn a_slow_program_gets_everything() {
    let mut guest = Guest::new();
    let mut both = guest.connect(8);
    let all = noise(2 << 20);
    let mut parts = all.chunks(4088).peekable();
    let mut heard: Vec<u8> = Vec::new();
    let mut stopped = false;
    while let Some(part) = parts.peek() {
        match both.channel.outgoing.push(&Outgoing::in_band(0, &packet(part))) {
            Ok(()) => {
                parts.next();
                if both.channel.outgoing.publish() {
                    guest.pair.signal(both.channel.connection_id());
                }
            }
            Err(Full::NoRoom { .. }) => {
                stopped = true;
                let mut some = [0; 10_000];
                let len = both.host.read(&mut some).unwrap();
                heard.extend(&some[..len]);
            }
            Err(error) => panic!("{error}"),
        }
        guest.pair.work();
    }
    assert!(stopped, "the guest was held back");
    both.host.set_nonblocking(true).unwrap();
    while heard.len() < all.len() {
        let mut some = [0; 10_000];
        let len = both.host.read(&mut some).unwrap_or(0);
        heard.extend(&some[..len]);
        guest.pair.work();
    }
    assert!(heard == all);
}

/// And so does a guest that does not read hold back its program.
#[test]
fn a_slow_guest_gets_everything() {
    let mut guest = Guest::new();
    let mut both = guest.connect(6);
    let all = noise(2 << 20);
    let sending = std::thread::scope(|scope| {
        let (mut host, all) = (both.host.try_clone().unwrap(), &all);
        let sending = scope.spawn(move || {
            host.write_all(all).unwrap();
            host.shutdown(Shutdown::Write).unwrap();
        });
        let mut heard = Vec::new();
        loop {
            let part = both.hear(&mut guest);
            if part.is_empty() {
                break;
            }
            assert!(part.len() <= 16 << 10, "Linux takes no more in a packet");
            heard.extend(part);
        }
        assert!(heard == *all);
        sending.join()
    });
    sending.unwrap();
}

#[test]
fn a_program_that_vanishes_is_the_end() {
    let mut guest = Guest::new();
    let mut both = guest.connect(7);
    both.say(&mut guest, b"unread");
    let Both { offer, mut channel, host } = both;
    drop(host);
    assert_eq!(data(&channel.receive(&mut guest.pair).payload), b"");
    // What it says now is for nobody.
    channel.send(&mut guest.pair, &Outgoing::in_band(0, &packet(b"hello?")));
    assert_eq!(guest.pair.expect_rescind(), offer.relid);
}

#[test]
fn a_guest_that_closes_its_channel_hangs_up() {
    let mut guest = Guest::new();
    let Both { offer, channel, mut host } = guest.connect(7);
    let (relid, gpadl) = (offer.relid, channel.gpadl());
    guest.pair.close_only(channel);
    assert_eq!(guest.pair.expect_rescind(), relid);
    guest.pair.teardown(relid, gpadl);
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_guest_that_breaks_the_rules_loses_its_connection_only() {
    let mut guest = Guest::new();
    let mut other = guest.connect(7);
    for wrong in [&[9; 16][..], &[1, 0, 0, 0, 255, 0, 0, 0], &[]] {
        let mut both = guest.connect(7);
        both.channel.send(&mut guest.pair, &Outgoing::in_band(0, wrong));
        both.rescinded_with(&mut guest, other.offer.relid);
    }
    let mut both = guest.connect(7);
    both.say(&mut guest, b"");
    both.say(&mut guest, b"more");
    both.rescinded_with(&mut guest, other.offer.relid);
    assert_eq!(guest.pair.faults.len(), 4);
    other.say(&mut guest, b"fine");
    other.host.read_exact(&mut [0; 4]).unwrap();
}

impl Both {
    /// As `rescinded`, while another connection is open.
    fn rescinded_with(self, guest: &mut Guest, other: u32) {
        assert_ne!(self.offer.relid, other);
        assert_eq!(guest.pair.expect_rescind(), self.offer.relid);
        guest.pair.teardown(self.offer.relid, self.channel.gpadl());
        guest.pair.release(self.offer.relid);
        assert_eq!(guest.pair.open_channels(), 1);
    }
}

/// The next kernel has not asked for what the one before had.
#[test]
fn connections_end_with_their_guest() {
    let mut guest = Guest::new();
    let mut both = guest.connect(7);
    guest.pair.unload();
    assert_eq!(both.host.read(&mut [0]).unwrap(), 0);
    assert!(guest.pair.connect(Version::V5_3).offers.is_empty());
}

fn of_host(pair: &mut Pair) -> (UnixStream, OfferChannel, busway_hvsock::Opened) {
    let (program, ours) = UnixStream::pair().unwrap();
    let (connection, opened) = Connection::of_host(2000, 1 << 30, ours).unwrap();
    pair.add(connection);
    (program, pair.expect_offer(), opened)
}

#[test]
fn a_program_talks_to_a_listener_of_the_guest() {
    let mut pair = Pair::new(PairConfig::default());
    pair.connect(Version::V5_3);
    let (mut program, offer, opened) = of_host(&mut pair);
    assert_eq!((offer.interface_type, offer.instance), (service(2000), service(1 << 30)));
    assert_eq!(offer.user_defined[4], 1, "the host has asked for it");
    assert!(opened.try_recv().is_err());
    let mut channel = pair.open(&offer, 7, 0).unwrap();
    opened.recv().unwrap();
    let mut line = [0; 14];
    program.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"OK 1073741824\n");
    program.write_all(b"hello").unwrap();
    assert_eq!(data(&channel.receive(&mut pair).payload), b"hello");
    // Too late to take it back.
    pair.bus.remove_unopened(offer.instance);
    assert_eq!(pair.take_message(), None);
}

#[test]
fn an_offer_that_no_listener_takes_is_taken_back() {
    let mut pair = Pair::new(PairConfig::default());
    pair.connect(Version::V5_3);
    let (mut program, offer, opened) = of_host(&mut pair);
    pair.bus.remove_unopened(offer.instance);
    assert_eq!(pair.expect_rescind(), offer.relid);
    assert_eq!(program.read(&mut [0]).unwrap(), 0);
    assert!(opened.recv().is_err());
    pair.release(offer.relid);
    // A guest may also say that it wants none of it.
    let (mut program, offer, _opened) = of_host(&mut pair);
    pair.release(offer.relid);
    assert_eq!(program.read(&mut [0]).unwrap(), 0);
}

/// A device is not told from others by its offer alone: what is no socket stays after a close.
#[test]
fn only_sockets_are_used_once() {
    let connection = Connection::of_host(1, 2, UnixStream::pair().unwrap().0).unwrap().0;
    assert_eq!(connection.offer().flags.bits(), 0x2000);
}
