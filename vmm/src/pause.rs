// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine that stands still: no vCPU runs, and the guest's clocks do not either.
//!
//! Devices go on with what they have. What they have to say waits for the guest, which finds that no time has
//! passed by its own clock: a kernel whose time had gone on would take its own standstill for a processor that
//! hangs (`kernel/watchdog.c`). Its wall clock is set by time synchronization.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use log::warn;

use crate::engine::Engine;
use crate::lock;
use crate::processors::Processors;

/// Whether the machine is paused, which outlives its resets. Clones are the same.
#[derive(Clone, Default)]
pub struct Pause(Arc<State>);

#[derive(Default)]
struct State {
    /// Changes only while `machine` is locked. Who reads it does not wait for a vCPU that is to stop, which takes
    /// as long as the host does not run its thread.
    is_paused: AtomicBool,
    machine: Mutex<Machine>,
}

#[derive(Default)]
struct Machine(Option<(Weak<Processors>, Weak<dyn Engine>)>);

impl Pause {
    /// The machine is this one now, of which no vCPU has run. It stays paused if the last one was.
    pub fn attach(&self, processors: &Arc<Processors>, engine: &Arc<dyn Engine>) {
        let mut machine = lock(&self.0.machine);
        machine.0 = Some((Arc::downgrade(processors), Arc::downgrade(engine)));
        if self.is_paused() {
            machine.stop();
        }
    }

    /// Whether it is paused: no vCPU runs.
    pub fn is_paused(&self) -> bool {
        self.0.is_paused.load(Ordering::SeqCst)
    }

    /// Pauses it, and returns when no vCPU runs any more.
    pub fn pause(&self) {
        self.pause_if(|| true);
    }

    /// The same if `wanted` says so at a moment when nobody [resumes](Self::resume) it.
    pub fn pause_if(&self, wanted: impl FnOnce() -> bool) {
        let machine = lock(&self.0.machine);
        if wanted() && !self.is_paused() {
            machine.stop();
            self.0.is_paused.store(true, Ordering::SeqCst);
        }
    }

    /// Lets it go on, and does `also`, before it can be paused again.
    pub fn resume(&self, also: impl FnOnce()) {
        let machine = lock(&self.0.machine);
        if self.0.is_paused.swap(false, Ordering::SeqCst) {
            machine.go_on();
        }
        also();
    }
}

impl Machine {
    fn parts(&self) -> Option<(Arc<Processors>, Arc<dyn Engine>)> {
        let (processors, engine) = self.0.as_ref()?;
        Some((processors.upgrade()?, engine.upgrade()?))
    }

    fn stop(&self) {
        if let Some((processors, engine)) = self.parts() {
            processors.pause();
            report(engine.freeze());
        }
    }

    fn go_on(&self) {
        if let Some((processors, engine)) = self.parts() {
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
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::engine::NoEngine;
    use crate::processors::Enter;

    fn machine(vcpus: usize) -> (Arc<Processors>, Arc<dyn Engine>) {
        (Arc::new(Processors::new(vcpus)), Arc::new(NoEngine))
    }

    #[test]
    fn a_machine_is_paused_and_goes_on_as_often_as_one_likes() {
        let (pause, (processors, engine)) = (Pause::default(), machine(1));
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
    fn a_vcpu_that_does_not_stop_holds_up_the_pause_alone() {
        let (pause, (processors, engine)) = (Pause::default(), machine(2));
        pause.attach(&processors, &engine);
        assert_eq!(processors.enter(0), Enter::Now);
        let pauser = pause.clone();
        let pausing = thread::spawn(move || pauser.pause());
        while processors.enter(1) == Enter::Now {
            processors.leave(1);
            thread::yield_now();
        }
        let (sender, answer) = mpsc::channel();
        let asked = pause.clone();
        thread::spawn(move || sender.send(asked.is_paused()));
        assert_eq!(answer.recv_timeout(Duration::from_secs(60)), Ok(false));
        processors.leave(0);
        pausing.join().unwrap();
        assert!(pause.is_paused());
    }

    #[test]
    fn a_machine_that_starts_over_stays_paused() {
        let (pause, (first, engine), (second, other)) = (Pause::default(), machine(1), machine(1));
        pause.attach(&first, &engine);
        pause.pause();
        drop((first, engine));
        pause.attach(&second, &other);
        assert_eq!(second.enter(0), Enter::Wait);
        pause.resume(|| {});
        assert_eq!(second.enter(0), Enter::Now);
    }
}
