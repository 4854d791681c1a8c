// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's questions and settings: OIDs.

use busway_wire::nvsp::{Capabilities, Version};
use busway_wire::rndis::{
    Answer, ChecksumOffload, ConfigParameter, Control, Encapsulation, InitializeComplete,
    LargeSendV2Offload, Offload, OffloadParameters, Oid, PacketFilter, RscOffload, RssCapabilities,
    RssSettings, Status, TxChecksum,
};
use zerocopy::IntoBytes;

use crate::counters;
use crate::receive::Receiver;
use crate::settings::{Mac, Settings};
use crate::shared::{LinkNews, Shared};
use crate::steering::TABLE_ENTRIES;

/// Frames that a guest may put into one packet.
const MAX_PACKETS: u32 = 8;

/// Bytes of the longest packet.
pub(crate) const MAX_TRANSFER: u32 = 128 << 10;

/// Frames begin at multiples of 8.
const ALIGNMENT_SHIFT: u32 = 3;

/// 10 Gbit/s, in units of 100 bit/s.
const LINK_SPEED: u32 = 100_000_000;

/// The version of NDIS that the card's driver is written for, major and minor.
const NDIS_VERSION: u16 = 0x061e;

/// Groups that a guest may name: as many as real cards tell apart.
const MOST_GROUPS: usize = 32;

/// Every OID that can be queried, in the order of their numbers.
const SUPPORTED: [Oid; 37] = [
    Oid::GEN_SUPPORTED_LIST,
    Oid::GEN_HARDWARE_STATUS,
    Oid::GEN_MEDIA_SUPPORTED,
    Oid::GEN_MEDIA_IN_USE,
    Oid::GEN_MAXIMUM_LOOKAHEAD,
    Oid::GEN_MAXIMUM_FRAME_SIZE,
    Oid::GEN_LINK_SPEED,
    Oid::GEN_TRANSMIT_BUFFER_SPACE,
    Oid::GEN_RECEIVE_BUFFER_SPACE,
    Oid::GEN_TRANSMIT_BLOCK_SIZE,
    Oid::GEN_RECEIVE_BLOCK_SIZE,
    Oid::GEN_VENDOR_ID,
    Oid::GEN_VENDOR_DESCRIPTION,
    Oid::GEN_CURRENT_PACKET_FILTER,
    Oid::GEN_CURRENT_LOOKAHEAD,
    Oid::GEN_DRIVER_VERSION,
    Oid::GEN_MAXIMUM_TOTAL_SIZE,
    Oid::GEN_MAC_OPTIONS,
    Oid::GEN_MEDIA_CONNECT_STATUS,
    Oid::GEN_MAXIMUM_SEND_PACKETS,
    Oid::GEN_VENDOR_DRIVER_VERSION,
    Oid::GEN_RECEIVE_SCALE_CAPABILITIES,
    Oid::GEN_XMIT_OK,
    Oid::GEN_RCV_OK,
    Oid::GEN_XMIT_ERROR,
    Oid::GEN_RCV_ERROR,
    Oid::GEN_RCV_NO_BUFFER,
    Oid::GEN_FRIENDLY_NAME,
    Oid::ETHERNET_PERMANENT_ADDRESS,
    Oid::ETHERNET_CURRENT_ADDRESS,
    Oid::ETHERNET_MULTICAST_LIST,
    Oid::ETHERNET_MAXIMUM_LIST_SIZE,
    Oid::ETHERNET_RCV_ERROR_ALIGNMENT,
    Oid::ETHERNET_XMIT_ONE_COLLISION,
    Oid::ETHERNET_XMIT_MORE_COLLISIONS,
    Oid::TCP_OFFLOAD_CURRENT_CONFIG,
    Oid::TCP_OFFLOAD_HARDWARE_CAPABILITIES,
];

/// What a card is, apart from what its guest settles.
#[derive(Clone, Debug)]
pub(crate) struct Nature {
    pub(crate) mac: Mac,
    /// The largest MTU.
    pub(crate) mtu: u16,
    /// Channels at most.
    pub(crate) channels: u16,
    /// The newest version that is spoken.
    pub(crate) newest_version: Version,
    /// Whether its network computes checksums and cuts.
    pub(crate) offloads: bool,
    /// What the user calls it.
    pub(crate) name: String,
}

impl Nature {
    /// Whether segments may come coalesced: the network does that, and the guest said so.
    fn can_coalesce(&self, settings: &Settings) -> bool {
        let buffer = settings.receive.as_ref();
        self.offloads
            && settings.version >= Some(Version::V6_1)
            && settings.capabilities.contains(Capabilities::RSC)
            && buffer.is_some_and(|buffer| Receiver::can_coalesce(buffer))
    }

    fn mtu(&self, settings: &Settings) -> u32 {
        u32::from(self.mtu.min(settings.mtu))
    }
}

/// What follows from a control message; `None` is no answer.
pub(crate) fn answer(
    request: &Control<'_>,
    nature: &Nature,
    settings: &Settings,
    shared: &Shared,
) -> Option<Answer> {
    Some(match request {
        Control::Initialize(body) => {
            shared.change(|settings| settings.ready = true);
            Answer::initialize(&InitializeComplete {
                request_id: body.request_id,
                status: Status::SUCCESS,
                major: 1,
                minor: 0,
                device_flags: 1,
                medium: 0,
                max_packets: MAX_PACKETS,
                max_transfer_len: MAX_TRANSFER,
                alignment_shift: ALIGNMENT_SHIFT,
                address_family_offset: 0,
                address_family_len: 0,
            })
        }
        Control::Halt => {
            shared.change(|settings| {
                settings.ready = false;
                settings.filter = PacketFilter::empty();
                settings.groups = None;
                settings.steering = None;
            });
            return None;
        }
        Control::Query(request, info) => {
            match query(request.oid, info.len(), nature, settings, shared) {
                Some(value) => Answer::query(request.request_id, &value),
                None => Answer::no_value(request.request_id, Status::NOT_SUPPORTED),
            }
        }
        Control::Set(request, info) => {
            Answer::set(request.request_id, set(request.oid, info, nature, settings, shared))
        }
        Control::Reset => Answer::reset(),
        Control::Keepalive { request_id } => Answer::keepalive(*request_id),
    })
}

/// The value of an OID; `asked` is how long the guest's own is, where it gives one.
fn query(
    oid: Oid,
    asked: usize,
    nature: &Nature,
    settings: &Settings,
    shared: &Shared,
) -> Option<Vec<u8>> {
    if let Some(total) = counters::total(oid, &shared.counters) {
        // 32 bits unless the guest has room for more.
        let len = if asked >= 8 { 8 } else { 4 };
        return total.to_le_bytes().get(..len).map(<[u8]>::to_vec);
    }
    let mtu = nature.mtu(settings);
    let number = |number: u32| Some(number.to_le_bytes().to_vec());
    match oid {
        Oid::GEN_SUPPORTED_LIST => Some(SUPPORTED.as_bytes().to_vec()),
        Oid::GEN_HARDWARE_STATUS | Oid::GEN_MEDIA_SUPPORTED | Oid::GEN_MEDIA_IN_USE => number(0),
        Oid::GEN_MAXIMUM_LOOKAHEAD | Oid::GEN_CURRENT_LOOKAHEAD | Oid::GEN_MAXIMUM_FRAME_SIZE => {
            number(mtu)
        }
        Oid::GEN_MAXIMUM_TOTAL_SIZE
        | Oid::GEN_TRANSMIT_BLOCK_SIZE
        | Oid::GEN_RECEIVE_BLOCK_SIZE => number(mtu + 14),
        Oid::GEN_LINK_SPEED => number(LINK_SPEED),
        Oid::GEN_TRANSMIT_BUFFER_SPACE => {
            number(settings.send.as_ref().map_or(0, |buffer| buffer.memory.len() as u32))
        }
        Oid::GEN_RECEIVE_BUFFER_SPACE => {
            number(settings.receive.as_ref().map_or(0, |buffer| buffer.memory.len() as u32))
        }
        Oid::GEN_DRIVER_VERSION => Some(NDIS_VERSION.to_le_bytes().to_vec()),
        Oid::GEN_VENDOR_DRIVER_VERSION => number(1 << 16),
        // A locally administered code: no vendor's.
        Oid::GEN_VENDOR_ID => number(0x00ff_ffff),
        Oid::GEN_VENDOR_DESCRIPTION => Some(b"busway\0".to_vec()),
        Oid::GEN_CURRENT_PACKET_FILTER => number(settings.filter.bits()),
        Oid::GEN_MAC_OPTIONS => number(0),
        Oid::GEN_MEDIA_CONNECT_STATUS => number(u32::from(!settings.link_up)),
        Oid::GEN_MAXIMUM_SEND_PACKETS => number(MAX_PACKETS),
        Oid::GEN_FRIENDLY_NAME => {
            Some(nature.name.encode_utf16().flat_map(u16::to_le_bytes).collect())
        }
        Oid::ETHERNET_PERMANENT_ADDRESS => Some(nature.mac.0.to_vec()),
        Oid::ETHERNET_CURRENT_ADDRESS => Some(settings.mac.0.to_vec()),
        Oid::ETHERNET_MULTICAST_LIST => Some(
            settings.groups.iter().flat_map(|groups| groups.iter()).flat_map(|mac| mac.0).collect(),
        ),
        Oid::ETHERNET_MAXIMUM_LIST_SIZE => number(MOST_GROUPS as u32),
        Oid::TCP_OFFLOAD_HARDWARE_CAPABILITIES | Oid::TCP_OFFLOAD_CURRENT_CONFIG => {
            Some(offload(nature, settings).of_len(asked))
        }
        Oid::GEN_RECEIVE_SCALE_CAPABILITIES if settings.version >= Some(Version::V5) => {
            Some(RssCapabilities::value(nature.channels.into(), TABLE_ENTRIES))
        }
        _ => None,
    }
}

fn offload(nature: &Nature, settings: &Settings) -> Offload {
    let mut offload = Offload::none();
    if !nature.offloads {
        return offload;
    }
    let wrapped = Encapsulation::ETHERNET | Encapsulation::VLAN_BESIDE;
    let wrapped = wrapped.bits();
    let both = TxChecksum::IP_OPTIONS | TxChecksum::TCP_OPTIONS | TxChecksum::TCP | TxChecksum::UDP;
    let both = both.bits();
    offload.checksum = ChecksumOffload {
        ip4_tx_encapsulation: wrapped,
        ip4_tx: both,
        ip4_rx_encapsulation: wrapped,
        ip4_rx: both,
        ip6_tx_encapsulation: wrapped,
        ip6_tx: both,
        ip6_rx_encapsulation: wrapped,
        ip6_rx: both,
    };
    // An IP packet's longest, less room for what a guest's tunnels may add.
    let longest = 65535 - 256;
    offload.large_send = LargeSendV2Offload {
        ip4_encapsulation: wrapped,
        ip4_max_len: longest,
        ip4_min_segments: 2,
        ip6_encapsulation: wrapped,
        ip6_max_len: longest,
        ip6_min_segments: 2,
        ip6_options: LargeSendV2Offload::EXTENSIONS | LargeSendV2Offload::TCP_OPTIONS,
    };
    if nature.can_coalesce(settings) {
        offload.rsc = RscOffload { ip4: 1, ip6: 1 };
    }
    offload
}

fn set(oid: Oid, info: &[u8], nature: &Nature, settings: &Settings, shared: &Shared) -> Status {
    match oid {
        Oid::GEN_CURRENT_PACKET_FILTER => {
            let Some(filter) = info.first_chunk() else { return Status::INVALID_LENGTH };
            let filter = PacketFilter::from_bits_retain(u32::from_le_bytes(*filter));
            shared.change(|settings| settings.filter = filter);
            Status::SUCCESS
        }
        // How early a driver looks: it gets all of a frame, in the one wrapping that there is.
        Oid::GEN_CURRENT_LOOKAHEAD | Oid::OFFLOAD_ENCAPSULATION => Status::SUCCESS,
        Oid::ETHERNET_MULTICAST_LIST => set_groups(info, shared),
        Oid::ETHERNET_CURRENT_ADDRESS => match info.first_chunk() {
            Some(mac) => set_mac(Mac(*mac), shared),
            None => Status::INVALID_LENGTH,
        },
        Oid::GEN_RNDIS_CONFIG_PARAMETER => match ConfigParameter::text(info) {
            Some((name, value)) if name == "NetworkAddress" => {
                value.parse().map_or(Status::INVALID_DATA, |mac| set_mac(mac, shared))
            }
            Some(_) => Status::NOT_SUPPORTED,
            None => Status::INVALID_DATA,
        },
        Oid::TCP_OFFLOAD_PARAMETERS => match OffloadParameters::parse(info) {
            Some(parameters) => {
                let can = nature.can_coalesce(settings);
                let (ip4, ip6) = parameters.rsc();
                shared.change(|settings| {
                    let (before_4, before_6) = settings.coalesce;
                    settings.coalesce = (can && ip4.apply(before_4), can && ip6.apply(before_6));
                });
                Status::SUCCESS
            }
            None => Status::INVALID_LENGTH,
        },
        Oid::GEN_RECEIVE_SCALE_PARAMETERS if settings.version >= Some(Version::V5) => {
            set_rss(info, nature, settings, shared)
        }
        _ => Status::NOT_SUPPORTED,
    }
}

fn set_groups(info: &[u8], shared: &Shared) -> Status {
    let (groups, rest) = info.as_chunks::<6>();
    if !rest.is_empty() {
        return Status::INVALID_LENGTH;
    }
    if groups.len() > MOST_GROUPS {
        return Status::MULTICAST_FULL;
    }
    let groups = groups.iter().map(|group| Mac(*group)).collect();
    shared.change(|settings| settings.groups = Some(groups));
    Status::SUCCESS
}

fn set_mac(mac: Mac, shared: &Shared) -> Status {
    if !mac.is_single() {
        return Status::INVALID_DATA;
    }
    shared.change(|settings| settings.mac = mac);
    Status::SUCCESS
}

fn set_rss(info: &[u8], nature: &Nature, settings: &Settings, shared: &Shared) -> Status {
    let Ok(wanted) = RssSettings::parse(info) else { return Status::INVALID_DATA };
    let mut rss = settings.rss.clone();
    if !wanted.disabled && !rss.update(&wanted, nature.channels) {
        return Status::INVALID_DATA;
    }
    let steering = if wanted.disabled { None } else { rss.steering() };
    let steering = steering.map(Into::into);
    shared.change(|settings| (settings.rss, settings.steering) = (rss, steering));
    Status::SUCCESS
}

/// What the guest is told of its link.
pub(crate) fn indication(news: LinkNews) -> Answer {
    let status = match news {
        LinkNews::Up => Status::MEDIA_CONNECT,
        LinkNews::Down => Status::MEDIA_DISCONNECT,
        LinkNews::NetworkChange => Status::NETWORK_CHANGE,
    };
    Answer::indicate(status, &[])
}
