// SPDX-License-Identifier: MIT OR Apache-2.0

//! Hyper-V without any of KVM's, as an [`Engine`]: `busway_hyperv` behind MSR filters and port I/O.
//!
//! ```text
//!   vCPU threads                                        timers' thread
//!   RDMSR, WRMSR ──▶ registers ──▶ routes, timerfds ──────▶ expired: message or vector
//!   hypercall page ─ out SIGNAL ─(ioeventfd)─▶ a channel's eventfd
//!                  └ out CALL ──▶ Partition
//! ```
//!
//! A signal, an interrupt and a read of the clock by its page stay in the kernel; everything else
//! costs an exit to busway. So guests are not told to flush TLBs, to send IPIs or to end interrupts
//! by Hyper-V's means, which KVM does faster for the APIC that it emulates; if they do, it works.

mod auto_eoi;
mod clock;
mod connections;
mod timers;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use busway_hyperv::cpuid::{Access, Hints, Interface, WANTED};
use busway_hyperv::registers::{
    Delivered, Effect, Expiry, Frequencies, GeneralProtection, Notice, Now, PartitionRegisters,
    Sint, Value, VpRegisters, is_partitions,
};
use busway_hyperv::synic::{Posted, Synic};
use busway_integration::Reading;
use busway_memory::GuestMemory;
use busway_wire::hypercall::Status;
use busway_wire::ic::time_sync;
use busway_wire::synic::{TimerExpired, VMBUS_SINT};
use kvm_ioctls::VmFd;
use rustix::time::{ClockId, clock_gettime};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use super::interrupts::{self, Msi, Routes, sint_gsi};
use super::{During, KvmError, Vcpu, Vm};
use crate::engine::Engine;
use crate::processors::Processors;
use crate::{limited, lock};
use auto_eoi::AutoEoi;
use clock::Clock;
use connections::Connections;
use timers::Timers;

pub use clock::{CLOCKSOURCE, is_by_tsc};

/// Hyper-V by busway, for one [`Vm`].
pub struct UserspaceEngine {
    shared: Arc<Shared>,
    connections: Connections,
    _timers: Timers,
}

/// What vCPUs and the timers' thread use.
struct Shared {
    vm: Arc<VmFd>,
    routes: Arc<Routes>,
    synic: Arc<Synic>,
    interface: Interface,
    clock: Clock,
    auto_eoi: AutoEoi,
    partition: Mutex<PartitionRegisters>,
    vps: Box<[Vp]>,
}

struct Vp {
    state: Mutex<VpState>,
    /// Raises the SINT that carries all of VMBus.
    vmbus_sint: EventFd,
}

struct VpState {
    registers: VpRegisters,
    /// Expires when the earliest of the VP's timers does.
    timer: TimerFd,
}

/// KVM's local APIC timer counts nanoseconds (`APIC_BUS_CYCLE_NS` of `arch/x86/kvm/lapic.h`).
const APIC_FREQUENCY: u64 = 1_000_000_000;

impl UserspaceEngine {
    /// What its guests are offered.
    pub(super) fn offered() -> Interface {
        let mut interface = WANTED;
        interface.hints = Hints::RELAXED_TIMING | Hints::NO_AUTO_EOI;
        interface.spin_retries = busway_hyperv::cpuid::NEVER_SPIN;
        if !is_by_tsc(&clock::source()) {
            interface.access -= Access::REFERENCE_TSC;
        }
        interface
    }

    /// Hyper-V for `vcpus` of `vm`, which have not run and will in the threads of `processors`.
    pub fn new(
        vm: &Vm,
        vcpus: &mut [Vcpu],
        memory: &GuestMemory,
        synic: &Arc<Synic>,
        processors: &Arc<Processors>,
    ) -> Result<Self, KvmError> {
        let interface = Self::offered();
        let khz = vcpus.first().map_or(Ok(0), Vcpu::tsc_khz)?;
        let frequencies = Frequencies { tsc: u64::from(khz) * 1000, apic: APIC_FREQUENCY };
        let clock = Clock::new(interface, vcpus.first(), frequencies.tsc)?;
        let page = clock.page();
        let partition = PartitionRegisters::new(interface, memory.clone(), frequencies, page);
        for vcpu in vcpus.iter_mut() {
            vcpu.take_port_calls();
        }
        let vps = (0..).zip(interrupts::vmbus_sints(vm, vcpus.len())?);
        let vps = vps.map(|(index, vmbus_sint)| {
            let registers = VpRegisters::new(index, interface, memory.clone());
            let timer = TimerFd::new().during("make a timer")?;
            Ok(Vp { state: Mutex::new(VpState { registers, timer }), vmbus_sint })
        });
        let shared = Arc::new(Shared {
            vm: Arc::clone(vm.fd()),
            routes: Arc::clone(vm.routes()),
            synic: Arc::clone(synic),
            interface,
            clock,
            auto_eoi: AutoEoi::new(processors)
                .map_err(|error| errno(&error))
                .during("make a timer")?,
            partition: Mutex::new(partition),
            vps: vps.collect::<Result<_, KvmError>>()?,
        });
        let timers = Timers::start(&shared)
            .map_err(|error| errno(&error))
            .during("have a thread for timers")?;
        Ok(Self { connections: Connections::new(vm.fd()), shared, _timers: timers })
    }
}

impl Shared {
    fn state(&self, vp: u32) -> Result<&Mutex<VpState>, GeneralProtection> {
        self.vps.get(vp as usize).map(|vp| &vp.state).ok_or(GeneralProtection)
    }

    /// The clocks of the VP on whose thread this is.
    fn now(&self) -> Now {
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        let cpu = Duration::try_from(cpu).unwrap_or_default();
        let runtime = u64::try_from(cpu.as_nanos() / 100).unwrap_or(u64::MAX);
        Now { reference: self.clock.now(), runtime }
    }

    /// Delivers what `vp`'s timers have to say, and sets the alarm for the next time.
    fn run_timers(&self, vp: u32, state: &mut VpState) {
        // It is looked at again when time goes on.
        if self.clock.is_frozen() {
            if let Err(error) = state.timer.clear() {
                limited!(Warn, "the timer of VP {vp} cannot be stopped: {error}");
            }
            return;
        }
        let now = self.clock.now();
        let deliver = &mut |expiry| self.expire(vp, expiry, now);
        let next = state.registers.run_timers(now, deliver);
        let set = match next {
            // No alarm at all if it were in no time.
            Some(due) => state.timer.reset(units(due.saturating_sub(now).max(1)), None),
            None => state.timer.clear(),
        };
        if let Err(error) = set {
            limited!(Warn, "the timer of VP {vp} cannot be set: {error}");
        }
    }

    fn expire(&self, vp: u32, expiry: Expiry, now: u64) -> Delivered {
        match expiry.notice {
            Notice::Vector(vector) => self.interrupt(vp, vector),
            Notice::Message(sint) => {
                let message = TimerExpired {
                    timer: expiry.timer.into(),
                    reserved: 0,
                    expiration: expiry.due,
                    delivery: now,
                };
                match self.synic.post_timer(vp, sint, &message) {
                    Posted::Delivered => self.raise(vp, sint),
                    Posted::Busy | Posted::NoPage => return Delivered::Later,
                }
            }
        }
        Delivered::Yes
    }

    fn interrupt(&self, vp: u32, vector: u8) {
        interrupts::send(&self.vm, Msi::fixed(vp, vector));
    }

    /// Makes the line of a SINT what the guest wants it to be.
    fn route(&self, vp: u32, index: u8, sint: Sint) {
        let (ends_itself, vector) = (sint.is_auto_eoi(), sint.vector());
        self.auto_eoi.set(vp, index, vector.filter(|_| ends_itself));
        let msi = vector.filter(|_| !ends_itself).map(|vector| Msi::fixed(vp, vector));
        if let Err(error) = self.routes.set(sint_gsi(vp, index), msi) {
            limited!(Warn, "SINT{index} of VP {vp} cannot be routed: {error}");
        }
    }

    fn raise(&self, vp: u32, sint: u8) {
        let Some(processor) = self.vps.get(vp as usize) else {
            return;
        };
        if self.auto_eoi.raise(vp, sint) {
            return;
        }
        let raised = if sint == VMBUS_SINT {
            processor.vmbus_sint.write(1)
        } else {
            self.vm.set_irq_line(sint_gsi(vp, sint), true).map_err(io::Error::from)
        };
        if let Err(error) = raised {
            limited!(Warn, "SINT{sint} of VP {vp} could not be raised: {error}");
        }
    }
}

fn errno(error: &io::Error) -> vmm_sys_util::errno::Error {
    vmm_sys_util::errno::Error::new(error.raw_os_error().unwrap_or(0))
}

/// A time in reference units.
fn units(count: u64) -> Duration {
    Duration::from_nanos(count.saturating_mul(100))
}

impl Engine for UserspaceEngine {
    fn interface(&self) -> Interface {
        self.shared.interface
    }

    fn read_msr(&self, vp: u32, msr: u32) -> Result<Value, GeneralProtection> {
        let now = self.shared.now();
        if is_partitions(msr) {
            return lock(&self.shared.partition).read(msr, now.reference).map(Value::Is);
        }
        lock(self.shared.state(vp)?).registers.read(msr, now)
    }

    fn write_msr(&self, vp: u32, msr: u32, value: u64) -> Result<Effect, GeneralProtection> {
        let shared = &*self.shared;
        if is_partitions(msr) {
            return lock(&shared.partition).write(msr, value);
        }
        let mut state = lock(shared.state(vp)?);
        match state.registers.write(msr, value, shared.now())? {
            Effect::Timers => shared.run_timers(vp, &mut state),
            Effect::Sint(index, sint) => {
                shared.route(vp, index, sint);
                shared.run_timers(vp, &mut state);
            }
            effect => return Ok(effect),
        }
        Ok(Effect::None)
    }

    fn end_of_message(&self, vcpu: &Vcpu) -> io::Result<()> {
        if let Ok(state) = self.shared.state(vcpu.index()) {
            let mut state = lock(state);
            if state.registers.timer_waits() {
                self.shared.run_timers(vcpu.index(), &mut state);
            }
        }
        Ok(())
    }

    fn raise(&self, vp: u32, sint: u8) {
        self.shared.raise(vp, sint);
    }

    fn inject(&self, vcpu: &Vcpu) -> io::Result<()> {
        self.shared.auto_eoi.inject(vcpu)
    }

    fn interrupt(&self, vp: u32, vector: u8) {
        self.shared.interrupt(vp, vector);
    }

    fn connect(&self, connection: u32, event: &EventFd) -> io::Result<()> {
        self.connections.connect(connection, event)
    }

    fn disconnect(&self, connection: u32) -> io::Result<()> {
        self.connections.disconnect(connection)
    }

    fn signal(&self, connection: u32) -> Status {
        self.connections.signal(connection)
    }

    fn time(&self) -> io::Result<Reading> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let host = u64::try_from(since_1970.as_nanos() / 100).unwrap_or(u64::MAX);
        let host = host.saturating_add(time_sync::UNIX_EPOCH);
        Ok(Reading { host, reference: self.shared.clock.now() })
    }

    fn freeze(&self) -> io::Result<()> {
        self.shared.clock.freeze();
        Ok(())
    }

    fn thaw(&self) -> io::Result<()> {
        let Shared { clock, partition, vps, .. } = &*self.shared;
        clock.thaw();
        lock(partition).set_clock(clock.page());
        for (vp, processor) in (0..).zip(vps) {
            self.shared.run_timers(vp, &mut lock(&processor.state));
        }
        Ok(())
    }
}
