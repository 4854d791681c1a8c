// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests that the host could not do, and that wait until the user has removed the cause.
//!
//! The guest is not told, and waits: Linux's storvsc lets its commands take as long as they do
//! (`drivers/scsi/storvsc_drv.c`, `storvsc_eh_timed_out`). Each keeps its slot. A guest that resets,
//! or a user who takes the disk away, ends them.

use busway_block::{Disk, IoError, Reaction, Request};
use busway_vmbus::{Fault, Io};

use crate::channel::StorageChannel;

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Held {
    /// The number of its unit.
    pub(crate) disk: usize,
    /// All of it, to be done once more from its beginning.
    pub(crate) request: Request,
    /// Why.
    pub(crate) error: IoError,
}

impl StorageChannel {
    /// Has a request wait, and the machine stop if the `reaction` is that.
    pub(crate) fn hold(&mut self, held: Held, reaction: Reaction) {
        let name = self.table.luns.medium(held.disk).map_or("a disk", Disk::name);
        let (operation, error, disk) = (held.request.operation, held.error, held.disk);
        self.shared.waits(disk);
        self.held.push(held);
        if reaction == Reaction::Stop
            && let Some(stops) = &self.stops
        {
            if stops.stop() {
                log::warn!(
                    "storage: {operation:?} on '{name}' fails, and the machine is paused: {error}: \
                     remove the cause, then say 'resume' on the control socket"
                );
            }
        } else if let Some(seen) = self.warnings.next() {
            log::warn!(
                "storage: {operation:?} on '{name}' waits, and the guest with it: {error}: remove \
                 the cause, then say 'disk resume' on the control socket{seen}"
            );
        }
    }

    /// Does all that waits once more.
    pub(crate) fn retry_held(&mut self) -> Result<(), Fault> {
        for Held { disk, request, .. } in std::mem::take(&mut self.held) {
            self.shared.goes_on(disk);
            self.submit(disk, request)?;
        }
        Ok(())
    }

    /// Ends what a reset gives up, and what is on a disk that has gone.
    pub(crate) fn end_held(&mut self, io: &mut Io<'_>) -> Result<(), Fault> {
        let gives_up = self.gives_up();
        let luns = &self.table.luns;
        let ends = |held: &mut Held| gives_up || luns.medium(held.disk).is_none();
        let ended: Vec<_> = self.held.extract_if(.., ends).collect();
        for Held { disk, request, error } in ended {
            self.shared.goes_on(disk);
            let result = Err(if gives_up { IoError::Cancelled } else { error });
            self.finish(request.token as usize, result, request.data, io)?;
        }
        Ok(())
    }
}
