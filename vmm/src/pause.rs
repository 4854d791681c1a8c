// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine that stands still: no vCPU runs, and the guest's clocks do not either.
//!
//! Devices go on with what they have. What they have to say waits for the guest, which finds that no time has
//! passed by its own clock: a kernel whose time had gone on would take its own standstill for a processor that
//! hangs (`kernel/watchdog.c`). Its wall clock is set by time synchronization.

use std::io;
use std::sync::{Arc, Mutex, Weak};

use log::warn;

use crate::engine::Engine;
use crate::lock;
use crate::processors::Processors;

/// Whether the machine is paused, which outlives its resets. Clones are the same.
#[derive(Clone, Default)]
pub struct Pause(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_paused: bool,
    machine: Option<(Weak<Processors>, Weak<dyn Engine>)>,
}

impl Pause {
    /// The machine is this one now, of which no vCPU has run. It stays paused if the last one was.
    pub fn attach(&self, processors: &Arc<Processors>, engine: &Arc<dyn Engine>) {
        let mut state = lock(&self.0);
        state.machine = Some((Arc::downgrade(processors), Arc::downgrade(engine)));
        if state.is_paused {
            state.stop();
        }
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        lock(&self.0).is_paused
    }

    /// Pauses it, and returns when no vCPU runs any more.
    pub fn pause(&self) {
        self.pause_if(|| true);
    }

    /// The same if `wanted` says so at a moment when nobody [resumes](Self::resume) it.
    pub fn pause_if(&self, wanted: impl FnOnce() -> bool) {
        let mut state = lock(&self.0);
        if wanted() && !state.is_paused {
            state.is_paused = true;
            state.stop();
        }
    }

    /// Lets it go on, and does `also`, before it can be paused again.
    pub fn resume(&self, also: impl FnOnce()) {
        let mut state = lock(&self.0);
        if state.is_paused {
            state.is_paused = false;
            state.go_on();
        }
        also();
    }
}

impl State {
    fn machine(&self) -> Option<(Arc<Processors>, Arc<dyn Engine>)> {
        let (processors, engine) = self.machine.as_ref()?;
        Some((processors.upgrade()?, engine.upgrade()?))
    }

    fn stop(&self) {
        if let Some((processors, engine)) = self.machine() {
            processors.pause();
            report(engine.freeze());
        }
    }

    fn go_on(&self) {
        if let Some((processors, engine)) = self.machine() {
            report(engine.thaw());
            processors.resume();
        }
    }
}

fn report(done: io::Result<()>) {
    if let Err(error) = done {
        warn!("the guest's time goes on while the machine is paused: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::NoEngine;
    use crate::processors::Enter;

    fn machine() -> (Arc<Processors>, Arc<dyn Engine>) {
        (Arc::new(Processors::new(1)), Arc::new(NoEngine))
    }

    #[test]
    fn a_machine_is_paused_and_goes_on_as_often_as_one_likes() {
        let (pause, (processors, engine)) = (Pause::default(), machine());
        pause.attach(&processors, &engine);
        for _ in 0..2 {
            pause.pause();
            pause.pause();
            assert_eq!((pause.is_paused(), processors.enter(0)), (true, Enter::Wait));
            pause.resume(|| {});
            pause.resume(|| {});
            assert_eq!((pause.is_paused(), processors.enter(0)), (false, Enter::Now));
            processors.leave(0);
        }
        pause.pause_if(|| false);
        assert!(!pause.is_paused());
    }

    #[test]
    fn a_machine_that_starts_over_stays_paused() {
        let (pause, (first, engine), (second, other)) = (Pause::default(), machine(), machine());
        pause.attach(&first, &engine);
        pause.pause();
        drop((first, engine));
        pause.attach(&second, &other);
        assert_eq!(second.enter(0), Enter::Wait);
        pause.resume(|| {});
        assert_eq!(second.enter(0), Enter::Now);
    }
}
