-- SPDX-License-Identifier: MIT OR Apache-2.0
--
-- A Wireshark dissector for busway's captures (link type USER0).
--
--   wireshark -X lua_script:busway.lua boot.pcapng
--   tshark -X lua_script:busway.lua -r boot.pcapng -Y 'busway.device == "storage"' -V
--
-- or copy it into Wireshark's plugin folder (Help, About, Folders). The layout of a record is that of
-- crates/capture/src/layout.rs, version 1. The names between the marks below are written from the
-- types of crates/wire by tests/wireshark.rs (BUSWAY_BLESS=1 writes them anew).

local names = {}
-- names: begin
names.control = {
  [0x1] = "OFFER_CHANNEL",
  [0x2] = "RESCIND_CHANNEL_OFFER",
  [0x3] = "REQUEST_OFFERS",
  [0x4] = "ALL_OFFERS_DELIVERED",
  [0x5] = "OPEN_CHANNEL",
  [0x6] = "OPEN_CHANNEL_RESULT",
  [0x7] = "CLOSE_CHANNEL",
  [0x8] = "GPADL_HEADER",
  [0x9] = "GPADL_BODY",
  [0xa] = "GPADL_CREATED",
  [0xb] = "GPADL_TEARDOWN",
  [0xc] = "GPADL_TORNDOWN",
  [0xd] = "RELID_RELEASED",
  [0xe] = "INITIATE_CONTACT",
  [0xf] = "VERSION_RESPONSE",
  [0x10] = "UNLOAD",
  [0x11] = "UNLOAD_RESPONSE",
  [0x12] = "OPEN_RESERVED_CHANNEL",
  [0x13] = "CLOSE_RESERVED_CHANNEL",
  [0x14] = "CLOSE_RESERVED_RESPONSE",
  [0x15] = "TL_CONNECT_REQUEST",
  [0x16] = "MODIFY_CHANNEL",
  [0x17] = "TL_CONNECT_RESULT",
  [0x18] = "MODIFY_CHANNEL_RESPONSE",
  [0x19] = "MODIFY_CONNECTION",
  [0x1a] = "MODIFY_CONNECTION_RESPONSE",
  [0x1b] = "PAUSE",
  [0x1c] = "PAUSE_RESPONSE",
  [0x1d] = "RESUME",
}
names.packet_type = {
  [0x6] = "DATA_IN_BAND",
  [0x7] = "DATA_USING_TRANSFER_PAGES",
  [0x8] = "DATA_USING_GPADL",
  [0x9] = "DATA_USING_GPA_DIRECT",
  [0xa] = "CANCEL_REQUEST",
  [0xb] = "COMPLETION",
  [0xc] = "DATA_USING_ADDITIONAL_PACKETS",
}
names.storvsc_operation = {
  [0x1] = "COMPLETE_IO",
  [0x2] = "REMOVE_DEVICE",
  [0x3] = "EXECUTE_SRB",
  [0x4] = "RESET_LUN",
  [0x5] = "RESET_ADAPTER",
  [0x6] = "RESET_BUS",
  [0x7] = "BEGIN_INITIALIZATION",
  [0x8] = "END_INITIALIZATION",
  [0x9] = "QUERY_PROTOCOL_VERSION",
  [0xa] = "QUERY_PROPERTIES",
  [0xb] = "ENUMERATE_BUS",
  [0xc] = "FCHBA_DATA",
  [0xd] = "CREATE_SUB_CHANNELS",
}
names.storvsc_status = {
  [0x0] = "SUCCESS",
  [0xc0000001] = "UNSUCCESSFUL",
  [0xc000000d] = "INVALID_PARAMETER",
  [0xc0000010] = "INVALID_DEVICE_REQUEST",
  [0xc0000059] = "REVISION_MISMATCH",
  [0xc00000c0] = "DEVICE_DOES_NOT_EXIST",
  [0xc0000120] = "CANCELLED",
  [0xc0000184] = "INVALID_DEVICE_STATE",
  [0xc0000185] = "IO_DEVICE_ERROR",
}
names.srb_direction = {
  [0x0] = "WRITE",
  [0x1] = "READ",
  [0x2] = "NONE",
}
names.scsi_opcode = {
  [0x0] = "TEST_UNIT_READY",
  [0x3] = "REQUEST_SENSE",
  [0x8] = "READ_6",
  [0xa] = "WRITE_6",
  [0x12] = "INQUIRY",
  [0x15] = "MODE_SELECT_6",
  [0x16] = "RESERVE_6",
  [0x17] = "RELEASE_6",
  [0x1a] = "MODE_SENSE_6",
  [0x1b] = "START_STOP_UNIT",
  [0x1d] = "SEND_DIAGNOSTIC",
  [0x1e] = "PREVENT_ALLOW_MEDIUM_REMOVAL",
  [0x25] = "READ_CAPACITY_10",
  [0x28] = "READ_10",
  [0x2a] = "WRITE_10",
  [0x2f] = "VERIFY_10",
  [0x35] = "SYNCHRONIZE_CACHE_10",
  [0x41] = "WRITE_SAME_10",
  [0x42] = "UNMAP",
  [0x43] = "READ_TOC",
  [0x46] = "GET_CONFIGURATION",
  [0x4a] = "GET_EVENT_STATUS_NOTIFICATION",
  [0x4d] = "LOG_SENSE",
  [0x51] = "READ_DISC_INFORMATION",
  [0x55] = "MODE_SELECT_10",
  [0x5a] = "MODE_SENSE_10",
  [0x5e] = "PERSISTENT_RESERVE_IN",
  [0x5f] = "PERSISTENT_RESERVE_OUT",
  [0x85] = "ATA_PASS_THROUGH_16",
  [0x88] = "READ_16",
  [0x8a] = "WRITE_16",
  [0x8f] = "VERIFY_16",
  [0x91] = "SYNCHRONIZE_CACHE_16",
  [0x93] = "WRITE_SAME_16",
  [0x9e] = "SERVICE_ACTION_IN_16",
  [0xa0] = "REPORT_LUNS",
  [0xa1] = "ATA_PASS_THROUGH_12",
  [0xa3] = "MAINTENANCE_IN",
  [0xa8] = "READ_12",
  [0xaa] = "WRITE_12",
  [0xaf] = "VERIFY_12",
}
names.scsi_status = {
  [0x0] = "GOOD",
  [0x2] = "CHECK_CONDITION",
  [0x8] = "BUSY",
  [0x18] = "RESERVATION_CONFLICT",
  [0x28] = "TASK_SET_FULL",
  [0x40] = "TASK_ABORTED",
}
names.sense_key = {
  [0x0] = "NO_SENSE",
  [0x1] = "RECOVERED_ERROR",
  [0x2] = "NOT_READY",
  [0x3] = "MEDIUM_ERROR",
  [0x4] = "HARDWARE_ERROR",
  [0x5] = "ILLEGAL_REQUEST",
  [0x6] = "UNIT_ATTENTION",
  [0x7] = "DATA_PROTECT",
  [0xb] = "ABORTED_COMMAND",
  [0xe] = "MISCOMPARE",
}
names.nvsp = {
  [0x1] = "INIT",
  [0x2] = "INIT_COMPLETE",
  [0x64] = "SEND_NDIS_VERSION",
  [0x65] = "SEND_RECEIVE_BUFFER",
  [0x66] = "SEND_RECEIVE_BUFFER_COMPLETE",
  [0x67] = "REVOKE_RECEIVE_BUFFER",
  [0x68] = "SEND_SEND_BUFFER",
  [0x69] = "SEND_SEND_BUFFER_COMPLETE",
  [0x6a] = "REVOKE_SEND_BUFFER",
  [0x6b] = "SEND_RNDIS_PACKET",
  [0x6c] = "SEND_RNDIS_PACKET_COMPLETE",
  [0x7d] = "SEND_NDIS_CONFIG",
  [0x80] = "SEND_VF_ASSOCIATION",
  [0x81] = "SWITCH_DATA_PATH",
  [0x85] = "SUBCHANNEL",
  [0x86] = "SEND_INDIRECTION_TABLE",
}
names.nvsp_status = {
  [0x0] = "NONE",
  [0x1] = "SUCCESS",
  [0x2] = "FAIL",
  [0x3] = "PROTOCOL_TOO_NEW",
  [0x4] = "PROTOCOL_TOO_OLD",
  [0x5] = "INVALID_RNDIS_PACKET",
  [0x6] = "BUSY",
  [0x7] = "PROTOCOL_UNSUPPORTED",
}
names.rndis_channel = {
  [0x0] = "DATA",
  [0x1] = "CONTROL",
}
names.rndis = {
  [0x1] = "PACKET",
  [0x2] = "INITIALIZE",
  [0x3] = "HALT",
  [0x4] = "QUERY",
  [0x5] = "SET",
  [0x6] = "RESET",
  [0x7] = "INDICATE",
  [0x8] = "KEEPALIVE",
  [0x80000002] = "INITIALIZE_COMPLETE",
  [0x80000004] = "QUERY_COMPLETE",
  [0x80000005] = "SET_COMPLETE",
  [0x80000006] = "RESET_COMPLETE",
  [0x80000008] = "KEEPALIVE_COMPLETE",
}
names.rndis_status = {
  [0x0] = "SUCCESS",
  [0x4001000b] = "MEDIA_CONNECT",
  [0x4001000c] = "MEDIA_DISCONNECT",
  [0x40010013] = "LINK_SPEED_CHANGE",
  [0x40010018] = "NETWORK_CHANGE",
  [0xc0000001] = "FAILURE",
  [0xc00000bb] = "NOT_SUPPORTED",
  [0xc0010009] = "MULTICAST_FULL",
  [0xc0010014] = "INVALID_LENGTH",
  [0xc0010015] = "INVALID_DATA",
}
names.oid = {
  [0x10101] = "GEN_SUPPORTED_LIST",
  [0x10102] = "GEN_HARDWARE_STATUS",
  [0x10103] = "GEN_MEDIA_SUPPORTED",
  [0x10104] = "GEN_MEDIA_IN_USE",
  [0x10105] = "GEN_MAXIMUM_LOOKAHEAD",
  [0x10106] = "GEN_MAXIMUM_FRAME_SIZE",
  [0x10107] = "GEN_LINK_SPEED",
  [0x10108] = "GEN_TRANSMIT_BUFFER_SPACE",
  [0x10109] = "GEN_RECEIVE_BUFFER_SPACE",
  [0x1010a] = "GEN_TRANSMIT_BLOCK_SIZE",
  [0x1010b] = "GEN_RECEIVE_BLOCK_SIZE",
  [0x1010c] = "GEN_VENDOR_ID",
  [0x1010d] = "GEN_VENDOR_DESCRIPTION",
  [0x1010e] = "GEN_CURRENT_PACKET_FILTER",
  [0x1010f] = "GEN_CURRENT_LOOKAHEAD",
  [0x10110] = "GEN_DRIVER_VERSION",
  [0x10111] = "GEN_MAXIMUM_TOTAL_SIZE",
  [0x10113] = "GEN_MAC_OPTIONS",
  [0x10114] = "GEN_MEDIA_CONNECT_STATUS",
  [0x10115] = "GEN_MAXIMUM_SEND_PACKETS",
  [0x10116] = "GEN_VENDOR_DRIVER_VERSION",
  [0x10203] = "GEN_RECEIVE_SCALE_CAPABILITIES",
  [0x10204] = "GEN_RECEIVE_SCALE_PARAMETERS",
  [0x1021b] = "GEN_RNDIS_CONFIG_PARAMETER",
  [0x20101] = "GEN_XMIT_OK",
  [0x20102] = "GEN_RCV_OK",
  [0x20103] = "GEN_XMIT_ERROR",
  [0x20104] = "GEN_RCV_ERROR",
  [0x20105] = "GEN_RCV_NO_BUFFER",
  [0x20216] = "GEN_FRIENDLY_NAME",
  [0x1010101] = "ETHERNET_PERMANENT_ADDRESS",
  [0x1010102] = "ETHERNET_CURRENT_ADDRESS",
  [0x1010103] = "ETHERNET_MULTICAST_LIST",
  [0x1010104] = "ETHERNET_MAXIMUM_LIST_SIZE",
  [0x101010a] = "OFFLOAD_ENCAPSULATION",
  [0x1020101] = "ETHERNET_RCV_ERROR_ALIGNMENT",
  [0x1020102] = "ETHERNET_XMIT_ONE_COLLISION",
  [0x1020103] = "ETHERNET_XMIT_MORE_COLLISIONS",
  [0xfc01020b] = "TCP_OFFLOAD_CURRENT_CONFIG",
  [0xfc01020c] = "TCP_OFFLOAD_PARAMETERS",
  [0xfc01020d] = "TCP_OFFLOAD_HARDWARE_CAPABILITIES",
}
names.pipe = {
  [0x1] = "DATA",
  [0x2] = "PARTIAL",
  [0x3] = "SETUP_GPA_DIRECT",
  [0x4] = "TEARDOWN_GPA_DIRECT",
}
names.ic = {
  [0x0] = "NEGOTIATE",
  [0x1] = "HEARTBEAT",
  [0x2] = "KVP",
  [0x3] = "SHUTDOWN",
  [0x4] = "TIME_SYNC",
  [0x5] = "VSS",
  [0x6] = "RDV",
  [0x7] = "FILE_COPY",
}
names.ic_status = {
  [0x0] = "OK",
  [0x80004005] = "FAIL",
  [0x80041002] = "NOT_FOUND",
  [0x80070032] = "NOT_SUPPORTED",
  [0x80070050] = "ALREADY_EXISTS",
  [0x80070057] = "INVALID_ARGUMENT",
  [0x80070070] = "DISK_FULL",
  [0x80070103] = "NO_MORE_ITEMS",
  [0x8007048f] = "NOT_CONNECTED",
  [0x800704f7] = "MACHINE_LOCKED",
}
names.kvp_operation = {
  [0x0] = "GET",
  [0x1] = "SET",
  [0x2] = "DELETE",
  [0x3] = "ENUMERATE",
  [0x4] = "GET_IP",
  [0x5] = "SET_IP",
}
names.kvp_pool = {
  [0x0] = "EXTERNAL",
  [0x1] = "GUEST",
  [0x2] = "AUTO",
  [0x3] = "AUTO_EXTERNAL",
  [0x4] = "AUTO_INTERNAL",
}
names.vss_operation = {
  [0x0] = "CREATE",
  [0x1] = "DELETE",
  [0x2] = "CHECK_HOT_BACKUP",
  [0x3] = "GET_DIRECT_MAPPED_DISKS",
  [0x4] = "BACKUP_COMPLETE",
  [0x5] = "FREEZE",
  [0x6] = "THAW",
  [0x7] = "AUTO_RECOVER",
}
names.file_copy_operation = {
  [0x0] = "START",
  [0x1] = "WRITE",
  [0x2] = "COMPLETE",
  [0x3] = "CANCEL",
}
names.shutdown_action = {
  [0x0] = "POWER_OFF",
  [0x1] = "POWER_OFF_BY_FORCE",
  [0x2] = "REBOOT",
  [0x3] = "REBOOT_BY_FORCE",
  [0x4] = "HIBERNATE",
  [0x5] = "HIBERNATE_BY_FORCE",
}
names.keyboard = {
  [0x1] = "PROTOCOL_REQUEST",
  [0x2] = "PROTOCOL_RESPONSE",
  [0x3] = "EVENT",
  [0x4] = "LED_INDICATORS",
}
names.mouse = {
  [0x0] = "PROTOCOL_REQUEST",
  [0x1] = "PROTOCOL_RESPONSE",
  [0x2] = "INITIAL_DEVICE_INFO",
  [0x3] = "INITIAL_DEVICE_INFO_ACK",
  [0x4] = "INPUT_REPORT",
}
names.balloon = {
  [0x1] = "VERSION_REQUEST",
  [0x2] = "VERSION_RESPONSE",
  [0x3] = "CAPABILITIES_REPORT",
  [0x4] = "CAPABILITIES_RESPONSE",
  [0x5] = "STATUS_REPORT",
  [0x6] = "BALLOON_REQUEST",
  [0x7] = "BALLOON_RESPONSE",
  [0x8] = "UNBALLOON_REQUEST",
  [0x9] = "UNBALLOON_RESPONSE",
  [0xa] = "HOT_ADD_REQUEST",
  [0xb] = "HOT_ADD_RESPONSE",
}
names.video = {
  [0x1] = "VERSION_REQUEST",
  [0x2] = "VERSION_RESPONSE",
  [0x3] = "VRAM_LOCATION",
  [0x4] = "VRAM_LOCATION_ACK",
  [0x5] = "SITUATION_UPDATE",
  [0x6] = "SITUATION_UPDATE_ACK",
  [0x7] = "POINTER_POSITION",
  [0x8] = "POINTER_SHAPE",
  [0x9] = "FEATURE_CHANGE",
  [0xa] = "DIRT",
  [0xd] = "RESOLUTION_REQUEST",
  [0xe] = "RESOLUTION_RESPONSE",
}
names.call = {
  [0x2] = "FLUSH_VIRTUAL_ADDRESS_SPACE",
  [0x3] = "FLUSH_VIRTUAL_ADDRESS_LIST",
  [0x8] = "NOTIFY_LONG_SPIN_WAIT",
  [0xb] = "SEND_IPI",
  [0x13] = "FLUSH_VIRTUAL_ADDRESS_SPACE_EX",
  [0x14] = "FLUSH_VIRTUAL_ADDRESS_LIST_EX",
  [0x15] = "SEND_IPI_EX",
  [0x5c] = "POST_MESSAGE",
  [0x5d] = "SIGNAL_EVENT",
  [0x7e] = "RETARGET_DEVICE_INTERRUPT",
  [0x8001] = "EXT_QUERY_CAPABILITIES",
  [0x8003] = "EXT_MEMORY_HEAT_HINT",
}
names.hv_status = {
  [0x0] = "SUCCESS",
  [0x2] = "INVALID_HYPERCALL_CODE",
  [0x3] = "INVALID_HYPERCALL_INPUT",
  [0x4] = "INVALID_ALIGNMENT",
  [0x5] = "INVALID_PARAMETER",
  [0x6] = "ACCESS_DENIED",
  [0xb] = "INSUFFICIENT_MEMORY",
  [0xe] = "INVALID_VP_INDEX",
  [0x11] = "INVALID_PORT_ID",
  [0x12] = "INVALID_CONNECTION_ID",
  [0x13] = "INSUFFICIENT_BUFFERS",
}
names.msr = {
  [0x40000000] = "GUEST_OS_ID",
  [0x40000001] = "HYPERCALL",
  [0x40000002] = "VP_INDEX",
  [0x40000003] = "RESET",
  [0x40000010] = "VP_RUNTIME",
  [0x40000020] = "TIME_REF_COUNT",
  [0x40000021] = "REFERENCE_TSC",
  [0x40000022] = "TSC_FREQUENCY",
  [0x40000023] = "APIC_FREQUENCY",
  [0x40000070] = "EOI",
  [0x40000071] = "ICR",
  [0x40000072] = "TPR",
  [0x40000073] = "VP_ASSIST_PAGE",
  [0x40000080] = "SCONTROL",
  [0x40000081] = "SVERSION",
  [0x40000082] = "SIEFP",
  [0x40000083] = "SIMP",
  [0x40000084] = "EOM",
  [0x40000090] = "SINT0",
  [0x40000091] = "SINT1",
  [0x40000092] = "SINT2",
  [0x40000093] = "SINT3",
  [0x40000094] = "SINT4",
  [0x40000095] = "SINT5",
  [0x40000096] = "SINT6",
  [0x40000097] = "SINT7",
  [0x40000098] = "SINT8",
  [0x40000099] = "SINT9",
  [0x4000009a] = "SINT10",
  [0x4000009b] = "SINT11",
  [0x4000009c] = "SINT12",
  [0x4000009d] = "SINT13",
  [0x4000009e] = "SINT14",
  [0x4000009f] = "SINT15",
  [0x400000b0] = "STIMER0_CONFIG",
  [0x400000b1] = "STIMER0_COUNT",
  [0x400000b2] = "STIMER1_CONFIG",
  [0x400000b3] = "STIMER1_COUNT",
  [0x400000b4] = "STIMER2_CONFIG",
  [0x400000b5] = "STIMER2_COUNT",
  [0x400000b6] = "STIMER3_CONFIG",
  [0x400000b7] = "STIMER3_COUNT",
  [0x40000100] = "CRASH_P0",
  [0x40000101] = "CRASH_P1",
  [0x40000102] = "CRASH_P2",
  [0x40000103] = "CRASH_P3",
  [0x40000104] = "CRASH_P4",
  [0x40000105] = "CRASH_CTL",
}
names.class = {
  ["d96361baa104294db60572e2ffb1dc7f"] = "storage",
  ["32264132cb86a2449b5c50d1417354f5"] = "ide",
  ["4acc9b2f6900f34ab76b6fd0be528cda"] = "fc",
  ["635161f83edfc546913ff2d2f965ed0e"] = "network",
  ["31600b0e13523449818b38d90ced39db"] = "shutdown",
  ["30e62795aed07b49adcee80ab0175caf"] = "timesync",
  ["394f16571591784eab55382f3bd5422d"] = "heartbeat",
  ["e7f4a0a9455a964db8278a841e8c03e6"] = "kvp",
  ["292efa3523ea364296ae3a6ebacba440"] = "vss",
  ["e34bd134e4dec8419ae76b174977c192"] = "fcopy",
  ["dc7450528589e2468057a307dc18a502"] = "balloon",
  ["9eb6a8cf4a5bc04cb98b8ba1a1f3f95a"] = "mouse",
  ["6dad12f9172bea48bd65f927a61c7684"] = "keyboard",
  ["02780ada77e3ac4a8e770558eb1073f8"] = "video",
  ["3daf2e8ca732094bab99bd1f1c86b501"] = "rdma",
  ["1df6c444444400449d52802e27ede19f"] = "pci",
}
names.vsock = "cbfae611bd5864006a7986d3"
-- names: end

local proto = Proto("busway", "Busway VMBus capture")

local kinds = {
  [1] = "message", [2] = "packet", [3] = "outside", [4] = "published", [5] = "turn", [6] = "opened",
  [7] = "closed", [8] = "event", [9] = "hypercall", [10] = "msr", [11] = "synic", [12] = "lost",
}
local sides = { [0] = "guest", [1] = "host" }
local causes = { [0] = "start", [1] = "signal", [2] = "more", [3] = "back end" }

-- Wireshark keeps only what is assigned as a whole.
local fields, all = {}, {}
local function add(kind, name, text, ...)
  fields[name] = ProtoField[kind]("busway." .. name, text, ...)
  all[#all + 1] = fields[name]
end

add("uint8", "version", "Layout")
add("uint8", "kind", "Kind", base.DEC, kinds)
add("uint8", "side", "Side", base.DEC, sides)
add("uint32", "vp", "VP")
add("uint32", "channel", "Channel")
add("uint16", "subchannel", "Subchannel")
add("string", "device", "Device")
add("bytes", "class", "Interface type")
add("bytes", "instance", "Instance")
add("uint32", "at", "At", base.HEX)
add("uint32", "len", "Body length")
add("string", "unknown", "Not understood")

add("uint32", "message", "Channel message", base.DEC, names.control)
add("uint32", "relid", "Relid")
add("uint32", "gpadl", "GPADL", base.HEX)
add("uint32", "open_id", "Open id", base.HEX)
add("uint32", "target_vp", "Target VP")
add("uint32", "status", "Status", base.HEX)
add("uint32", "vmbus_version", "VMBus version", base.HEX)
add("uint8", "supported", "Supported")

add("uint16", "packet.type", "Packet type", base.DEC, names.packet_type)
add("uint16", "packet.flags", "Flags", base.HEX)
add("uint64", "packet.id", "Transaction id", base.HEX)
add("uint32", "packet.ranges", "Ranges")
add("uint32", "range.bytes", "Bytes")
add("uint32", "range.offset", "Offset")
add("uint64", "range.pfn", "PFN", base.HEX)
add("bytes", "data", "Data")

add("uint32", "storvsc.operation", "Operation", base.DEC, names.storvsc_operation)
add("uint32", "storvsc.flags", "Flags", base.HEX)
add("uint32", "storvsc.status", "Status", base.HEX, names.storvsc_status)
add("uint16", "storvsc.version", "Version", base.HEX)
add("uint8", "srb.status", "SRB status", base.HEX)
add("uint8", "srb.scsi_status", "SCSI status", base.HEX, names.scsi_status)
add("uint8", "srb.target", "Target")
add("uint8", "srb.lun", "LUN")
add("uint8", "srb.direction", "Direction", base.DEC, names.srb_direction)
add("uint32", "srb.length", "Data length")
add("uint8", "scsi.opcode", "Opcode", base.HEX, names.scsi_opcode)
add("uint64", "scsi.lba", "Logical block")
add("uint32", "scsi.blocks", "Blocks")
add("uint8", "scsi.sense_key", "Sense key", base.HEX, names.sense_key)

add("uint32", "nvsp.type", "NVSP message", base.DEC, names.nvsp)
add("uint32", "nvsp.status", "Status", base.DEC, names.nvsp_status)
add("uint32", "nvsp.version", "Version", base.HEX)
add("uint32", "nvsp.channel", "RNDIS channel", base.DEC, names.rndis_channel)
add("uint32", "nvsp.section", "Section")
add("uint32", "rndis.type", "RNDIS message", base.HEX, names.rndis)
add("uint32", "rndis.length", "Length")
add("uint32", "rndis.request", "Request id", base.HEX)
add("uint32", "rndis.oid", "OID", base.HEX, names.oid)
add("uint32", "rndis.status", "Status", base.HEX, names.rndis_status)

add("uint32", "pipe.kind", "Pipe packet", base.DEC, names.pipe)
add("uint32", "pipe.length", "Length")
add("uint16", "ic.type", "Component message", base.DEC, names.ic)
add("string", "ic.version", "Version")
add("uint32", "ic.status", "Status", base.HEX, names.ic_status)
add("uint8", "ic.id", "Request", base.DEC)
add("uint8", "ic.flags", "Flags", base.HEX)
add("uint64", "ic.beat", "Beat")
add("uint8", "ic.kvp.operation", "Operation", base.DEC, names.kvp_operation)
add("uint8", "ic.kvp.pool", "Pool", base.DEC, names.kvp_pool)
add("uint8", "ic.vss.operation", "Operation", base.DEC, names.vss_operation)
add("uint32", "ic.fcopy.operation", "Operation", base.DEC, names.file_copy_operation)
add("uint32", "ic.shutdown.action", "Action", base.DEC, names.shutdown_action)
add("uint64", "ic.time", "Host time")

add("uint32", "keyboard.type", "Keyboard message", base.DEC, names.keyboard)
add("uint16", "keyboard.code", "Scan code", base.HEX)
add("uint32", "keyboard.flags", "Key flags", base.HEX)
add("uint16", "balloon.type", "Balloon message", base.DEC, names.balloon)
add("uint32", "balloon.id", "Request")
add("uint32", "video.type", "Video message", base.DEC, names.video)
add("uint32", "mouse.type", "Mouse message", base.DEC, names.mouse)
add("bytes", "mouse.report", "HID report")

add("uint32", "ring.incoming_read", "Guest's ring, read", base.HEX)
add("uint32", "ring.incoming_write", "Guest's ring, written", base.HEX)
add("uint32", "ring.incoming_pending", "Guest's ring, bytes waited for")
add("uint32", "ring.outgoing_read", "Host's ring, read", base.HEX)
add("uint32", "ring.outgoing_write", "Host's ring, written", base.HEX)
add("uint32", "ring.outgoing_mask", "Host's ring, interrupt mask")
add("bool", "ring.interrupt", "Interrupt")
add("uint32", "turn.cause", "Cause", base.DEC, causes)
add("uint32", "connection", "Connection", base.HEX)
add("uint16", "event.flag", "Event flag")
add("uint8", "event.sint", "SINT")
add("bool", "event.raised", "Interrupt")
add("uint16", "hypercall.code", "Call", base.HEX, names.call)
add("uint64", "hypercall.control", "Control", base.HEX)
add("uint64", "hypercall.input", "Input", base.HEX)
add("uint16", "hypercall.status", "Status", base.HEX, names.hv_status)
add("uint32", "msr", "MSR", base.HEX, names.msr)
add("uint64", "msr.value", "Value", base.HEX)
add("bool", "msr.write", "Write")
add("bool", "msr.refused", "Refused")
add("uint64", "synic.control", "SCONTROL", base.HEX)
add("uint64", "synic.messages", "SIMP", base.HEX)
add("uint64", "synic.events", "SIEFP", base.HEX)
add("uint64", "lost", "Records lost")

proto.fields = all

local function named(list, number, what)
  return list[number] or string.format("%s(0x%x)", what, number)
end

-- Bit operations are written differently in each Lua that Wireshark has had.
local function has(number, bit)
  return math.floor(number / bit) % 2 == 1
end

local function put(tree, name, range)
  tree:add_le(fields[name], range)
end

-- A part of the body, or nil where it is cut.
local function part(body, offset, length)
  if body:len() >= offset + length then return body(offset, length) end
end

local function number(tree, name, body, offset, length)
  local range = part(body, offset, length)
  if not range then return nil end
  put(tree, name, range)
  if length > 4 then return range:le_uint64():tonumber() end
  return range:le_uint()
end

-- Each of these returns what it says for the summary, or nil for what it does not understand.

local function message(tree, body, side)
  local kind = number(tree, "message", body, 0, 4)
  if not kind then return nil end
  local name = names.control[kind]
  if not name then return nil end
  local function word(what, offset) return number(tree, what, body, 8 + offset, 4) end
  local text = name
  if kind == 14 then
    local version = word("vmbus_version", 0)
    if version then text = text .. string.format(" %d.%d", math.floor(version / 65536), version % 65536) end
    word("target_vp", 4)
  elseif kind == 15 then
    number(tree, "supported", body, 8, 1)
  elseif kind == 1 then
    local class = part(body, 8, 16)
    if class then text = text .. " " .. (names.class[class:bytes():tohex(true)] or "other class") end
    local relid = number(tree, "relid", body, 8 + 176, 4)
    if relid then text = text .. " relid=" .. relid end
  elseif kind == 8 or kind == 11 then
    local relid, gpadl = word("relid", 0), word("gpadl", 4)
    if gpadl then text = text .. string.format(" relid=%d gpadl=0x%x", relid, gpadl) end
  elseif kind == 9 then
    local gpadl = word("gpadl", 4)
    if gpadl then text = text .. string.format(" gpadl=0x%x", gpadl) end
  elseif kind == 10 then
    word("relid", 0)
    local gpadl = word("gpadl", 4)
    word("status", 8)
    if gpadl then text = text .. string.format(" gpadl=0x%x", gpadl) end
  elseif kind == 12 then
    word("gpadl", 0)
  elseif kind == 5 or kind == 6 then
    local relid = word("relid", 0)
    word("open_id", 4)
    if kind == 6 then word("status", 8) else word("gpadl", 8) word("target_vp", 12) end
    if relid then text = text .. " relid=" .. relid end
  elseif kind == 2 or kind == 7 or kind == 13 then
    local relid = word("relid", 0)
    if relid then text = text .. " relid=" .. relid end
  elseif kind == 22 then
    word("relid", 0)
    word("target_vp", 4)
  end
  return text
end

local function cdb(tree, srb, text)
  local opcode = srb(12, 1):uint()
  tree:add(fields["scsi.opcode"], srb(12, 1))
  local name = names.scsi_opcode[opcode]
  if not name then return nil end
  text = text .. " " .. name
  local lba, blocks
  if opcode == 0x28 or opcode == 0x2a then
    lba, blocks = srb(14, 4), srb(19, 2)
  elseif opcode == 0x88 or opcode == 0x8a then
    lba, blocks = srb(14, 8), srb(22, 4)
  end
  if lba then
    tree:add(fields["scsi.lba"], lba)
    tree:add(fields["scsi.blocks"], blocks)
    local first = lba:len() == 8 and tostring(lba:uint64()) or tostring(lba:uint())
    text = text .. " lba=" .. first .. " blocks=" .. blocks:uint()
  end
  return text
end

local function storage(tree, body, side, completion)
  local operation = number(tree, "storvsc.operation", body, 0, 4)
  if not operation then return nil end
  local name = names.storvsc_operation[operation]
  number(tree, "storvsc.flags", body, 4, 4)
  local status = number(tree, "storvsc.status", body, 8, 4)
  if not name then return nil end
  local text = name
  if completion then
    text = text .. " " .. named(names.storvsc_status, status or 0, "NtStatus")
    local srb = part(body, 12, 36)
    -- The request says whether there is an SRB; without one these bytes are zero.
    if srb and srb(2, 1):uint() ~= 0 then
      put(tree, "srb.status", srb(2, 1))
      put(tree, "srb.scsi_status", srb(3, 1))
      put(tree, "srb.length", srb(12, 4))
      if srb(2, 1):uint() >= 0x80 then tree:add(fields["scsi.sense_key"], srb(18, 1), srb(18, 1):uint() % 16) end
    end
    return text
  end
  if operation == 9 then number(tree, "storvsc.version", body, 12, 2) end
  if operation ~= 3 then return text end
  local srb = part(body, 12, 32)
  if not srb then return text end
  put(tree, "srb.target", srb(6, 1))
  put(tree, "srb.lun", srb(7, 1))
  put(tree, "srb.direction", srb(10, 1))
  put(tree, "srb.length", srb(12, 4))
  -- The CDB stands behind the length; cdb() counts from 4 bytes before it.
  return cdb(tree, srb(4), text)
end

local function network(tree, body)
  local kind = number(tree, "nvsp.type", body, 0, 4)
  if not kind then return nil end
  local name = names.nvsp[kind]
  if not name then return nil end
  if kind == 1 then
    number(tree, "nvsp.version", body, 4, 4)
  elseif kind == 2 then
    number(tree, "nvsp.version", body, 4, 4)
    number(tree, "nvsp.status", body, 12, 4)
  elseif kind == 101 or kind == 104 then
    number(tree, "gpadl", body, 4, 4)
  elseif kind == 102 or kind == 105 or kind == 108 then
    number(tree, "nvsp.status", body, 4, 4)
  elseif kind == 107 then
    local channel = number(tree, "nvsp.channel", body, 4, 4)
    number(tree, "nvsp.section", body, 8, 4)
    name = name .. " " .. named(names.rndis_channel, channel or 0, "RndisChannel")
  end
  return name
end

local function rndis(tree, body, pinfo, root)
  local kind = number(tree, "rndis.type", body, 0, 4)
  local length = number(tree, "rndis.length", body, 4, 4)
  if not length then return nil end
  local name = names.rndis[kind]
  if not name then return nil end
  if kind == 1 then
    local offset, bytes = part(body, 8, 4), part(body, 12, 4)
    if bytes then
      local frame = part(body, 8 + offset:le_uint(), bytes:le_uint())
      name = name .. " frame=" .. bytes:le_uint() .. " B"
      if frame then pcall(function() Dissector.get("eth_withoutfcs"):call(frame:tvb(), pinfo, root) end) end
    end
  elseif kind == 4 or kind == 5 then
    number(tree, "rndis.request", body, 8, 4)
    local oid = number(tree, "rndis.oid", body, 12, 4)
    if oid then name = name .. " " .. named(names.oid, oid, "Oid") end
  elseif kind == 7 or kind == 0x80000006 then
    number(tree, "rndis.status", body, 8, 4)
  elseif kind ~= 3 and kind ~= 6 then
    number(tree, "rndis.request", body, 8, 4)
    if kind >= 0x80000000 then number(tree, "rndis.status", body, 12, 4) end
  end
  return name
end

local function pipe(tree, body)
  local kind = number(tree, "pipe.kind", body, 0, 4)
  local length = number(tree, "pipe.length", body, 4, 4)
  if not length or kind ~= 1 then return nil end
  return length
end

local function component(tree, body)
  if not pipe(tree, body) then return nil end
  local kind = number(tree, "ic.type", body, 12, 2)
  local version = part(body, 14, 4)
  if not version then return nil end
  local major, minor = version(0, 2):le_uint(), version(2, 2):le_uint()
  tree:add(fields["ic.version"], version, major .. "." .. minor)
  number(tree, "ic.status", body, 20, 4)
  local id = number(tree, "ic.id", body, 24, 1)
  local flags = number(tree, "ic.flags", body, 25, 1)
  local name = names.ic[kind]
  if not name or not flags then return nil end
  local text = name .. ((has(flags, 4)) and " answer #" or " request #") .. id
  local function enum(what, list, offset, length)
    local value = number(tree, what, body, 28 + offset, length)
    if value then text = text .. " " .. named(list, value, what) end
  end
  if kind == 1 then
    local beat = part(body, 28, 8)
    if beat then
      put(tree, "ic.beat", beat)
      text = text .. " beat " .. tostring(beat:le_uint64())
    end
  elseif kind == 2 then
    enum("ic.kvp.operation", names.kvp_operation, 0, 1)
    enum("ic.kvp.pool", names.kvp_pool, 1, 1)
  elseif kind == 3 then
    enum("ic.shutdown.action", names.shutdown_action, 8, 4)
  elseif kind == 4 then
    number(tree, "ic.time", body, 28, 8)
  elseif kind == 5 then
    enum("ic.vss.operation", names.vss_operation, 0, 1)
  elseif kind == 7 then
    enum("ic.fcopy.operation", names.file_copy_operation, 0, 4)
  end
  return text
end

local function keyboard(tree, body)
  local kind = number(tree, "keyboard.type", body, 0, 4)
  local name = kind and names.keyboard[kind]
  if name and kind == 3 then
    local code = number(tree, "keyboard.code", body, 4, 2)
    number(tree, "keyboard.flags", body, 8, 4)
    if code then name = name .. string.format(" 0x%x", code) end
  end
  return name
end

local function mouse(tree, body)
  if not pipe(tree, body) then return nil end
  local kind = number(tree, "mouse.type", body, 8, 4)
  local name = kind and names.mouse[kind]
  if name and kind == 4 then
    local length = part(body, 12, 4)
    local report = length and part(body, 16, length:le_uint())
    if report then tree:add(fields["mouse.report"], report) end
  end
  return name
end

local function balloon(tree, body)
  local kind = number(tree, "balloon.type", body, 0, 2)
  local id = number(tree, "balloon.id", body, 4, 4)
  local name = kind and names.balloon[kind]
  return name and id and (name .. " #" .. id)
end

local function video(tree, body)
  if not pipe(tree, body) then return nil end
  local kind = number(tree, "video.type", body, 8, 4)
  return kind and names.video[kind]
end

local function stream(tree, body)
  local length = pipe(tree, body)
  return length and ("stream " .. length .. " B")
end

local classes = {
  storage = storage, ide = storage, fc = storage, network = network,
  shutdown = component, timesync = component, heartbeat = component, kvp = component,
  vss = component, fcopy = component, keyboard = keyboard, mouse = mouse, balloon = balloon,
  video = video, vsock = stream,
}

local function ranges(tree, kind, header)
  local count = part(header, 4, 4)
  if not count then return end
  put(tree, "packet.ranges", count)
  local offset = 8
  for _ = 1, math.min(count:le_uint(), 64) do
    local range = part(header, offset, 8)
    if not range then return end
    put(tree, "range.bytes", range(0, 4))
    put(tree, "range.offset", range(4, 4))
    offset = offset + 8
    if kind == 9 then
      local pages = math.floor((range(0, 4):le_uint() + range(4, 4):le_uint() + 4095) / 4096)
      for _ = 1, pages do
        local pfn = part(header, offset, 8)
        if not pfn then return end
        put(tree, "range.pfn", pfn)
        offset = offset + 8
      end
    end
  end
end

local function packet(tree, body, device, side)
  local kind = number(tree, "packet.type", body, 0, 2)
  local data_offset = part(body, 2, 2)
  number(tree, "packet.flags", body, 6, 2)
  if not number(tree, "packet.id", body, 8, 8) then return nil end
  local id = body(8, 8):le_uint64()
  local name = names.packet_type[kind]
  if not name then return nil end
  local start = data_offset:le_uint() * 8
  if body:len() < start then return name .. " (cut)" end
  if (kind == 9 or kind == 7) and start > 16 then ranges(tree, kind, body(16, start - 16)) end
  local text = name .. " id=0x" .. id:tohex():gsub("^0+(%x)", "%1")
  if body:len() == start then return text .. " | (empty)" end
  local explain = classes[device]
  if not explain then return nil end
  local said = explain(tree, body(start), side, kind == 11 and side == 1)
  return said and (text .. " | " .. said)
end

local function flag(tree, name, range, mask)
  tree:add(fields[name], range, has(range:le_uint(), mask))
end

local others = {
  [4] = function(tree, body)
    if not part(body, 0, 28) then return nil end
    local order = { "incoming_read", "incoming_write", "incoming_pending", "outgoing_read", "outgoing_write", "outgoing_mask" }
    for index, name in ipairs(order) do put(tree, "ring." .. name, body(4 * index - 4, 4)) end
    local interrupt = body(24, 4):le_uint() % 4 ~= 0
    tree:add(fields["ring.interrupt"], body(24, 4), interrupt)
    return interrupt and "rings, interrupt" or "rings, no interrupt"
  end,
  [5] = function(tree, body)
    local cause = number(tree, "turn.cause", body, 0, 4)
    return cause and causes[cause] and ("turn: " .. causes[cause])
  end,
  [6] = function(tree, body)
    return number(tree, "connection", body, 0, 4) and "opened"
  end,
  [7] = function() return "closed" end,
  [8] = function(tree, body)
    if not part(body, 0, 16) then return nil end
    put(tree, "event.flag", body(10, 2))
    put(tree, "event.sint", body(12, 1))
    flag(tree, "event.raised", body(13, 1), 1)
    return "event flag " .. body(10, 2):le_uint() .. ((body(13, 1):uint() ~= 0) and ", interrupt" or ", no interrupt")
  end,
  [9] = function(tree, body)
    if not part(body, 0, 32) then return nil end
    put(tree, "hypercall.code", body(0, 2))
    put(tree, "hypercall.control", body(0, 8))
    put(tree, "hypercall.input", body(8, 8))
    put(tree, "hypercall.status", body(24, 2))
    local code, status = body(0, 2):le_uint(), body(24, 2):le_uint()
    return names.call[code] and (names.call[code] .. ": " .. named(names.hv_status, status, "Status"))
  end,
  [10] = function(tree, body)
    if not part(body, 0, 16) then return nil end
    put(tree, "msr", body(0, 4))
    flag(tree, "msr.write", body(4, 4), 1)
    flag(tree, "msr.refused", body(4, 4), 2)
    put(tree, "msr.value", body(8, 8))
    local name = names.msr[body(0, 4):le_uint()]
    local refused = has(body(4, 4):le_uint(), 2)
    if not name and not refused then return nil end
    name = name or string.format("MSR 0x%x", body(0, 4):le_uint())
    return name .. ((has(body(4, 4):le_uint(), 1)) and " becomes 0x" or " is 0x") .. body(8, 8):le_uint64():tohex()
  end,
  [11] = function(tree, body)
    if not part(body, 0, 24) then return nil end
    put(tree, "synic.control", body(0, 8))
    put(tree, "synic.messages", body(8, 8))
    put(tree, "synic.events", body(16, 8))
    return "SynIC"
  end,
  [12] = function(tree, body)
    local count = number(tree, "lost", body, 0, 8)
    return count and string.format("%d records lost", count)
  end,
}

local none = 0xffffffff

function proto.dissector(tvb, pinfo, root)
  pinfo.cols.protocol = "VMBus"
  local tree = root:add(proto, tvb())
  if tvb:len() < 56 or tvb(0, 1):uint() ~= 1 then
    tree:add(fields.unknown, tvb(0, math.min(tvb:len(), 1)), "no record of layout 1")
    return
  end
  put(tree, "version", tvb(0, 1))
  put(tree, "kind", tvb(1, 1))
  put(tree, "side", tvb(2, 1))
  local kind, side = tvb(1, 1):uint(), tvb(2, 1):uint()
  local vp, channel = tvb(4, 4):le_uint(), tvb(8, 4):le_uint()
  if vp ~= none then put(tree, "vp", tvb(4, 4)) end
  local device = "bus"
  if channel ~= none then
    put(tree, "channel", tvb(8, 4))
    put(tree, "subchannel", tvb(12, 2))
    put(tree, "class", tvb(16, 16))
    put(tree, "instance", tvb(32, 16))
    local class = tvb(16, 16):bytes():tohex(true)
    device = names.class[class] or (class:sub(9) == names.vsock and "vsock") or "other"
  end
  tree:add(fields.device, tvb(16, 16), device)
  put(tree, "at", tvb(48, 4))
  put(tree, "len", tvb(52, 4))
  pinfo.cols.src = (side == 0) and "guest" or "host"
  pinfo.cols.dst = (side == 0) and "host" or "guest"
  local length, text = tvb:len() - 56, nil
  local cut = length < tvb(52, 4):le_uint()
  if length == 0 then
    text = (kind == 7 and "closed") or (cut and "(cut)")
  else
    local body = tvb(56)
    if kind == 1 then
      text = message(tree, body, side)
    elseif kind == 2 then
      text = packet(tree, body, device, side)
    elseif kind == 3 and length >= 8 then
      put(tree, "packet.id", body(0, 8))
      if device == "network" and length > 8 then
        text = rndis(tree, body(8), pinfo, root)
      else
        text = "data of a packet, " .. (tvb(52, 4):le_uint() - 8) .. " B"
        if length > 8 then tree:add(fields.data, body(8)) end
      end
    elseif others[kind] then
      text = others[kind](tree, body)
    end
  end
  if not text and cut then text = "(cut)" end
  if not text then
    text = "not understood"
    tree:add(fields.unknown, tvb(1, 1), text)
  end
  local who = (channel ~= none) and (device .. "#" .. channel) or ((vp ~= none) and ("vp" .. vp) or "bus")
  -- What Ethernet wrote into the columns is about a frame within.
  pinfo.cols.protocol = "VMBus"
  pinfo.cols.info = who .. " " .. text
end

DissectorTable.get("wtap_encap"):add(wtap.USER0, proto)
