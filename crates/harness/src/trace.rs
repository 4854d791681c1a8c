// SPDX-License-Identifier: MIT OR Apache-2.0

//! What passed between a guest and busway, as a capture has it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::machine::program;

/// A capture (`--capture FILE`), as `busway decode --json` explains it.
#[derive(Clone, Debug)]
pub struct Trace {
    /// An object for each record, in their order.
    pub records: Vec<Value>,
    /// The exit status of `busway decode`: 0 if nothing was lost and all was understood, 1 if not, 2 if the
    /// file cannot be read or is torn.
    pub status: Option<i32>,
    /// What it said besides.
    pub errors: String,
}

impl Trace {
    /// Reads the capture of a machine that has ended.
    ///
    /// # Panics
    /// There is no program `busway`.
    pub fn read(capture: impl AsRef<Path>) -> Self {
        let mut command = Command::new(program());
        let output = command.arg("decode").arg(capture.as_ref()).arg("--json").output();
        let output = output.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let text = String::from_utf8(output.stdout).unwrap();
        Self {
            records: text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            status: output.status.code(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The records of a device, such as `storage`, in whose explanation these words are.
    pub fn of<'a>(&'a self, device: &'a str, words: &'a str) -> impl Iterator<Item = &'a Value> {
        self.records.iter().filter(move |record| {
            record["device"] == device
                && record["text"].as_str().is_some_and(|text| text.contains(words))
        })
    }
}
