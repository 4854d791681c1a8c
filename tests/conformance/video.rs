// SPDX-License-Identifier: MIT OR Apache-2.0

//! The screen, against a driver that does as Linux's `hyperv_fb.c` and `hyperv_drm_proto.c`.

use std::time::Duration;

use busway_memory::{Bytes, GuestAddress};
use busway_ring::Outgoing;
use busway_testkit::{GuestChannel, Pair, PairConfig};
use busway_video::{Changes, Rect, Screen};
use busway_vmbus::Device;
use busway_wire::Version;

/// Where the driver keeps its picture.
const VRAM: u64 = 16 << 20;
/// Version 3.5.
const WIN10: u32 = 5 << 16 | 3;

struct Guest {
    screen: Screen,
    pair: Pair,
    channel: GuestChannel,
}

/// A message of the driver's in its pipe.
fn message(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = body.len() as u32 + 8;
    let words = [1, len, kind, len];
    let mut payload: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    payload.extend(body);
    payload
}

/// `struct synthvid_situation_update` of one screen.
fn situation(active: u8, depth: u8, [width, height, pitch]: [u32; 3]) -> Vec<u8> {
    let mut body = 7_u64.to_le_bytes().to_vec();
    body.extend([1, active, 0, 0, 0, 0, depth]);
    body.extend([width, height, pitch].into_iter().flat_map(u32::to_le_bytes));
    body
}

/// `struct synthvid_dirt`.
fn dirt(rects: &[[i32; 4]]) -> Vec<u8> {
    let mut body = vec![0, rects.len() as u8];
    body.extend(rects.iter().flatten().flat_map(|edge| edge.to_le_bytes()));
    body
}

impl Guest {
    fn new() -> Self {
        Self::of(Screen::new((1280, 720)))
    }

    fn of(screen: Screen) -> Self {
        let mut pair = Pair::new(PairConfig::default());
        let device = screen.device();
        let class = device.offer().interface_type;
        pair.add(device);
        let offer = *pair.connect(Version::V5_3).offer(class);
        // A driver takes so much from its windows: none would be none.
        assert_eq!(offer.mmio_megabytes, 8);
        let channel = pair.open(&offer, 9, 0).unwrap();
        Self { screen, pair, channel }
    }

    /// One whose driver has said where its picture is.
    fn ready() -> Self {
        let mut guest = Self::new();
        let mut body = 9_u64.to_le_bytes().to_vec();
        body.push(1);
        body.extend(VRAM.to_le_bytes());
        guest.say(3, &body);
        assert_eq!(guest.hear(), message(4, &9_u64.to_le_bytes()), "its number comes back");
        assert_eq!(guest.hear(), message(9, &[1, 0, 0, 1]), "changes are wanted");
        guest
    }

    /// One that shows a picture of this size.
    fn showing(width: u32, height: u32, pitch: u32) -> Self {
        let mut guest = Self::ready();
        guest.say(5, &situation(1, 32, [width, height, pitch]));
        assert_eq!(guest.hear(), message(6, &7_u64.to_le_bytes()));
        guest
    }

    fn say(&mut self, kind: u32, body: &[u8]) {
        self.channel.send(&mut self.pair, &Outgoing::in_band(0, &message(kind, body)));
        self.pair.work();
    }

    /// The next message, without the padding behind it.
    fn hear(&mut self) -> Vec<u8> {
        let mut payload = self.channel.receive(&mut self.pair).payload;
        let len = u32::from_le_bytes(payload[4..8].try_into().unwrap()) as usize;
        assert!(payload.len() >= 8 + len);
        payload.truncate(8 + len);
        payload
    }

    fn paint(&self, offset: u64, pixel: [u8; 4]) {
        self.pair.memory.write_slice(&pixel, GuestAddress(VRAM + offset)).unwrap();
    }
}

#[test]
fn versions_of_windows_8_and_10_are_spoken() {
    let mut guest = Guest::new();
    for (version, accepted) in [(WIN10, 1), (2 << 16 | 3, 1), (3, 0), (6 << 16 | 3, 0)] {
        let version = version.to_le_bytes();
        guest.say(1, &version);
        let body = [version.as_slice(), &[accepted, 1]].concat();
        assert_eq!(guest.hear(), message(2, &body));
    }
}

#[test]
fn an_older_host_speaks_the_older_version_only() {
    let screen = Screen::new((1280, 720)).with_newest_version(busway_wire::video::Version::V3_2);
    let mut guest = Guest::of(screen);
    for (version, accepted) in [(WIN10, 0), (2 << 16 | 3, 1)] {
        let version = version.to_le_bytes();
        guest.say(1, &version);
        assert_eq!(guest.hear(), message(2, &[version.as_slice(), &[accepted, 1]].concat()));
    }
}

/// The driver takes the one at the index, and drops an answer that is shorter than its count says.
#[test]
fn the_preferred_resolution_is_named() {
    let mut guest = Guest::new();
    guest.say(13, &[64]);
    let answer = guest.hear();
    let body = &answer[16..];
    let (count, index) = (usize::from(body[128]), usize::from(body[129]));
    assert_eq!(body.len(), 131 + 4 * count);
    let sizes: Vec<_> = body[131..]
        .chunks_exact(4)
        .map(|size| {
            let number = |at: usize| u16::from_le_bytes([size[at], size[at + 1]]);
            (number(0), number(2))
        })
        .collect();
    assert_eq!(sizes[index], (1280, 720));
    assert!(sizes.contains(&(1024, 768)) && sizes.contains(&(1920, 1080)));
    assert_eq!(sizes.iter().filter(|size| **size == (1280, 720)).count(), 1);
}

#[test]
fn the_picture_is_what_the_guest_paints() {
    let guest = Guest::showing(640, 480, 640 * 4 + 64);
    guest.paint(0, [1, 2, 3, 4]);
    guest.paint(2 * (640 * 4 + 64) + 5 * 4, [5, 6, 7, 8]);
    let picture = guest.screen.picture().unwrap();
    assert_eq!((picture.width, picture.height), (640, 480));
    assert_eq!(picture.pixels.len(), 640 * 480 * 4, "without what is between the lines");
    assert_eq!(picture.pixels[..8], [1, 2, 3, 4, 0, 0, 0, 0]);
    let at = (2 * 640 + 5) * 4;
    assert_eq!(picture.pixels[at..at + 4], [5, 6, 7, 8]);
    let part = picture.part(Rect { x: 5, y: 1, width: 2, height: 2 });
    assert_eq!(part, [[0; 8], [5, 6, 7, 8, 0, 0, 0, 0]].concat());
}

#[test]
fn changes_are_told_to_each_viewer_once() {
    let mut guest = Guest::showing(640, 480, 2560);
    let wait = Duration::ZERO;
    let viewers = [guest.screen.view(), guest.screen.view()];
    for viewer in &viewers {
        assert_eq!(viewer.wait(wait), Changes { resized: Some((640, 480)), rects: vec![] });
        assert_eq!(viewer.wait(wait), Changes::default());
    }
    // The second reaches beyond the picture, the third has its edges the wrong way round.
    guest.say(10, &dirt(&[[10, 20, 30, 50], [600, -5, 9999, 8], [9, 9, 3, 3]]));
    let rects = vec![
        Rect { x: 10, y: 20, width: 20, height: 30 },
        Rect { x: 600, y: 0, width: 40, height: 8 },
    ];
    for viewer in &viewers {
        assert_eq!(viewer.wait(wait), Changes { resized: None, rects: rects.clone() });
        assert_eq!(viewer.wait(wait), Changes::default());
    }
    guest.paint(20 * 2560 + 10 * 4, [9, 8, 7, 6]);
    let part = viewers[0].part((640, 480), Rect { width: 1, height: 1, ..rects[0] });
    assert_eq!(part, Some(vec![9, 8, 7, 6]));
    assert_eq!(viewers[0].part((800, 600), rects[0]), None, "another size");
}

/// A switched-off machine has shown something last.
#[test]
fn the_last_picture_stays_when_the_driver_goes() {
    let guest = Guest::showing(640, 480, 2560);
    guest.paint(4, [1, 2, 3, 4]);
    let Guest { screen, mut pair, channel } = guest;
    pair.close(channel);
    pair.memory.write_slice(&[0; 8], GuestAddress(VRAM)).unwrap();
    assert_eq!(screen.picture().unwrap().pixels[4..8], [1, 2, 3, 4]);
    assert!(pair.faults.is_empty());
}

#[test]
fn what_is_no_picture_is_not_shown() {
    let big = u32::MAX;
    for size in [
        [0, 480, 2560],
        [640, 0, 2560],
        [640, 480, 2556],
        [1920, 1093, 7680],
        [big, big, big],
        [1, big, 4],
    ] {
        let mut guest = Guest::showing(640, 480, 2560);
        guest.say(5, &situation(1, 32, size));
        assert!(guest.screen.picture().is_none(), "{size:?}");
        guest.say(10, &dirt(&[[0, 0, 5, 5]]));
        assert!(guest.pair.faults.is_empty());
    }
    let mut guest = Guest::showing(640, 480, 2560);
    guest.say(5, &situation(1, 16, [640, 480, 2560]));
    assert!(guest.screen.picture().is_none(), "16 bits a pixel");
    let mut guest = Guest::showing(640, 480, 2560);
    guest.say(5, &situation(0, 32, [640, 480, 2560]));
    assert!(guest.screen.picture().is_none(), "switched off");
}

#[test]
fn a_picture_outside_of_memory_is_not_shown() {
    for address in [u64::MAX, 1 << 40, (64 << 20) - 4096] {
        let mut guest = Guest::new();
        let body = [&[0; 8][..], &[1], &address.to_le_bytes()].concat();
        guest.say(3, &body);
        guest.say(5, &situation(1, 32, [640, 480, 2560]));
        assert!(guest.screen.picture().is_none(), "{address:#x}");
    }
}

#[test]
fn messages_that_are_cut_short_do_nothing() {
    let mut guest = Guest::showing(640, 480, 2560);
    for kind in 0..16 {
        guest.say(kind, &[]);
    }
    assert!(guest.screen.picture().is_some());
    assert!(guest.pair.faults.is_empty());
    let Guest { mut pair, mut channel, .. } = guest;
    channel.send(&mut pair, &Outgoing::in_band(0, &[9; 16]));
    pair.work();
    assert_eq!(pair.faults.len(), 1, "no pipe");
}
