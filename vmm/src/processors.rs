// SPDX-License-Identifier: MIT OR Apache-2.0

//! The vCPU threads as others see them: who runs guest code now, and how to interrupt that.
//!
//! A guest that flushes the TLBs of other VPs by hypercall goes on when none of them can use an old
//! translation any more. A VP outside of guest code need not be waited for: it flushes before it
//! enters. So two VPs that flush each other do not wait for each other.
//!
//! The flag that a VP is inside and the wish that it flushes are each written before the other is
//! read, so that one side always sees the other. The same goes for the wish that all stay outside
//! while the machine is paused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vmm_sys_util::signal::{Killable, SIGRTMIN};

use crate::lock;
use crate::vcpu::Stopped;

/// The processors of a machine, by VP index.
#[derive(Debug)]
pub struct Processors {
    vps: Box<[Vp]>,
    /// None of them may run guest code.
    paused: AtomicBool,
    /// That may have changed. Goes with `gate`.
    opened: Condvar,
    gate: Mutex<()>,
}

/// What a VP does that is about to run guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enter {
    /// It does.
    Now,
    /// It does when it has flushed its TLB.
    Flush,
    /// It does not, for the machine is paused.
    Wait,
}

#[derive(Debug, Default)]
struct Vp {
    /// It runs guest code, or is about to.
    inside: AtomicBool,
    /// It has to flush before it runs any.
    flush: AtomicBool,
    thread: Mutex<Option<JoinHandle<Stopped>>>,
}

impl Processors {
    /// `count` processors, none of which has a thread.
    pub fn new(count: usize) -> Self {
        let (paused, opened, gate) = Default::default();
        Self { vps: (0..count).map(|_| Vp::default()).collect(), paused, opened, gate }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.vps.len() as u32
    }

    /// The thread of `vp`.
    pub fn add(&self, vp: u32, thread: JoinHandle<Stopped>) {
        if let Some(vp) = self.vps.get(vp as usize) {
            *lock(&vp.thread) = Some(thread);
        }
    }

    /// `vp` is about to run guest code.
    pub fn enter(&self, vp: u32) -> Enter {
        let Some(vp) = self.vps.get(vp as usize) else {
            return Enter::Now;
        };
        vp.inside.store(true, Ordering::SeqCst);
        if self.paused.load(Ordering::SeqCst) {
            vp.inside.store(false, Ordering::SeqCst);
            return Enter::Wait;
        }
        if vp.flush.swap(false, Ordering::SeqCst) { Enter::Flush } else { Enter::Now }
    }

    /// `vp` does not run guest code any more.
    pub fn leave(&self, vp: u32) {
        if let Some(vp) = self.vps.get(vp as usize) {
            vp.inside.store(false, Ordering::SeqCst);
        }
    }

    /// Has all stay outside of guest code, and returns when they are.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        for vp in &self.vps {
            while vp.inside.load(Ordering::SeqCst) {
                // A kick that comes just before the guest is entered does nothing.
                vp.kick();
                thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// Lets them run guest code again.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
        self.look_again();
    }

    /// Waits, on a VP's thread, while the machine is paused and `stop` is not set.
    pub fn wait(&self, stop: &AtomicBool) {
        let waits = |_: &mut ()| self.paused.load(Ordering::SeqCst) && !stop.load(Ordering::SeqCst);
        drop(self.opened.wait_while(lock(&self.gate), waits));
    }

    /// Has those that [wait](Self::wait) see what has been set.
    pub fn look_again(&self) {
        // Whoever looked before that waits by now.
        drop(lock(&self.gate));
        self.opened.notify_all();
    }

    /// Stops the thread of `vp` if it runs guest code now. One that is just about to is not stopped.
    pub fn kick(&self, vp: u32) {
        if let Some(vp) = self.vps.get(vp as usize) {
            vp.kick();
        }
    }

    /// Waits until none of `vps` can use an old translation.
    pub fn flush(&self, vps: impl Iterator<Item = u32>) {
        let vps: Vec<_> = vps.filter_map(|vp| self.vps.get(vp as usize)).collect();
        for vp in &vps {
            vp.flush.store(true, Ordering::SeqCst);
        }
        for vp in vps {
            // It may be inside again by now; then it has flushed.
            while vp.inside.load(Ordering::SeqCst) && vp.flush.load(Ordering::SeqCst) {
                // A kick that comes just before the guest is entered does nothing.
                vp.kick();
                thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// Waits for the threads, kicking them until they have ended; returns what they leave.
    pub fn join(&self) -> Vec<Stopped> {
        self.vps.iter().filter_map(Vp::join).collect()
    }
}

impl Vp {
    fn kick(&self) {
        if let Some(thread) = &*lock(&self.thread) {
            let _ = thread.kill(SIGRTMIN());
        }
    }

    fn join(&self) -> Option<Stopped> {
        let thread = lock(&self.thread).take()?;
        // A kick that arrives just before the vCPU enters the guest does nothing, so it is
        // repeated.
        while !thread.is_finished() {
            let _ = thread.kill(SIGRTMIN());
            thread::sleep(Duration::from_millis(1));
        }
        let stopped = thread.join().unwrap_or_else(|_| {
            log::warn!("a vCPU thread has panicked");
            Stopped::default()
        });
        Some(stopped)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn who_is_outside_flushes_before_it_enters() {
        let processors = Processors::new(2);
        assert_eq!(processors.enter(0), Enter::Now);
        processors.leave(0);
        processors.flush([0, 1, 7].into_iter());
        assert_eq!(processors.enter(0), Enter::Flush);
        processors.leave(0);
        assert_eq!(processors.enter(0), Enter::Now, "once is enough");
    }

    #[test]
    fn who_is_inside_is_waited_for() {
        let processors = Arc::new(Processors::new(1));
        assert_eq!(processors.enter(0), Enter::Now);
        let flusher = Arc::clone(&processors);
        let flushing = thread::spawn(move || flusher.flush([0].into_iter()));
        while !processors.vps[0].flush.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        assert!(!flushing.is_finished());
        processors.leave(0);
        flushing.join().unwrap();
        assert_eq!(processors.enter(0), Enter::Flush);
    }

    #[test]
    fn nobody_enters_a_paused_machine_and_who_is_inside_is_waited_for() {
        let processors = Arc::new(Processors::new(2));
        assert_eq!(processors.enter(0), Enter::Now);
        let pauser = Arc::clone(&processors);
        let pausing = thread::spawn(move || pauser.pause());
        while !processors.paused.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        assert!(!pausing.is_finished());
        assert_eq!(processors.enter(1), Enter::Wait);
        processors.leave(0);
        pausing.join().unwrap();
        // What is to be flushed is not forgotten meanwhile.
        processors.flush([0].into_iter());
        assert_eq!(processors.enter(0), Enter::Wait);
        processors.resume();
        assert_eq!([processors.enter(0), processors.enter(1)], [Enter::Flush, Enter::Now]);
    }

    #[test]
    fn who_waits_goes_on_when_the_machine_does_and_when_it_ends() {
        let (processors, stop) = (Arc::new(Processors::new(1)), Arc::new(AtomicBool::new(false)));
        let wait = || {
            let (processors, stop) = (Arc::clone(&processors), Arc::clone(&stop));
            thread::spawn(move || processors.wait(&stop))
        };
        processors.pause();
        let waiting = wait();
        processors.look_again();
        assert!(!waiting.is_finished());
        processors.resume();
        waiting.join().unwrap();
        processors.pause();
        let waiting = wait();
        stop.store(true, Ordering::SeqCst);
        processors.look_again();
        waiting.join().unwrap();
    }
}
