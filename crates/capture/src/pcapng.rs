// SPDX-License-Identifier: MIT OR Apache-2.0

//! The blocks of a pcapng file that a capture has, written.
//!
//! Source: the pcapng specification (draft-ietf-opsawg-pcapng), sections 4.1 to 4.6. A library for
//! it would be larger than this, and could neither write into a buffer of ours nor say where a file
//! is torn.

use crate::layout::LINK_TYPE;

/// Section header.
pub(crate) const SECTION: u32 = 0x0a0d_0d0a;
/// Interface description.
pub(crate) const INTERFACE: u32 = 1;
/// Interface statistics: the end of a capture that ended in order.
pub(crate) const STATISTICS: u32 = 5;
/// Enhanced packet.
pub(crate) const PACKET: u32 = 6;

/// By which a section says how it is written.
pub(crate) const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// Options.
pub(crate) const IF_TSRESOL: u16 = 9;
pub(crate) const ISB_IFRECV: u16 = 4;
pub(crate) const ISB_IFDROP: u16 = 5;

/// Bytes of a packet block beside its data: type, length, five words, length.
pub(crate) const PACKET_OVERHEAD: usize = 32;

/// Appends a block.
fn block(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    // All that is written here is far shorter than 4 GiB.
    let total = (12 + body.len().next_multiple_of(4)) as u32;
    out.extend(kind.to_le_bytes());
    out.extend(total.to_le_bytes());
    out.extend(body);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(total.to_le_bytes());
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The start of a file whose packets have at most `snap` bytes, by `program`.
pub(crate) fn start(program: &str, snap: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut body = Vec::new();
    body.extend(BYTE_ORDER.to_le_bytes());
    // Version 1.0, of a length that is not known.
    body.extend([1, 0, 0, 0]);
    body.extend([0xff; 8]);
    option(&mut body, 4, program.as_bytes());
    option(&mut body, 0, &[]);
    block(&mut out, SECTION, &body);
    body.clear();
    body.extend(u32::from(LINK_TYPE).to_le_bytes());
    body.extend(snap.to_le_bytes());
    option(&mut body, 2, b"vmbus");
    // Times are in units of 10^-9 s.
    option(&mut body, IF_TSRESOL, &[9]);
    option(&mut body, 0, &[]);
    block(&mut out, INTERFACE, &body);
    out
}

fn time(out: &mut Vec<u8>, time: u64) {
    out.extend(((time >> 32) as u32).to_le_bytes());
    out.extend((time as u32).to_le_bytes());
}

/// Appends a packet of `parts`, which had `original` bytes before it was cut, at `at` nanoseconds
/// since 1970.
pub(crate) fn packet(out: &mut Vec<u8>, at: u64, original: usize, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let total = ((PACKET_OVERHEAD + len.next_multiple_of(4)) as u32).to_le_bytes();
    out.extend(PACKET.to_le_bytes());
    out.extend(total);
    out.extend([0; 4]);
    time(out, at);
    out.extend((len as u32).to_le_bytes());
    out.extend((original as u32).to_le_bytes());
    parts.iter().for_each(|part| out.extend(*part));
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(total);
}

/// Appends the end of a capture of `records` records, beside which `lost` were lost.
pub(crate) fn end(out: &mut Vec<u8>, at: u64, records: u64, lost: u64) {
    let mut body = vec![0; 4];
    time(&mut body, at);
    option(&mut body, ISB_IFRECV, &records.to_le_bytes());
    option(&mut body, ISB_IFDROP, &lost.to_le_bytes());
    option(&mut body, 0, &[]);
    block(out, STATISTICS, &body);
}

/// The value of an option in `options`.
pub(crate) fn find(mut options: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some((head, rest)) = options.split_first_chunk::<4>() {
        let [a, b, c, d] = *head;
        let (code, len) = (u16::from_le_bytes([a, b]), usize::from(u16::from_le_bytes([c, d])));
        let value = rest.get(..len)?;
        if code == wanted {
            return Some(value);
        }
        options = rest.get(len.next_multiple_of(4)..)?;
    }
    None
}
