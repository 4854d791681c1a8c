// SPDX-License-Identifier: MIT OR Apache-2.0

//! Network cards: what `--net` says.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use busway_network::{MAX_MTU, Mac};
use serde::{Deserialize, Serialize};

use super::ValueError;

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetSpec {
    /// Where its cable leads.
    pub network: NetworkSpec,
    /// Its address; without one, it follows from the network.
    #[serde(default)]
    pub mac: Option<MacSpec>,
    /// Channels that the guest may use.
    #[serde(default = "one")]
    pub queues: u16,
    /// The largest MTU that the guest may choose.
    #[serde(default = "max_mtu")]
    pub mtu: u16,
}

fn one() -> u16 {
    1
}

fn max_mtu() -> u16 {
    MAX_MTU
}

/// Where a card's cable leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NetworkSpec {
    /// A TAP of the host's.
    Tap(String),
    /// passt, started with the machine.
    Passt,
    /// A program that listens at a unix socket.
    Socket(PathBuf),
    /// Back to the card.
    Loopback,
}

/// A card's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacSpec(pub Mac);

/// Network cards contradict each other, or themselves.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetSpecError {
    /// More channels than can be, or none.
    #[error("--net {network},queues={queues}: give 1 to {MAX_QUEUES}")]
    Queues {
        /// The card's network.
        network: NetworkSpec,
        /// What was asked.
        queues: u16,
    },
    /// A network with one way in and out.
    #[error("--net {network} has one queue: remove queues={queues}, or use a TAP")]
    OneQueue {
        /// The card's network.
        network: NetworkSpec,
        /// What was asked.
        queues: u16,
    },
    /// An MTU that a card cannot have.
    #[error("--net {network},mtu={mtu}: give 68 to {MAX_MTU}")]
    Mtu {
        /// The card's network.
        network: NetworkSpec,
        /// What was asked.
        mtu: u16,
    },
    /// Two cards on one cable.
    #[error("--net {network} is given twice: give each card a network of its own")]
    Twice {
        /// The network.
        network: NetworkSpec,
    },
    /// Two cards with one address.
    #[error("--net: two cards have the address {mac}: give each its own")]
    SameMac {
        /// The address.
        mac: Mac,
    },
}

/// The most channels of a card.
const MAX_QUEUES: u16 = 64;

const FORMS: &str = "give tap=NAME, passt, socket=PATH or loopback";
const OPTIONS: &str = "[,mac=02:..][,queues=N][,mtu=N]";

impl FromStr for NetSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut parts = text.split(',');
        let network = parts.next().unwrap_or_default().parse()?;
        let mut net = Self { network, mac: None, queues: one(), mtu: max_mtu() };
        for part in parts {
            let number = |value: &str| {
                let error = || ValueError(format!("{part:?} needs a number"));
                value.parse::<u16>().map_err(|_| error())
            };
            match part.split_once('=') {
                Some(("mac", mac)) => net.mac = Some(mac.to_owned().try_into()?),
                Some(("queues", queues)) => net.queues = number(queues)?,
                Some(("mtu", mtu)) => net.mtu = number(mtu)?,
                _ => {
                    let what = format!("{part:?} is no option of a network card: {FORMS}{OPTIONS}");
                    return Err(ValueError(what));
                }
            }
        }
        Ok(net)
    }
}

impl FromStr for NetworkSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.split_once('=') {
            None if text == "passt" => Ok(Self::Passt),
            None if text == "loopback" => Ok(Self::Loopback),
            Some(("tap", name)) if !name.is_empty() => Ok(Self::Tap(name.to_owned())),
            Some(("socket", path)) if !path.is_empty() => Ok(Self::Socket(path.into())),
            _ => Err(ValueError(FORMS.to_owned())),
        }
    }
}

impl fmt::Display for NetworkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tap(name) => write!(f, "tap={name}"),
            Self::Passt => f.write_str("passt"),
            Self::Socket(path) => write!(f, "socket={}", path.display()),
            Self::Loopback => f.write_str("loopback"),
        }
    }
}

impl TryFrom<String> for NetworkSpec {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<NetworkSpec> for String {
    fn from(network: NetworkSpec) -> Self {
        network.to_string()
    }
}

impl TryFrom<String> for MacSpec {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse().map(Self).map_err(|error| ValueError(format!("mac={text}: {error}")))
    }
}

impl From<MacSpec> for String {
    fn from(mac: MacSpec) -> Self {
        mac.0.to_string()
    }
}

/// Makes sure that all `nets` can be used together. Whether each can be used at all is found out
/// when it is opened.
pub(crate) fn check(nets: &[NetSpec]) -> Result<(), NetSpecError> {
    let (mut networks, mut macs) = (HashSet::new(), HashSet::new());
    for NetSpec { network, mac, queues, mtu } in nets {
        let (network, queues, mtu) = (network.clone(), *queues, *mtu);
        if !(1..=MAX_QUEUES).contains(&queues) {
            return Err(NetSpecError::Queues { network, queues });
        }
        if queues > 1 && matches!(network, NetworkSpec::Passt | NetworkSpec::Socket(_)) {
            return Err(NetSpecError::OneQueue { network, queues });
        }
        if !(68..=MAX_MTU).contains(&mtu) {
            return Err(NetSpecError::Mtu { network, mtu });
        }
        let alone = matches!(network, NetworkSpec::Tap(_) | NetworkSpec::Socket(_));
        if alone && !networks.insert(network.to_string()) {
            return Err(NetSpecError::Twice { network });
        }
        if let Some(MacSpec(mac)) = *mac
            && !macs.insert(mac)
        {
            return Err(NetSpecError::SameMac { mac });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_follow_the_network() {
        let net: NetSpec = "tap=tap0,mac=02:00:00:00:00:07,queues=4,mtu=1500".parse().unwrap();
        assert_eq!(net.network, NetworkSpec::Tap("tap0".to_owned()));
        assert_eq!(net.mac.unwrap().0.to_string(), "02:00:00:00:00:07");
        assert_eq!((net.queues, net.mtu), (4, 1500));
        let net: NetSpec = "passt".parse().unwrap();
        assert_eq!((net.mac, net.queues, net.mtu), (None, 1, 9000));
        for wrong in ["", "tap", "tap=", "passt=1", "loopback,queues", "loopback,mtu=x", "user"] {
            assert!(wrong.parse::<NetSpec>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn json_has_the_same_words() {
        let net: NetSpec = "socket=/run/a.sock,mac=020000000007".parse().unwrap();
        let json = serde_json::to_value(&net).unwrap();
        let expected = serde_json::json!({
            "network": "socket=/run/a.sock", "mac": "02:00:00:00:00:07", "queues": 1, "mtu": 9000
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<NetSpec>(json).unwrap(), net);
    }

    #[test]
    fn cards_must_not_contradict_each_other() {
        let checked = |texts: &[&str]| {
            let nets: Vec<NetSpec> = texts.iter().map(|text| text.parse().unwrap()).collect();
            check(&nets).map_err(|error| error.to_string())
        };
        assert_eq!(checked(&["tap=a", "tap=b", "loopback", "loopback", "passt", "passt"]), Ok(()));
        let refused = |texts: &[&str], part: &str| {
            let error = checked(texts).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        refused(&["tap=a", "tap=a"], "tap=a is given twice");
        refused(&["tap=a,mac=020000000001", "passt,mac=02:00:00:00:00:01"], "02:00:00:00:00:01");
        refused(&["passt,queues=2"], "one queue");
        refused(&["loopback,queues=0"], "1 to 64");
        refused(&["loopback,mtu=9001"], "68 to 9000");
    }
}
