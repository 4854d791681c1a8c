// SPDX-License-Identifier: MIT OR Apache-2.0

//! Hypercalls: the control word, the status codes, and the inputs of the calls that VMBus makes.
//!
//! Source: TLFS, "Hypercall Interface" and "Inter-Partition Communication" (HvCallPostMessage,
//! HvCallSignalEvent); Linux `include/asm-generic/hyperv-tlfs.h`.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;
use crate::synic::{MESSAGE_PAYLOAD_LEN, MessageKind};

open_enum! {
    /// A call code: bits 15:0 of the control word.
    pub enum CallCode: u16 {
        /// HvCallFlushVirtualAddressSpace.
        FLUSH_VIRTUAL_ADDRESS_SPACE = 0x0002,
        /// HvCallFlushVirtualAddressList.
        FLUSH_VIRTUAL_ADDRESS_LIST = 0x0003,
        /// HvCallNotifyLongSpinWait.
        NOTIFY_LONG_SPIN_WAIT = 0x0008,
        /// HvCallSendSyntheticClusterIpi.
        SEND_IPI = 0x000b,
        /// HvCallFlushVirtualAddressSpaceEx.
        FLUSH_VIRTUAL_ADDRESS_SPACE_EX = 0x0013,
        /// HvCallFlushVirtualAddressListEx.
        FLUSH_VIRTUAL_ADDRESS_LIST_EX = 0x0014,
        /// HvCallSendSyntheticClusterIpiEx.
        SEND_IPI_EX = 0x0015,
        /// HvCallPostMessage.
        POST_MESSAGE = 0x005c,
        /// HvCallSignalEvent.
        SIGNAL_EVENT = 0x005d,
        /// HvCallRetargetDeviceInterrupt.
        RETARGET_DEVICE_INTERRUPT = 0x007e,
        /// HvExtCallQueryCapabilities.
        EXT_QUERY_CAPABILITIES = 0x8001,
        /// HvExtCallMemoryHeatHint.
        EXT_MEMORY_HEAT_HINT = 0x8003,
    }
}

open_enum! {
    /// A result of a hypercall: bits 15:0 of the result (`HV_STATUS`).
    pub enum Status: u16 {
        /// Done.
        SUCCESS = 0,
        /// No such call.
        INVALID_HYPERCALL_CODE = 2,
        /// The control word does not fit the call.
        INVALID_HYPERCALL_INPUT = 3,
        /// The input page is not aligned to 8, or crosses a page.
        INVALID_ALIGNMENT = 4,
        /// A field of the input is out of its range.
        INVALID_PARAMETER = 5,
        /// The partition lacks the privilege.
        ACCESS_DENIED = 6,
        /// Not enough memory to serve the call.
        INSUFFICIENT_MEMORY = 0xb,
        /// The VP index names no VP.
        INVALID_VP_INDEX = 0xe,
        /// The port id names no port.
        INVALID_PORT_ID = 0x11,
        /// The connection id names no connection.
        INVALID_CONNECTION_ID = 0x12,
        /// Too many messages wait: the caller should try again later.
        INSUFFICIENT_BUFFERS = 0x13,
    }
}

/// The control word of a hypercall (RCX on x64, EDX:EAX on x86).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Control(pub u64);

impl Control {
    /// The control word of a simple call whose input is in registers.
    pub const fn fast(code: CallCode) -> Self {
        Self(1 << 16 | code.0 as u64)
    }

    /// Which call.
    pub const fn code(self) -> CallCode {
        #[expect(clippy::cast_possible_truncation, reason = "bits 15:0 are wanted")]
        CallCode(self.0 as u16)
    }

    /// Bit 16: the input is in registers, not in memory.
    pub const fn is_fast(self) -> bool {
        self.0 & 1 << 16 != 0
    }

    /// Bits 26:17: size of the variable header, in 8-byte units.
    pub const fn variable_header_units(self) -> u32 {
        (self.0 >> 17 & 0x3ff) as u32
    }

    /// Bits 43:32: repetitions of a rep call; 0 for a simple one.
    pub const fn rep_count(self) -> u32 {
        (self.0 >> 32 & 0xfff) as u32
    }

    /// Bits 59:48: the first repetition to process.
    pub const fn rep_start(self) -> u32 {
        (self.0 >> 48 & 0xfff) as u32
    }

    /// Bits that have to be zero, and are not: 30:27, 47:44, 63:60, and the one for a nested
    /// hypervisor's calls.
    pub const fn reserved(self) -> u64 {
        self.0 & 0xf000_f000_f800_0000
    }

    /// The result word of this call (RAX on x64, EDX:EAX on x86): bits 15:0 are the status, 43:32
    /// the repetitions that are done, counted from the first.
    pub const fn result(self, status: Status) -> u64 {
        let done = match status {
            Status::SUCCESS => self.rep_count(),
            _ => self.rep_start(),
        };
        status.0 as u64 | (done as u64) << 32
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code())?;
        if self.is_fast() {
            f.write_str(" fast")?;
        }
        if self.rep_count() != 0 {
            write!(f, " reps={}..{}", self.rep_start(), self.rep_count())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Control({:#x}: {self})", self.0)
    }
}

/// The input of HvCallPostMessage, whole (`struct hv_input_post_message`).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PostMessage {
    /// The connection that the message is sent on; see [`connection`].
    pub connection_id: u32,
    /// Zero.
    pub reserved: u32,
    /// [`MessageKind::CHANNEL`] for VMBus.
    pub kind: MessageKind,
    /// Bytes of `payload` that count, at most [`MESSAGE_PAYLOAD_LEN`].
    pub payload_len: u32,
    /// The message.
    pub payload: [u8; MESSAGE_PAYLOAD_LEN],
}

const _: () = assert!(size_of::<PostMessage>() == 256);

/// The input of HvCallSignalEvent (`struct hv_input_signal_event`); its eight bytes are RDX when
/// the call is fast.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SignalEvent {
    /// The connection that is signalled.
    pub connection_id: u32,
    /// An offset from the port's base flag; VMBus uses 0.
    pub flag: u16,
    /// Zero.
    pub reserved: u16,
}

const _: () = assert!(size_of::<SignalEvent>() == 8);

/// The fixed part of HvCallFlushVirtualAddressSpace and -List (`struct hv_tlb_flush`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlushAddressSpace {
    /// CR3 of the address space.
    pub address_space: u64,
    /// [`flush_flags`].
    pub flags: u64,
    /// VPs 0 to 63, a bit each.
    pub processor_mask: u64,
}

const _: () = assert!(size_of::<FlushAddressSpace>() == 24);

/// The fixed part of the same calls with a sparse VP set (`struct hv_tlb_flush_ex`); the set's
/// banks are the variable header.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlushAddressSpaceEx {
    /// CR3 of the address space.
    pub address_space: u64,
    /// [`flush_flags`].
    pub flags: u64,
    /// The VPs.
    pub vp_set: VpSetHeader,
}

const _: () = assert!(size_of::<FlushAddressSpaceEx>() == 32);

/// `HV_FLUSH_*`.
pub mod flush_flags {
    /// Every VP, whatever the mask says.
    pub const ALL_PROCESSORS: u64 = 1;
    /// Every address space.
    pub const ALL_ADDRESS_SPACES: u64 = 1 << 1;
    /// Global pages may stay.
    pub const NON_GLOBAL_ONLY: u64 = 1 << 2;
    /// The list holds extended ranges.
    pub const EXTENDED_RANGES: u64 = 1 << 3;
    /// All that have a meaning.
    pub const KNOWN: u64 = ALL_PROCESSORS | ALL_ADDRESS_SPACES | NON_GLOBAL_ONLY | EXTENDED_RANGES;
}

/// The input of HvCallSendSyntheticClusterIpi (`struct hv_send_ipi`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SendIpi {
    /// The interrupt vector, 16 to 255.
    pub vector: u32,
    /// The virtual trust level; 0 is the only one here.
    pub vtl: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// VPs 0 to 63, a bit each.
    pub processor_mask: u64,
}

const _: () = assert!(size_of::<SendIpi>() == 16);

/// The fixed part of HvCallSendSyntheticClusterIpiEx (`struct hv_send_ipi_ex`); the set's banks
/// are the variable header.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SendIpiEx {
    /// The interrupt vector, 16 to 255.
    pub vector: u32,
    /// The virtual trust level; 0 is the only one here.
    pub vtl: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// The VPs.
    pub vp_set: VpSetHeader,
}

const _: () = assert!(size_of::<SendIpiEx>() == 24);

/// What a partition can do beyond the calls of its privileges (HvExtCallQueryCapabilities' output).
pub mod extended_capabilities {
    /// HvExtCallMemoryHeatHint with [`COLD_DISCARD`](super::MemoryHint::COLD_DISCARD).
    pub const MEMORY_COLD_DISCARD: u64 = 1 << 8;
}

/// The fixed part of HvExtCallMemoryHeatHint (`struct hv_memory_hint`); a list of [`GpaRange`]
/// follows.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MemoryHint(pub u64);

impl MemoryHint {
    /// Nobody needs the contents; the other bits are reserved.
    pub const COLD_DISCARD: Self = Self(2);
}

/// Guest pages in a row (`union hv_gpa_page_range`).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GpaRange(pub u64);

impl GpaRange {
    /// The first 4 KiB page and how many there are: bits 10:0 are how many follow the first, bit 11
    /// says that they are large, of 1 GiB if bit 12 is set and else of 2 MiB.
    pub const fn pages(self) -> (u64, u64) {
        let count = (self.0 & 0x7ff) + 1;
        if self.0 & 1 << 11 == 0 {
            return (self.0 >> 12, count);
        }
        let each = if self.0 & 1 << 12 == 0 { 1 << 9 } else { 1 << 18 };
        // Bits 63:21 number pages of 2 MiB; the place of one of 1 GiB is written in them too.
        (self.0 >> 21 << 9, count * each)
    }
}

/// The start of a set of VPs; a word of 64 bits follows for each bit of `valid_banks`
/// (`struct hv_vpset`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VpSetHeader {
    /// How the set is written.
    pub format: VpSetFormat,
    /// Bit n: there is a word for the VPs 64 n to 64 n + 63.
    pub valid_banks: u64,
}

const _: () = assert!(size_of::<VpSetHeader>() == 16);

open_enum! {
    /// `HV_GENERIC_SET_FORMAT`.
    pub enum VpSetFormat: u64 {
        /// 4096 VPs in up to 64 banks.
        SPARSE_4K = 0,
        /// Every VP there is.
        ALL = 1,
    }
}

/// Well-known connection ids (Linux `include/linux/hyperv.h`, `VMBUS_MESSAGE_CONNECTION_ID` …).
pub mod connection {
    /// Channel messages of guests before protocol 5.0.
    pub const MESSAGE: u32 = 1;
    /// Event signals of guests that use the interrupt page (0.13).
    pub const EVENT: u32 = 2;
    /// Channel messages of guests from protocol 5.0 on.
    pub const MESSAGE_5: u32 = 4;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Linux 6.1 puts into RCX for its fast HvCallSignalEvent (`drivers/hv/connection.c`,
    /// `vmbus_set_event`: code 0x5d, fast bit 16).
    #[test]
    fn control_word_of_a_fast_signal() {
        let control = Control(0x1_005d);
        assert_eq!(control, Control::fast(CallCode::SIGNAL_EVENT));
        assert_eq!(control.code(), CallCode::SIGNAL_EVENT);
        assert!(control.is_fast());
        assert_eq!((control.rep_count(), control.variable_header_units()), (0, 0));
        assert_eq!(control.to_string(), "SIGNAL_EVENT fast");
    }

    #[test]
    fn a_result_counts_repetitions() {
        let control = Control(0x0002_0005_0002_0014);
        assert_eq!(control.result(Status::SUCCESS), 5 << 32);
        assert_eq!(control.result(Status::INVALID_PARAMETER), 2 << 32 | 5);
        assert_eq!(Control(0x5d).result(Status::INVALID_CONNECTION_ID), 0x12);
    }

    #[test]
    fn reserved_bits_are_those_of_the_tlfs() {
        assert_eq!(Control(0x0fff_0fff_07ff_ffff).reserved(), 0);
        assert_eq!(Control(u64::MAX).reserved(), !0x0fff_0fff_07ff_ffff);
    }

    /// `base_large_pfn:43`, `page_size:1` above 12 bits, `largepage:1` above `additional_pages:11`.
    #[test]
    fn a_range_has_pages_of_three_sizes() {
        assert_eq!(GpaRange(0x1234_5000).pages(), (0x1_2345, 1));
        assert_eq!(GpaRange(0x1234_57ff).pages(), (0x1_2345, 2048));
        assert_eq!(GpaRange(5 << 21 | 1 << 11 | 3).pages(), (5 * 512, 4 * 512));
        assert_eq!(GpaRange(512 << 21 | 1 << 12 | 1 << 11).pages(), (1 << 18, 1 << 18));
    }

    #[test]
    fn control_word_of_a_rep_call() {
        let control = Control(0x0002_0005_0002_0014);
        assert_eq!(control.code(), CallCode::FLUSH_VIRTUAL_ADDRESS_LIST_EX);
        assert_eq!((control.rep_start(), control.rep_count()), (2, 5));
        assert_eq!(control.variable_header_units(), 1);
    }
}
