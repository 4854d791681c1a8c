// SPDX-License-Identifier: MIT OR Apache-2.0

//! The main thread: console input, signals, the timeout, and what the vCPUs report.
//!
//! One loop serves one life of the machine, from start or reset to [`End`]. This is the file that
//! knows event-manager.

use std::cell::Cell;
use std::io::Write;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use busway_storage::Stops;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use log::{debug, error, info, warn};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use crate::bus::VmBus;
use crate::console::{Command, Console, HELP, Received};
use crate::devices::serial::SerialPort;
use crate::faults::Faults;
use crate::integration::Integration;
use crate::lock;
use crate::pause::Pause;
use crate::signals;
use crate::smoke::watch::Watch;
use crate::spec::OnPanic;
use crate::timeout::{Progress, Timeout};
use crate::traffic::Traffic;
use crate::vcpu::Event;

/// Why a life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest switched itself off.
    PoweredOff,
    /// The guest wants to start over.
    Reset,
    /// The guest panicked, and was not to go on.
    Panicked,
    /// A vCPU stopped by the guest's fault.
    Crashed,
    /// The guest took too long.
    TimedOut,
    /// Somebody sent this signal.
    Signal(i32),
    /// The user typed Ctrl-A X.
    Quit,
    /// Who watches the guest has seen all.
    Watched,
    /// A vCPU stopped by the host's fault.
    Broken(String),
}

/// What a life is made of.
pub struct Life<'a> {
    /// Outlives it.
    pub console: &'a mut Console,
    /// The guest's serial port.
    pub serial: &'a Mutex<SerialPort>,
    /// What vCPUs report,
    pub events: Receiver<Event>,
    /// after which they ring this.
    pub bell: &'a EventFd,
    /// The guest's VMBus, whose port has a bell too,
    pub bus: &'a mut VmBus,
    /// and what goes wrong on it on purpose.
    pub faults: &'a Faults,
    /// Rung when the guest has read its serial input.
    pub drained: &'a EventFd,
    /// Rung by signals.
    pub signals: &'a EventFd,
    /// How long the guest may take,
    pub timeout: Option<&'a mut Timeout>,
    /// where what it does for itself is seen, if that makes a difference.
    pub traffic: Option<&'a Traffic>,
    /// Who watches the guest, and rings when it may end.
    pub watch: Option<&'a Watch>,
    /// By which the guest is asked to switch itself off,
    pub integration: &'a Integration,
    /// unless it stands still,
    pub pause: &'a Pause,
    /// which it also does when a disk wants it,
    pub stops: &'a Stops,
    /// and how long it has for that after SIGTERM.
    pub grace: Duration,
    /// What follows a panic.
    pub on_panic: OnPanic,
    /// Set when the guest has panicked.
    pub panicked: &'a Cell<bool>,
}

/// The loop failed.
#[derive(Debug, thiserror::Error)]
#[error("the event loop fails")]
pub struct LoopError(#[from] event_manager::Error);

/// Waits for the end of `life`.
pub fn run(life: Life<'_>) -> Result<End, LoopError> {
    let end = Rc::new(Cell::new(None));
    let mut manager: EventManager<Box<dyn MutEventSubscriber + '_>> = EventManager::new()?;
    let end_of_life = Rc::clone(&end);
    let main = Main::new(life, end_of_life);
    manager.add_subscriber(Box::new(main));
    loop {
        manager.run()?;
        if let Some(end) = end.take() {
            return Ok(end);
        }
    }
}

// What an event is about, as event-manager carries it.
const BELL: u32 = 0;
const DRAINED: u32 = 1;
const SIGNAL: u32 = 2;
const TIMEOUT: u32 = 3;
const LISTENER: u32 = 4;
const INPUT: u32 = 5;
const BUS: u32 = 6;
const GRACE: u32 = 7;
const WATCH: u32 = 8;
const OVERDUE: u32 = 9;
const STOP: u32 = 10;

/// Whether the loop waits for console input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// Not now: the guest has not read what it got, or there is no source.
    No,
    /// On this descriptor.
    On(RawFd),
    /// The source is a file, which cannot be waited for and always has something.
    Never,
}

struct Main<'a> {
    life: Life<'a>,
    end: Rc<Cell<Option<End>>>,
    /// Input that the guest has no room for.
    pending: Vec<u8>,
    input: Waiting,
    /// The guest has been asked to switch itself off, and this is the end when it has, or when the
    /// timer expires.
    grace: Option<(TimerFd, End)>,
}

impl MutEventSubscriber for Main<'_> {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let mut add = |events| {
            if let Err(error) = ops.add(events) {
                self.end.set(Some(End::Broken(format!("cannot wait for an event: {error}"))));
            }
        };
        add(Events::with_data(self.life.bell, BELL, EventSet::IN));
        add(Events::with_data(self.life.bus.port().bell(), BUS, EventSet::IN));
        add(Events::with_data(self.life.drained, DRAINED, EventSet::IN));
        add(Events::with_data_raw(self.life.faults.timer(), OVERDUE, EventSet::IN));
        add(Events::with_data(self.life.signals, SIGNAL, EventSet::IN));
        add(Events::with_data(self.life.stops, STOP, EventSet::IN));
        if let Some(watch) = self.life.watch {
            add(Events::with_data(watch.bell(), WATCH, EventSet::IN));
        }
        if let Some(timeout) = &self.life.timeout {
            add(Events::with_data(&**timeout, TIMEOUT, EventSet::IN));
        }
        if let Some(listener) = self.life.console.listener() {
            add(Events::with_data_raw(listener, LISTENER, EventSet::IN));
        }
        self.feed(ops);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            BELL => self.vcpus_reported(),
            BUS => {
                if let Err(fault) = self.life.bus.work() {
                    self.end(End::Broken(fault.to_string()));
                }
            }
            OVERDUE => self.life.bus.overdue(),
            STOP => {
                let Life { stops, pause, .. } = &self.life;
                stops.heard();
                pause.pause_if(|| stops.is_wanted());
            }
            DRAINED => {
                let _ = self.life.drained.read();
                self.feed(ops);
            }
            SIGNAL => {
                let _ = self.life.signals.read();
                if let Some(signal) = signals::caught() {
                    self.signalled(signal, ops);
                }
            }
            TIMEOUT => {
                let progress = self.progress();
                if self.life.timeout.as_mut().is_some_and(|timeout| timeout.tick(progress)) {
                    self.end(End::TimedOut);
                }
            }
            GRACE => {
                let seconds = self.life.grace.as_secs();
                warn!("the guest has not switched itself off within --grace {seconds}");
                if let Some((_, end)) = self.grace.take() {
                    self.end(end);
                }
            }
            WATCH => {
                if let Some(watch) = self.life.watch {
                    let _ = watch.bell().read();
                }
                if self.grace.is_none() {
                    self.switch_off(End::Watched, ops);
                }
            }
            LISTENER => self.accept(ops),
            _ => {
                self.read(ops);
                self.feed(ops);
            }
        }
    }
}

impl<'a> Main<'a> {
    fn new(life: Life<'a>, end: Rc<Cell<Option<End>>>) -> Self {
        Self { life, end, pending: Vec::new(), input: Waiting::No, grace: None }
    }

    /// Nothing, of a guest that has so much time in all because somebody watches it.
    fn progress(&self) -> Progress {
        if self.life.watch.is_some() {
            return Progress::default();
        }
        Progress {
            serial: lock(self.life.serial).written(),
            packets: self.life.traffic.map_or(0, Traffic::work),
        }
    }

    /// The first SIGTERM is passed on to a guest that listens; whatever comes next ends it.
    fn signalled(&mut self, signal: i32, ops: &mut EventOps<'_>) {
        if signal == libc::SIGTERM && self.grace.is_none() {
            self.switch_off(End::Signal(signal), ops);
        } else {
            self.end(End::Signal(signal));
        }
    }

    /// Ends the life as `end`: by the guest itself if it listens, and within its grace.
    fn switch_off(&mut self, end: End, ops: &mut EventOps<'_>) {
        let Life { grace, pause, integration, .. } = &self.life;
        if grace.is_zero() || pause.is_paused() || !integration.ask_to_power_off() {
            self.end(end);
            return;
        }
        let timer = TimerFd::new().and_then(|mut timer| {
            timer.reset(self.life.grace, None)?;
            Ok(timer)
        });
        match timer {
            Ok(timer) if ops.add(Events::with_data(&timer, GRACE, EventSet::IN)).is_ok() => {
                self.grace = Some((timer, end));
            }
            _ => self.end(end),
        }
    }

    /// The first end is the one that counts.
    fn end(&self, end: End) {
        let end = match (end, &self.grace) {
            // As it was asked to.
            (End::PoweredOff | End::Reset, Some((_, wanted))) => wanted.clone(),
            (end, _) => end,
        };
        let first = self.end.take().unwrap_or(end);
        self.end.set(Some(first));
    }

    fn vcpus_reported(&mut self) {
        let _ = self.life.bell.read();
        while let Ok(event) = self.life.events.try_recv() {
            match event {
                Event::PowerOff => self.end(End::PoweredOff),
                Event::Reset => self.end(End::Reset),
                Event::Broken { vp, reason } => {
                    self.end(End::Broken(format!("vCPU {vp} cannot go on: {reason}")));
                }
                Event::Crashed { vp, how, registers } => {
                    error!("vCPU {vp} cannot go on: {how}");
                    if let Some(registers) = registers.filter(|registers| !registers.is_reset()) {
                        error!("{registers}");
                    }
                    self.end(End::Crashed);
                }
                Event::Panic { vp, words, registers } => {
                    error!("the guest panics on vCPU {vp}: {words}");
                    if let Some(registers) = registers {
                        error!("{registers}");
                    }
                    self.life.panicked.set(true);
                    if self.life.on_panic == OnPanic::Exit {
                        self.end(End::Panicked);
                    }
                }
            }
        }
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) {
        self.wait_no_more(ops);
        if let Err(error) = self.life.console.accept() {
            warn!("nobody could connect to the serial port: {error}");
        }
        self.pending.clear();
        self.feed(ops);
    }

    /// Reads from the console once.
    fn read(&mut self, ops: &mut EventOps<'_>) {
        // A source that ends is closed by reading, and must not be waited for then.
        let waited = self.input;
        self.wait_no_more(ops);
        match self.life.console.read() {
            Received::Bytes(bytes) => self.pending.extend(bytes),
            Received::Command(Command::Quit) => {
                info!("Ctrl-A X");
                self.end(End::Quit);
            }
            Received::Command(Command::PowerOff) => {
                if !self.life.integration.ask_to_power_off() {
                    let text = b"\r\nbusway: the guest does not listen to that\r\n";
                    let _ = self.life.console.output().write_all(text);
                }
            }
            Received::Command(Command::Help) => {
                let _ = self.life.console.output().write_all(HELP.as_bytes());
            }
            Received::End => {
                debug!("the serial port's input has ended");
                return;
            }
        }
        if waited == Waiting::Never {
            self.input = waited;
        }
    }

    /// Gives the guest what it has room for, and waits for more input once nothing is pending.
    fn feed(&mut self, ops: &mut EventOps<'_>) {
        loop {
            let taken = lock(self.life.serial).receive(&self.pending);
            self.pending.drain(..taken);
            if !self.pending.is_empty() {
                return;
            }
            self.wait_for_input(ops);
            if self.input != Waiting::Never {
                return;
            }
            self.read(ops);
        }
    }

    fn wait_for_input(&mut self, ops: &mut EventOps<'_>) {
        let Some(fd) = self.life.console.input() else {
            self.input = Waiting::No;
            return;
        };
        if self.input == Waiting::No {
            let events = Events::with_data_raw(fd, INPUT, EventSet::IN);
            self.input = if ops.add(events).is_ok() { Waiting::On(fd) } else { Waiting::Never };
        }
    }

    fn wait_no_more(&mut self, ops: &mut EventOps<'_>) {
        if let Waiting::On(fd) = self.input {
            let _ = ops.remove(Events::empty_raw(fd));
        }
        self.input = Waiting::No;
    }
}

#[cfg(test)]
#[path = "event_loop_tests.rs"]
mod tests;
