// SPDX-License-Identifier: MIT OR Apache-2.0

//! vCPU threads: each runs guest code, and answers what stops it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Once};
use std::thread;

use busway_hyperv::hypercall::{self, XmmHalves};
use busway_hyperv::hypercall_page::{PortCall, signal_answer};
use busway_hyperv::registers::Value;
use busway_wire::hypercall::Control;
use log::trace;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::devices::ports::{Ports, Request};
use crate::firmware::Firmware;
use crate::kvm::{
    CallAnswer, CallMode, Counters, Exit, KvmError, MsrRead, MsrWrite, Registers, Vcpu,
};
use crate::limited;
use crate::partition::{LastWords, Partition, Rest};
use crate::processors::{Enter, Processors};

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
    /// What a guest that starts in real mode calls.
    pub firmware: Option<Firmware>,
    /// The hypervisor.
    pub partition: Partition,
    /// Its vCPUs' threads.
    pub processors: Arc<Processors>,
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
    processors: Arc<Processors>,
}

impl Running {
    /// Starts a thread for each of `vcpus`.
    pub fn start(machine: &Arc<Machine>, vcpus: Vec<Vcpu>, mailbox: &Mailbox) -> io::Result<Self> {
        install_kick_handler()?;
        let stop = Arc::new(AtomicBool::new(false));
        let processors = Arc::clone(&machine.processors);
        let running = Self { stop: Arc::clone(&stop), processors };
        for vcpu in vcpus {
            let runner = Runner {
                machine: Arc::clone(machine),
                mailbox: mailbox.try_clone()?,
                stop: Arc::clone(&stop),
            };
            let vp = vcpu.index();
            let thread = thread::Builder::new().name(format!("vcpu{vp}"));
            running.processors.add(vp, thread.spawn(move || runner.run(vcpu))?);
        }
        Ok(running)
    }

    /// Stops the vCPUs and waits for them; returns them in their order.
    pub fn stop(&mut self) -> Vec<Stopped> {
        self.stop.store(true, Ordering::SeqCst);
        self.processors.look_again();
        self.processors.join()
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
    Rest(Rest),
    ReadTaskPriority,
    PortCall(PortCall),
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
        let processors = &self.machine.processors;
        while !self.stop.load(Ordering::SeqCst) {
            match processors.enter(vp) {
                Enter::Now => {}
                Enter::Flush => {
                    if let Err(error) = vcpu.flush_tlb() {
                        self.finish(&mut vcpu, After::Broken(broken(&error)));
                        break;
                    }
                }
                Enter::Wait => {
                    processors.wait(&self.stop);
                    continue;
                }
            }
            let mut interrupted = false;
            let after = vcpu.run(|exit| {
                processors.leave(vp);
                interrupted = matches!(exit, Exit::Interrupted);
                self.handle(vp, exit)
            });
            // Elsewhere it may be in the middle of an instruction.
            if interrupted && let Err(error) = self.machine.partition.engine().inject(&vcpu) {
                self.finish(&mut vcpu, After::Broken(format!("an interrupt: {error}")));
                break;
            }
            self.look_at_identity(&vcpu);
            if let Some(after) = after
                && !self.finish(&mut vcpu, after)
            {
                break;
            }
        }
        // Nobody waits for a processor that does not run any more.
        processors.leave(vp);
        Stopped { registers: vcpu.registers().ok(), counters: vcpu.counters() }
    }

    /// KVM keeps who the guest is to itself, so whoever wants to know looks when the guest stops.
    fn look_at_identity(&self, vcpu: &Vcpu) {
        let partition = &self.machine.partition;
        if let Some(watch) = partition.watch()
            && watch.wants_identity()
            && let Ok([guest_os_id, hypercall]) = partition.engine().identity(vcpu)
        {
            watch.saw_identity(guest_os_id, hypercall);
        }
    }

    fn handle(&self, vp: u32, exit: Exit<'_>) -> Option<After> {
        let Machine { ports, partition, .. } = &*self.machine;
        match exit {
            Exit::PortIn(port, data) => ports.read(port, data),
            Exit::PortOut(port, data) => return ports.write(port, data).map(After::Request),
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
            Exit::MsrRead(read) => return self.read_msr(vp, read),
            Exit::MsrWrite(write) => return self.write_msr(vp, write),
            Exit::PortCall(call) => return Some(After::PortCall(call)),
            Exit::Synic(registers) => {
                trace!("VP {vp}: {registers:x?}");
                partition.synic_written(vp, registers);
            }
            Exit::Hypercall { control, input, output, result } => {
                let registers = hypercall::Registers { control: Control(control), input, output };
                // KVM keeps the calls that have input there to itself.
                *result = partition.hypercall(vp, &registers, XmmHalves::default);
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

    fn read_msr(&self, vp: u32, read: MsrRead<'_>) -> Option<After> {
        let msr = read.msr;
        match self.machine.partition.read_msr(vp, msr) {
            Ok(Value::Is(value)) => read.answer(Ok(value)),
            Ok(Value::TaskPriority) => return Some(After::ReadTaskPriority),
            Err(fault) => {
                limited!(Debug, "VP {vp}: read of MSR {msr:#x}: {fault}");
                read.answer(Err(fault));
            }
        }
        None
    }

    fn write_msr(&self, vp: u32, write: MsrWrite<'_>) -> Option<After> {
        let (msr, value) = (write.msr, write.value);
        trace!("VP {vp}: MSR {msr:#x} becomes {value:#x}");
        match self.machine.partition.write_msr(vp, msr, value) {
            Ok(Rest::Nothing) => None,
            Ok(rest) => Some(After::Rest(rest)),
            Err(fault) => {
                limited!(Debug, "VP {vp}: write of {value:#x} to MSR {msr:#x}: {fault}");
                write.refuse();
                None
            }
        }
    }

    /// Does that; false if the vCPU has run for the last time.
    fn finish(&self, vcpu: &mut Vcpu, after: After) -> bool {
        let vp = vcpu.index();
        let registers = |vcpu: &Vcpu| vcpu.registers().ok();
        let event = match after {
            After::Rest(Rest::LastWords(words)) => {
                self.mailbox.send(Event::Panic { vp, words, registers: registers(vcpu) });
                return true;
            }
            After::Rest(Rest::Reset) | After::Request(Request::Reset) => Event::Reset,
            After::Rest(rest) => {
                self.rest(vcpu, &rest);
                return true;
            }
            After::ReadTaskPriority => {
                if let Err(error) = vcpu.answer_task_priority() {
                    limited!(Warn, "VP {vp}: its task priority cannot be read: {error}");
                }
                return true;
            }
            After::PortCall(call) => match self.call(vcpu, call) {
                Ok(()) => return true,
                Err(error) => Event::Broken { vp, reason: broken(&error) },
            },
            After::Request(Request::Firmware) => match self.firmware(vcpu) {
                Ok(None) => return true,
                Ok(Some(how)) => Event::Crashed { vp, how, registers: registers(vcpu) },
                Err(error) => Event::Broken { vp, reason: broken(&error) },
            },
            After::Request(Request::PowerOff) => Event::PowerOff,
            After::Crashed(how) => Event::Crashed { vp, how, registers: registers(vcpu) },
            After::Broken(reason) => Event::Broken { vp, reason },
        };
        self.mailbox.send(event);
        false
    }

    /// What a write to an MSR wants of its vCPU, which it survives.
    fn rest(&self, vcpu: &Vcpu, rest: &Rest) {
        let done = match *rest {
            Rest::EndOfMessage => self.machine.partition.engine().end_of_message(vcpu),
            Rest::Apic(write) => vcpu.write_apic(write),
            Rest::Nothing | Rest::Reset | Rest::LastWords(_) => Ok(()),
        };
        if let Err(error) = done {
            limited!(Warn, "VP {}: {rest:?} cannot be passed on: {error}", vcpu.index());
        }
    }

    /// A call of the firmware, if there is one. Says why if the guest cannot go on.
    fn firmware(&self, vcpu: &Vcpu) -> Result<Option<&'static str>, KvmError> {
        let Some(firmware) = &self.machine.firmware else {
            return Ok(None);
        };
        let mut call = vcpu.firmware_call()?;
        let end = firmware.serve(&mut call);
        vcpu.answer_firmware_call(&call)?;
        Ok(end)
    }

    /// A hypercall by busway's own page.
    fn call(&self, vcpu: &Vcpu, call: PortCall) -> Result<(), KvmError> {
        let mode = match call {
            PortCall::Signal(connection) => {
                let status = self.machine.partition.signal(vcpu.index(), connection);
                return vcpu.answer(CallAnswer::Signal(signal_answer(connection, status.0)));
            }
            PortCall::Call64 => CallMode::Bits64,
            PortCall::Call32 => CallMode::Bits32,
        };
        let registers = vcpu.call_registers(mode)?;
        let mut failed = None;
        let xmm = || {
            vcpu.xmm().unwrap_or_else(|error| {
                failed = Some(error);
                XmmHalves::default()
            })
        };
        let result = self.machine.partition.hypercall(vcpu.index(), &registers, xmm);
        failed.map_or(Ok(()), Err)?;
        vcpu.answer(CallAnswer::Result(mode, result))
    }
}

/// KVM's words.
fn broken(error: &KvmError) -> String {
    format!("{error}: {}", error.source)
}
