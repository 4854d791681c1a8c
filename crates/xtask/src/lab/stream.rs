// SPDX-License-Identifier: MIT OR Apache-2.0

//! One direction of the job's output: bytes as they come, then a trailer that says that it is over.
//!
//! A serial port has no end of file, and the emulated host may go away with bytes still on their way. So
//! each port ends with NUL, a word that this run made up, and a status.

use std::io::{self, Read, Write};

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With its trailer, and this status in it.
    Trailer(u8),
    /// Without: the other end went away.
    Broken,
}

/// Copies `from` to `to`, flushing whenever nothing more is there, up to the trailer that starts with
/// `mark`.
pub(crate) fn copy(mut from: impl Read, to: &mut impl Write, mark: &[u8]) -> io::Result<End> {
    let mut chunk = vec![0; 128 << 10];
    let mut held = Vec::new();
    loop {
        let length = match from.read(&mut chunk) {
            Ok(length) => length,
            // QEMU that dies resets the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        held.extend_from_slice(chunk.get(..length).unwrap_or_default());
        let (plain, trailer) = split(&held, mark);
        to.write_all(plain)?;
        to.flush()?;
        if let Some(status) = trailer.and_then(status_in) {
            return Ok(End::Trailer(status));
        }
        if length == 0 {
            return Ok(End::Broken);
        }
        held.drain(..plain.len());
    }
}

/// What is certainly output, and the trailer's text if it has begun.
fn split<'a>(held: &'a [u8], mark: &[u8]) -> (&'a [u8], Option<&'a [u8]>) {
    let mut from = 0;
    while let Some(at) = held.iter().skip(from).position(|byte| mark.first() == Some(byte)) {
        let (plain, rest) = held.split_at(from + at);
        if let Some(text) = rest.strip_prefix(mark) {
            return (plain, Some(text));
        }
        if mark.starts_with(rest) {
            return (plain, None);
        }
        from = plain.len() + 1;
    }
    (held, None)
}

/// `7` of `7\n`; nothing before the line is complete.
fn status_in(text: &[u8]) -> Option<u8> {
    let line = text.split(|byte| *byte == b'\n').next()?;
    if line.len() == text.len() {
        return None;
    }
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &[u8] = b"\0lab 17 ";

    /// Gives its bytes in pieces of a fixed size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let (now, later) = self.0.split_at(self.1.min(self.0.len()));
            buffer[..now.len()].copy_from_slice(now);
            self.0 = later;
            Ok(now.len())
        }
    }

    #[test]
    fn the_trailer_is_found_however_it_is_cut() {
        // A beginning of the mark in the output, and NULs, are output.
        let output = b"one\0two\0lab 1\0\0lab 17\0end";
        let mut all = output.to_vec();
        all.extend_from_slice(MARK);
        all.extend_from_slice(b"42\nnoise after it");
        for size in 1..all.len() + 1 {
            let mut seen = Vec::new();
            let end = copy(Pieces(&all, size), &mut seen, MARK).unwrap();
            assert_eq!(end, End::Trailer(42), "pieces of {size}");
            assert_eq!(seen, output, "pieces of {size}");
        }
    }

    #[test]
    fn a_stream_that_breaks_off_says_so() {
        let mut seen = Vec::new();
        let end = copy(&b"half a line\0la"[..], &mut seen, MARK).unwrap();
        assert_eq!(end, End::Broken);
        assert_eq!(seen, b"half a line");
    }

    #[test]
    fn output_does_not_wait_for_what_follows() {
        let (plain, trailer) = split(b"prompt> \0no", MARK);
        assert_eq!((plain, trailer), (&b"prompt> \0no"[..], None));
    }
}
