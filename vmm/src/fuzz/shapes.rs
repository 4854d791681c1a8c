// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a kind of message looks like: where its fields are, by the types of `busway_wire`.

use std::ops::RangeInclusive;

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Bytes from the start of what it is in.
    pub(super) at: usize,
    /// Bytes of it.
    pub(super) len: usize,
}

/// What a packet of the kind must have, beside its descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: there are no others.
    Always,
    /// These bytes at that place of its payload.
    By(usize, Vec<u8>),
    /// It answers a request of this name, as scripts have it.
    Answer(&'static str),
}

/// A kind of message.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    /// Its packets, as scripts name them.
    pub(super) packet: &'static str,
    /// How it is told from the device's others.
    pub(super) known: Known,
    /// Fields of the payload.
    pub(super) fields: Vec<Field>,
    /// Fields between descriptor and payload.
    pub(super) header: Vec<Field>,
    /// Fields of what the packet refers to.
    pub(super) data: Vec<Field>,
    /// Which of its packets are meant, counted from 1 on each channel.
    pub(super) nth: RangeInclusive<u64>,
    /// It belongs to a handshake: a driver that minds has nothing more to say.
    pub(super) is_handshake: bool,
}

impl Shape {
    /// One whose fields are all in the payload.
    pub(super) fn new(
        name: &'static str,
        packet: &'static str,
        nth: RangeInclusive<u64>,
        fields: &[&[Field]],
    ) -> Self {
        let (header, data) = (Vec::new(), Vec::new());
        let (fields, known) = (fields.concat(), Known::Always);
        Self { name, packet, known, fields, header, data, nth, is_handshake: false }
    }

    /// The same, known by these bytes of its payload.
    pub(super) fn by(self, at: usize, bytes: &[u8]) -> Self {
        Self { known: Known::By(at, bytes.to_vec()), ..self }
    }

    /// The same, known by what it answers.
    pub(super) fn answer(self, operation: &'static str) -> Self {
        Self { known: Known::Answer(operation), ..self }
    }

    /// The same, of a handshake.
    pub(super) fn handshake(self) -> Self {
        Self { is_handshake: true, ..self }
    }
}

/// Bytes of what a function over a field takes out.
pub(super) fn len_of<T, F>(_field: fn(T) -> F) -> usize {
    size_of::<F>()
}

/// The named fields of a wire type that begins at `$base`.
macro_rules! fields {
    ($base:expr, $kind:ty: $($field:ident),+ $(,)?) => {
        [$($crate::fuzz::shapes::Field {
            name: stringify!($field),
            at: $base + std::mem::offset_of!($kind, $field),
            len: $crate::fuzz::shapes::len_of(|value: $kind| value.$field),
        }),+]
    };
}
pub(super) use fields;
