// SPDX-License-Identifier: MIT OR Apache-2.0

//! network/frames on a TAP, one way at a time, in turns with a loop that reads or writes the same frames on
//! another TAP with nothing of ours in between. What brings the frames that are received costs both sides
//! the same: the host's own UDP, or, for those that are to be cut, a packet socket.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, IoSlice, Read, Write};
use std::mem;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use busway_frames::Network;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_val};

use crate::network_frames::{BATCH, Card, MAC, NAME, frame, is_large};
use crate::report::{Line, cpu_times};

/// TAPs of the bench's own: the card's, and one with nothing of ours.
const TAP: &str = "bwbench";
const BARE: &str = "bwbare";

/// Frames to an address that the host drops at once.
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 0x55];

const SIZES: [(&str, usize); 3] = [("64 B", 64), ("1500 B", 1514), ("65000 B LSO", 65_000)];

/// Bytes of a `struct virtio_net_hdr`.
const HEADER_LEN: usize = 10;

/// All lines with so many queues.
pub fn run(lines: &mut Vec<Line>, queues: u16) -> Result<(), String> {
    let _card = Tap::new(TAP, queues, "10.99.0.1", "10.99.0.2")?;
    let _bare = Tap::new(BARE, queues, "10.98.0.1", "10.98.0.2")?;
    let network = Network::tap(TAP, queues).map_err(|error| error.to_string())?;
    let mut files = Vec::new();
    for _ in 0..queues {
        files.push(raw_queue(queues)?);
    }
    for (what, len) in SIZES {
        sent(lines, (queues, what, len), &network, &files);
    }
    for (what, len) in SIZES {
        received(lines, (queues, what, len), &network, &mut files)?;
    }
    Ok(())
}

fn params(way: &str, what: &str, queues: u16) -> String {
    let queues = if queues == 1 { String::new() } else { format!(", {queues} queues") };
    format!("TAP, {way}, {what}{queues}")
}

/// The frame behind what the card asks of the kernel for it.
fn with_header(len: usize, to: [u8; 6]) -> Vec<u8> {
    let (_, mut bytes) = frame(len, to);
    if is_large(len) {
        // What the guest leaves to the card: the packet's length.
        bytes[16..18].copy_from_slice(&(len as u16 - 14).to_be_bytes());
    }
    let header: [u8; HEADER_LEN] = match is_large(len) {
        true => [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0],
        false => [1, 0, 0, 0, 0, 0, 34, 0, 16, 0],
    };
    [&header[..], &bytes].concat()
}

fn sent(
    lines: &mut Vec<Line>,
    (queues, what, len): (u16, &str, usize),
    network: &Network,
    files: &[File],
) {
    // As the guest's frames are: no two in the same place, of which a cache would be fond.
    let batch = BATCH * files.len();
    let frames = vec![with_header(len, NOBODY); batch];
    let mut card = Card::new(network.clone(), queues, len);
    let packets: Vec<_> = (0..batch).map(|_| card.packet(len, NOBODY, 9)).collect();
    let send = || {
        card.send(&packets);
        card.take();
    };
    let each = || files.iter().flat_map(|file| (0..BATCH).map(move |_| file)).zip(&frames);
    let bare = || each().for_each(|(mut file, frame)| drop(black_box(file.write(frame))));
    let (value, limit) = cpu_times(batch as u64, send, bare);
    lines.push(Line::nanoseconds(NAME, params("sent", what, queues), value, Some(limit)));
    if queues != 1 {
        return;
    }
    // The header is ours and the frame the guest's: without a copy, a frame has two pieces.
    let pieces = || {
        for (mut file, frame) in each() {
            let (header, frame) = frame.split_at(HEADER_LEN);
            let vectors = [IoSlice::new(header), IoSlice::new(frame)];
            let _ = black_box(file.write_vectored(&vectors));
        }
    };
    let (value, limit) = cpu_times(batch as u64, pieces, bare);
    let params = params("two pieces with nothing of ours", what, queues);
    lines.push(Line::nanoseconds(NAME, params, value, Some(limit)));
}

fn received(
    lines: &mut Vec<Line>,
    (queues, what, len): (u16, &str, usize),
    network: &Network,
    files: &mut [File],
) -> Result<(), String> {
    let mut card = Card::new(network.clone(), queues, len);
    let batch = BATCH * files.len();
    let [to_card, to_bare] = match is_large(len) {
        true => [packets(TAP, len, batch)?, packets(BARE, len, batch)?],
        false => [datagrams("10.99.0.2", len, batch)?, datagrams("10.98.0.2", len, batch)?],
    };
    let receive = || {
        to_card();
        card.receive();
        card.take();
    };
    let mut bytes = vec![0; 68 << 10];
    let bare = || {
        to_bare();
        let mut frames = 0;
        for file in &mut *files {
            while file.read(&mut bytes).is_ok() {
                frames += 1;
            }
        }
        assert!(frames >= batch, "a frame is missing: {frames} of {batch}");
    };
    let (value, limit) = cpu_times(batch as u64, receive, bare);
    lines.push(Line::nanoseconds(NAME, params("received", what, queues), value, Some(limit)));
    Ok(())
}

type Feed = Box<dyn Fn()>;

/// The host's datagrams, each of another flow.
fn datagrams(to: &'static str, len: usize, count: usize) -> Result<Feed, String> {
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(|error| error.to_string())?;
    let payload = vec![7; len - 42];
    Ok(Box::new(move || {
        for port in 0..count as u16 {
            socket.send_to(&payload, (to, 9 + port)).expect("a datagram");
        }
    }))
}

/// Frames that are to be cut, as the host's TCP would give them to the TAP.
#[expect(unsafe_code, reason = "a packet socket has no safe interface in our dependencies")]
fn packets(interface: &str, len: usize, count: usize) -> Result<Feed, String> {
    /// Linux `include/uapi/linux/if_packet.h`.
    const PACKET_VNET_HDR: i32 = 15;
    let failed = |call: &str| format!("{call}: {}", io::Error::last_os_error());
    let name = std::ffi::CString::new(interface).map_err(|error| error.to_string())?;
    // SAFETY: the name is a string that ends with a NUL.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let protocol = (libc::ETH_P_IP as u16).to_be();
    // SAFETY: no memory of ours is touched.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
    if socket < 0 {
        return Err(failed("a packet socket"));
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let on: i32 = 1;
    // SAFETY: the option is an int, which `on` is.
    let done = unsafe {
        let (value, len) = ((&raw const on).cast(), size_of::<i32>() as u32);
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, PACKET_VNET_HDR, value, len)
    };
    if done < 0 {
        return Err(failed("PACKET_VNET_HDR"));
    }
    // SAFETY: zeroes are a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index as i32;
    // SAFETY: the address is as long as is said.
    let done = unsafe {
        let len = size_of_val(&address) as u32;
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len)
    };
    if done < 0 {
        return Err(failed("bind"));
    }
    let file = File::from(socket);
    let mut frames: Vec<_> = (0..count).map(|_| with_header(len, MAC)).collect();
    for (number, frame) in frames.iter_mut().enumerate() {
        // The last byte of the source's port: another flow.
        frame[HEADER_LEN + 35] = number as u8;
    }
    Ok(Box::new(move || {
        for frame in &frames {
            (&file).write_all(frame).expect("a packet");
        }
    }))
}

/// A TAP that `ip` has made, gone at the end.
struct Tap(&'static str);

impl Tap {
    /// The host's address there, and the guest's.
    fn new(name: &'static str, queues: u16, address: &str, guest: &str) -> Result<Self, String> {
        let several: &[&str] = if queues > 1 { &["multi_queue"] } else { &[] };
        ip(&[&["tuntap", "add", name, "mode", "tap"], several].concat())?;
        let tap = Self(name);
        ip(&["addr", "add", &format!("{address}/24"), "dev", name])?;
        ip(&["link", "set", name, "up"])?;
        ip(&["neigh", "replace", guest, "lladdr", "02:00:00:00:00:07", "dev", name])?;
        Ok(tap)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", self.0]);
    }
}

/// A queue of the bare TAP, opened as busway does, with nothing of busway in between.
#[expect(unsafe_code, reason = "ioctls")]
fn raw_queue(queues: u16) -> Result<File, String> {
    /// `_IOW('T', 202, int)`, `_IOW('T', 208, unsigned int)`; IFF_TAP, IFF_NO_PI, IFF_VNET_HDR;
    /// IFF_MULTI_QUEUE; checksums, and TCP to be cut (Linux `include/uapi/linux/if_tun.h`).
    const TUNSETIFF: u64 = 0x4004_54ca;
    const TUNSETOFFLOAD: u64 = 0x4004_54d0;
    const FLAGS: u16 = 0x5002;
    const SEVERAL: u16 = 0x0100;
    const OFFLOADS: u64 = 7;
    let mut options = File::options();
    let options = options.read(true).write(true).custom_flags(0o4000);
    let file = options.open("/dev/net/tun").map_err(|error| error.to_string())?;
    let mut request = [0_u8; 40];
    request[..BARE.len()].copy_from_slice(BARE.as_bytes());
    let flags = if queues > 1 { FLAGS | SEVERAL } else { FLAGS };
    request[16..18].copy_from_slice(&flags.to_le_bytes());
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which the array has the size of.
    let done = unsafe { ioctl_with_mut_ref(&file, TUNSETIFF, &mut request) };
    // SAFETY: TUNSETOFFLOAD takes a number.
    let done = done.min(unsafe { ioctl_with_val(&file, TUNSETOFFLOAD, OFFLOADS) });
    if done < 0 { Err(io::Error::last_os_error().to_string()) } else { Ok(file) }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(words).output().map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {said}", words.join(" "))) }
}
