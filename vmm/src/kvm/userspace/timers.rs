// SPDX-License-Identifier: MIT OR Apache-2.0

//! The thread that waits for the VPs' timers, and for interrupts that a VP has not taken yet.
//!
//! A vCPU sets the alarm for its own VP; this thread is woken by the alarm alone. It has no part in
//! what the main thread does, so that no tick waits for a disk to be offered.

use std::cell::Cell;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use log::error;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Shared;
use crate::lock;

/// The thread. Dropping it ends it.
pub(super) struct Timers {
    quit: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Timers {
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let quit = EventFd::new(EFD_NONBLOCK)?;
        let (shared, bell) = (Arc::clone(shared), quit.try_clone()?);
        let thread = thread::Builder::new().name("stimers".to_owned()).spawn(move || {
            if let Err(error) = serve(shared, bell) {
                error!("the guest's timers stand still: {error}");
            }
        })?;
        Ok(Self { quit, thread: Some(thread) })
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        let _ = self.quit.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(shared: Arc<Shared>, quit: EventFd) -> Result<(), event_manager::Error> {
    let over = Rc::new(Cell::new(false));
    let mut manager = EventManager::new()?;
    manager.add_subscriber(Loop { shared, quit, over: Rc::clone(&over) });
    while !over.get() {
        manager.run()?;
    }
    Ok(())
}

// What an event is about, as event-manager carries it; a VP's index follows the last.
const QUIT: u32 = 0;
const KICK: u32 = 1;
const FIRST_VP: u32 = 2;

struct Loop {
    shared: Arc<Shared>,
    quit: EventFd,
    over: Rc<Cell<bool>>,
}

impl MutEventSubscriber for Loop {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let timers = (FIRST_VP..).zip(&self.shared.vps).map(|(data, vp)| {
            let fd = lock(&vp.state).timer.as_raw_fd();
            Events::with_data_raw(fd, data, EventSet::IN)
        });
        let quit = Events::with_data(&self.quit, QUIT, EventSet::IN);
        let kick = Events::with_data_raw(self.shared.auto_eoi.alarm(), KICK, EventSet::IN);
        for events in timers.chain([quit, kick]) {
            if let Err(error) = ops.add(events) {
                error!("a timer of the guest's cannot be waited for: {error}");
                self.over.set(true);
            }
        }
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        // Each sets its alarm anew, after which the descriptor is not readable any more: nobody
        // need read it, and nobody waits in vain for an alarm that a vCPU has just moved.
        match events.data() {
            QUIT => self.over.set(true),
            KICK => self.shared.auto_eoi.kick(),
            data => {
                let vp = data.saturating_sub(FIRST_VP);
                if let Ok(state) = self.shared.state(vp) {
                    self.shared.run_timers(vp, &mut lock(state));
                }
            }
        }
    }
}
