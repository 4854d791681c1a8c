// SPDX-License-Identifier: MIT OR Apache-2.0

//! Key-value pairs: what the guest says of itself, and what it is told.

use std::io;
use std::time::Duration;

use busway_vmbus::Device;
use busway_wire::ic::kvp::{
    Delete, Enumerate, Exchange, Families, Header, IpAddresses, Operation, Pair, Pool, VERSIONS,
    Value, key_field,
};
use busway_wire::ic::{self, MessageType, Status, Version};
use busway_wire::{Guid, class, utf16};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::asks::{Answered, Asks};
use crate::component::{About, Component};
use crate::{Failure, Phase};

const ABOUT: About = About {
    class: class::KVP,
    instance: Guid::from_text_order(0x242ff919_07db_4180_9c2e_b86cb68c8c55),
    kind: MessageType::KVP,
    versions: &VERSIONS,
};

/// Linux gives its daemon 30 s and then answers in its place.
const PATIENCE: Duration = Duration::from_secs(40);

/// Pairs of a pool that are read; no daemon keeps so many. A guest could go on for ever.
const MAX_PAIRS: u32 = 4096;

/// The key-value component.
#[derive(Clone)]
pub struct Kvp {
    component: Component<Asks>,
}

/// Addresses of a network card, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// They come by DHCP.
    pub dhcp: bool,
    /// Which kinds are meant.
    pub families: Families,
    /// Addresses.
    pub addresses: Vec<String>,
    /// A mask for each: dotted, or the length of a prefix.
    pub masks: Vec<String>,
    /// Gateways.
    pub gateways: Vec<String>,
    /// Name servers.
    pub name_servers: Vec<String>,
}

impl Kvp {
    /// One that no guest has seen.
    pub fn new() -> io::Result<Self> {
        Ok(Self { component: Component::new(&ABOUT)? })
    }

    /// The same, on a host that speaks no newer version than this of framework and messages; the
    /// oldest of each is always spoken.
    #[must_use]
    pub fn with_newest_version(self, newest: Version) -> Self {
        Self { component: self.component.with_newest_version(newest) }
    }

    /// It, for the bus.
    pub fn device(&self) -> impl Device + use<> {
        self.component.clone()
    }

    /// How far it and its guest have come.
    pub fn phase(&self) -> Phase {
        self.component.phase()
    }

    /// The value of `key`; `None` if the pool has no such key.
    ///
    /// All pairs are gone through for it. There is a question for one pair (GET), but Linux reads
    /// its daemon's answer to that four bytes too late and so loses the start of the value
    /// (`kvp_respond_to_host` of `drivers/hv/hv_kvp.c`).
    pub fn get(&self, pool: Pool, key: &str) -> Result<Option<Value>, Failure> {
        key_field(key)?;
        let pairs = self.list(pool)?;
        Ok(pairs.into_iter().find(|(name, _)| name == key).map(|(_, value)| value))
    }

    /// Keeps `value` under `key`, in place of what was there.
    pub fn set(&self, pool: Pool, key: &str, value: &Value) -> Result<(), Failure> {
        let header = header(Operation::SET, pool);
        let message = Exchange { header, pair: Pair::new(key, value)? };
        self.ask(message.as_bytes())?.done()?;
        Ok(())
    }

    /// Forgets `key`; false if the pool has none of that name.
    pub fn delete(&self, pool: Pool, key: &str) -> Result<bool, Failure> {
        let (field, key_len) = key_field(key)?;
        let message = Delete { header: header(Operation::DELETE, pool), key_len, key: field };
        Ok(found(self.ask(message.as_bytes())?)?.is_some())
    }

    /// All pairs of a pool, in the guest's order.
    pub fn list(&self, pool: Pool) -> Result<Vec<(String, Value)>, Failure> {
        let mut pairs = Vec::new();
        for index in 0..MAX_PAIRS {
            let mut message = Enumerate::new_zeroed();
            (message.header, message.index) = (header(Operation::ENUMERATE, pool), index);
            let Some(body) = found(self.ask(message.as_bytes())?)? else {
                break;
            };
            let Enumerate { pair, .. } = ic::body(&body).map_err(Failure::Short)?;
            pairs.push((pair.key(), pair.value()));
        }
        Ok(pairs)
    }

    /// The addresses of the network card whose own address is `mac`, such as `00:15:5d:12:34:56`.
    /// (Linux's daemon finds cards by that here, and by their device when it sets addresses.)
    pub fn addresses(&self, mac: &str) -> Result<Addresses, Failure> {
        let mut message = addressed(Operation::GET_IP, mac)?;
        message.families = (Families::IPV4 | Families::IPV6).bits();
        let body = self.ask(message.as_bytes())?.done()?;
        let message = IpAddresses::ref_from_prefix(&body);
        let need = size_of::<IpAddresses>();
        let short = |_| Failure::Short(ic::BodyError { have: body.len(), need });
        let (message, _) = message.map_err(short)?;
        Ok(Addresses {
            dhcp: message.dhcp != 0,
            families: Families::from_bits_retain(message.families),
            addresses: split(&message.addresses),
            masks: split(&message.masks),
            gateways: split(&message.gateways),
            name_servers: split(&message.name_servers),
        })
    }

    /// Gives these addresses to the network card that is the VMBus device `adapter`.
    pub fn set_addresses(&self, adapter: Guid, addresses: &Addresses) -> Result<(), Failure> {
        let mut message = addressed(Operation::SET_IP, &format!("{{{adapter}}}"))?;
        message.families = addresses.families.bits();
        message.dhcp = addresses.dhcp.into();
        message.addresses = joined("the list of addresses", &addresses.addresses)?;
        message.masks = joined("the list of masks", &addresses.masks)?;
        message.gateways = joined("the list of gateways", &addresses.gateways)?;
        message.name_servers = joined("the list of name servers", &addresses.name_servers)?;
        self.ask(message.as_bytes())?.done()?;
        Ok(())
    }

    fn ask(&self, body: &[u8]) -> Result<Answered, Failure> {
        self.component.ask(body, PATIENCE)
    }
}

fn header(operation: Operation, pool: Pool) -> Header {
    Header { operation, pool, padding: 0 }
}

/// The body of an answer; `None` if what was asked for is not there.
fn found(answer: Answered) -> Result<Option<Vec<u8>>, Failure> {
    match answer.status {
        Status::NO_MORE_ITEMS => Ok(None),
        _ => answer.done().map(Some),
    }
}

fn addressed(operation: Operation, adapter: &str) -> Result<IpAddresses, Failure> {
    let mut message = IpAddresses::new_zeroed();
    message.operation = operation;
    let what = "the adapter's name";
    let name = utf16::field(adapter);
    message.adapter = name.map_err(|reason| Failure::TooLong { what, reason })?;
    Ok(message)
}

fn split(field: &[u16]) -> Vec<String> {
    let text = utf16::text(field);
    text.split(';').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn joined<const N: usize>(what: &'static str, parts: &[String]) -> Result<[u16; N], Failure> {
    utf16::field(&parts.join(";")).map_err(|reason| Failure::TooLong { what, reason })
}
