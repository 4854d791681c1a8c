// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a guest can ask its card and tell it: object identifiers of NDIS.
//!
//! Sources: Linux `include/linux/rndis.h`, `drivers/net/hyperv/hyperv_net.h`; the Windows driver
//! kit's NDIS reference for what guests other than Linux ask.

use bitflags::bitflags;

use crate::open_enum::open_enum;

open_enum! {
    /// What a query or a set is about.
    pub enum Oid: u32 {
        /// All of these that the card knows: a list of `u32`.
        GEN_SUPPORTED_LIST = 0x0001_0101,
        /// 0: ready.
        GEN_HARDWARE_STATUS = 0x0001_0102,
        /// Kinds of media: 0 is Ethernet.
        GEN_MEDIA_SUPPORTED = 0x0001_0103,
        /// The same, of those in use.
        GEN_MEDIA_IN_USE = 0x0001_0104,
        /// Bytes of a frame that a driver may look at early.
        GEN_MAXIMUM_LOOKAHEAD = 0x0001_0105,
        /// Bytes of the longest frame without its Ethernet header: the MTU.
        GEN_MAXIMUM_FRAME_SIZE = 0x0001_0106,
        /// In units of 100 bits a second.
        GEN_LINK_SPEED = 0x0001_0107,
        /// Bytes that can be under way to the network.
        GEN_TRANSMIT_BUFFER_SPACE = 0x0001_0108,
        /// Bytes that can be under way from the network.
        GEN_RECEIVE_BUFFER_SPACE = 0x0001_0109,
        /// Bytes of the smallest unit of that.
        GEN_TRANSMIT_BLOCK_SIZE = 0x0001_010a,
        /// Bytes of the smallest unit of that.
        GEN_RECEIVE_BLOCK_SIZE = 0x0001_010b,
        /// Three bytes of an IEEE code and one of the vendor's.
        GEN_VENDOR_ID = 0x0001_010c,
        /// A text that ends in NUL.
        GEN_VENDOR_DESCRIPTION = 0x0001_010d,
        /// A [`PacketFilter`].
        GEN_CURRENT_PACKET_FILTER = 0x0001_010e,
        /// Bytes of a frame that a driver looks at early.
        GEN_CURRENT_LOOKAHEAD = 0x0001_010f,
        /// Of NDIS: major in the upper byte.
        GEN_DRIVER_VERSION = 0x0001_0110,
        /// Bytes of the longest frame, its Ethernet header counted.
        GEN_MAXIMUM_TOTAL_SIZE = 0x0001_0111,
        /// What the card does beyond the least.
        GEN_MAC_OPTIONS = 0x0001_0113,
        /// 0 while the link is up, 1 while it is down.
        GEN_MEDIA_CONNECT_STATUS = 0x0001_0114,
        /// Frames that can be sent at once.
        GEN_MAXIMUM_SEND_PACKETS = 0x0001_0115,
        /// The vendor's own.
        GEN_VENDOR_DRIVER_VERSION = 0x0001_0116,
        /// [`RssCapabilities`](super::RssCapabilities).
        GEN_RECEIVE_SCALE_CAPABILITIES = 0x0001_0203,
        /// [`RssParameters`](super::RssParameters).
        GEN_RECEIVE_SCALE_PARAMETERS = 0x0001_0204,
        /// A [`ConfigParameter`](super::ConfigParameter).
        GEN_RNDIS_CONFIG_PARAMETER = 0x0001_021b,
        /// Frames sent without an error.
        GEN_XMIT_OK = 0x0002_0101,
        /// Frames received without an error.
        GEN_RCV_OK = 0x0002_0102,
        /// Frames not sent for an error.
        GEN_XMIT_ERROR = 0x0002_0103,
        /// Frames not received for an error.
        GEN_RCV_ERROR = 0x0002_0104,
        /// Frames that found no room.
        GEN_RCV_NO_BUFFER = 0x0002_0105,
        /// What a user calls the card, in UTF-16.
        GEN_FRIENDLY_NAME = 0x0002_0216,
        /// The address that the card was made with.
        ETHERNET_PERMANENT_ADDRESS = 0x0101_0101,
        /// The address that it uses.
        ETHERNET_CURRENT_ADDRESS = 0x0101_0102,
        /// Groups of which it takes frames.
        ETHERNET_MULTICAST_LIST = 0x0101_0103,
        /// How many such groups it can tell apart.
        ETHERNET_MAXIMUM_LIST_SIZE = 0x0101_0104,
        /// How frames are wrapped that the offloads work on.
        OFFLOAD_ENCAPSULATION = 0x0101_010a,
        /// Frames received with an error of alignment.
        ETHERNET_RCV_ERROR_ALIGNMENT = 0x0102_0101,
        /// Frames sent after one collision.
        ETHERNET_XMIT_ONE_COLLISION = 0x0102_0102,
        /// Frames sent after more collisions.
        ETHERNET_XMIT_MORE_COLLISIONS = 0x0102_0103,
        /// [`Offload`](super::Offload): what is switched on.
        TCP_OFFLOAD_CURRENT_CONFIG = 0xfc01_020b,
        /// [`OffloadParameters`](super::OffloadParameters).
        TCP_OFFLOAD_PARAMETERS = 0xfc01_020c,
        /// [`Offload`](super::Offload): what could be.
        TCP_OFFLOAD_HARDWARE_CAPABILITIES = 0xfc01_020d,
    }
}

bitflags! {
    /// Which frames the guest wants (`NDIS_PACKET_TYPE_*`). Without any, none.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PacketFilter: u32 {
        /// To its own address.
        const DIRECTED = 0x01;
        /// To groups that it has named.
        const MULTICAST = 0x02;
        /// To any group.
        const ALL_MULTICAST = 0x04;
        /// To everybody.
        const BROADCAST = 0x08;
        /// To anybody.
        const PROMISCUOUS = 0x20;
        const _ = !0;
    }
}
