// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which eventfd a connection id signals: in the kernel for the fast call, and here for the slow
//! one and for whatever the kernel has no room for.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use busway_hyperv::hypercall_page::signal_port;
use busway_wire::hypercall::Status;
use kvm_ioctls::{IoEventAddress, VmFd};
use log::debug;
use vmm_sys_util::eventfd::EventFd;

use crate::lock;

const fn address(connection: u32) -> IoEventAddress {
    IoEventAddress::Pio(signal_port(connection) as u64)
}

/// A machine's connections.
pub(super) struct Connections {
    vm: Arc<VmFd>,
    table: Mutex<BTreeMap<u32, Connection>>,
}

struct Connection {
    event: EventFd,
    /// The kernel signals it too.
    in_kernel: bool,
}

impl Connections {
    pub(super) fn new(vm: &Arc<VmFd>) -> Self {
        Self { vm: Arc::clone(vm), table: Mutex::default() }
    }

    pub(super) fn connect(&self, id: u32, event: &EventFd) -> io::Result<()> {
        let mut table = lock(&self.table);
        if table.contains_key(&id) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let event = event.try_clone()?;
        let in_kernel = match self.vm.register_ioevent(&event, &address(id), id) {
            Ok(()) => true,
            // A machine has a thousand of them at most (`NR_IOBUS_DEVS` of `virt/kvm/kvm_main.c`).
            Err(error) if error.errno() == libc::ENOSPC => {
                debug!("connection {id:#x} is signalled by way of user space");
                false
            }
            Err(error) => return Err(error.into()),
        };
        table.insert(id, Connection { event, in_kernel });
        Ok(())
    }

    pub(super) fn disconnect(&self, id: u32) -> io::Result<()> {
        let connection = lock(&self.table).remove(&id).ok_or(io::ErrorKind::NotFound)?;
        if connection.in_kernel {
            self.vm.unregister_ioevent(&connection.event, &address(id), id)?;
        }
        Ok(())
    }

    /// Signals it on behalf of the guest.
    pub(super) fn signal(&self, id: u32) -> Status {
        match lock(&self.table).get(&id) {
            Some(connection) => {
                // Fails only when the counter is full, and then it is signalled.
                let _ = connection.event.write(1);
                Status::SUCCESS
            }
            None => Status::INVALID_CONNECTION_ID,
        }
    }
}
