// SPDX-License-Identifier: MIT OR Apache-2.0

//! Captures, read: from a whole file, or from one that still grows.

use std::io::{self, Read};

use zerocopy::FromBytes;

use crate::layout::{HEADER_LEN, Header, LINK_TYPE, VERSION};
use crate::pcapng;

/// The longest block that is believed.
const MAX_BLOCK: usize = 64 << 20;

/// A capture cannot be read, or not any further.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system says no.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// The file ends within a block: the machine, or its host, was stopped hard, or the disk was
    /// full.
    #[error(
        "torn: a block begins at byte {at} and the file ends {have} B behind that, where {need} B are needed"
    )]
    Torn {
        /// Where the block begins.
        at: u64,
        /// Bytes of it that are there.
        have: usize,
        /// Bytes that it has, as far as is known.
        need: usize,
    },
    /// The file ends behind a block, but not with the last.
    #[error("torn: it ends at byte {at} without the block that ends a capture")]
    NoEnd {
        /// Its length.
        at: u64,
    },
    /// It is something else.
    #[error("at byte {at}: {what}")]
    Foreign {
        /// Where that is seen.
        at: u64,
        /// What is wrong.
        what: String,
    },
}

/// A record out of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the file, from 1 on.
    pub number: u64,
    /// When it was made, in nanoseconds since 1970.
    pub time: u64,
    /// What it begins with.
    pub header: Header,
    /// What was kept of its body.
    pub body: Vec<u8>,
}

impl Record {
    /// Whether its body had more than is there.
    pub fn is_cut(&self) -> bool {
        self.body.len() < self.header.len as usize
    }
}

/// What a capture says of itself at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Records in it.
    pub records: u64,
    /// Records that were lost.
    pub lost: u64,
}

/// Reads a capture from its start to its end.
pub struct Reader<R> {
    input: R,
    /// The part of a block that is there.
    block: Vec<u8>,
    /// Where it begins.
    at: u64,
    records: u64,
    described: bool,
    statistics: Option<Statistics>,
}

impl<R: Read> Reader<R> {
    /// Reads `input`.
    pub const fn new(input: R) -> Self {
        Self { input, block: Vec::new(), at: 0, records: 0, described: false, statistics: None }
    }

    /// What the capture says of itself, once its end was read.
    pub const fn statistics(&self) -> Option<Statistics> {
        self.statistics
    }

    /// The next record; `None` at the end of a capture that ended in order.
    ///
    /// After [`ReadError::Torn`] and [`ReadError::NoEnd`] it may be called again, and goes on if the
    /// file has grown.
    #[expect(clippy::should_implement_trait, reason = "an iterator has no errors to go on after")]
    pub fn next(&mut self) -> Result<Option<Record>, ReadError> {
        while self.statistics.is_none() {
            let head = self.fill(8)?;
            let (kind, total) = (word(head, 0), word(head, 4) as usize);
            if self.at == 0 && kind != pcapng::SECTION {
                return Err(self.foreign("it is no pcapng file".to_owned()));
            }
            if !(12..=MAX_BLOCK).contains(&total) || !total.is_multiple_of(4) {
                return Err(self.foreign(format!("a block of {total} B")));
            }
            self.fill(total)?;
            let block = std::mem::take(&mut self.block);
            let record = self.take(&block)?;
            self.at += block.len() as u64;
            if record.is_some() {
                return Ok(record);
            }
        }
        Ok(None)
    }

    /// Makes sure that `need` bytes of the block are there.
    fn fill(&mut self, need: usize) -> Result<&[u8], ReadError> {
        let missing = need.saturating_sub(self.block.len());
        self.input.by_ref().take(missing as u64).read_to_end(&mut self.block)?;
        match self.block.len() {
            have if have >= need => Ok(&self.block),
            0 if self.described => Err(ReadError::NoEnd { at: self.at }),
            have => Err(ReadError::Torn { at: self.at, have, need }),
        }
    }

    fn foreign(&self, what: String) -> ReadError {
        ReadError::Foreign { at: self.at, what }
    }

    fn take(&mut self, block: &[u8]) -> Result<Option<Record>, ReadError> {
        let body = block.get(8..block.len() - 4).unwrap_or_default();
        match word(block, 0) {
            pcapng::SECTION if word(body, 0) != pcapng::BYTE_ORDER => {
                Err(self.foreign("it is of a big-endian machine, which busway never is".to_owned()))
            }
            pcapng::INTERFACE => {
                let link_type = word(body, 0) as u16;
                let resolution =
                    pcapng::find(body.get(8..).unwrap_or_default(), pcapng::IF_TSRESOL);
                if link_type != LINK_TYPE || resolution != Some(&[9]) {
                    let what = format!("link type {link_type}: it is no capture of busway's");
                    return Err(self.foreign(what));
                }
                self.described = true;
                Ok(None)
            }
            pcapng::PACKET => self.record(body).map(Some),
            pcapng::STATISTICS => {
                let options = body.get(12..).unwrap_or_default();
                let number = |code| {
                    let value = pcapng::find(options, code).and_then(<[u8]>::first_chunk);
                    value.map_or(0, |value| u64::from_le_bytes(*value))
                };
                let records = number(pcapng::ISB_IFRECV);
                self.statistics = Some(Statistics { records, lost: number(pcapng::ISB_IFDROP) });
                Ok(None)
            }
            // Blocks that other programs add, comments for example.
            _ => Ok(None),
        }
    }

    fn record(&mut self, body: &[u8]) -> Result<Record, ReadError> {
        let time = u64::from(word(body, 4)) << 32 | u64::from(word(body, 8));
        let len = word(body, 12) as usize;
        let data = body.get(20..).and_then(|rest| rest.get(..len));
        let header = data.and_then(|data| Header::read_from_prefix(data).ok());
        let Some((header, data)) = header else {
            return Err(
                self.foreign(format!("a record of {len} B, where a header has {HEADER_LEN}"))
            );
        };
        if header.version != VERSION {
            let Header { version, .. } = header;
            return Err(self.foreign(format!(
                "records of version {version}, where this busway reads {VERSION}"
            )));
        }
        self.records += 1;
        Ok(Record { number: self.records, time, header, body: data.to_vec() })
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;
    use crate::layout::{GUEST, Kind};

    fn capture(records: usize) -> Vec<u8> {
        let mut bytes = pcapng::start("test", 100);
        for _ in 0..records {
            let header = Header { len: 3, ..Header::new(Kind::Message, GUEST) };
            pcapng::packet(&mut bytes, 5, 59, &[header.as_bytes(), b"abc"]);
        }
        pcapng::end(&mut bytes, 9, records as u64, 0);
        bytes
    }

    /// Wherever it is cut, the records before that are read, and then the place is named.
    #[test]
    fn a_torn_file_is_named_and_read_as_far_as_it_goes() {
        let whole = capture(3);
        let (starts, packet) = (pcapng::start("test", 100).len(), 32 + 60);
        for len in 0..whole.len() {
            let mut reader = Reader::new(&whole[..len]);
            let mut records = 0;
            let error = loop {
                match reader.next() {
                    Ok(Some(_)) => records += 1,
                    Ok(None) => panic!("{len} of {} B are a whole capture", whole.len()),
                    Err(error) => break error,
                }
            };
            assert_eq!(records, (len.saturating_sub(starts) / packet).min(3), "{len}");
            match error {
                ReadError::Torn { at, have, need } => {
                    assert_eq!(at as usize + have, len);
                    assert!(need > have);
                }
                ReadError::NoEnd { at } => assert_eq!(at as usize, len),
                other => panic!("{len}: {other}"),
            }
        }
    }

    /// As `--follow` reads it.
    #[test]
    fn a_file_that_grows_is_read_on() {
        struct Growing<'a>(&'a [u8], usize);
        impl Read for Growing<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                if self.1 == 0 {
                    self.1 = 7;
                    return Ok(0);
                }
                let count = out.len().min(self.1).min(self.0.len());
                out[..count].copy_from_slice(&self.0[..count]);
                (self.0, self.1) = (&self.0[count..], self.1 - count);
                Ok(count)
            }
        }
        let whole = capture(3);
        let mut reader = Reader::new(Growing(&whole, 7));
        let mut records = 0;
        loop {
            match reader.next() {
                Ok(Some(record)) => {
                    records += 1;
                    assert_eq!((record.number, &*record.body), (records, b"abc".as_slice()));
                }
                Ok(None) => break,
                Err(ReadError::Torn { .. } | ReadError::NoEnd { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(records, 3);
    }

    #[test]
    fn other_files_are_told_apart() {
        let reason = |bytes: &[u8]| Reader::new(bytes).next().unwrap_err().to_string();
        assert_eq!(reason(b"#!/bin/sh\nexit 0"), "at byte 0: it is no pcapng file");
        let mut ethernet = capture(1);
        let at = ethernet.windows(4).position(|bytes| bytes == [147, 0, 0, 0]).unwrap();
        ethernet[at] = 1;
        assert!(reason(&ethernet).contains("link type 1"), "{}", reason(&ethernet));
        let mut newer = capture(1);
        let at = newer.windows(3).position(|bytes| bytes == b"abc").unwrap() - HEADER_LEN;
        newer[at] = 2;
        assert!(reason(&newer).contains("version 2"), "{}", reason(&newer));
        let mut huge = capture(0);
        huge[4..8].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
        assert!(reason(&huge).contains("4294967280 B"));
    }
}
