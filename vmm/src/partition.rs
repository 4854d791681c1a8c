// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a guest asks of its hypervisor, and who answers.
//!
//! The vCPU loop hands over what an [engine](crate::engine) did not answer by itself: writes to
//! SynIC registers, EOM, hypercalls, crash MSRs. The guest chose every number in them.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use busway_hyperv::crash::{CrashRegisters, CrashReport, printable};
use busway_hyperv::synic::{Synic, SynicRegisters};
use busway_memory::{Bytes, GuestAddress, GuestMemory, PAGE_SIZE};
use busway_wire::hypercall::{CallCode, Control, PostMessage, Status};
use busway_wire::synic::{MESSAGE_PAYLOAD_LEN, SINT_COUNT};
use zerocopy::{FromZeros, IntoBytes};

use crate::engine::Engine;
use crate::limited;
use crate::lock;

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
    crash: Mutex<CrashRegisters>,
    reports: AtomicU32,
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
    ) -> Self {
        Self { memory, engine, synic, bus, crash: Mutex::default(), reports: AtomicU32::new(0) }
    }

    /// The engine behind this partition.
    pub fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// The guest wrote one of `vp`'s SynIC registers.
    pub fn synic_written(&self, vp: u32, registers: SynicRegisters) {
        let held = self.synic.configure(vp, registers);
        for sint in (0..SINT_COUNT as u8).filter(|sint| held & 1 << sint != 0) {
            self.engine.raise(vp, sint);
        }
        self.bus.slot_freed(vp);
    }

    /// The guest wrote EOM on `vp`.
    pub fn end_of_message(&self, vp: u32) {
        self.bus.slot_freed(vp);
    }

    /// A crash MSR, or 0 for what is none.
    pub fn read_crash_msr(&self, msr: u32) -> u64 {
        lock(&self.crash).read(msr).unwrap_or(0)
    }

    /// The guest wrote a crash MSR; its last words if that was all.
    pub fn write_crash_msr(&self, msr: u32, value: u64) -> Option<LastWords> {
        let report = lock(&self.crash).write(msr, value)?;
        if self.reports.fetch_add(1, Ordering::Relaxed) >= MAX_REPORTS {
            return None;
        }
        Some(LastWords { words: report.words, text: self.text(&report) })
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

    /// A hypercall that the engine leaves to us; returns the guest's result word.
    ///
    /// Source: TLFS, "Hypercall Interface" and "Inter-Partition Communication".
    pub fn hypercall(&self, vp: u32, control: u64, input: u64) -> u64 {
        let control = Control(control);
        let status = match control.code() {
            CallCode::POST_MESSAGE => self.post_message(vp, control, input),
            // The engine signals what is connected; what comes here is not.
            CallCode::SIGNAL_EVENT => Status::INVALID_CONNECTION_ID,
            _ => Status::INVALID_HYPERCALL_CODE,
        };
        if status != Status::SUCCESS {
            limited!(Debug, "VP {vp}: hypercall {control} gets {status}");
        }
        status.0.into()
    }

    fn post_message(&self, vp: u32, control: Control, input: u64) -> Status {
        if control.is_fast() || control.rep_count() != 0 || control.variable_header_units() != 0 {
            return Status::INVALID_HYPERCALL_INPUT;
        }
        // Copied once: the guest may write to its page meanwhile.
        let mut message = PostMessage::new_zeroed();
        let status = self.copy_input(input, message.as_mut_bytes());
        if status != Status::SUCCESS {
            return status;
        }
        if message.payload_len as usize > MESSAGE_PAYLOAD_LEN {
            return Status::INVALID_PARAMETER;
        }
        self.bus.post_message(vp, &message)
    }

    /// Copies a hypercall's input, which has to be aligned to 8 bytes, in one page, and in RAM.
    fn copy_input(&self, address: u64, input: &mut [u8]) -> Status {
        let offset = address % PAGE_SIZE as u64;
        if !address.is_multiple_of(8) || offset + input.len() as u64 > PAGE_SIZE as u64 {
            return Status::INVALID_ALIGNMENT;
        }
        match self.memory.read_slice(input, GuestAddress(address)) {
            Ok(()) => Status::SUCCESS,
            Err(_) => Status::INVALID_PARAMETER,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use busway_hyperv::cpuid::Leaf;
    use busway_integration::Reading;
    use busway_memory::Region;
    use vmm_sys_util::eventfd::EventFd;

    use super::*;
    use crate::kvm::Vcpu;

    /// Remembers what was asked of it.
    #[derive(Default)]
    struct Recorder {
        posted: Mutex<Vec<(u32, u32, u32)>>,
        freed: Mutex<Vec<u32>>,
        raised: Mutex<Vec<(u32, u8)>>,
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
        fn cpuid(&self) -> Vec<Leaf> {
            Vec::new()
        }

        fn prepare(&self, _vcpu: &Vcpu) -> io::Result<()> {
            Ok(())
        }

        fn raise(&self, vp: u32, sint: u8) {
            lock(&self.raised).push((vp, sint));
        }

        fn connect(&self, _connection: u32, _event: &EventFd) -> io::Result<()> {
            Ok(())
        }

        fn disconnect(&self, _connection: u32) -> io::Result<()> {
            Ok(())
        }

        fn end_of_message(&self, _vcpu: &Vcpu) -> io::Result<()> {
            Ok(())
        }

        fn time(&self) -> io::Result<Reading> {
            Ok(Reading { host: 0, reference: 0 })
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
        (Partition::new(memory, engine, synic, bus), recorder)
    }

    const POST_MESSAGE: u64 = 0x5c;
    const FAST: u64 = 1 << 16;

    fn write_message(partition: &Partition, address: u64, payload_len: u32) {
        for (index, value) in (0..).zip([4, 0, 1, payload_len]) {
            partition.memory.write_obj::<u32>(value, GuestAddress(address + index * 4)).unwrap();
        }
    }

    #[test]
    fn a_message_reaches_the_bus() {
        let (partition, recorder) = partition();
        write_message(&partition, 0x2000, 240);
        assert_eq!(partition.hypercall(1, POST_MESSAGE, 0x2000), 0);
        // The last place in a page where the input fits.
        write_message(&partition, 0x2f00, 8);
        assert_eq!(partition.hypercall(0, POST_MESSAGE, 0x2f00), 0);
        assert_eq!(*lock(&recorder.posted), [(1, 4, 240), (0, 4, 8)]);
    }

    #[test]
    fn bad_input_gets_the_status_of_the_tlfs_and_no_further() {
        let (partition, recorder) = partition();
        write_message(&partition, 0x2000, 241);
        assert_eq!(partition.hypercall(0, POST_MESSAGE, 0x2000), 5, "payload too long");
        assert_eq!(partition.hypercall(0, POST_MESSAGE, 0x2004), 4, "not aligned");
        assert_eq!(partition.hypercall(0, POST_MESSAGE, 0x2f08), 4, "crosses a page");
        assert_eq!(partition.hypercall(0, POST_MESSAGE, RAM as u64), 5, "no RAM");
        assert_eq!(partition.hypercall(0, POST_MESSAGE, !0xfff), 5, "no RAM");
        assert_eq!(partition.hypercall(0, POST_MESSAGE | FAST, 0x2000), 3, "never fast");
        assert_eq!(partition.hypercall(0, POST_MESSAGE | 1 << 32, 0x2000), 3, "no rep call");
        assert_eq!(partition.hypercall(0, 0x5d | FAST, 77), 0x12, "not connected");
        assert_eq!(partition.hypercall(0, 0x8001, 0), 2, "no such call");
        assert!(lock(&recorder.posted).is_empty());
    }

    #[test]
    fn flags_that_waited_for_a_page_raise_their_sint() {
        let (partition, recorder) = partition();
        partition.synic.set_flag(1, 2, 9);
        let registers = SynicRegisters { control: 1, message_page: 0x3001, event_page: 0x4001 };
        partition.synic_written(1, registers);
        assert_eq!(*lock(&recorder.raised), [(1, 2)]);
        assert_eq!(*lock(&recorder.freed), [1]);
        partition.end_of_message(0);
        assert_eq!(*lock(&recorder.freed), [1, 0]);
    }

    #[test]
    fn last_words_are_read_from_ram_only() {
        let (partition, _) = partition();
        partition.memory.write_slice(b"<0>Oops\n", GuestAddress(0x5000)).unwrap();
        let crash = |address: u64, len: u64| {
            partition.write_crash_msr(0x4000_0103, address);
            partition.write_crash_msr(0x4000_0104, len);
            partition.write_crash_msr(0x4000_0105, 3 << 62).unwrap()
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
        let heard = (0..1000).filter_map(|_| partition.write_crash_msr(0x4000_0105, 1 << 63));
        assert_eq!(heard.count(), MAX_REPORTS as usize);
    }
}
