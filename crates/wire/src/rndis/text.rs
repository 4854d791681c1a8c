// SPDX-License-Identifier: MIT OR Apache-2.0

//! RNDIS messages of either side as text, for traces.

use std::fmt;

use zerocopy::FromBytes;

use super::{
    Control, DATA_BODY_LEN, DataHeader, DataInfo, Header, Indicate, InitializeComplete,
    MessageType, QueryComplete, Status,
};

/// Prints the messages in `0`, one behind the other, as far as they are there.
#[derive(Clone, Copy)]
pub struct Text<'a>(pub &'a [u8]);

impl Text<'_> {
    /// Whether the first message is of a kind that has a name.
    pub fn is_known(&self) -> bool {
        self.header().is_some_and(|header| header.kind.name().is_some())
    }

    /// What the first message asks for an answer under, or answers.
    pub fn request_id(&self) -> Option<u32> {
        let kind = self.header()?.kind;
        let unnamed =
            [MessageType::PACKET, MessageType::INDICATE, MessageType::HALT, MessageType::RESET];
        let named = !unnamed.contains(&kind) && kind != MessageType::RESET_COMPLETE;
        let id = self.0.get(Header::LEN..).and_then(<[u8]>::first_chunk);
        id.filter(|_| named).map(|id| u32::from_le_bytes(*id))
    }

    /// Whether the first message is an answer.
    pub fn is_answer(&self) -> bool {
        self.header().is_some_and(|header| header.kind.0 & 0x8000_0000 != 0)
    }

    fn header(&self) -> Option<Header> {
        Header::read_from_prefix(self.0).ok().map(|(header, _)| header)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut first = true;
        // What is left behind the last may be padding.
        while let Ok((Header { kind, len }, body)) = Header::read_from_prefix(rest)
            && (first || kind == MessageType::PACKET)
        {
            if !first {
                f.write_str("; ")?;
            }
            first = false;
            print(f, kind, rest, body)?;
            rest = rest.get((len as usize).max(Header::LEN)..).unwrap_or_default();
        }
        if first { write!(f, "{} B, too few for a message", self.0.len()) } else { Ok(()) }
    }
}

fn print(f: &mut fmt::Formatter<'_>, kind: MessageType, all: &[u8], body: &[u8]) -> fmt::Result {
    match kind {
        MessageType::PACKET => print_frame(f, all),
        MessageType::INITIALIZE_COMPLETE => {
            let Ok((body, _)) = InitializeComplete::read_from_prefix(body) else {
                return write!(f, "{kind} (cut)");
            };
            let InitializeComplete { request_id, status, major, minor, max_packets, .. } = body;
            write!(f, "{kind} id={request_id:#x} {status} {major}.{minor}")?;
            write!(f, " max-packets={max_packets} max-transfer={}", body.max_transfer_len)
        }
        MessageType::QUERY_COMPLETE => {
            let Ok((body, _)) = QueryComplete::read_from_prefix(body) else {
                return write!(f, "{kind} (cut)");
            };
            let QueryComplete { request_id, status, info_len, .. } = body;
            write!(f, "{kind} id={request_id:#x} {status}, {info_len} B")
        }
        MessageType::SET_COMPLETE | MessageType::KEEPALIVE_COMPLETE => {
            let Ok(([id, status], _)) = <[u32; 2]>::read_from_prefix(body) else {
                return write!(f, "{kind} (cut)");
            };
            write!(f, "{kind} id={id:#x} {}", Status(status))
        }
        MessageType::RESET_COMPLETE | MessageType::INDICATE => {
            let status = Indicate::read_from_prefix(body).map(|(body, _)| body.status);
            write!(f, "{kind} {}", status.unwrap_or_default())
        }
        _ => match Control::parse(all) {
            Ok(request) => write!(f, "{request}"),
            Err(error) => write!(f, "{kind}: {error}"),
        },
    }
}

fn print_frame(f: &mut fmt::Formatter<'_>, all: &[u8]) -> fmt::Result {
    // It may be cut, and be whole all the same.
    let header = DataHeader::parse(all.get(..DATA_BODY_LEN).unwrap_or(all), usize::MAX);
    let header = match header {
        Ok(header) => header,
        Err(error) => return write!(f, "PACKET: {error}"),
    };
    write!(f, "PACKET frame={} B", header.data_len)?;
    let notes = all.get(header.info_offset..).and_then(|rest| rest.get(..header.info_len));
    let Some(Ok(info)) = notes.map(DataInfo::parse) else {
        return Ok(());
    };
    if let Some(checksum) = info.checksum {
        write!(f, " checksum={:#x}", checksum.0)?;
    }
    if let Some(large) = info.large_send {
        write!(f, " segments={} B", large.segment_len())?;
    }
    if let Some(vlan) = info.vlan {
        write!(f, " vlan={:#x}", vlan.0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rndis::Answer;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn either_side_is_printed() {
        let query = words(&[4, 28, 7, 0x0101_0101, 0, 0, 0]);
        let text = Text(&query);
        assert_eq!(text.to_string(), "QUERY ETHERNET_PERMANENT_ADDRESS id=0x7");
        assert_eq!((text.request_id(), text.is_answer()), (Some(7), false));
        let answer = Answer::query(7, &[1, 2, 3, 4, 5, 6]);
        let text = Text(answer.as_bytes());
        assert_eq!(text.to_string(), "QUERY_COMPLETE id=0x7 SUCCESS, 6 B");
        assert_eq!((text.request_id(), text.is_answer()), (Some(7), true));
        let news = Answer::indicate(Status::MEDIA_CONNECT, &[]);
        assert_eq!(Text(news.as_bytes()).to_string(), "INDICATE MEDIA_CONNECT");
        assert_eq!(Text(news.as_bytes()).request_id(), None);
    }

    #[test]
    fn frames_stand_one_behind_the_other() {
        let frame = words(&[1, 48, 36, 4, 0, 0, 0, 0, 0, 0, 0, 0xaaaa_aaaa]);
        let two = [frame.clone(), frame].concat();
        assert_eq!(Text(&two).to_string(), "PACKET frame=4 B; PACKET frame=4 B");
    }

    #[test]
    fn what_is_none_is_said() {
        assert_eq!(Text(&[1, 2]).to_string(), "2 B, too few for a message");
        assert!(!Text(&words(&[99, 8])).is_known());
        assert!(Text(&words(&[99, 8])).to_string().contains("MessageType(0x63)"));
        assert!(Text(&words(&[0x8000_0004, 8])).to_string().contains("cut"));
    }
}
