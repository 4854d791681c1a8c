// SPDX-License-Identifier: MIT OR Apache-2.0

//! The control socket: a running machine is asked, and told what to do.
//!
//! One JSON object a line, both ways; [`protocol`] defines them all. `busway run --control` is the
//! [`server`], `busway ctl` a [`client`] for people and scripts.

pub mod client;
mod conversation;
pub mod protocol;
pub mod server;
