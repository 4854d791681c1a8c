// SPDX-License-Identifier: MIT OR Apache-2.0

//! The cables of the machine's network cards, which outlive its resets.

use busway_network::{LinkControl, Mac};
use busway_wire::Guid;

use crate::spec::NetworkSpec;

/// A card's cable, and by what its user and its guest know the card.
#[derive(Clone, Debug)]
pub struct Link {
    /// The card's instance.
    pub instance: Guid,
    /// Where the cable leads, as `--net` said it.
    pub network: NetworkSpec,
    /// The card's own address, as the guest found it.
    pub mac: Mac,
    /// The plug.
    pub control: LinkControl,
}

/// All cables of a machine.
#[derive(Clone, Debug, Default)]
pub struct Links(Vec<Link>);

/// A card is not to be found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// There are none.
    #[error("the machine has no network card: start it with --net")]
    NoCards,
    /// None of that name.
    #[error("the machine has no network card '{name}': give {cards}")]
    None {
        /// What was asked for.
        name: String,
        /// What there is.
        cards: String,
    },
    /// More than one.
    #[error("several network cards are on '{name}': give {cards}")]
    Several {
        /// What was asked for.
        name: String,
        /// Their addresses.
        cards: String,
    },
}

impl Links {
    /// Those of these cards, in this order.
    pub fn new(links: Vec<Link>) -> Self {
        Self(links)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.iter()
    }

    /// The card that has the address `name`, or the network that `--net` calls so.
    pub fn find(&self, name: &str) -> Result<&Link, LinkError> {
        let either = |names: Vec<String>| names.join(" or ");
        let mac = name.parse::<Mac>().ok();
        let is_meant = |link: &&Link| mac == Some(link.mac) || link.network.to_string() == name;
        let found: Vec<_> = self.iter().filter(is_meant).collect();
        match found[..] {
            [link] => Ok(link),
            [] if self.0.is_empty() => Err(LinkError::NoCards),
            [] => {
                let text = |link: &Link| format!("{} ({})", link.mac, link.network);
                let cards = either(self.iter().map(text).collect());
                Err(LinkError::None { name: name.to_owned(), cards })
            }
            ref several => {
                let cards = either(several.iter().map(|link| link.mac.to_string()).collect());
                Err(LinkError::Several { name: name.to_owned(), cards })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use busway_wire::nvsp::Version;

    use super::*;
    use crate::nets::Nets;
    use crate::spec::NetSpec;

    fn nets(specs: &[&str]) -> Nets {
        let specs: Vec<NetSpec> = specs.iter().map(|spec| spec.parse().unwrap()).collect();
        Nets::open(&specs, Version::V6_1).unwrap()
    }

    #[test]
    fn a_card_is_found_by_its_address_and_by_its_network() {
        let nets = nets(&["loopback,mac=02:00:00:00:00:07"]);
        let links = nets.links();
        links.find("loopback").unwrap().control.set_up(false);
        assert!(!links.find("02:00:00:00:00:07").unwrap().control.is_up());
        let error = links.find("tap=tap0").unwrap_err().to_string();
        assert!(error.contains("'tap=tap0': give 02:00:00:00:00:07 (loopback)"), "{error}");
        assert_eq!(Links::default().find("loopback").unwrap_err(), LinkError::NoCards);
    }

    #[test]
    fn two_cards_on_networks_of_one_name_are_told_apart() {
        let nets = nets(&["loopback,mac=02:00:00:00:00:07", "loopback,mac=02:00:00:00:00:08"]);
        let error = nets.links().find("loopback").unwrap_err().to_string();
        assert!(error.contains("02:00:00:00:00:07 or 02:00:00:00:00:08"), "{error}");
        nets.links().find("02:00:00:00:00:08").unwrap().control.set_up(false);
        assert!(nets.links().find("02:00:00:00:00:07").unwrap().control.is_up());
    }
}
