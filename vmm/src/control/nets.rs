// SPDX-License-Identifier: MIT OR Apache-2.0

//! What requests about network cards do.

use super::one_line;
use super::protocol::{Card, NetTask, Reply};
use crate::nets::Nets;

/// Does what is to be done with a card.
pub(super) fn net(nets: &Nets, task: NetTask) -> Result<Reply, String> {
    let only = match task {
        NetTask::List => None,
        NetTask::Add { net } => Some(nets.add(&net).map_err(|error| one_line(&error))?.to_string()),
        NetTask::Remove { nic } => {
            nets.remove(&nic).map_err(|error| error.to_string())?;
            return Ok(Reply::Nothing);
        }
    };
    let mut cards = cards(nets);
    cards.retain(|card| only.as_ref().is_none_or(|mac| *mac == card.mac));
    Ok(Reply::Nets { cards })
}

/// The cards as they are.
pub(super) fn cards(nets: &Nets) -> Vec<Card> {
    let links = nets.links();
    let cards = links.iter().map(|link| Card {
        network: link.network.to_string(),
        mac: link.mac.to_string(),
        link_up: link.control.is_up(),
    });
    cards.collect()
}
