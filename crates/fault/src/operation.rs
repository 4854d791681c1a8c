// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a packet asks for, by the names that `busway decode` has for it.

use busway_wire::{Guid, class, ic, nvsp, scsi, storvsc};

use crate::rule::{End, Prefix};

/// Where the CDB is in a packet that asks for a SCSI command (`struct vstor_packet` and
/// `struct vmscsi_request`, drivers/scsi/storvsc_drv.c).
const CDB: usize = 28;
/// Where `icmsgtype` is (`struct vmbuspipe_hdr` and `struct icmsg_hdr`, include/linux/hyperv.h).
const COMPONENT_MESSAGE: usize = 12;

/// How a packet is known that has to do with an operation.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// By itself.
    pub payload: Vec<Prefix>,
    /// By what it answers.
    pub request: Vec<Prefix>,
}

/// How packets of `from` are known that have to do with the operation `name` of a device of `class`, or
/// why none are. storvsc answers all that it is asked with one type of packet; others say in the answer what it
/// is.
pub(crate) fn find(class: Option<Guid>, from: End, name: &str) -> Result<Known, String> {
    match class {
        Some(class::SCSI | class::IDE | class::FIBRE_CHANNEL) => {
            let asked = of_storage(name)?;
            Ok(match from {
                End::Guest => Known { payload: asked, ..Known::default() },
                End::Host => Known { request: asked, ..Known::default() },
            })
        }
        Some(class::NETWORK) => {
            let known = nvsp::MessageType::KNOWN.iter();
            let names = known.map(|kind| (kind.name(), kind.0.to_le_bytes().to_vec()));
            Ok(itself(0, among(names, name)?))
        }
        Some(
            class::SHUTDOWN
            | class::TIME_SYNC
            | class::HEARTBEAT
            | class::KVP
            | class::VSS
            | class::FILE_COPY,
        ) => {
            let known = ic::MessageType::KNOWN.iter();
            let names = known.map(|kind| (kind.name(), kind.0.to_le_bytes().to_vec()));
            Ok(itself(COMPONENT_MESSAGE, among(names, name)?))
        }
        _ => Err("operation has names for device = \"storage\", \"network\" and the integration \
                  components: payload says it for others"
            .to_owned()),
    }
}

fn itself(at: usize, bytes: Vec<u8>) -> Known {
    Known { payload: vec![Prefix { at, bytes }], ..Known::default() }
}

/// storvsc's own operations, and SCSI's.
fn of_storage(name: &str) -> Result<Vec<Prefix>, String> {
    let is =
        |operation: storvsc::Operation| Prefix { at: 0, bytes: operation.0.to_le_bytes().to_vec() };
    let own = storvsc::Operation::KNOWN.iter().find(|known| known.name() == Some(name));
    if let Some(operation) = own {
        return Ok(vec![is(*operation)]);
    }
    let known = scsi::Opcode::KNOWN.iter().map(|opcode| (opcode.name(), vec![opcode.0]));
    let bytes = among(known, name)?;
    Ok(vec![is(storvsc::Operation::EXECUTE_SRB), Prefix { at: CDB, bytes }])
}

/// What stands on the wire for `name`.
fn among(
    known: impl Iterator<Item = (Option<&'static str>, Vec<u8>)> + Clone,
    name: &str,
) -> Result<Vec<u8>, String> {
    let found = known.clone().find(|(known, _)| *known == Some(name));
    found.map(|(_, bytes)| bytes).ok_or_else(|| {
        let names: Vec<_> = known.filter_map(|(name, _)| name).collect();
        format!("operation {name:?} is none of {}", names.join(", "))
    })
}
