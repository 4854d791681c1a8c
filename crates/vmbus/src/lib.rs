// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host end of VMBus.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod action;
mod gpadl;
mod offer;
mod server;

pub use action::{Action, ChannelKey, Completion, InterruptTarget, MessageTarget, OpenRequest};
pub use gpadl::{Gpadl, GpadlError, GpadlId, Range};
pub use offer::Offer;
pub use server::{ControlError, Server, ServerConfig};
