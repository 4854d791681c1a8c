// SPDX-License-Identifier: MIT OR Apache-2.0

//! Captures: what `--capture` says.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// A capture of what passes between guest and host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureSpec {
    /// The file.
    pub file: PathBuf,
    /// Bytes of a packet, or of the data that it refers to, at most.
    #[serde(default = "default_snap")]
    pub snap: u32,
    /// Data of disks and networks too.
    #[serde(default)]
    pub pages: bool,
}

/// More than any packet has.
fn default_snap() -> u32 {
    64 << 10
}

/// More would only be data.
const MAX_SNAP: u32 = 16 << 20;

impl FromStr for CaptureSpec {
    type Err = ValueError;

    /// `FILE[,snap=N][,pages]`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        const FORM: &str = "give FILE[,snap=BYTES][,pages]";
        let mut parts = text.split(',');
        let file = PathBuf::from(parts.next().unwrap_or_default());
        if file.as_os_str().is_empty() {
            return Err(ValueError(format!("there is no file: {FORM}")));
        }
        let mut capture = Self { file, snap: default_snap(), pages: false };
        for part in parts {
            let snap = part.strip_prefix("snap=").map(str::parse);
            match snap {
                Some(Ok(snap)) if snap <= MAX_SNAP => capture.snap = snap,
                Some(_) => {
                    let reason = format!("snap= takes a number of bytes up to {MAX_SNAP}");
                    return Err(ValueError(reason));
                }
                None if part == "pages" => capture.pages = true,
                None => {
                    let reason = format!("{part:?} is no option of a capture: {FORM}");
                    return Err(ValueError(reason));
                }
            }
        }
        Ok(capture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_follow_the_file() {
        let capture: CaptureSpec = "a.pcapng,snap=96,pages".parse().unwrap();
        assert_eq!(capture, CaptureSpec { file: "a.pcapng".into(), snap: 96, pages: true });
        let capture: CaptureSpec = "a.pcapng".parse().unwrap();
        assert_eq!((capture.snap, capture.pages), (65536, false));
        for wrong in ["", "a,snap", "a,snap=", "a,snap=99999999", "a,page", "a,"] {
            assert!(wrong.parse::<CaptureSpec>().is_err(), "{wrong:?}");
        }
    }
}
