// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests of a guest, parsed; answers to them, whole.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    Header, Indicate, Initialize, InitializeComplete, MessageType, Oid, QueryComplete, Request,
    ResetComplete, SetComplete, Status,
};

/// A message is no request, or not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It ends within its own header or body.
    #[error("{kind} of {have} B is too short")]
    Short {
        /// What it says it is.
        kind: MessageType,
        /// Bytes present.
        have: usize,
    },
    /// Its length is not that of what was sent.
    #[error("{kind} says that it has {len} B, but {have} B were sent")]
    Length {
        /// What it says it is.
        kind: MessageType,
        /// Bytes that it says.
        len: u32,
        /// Bytes present.
        have: usize,
    },
    /// A value that lies outside of the message.
    #[error("{oid}: {len} B at {offset} lie outside of a message of {have} B")]
    Value {
        /// What it is about.
        oid: Oid,
        /// Where it starts.
        offset: u32,
        /// Bytes.
        len: u32,
        /// Bytes of the message.
        have: usize,
    },
    /// No request at all.
    #[error("{0} is no request")]
    Kind(MessageType),
}

/// A request of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control<'a> {
    /// The driver starts.
    Initialize(Initialize),
    /// It stops.
    Halt,
    /// A question; with what stands where a set has its value.
    Query(Request, &'a [u8]),
    /// A value.
    Set(Request, &'a [u8]),
    /// Start anew.
    Reset,
    /// Are you there?
    Keepalive {
        /// The guest's name for the request.
        request_id: u32,
    },
}

impl<'a> Control<'a> {
    /// Parses a whole message.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ControlError> {
        let have = bytes.len();
        let short = |kind| ControlError::Short { kind, have };
        let (header, _) = Header::read_from_prefix(bytes).map_err(|_| short(MessageType(0)))?;
        let Header { kind, len } = header;
        let message = bytes.get(..len as usize).ok_or(ControlError::Length { kind, len, have })?;
        let body = message.get(Header::LEN..).ok_or(short(kind))?;
        match kind {
            MessageType::INITIALIZE => Ok(Self::Initialize(fixed(kind, body)?)),
            MessageType::HALT => Ok(Self::Halt),
            MessageType::QUERY => {
                let request: Request = fixed(kind, body)?;
                // What a guest leaves out, it does not point to either.
                Ok(Self::Query(request, value(&request, body).unwrap_or_default()))
            }
            MessageType::SET => {
                let request = fixed(kind, body)?;
                Ok(Self::Set(request, value(&request, body)?))
            }
            MessageType::RESET => Ok(Self::Reset),
            MessageType::KEEPALIVE => Ok(Self::Keepalive { request_id: fixed(kind, body)? }),
            kind => Err(ControlError::Kind(kind)),
        }
    }
}

fn fixed<T: FromBytes>(kind: MessageType, body: &[u8]) -> Result<T, ControlError> {
    let have = body.len() + Header::LEN;
    T::read_from_prefix(body).map(|(body, _)| body).map_err(|_| ControlError::Short { kind, have })
}

fn value<'a>(request: &Request, body: &'a [u8]) -> Result<&'a [u8], ControlError> {
    let &Request { oid, info_len: len, info_offset: offset, .. } = request;
    let value = body.get(offset as usize..).and_then(|rest| rest.get(..len as usize));
    value.ok_or(ControlError::Value { oid, offset, len, have: body.len() + Header::LEN })
}

impl fmt::Display for Control<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Initialize(body) => write!(f, "INITIALIZE id={:#x}", body.request_id),
            Self::Halt => f.write_str("HALT"),
            Self::Query(request, _) => {
                write!(f, "QUERY {} id={:#x}", request.oid, request.request_id)
            }
            Self::Set(request, info) => {
                let Request { oid, request_id, .. } = request;
                write!(f, "SET {oid} id={request_id:#x} {info:02x?}")
            }
            Self::Reset => f.write_str("RESET"),
            Self::Keepalive { request_id } => write!(f, "KEEPALIVE id={request_id:#x}"),
        }
    }
}

/// A message of the host's, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    bytes: Vec<u8>,
}

impl Answer {
    fn new<T: IntoBytes + Immutable>(kind: MessageType, body: &T, value: &[u8]) -> Self {
        let len = Header::LEN + size_of::<T>() + value.len();
        let mut bytes = Vec::with_capacity(len);
        let header = Header { kind, len: u32::try_from(len).unwrap_or(u32::MAX) };
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(body.as_bytes());
        bytes.extend_from_slice(value);
        Self { bytes }
    }

    /// The answer to an initialize.
    pub fn initialize(complete: &InitializeComplete) -> Self {
        Self::new(MessageType::INITIALIZE_COMPLETE, complete, &[])
    }

    /// The answer to a query: the value.
    pub fn query(request_id: u32, value: &[u8]) -> Self {
        let info_len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let info_offset = QueryComplete::LEN;
        let body = QueryComplete { request_id, status: Status::SUCCESS, info_len, info_offset };
        Self::new(MessageType::QUERY_COMPLETE, &body, value)
    }

    /// The answer to a query that has no value.
    pub fn no_value(request_id: u32, status: Status) -> Self {
        let info_offset = QueryComplete::LEN;
        let body = QueryComplete { request_id, status, info_len: 0, info_offset };
        Self::new(MessageType::QUERY_COMPLETE, &body, &[])
    }

    /// The answer to a set.
    pub fn set(request_id: u32, status: Status) -> Self {
        Self::new(MessageType::SET_COMPLETE, &SetComplete { request_id, status }, &[])
    }

    /// The answer to a reset, after which filter and addresses are as they were.
    pub fn reset() -> Self {
        let body = ResetComplete { status: Status::SUCCESS, addressing_reset: 0 };
        Self::new(MessageType::RESET_COMPLETE, &body, &[])
    }

    /// The answer to a keepalive.
    pub fn keepalive(request_id: u32) -> Self {
        let body = SetComplete { request_id, status: Status::SUCCESS };
        Self::new(MessageType::KEEPALIVE_COMPLETE, &body, &[])
    }

    /// Tells the guest that something has changed; `value` is what belongs to it.
    pub fn indicate(status: Status, value: &[u8]) -> Self {
        let buffer_len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let buffer_offset = if value.is_empty() { 0 } else { Indicate::LEN };
        let body = Indicate { status, buffer_len, buffer_offset };
        Self::new(MessageType::INDICATE, &body, value)
    }

    /// The message.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.bytes.as_chunks::<4>().0;
        let word = |index: usize| words.get(index).map_or(0, |word| u32::from_le_bytes(*word));
        match MessageType(word(0)) {
            kind @ (MessageType::INDICATE | MessageType::RESET_COMPLETE) => {
                write!(f, "{kind} {}", Status(word(2)))
            }
            kind => write!(f, "{kind} id={:#x} {}", word(2), Status(word(3))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// As `rndis_filter_init_device` of Linux's rndis_filter.c makes it.
    #[test]
    fn linux_initializes() {
        let bytes = words(&[2, 24, 1, 1, 0, 0x4000]);
        let Ok(Control::Initialize(body)) = Control::parse(&bytes) else {
            panic!("{:?}", Control::parse(&bytes));
        };
        assert_eq!((body.request_id, body.major, body.max_transfer_len), (1, 1, 0x4000));
    }

    /// As `rndis_filter_query_device` and `rndis_filter_set_packet_filter` make them: the set's
    /// value stands where `info_buf` does.
    #[test]
    fn linux_asks_and_sets() {
        let query = words(&[4, 28, 7, 0x0101_0101, 0, 20, 0]);
        let parsed = Control::parse(&query).unwrap();
        assert_eq!(parsed.to_string(), "QUERY ETHERNET_PERMANENT_ADDRESS id=0x7");
        let set = words(&[5, 32, 8, 0x0001_010e, 4, 20, 0, 0xd]);
        let Ok(Control::Set(request, value)) = Control::parse(&set) else {
            panic!("{:?}", Control::parse(&set));
        };
        assert_eq!((request.oid, value), (Oid::GEN_CURRENT_PACKET_FILTER, &[0xd, 0, 0, 0][..]));
        assert_eq!(Control::parse(&words(&[3, 12, 9])), Ok(Control::Halt));
    }

    #[test]
    fn lies_are_refused_with_their_numbers() {
        let error = |message: &[u32]| Control::parse(&words(message)).unwrap_err();
        let kind = MessageType::QUERY;
        let long = error(&[4, 32, 7, 1, 0, 20, 0]);
        assert_eq!(long, ControlError::Length { kind, len: 32, have: 28 });
        let short = error(&[4, 20, 7, 1, 0]);
        assert_eq!(short, ControlError::Short { kind, have: 20 });
        assert_eq!(error(&[4, 4]), ControlError::Short { kind, have: 8 });
        assert_eq!(error(&[9, 8]), ControlError::Kind(MessageType(9)));
        for (len, offset) in [(8, 20), (4, 21), (u32::MAX, 20), (4, u32::MAX)] {
            let set = words(&[5, 32, 8, 0x0001_010e, len, offset, 0, 0xd]);
            let oid = Oid::GEN_CURRENT_PACKET_FILTER;
            let expected = ControlError::Value { oid, offset, len, have: 32 };
            assert_eq!(Control::parse(&set), Err(expected));
        }
        assert!(Control::parse(&[1, 0, 0]).is_err());
    }

    #[test]
    fn answers_have_the_lengths_that_linux_checks() {
        let answer = Answer::query(7, &[1, 2, 3, 4, 5, 6]);
        let mut expected = words(&[0x8000_0004, 30, 7, 0, 6, 16]);
        expected.extend([1, 2, 3, 4, 5, 6]);
        assert_eq!(answer.as_bytes(), expected);
        let answer = Answer::no_value(7, Status::NOT_SUPPORTED);
        assert_eq!(answer.as_bytes(), words(&[0x8000_0004, 24, 7, 0xc000_00bb, 0, 16]));
        let answer = Answer::set(8, Status::SUCCESS);
        assert_eq!(answer.as_bytes(), words(&[0x8000_0005, 16, 8, 0]));
        assert_eq!(answer.to_string(), "SET_COMPLETE id=0x8 SUCCESS");
        let speed = Answer::indicate(Status::LINK_SPEED_CHANGE, &100_u32.to_le_bytes());
        assert_eq!(speed.as_bytes(), words(&[7, 24, 0x4001_0013, 4, 12, 100]));
    }
}
