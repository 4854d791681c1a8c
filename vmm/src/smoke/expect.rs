// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is expected of a guest: what `--expect` says.

use std::str::FromStr;

use busway_wire::class;

use crate::spec::ValueError;

/// The name of the expectation that the guest finds Hyper-V.
pub const HYPERVISOR: &str = "hypervisor";
/// The name of the expectation that it connects to VMBus.
pub const VMBUS: &str = "vmbus";
/// The name of the expectation that guest and host make a connection by sockets.
pub const SOCKETS: &str = "vsock";
/// The name of the expectation that a driver sends something through a raw channel.
pub const RAW: &str = "raw";

/// What is expected of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// All that is offered and needs no program in the guest.
    Offered,
    /// These names, each of them known, and what they rest on.
    Named(Vec<String>),
}

impl FromStr for Expected {
    type Err = ValueError;

    fn from_str(list: &str) -> Result<Self, ValueError> {
        let mut known = vec![HYPERVISOR, VMBUS];
        known.extend(class::ALL.iter().map(|(name, _)| *name));
        known.extend([SOCKETS, RAW]);
        let mut names: Vec<String> = Vec::new();
        for name in list.split(',') {
            if !known.contains(&name) {
                let known = known.join(",");
                return Err(ValueError(format!("'{name}' is none of {known}")));
            }
            if names.iter().any(|named| named == name) {
                return Err(ValueError(format!("name {name} once")));
            }
            names.push(name.to_owned());
        }
        Ok(Self::Named(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_taken_and_others_are_named() {
        let names = ["storage", "vmbus", "vsock", "raw"].map(str::to_owned).to_vec();
        assert_eq!("storage,vmbus,vsock,raw".parse(), Ok(Expected::Named(names)));
        for (wrong, name) in [("", "''"), ("storage,disk", "'disk'"), ("vmbus,vmbus", "vmbus once")]
        {
            let error = wrong.parse::<Expected>().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
