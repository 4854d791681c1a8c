// SPDX-License-Identifier: MIT OR Apache-2.0

//! A program's output, which comes in pieces, as lines.

/// The line that has not ended yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// Takes a piece; `each` gets the lines that it ends.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.0);
                each(&String::from_utf8_lossy(&line));
            } else {
                self.0.push(*byte);
            }
        }
    }
}
