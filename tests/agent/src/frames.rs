// SPDX-License-Identifier: MIT OR Apache-2.0

//! What comes in by the cards, as tcpdump would see it. Asks for nothing that would not come by itself.

use std::collections::BTreeSet;

use rustix::net::{AddressFamily, RecvFlags, SocketType, eth, recv, socket};

use crate::words::Words;

/// Listens until `count` frames to the address `own` have been seen, and says to which addresses any were.
pub(crate) fn watch(own: &str, mut words: Words) -> Result<(), String> {
    let count = words.number("count", 1)?;
    words.end()?;
    let failed = |error| format!("a packet socket: {error}");
    let kind = SocketType::RAW;
    let socket = socket(AddressFamily::PACKET, kind, Some(eth::ALL)).map_err(failed)?;
    let mut seen = BTreeSet::new();
    let mut left = count;
    let mut frame = vec![0; 1 << 16];
    while left > 0 {
        let (length, _) = recv(&socket, &mut frame, RecvFlags::empty()).map_err(failed)?;
        let Some(to) = frame[..length].first_chunk::<6>() else { continue };
        let to = to.map(|byte| format!("{byte:02x}")).join(":");
        left -= u64::from(to == own);
        seen.insert(to);
    }
    println!("{}", Vec::from_iter(seen).join(" "));
    Ok(())
}
