// SPDX-License-Identifier: MIT OR Apache-2.0

//! The bodies of channel messages: what follows the 8-byte [`Header`](super::Header).
//!
//! Each structure's size is asserted as the whole message's size less the header.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Guid, Version};

macro_rules! layout {
    ($( $(#[$meta:meta])* pub struct $name:ident : $total:literal {
        $( $(#[$fmeta:meta])* pub $field:ident : $type:ty, )*
    } )*) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            #[derive(
                Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
            )]
            pub struct $name { $( $(#[$fmeta])* pub $field: $type, )* }

            const _: () = assert!(size_of::<$name>() == $total - 8);
        )*
    };
}

bitflags::bitflags! {
    /// Flags of an offer (`VMBUS_CHANNEL_*` of Linux `include/linux/hyperv.h`).
    ///
    /// 0x2 and 0x4 must never be set: Linux 7.3 takes them for confidential channels and refuses
    /// the offer.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct OfferFlags: u16 {
        /// Show a device interface.
        const ENUMERATE_DEVICE_INTERFACE = 0x1;
        /// Packets carry the pipe header; `user_defined` starts with the pipe's type.
        const NAMED_PIPE_MODE = 0x10;
        /// A loopback of the guest's own.
        const LOOPBACK_OFFER = 0x100;
        /// A parent's offer.
        const PARENT_OFFER = 0x200;
        /// The guest should signal by monitor pages.
        const REQUEST_MONITORED_NOTIFICATION = 0x400;
        /// A socket.
        const TLNPI_PROVIDER_OFFER = 0x2000;
        const _ = !0;
    }
}

layout! {
    /// OFFER_CHANNEL (`struct vmbus_channel_offer_channel`).
    pub struct OfferChannel: 196 {
        /// Which driver is meant; see [`class`](crate::class).
        pub interface_type: Guid,
        /// Which device; stable over reboots.
        pub instance: Guid,
        /// Zero.
        pub reserved: [u8; 16],
        /// [`OfferFlags`].
        pub flags: u16,
        /// MMIO that the device needs, in MiB.
        pub mmio_megabytes: u16,
        /// The device's own data; a pipe's type comes first.
        pub user_defined: [u8; 120],
        /// 0 for a primary channel, 1 and up for its subchannels.
        pub subchannel_index: u16,
        /// MMIO that the device could use beyond that, in MiB.
        pub mmio_megabytes_optional: u16,
        /// The channel's number on the wire, 1 to 2047.
        pub relid: u32,
        /// The channel's bit in the monitor pages; 0xff for none.
        pub monitor_id: u8,
        /// Bit 0: `monitor_id` counts.
        pub monitor_allocated: u8,
        /// Bit 0: `connection_id` counts. Hosts from protocol 1.1 on always set it.
        pub is_dedicated_interrupt: u16,
        /// The connection by which the guest signals this channel.
        pub connection_id: u32,
    }

    /// RESCIND_CHANNEL_OFFER, CLOSE_CHANNEL, RELID_RELEASED and CLOSE_RESERVED_RESPONSE: a relid
    /// alone.
    pub struct Relid: 12 {
        /// Which channel.
        pub relid: u32,
    }

    /// OPEN_CHANNEL (`struct vmbus_channel_open_channel`).
    pub struct OpenChannelBody: 148 {
        /// Which channel.
        pub relid: u32,
        /// The guest's name for this request; the result repeats it.
        pub open_id: u32,
        /// The GPADL of both rings.
        pub ring_gpadl: u32,
        /// The VP that takes the channel's interrupts; 0xffffffff for none (polled).
        pub target_vp: u32,
        /// Pages of that GPADL that are the guest's send ring; the rest is its receive ring.
        pub downstream_page_offset: u32,
        /// The driver's own data.
        pub user_data: [u8; 120],
    }

    /// What OPEN_CHANNEL ends with where version 6.0 allows it.
    pub struct OpenSignalBody: 16 {
        /// The connection by which the host signals the guest.
        pub connection_id: u32,
        /// The event flag that the host sets instead of the relid.
        pub event_flag: u16,
        /// 1: redirect this channel's interrupt.
        pub flags: u16,
    }

    /// OPEN_CHANNEL_RESULT (`struct vmbus_channel_open_result`).
    pub struct OpenResult: 20 {
        /// Which channel.
        pub relid: u32,
        /// The request's `open_id`.
        pub open_id: u32,
        /// 0 for success, else an NTSTATUS.
        pub status: u32,
    }

    /// GPADL_HEADER without its ranges (`struct vmbus_channel_gpadl_header`).
    pub struct GpadlHeader: 20 {
        /// Which channel.
        pub relid: u32,
        /// The guest's name for the list.
        pub gpadl: u32,
        /// Bytes of all ranges; wraps beyond 8190 pages.
        pub range_buffer_len: u16,
        /// Ranges in the list.
        pub range_count: u16,
    }

    /// GPADL_BODY without its PFNs (`struct vmbus_channel_gpadl_body`).
    pub struct GpadlBody: 16 {
        /// Which part; guests disagree about it, the order of arrival counts.
        pub message_number: u32,
        /// Which list.
        pub gpadl: u32,
    }

    /// GPADL_CREATED (`struct vmbus_channel_gpadl_created`).
    pub struct GpadlCreated: 20 {
        /// Which channel.
        pub relid: u32,
        /// Which list.
        pub gpadl: u32,
        /// 0 for success, else an NTSTATUS.
        pub status: u32,
    }

    /// GPADL_TEARDOWN (`struct vmbus_channel_gpadl_teardown`).
    pub struct GpadlTeardown: 16 {
        /// Which channel.
        pub relid: u32,
        /// Which list.
        pub gpadl: u32,
    }

    /// GPADL_TORNDOWN (`struct vmbus_channel_gpadl_torndown`).
    pub struct GpadlTorndown: 12 {
        /// Which list.
        pub gpadl: u32,
    }

    /// INITIATE_CONTACT (`struct vmbus_channel_initiate_contact`).
    pub struct InitiateContactBody: 40 {
        /// The version asked for.
        pub version: Version,
        /// The VP that takes the host's messages; counts from 3.0 on.
        pub target_vp: u32,
        /// Before 5.0 the GPA of the interrupt page; then the message SINT in byte 0, a VTL in
        /// byte 1, and from 6.0 on [`FeatureFlags`](crate::FeatureFlags) in the upper half.
        pub interrupt_page_or_target: u64,
        /// GPA of the monitor page that the host writes, or 0.
        pub monitor_page_to_guest: u64,
        /// GPA of the monitor page that the guest writes, or 0.
        pub monitor_page_to_host: u64,
    }

    /// VERSION_RESPONSE as every version has it (`struct vmbus_channel_version_response`).
    pub struct VersionResponseBody: 16 {
        /// 1: the version is spoken.
        pub supported: u8,
        /// 0: nothing went wrong with the connection itself.
        pub connection_state: u8,
        /// Zero.
        pub padding: u16,
        /// From 5.0 on the connection for further messages, before that the version.
        pub version_or_connection_id: u32,
    }

    /// OPEN_RESERVED_CHANNEL.
    pub struct OpenReservedChannel: 28 {
        /// Which channel.
        pub relid: u32,
        /// The VP that takes its interrupts.
        pub target_vp: u32,
        /// The SINT that takes its interrupts.
        pub target_sint: u32,
        /// The GPADL of both rings.
        pub ring_gpadl: u32,
        /// Pages of that GPADL that are the guest's send ring.
        pub downstream_page_offset: u32,
    }

    /// CLOSE_RESERVED_CHANNEL.
    pub struct CloseReservedChannel: 20 {
        /// Which channel.
        pub relid: u32,
        /// The VP that takes the answer.
        pub target_vp: u32,
        /// The SINT that takes the answer.
        pub target_sint: u32,
    }

    /// TL_CONNECT_REQUEST (`struct vmbus_channel_tl_connect_request`), without the silo that
    /// Windows adds from 5.2 on.
    pub struct TlConnectRequest: 40 {
        /// The guest's own end.
        pub guest_endpoint: Guid,
        /// The host's service.
        pub host_service: Guid,
    }

    /// TL_CONNECT_RESULT.
    pub struct TlConnectResult: 44 {
        /// The guest's own end.
        pub guest_endpoint: Guid,
        /// The host's service.
        pub host_service: Guid,
        /// 0 for success, else an NTSTATUS.
        pub status: u32,
    }

    /// MODIFY_CHANNEL (`struct vmbus_channel_modifychannel`).
    pub struct ModifyChannel: 16 {
        /// Which channel.
        pub relid: u32,
        /// The VP that takes its interrupts from now on.
        pub target_vp: u32,
    }

    /// MODIFY_CHANNEL_RESPONSE (`struct vmbus_channel_modifychannel_response`).
    pub struct ModifyChannelResponse: 16 {
        /// Which channel.
        pub relid: u32,
        /// 0 for success, else an NTSTATUS.
        pub status: u32,
    }

    /// MODIFY_CONNECTION.
    pub struct ModifyConnection: 24 {
        /// GPA of the monitor page that the host writes, or 0.
        pub monitor_page_to_guest: u64,
        /// GPA of the monitor page that the guest writes, or 0.
        pub monitor_page_to_host: u64,
    }
}

/// NTSTATUS values that a host answers with.
pub mod status {
    /// STATUS_SUCCESS.
    pub const SUCCESS: u32 = 0;
    /// STATUS_UNSUCCESSFUL.
    pub const UNSUCCESSFUL: u32 = 0xc000_0001;
    /// STATUS_INVALID_PARAMETER.
    pub const INVALID_PARAMETER: u32 = 0xc000_000d;
    /// STATUS_INSUFFICIENT_RESOURCES.
    pub const INSUFFICIENT_RESOURCES: u32 = 0xc000_009a;
    /// STATUS_CONNECTION_REFUSED.
    pub const CONNECTION_REFUSED: u32 = 0xc000_0236;
}
