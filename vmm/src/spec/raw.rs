// SPDX-License-Identifier: MIT OR Apache-2.0

//! Raw channels: what `--raw` says.

use std::path::PathBuf;
use std::str::FromStr;

use busway_wire::Guid;
use serde::{Deserialize, Serialize};

use super::ValueError;

/// A channel whose host is a program of the user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSpec {
    /// The interface type: which driver is meant.
    pub class: ClassGuid,
    /// Packets are those of a pipe.
    #[serde(default)]
    pub pipe: bool,
    /// The guest signals by its monitor page.
    #[serde(default)]
    pub monitor: bool,
    /// The socket that the program connects to; without one, packets are taken and forgotten.
    #[serde(default)]
    pub unix: Option<PathBuf>,
}

/// A GUID, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClassGuid(pub Guid);

impl TryFrom<String> for ClassGuid {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        let wrong = |_| ValueError(format!("{text:?} is no GUID"));
        text.parse().map(Self).map_err(wrong)
    }
}

impl From<ClassGuid> for String {
    fn from(guid: ClassGuid) -> Self {
        guid.0.to_string()
    }
}

impl FromStr for RawSpec {
    type Err = ValueError;

    /// `GUID[,pipe][,monitor][,unix=PATH]`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        const FORM: &str = "give GUID[,pipe][,monitor][,unix=PATH]";
        let mut parts = text.split(',');
        let class = parts.next().unwrap_or_default().to_owned();
        let class =
            class.try_into().map_err(|ValueError(why)| ValueError(format!("{why}: {FORM}")))?;
        let mut raw = Self { class, pipe: false, monitor: false, unix: None };
        for part in parts {
            match part.split_once('=') {
                None if part == "pipe" => raw.pipe = true,
                None if part == "monitor" => raw.monitor = true,
                Some(("unix", path)) if !path.is_empty() => raw.unix = Some(path.into()),
                _ => {
                    return Err(ValueError(format!("{part:?} is no option of a channel: {FORM}")));
                }
            }
        }
        Ok(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: &str = "11223344-5566-4000-8000-99aabbccddee";

    #[test]
    fn options_follow_the_guid() {
        let raw: RawSpec = format!("{GUID},pipe,unix=a.sock").parse().unwrap();
        assert_eq!((raw.pipe, raw.unix), (true, Some("a.sock".into())));
        assert_eq!(String::from(raw.class), GUID);
        assert!(!raw.monitor && format!("{GUID},monitor").parse::<RawSpec>().unwrap().monitor);
        assert_eq!(GUID.parse::<RawSpec>().unwrap().unix, None);
        for wrong in ["", "scsi", "11223344,pipe", &format!("{GUID},unix="), &format!("{GUID},x")] {
            assert!(wrong.parse::<RawSpec>().is_err(), "{wrong:?}");
        }
    }
}
