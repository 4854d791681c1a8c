// SPDX-License-Identifier: MIT OR Apache-2.0

//! vCPU threads: each runs guest code, and answers what stops it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Once};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use busway_hyperv::msr;
use log::{trace, warn};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::devices::ports::{Ports, Request};
use crate::kvm::{Counters, Exit, Registers, Vcpu};
use crate::limited;
use crate::partition::{LastWords, Partition};

/// What a vCPU tells the machine.
#[derive(Debug)]
pub enum Event {
    /// The guest switched itself off.
    PowerOff,
    /// The guest wants to start over.
    Reset,
    /// The guest reported that it dies. It runs on.
    Panic {
        /// On which vCPU.
        vp: u32,
        /// What it said.
        words: LastWords,
        /// The vCPU as it said that.
        registers: Option<Registers>,
    },
    /// The vCPU cannot go on, by the guest's fault.
    Crashed {
        /// Which.
        vp: u32,
        /// In what way.
        how: &'static str,
        /// As it was when it stopped.
        registers: Option<Registers>,
    },
    /// The vCPU cannot go on, by the host's fault.
    Broken {
        /// Which.
        vp: u32,
        /// KVM's words.
        reason: String,
    },
}

/// Where vCPUs send their events.
pub struct Mailbox {
    sender: Sender<Event>,
    bell: EventFd,
}

impl Mailbox {
    /// Events go to `sender`, and then `bell` is rung.
    pub fn new(sender: Sender<Event>, bell: EventFd) -> Self {
        Self { sender, bell }
    }

    fn send(&self, event: Event) {
        // The receiver goes only after the threads.
        let _ = self.sender.send(event);
        let _ = self.bell.write(1);
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { sender: self.sender.clone(), bell: self.bell.try_clone()? })
    }
}

/// What all vCPUs of a machine share.
pub struct Machine {
    /// Port I/O.
    pub ports: Ports,
    /// The hypervisor.
    pub partition: Partition,
}

/// A vCPU that has run for the last time.
#[derive(Debug, Default)]
pub struct Stopped {
    /// Where it was.
    pub registers: Option<Registers>,
    /// What it cost.
    pub counters: Counters,
}

/// vCPUs that run.
pub struct Running {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Stopped>>,
}

impl Running {
    /// Starts a thread for each of `vcpus`.
    pub fn start(machine: &Arc<Machine>, vcpus: Vec<Vcpu>, mailbox: &Mailbox) -> io::Result<Self> {
        install_kick_handler()?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = Self { stop: Arc::clone(&stop), threads: Vec::new() };
        for vcpu in vcpus {
            let runner = Runner {
                machine: Arc::clone(machine),
                mailbox: mailbox.try_clone()?,
                stop: Arc::clone(&stop),
            };
            let name = format!("vcpu{}", vcpu.index());
            let thread = thread::Builder::new().name(name).spawn(move || runner.run(vcpu))?;
            running.threads.push(thread);
        }
        Ok(running)
    }
}

impl Running {
    /// Stops the vCPUs and waits for them; returns them in their order.
    pub fn stop(&mut self) -> Vec<Stopped> {
        self.stop.store(true, Ordering::SeqCst);
        let mut stopped = Vec::new();
        for thread in self.threads.drain(..) {
            // A kick that arrives just before the vCPU enters the guest does nothing, so it is
            // repeated.
            while !thread.is_finished() {
                let _ = thread.kill(SIGRTMIN());
                thread::sleep(Duration::from_millis(1));
            }
            stopped.push(thread.join().unwrap_or_else(|_| {
                warn!("a vCPU thread has panicked");
                Stopped::default()
            }));
        }
        stopped
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes the kick's signal interrupt KVM and do nothing else.
fn install_kick_handler() -> io::Result<()> {
    extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    static INSTALLED: Once = Once::new();
    let mut result = Ok(());
    INSTALLED.call_once(|| result = register_signal_handler(SIGRTMIN(), ignore));
    Ok(result?)
}

/// What is left to do when an exit has been handled: it needs the vCPU, or ends it.
enum After {
    Request(Request),
    LastWords(LastWords),
    EndOfMessage,
    Crashed(&'static str),
    Broken(String),
}

/// One vCPU's loop.
struct Runner {
    machine: Arc<Machine>,
    mailbox: Mailbox,
    stop: Arc<AtomicBool>,
}

impl Runner {
    fn run(&self, mut vcpu: Vcpu) -> Stopped {
        let vp = vcpu.index();
        while !self.stop.load(Ordering::SeqCst) {
            if let Some(after) = vcpu.run(|exit| self.handle(vp, exit))
                && !self.finish(&vcpu, after)
            {
                break;
            }
        }
        Stopped { registers: vcpu.registers().ok(), counters: vcpu.counters() }
    }

    fn handle(&self, vp: u32, exit: Exit<'_>) -> Option<After> {
        let Machine { ports, partition } = &*self.machine;
        match exit {
            Exit::PortIn(port, data) => ports.read(port, data),
            Exit::PortOut(port, data) => {
                if let Some(request) = ports.write(port, data) {
                    return Some(After::Request(request));
                }
            }
            Exit::MmioRead(address, data) => {
                limited!(
                    Debug,
                    "VP {vp}: read of {} B at {address:#x}, which is nothing",
                    data.len()
                );
                data.fill(0xff);
            }
            Exit::MmioWrite(address, data) => {
                limited!(
                    Debug,
                    "VP {vp}: write of {} B at {address:#x}, which is nothing",
                    data.len()
                );
            }
            Exit::MsrRead(msr::EOM, value) => *value = 0,
            Exit::MsrRead(msr, value) => *value = partition.read_crash_msr(msr),
            Exit::MsrWrite(msr::EOM, _) => {
                partition.end_of_message(vp);
                return Some(After::EndOfMessage);
            }
            Exit::MsrWrite(msr, value) => {
                if let Some(words) = partition.write_crash_msr(msr, value) {
                    return Some(After::LastWords(words));
                }
            }
            Exit::Synic(registers) => {
                trace!("VP {vp}: {registers:x?}");
                partition.synic_written(vp, registers);
            }
            Exit::Hypercall { control, input, result, .. } => {
                *result = partition.hypercall(vp, control, input);
            }
            Exit::Reset => return Some(After::Request(Request::Reset)),
            Exit::TripleFault => return Some(After::Crashed("triple fault")),
            Exit::Lost => {
                return Some(After::Crashed("it runs what KVM cannot emulate, code in MMIO say"));
            }
            Exit::Broken(reason) => return Some(After::Broken(reason)),
            Exit::Interrupted => {}
        }
        None
    }

    /// Does that; false if the vCPU has run for the last time.
    fn finish(&self, vcpu: &Vcpu, after: After) -> bool {
        let vp = vcpu.index();
        let registers = || vcpu.registers().ok();
        let event = match after {
            After::EndOfMessage => {
                if let Err(error) = self.machine.partition.engine().end_of_message(vcpu) {
                    limited!(Warn, "VP {vp}: EOM cannot be passed on: {error}");
                }
                return true;
            }
            After::LastWords(words) => {
                self.mailbox.send(Event::Panic { vp, words, registers: registers() });
                return true;
            }
            After::Request(Request::PowerOff) => Event::PowerOff,
            After::Request(Request::Reset) => Event::Reset,
            After::Crashed(how) => Event::Crashed { vp, how, registers: registers() },
            After::Broken(reason) => Event::Broken { vp, reason },
        };
        self.mailbox.send(event);
        false
    }
}
