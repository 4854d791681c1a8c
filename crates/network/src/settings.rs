// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the guest has settled with the card; changes seldom, and is read by every channel.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use busway_wire::nvsp::{Capabilities, Version};
use busway_wire::rndis::PacketFilter;

use crate::buffers::{ReceiveBuffer, SendBuffer};
use crate::shared::Port;
use crate::steering::{Rss, Steering};

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether it is that of a single card: not a group's, and not nobody's.
    pub const fn is_single(self) -> bool {
        let [first, ..] = self.0;
        first & 1 == 0 && u64_of(self.0) != 0
    }
}

const fn u64_of([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no Ethernet address of a single card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give six pairs of hex digits, the first of them even: 02:00:00:00:00:01")]
pub struct MacError;

impl FromStr for Mac {
    type Err = MacError;

    /// `02:00:00:00:00:01`, or without the colons.
    fn from_str(text: &str) -> Result<Self, MacError> {
        let digits: String = match text.split(':').collect::<Vec<_>>()[..] {
            [digits] if digits.len() == 12 => digits.to_owned(),
            ref pairs if pairs.len() == 6 && pairs.iter().all(|pair| pair.len() == 2) => {
                pairs.concat()
            }
            _ => return Err(MacError),
        };
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(MacError);
        }
        let number = u64::from_str_radix(&digits, 16).map_err(|_| MacError)?;
        let [_, _, mac @ ..] = number.to_be_bytes();
        Some(Self(mac)).filter(|mac| mac.is_single()).ok_or(MacError)
    }
}

/// What holds for all channels of a card between two changes.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Of NVSP, once that is agreed on.
    pub(crate) version: Option<Version>,
    /// What the guest says that it can do.
    pub(crate) capabilities: Capabilities,
    /// The MTU.
    pub(crate) mtu: u16,
    /// Whether the guest has begun with RNDIS.
    pub(crate) ready: bool,
    /// Which frames it wants.
    pub(crate) filter: PacketFilter,
    /// To which address.
    pub(crate) mac: Mac,
    /// To which groups, once it has named some.
    pub(crate) groups: Option<Arc<[Mac]>>,
    /// Whether segments of TCP on IPv4 and IPv6 may come in one.
    pub(crate) coalesce: (bool, bool),
    /// Whether the link is up.
    pub(crate) link_up: bool,
    /// What the guest receives into.
    pub(crate) receive: Option<Arc<ReceiveBuffer>>,
    /// What it sends from.
    pub(crate) send: Option<Arc<SendBuffer>>,
    /// What it has said about RSS.
    pub(crate) rss: Rss,
    /// How frames are spread over channels; `None` if they are not.
    pub(crate) steering: Option<Arc<Steering>>,
    /// Channels that the guest may have, the first counted.
    pub(crate) granted: u16,
    /// The open channels, by their index.
    pub(crate) ports: Vec<Option<Arc<Port>>>,
}

impl Settings {
    /// As the guest finds a card.
    pub(crate) fn new(mac: Mac) -> Self {
        Self {
            version: None,
            capabilities: Capabilities::empty(),
            mtu: 1500,
            ready: false,
            filter: PacketFilter::empty(),
            mac,
            groups: None,
            coalesce: (false, false),
            link_up: true,
            receive: None,
            send: None,
            rss: Rss::default(),
            steering: None,
            granted: 1,
            ports: Vec::new(),
        }
    }

    /// Whether any frame can reach the guest.
    pub(crate) fn receives(&self) -> bool {
        self.ready && self.link_up && !self.filter.is_empty()
    }

    /// The channel `index`, if it is open.
    pub(crate) fn port(&self, index: u16) -> Option<&Arc<Port>> {
        self.ports.get(usize::from(index))?.as_ref()
    }

    /// The largest coalesced frame's IP packet, or the MTU if nothing is coalesced.
    pub(crate) const fn longest_packet(&self) -> usize {
        if self.coalesce.0 || self.coalesce.1 { 65535 } else { self.mtu as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_printed() {
        let mac: Mac = "02:0a:bc:DE:f0:01".parse().unwrap();
        assert_eq!(mac, Mac([2, 0x0a, 0xbc, 0xde, 0xf0, 1]));
        assert_eq!(mac.to_string(), "02:0a:bc:de:f0:01");
        assert_eq!("020abcdef001".parse(), Ok(mac));
        for wrong in [
            "",
            "02:0a:bc:de:f0",
            "02:0a:bc:de:f0:01:02",
            "02:0a:bc:de:f0:0g",
            "2:0a:bc:de:f0:01",
            "01:0a:bc:de:f0:01",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "+20abcdef001",
        ] {
            assert_eq!(wrong.parse::<Mac>(), Err(MacError), "{wrong}");
        }
    }
}
