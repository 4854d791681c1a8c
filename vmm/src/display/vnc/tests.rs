// SPDX-License-Identifier: MIT OR Apache-2.0

//! The server, against clients that are good and bad, and a guest that paints.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use busway_memory::{Bytes, GuestAddress};
use busway_ring::Outgoing;
use busway_testkit::{GuestChannel, Pair, PairConfig};
use busway_video::Screen;
use busway_vmbus::Device;
use busway_wire::Version;

use super::*;

const VRAM: u64 = 16 << 20;

/// A guest with a screen and a keyboard.
struct Guest {
    pair: Pair,
    video: GuestChannel,
    keyboard: GuestChannel,
    address: SocketAddr,
}

impl Guest {
    fn new() -> Self {
        let screen = Screen::new((1024, 768));
        let (keyboard, mouse) = (busway_input::Keyboard::new().unwrap(), None);
        let mut pair = Pair::new(PairConfig::default());
        let devices: [Box<dyn Device>; 2] =
            [Box::new(screen.device()), Box::new(keyboard.device())];
        let classes = devices.each_ref().map(|device| device.offer().interface_type);
        let [video, keys] = devices;
        pair.add(Boxed(video));
        pair.add(Boxed(keys));
        let offers = pair.connect(Version::V5_3);
        let [video, keys] = classes.map(|class| *offers.offer(class));
        let video = pair.open(&video, 9, 0).unwrap();
        let mut keys = pair.open(&keys, 9, 0).unwrap();
        keys.request(&mut pair, 1, &[1, 0, 0, 0, 0, 0, 1, 0]);
        pair.work();
        let input = Input::with(Some(keyboard), mouse);
        let address = start("127.0.0.1:0".parse().unwrap(), screen, input).unwrap();
        let mut guest = Self { pair, video, keyboard: keys, address };
        let location = [&[0; 8][..], &[1], &VRAM.to_le_bytes()].concat();
        guest.say(3, &location);
        guest
    }

    /// One that shows a picture of this size, black.
    fn showing(width: u32, height: u32) -> Self {
        let mut guest = Self::new();
        guest.shows(width, height);
        guest
    }

    fn shows(&mut self, width: u32, height: u32) {
        let mut body = vec![0; 8];
        body.extend([1, 1, 0, 0, 0, 0, 32]);
        body.extend([width, height, width * 4].into_iter().flat_map(u32::to_le_bytes));
        self.say(5, &body);
    }

    fn say(&mut self, kind: u32, body: &[u8]) {
        let len = body.len() as u32 + 8;
        let mut payload: Vec<u8> =
            [1, len, kind, len].into_iter().flat_map(u32::to_le_bytes).collect();
        payload.extend(body);
        self.video.send(&mut self.pair, &Outgoing::in_band(0, &payload));
        self.pair.work();
    }

    fn paint(&mut self, width: u32, x: u32, y: u32, pixel: [u8; 4]) {
        let at = VRAM + u64::from((y * width + x) * 4);
        self.pair.memory.write_slice(&pixel, GuestAddress(at)).unwrap();
        let mut body = vec![0, 1];
        body.extend([x, y, x + 1, y + 1].into_iter().flat_map(u32::to_le_bytes));
        self.say(10, &body);
    }

    /// A client that has shaken hands, and the size that it was told.
    fn client(&self) -> (VncClient, (u16, u16)) {
        let stream = TcpStream::connect(self.address).unwrap();
        let mut client = VncClient(stream);
        assert_eq!(&client.read::<12>(), b"RFB 003.008\n");
        client.write(b"RFB 003.008\n");
        assert_eq!(client.read(), [1, 1]);
        client.write(&[1]);
        assert_eq!(client.read(), [0; 4]);
        client.write(&[1]);
        let [w1, w0, h1, h0] = client.read();
        assert_eq!(client.read::<16>()[..4], [32, 24, 0, 1]);
        assert_eq!(client.read::<10>(), *b"\0\0\0\x06busway");
        (client, (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0])))
    }
}

/// A device in a box.
struct Boxed(Box<dyn Device>);

impl Device for Boxed {
    fn offer(&self) -> busway_vmbus::Offer {
        self.0.offer()
    }

    fn open(
        &mut self,
        opening: &busway_vmbus::Opening,
    ) -> Result<Box<dyn busway_vmbus::ChannelHandler>, busway_vmbus::Fault> {
        self.0.open(opening)
    }
}

struct VncClient(TcpStream);

impl VncClient {
    fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn ask(&mut self, incremental: u8, [x, y, w, h]: [u16; 4]) {
        self.write(&[3, incremental]);
        [x, y, w, h].iter().for_each(|edge| self.write(&edge.to_be_bytes()));
    }

    /// The edges and pixels of the one rectangle of an update.
    fn update(&mut self) -> ([u16; 4], i32, Vec<u8>) {
        assert_eq!(self.read(), [0, 0, 0, 1], "an update of one rectangle");
        let edges: [u8; 8] = self.read();
        let edges = [0, 2, 4, 6].map(|at| u16::from_be_bytes([edges[at], edges[at + 1]]));
        let encoding = i32::from_be_bytes(self.read());
        let len = if encoding == 0 { usize::from(edges[2]) * usize::from(edges[3]) * 4 } else { 0 };
        let mut pixels = vec![0; len];
        self.0.read_exact(&mut pixels).unwrap();
        (edges, encoding, pixels)
    }

    /// Whether the server has ended the connection; bytes that are on their way are passed over.
    fn hears_the_end(mut self) -> bool {
        self.0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        match self.0.read_to_end(&mut Vec::new()) {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Whether the server says nothing at all.
    fn gets_nothing(mut self) -> bool {
        self.0.read_exact(&mut [0; 12]).is_err()
    }
}

#[test]
fn a_client_sees_the_picture_and_then_what_changes() {
    let mut guest = Guest::showing(640, 480);
    guest.paint(640, 3, 2, [10, 20, 30, 0]);
    let (mut client, size) = guest.client();
    assert_eq!(size, (640, 480));
    client.ask(0, [2, 1, 4, 3]);
    let (edges, encoding, pixels) = client.update();
    assert_eq!((edges, encoding), ([2, 1, 4, 3], 0));
    let mut wanted = vec![0; 48];
    wanted[20..24].copy_from_slice(&[10, 20, 30, 0]);
    assert_eq!(pixels, wanted);
    client.ask(1, [0, 0, 640, 480]);
    // Its own thread has to see the request before the change, or the change is all it sees.
    guest.paint(640, 600, 400, [1, 2, 3, 4]);
    let (edges, _, pixels) = loop {
        let update = client.update();
        if update.0 == [600, 400, 1, 1] {
            break update;
        }
        client.ask(1, [0, 0, 640, 480]);
    };
    assert_eq!((edges, pixels), ([600, 400, 1, 1], vec![1, 2, 3, 4]));
}

#[test]
fn another_size_is_told_to_a_client_that_knows_of_such() {
    let mut guest = Guest::new();
    let (mut client, size) = guest.client();
    assert_eq!(size, (1024, 768), "what the guest will be asked to show");
    client.write(&[2, 0, 0, 2, 0, 0, 0, 0]);
    client.write(&(-223_i32).to_be_bytes());
    client.ask(0, [0, 0, 1, 1]);
    assert_eq!(client.update().2, [0; 4], "dark");
    client.ask(1, [0, 0, 1024, 768]);
    guest.shows(640, 480);
    assert_eq!(client.update(), ([0, 0, 640, 480], -223, vec![]));
    client.ask(1, [0, 0, 640, 480]);
    assert_eq!(client.update().0, [0, 0, 640, 480]);

    let (mut ignorant, _) = guest.client();
    ignorant.ask(1, [0, 0, 640, 480]);
    guest.shows(800, 600);
    assert!(ignorant.hears_the_end());
}

#[test]
fn keys_reach_the_guest_and_are_let_go_when_the_client_vanishes() {
    let mut guest = Guest::showing(640, 480);
    let (mut client, _) = guest.client();
    for keysym in [0xffe1, 0x41_u32, 0xffffff] {
        client.write(&[4, 1, 0, 0]);
        client.write(&keysym.to_be_bytes());
    }
    client.0.shutdown(Shutdown::Both).unwrap();
    let mut codes = Vec::new();
    while codes.len() < 4 {
        let Guest { pair, keyboard, .. } = &mut guest;
        let event = pair.wait("a key", |pair| keyboard.try_receive(pair));
        // Others are the answer and the completion of its handshake.
        if event.payload.first() == Some(&3) {
            codes.push((event.payload[4], event.payload[8]));
        }
    }
    assert_eq!(codes, [(0x2a, 0), (0x1e, 0), (0x2a, 2), (0x1e, 2)]);
}

#[test]
fn clients_that_talk_nonsense_are_dropped_and_others_stay() {
    let guest = Guest::showing(640, 480);
    let (mut good, _) = guest.client();
    let mut no_rfb = VncClient(TcpStream::connect(guest.address).unwrap());
    no_rfb.write(b"GET / HTTP/1.1\r\n\r\n");
    assert!(no_rfb.hears_the_end());
    let colour_map = [0, 0, 0, 0, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let much_text = [6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    for nonsense in [&[77_u8][..], &colour_map, &much_text] {
        let (mut client, _) = guest.client();
        client.write(nonsense);
        assert!(client.hears_the_end(), "{nonsense:?}");
    }
    good.ask(0, [0, 0, 1, 1]);
    assert_eq!(good.update().2, [0; 4]);
}

#[test]
fn too_many_clients_are_turned_away() {
    let guest = Guest::showing(640, 480);
    let clients: Vec<_> = (0..MAX_CLIENTS).map(|_| guest.client()).collect();
    assert!(VncClient(TcpStream::connect(guest.address).unwrap()).hears_the_end());
    drop(clients);
    // Each thread needs a moment to see that its client has gone.
    while TcpStream::connect(guest.address).is_ok_and(|stream| VncClient(stream).gets_nothing()) {
        thread::yield_now();
    }
}
