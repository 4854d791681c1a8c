// SPDX-License-Identifier: MIT OR Apache-2.0

//! The rules: what a guest must do, and who says so.

macro_rules! rules {
    ($( $variant:ident = $name:literal, $demand:literal, $source:literal; )*) => {
        /// What a guest must do. `docs/strict.md` says of each what it has found on stock guests.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $( #[doc = $demand] $variant, )*
        }

        impl Rule {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name, as reports and the log spell it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it demands.
            pub const fn demand(self) -> &'static str {
                match self { $(Self::$variant => $demand,)* }
            }

            /// Where that stands.
            pub const fn source(self) -> &'static str {
                match self { $(Self::$variant => $source,)* }
            }
        }
    };
}

rules! {
    ControlUnknown = "control-unknown",
        "a channel message has a type that guests send",
        "include/linux/hyperv.h, enum vmbus_channel_message_type";
    ControlLength = "control-length",
        "a channel message is as long as its layout",
        "include/linux/hyperv.h, struct vmbus_channel_*";
    ControlPadding = "control-padding",
        "the second word of a channel message is zero",
        "include/linux/hyperv.h, struct vmbus_channel_message_header";
    ControlUnconnected = "control-unconnected",
        "before INITIATE_CONTACT is answered, and after UNLOAD, nothing else is sent",
        "drivers/hv/connection.c, vmbus_negotiate_version";
    ControlVersion = "control-version",
        "a message is sent only if the version agreed on has it",
        "drivers/hv/channel.c, vmbus_send_modifychannel; drivers/hv/connection.c";
    ContactReserved = "contact-reserved",
        "bits of INITIATE_CONTACT that its version does not define are zero",
        "include/linux/hyperv.h, struct vmbus_channel_initiate_contact";
    OffersTwice = "offers-twice",
        "offers are asked for once in a connection",
        "drivers/hv/channel_mgmt.c, vmbus_request_offers";
    ChannelUnknown = "channel-unknown",
        "a message names a channel that is offered and not released",
        "drivers/hv/channel_mgmt.c, vmbus_onoffer and vmbus_release_relid";
    OpenTwice = "open-twice",
        "a channel is opened once until it is closed",
        "drivers/hv/channel.c, __vmbus_open";
    OpenGpadl = "open-gpadl",
        "a channel's rings are a complete GPADL of that channel",
        "drivers/hv/channel.c, __vmbus_open";
    UseAfterClose = "use-after-close",
        "CLOSE and MODIFY_CHANNEL are for channels that are open",
        "drivers/hv/channel.c, vmbus_close_internal";
    ReleaseOpen = "release-open",
        "a relid is released after its rescind, or when the channel is closed",
        "drivers/hv/channel_mgmt.c, hv_process_channel_removal";
    GpadlReuse = "gpadl-reuse",
        "a GPADL gets a number that no living one has",
        "drivers/hv/channel.c, __vmbus_establish_gpadl";
    GpadlUnknown = "gpadl-unknown",
        "a GPADL that is torn down is alive, and of that channel",
        "drivers/hv/channel.c, vmbus_teardown_gpadl";
    GpadlInUse = "gpadl-in-use",
        "the GPADL of an open channel's rings stays",
        "drivers/hv/channel.c, vmbus_close_internal";
    GpadlBody = "gpadl-body",
        "GPADL_BODY continues a GPADL that is not complete",
        "drivers/hv/channel.c, create_gpadl_header";
    GpadlLength = "gpadl-length",
        "range_buflen is the length of the ranges",
        "drivers/hv/channel.c, create_gpadl_header";
    GpadlRange = "gpadl-range",
        "a GPADL has ranges, which start within their first page",
        "include/linux/hyperv.h, struct gpa_range";
    PacketType = "packet-type",
        "a packet has a type of the protocol",
        "include/linux/hyperv.h, enum vmbus_packet_type";
    PacketFlags = "packet-flags",
        "no flag of a packet but completion-requested is set, and that not in a completion",
        "include/linux/hyperv.h, VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED";
    PacketOffset = "packet-offset",
        "data follows the descriptor of a packet that has no ranges",
        "drivers/hv/channel.c, vmbus_sendpacket_getid";
    GpaReserved = "gpa-reserved",
        "the reserved word before the ranges of a packet is zero",
        "drivers/hv/channel.c, vmbus_sendpacket_mpb_desc";
    GpaRanges = "gpa-ranges",
        "the ranges of a packet lie before its data, and start within their first page",
        "include/linux/hyperv.h, struct gpa_range";
    IdReused = "id-reused",
        "a request has a transaction id that no request without answer has",
        "drivers/hv/channel.c, vmbus_next_request_id";
    CompletionUnknown = "completion-unknown",
        "a completion answers a packet that asked for one, once",
        "include/linux/hyperv.h, VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED";
    SignalNeedless = "signal-needless",
        "the host is signalled when a ring is not empty any more, and is not masked",
        "drivers/hv/ring_buffer.c, hv_signal_on_write";
    VstorLength = "vstor-length",
        "a storvsc packet has 64 bytes, or 48 before version 5.1",
        "drivers/scsi/storvsc_drv.c, struct vstor_packet";
    VstorOperation = "vstor-operation",
        "a storvsc packet has an operation that guests ask for",
        "drivers/scsi/storvsc_drv.c, enum vstor_packet_operation";
    VstorFlags = "vstor-flags",
        "no flag of a storvsc packet but REQUEST_COMPLETION_FLAG is set",
        "drivers/scsi/storvsc_drv.c, REQUEST_COMPLETION_FLAG";
    SrbLength = "srb-length",
        "an SRB's length is that of its version's structure",
        "drivers/scsi/storvsc_drv.c, struct vmscsi_request";
    SrbCdbLength = "srb-cdb-length",
        "a CDB has up to 16 bytes, and as many as its group of commands has",
        "SPC-4, 4.2.5.1; drivers/scsi/storvsc_drv.c, STORVSC_MAX_CMD_LEN";
    SrbSenseLength = "srb-sense-length",
        "there is room for at most 20 bytes of sense data",
        "drivers/scsi/storvsc_drv.c, STORVSC_SENSE_BUFFER_SIZE";
    SrbDirection = "srb-direction",
        "data_in is 0, 1 or 2",
        "drivers/scsi/storvsc_drv.c, enum storvsc_request_type";
    SrbReserved = "srb-reserved",
        "reserved fields of an SRB are zero",
        "drivers/scsi/storvsc_drv.c, struct vmscsi_request";
    SrbDataLength = "srb-data-length",
        "data_transfer_length is what the packet's ranges hold",
        "drivers/scsi/storvsc_drv.c, storvsc_queuecommand";
    NvspLength = "nvsp-length",
        "an NVSP message is as long as its body",
        "drivers/net/hyperv/hyperv_net.h, struct nvsp_message";
    NvspType = "nvsp-type",
        "an NVSP message has a type that guests send",
        "drivers/net/hyperv/hyperv_net.h, NVSP_MSG_TYPE_*";
    NvspReserved = "nvsp-reserved",
        "reserved fields of an NVSP message are zero",
        "drivers/net/hyperv/hyperv_net.h, struct nvsp_2_send_ndis_config";
    NvspChannel = "nvsp-channel",
        "an RNDIS message is data (0) or control (1)",
        "drivers/net/hyperv/hyperv_net.h, struct nvsp_1_message_send_rndis_packet";
    NvspSection = "nvsp-section",
        "a message without a section of the send buffer has no bytes in it",
        "drivers/net/hyperv/netvsc.c, netvsc_send_pkt";
    RndisType = "rndis-type",
        "an RNDIS message has a type that guests send",
        "drivers/net/hyperv/hyperv_net.h, RNDIS_MSG_*";
    RndisLength = "rndis-length",
        "an RNDIS message is whole, and as long as its type",
        "drivers/net/hyperv/hyperv_net.h, struct rndis_message";
    RndisOffset = "rndis-offset",
        "what an RNDIS message points to lies within it",
        "drivers/net/hyperv/hyperv_net.h, struct rndis_packet, struct rndis_set_request";
    PipeType = "pipe-type",
        "a packet of a pipe carries data (1)",
        "include/linux/hyperv.h, struct vmbuspipe_hdr";
    PipeLength = "pipe-length",
        "a packet of a pipe has the data that its header says",
        "include/linux/hyperv.h, struct vmbuspipe_hdr";
    IcFlags = "ic-flags",
        "a component's message is an answer (4), with no flag beyond 1 and 2",
        "include/linux/hyperv.h, ICMSGHDRFLAG_*";
    IcReserved = "ic-reserved",
        "the reserved bytes of a component's header are zero",
        "include/linux/hyperv.h, struct icmsg_hdr";
    IcTransaction = "ic-transaction",
        "a component answers a request of the host's, once",
        "include/linux/hyperv.h, struct icmsg_hdr";
}
