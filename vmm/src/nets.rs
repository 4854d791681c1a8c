// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine's network cards: their networks are opened once, whatever happens to the machine.

use std::collections::HashMap;

use busway_frames::{Network, OpenError};
use busway_network::{CardOptions, Mac, NetworkCard};
use busway_wire::Guid;
use busway_wire::nvsp::Version;

use crate::links::{Link, Links};
use crate::spec::{MacSpec, NetSpec, NetworkSpec};

/// A network of the description cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("--net")]
pub struct NetError(#[from] OpenError);

/// Cards on open networks. Dropping it ends what was started for them.
#[derive(Debug)]
pub struct Nets {
    cards: Vec<NetworkCard>,
    links: Links,
}

impl Nets {
    /// Opens the networks. The cards speak versions up to `newest`.
    pub fn open(specs: &[NetSpec], newest: Version) -> Result<Self, NetError> {
        let mut same: HashMap<String, u32> = HashMap::new();
        let (mut cards, mut links) = (Vec::new(), Vec::new());
        for spec in specs {
            let NetSpec { network, mac, queues, mtu } = spec;
            let number = same.entry(network.to_string()).or_default();
            let (instance, own_mac) = identity(network, *number);
            *number += 1;
            let mac = mac.map_or(own_mac, |MacSpec(mac)| mac);
            let options = CardOptions { instance, mac, mtu: *mtu, queues: *queues };
            let card = NetworkCard::new(&options, open(network, *queues)?);
            let card = card.with_newest_version(newest);
            links.push(Link { network: network.clone(), mac, control: card.link() });
            cards.push(card);
        }
        Ok(Self { cards, links: Links::new(links) })
    }

    /// The cards, as a machine has them when it starts.
    pub fn cards(&self) -> impl Iterator<Item = NetworkCard> {
        self.cards.iter().cloned()
    }

    /// Their cables.
    pub const fn links(&self) -> &Links {
        &self.links
    }
}

fn open(network: &NetworkSpec, queues: u16) -> Result<Network, OpenError> {
    match network {
        NetworkSpec::Tap(name) => Network::tap(name, queues),
        NetworkSpec::Passt => Network::passt(),
        NetworkSpec::Socket(path) => Network::socket(path),
        NetworkSpec::Loopback => Ok(Network::loopback()),
    }
}

/// By what guests know a card again, and the address that it has if none was chosen: both follow
/// from its network, and from how many cards before it have one that is called the same.
fn identity(network: &NetworkSpec, number: u32) -> (Guid, Mac) {
    // FNV-1a of 128 bits: names need no more than to differ, and to be the same in every build.
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let text = format!("net:{network}#{number}");
    let hash = text.bytes().fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    // A random GUID's version and variant (RFC 9562, section 5.4).
    let fixed = 0xffff_ffff_ffff_0fff_3fff_ffff_ffff_ffff_u128;
    let guid = hash & fixed | 0x4000_8000_0000_0000_0000;
    let [a, b, c, d, e, ..] = hash.to_le_bytes();
    // A locally administered address: no vendor's.
    (Guid::from_text_order(guid), Mac([0x02, a, b, c, d, e]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_the_same_in_every_run_and_no_other() {
        let tap = |name: &str| NetworkSpec::Tap(name.to_owned());
        let (guid, mac) = identity(&tap("tap0"), 0);
        assert_eq!((guid, mac), identity(&tap("tap0"), 0));
        for other in [identity(&tap("tap1"), 0), identity(&tap("tap0"), 1)] {
            assert!(guid != other.0 && mac != other.1);
        }
        assert!(mac.is_single() && mac.0[0] == 2);
        assert_eq!(&guid.to_string()[14..15], "4");
        assert!("89ab".contains(&guid.to_string()[19..20]));
    }
}
