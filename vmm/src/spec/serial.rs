// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the guest's serial port leads.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// The host's end of the serial port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SerialSpec {
    /// busway's own terminal or pipes.
    #[default]
    Stdio,
    /// Nothing in, and output thrown away.
    Null,
    /// Nothing in, and output into a file.
    File(PathBuf),
    /// A unix socket that one client at a time connects to.
    Unix(PathBuf),
}

impl FromStr for SerialSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.split_once('=') {
            None if text == "stdio" => Ok(Self::Stdio),
            None if text == "null" => Ok(Self::Null),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => Err(ValueError("give stdio, null, file=PATH or unix=PATH".to_owned())),
        }
    }
}

impl fmt::Display for SerialSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::Null => f.write_str("null"),
            Self::File(path) => write!(f, "file={}", path.display()),
            Self::Unix(path) => write!(f, "unix={}", path.display()),
        }
    }
}

impl TryFrom<String> for SerialSpec {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<SerialSpec> for String {
    fn from(serial: SerialSpec) -> Self {
        serial.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_printed() {
        for text in ["stdio", "null", "file=/tmp/a=b", "unix=vm.sock"] {
            assert_eq!(text.parse::<SerialSpec>().unwrap().to_string(), text);
        }
        for wrong in ["", "file", "file=", "pty", "null=1"] {
            assert!(wrong.parse::<SerialSpec>().is_err(), "{wrong:?}");
        }
    }
}
