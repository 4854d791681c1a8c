// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine's raw channels, whose sockets outlive its resets.

use std::io;
use std::path::PathBuf;

use busway_raw::{Listener, RawDevice};
use busway_wire::Guid;

use crate::spec::RawSpec;

/// What the instances of raw channels are counted from.
const FIRST_INSTANCE: u128 = 0x7261_7700_0000_4000_8000_6275_7377_0000;

/// Whether this is the instance of a raw channel, of whatever class.
pub fn is_one(instance: Guid) -> bool {
    let first = Guid::from_text_order(FIRST_INSTANCE);
    // The number is in the last two bytes.
    instance.0[..14] == first.0[..14]
}

/// A raw channel's socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("--raw: cannot listen on {path}; give a path where nothing is yet, in a directory that is yours", path = path.display())]
pub struct RawError {
    path: PathBuf,
    source: io::Error,
}

/// The devices of `specs`, with their sockets open.
pub fn open(specs: &[RawSpec]) -> Result<Vec<RawDevice>, RawError> {
    let open = |(index, spec): (u128, &RawSpec)| {
        let listen = |path: &PathBuf| {
            Listener::bind(path).map_err(|source| RawError { path: path.clone(), source })
        };
        let listener = spec.unix.as_ref().map(listen).transpose()?;
        let instance = Guid::from_text_order(FIRST_INSTANCE + index);
        Ok(RawDevice::new(spec.class.0, instance, spec.pipe, listener).monitored(spec.monitor))
    };
    (0..).zip(specs).map(open).collect()
}
