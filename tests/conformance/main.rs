// SPDX-License-Identifier: MIT OR Apache-2.0

//! The bus and its devices against the guest end of `busway-testkit`: no KVM, no kernel, seconds.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod balloon;
mod bus;
mod daemons;
mod echo;
mod input;
mod integration;
mod milestones;
mod netvsc;
mod network;
mod network_limits;
mod network_meddled;
mod network_offloads;
mod network_oids;
mod network_plug;
mod network_threads;
mod raw;
mod sockets;
mod storage;
mod storage_channels;
mod storage_held;
mod storage_plug;
mod storvsc;
mod talker;
mod tap;
mod video;
