// SPDX-License-Identifier: MIT OR Apache-2.0

//! How the machine's other threads reach its bus, whichever life it is in.

use std::sync::{Arc, Mutex};

use super::{News, Port, VmBus};
use crate::lock;

/// The way to the bus of the life that began last. Clones lead to the same.
#[derive(Clone, Default)]
pub struct BusLine {
    port: Arc<Mutex<Option<Arc<Port>>>>,
}

impl BusLine {
    /// From now on it leads to `bus`.
    pub fn attach(&self, bus: &VmBus) {
        *lock(&self.port) = Some(Arc::clone(bus.port()));
    }

    /// Sends news to the bus, if there was ever one.
    pub fn send(&self, news: News) {
        if let Some(port) = &*lock(&self.port) {
            port.send(news);
        }
    }
}
