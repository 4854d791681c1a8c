// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a guest asks of its hypervisor, and who answers.
//!
//! The vCPU loop hands over what an [engine](crate::engine) did not answer by itself: writes to
//! SynIC registers, EOM, hypercalls, crash MSRs. The guest chose every number in them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use busway_hyperv::crash::{CrashReport, printable};
use busway_hyperv::hypercall::{self, Call, Registers, XmmHalves};
use busway_hyperv::msr;
use busway_hyperv::registers::{Effect, GeneralProtection, Value};
use busway_hyperv::synic::{Synic, SynicRegisters};
use busway_memory::{Bytes, GuestAddress, GuestMemory, PAGE_SIZE};
use busway_wire::hypercall::{
    CallCode, Control, GpaRange, PostMessage, Status, extended_capabilities,
};
use busway_wire::synic::SINT_COUNT;

use crate::capture::Capture;
use crate::engine::Engine;
use crate::kvm::ApicWrite;
use crate::limited;
use crate::processors::Processors;
use crate::smoke::judge::Sight;
use crate::smoke::watch::Watch;

/// The host side of VMBus, as a partition sees it. Called on vCPU threads.
pub trait Bus: Send + Sync {
    /// HvPostMessage by `vp`. The payload's length is in its bounds.
    fn post_message(&self, vp: u32, message: &PostMessage) -> Status;

    /// A message that waits for `vp` may find a free slot: its pages changed, or the guest wrote
    /// EOM.
    fn slot_freed(&self, vp: u32);
}

/// A guest's hypervisor, but for what its engine does alone.
pub struct Partition {
    memory: GuestMemory,
    engine: Arc<dyn Engine>,
    synic: Arc<Synic>,
    bus: Arc<dyn Bus>,
    processors: Arc<Processors>,
    reports: AtomicU32,
    watch: Option<Arc<Watch>>,
    capture: Option<Arc<Capture>>,
}

/// What is left to do after a write to an MSR, on the vCPU that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// [Let the engine's own messages go on](Engine::end_of_message).
    EndOfMessage,
    /// Start over.
    Reset,
    /// The guest dies.
    LastWords(LastWords),
    /// Write to the vCPU's APIC.
    Apic(ApicWrite),
}

/// How many crash reports of one guest are passed on. Linux makes two at most, but a guest can
/// make any number, and each is kept until it is shown.
const MAX_REPORTS: u32 = 8;

/// A guest's last words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastWords {
    /// The five crash parameters.
    pub words: [u64; 5],
    /// What the guest had to say, fit for a terminal.
    pub text: Option<String>,
}

impl fmt::Display for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => write!(f, "its log ends in:\n{text}"),
            None => {
                let [p0, p1, p2, p3, p4] = self.words;
                write!(f, "P0 {p0:#x} P1 {p1:#x} P2 {p2:#x} P3 {p3:#x} P4 {p4:#x}")
            }
        }
    }
}

impl Partition {
    /// A partition whose pages are `synic`'s and whose messages go to `bus`.
    pub fn new(
        memory: GuestMemory,
        engine: Arc<dyn Engine>,
        synic: Arc<Synic>,
        bus: Arc<dyn Bus>,
        processors: Arc<Processors>,
    ) -> Self {
        let reports = AtomicU32::new(0);
        Self { memory, engine, synic, bus, processors, reports, watch: None, capture: None }
    }

    /// The same, with somebody who watches its guest.
    #[must_use]
    pub fn watched(mut self, watch: Option<Arc<Watch>>) -> Self {
        self.watch = watch;
        self
    }

    /// The same, with all that is asked of it recorded.
    #[must_use]
    pub fn captured(mut self, capture: Option<Arc<Capture>>) -> Self {
        self.capture = capture;
        self
    }

    /// Who watches its guest.
    pub fn watch(&self) -> Option<&Watch> {
        self.watch.as_deref()
    }

    /// The engine behind this partition.
    pub fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// The guest wrote one of `vp`'s SynIC registers.
    pub fn synic_written(&self, vp: u32, registers: SynicRegisters) {
        if let Some(capture) = &self.capture {
            capture.synic(vp, registers);
        }
        let held = self.synic.configure(vp, registers);
        for sint in (0..SINT_COUNT as u8).filter(|sint| held & 1 << sint != 0) {
            self.engine.raise(vp, sint);
        }
        self.bus.slot_freed(vp);
        if let Some(watch) = &self.watch
            && registers.control & msr::ENABLE != 0
        {
            watch.saw(&Sight::Synic);
        }
    }

    /// RDMSR on `vp`.
    pub fn read_msr(&self, vp: u32, msr: u32) -> Result<Value, GeneralProtection> {
        let value = self.engine.read_msr(vp, msr);
        if let Some(capture) = &self.capture {
            match value {
                Ok(Value::Is(value)) => capture.msr_read(vp, msr, Some(value)),
                // The APIC's, which the vCPU looks up.
                Ok(Value::TaskPriority) => {}
                Err(_) => capture.msr_read(vp, msr, None),
            }
        }
        value
    }

    /// WRMSR on `vp`.
    pub fn write_msr(&self, vp: u32, msr: u32, value: u64) -> Result<Rest, GeneralProtection> {
        let effect = self.engine.write_msr(vp, msr, value);
        if let Some(capture) = &self.capture {
            capture.msr_written(vp, msr, value, effect.is_ok());
        }
        Ok(match effect? {
            Effect::None | Effect::Timers | Effect::Sint(..) => Rest::Nothing,
            Effect::Pages(registers) => {
                self.synic_written(vp, registers);
                Rest::EndOfMessage
            }
            Effect::EndOfMessage => {
                self.bus.slot_freed(vp);
                Rest::EndOfMessage
            }
            Effect::Reset => Rest::Reset,
            Effect::Crash(report) => self.crashed(&report).map_or(Rest::Nothing, Rest::LastWords),
            Effect::EndOfInterrupt => Rest::Apic(ApicWrite::EndOfInterrupt),
            Effect::InterruptCommand(command) => Rest::Apic(ApicWrite::InterruptCommand(command)),
            Effect::TaskPriority(priority) => Rest::Apic(ApicWrite::TaskPriority(priority)),
        })
    }

    /// The guest said that it dies; its last words, if it has not had too many.
    fn crashed(&self, report: &CrashReport) -> Option<LastWords> {
        if self.reports.fetch_add(1, Ordering::Relaxed) >= MAX_REPORTS {
            return None;
        }
        Some(LastWords { words: report.words, text: self.text(report) })
    }

    /// The text of a report, as much of it as lies in RAM.
    fn text(&self, report: &CrashReport) -> Option<String> {
        let text = report.text?;
        let mut bytes = vec![0; text.len];
        match self.memory.read(&mut bytes, GuestAddress(text.address)) {
            Ok(len) => Some(printable(bytes.get(..len)?)),
            Err(_) => None,
        }
    }

    /// A hypercall of `vp` that was not answered in the kernel; returns the guest's result word.
    ///
    /// Source: TLFS, "Hypercall Interface".
    pub fn hypercall(
        &self,
        vp: u32,
        registers: &Registers,
        xmm: impl FnOnce() -> XmmHalves,
    ) -> u64 {
        let decoded = hypercall::decode(registers, &self.engine.interface(), &self.memory, xmm);
        let status = match decoded {
            Ok(call) => self.execute(vp, call),
            Err(status) => status,
        };
        let control = registers.control;
        if status != Status::SUCCESS {
            limited!(Debug, "VP {vp}: hypercall {control} gets {status}");
        }
        let result = control.result(status);
        if let Some(capture) = &self.capture {
            let Registers { control: Control(control), input, output } = *registers;
            capture.hypercall(vp, control, input, output, result);
        }
        result
    }

    fn execute(&self, vp: u32, call: Call) -> Status {
        match call {
            Call::PostMessage(message) => return self.bus.post_message(vp, &message.0),
            Call::SignalEvent { connection } => return self.engine.signal(connection),
            Call::FlushTlb(vps) => self.processors.flush(vps.iter(self.processors.count())),
            Call::SendIpi(vector, vps) => {
                for target in vps.iter(self.processors.count()) {
                    self.engine.interrupt(target, vector);
                }
            }
            Call::LongSpinWait => std::thread::yield_now(),
            Call::QueryCapabilities { output } => {
                let written = self
                    .memory
                    .write_obj(extended_capabilities::MEMORY_COLD_DISCARD, GuestAddress(output));
                if written.is_err() {
                    return Status::INVALID_ALIGNMENT;
                }
            }
            Call::Discard(ranges) => return self.discard(&ranges),
        }
        Status::SUCCESS
    }

    /// Gives the host the memory of pages that the guest has free. It may use them again at any time, and
    /// finds zeroes then.
    fn discard(&self, ranges: &[GpaRange]) -> Status {
        let places: Option<Vec<_>> = ranges
            .iter()
            .map(|range| {
                let (first, count) = range.pages();
                Some((self.memory.pages_offset(first, count)?, count * PAGE_SIZE as u64))
            })
            .collect();
        let Some(places) = places else {
            return Status::INVALID_PARAMETER;
        };
        for (offset, len) in places {
            if let Err(error) = self.memory.discard(offset, len) {
                limited!(Warn, "the host keeps {len} B that the guest has free: {error}");
                return Status::INSUFFICIENT_MEMORY;
            }
        }
        Status::SUCCESS
    }

    /// A fast HvSignalEvent of `vp`, of which the kernel knew nothing.
    pub fn signal(&self, vp: u32, connection: u32) -> Status {
        let status = self.engine.signal(connection);
        if let Some(capture) = &self.capture {
            let control = Control::fast(CallCode::SIGNAL_EVENT);
            let input = connection.into();
            capture.hypercall(vp, control.0, input, 0, control.result(status));
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use busway_hyperv::cpuid::{Interface, WANTED};
    use busway_hyperv::crash::CrashRegisters;
    use busway_integration::Reading;
    use busway_memory::Region;
    use vmm_sys_util::eventfd::EventFd;

    use super::*;
    use crate::kvm::Vcpu;
    use crate::lock;
    use crate::processors::Enter;

    /// Remembers what was asked of it.
    #[derive(Default)]
    struct Recorder {
        posted: Mutex<Vec<(u32, u32, u32)>>,
        freed: Mutex<Vec<u32>>,
        raised: Mutex<Vec<(u32, u8)>>,
        interrupts: Mutex<Vec<(u32, u8)>>,
        crash: Mutex<CrashRegisters>,
    }

    impl Bus for Recorder {
        fn post_message(&self, vp: u32, message: &PostMessage) -> Status {
            lock(&self.posted).push((vp, message.connection_id, message.payload_len));
            Status::SUCCESS
        }

        fn slot_freed(&self, vp: u32) {
            lock(&self.freed).push(vp);
        }
    }

    impl Engine for Recorder {
        fn interface(&self) -> Interface {
            WANTED
        }

        fn read_msr(&self, _vp: u32, _msr: u32) -> Result<Value, GeneralProtection> {
            Err(GeneralProtection)
        }

        fn write_msr(&self, _vp: u32, msr: u32, value: u64) -> Result<Effect, GeneralProtection> {
            match msr {
                msr::EOM => Ok(Effect::EndOfMessage),
                msr::SCONTROL => Ok(Effect::Pages(SynicRegisters {
                    control: value,
                    message_page: 0x3001,
                    event_page: 0x4001,
                })),
                msr::EOI => Ok(Effect::EndOfInterrupt),
                _ => Ok(lock(&self.crash).write(msr, value).map_or(Effect::None, Effect::Crash)),
            }
        }

        fn end_of_message(&self, _vcpu: &Vcpu) -> io::Result<()> {
            Ok(())
        }

        fn raise(&self, vp: u32, sint: u8) {
            lock(&self.raised).push((vp, sint));
        }

        fn interrupt(&self, vp: u32, vector: u8) {
            lock(&self.interrupts).push((vp, vector));
        }

        fn connect(&self, _connection: u32, _event: &EventFd) -> io::Result<()> {
            Ok(())
        }

        fn disconnect(&self, _connection: u32) -> io::Result<()> {
            Ok(())
        }

        fn signal(&self, connection: u32) -> Status {
            if connection == 7 { Status::SUCCESS } else { Status::INVALID_CONNECTION_ID }
        }

        fn time(&self) -> io::Result<Reading> {
            Ok(Reading { host: 0, reference: 0 })
        }

        fn freeze(&self) -> io::Result<()> {
            Ok(())
        }

        fn thaw(&self) -> io::Result<()> {
            Ok(())
        }
    }

    const RAM: usize = 1 << 20;

    fn partition() -> (Partition, Arc<Recorder>) {
        let region = Region { start: GuestAddress(0), len: RAM };
        let memory = GuestMemory::allocate(&[region]).unwrap();
        let recorder = Arc::new(Recorder::default());
        let synic = Arc::new(Synic::new(memory.clone(), 2));
        let engine = Arc::clone(&recorder) as Arc<dyn Engine>;
        let bus = Arc::clone(&recorder) as Arc<dyn Bus>;
        let processors = Arc::new(Processors::new(2));
        (Partition::new(memory, engine, synic, bus, processors), recorder)
    }

    const POST_MESSAGE: u64 = 0x5c;
    const FAST: u64 = 1 << 16;

    fn call(partition: &Partition, vp: u32, control: u64, input: u64, output: u64) -> u64 {
        let registers = Registers { control: Control(control), input, output };
        partition.hypercall(vp, &registers, || [0; 12])
    }

    fn write_message(partition: &Partition, address: u64, payload_len: u32) {
        for (index, value) in (0..).zip([4, 0, 1, payload_len]) {
            partition.memory.write_obj::<u32>(value, GuestAddress(address + index * 4)).unwrap();
        }
    }

    #[test]
    fn a_message_reaches_the_bus() {
        let (partition, recorder) = partition();
        write_message(&partition, 0x2000, 240);
        assert_eq!(call(&partition, 1, POST_MESSAGE, 0x2000, 0), 0);
        write_message(&partition, 0x2000, 241);
        assert_eq!(call(&partition, 1, POST_MESSAGE, 0x2000, 0), 5, "payload too long");
        assert_eq!(*lock(&recorder.posted), [(1, 4, 240)]);
    }

    #[test]
    fn a_signal_is_the_engines() {
        let (partition, _) = partition();
        assert_eq!(call(&partition, 0, 0x5d | FAST, 7, 0), 0);
        assert_eq!(call(&partition, 0, 0x5d | FAST, 77, 0), 0x12, "not connected");
        assert_eq!(partition.signal(0, 7), Status::SUCCESS);
        assert_eq!(call(&partition, 0, 0x8002, 0, 0), 2, "no such call");
    }

    /// Large pages in RAM of 1 MiB there are none; of small ones, two in the middle.
    #[test]
    fn what_a_guest_has_free_leaves_the_host() {
        let (partition, _) = partition();
        assert_eq!(call(&partition, 0, 0x8001, 0, 0x7000), 0);
        assert_eq!(partition.memory.read_obj::<u64>(GuestAddress(0x7000)).unwrap(), 1 << 8);
        assert_eq!(call(&partition, 0, 0x8001, 0, RAM as u64), 4, "no RAM");

        partition.memory.write_slice(&[7; 0x4000], GuestAddress(0x1_0000)).unwrap();
        let write = |words: [u64; 3]| {
            for (index, word) in (0..).zip(words) {
                partition.memory.write_obj(word, GuestAddress(0x2000 + index * 8)).unwrap();
            }
        };
        let byte = |page: u64| {
            let at = GuestAddress(0x1_0000 + page * 0x1000);
            partition.memory.read_obj::<u8>(at).unwrap()
        };
        write([2, 0x1_1001, 1 << 11]);
        assert_eq!(call(&partition, 0, 0x8003 | 2 << 32, 0x2000, 0), 5, "2 MiB are not there");
        assert_eq!([byte(0), byte(1), byte(2), byte(3)], [7; 4], "all or nothing");
        assert_eq!(call(&partition, 0, 0x8003 | 1 << 32, 0x2000, 0), 1 << 32);
        assert_eq!([byte(0), byte(1), byte(2), byte(3)], [7, 0, 0, 7]);
    }

    #[test]
    fn interrupts_go_to_vps_that_exist() {
        let (partition, recorder) = partition();
        assert_eq!(call(&partition, 0, 0xb | FAST, 0xf3, 0b110), 0);
        assert_eq!(*lock(&recorder.interrupts), [(1, 0xf3)]);
    }

    /// The result of a rep call says that all of it is done.
    #[test]
    fn a_flush_leaves_a_mark_on_each_vp() {
        let (partition, _) = partition();
        partition.memory.write_slice(&[0; 32], GuestAddress(0x2000)).unwrap();
        partition.memory.write_obj(0b10_u64, GuestAddress(0x2010)).unwrap();
        assert_eq!(call(&partition, 0, 3 | 1 << 32, 0x2000, 0), 1 << 32);
        assert_eq!(partition.processors.enter(0), Enter::Now);
        assert_eq!(partition.processors.enter(1), Enter::Flush);
    }

    #[test]
    fn flags_that_waited_for_a_page_raise_their_sint() {
        let (partition, recorder) = partition();
        partition.synic.set_flag(1, 2, 9);
        assert_eq!(partition.write_msr(1, 0x4000_0080, 1), Ok(Rest::EndOfMessage));
        assert_eq!(*lock(&recorder.raised), [(1, 2)]);
        assert_eq!(*lock(&recorder.freed), [1]);
        assert_eq!(partition.write_msr(0, 0x4000_0084, 0), Ok(Rest::EndOfMessage));
        assert_eq!(*lock(&recorder.freed), [1, 0]);
        let eoi = Rest::Apic(ApicWrite::EndOfInterrupt);
        assert_eq!(partition.write_msr(0, 0x4000_0070, 0), Ok(eoi));
    }

    #[test]
    fn last_words_are_read_from_ram_only() {
        let (partition, _) = partition();
        partition.memory.write_slice(b"<0>Oops\n", GuestAddress(0x5000)).unwrap();
        let crash = |address: u64, len: u64| {
            partition.write_msr(0, 0x4000_0103, address).unwrap();
            partition.write_msr(0, 0x4000_0104, len).unwrap();
            match partition.write_msr(0, 0x4000_0105, 3 << 62) {
                Ok(Rest::LastWords(words)) => words,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(crash(0x5000, 8).text.unwrap(), "<0>Oops\n");
        assert_eq!(crash(0x5000, 8).words, [0, 0, 0, 0x5000, 8]);
        assert_eq!(crash(RAM as u64, 8).text, None);
        assert_eq!(crash(u64::MAX, 4096).text, None);
        assert_eq!(crash(RAM as u64 - 4, 4096).text.unwrap(), "", "the part that is RAM");
    }

    #[test]
    fn a_guest_that_never_stops_dying_is_heard_a_few_times() {
        let (partition, _) = partition();
        let report = |_: &i32| partition.write_msr(0, 0x4000_0105, 1 << 63) != Ok(Rest::Nothing);
        assert_eq!((0..1000).filter(report).count(), MAX_REPORTS as usize);
    }
}
