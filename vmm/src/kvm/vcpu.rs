// SPDX-License-Identifier: MIT OR Apache-2.0

//! A processor: its state when it starts, and why it stops running.

use std::fmt;
use std::io;
use std::sync::Arc;

use busway_hyperv::cpuid::Leaf;
use busway_hyperv::hypercall::{self, XmmHalves};
use busway_hyperv::hypercall_page::PortCall;
use busway_hyperv::registers::GeneralProtection;
use busway_hyperv::synic::SynicRegisters;
use busway_wire::hypercall::Control;
use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE, KVM_SYSTEM_EVENT_RESET, Msrs, kvm_enable_cap,
    kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs,
};
use kvm_ioctls::{ReadMsrExit, VcpuExit, VcpuFd, VmFd, WriteMsrExit};
use vmm_sys_util::errno::Error as Errno;

use super::apic::{self, ApicWrite};
use super::cpuid::{self, Place};
use super::ioctl::{self, HypervExit, hyperv_exit};
use super::stats::{self, Counters};
use super::{During, Host, KvmError};
use crate::boot::{Entry, Mode, tables};
use crate::firmware::{self, rom};
use crate::memory::layout;

/// A processor of a [`Vm`](super::Vm).
pub struct Vcpu {
    fd: VcpuFd,
    vm: Arc<VmFd>,
    place: Place,
    /// Writes to the ports of the hypercall page are hypercalls.
    port_calls: bool,
}

/// Why a processor stopped running guest code. What a read needs is written into the reference,
/// and the guest sees it when the processor runs again.
pub enum Exit<'a> {
    /// IN. Each byte is one access to `port`.
    PortIn(u16, &'a mut [u8]),
    /// OUT. Each byte is one access to `port`.
    PortOut(u16, &'a [u8]),
    /// A read where no memory is.
    MmioRead(u64, &'a mut [u8]),
    /// A write where no memory is.
    MmioWrite(u64, &'a [u8]),
    /// RDMSR of one of [`EngineKind::msrs`](crate::engine::EngineKind::msrs).
    MsrRead(MsrRead<'a>),
    /// WRMSR of one of these.
    MsrWrite(MsrWrite<'a>),
    /// A hypercall by busway's own page, which is to be answered
    /// [before the vCPU runs again](Vcpu::answer).
    PortCall(PortCall),
    /// The guest wrote a SynIC register; these are all that count.
    Synic(SynicRegisters),
    /// A hypercall for busway.
    Hypercall {
        /// The control word.
        control: u64,
        /// Guest physical address of the input, or the input if the call is fast.
        input: u64,
        /// Guest physical address of the output, or the input's second half.
        output: u64,
        /// What the guest gets.
        result: &'a mut u64,
    },
    /// The guest asked for a reset through a synthetic MSR.
    Reset,
    /// A triple fault: the processor cannot go on.
    TripleFault,
    /// KVM cannot emulate the instruction, which is none that a sane guest has there.
    Lost,
    /// A signal for this thread, or nothing at all.
    Interrupted,
    /// KVM cannot go on, for the reason given.
    Broken(String),
}

/// A read that waits for its answer.
pub struct MsrRead<'a> {
    /// Which.
    pub msr: u32,
    value: &'a mut u64,
    fault: &'a mut u8,
}

impl MsrRead<'_> {
    /// What the guest finds, or #GP.
    pub fn answer(self, value: Result<u64, GeneralProtection>) {
        match value {
            Ok(value) => *self.value = value,
            Err(GeneralProtection) => *self.fault = 1,
        }
    }
}

/// A write.
pub struct MsrWrite<'a> {
    /// Where.
    pub msr: u32,
    /// What.
    pub value: u64,
    fault: &'a mut u8,
}

impl MsrWrite<'_> {
    /// The guest gets #GP.
    pub fn refuse(self) {
        *self.fault = 1;
    }
}

impl Vcpu {
    pub(super) fn new(
        host: &Host,
        vm: &Arc<VmFd>,
        place: Place,
        hypervisor: &[Leaf],
    ) -> Result<Self, KvmError> {
        let fd = vm.create_vcpu(place.index.into()).during("create a vCPU")?;
        let cpuid = cpuid::for_vcpu(host.supported_cpuid(), place, hypervisor)
            .during("describe a vCPU's CPUID")?;
        fd.set_cpuid2(&cpuid).during("set a vCPU's CPUID")?;
        let vcpu = Self { fd, vm: Arc::clone(vm), place, port_calls: false };
        vcpu.set_msrs(&RESET_MSRS)
            .map_err(|error| Errno::new(error.raw_os_error().unwrap_or(libc::EINVAL)))
            .during("set a vCPU's MSRs")?;
        Ok(vcpu)
    }

    /// The processor's number: its VP index and its APIC id.
    pub fn index(&self) -> u32 {
        self.place.index
    }

    /// From now on, the ports of busway's hypercall page are no ports.
    pub(super) fn take_port_calls(&mut self) {
        self.port_calls = true;
    }

    /// Frequency of its TSC.
    pub(super) fn tsc_khz(&self) -> Result<u32, KvmError> {
        self.fd.get_tsc_khz().during("say how fast a vCPU's TSC is")
    }

    /// What its TSC is ahead of the host's, modulo 2^64.
    pub(super) fn tsc_offset(&self) -> Result<u64, KvmError> {
        ioctl::tsc_offset(&self.fd).during("say how a vCPU's TSC follows from the host's")
    }

    /// Puts the processor at a kernel's entry point.
    ///
    /// Source: Linux `Documentation/x86/boot.rst`, "32-bit Boot Protocol" and "64-bit Boot Protocol";
    /// Xen `docs/misc/pvh.pandoc`.
    pub fn enter(&self, entry: &Entry) -> Result<(), KvmError> {
        let mut sregs = self.fd.get_sregs().during("read a vCPU's registers")?;
        let mut regs = self.fd.get_regs().during("read a vCPU's registers")?;
        (regs.rip, regs.rflags) = (entry.address, RFLAGS_ALWAYS_1);
        match entry.mode {
            Mode::Long => {
                enter_flat_segments(&mut sregs, true);
                sregs.cr3 = tables::PML4;
                sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_PG;
                sregs.cr4 = CR4_PAE;
                sregs.efer = EFER_LME | EFER_LMA;
                regs.rsi = entry.boot_params;
            }
            Mode::Protected => {
                enter_flat_segments(&mut sregs, false);
                sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE;
                regs.rsi = entry.boot_params;
            }
            Mode::Pvh => {
                enter_flat_segments(&mut sregs, false);
                sregs.cr0 = CR0_PE | CR0_ET;
                regs.rbx = entry.boot_params;
            }
            // In the firmware, with the segments as the program behind it wants them.
            Mode::Real => {
                sregs.cs = real_segment(rom::SEGMENT, 0xb);
                let data = real_segment(layout::REAL_MODE_SEGMENT, 0x3);
                (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
                regs.rsp = STACK_END;
            }
        }
        self.fd.set_sregs(&sregs).during("set a vCPU's registers")?;
        self.fd.set_regs(&regs).during("set a vCPU's registers")
    }

    /// What the write to the firmware's port that ended the last run wants.
    pub fn firmware_call(&self) -> Result<firmware::Call, KvmError> {
        let regs = self.fd.get_regs().during("read a vCPU's registers")?;
        let sregs = self.fd.get_sregs().during("read a vCPU's registers")?;
        Ok(firmware::Call {
            eax: regs.rax as u32,
            ebx: regs.rbx as u32,
            ecx: regs.rcx as u32,
            edx: regs.rdx as u32,
            buffer: sregs.es.base.wrapping_add(regs.rdi & 0xffff),
            offset: regs.rip,
            frame: sregs.ss.base.wrapping_add(regs.rsp & 0xffff),
        })
    }

    /// Puts the answers of `call` where its caller looks for them.
    pub fn answer_firmware_call(&self, call: &firmware::Call) -> Result<(), KvmError> {
        let mut regs = self.fd.get_regs().during("read a vCPU's registers")?;
        (regs.rax, regs.rbx) = (call.eax.into(), call.ebx.into());
        (regs.rcx, regs.rdx) = (call.ecx.into(), call.edx.into());
        self.fd.set_regs(&regs).during("set a vCPU's registers")
    }

    /// Runs guest code until it needs something, and hands that to `handle`.
    pub fn run<T>(&mut self, handle: impl FnOnce(Exit<'_>) -> T) -> T {
        let exit = match self.fd.run() {
            Ok(VcpuExit::Hyperv) => return handle(self.hyperv()),
            Ok(VcpuExit::IoOut(port, data)) => match PortCall::parse(port, data) {
                Some(call) if self.port_calls => Exit::PortCall(call),
                _ => Exit::PortOut(port, data),
            },
            Ok(exit) => translate(exit),
            Err(error) => match error.errno() {
                libc::EINTR | libc::EAGAIN => Exit::Interrupted,
                _ => Exit::Broken(format!("KVM_RUN: {error}")),
            },
        };
        handle(exit)
    }

    fn hyperv(&mut self) -> Exit<'_> {
        match hyperv_exit(self.fd.get_kvm_run()) {
            HypervExit::Synic(registers) => Exit::Synic(registers),
            HypervExit::Hypercall { control, input, output, result } => {
                Exit::Hypercall { control, input, output, result }
            }
            HypervExit::Unknown(kind) => Exit::Broken(format!("Hyper-V exit of type {kind}")),
        }
    }

    /// The registers of the call that ended the last run.
    pub fn call_registers(&self, mode: CallMode) -> Result<hypercall::Registers, KvmError> {
        let regs = self.fd.get_regs().during("read a vCPU's registers")?;
        Ok(mode.registers(&regs))
    }

    /// Halves of XMM0 to XMM5.
    pub fn xmm(&self) -> Result<XmmHalves, KvmError> {
        let fpu = self.fd.get_fpu().during("read a vCPU's XMM registers")?;
        let mut halves = XmmHalves::default();
        for (half, bytes) in halves.iter_mut().zip(fpu.xmm.as_flattened().chunks_exact(8)) {
            *half = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        Ok(halves)
    }

    /// Puts the result of a call where its caller looks for it.
    pub fn answer(&self, answer: CallAnswer) -> Result<(), KvmError> {
        let mut regs = self.fd.get_regs().during("read a vCPU's registers")?;
        answer.write(&mut regs);
        self.fd.set_regs(&regs).during("set a vCPU's registers")
    }

    /// The task priority of its APIC, for the guest whose read of an MSR ended the last run.
    pub fn answer_task_priority(&mut self) -> io::Result<()> {
        let priority = apic::task_priority(&self.fd)?;
        if let Some(answer) = ioctl::msr_answer(self.fd.get_kvm_run()) {
            *answer = priority.into();
        }
        Ok(())
    }

    /// Writes to its APIC.
    pub fn write_apic(&self, write: ApicWrite) -> io::Result<()> {
        apic::write(&self.vm, &self.fd, self.place, write)
    }

    /// Has it take interrupt `vector` next, past its APIC; false if it does not take any now. It must
    /// have stopped between two instructions.
    pub(super) fn inject(&self, vector: u8) -> io::Result<bool> {
        const RFLAGS_IF: u64 = 1 << 9;
        let mut events = self.fd.get_vcpu_events()?;
        let taken = [
            events.interrupt.injected,
            events.interrupt.shadow,
            events.exception.injected,
            events.exception.pending,
            events.nmi.injected,
        ];
        if self.fd.get_regs()?.rflags & RFLAGS_IF == 0 || taken != [0; 5] {
            return Ok(false);
        }
        (events.interrupt.injected, events.interrupt.nr) = (1, vector);
        self.fd.set_vcpu_events(&events)?;
        if self.fd.get_mp_state()?.mp_state == KVM_MP_STATE_HALTED {
            self.fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE })?;
        }
        Ok(true)
    }

    /// Makes it forget every translation, as KVM does when paging changes.
    pub fn flush_tlb(&self) -> Result<(), KvmError> {
        const CR4_PGE: u64 = 1 << 7;
        let sregs = self.fd.get_sregs().during("read a vCPU's registers")?;
        let changed = kvm_sregs { cr4: sregs.cr4 ^ CR4_PGE, ..sregs };
        self.fd.set_sregs(&changed).during("set a vCPU's registers")?;
        self.fd.set_sregs(&sregs).during("set a vCPU's registers")
    }

    /// What a report of a crash shows.
    pub fn registers(&self) -> Result<Registers, KvmError> {
        let regs = self.fd.get_regs().during("read a vCPU's registers")?;
        let sregs = self.fd.get_sregs().during("read a vCPU's registers")?;
        Ok(Registers {
            general: [
                regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp,
                regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
            ],
            rip: regs.rip,
            rflags: regs.rflags,
            control: [sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4],
            cs: sregs.cs.selector,
        })
    }

    /// KVM's counters of this vCPU; none on a host before Linux 5.14.
    pub fn counters(&self) -> Counters {
        ioctl::stats_file(&self.fd)
            .map_err(io::Error::from)
            .and_then(|file| stats::read(&file))
            .unwrap_or_default()
    }

    /// Enables a capability of this vCPU.
    pub(super) fn enable(&self, cap: u32, argument: u64) -> Result<(), Errno> {
        let mut enable = kvm_enable_cap { cap, ..Default::default() };
        enable.args[0] = argument;
        self.fd.enable_cap(&enable)
    }

    /// Reads MSRs as the host, past any filter: what KVM itself holds.
    pub(super) fn msrs<const N: usize>(&self, numbers: [u32; N]) -> io::Result<[u64; N]> {
        let entries = numbers.map(|index| kvm_msr_entry { index, ..Default::default() });
        let mut entries =
            Msrs::from_entries(&entries).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
        if self.fd.get_msrs(&mut entries)? != N {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut values = [0; N];
        for (value, entry) in values.iter_mut().zip(entries.as_slice()) {
            *value = entry.data;
        }
        Ok(values)
    }

    /// Writes MSRs as the host, past any filter.
    pub(super) fn set_msrs(&self, msrs: &[(u32, u64)]) -> io::Result<()> {
        let entries: Vec<_> = msrs
            .iter()
            .map(|&(index, data)| kvm_msr_entry { index, data, ..Default::default() })
            .collect();
        let entries =
            Msrs::from_entries(&entries).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
        if self.fd.set_msrs(&entries)? == msrs.len() {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        }
    }
}

/// Which registers a hypercall is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallMode {
    /// RCX, RDX, R8; the result in RAX.
    Bits64,
    /// EDX:EAX, EBX:ECX, EDI:ESI; the result in EDX:EAX.
    Bits32,
}

impl CallMode {
    fn registers(self, regs: &kvm_regs) -> hypercall::Registers {
        let pair = |high, low| high << 32 | low & 0xffff_ffff;
        match self {
            Self::Bits64 => hypercall::Registers {
                control: Control(regs.rcx),
                input: regs.rdx,
                output: regs.r8,
            },
            Self::Bits32 => hypercall::Registers {
                control: Control(pair(regs.rdx, regs.rax)),
                input: pair(regs.rbx, regs.rcx),
                output: pair(regs.rdi, regs.rsi),
            },
        }
    }
}

/// What a call of busway's page returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallAnswer {
    /// EAX alone, as the page wants it of a signal.
    Signal(u32),
    /// A result word.
    Result(CallMode, u64),
}

impl CallAnswer {
    fn write(self, regs: &mut kvm_regs) {
        match self {
            Self::Signal(value) => regs.rax = value.into(),
            Self::Result(CallMode::Bits64, result) => regs.rax = result,
            Self::Result(CallMode::Bits32, result) => {
                regs.rax = result & 0xffff_ffff;
                regs.rdx = result >> 32;
            }
        }
    }
}

const CR0_PE: u64 = 1;
const CR0_MP: u64 = 1 << 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_ALWAYS_1: u64 = 1 << 1;

/// In the segment of a program that starts in real mode.
const STACK_END: u64 = 0xfff0;

/// What firmware would have set. Without an enabled MTRR default, Linux gives PAT up.
const RESET_MSRS: [(u32, u64); 2] = [(IA32_MISC_ENABLE, 1), (MTRR_DEF_TYPE, 1 << 11 | 6)];
const IA32_MISC_ENABLE: u32 = 0x1a0;
const MTRR_DEF_TYPE: u32 = 0x2ff;

/// The descriptor tables and segments that the boot protocols ask for.
fn enter_flat_segments(sregs: &mut kvm_sregs, long: bool) {
    (sregs.gdt.base, sregs.gdt.limit) = (tables::GDT, tables::GDT_LIMIT);
    (sregs.idt.base, sregs.idt.limit) = (0, 0);
    sregs.cs = flat_segment(tables::CODE_SELECTOR, 0xb, long);
    let data = flat_segment(tables::DATA_SELECTOR, 0x3, false);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        limit: 0x67,
        selector: tables::TASK_SELECTOR,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
}

fn flat_segment(selector: u16, kind: u8, long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        s: 1,
        g: 1,
        l: long.into(),
        db: (!long).into(),
        ..Default::default()
    }
}

fn real_segment(selector: u16, kind: u8) -> kvm_segment {
    kvm_segment {
        base: u64::from(selector) << 4,
        limit: 0xffff,
        selector,
        type_: kind,
        present: 1,
        s: 1,
        ..Default::default()
    }
}

fn translate(exit: VcpuExit<'_>) -> Exit<'_> {
    match exit {
        VcpuExit::IoIn(port, data) => Exit::PortIn(port, data),
        VcpuExit::MmioRead(address, data) => Exit::MmioRead(address, data),
        VcpuExit::MmioWrite(address, data) => Exit::MmioWrite(address, data),
        VcpuExit::X86Rdmsr(ReadMsrExit { index, data, error, .. }) => {
            Exit::MsrRead(MsrRead { msr: index, value: data, fault: error })
        }
        VcpuExit::X86Wrmsr(WriteMsrExit { index, data, error, .. }) => {
            Exit::MsrWrite(MsrWrite { msr: index, value: data, fault: error })
        }
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) => Exit::Reset,
        VcpuExit::Shutdown => Exit::TripleFault,
        VcpuExit::InternalError => Exit::Lost,
        VcpuExit::Intr => Exit::Interrupted,
        other => Exit::Broken(format!("{other:?}")),
    }
}

/// A processor's registers, for people.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    general: [u64; 16],
    rip: u64,
    rflags: u64,
    control: [u64; 4],
    cs: u16,
}

impl Registers {
    /// The state after power on. KVM on AMD CPUs leaves a vCPU in it after a triple fault.
    pub fn is_reset(&self) -> bool {
        (self.cs, self.rip) == (0xf000, 0xfff0)
    }
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 16] = [
            "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11",
            "r12", "r13", "r14", "r15",
        ];
        write!(f, "rip {:#018x} cs {:#06x} rflags {:#x}", self.rip, self.cs, self.rflags)?;
        for (index, (name, value)) in NAMES.iter().zip(self.general).enumerate() {
            let separator = if index % 4 == 0 { "\n" } else { "  " };
            write!(f, "{separator}{name:3} {value:#018x}")?;
        }
        let [cr0, cr2, cr3, cr4] = self.control;
        write!(f, "\ncr0 {cr0:#x} cr2 {cr2:#x} cr3 {cr3:#x} cr4 {cr4:#x}")
    }
}
