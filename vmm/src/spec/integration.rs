// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which integration components the guest is offered: what `--integration` says.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// An integration component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The guest can be asked to switch off.
    Shutdown,
    /// The guest says that it is alive.
    Heartbeat,
    /// The guest is told what time it is.
    Time,
    /// Key-value pairs.
    Kvp,
    /// The guest's file systems can be frozen.
    Vss,
    /// Files can be copied into the guest.
    Copy,
}

impl Service {
    /// The word for it.
    pub fn name(self) -> &'static str {
        WORDS.iter().find(|(_, service, _)| *service == self).map_or("", |(name, ..)| name)
    }
}

/// Each with the word for it, and whether it is offered when nothing is said. As with Hyper-V, files
/// are copied into a guest only where somebody has allowed it.
const WORDS: &[(&str, Service, bool)] = &[
    ("shutdown", Service::Shutdown, true),
    ("heartbeat", Service::Heartbeat, true),
    ("time", Service::Time, true),
    ("kvp", Service::Kvp, true),
    ("vss", Service::Vss, true),
    ("copy", Service::Copy, false),
];

/// A choice of components.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IntegrationSpec(Vec<Service>);

impl IntegrationSpec {
    /// Those chosen.
    pub fn services(&self) -> impl Iterator<Item = Service> {
        self.0.iter().copied()
    }
}

impl Default for IntegrationSpec {
    fn default() -> Self {
        let offered = WORDS.iter().filter(|(_, _, offered)| *offered);
        Self(offered.map(|(_, service, _)| *service).collect())
    }
}

impl FromStr for IntegrationSpec {
    type Err = ValueError;

    /// `all`, `none`, or words with commas between them.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let find = |word: &str| WORDS.iter().find(|(known, ..)| *known == word);
        let words: Option<Vec<_>> = match text {
            "all" => Some(WORDS.iter().collect()),
            "none" => Some(Vec::new()),
            text => text.split(',').map(find).collect(),
        };
        let words = words.ok_or_else(|| {
            let known: Vec<_> = WORDS.iter().map(|(word, ..)| *word).collect();
            ValueError(format!("give all, none, or some of {}", known.join(",")))
        })?;
        let mut services: Vec<_> = words.into_iter().map(|(_, service, _)| *service).collect();
        let count = services.len();
        services.dedup();
        if services.len() != count {
            return Err(ValueError("name each once".to_owned()));
        }
        Ok(Self(services))
    }
}

impl fmt::Display for IntegrationSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let chosen = WORDS.iter().filter(|(_, service, _)| self.0.contains(service));
        let words: Vec<_> = chosen.map(|(word, ..)| *word).collect();
        f.write_str(&words.join(","))
    }
}

impl TryFrom<String> for IntegrationSpec {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<IntegrationSpec> for String {
    fn from(spec: IntegrationSpec) -> Self {
        spec.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_printed() {
        for text in ["none", "shutdown", "shutdown,heartbeat"] {
            assert_eq!(text.parse::<IntegrationSpec>().unwrap().to_string(), text);
        }
        assert_eq!("all".parse::<IntegrationSpec>().unwrap().services().count(), WORDS.len());
        for wrong in ["", "clock", "shutdown,", "time,time", "all,none"] {
            assert!(wrong.parse::<IntegrationSpec>().is_err(), "{wrong:?}");
        }
    }
}
