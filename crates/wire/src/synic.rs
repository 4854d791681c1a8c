// SPDX-License-Identifier: MIT OR Apache-2.0

//! The pages of the synthetic interrupt controller: message slots and event flags.
//!
//! Source: TLFS, "Inter-Partition Communication" (SynIC message page, SynIC event flags page) and
//! "Virtual Interrupt Controller"; Linux `include/asm-generic/hyperv-tlfs.h`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;

/// Synthetic interrupt sources of a VP, and so slots of a message page and rows of an event page.
pub const SINT_COUNT: usize = 16;

/// The SINT that VMBus uses for messages and channel events (`VMBUS_MESSAGE_SINT`).
pub const VMBUS_SINT: u8 = 2;

/// Bytes of one slot of the message page.
pub const MESSAGE_SLOT_LEN: usize = 256;

/// Payload bytes that a slot, and so a message, can hold.
pub const MESSAGE_PAYLOAD_LEN: usize = 240;

/// Event flags of each SINT in the event page.
pub const EVENT_FLAGS: u16 = 2048;

/// Bytes of one SINT's flags in the event page.
pub const EVENT_FLAGS_LEN: usize = 256;

open_enum! {
    /// What a message slot holds (`HV_MESSAGE_TYPE`).
    pub enum MessageKind: u32 {
        /// The slot is free.
        NONE = 0,
        /// A VMBus channel message.
        CHANNEL = 1,
        /// A synthetic timer expired.
        TIMER_EXPIRED = 0x8000_0010,
    }
}

/// The flag of [`SlotHeader::flags`] that says: another message waits, write EOM when done.
pub const MESSAGE_PENDING: u8 = 1;

/// The first 16 bytes of a message slot; the payload follows (`struct hv_message_header`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SlotHeader {
    /// What the payload is; written last by the host, set to 0 by the guest when it has read it.
    pub kind: MessageKind,
    /// Payload bytes, at most [`MESSAGE_PAYLOAD_LEN`].
    pub payload_len: u8,
    /// [`MESSAGE_PENDING`] or 0.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// The sender (port or partition); zero for the host.
    pub origin: u64,
}

const _: () = assert!(size_of::<SlotHeader>() == 16);
const _: () = assert!(size_of::<SlotHeader>() + MESSAGE_PAYLOAD_LEN == MESSAGE_SLOT_LEN);

/// The payload of a [`MessageKind::TIMER_EXPIRED`] message (`struct hv_timer_message_payload`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TimerExpired {
    /// Which of the VP's four timers.
    pub timer: u32,
    /// Zero.
    pub reserved: u32,
    /// When it was due, in reference time (100 ns).
    pub expiration: u64,
    /// When this was sent, in reference time.
    pub delivery: u64,
}

const _: () = assert!(size_of::<TimerExpired>() == 24);
