// SPDX-License-Identifier: MIT OR Apache-2.0

//! The layout of a record: what a packet of link type USER0 (147) holds in busway's captures.
//!
//! ```text
//! 0        8         16            32             48          56
//! │ kind … │ channel │ class       │ instance     │ at, len   │ body, depends on the kind
//! ```
//!
//! All numbers are little-endian. A record says all that is needed to understand it but for what it
//! answers: one that is taken out of the file still has its meaning. A body may be cut (`snap`);
//! [`Header::len`] is what it had.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The version of this layout.
pub const VERSION: u8 = 1;

/// `LINKTYPE_USER0`.
pub const LINK_TYPE: u16 = 147;

/// What a record is about.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A channel message, as HvPostMessage or a message slot carried it. The host's: the VP is the
    /// one whose slot it was, [`Header::at`] the SINT.
    Message = 1,
    /// A packet of a ring: descriptor, what follows it, payload; no trailer. [`Header::at`] is where
    /// it starts in the ring.
    Packet = 2,
    /// Data that a packet refers to and does not hold: [`Outside`], and the data.
    Outside = 3,
    /// Where the rings stand, and what that means for the guest: [`Published`].
    Published = 4,
    /// A channel's worker has a turn: [`Turn`].
    Turn = 5,
    /// A channel was opened: [`Opened`].
    Opened = 6,
    /// A channel was closed. No body.
    Closed = 7,
    /// An event flag was set for the guest: [`EventFlag`].
    EventFlag = 8,
    /// A hypercall that busway answered: [`Hypercall`].
    Hypercall = 9,
    /// An access to a synthetic MSR that came to busway: [`MsrAccess`].
    Msr = 10,
    /// A VP's SynIC as the guest has set it up: [`SynicState`].
    Synic = 11,
    /// Records were lost here: [`Lost`].
    Lost = 12,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Message,
        Self::Packet,
        Self::Outside,
        Self::Published,
        Self::Turn,
        Self::Opened,
        Self::Closed,
        Self::EventFlag,
        Self::Hypercall,
        Self::Msr,
        Self::Synic,
        Self::Lost,
    ];

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Its name, as filters and JSON spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Packet => "packet",
            Self::Outside => "outside",
            Self::Published => "published",
            Self::Turn => "turn",
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::EventFlag => "event",
            Self::Hypercall => "hypercall",
            Self::Msr => "msr",
            Self::Synic => "synic",
            Self::Lost => "lost",
        }
    }
}

/// [`Header::side`] of what the guest did.
pub const GUEST: u8 = 0;
/// [`Header::side`] of what the host did.
pub const HOST: u8 = 1;

/// [`Header::vp`] and [`Header::channel`] where there is none.
pub const NONE: u32 = u32::MAX;

/// What every record begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// [`VERSION`].
    pub version: u8,
    /// A [`Kind`].
    pub kind: u8,
    /// [`GUEST`] or [`HOST`].
    pub side: u8,
    /// Zero.
    pub reserved: u8,
    /// The VP that is concerned, or [`NONE`].
    pub vp: u32,
    /// The host's number of the channel, which no other channel of the run has, or [`NONE`].
    pub channel: u32,
    /// 0 for a primary channel, else which of its subchannels.
    pub subchannel: u16,
    /// Zero.
    pub reserved2: u16,
    /// The channel's interface type, as GUIDs stand on the wire.
    pub class: [u8; 16],
    /// Its instance.
    pub instance: [u8; 16],
    /// Depends on the kind.
    pub at: u32,
    /// Bytes of the body before it was cut.
    pub len: u32,
}

/// Bytes of a [`Header`].
pub const HEADER_LEN: usize = 56;

impl Header {
    /// A record of this kind about something that `side` did, on no VP and no channel.
    pub const fn new(kind: Kind, side: u8) -> Self {
        Self {
            version: VERSION,
            kind: kind as u8,
            side,
            reserved: 0,
            vp: NONE,
            channel: NONE,
            subchannel: 0,
            reserved2: 0,
            class: [0; 16],
            instance: [0; 16],
            at: 0,
            len: 0,
        }
    }
}

/// What stands before data of [`Kind::Outside`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Outside {
    /// The packet's that refers to the data.
    pub transaction_id: u64,
}

/// The body of [`Kind::Published`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Published {
    /// Where the host goes on in the guest's ring.
    pub incoming_read: u32,
    /// Where the guest does.
    pub incoming_write: u32,
    /// Bytes for which the guest waits in its ring, or 0.
    pub incoming_pending: u32,
    /// Where the guest goes on in the host's ring.
    pub outgoing_read: u32,
    /// Where the host does.
    pub outgoing_write: u32,
    /// Not 0 while the guest wants no interrupts for packets.
    pub outgoing_mask: u32,
    /// [`READER_WAITS`](Self::READER_WAITS), [`WRITER_WAITS`](Self::WRITER_WAITS), both or none; the
    /// guest is interrupted unless none.
    pub flags: u32,
}

impl Published {
    /// The host's ring was empty, and the guest wants to know of packets.
    pub const READER_WAITS: u32 = 1;
    /// The guest's ring has the room that the guest waits for.
    pub const WRITER_WAITS: u32 = 2;
}

/// The body of [`Kind::Turn`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Turn {
    /// [`START`](Self::START) …
    pub cause: u32,
    /// Which back end.
    pub token: u32,
}

impl Turn {
    /// The channel was opened.
    pub const START: u32 = 0;
    /// The guest signalled.
    pub const SIGNAL: u32 = 1;
    /// There was more to do than one turn should last.
    pub const MORE: u32 = 2;
    /// A back end has something.
    pub const BACK_END: u32 = 3;
}

/// The body of [`Kind::Opened`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Opened {
    /// The connection by which the guest signals.
    pub connection_id: u32,
    /// Bytes of data of the guest's ring.
    pub incoming_len: u32,
    /// Bytes of data of the host's ring.
    pub outgoing_len: u32,
    /// The event flag, or the bit of the interrupt page, that tells the guest: its relid.
    pub flag: u32,
}

/// The body of [`Kind::EventFlag`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EventFlag {
    /// The interrupt page of guests before 2.4, where `page_bit` was set; else 0.
    pub page: u64,
    /// The bit in that page.
    pub page_bit: u16,
    /// The flag.
    pub flag: u16,
    /// The SINT.
    pub sint: u8,
    /// 1 if the guest was interrupted; 0 if the flag was set already, or the SynIC is off.
    pub raised: u8,
    /// Zero.
    pub reserved: u16,
}

/// The body of [`Kind::Hypercall`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Hypercall {
    /// The control word.
    pub control: u64,
    /// The address of the input, or the first eight bytes of it if the call is fast.
    pub input: u64,
    /// The address of the output, or the next eight bytes of the input.
    pub output: u64,
    /// What the guest got.
    pub result: u64,
}

/// The body of [`Kind::Msr`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MsrAccess {
    /// Which.
    pub msr: u32,
    /// [`WRITE`](Self::WRITE), [`REFUSED`](Self::REFUSED).
    pub flags: u32,
    /// What was written or read; 0 if it was refused.
    pub value: u64,
}

impl MsrAccess {
    /// A write.
    pub const WRITE: u32 = 1;
    /// The guest got a general protection fault.
    pub const REFUSED: u32 = 2;
}

/// The body of [`Kind::Synic`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SynicState {
    /// SCONTROL.
    pub control: u64,
    /// SIMP.
    pub message_page: u64,
    /// SIEFP.
    pub event_page: u64,
}

/// The body of [`Kind::Lost`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Lost {
    /// Records.
    pub count: u64,
}

const _: () = {
    assert!(size_of::<Header>() == HEADER_LEN);
    assert!(size_of::<Published>() == 28);
    assert!(size_of::<Turn>() == 8);
    assert!(size_of::<Opened>() == 16);
    assert!(size_of::<EventFlag>() == 16);
    assert!(size_of::<Hypercall>() == 32);
    assert!(size_of::<MsrAccess>() == 16);
    assert!(size_of::<SynicState>() == 24);
};
