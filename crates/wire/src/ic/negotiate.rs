// SPDX-License-Identifier: MIT OR Apache-2.0

//! The first message of a component: which versions are spoken.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Version;

/// What the lists of versions begin with (`struct icmsg_negotiate`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Negotiate {
    /// Versions of the framework, which come first.
    pub frameworks: u16,
    /// Versions of the component's messages.
    pub messages: u16,
    /// Zero.
    pub reserved: u32,
}

const LEN: usize = 8;
const _: () = assert!(size_of::<Negotiate>() == LEN);

/// What the guest has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The framework's version.
    pub framework: Version,
    /// The version of the component's messages.
    pub message: Version,
}

/// A guest's choice that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiateError {
    /// It speaks none of the versions.
    #[error("it speaks none of the versions")]
    NoneSpoken,
    /// Not one of each.
    #[error("it chooses {frameworks} versions of the framework and {messages} of the messages")]
    Counts {
        /// Versions of the framework.
        frameworks: u16,
        /// Versions of the messages.
        messages: u16,
    },
    /// The choice is not in the body.
    #[error("its choice does not fit into {have} B")]
    Short {
        /// Bytes present.
        have: usize,
    },
}

impl Negotiate {
    /// The body that offers these.
    pub fn body(frameworks: &[Version], messages: &[Version]) -> Vec<u8> {
        let count = |versions: &[Version]| u16::try_from(versions.len()).unwrap_or(u16::MAX);
        let (frameworks_count, messages_count) = (count(frameworks), count(messages));
        let start = Self { frameworks: frameworks_count, messages: messages_count, reserved: 0 };
        [start.as_bytes(), frameworks.as_bytes(), messages.as_bytes()].concat()
    }

    /// The guest's choice.
    pub fn choice(body: &[u8]) -> Result<Agreed, NegotiateError> {
        let short = NegotiateError::Short { have: body.len() };
        let (start, rest) = Self::read_from_prefix(body).map_err(|_| short)?;
        match (start.frameworks, start.messages) {
            (1, 1) => {}
            (0, 0) => return Err(NegotiateError::NoneSpoken),
            (frameworks, messages) => {
                return Err(NegotiateError::Counts { frameworks, messages });
            }
        }
        let (choice, _) = <[Version; 2]>::read_from_prefix(rest).map_err(|_| short)?;
        let [framework, message] = choice;
        Ok(Agreed { framework, message })
    }
}

impl fmt::Display for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (framework {})", self.message, self.framework)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_0: Version = Version::new(1, 0);
    const V3_0: Version = Version::new(3, 0);
    const V3_2: Version = Version::new(3, 2);

    #[test]
    fn frameworks_come_first() {
        let body = Negotiate::body(&[V1_0, V3_0], &[V3_2]);
        assert_eq!(body[..8], [2, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(body[8..], [1, 0, 0, 0, 3, 0, 0, 0, 3, 0, 2, 0]);
    }

    /// What `vmbus_prep_negotiate_resp` leaves in the packet: both counts 1, the choice in front.
    #[test]
    fn the_choice_stands_in_front() {
        let mut body = Negotiate::body(&[V1_0, V3_0], &[V3_2]);
        body[..16].copy_from_slice(&[1, 0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3, 0, 2, 0]);
        assert_eq!(Negotiate::choice(&body), Ok(Agreed { framework: V3_0, message: V3_2 }));
    }

    #[test]
    fn what_is_no_choice_is_named() {
        let choice = |frameworks: u8, messages: u8, len: usize| {
            let body = [frameworks, 0, messages, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3, 0, 2, 0];
            Negotiate::choice(&body[..len])
        };
        assert_eq!(choice(0, 0, 16), Err(NegotiateError::NoneSpoken));
        let counts = NegotiateError::Counts { frameworks: 1, messages: 2 };
        assert_eq!(choice(1, 2, 16), Err(counts));
        assert_eq!(choice(1, 1, 15), Err(NegotiateError::Short { have: 15 }));
        assert_eq!(choice(1, 1, 7), Err(NegotiateError::Short { have: 7 }));
    }
}
