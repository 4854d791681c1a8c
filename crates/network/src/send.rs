// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames from the guest's pages into the network.
//!
//! A packet of the ring holds one message or several, one behind the other, in a section of the
//! send buffer, in external pages, or begun in the one and ended in the others. The guest's bytes
//! go out as they are, behind what must be changed of their beginning: at most some headers.

use busway_frames::{FrameHeader, GsoType, HeaderFlags, MAX_FRAME, MAX_HEAD, Queue};
use busway_memory::{GuestMemory, GuestPart, GuestSlices};
use busway_wire::rndis::{
    DATA_BODY_LEN, DataError, DataHeader, DataInfo, Header, LargeSend, SendChecksum, VlanTag,
};

use crate::checksum::Sum;
use crate::ethernet::{Frame, HEADER_LEN, LOOK_LEN, TYPE_AT, Transport};

/// Most bytes of the notes on a frame: all that there are, many times over.
const MOST_NOTES: usize = 512;

/// Bytes of a message that are looked at first: its header and the notes of any guest that is known.
const LOOK: usize = DATA_BODY_LEN + 6 * 16;

/// Most bytes of what is changed at the beginning of a frame, without a VLAN tag.
const MOST_HEAD: usize = MAX_HEAD - 4;

/// A frame cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// Its message makes no sense.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Too many notes.
    #[error("{0} B of notes on a frame")]
    Notes(usize),
    /// Shorter than an Ethernet header or longer than any packet.
    #[error("a frame of {0} B")]
    Length(usize),
    /// It cannot be cut.
    #[error("a frame of {len} B cannot be cut: TCP at {at}, segments of {segment} B")]
    LargeSend {
        /// Bytes of the frame.
        len: usize,
        /// Where it says that TCP starts.
        at: usize,
        /// Bytes of a segment.
        segment: u32,
    },
    /// It has no place for a checksum.
    #[error("a frame of {len} B has no checksum to be computed at {at}")]
    Checksum {
        /// Bytes of the frame.
        len: usize,
        /// Where the checksum would be.
        at: usize,
    },
    /// The first version of cutting, which is not offered.
    #[error("a frame is to be cut as nobody said that it could be")]
    NotOffered,
}

/// The changed beginning of a frame, and how much of the guest's it stands for.
struct Head {
    bytes: [u8; MAX_HEAD],
    len: usize,
    replaces: usize,
}

impl Head {
    /// The first `len` bytes of a frame, which are there.
    fn of(frame: GuestPart<'_>, len: usize) -> Option<Self> {
        let mut bytes = [0; MAX_HEAD];
        let place = bytes.get_mut(..len).filter(|_| len <= MOST_HEAD)?;
        (frame.read(place) == len).then_some(Self { bytes, len, replaces: len })
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn put(&mut self, at: usize, value: [u8; 2]) {
        if let Some(place) = self.bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
            *place = value;
        }
    }

    fn get(&self, at: usize, len: usize) -> &[u8] {
        self.bytes().get(at..).and_then(|rest| rest.get(..len)).unwrap_or_default()
    }

    /// Puts a VLAN tag behind the addresses.
    fn tag(&mut self, tag: VlanTag) {
        if self.len >= TYPE_AT && self.len + 4 <= self.bytes.len() {
            self.bytes.copy_within(TYPE_AT..self.len, TYPE_AT + 4);
            self.len += 4;
            self.put(TYPE_AT, [0x81, 0]);
            self.put(TYPE_AT + 2, tag.0.to_be_bytes());
        }
    }
}

/// Sends what the guest's packets hold.
#[derive(Debug)]
pub(crate) struct Sender {
    /// The messages of the packet at hand.
    pub(crate) slices: GuestSlices,
    /// Whether the network computes checksums and cuts.
    offloads: bool,
}

impl Sender {
    pub(crate) fn new(memory: &GuestMemory, offloads: bool) -> Self {
        Self { slices: GuestSlices::new(memory.clone()), offloads }
    }

    /// Gives the network every frame of the packet in `slices`; `sent` hears of each, and of why it
    /// is not taken, which loses it. What is taken may have gone only when the queue is flushed. An error is the guest's, and what follows it in the packet
    /// is not looked at.
    pub(crate) fn send(
        &mut self,
        queue: &mut Queue,
        mut sent: impl FnMut(std::io::Result<()>),
    ) -> Result<(), SendError> {
        let total = self.slices.len();
        let mut at = 0;
        // What is left may be the padding of the last one.
        while total - at >= Header::LEN || at == 0 {
            let mut look = [0; LOOK];
            let seen = self.slices.read_at(at, &mut look);
            let look = look.get(..seen).unwrap_or_default();
            let header = DataHeader::parse(look, total - at)?;
            let info = self.info(at, &header, look)?;
            let len = header.data_len;
            let frame = self.slices.part(at + header.data_offset, len);
            let frame = frame.filter(|_| (HEADER_LEN..=MAX_FRAME).contains(&len));
            let frame = frame.ok_or(SendError::Length(len))?;
            sent(send_frame(queue, frame, &info, self.offloads)?);
            at += header.len;
        }
        Ok(())
    }

    fn info(&self, at: usize, header: &DataHeader, look: &[u8]) -> Result<DataInfo, SendError> {
        let DataHeader { info_offset: start, info_len: len, .. } = *header;
        if let Some(notes) = look.get(start..).and_then(|rest| rest.get(..len)) {
            return Ok(DataInfo::parse(notes)?);
        }
        let mut notes = [0; MOST_NOTES];
        let notes = notes.get_mut(..len).ok_or(SendError::Notes(len))?;
        self.slices.read_at(at + start, notes);
        Ok(DataInfo::parse(notes)?)
    }
}

type Sent = Result<std::io::Result<()>, SendError>;

fn send_frame(queue: &mut Queue, frame: GuestPart<'_>, info: &DataInfo, offloads: bool) -> Sent {
    let mut header = FrameHeader::none();
    let mut head = match (info.large_send, info.checksum) {
        (Some(_), _) if !offloads => return Err(SendError::NotOffered),
        (Some(large), _) => Some(cut(frame, large, &mut header)?),
        (None, Some(checksum)) if checksum.tcp() || checksum.udp() => {
            sum_later(frame, checksum, &mut header, offloads)?
        }
        (None, Some(checksum)) if checksum.ip_header() => Some(ip_head(frame)?),
        _ => None,
    };
    if let Some(tag) = info.vlan {
        let mut tagged = match head.take() {
            Some(head) => head,
            None => Head::of(frame, HEADER_LEN).ok_or(SendError::Length(frame.len()))?,
        };
        tagged.tag(tag);
        if header.flags.needs_checksum() {
            header.checksum_start += 4;
            header.header_len = header.header_len.saturating_add(4);
        }
        head = Some(tagged);
    }
    Ok(match head {
        Some(head) => queue.send(&header, head.bytes(), frame.skip(head.replaces)),
        None => queue.send(&header, &[], frame),
    })
}

/// Where the checksum stands in a TCP header, in a UDP header.
const TCP_CHECKSUM_AT: usize = 16;
const UDP_CHECKSUM_AT: usize = 6;

/// Has the network compute TCP's or UDP's checksum, or computes it.
fn sum_later(
    frame: GuestPart<'_>,
    checksum: SendChecksum,
    header: &mut FrameHeader,
    offloads: bool,
) -> Result<Option<Head>, SendError> {
    let offset = if checksum.tcp() { TCP_CHECKSUM_AT } else { UDP_CHECKSUM_AT };
    let start = match checksum.transport_offset() {
        0 => transport_at(frame).ok_or(SendError::Checksum { len: frame.len(), at: 0 })?,
        start => start,
    };
    let at = start + offset;
    let wrong = SendError::Checksum { len: frame.len(), at };
    if at + 2 > frame.len() {
        return Err(wrong);
    }
    if offloads && !checksum.ip_header() {
        need_checksum(header, start, offset);
        return Ok(None);
    }
    let mut head = Head::of(frame, at + 2).ok_or(wrong)?;
    if checksum.ip_header() {
        fix_ip_header(&mut head, HEADER_LEN, None);
    }
    if offloads {
        need_checksum(header, start, offset);
    } else {
        let mut sum = Sum::default();
        sum.add_guest(frame.skip(start));
        head.put(at, sum.finish_transport());
    }
    Ok(Some(head))
}

fn need_checksum(header: &mut FrameHeader, start: usize, offset: usize) {
    header.flags = HeaderFlags(HeaderFlags::NEEDS_CHECKSUM);
    // The offset has ten bits.
    header.checksum_start = start as u16;
    header.checksum_offset = offset as u16;
}

/// Where TCP or UDP starts in a frame, by its headers.
fn transport_at(frame: GuestPart<'_>) -> Option<usize> {
    let mut look = [0; LOOK_LEN];
    let count = frame.read(&mut look);
    let flow = Frame::parse(look.get(..count)?)?.flow?;
    (flow.transport != Transport::Other).then_some(flow.transport_at)
}

fn ip_head(frame: GuestPart<'_>) -> Result<Head, SendError> {
    let len = frame.len().min(HEADER_LEN + 60);
    let mut head = Head::of(frame, len).ok_or(SendError::Length(len))?;
    fix_ip_header(&mut head, HEADER_LEN, None);
    Ok(head)
}

/// Computes an IPv4 header's checksum, and gives the packet its length.
fn fix_ip_header(head: &mut Head, at: usize, len: Option<u16>) {
    let Some(first) = head.get(at, 1).first().copied() else { return };
    let header_len = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 || header_len < 20 || head.len < at + header_len {
        return;
    }
    if let Some(len) = len {
        head.put(at + 2, len.to_be_bytes());
    }
    head.put(at + 10, [0, 0]);
    let mut sum = Sum::default();
    sum.add(head.get(at, header_len));
    head.put(at + 10, sum.finish());
}

/// Has the network cut a frame into segments.
///
/// The guest leaves the packet's length out, of the IP header and of the sum in TCP's checksum;
/// the network wants both to be those of the whole.
fn cut(
    frame: GuestPart<'_>,
    large: LargeSend,
    header: &mut FrameHeader,
) -> Result<Head, SendError> {
    let (len, at, segment) = (frame.len(), large.tcp_offset(), large.segment_len());
    if !large.is_v2() {
        return Err(SendError::NotOffered);
    }
    let wrong = || SendError::LargeSend { len, at, segment };
    let ip_len = if large.is_ipv6() { 40 } else { 20 };
    let segment_len = u16::try_from(segment).ok().filter(|segment| *segment != 0);
    let segment_len = segment_len.ok_or_else(wrong)?;
    if at < HEADER_LEN + ip_len || at + 20 > len {
        return Err(wrong());
    }
    let mut head = Head::of(frame, at + 20).ok_or_else(wrong)?;
    let tcp_len = len - at;
    let words = head.get(at + 12, 1).first().map_or(0, |byte| usize::from(byte >> 4));
    let headers = at + words * 4;
    if words < 5 || headers >= len {
        return Err(wrong());
    }
    let packet_len = u16::try_from(len - HEADER_LEN).map_err(|_| wrong())?;
    if large.is_ipv6() {
        head.put(HEADER_LEN + 4, (packet_len - 40).to_be_bytes());
    } else {
        fix_ip_header(&mut head, HEADER_LEN, Some(packet_len));
    }
    let mut sum = Sum::default();
    sum.add(head.get(at + TCP_CHECKSUM_AT, 2));
    sum.add(&(tcp_len as u16).to_be_bytes());
    head.put(at + TCP_CHECKSUM_AT, sum.partial());
    need_checksum(header, at, TCP_CHECKSUM_AT);
    header.gso_type = if large.is_ipv6() { GsoType::TCP6 } else { GsoType::TCP4 };
    header.segment_len = segment_len;
    header.header_len = headers as u16;
    if tcp_len - words * 4 <= usize::from(segment_len) {
        // One segment is no reason to cut.
        (header.gso_type, header.segment_len, header.header_len) = (GsoType::NONE, 0, 0);
    }
    Ok(head)
}
