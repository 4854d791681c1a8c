// SPDX-License-Identifier: MIT OR Apache-2.0

//! Traffic that checks itself: noise by TCP either way, and by UDP there and back. A TCP connection begins with
//! seed and length, as 64-bit numbers, from here.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::time::Duration;

use busway_guest_agent::{check_noise, noise, send_noise};

use crate::words::Words;

/// How long an answer may take before a datagram counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a datagram is sent before that is an error: UDP may lose some.
const ATTEMPTS: u32 = 5;

/// Sends noise, and waits until the other end has found it right: it says so with a byte.
pub(crate) fn push(address: &str, mut words: Words) -> Result<(), String> {
    let (seed, length) = (words.number("seed", 1)?, words.number("length", 1 << 20)?);
    words.end()?;
    let failed = |error| format!("{address}: {error}");
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    stream.write_all(&what(seed, length)).map_err(failed)?;
    send_noise(&mut stream, seed, length).map_err(failed)?;
    stream.shutdown(Shutdown::Write).map_err(failed)?;
    let mut right = [0];
    stream.read_exact(&mut right).map_err(failed)?;
    if right == [1] { Ok(()) } else { Err(format!("{address} has found the bytes wrong")) }
}

/// Takes noise, and says with a byte whether it was right.
pub(crate) fn pull(address: &str, mut words: Words) -> Result<(), String> {
    let (seed, length) = (words.number("seed", 1)?, words.number("length", 1 << 20)?);
    words.end()?;
    let failed = |error| format!("{address}: {error}");
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    stream.write_all(&what(seed, length)).map_err(failed)?;
    let right = check_noise(&mut stream, seed, length);
    stream.write_all(&[u8::from(right.is_ok())]).map_err(failed)?;
    right
}

/// Sends datagrams as fast as it can; nobody need hear them, and those that find no room are lost.
pub(crate) fn flood(address: &str, mut words: Words) -> Result<(), String> {
    let count = words.number("count", 1)?;
    let bytes = vec![0; words.number("size", 1)? as usize];
    words.end()?;
    let failed = |error| format!("{address}: {error}");
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
    for _ in 0..count {
        // ENOBUFS, or what came back of an earlier one.
        let _ = socket.send_to(&bytes, address);
    }
    Ok(())
}

fn what(seed: u64, length: u64) -> Vec<u8> {
    [seed.to_le_bytes(), length.to_le_bytes()].concat()
}

/// Sends datagrams, each of which must come back.
pub(crate) fn bounce(address: &str, mut words: Words) -> Result<(), String> {
    let (seed, count) = (words.number("seed", 1)?, words.number("count", 1)?);
    let size = words.number("size", 1000)? as usize;
    words.end()?;
    let failed = |error| format!("{address}: {error}");
    let socket = UdpSocket::bind("0.0.0.0:0").or_else(|_| UdpSocket::bind("[::]:0"));
    let socket = socket.map_err(failed)?;
    socket.connect(address).map_err(failed)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut found = vec![0; 1 << 16];
    for number in 0..count {
        let wanted = noise(seed + number, size);
        let came_back = (0..ATTEMPTS).any(|_| {
            let sent = socket.send(&wanted);
            let length = sent.and_then(|_| socket.recv(&mut found)).unwrap_or(0);
            found[..length] == wanted
        });
        if !came_back {
            return Err(format!("{address}: datagram {number} of {size} B did not come back"));
        }
    }
    Ok(())
}
