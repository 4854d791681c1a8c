// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine's network cards. Their networks are opened once, whatever happens to the machine; cards
//! come and go while it runs.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use busway_frames::{Network, OpenError};
use busway_network::{CardOptions, Mac, NetworkCard};
use busway_wire::Guid;
use busway_wire::nvsp::Version;

use crate::bus::{News, Port, VmBus};
use crate::links::{Link, LinkError, Links};
use crate::lock;
use crate::spec::{MacSpec, NetSpec, NetSpecError, NetworkSpec, check_nets};

/// How long a guest may go on sending when its card's cable is pulled: hv_netvsc looks at its link every
/// two seconds. It waits for ever for what it has sent to a card that is rescinded meanwhile
/// (`rndis_filter_halt_device`).
const TO_STOP: Duration = Duration::from_millis(2500);

/// A card cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Its network cannot.
    #[error("--net")]
    Open(#[from] OpenError),
    /// It contradicts itself, or another card.
    #[error(transparent)]
    Spec(#[from] NetSpecError),
}

/// Cards on open networks. Clones are the same cards; what was started for a card ends when it is removed,
/// or with the last clone.
#[derive(Clone)]
pub struct Nets {
    newest: Version,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    cards: Vec<Card>,
    /// The bus of the machine's life that began last.
    port: Option<Arc<Port>>,
}

struct Card {
    spec: NetSpec,
    card: NetworkCard,
    link: Link,
}

impl Nets {
    /// Opens the networks. The cards speak versions up to `newest`.
    pub fn open(specs: &[NetSpec], newest: Version) -> Result<Self, NetError> {
        let nets = Self { newest, state: Arc::default() };
        for spec in specs {
            nets.add(spec)?;
        }
        Ok(nets)
    }

    /// Puts the cards on the bus of a machine that is about to start, and on which they come and go.
    pub fn attach(&self, bus: &mut VmBus) {
        let mut state = lock(&self.state);
        for Card { card, .. } in &state.cards {
            bus.add(Box::new(card.clone()));
        }
        state.port = Some(Arc::clone(bus.port()));
    }

    /// Opens a network, and adds a card on it to the machine; returns its address.
    pub fn add(&self, spec: &NetSpec) -> Result<Mac, NetError> {
        let mut state = lock(&self.state);
        let all: Vec<_> = state.cards.iter().map(|card| card.spec.clone()).collect();
        check_nets(&[all.as_slice(), std::slice::from_ref(spec)].concat())?;
        let NetSpec { network, mac, queues, mtu } = spec;
        let (instance, own_mac) = state.free_identity(network);
        let mac = mac.map_or(own_mac, |MacSpec(mac)| mac);
        let options = CardOptions { instance, mac, mtu: *mtu, queues: *queues };
        let card = NetworkCard::new(&options, open(network, *queues)?);
        let card = card.with_newest_version(self.newest);
        let link = Link { instance, network: network.clone(), mac, control: card.link() };
        if let Some(port) = &state.port {
            port.send(News::Add(Box::new(card.clone())));
        }
        state.cards.push(Card { spec: spec.clone(), card, link });
        Ok(mac)
    }

    /// Takes the card of that name, as [`Links::find`] has it, from the machine, some seconds after its
    /// cable. The guest closes it; its network is let go of then.
    pub fn remove(&self, name: &str) -> Result<(), LinkError> {
        let links = self.links();
        let link = links.find(name)?;
        link.control.set_up(false);
        thread::sleep(TO_STOP);
        let instance = link.instance;
        let mut state = lock(&self.state);
        state.cards.retain(|card| card.link.instance != instance);
        if let Some(port) = &state.port {
            port.send(News::Remove(instance));
        }
        Ok(())
    }

    /// Their cables, as they are now.
    pub fn links(&self) -> Links {
        Links::new(lock(&self.state).cards.iter().map(|card| card.link.clone()).collect())
    }
}

impl State {
    /// The first identity on this network that no card has.
    fn free_identity(&self, network: &NetworkSpec) -> (Guid, Mac) {
        let is_taken = |instance| self.cards.iter().any(|card| card.link.instance == instance);
        let mut number = 0;
        loop {
            let (instance, mac) = identity(network, number);
            if !is_taken(instance) {
                return (instance, mac);
            }
            number += 1;
        }
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
    fn cards_come_and_go_and_take_no_others_place() {
        let nets = Nets::open(&["loopback".parse().unwrap()], Version::V6_1).unwrap();
        let macs = || nets.links().iter().map(|link| link.mac).collect::<Vec<_>>();
        let first = macs()[0];
        let second = nets.add(&"loopback".parse().unwrap()).unwrap();
        assert_eq!(macs(), [first, second]);
        nets.remove(&first.to_string()).unwrap();
        assert_eq!(macs(), [second]);
        // What has gone may come again, and is the same to its guest.
        assert_eq!(nets.add(&"loopback".parse().unwrap()).unwrap(), first);
        assert!(nets.remove("tap=tap0").is_err());
        nets.add(&format!("loopback,mac={}", Mac([2; 6])).parse().unwrap()).unwrap();
        let again = format!("loopback,mac={}", Mac([2; 6])).parse().unwrap();
        assert!(matches!(nets.add(&again), Err(NetError::Spec(NetSpecError::SameMac { .. }))));
        assert_eq!(macs().len(), 3);
    }

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
