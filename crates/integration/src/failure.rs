// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why a question has no answer.

use std::time::Duration;

use busway_wire::ic::kvp::PairError;
use busway_wire::ic::{BodyError, Status};
use busway_wire::utf16::TooLong;

use crate::Phase;

/// A guest did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It cannot be asked now.
    #[error("the guest cannot be asked: {0}")]
    NotReady(Phase),
    /// It did not answer in time.
    #[error("the guest has not answered within {} s", .0.as_secs())]
    NoAnswer(Duration),
    /// Its driver went, or the machine was reset, before it answered.
    #[error("the guest closed the channel before it answered")]
    Gone,
    /// Somebody else has frozen it.
    #[error("the guest's file systems are frozen already")]
    FrozenAlready,
    /// It says no.
    #[error("the guest refuses: {0}")]
    Refused(Status),
    /// Its answer is cut off.
    #[error("the guest's answer is {0}")]
    Short(BodyError),
    /// What is asked does not fit into a message.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// A name is too long for a message.
    #[error("{what} has {reason}")]
    TooLong {
        /// Which name.
        what: &'static str,
        /// How long it is.
        reason: TooLong,
    },
}
