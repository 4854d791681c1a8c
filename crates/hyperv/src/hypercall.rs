// SPDX-License-Identifier: MIT OR Apache-2.0

//! Hypercalls, from a guest's registers and memory to what is asked, or to the status that says why
//! not.
//!
//! A call has a fixed input, perhaps a variable header behind it, and perhaps a list of elements
//! behind that (a *rep* call). All of it is in one page of guest memory, or, if the call is *fast*,
//! in registers: two general ones, and for some calls XMM0 to XMM5. It is copied once, and then
//! checked.
//!
//! Source: TLFS, "Hypercall Interface" (classes, inputs, status codes), "Virtual Processors",
//! "Virtual MMU", "Inter-Partition Communication".

use busway_memory::{GuestMemory, PAGE_SIZE};
use busway_wire::hypercall::{
    CallCode, Control, FlushAddressSpace, FlushAddressSpaceEx, GpaRange, MemoryHint, PostMessage,
    SendIpi, SendIpiEx, SignalEvent, Status, VpSetHeader, flush_flags,
};
use busway_wire::synic::MESSAGE_PAYLOAD_LEN;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromBytes, IntoBytes};

use crate::cpuid::{Features, Interface, Privileges};
use crate::vp_set::VpSet;

/// Halves of XMM0 to XMM5, the lower one first.
pub type XmmHalves = [u64; 12];

/// A call as the guest makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// RCX, or EDX:EAX.
    pub control: Control,
    /// RDX, or EBX:ECX: the input's address, or its first half.
    pub input: u64,
    /// R8, or EDI:ESI: the output's address, or the input's second half.
    pub output: u64,
}

/// What a guest asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// HvPostMessage. The payload's length is in its bounds.
    PostMessage(Box<Message>),
    /// HvSignalEvent.
    SignalEvent {
        /// The connection.
        connection: u32,
    },
    /// Forget translations on these VPs. Which ones is left out: all of them is always right.
    FlushTlb(VpSet),
    /// Raise a vector, 16 to 255, on these VPs.
    SendIpi(u8, VpSet),
    /// The VP waits for another one: it may be the wrong one to run.
    LongSpinWait,
    /// Say what the extended calls can do, at this address.
    QueryCapabilities {
        /// Aligned, and perhaps not in RAM.
        output: u64,
    },
    /// Nobody needs what is in these pages.
    Discard(Vec<GpaRange>),
}

/// A message on its way to a connection.
#[derive(Clone, Copy)]
pub struct Message(pub PostMessage);

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes() == other.0.as_bytes()
    }
}

impl Eq for Message {}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({} B on {:#x})", self.0.payload_len, self.0.connection_id)
    }
}

/// Reads the call in `registers`, of a guest that is offered `interface`. `xmm` is asked only for
/// calls whose input is there.
pub fn decode(
    registers: &Registers,
    interface: &Interface,
    memory: &GuestMemory,
    xmm: impl FnOnce() -> XmmHalves,
) -> Result<Call, Status> {
    let control = registers.control;
    let shape = Shape::of(control.code(), interface)?;
    shape.check(control)?;
    let mut input = Input::new(registers, &shape, memory, xmm)?;
    match control.code() {
        CallCode::POST_MESSAGE => post_message(input.take()?),
        CallCode::SIGNAL_EVENT => signal_event(input.take()?),
        CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE | CallCode::FLUSH_VIRTUAL_ADDRESS_LIST => {
            flush(input.take()?)
        }
        CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE_EX | CallCode::FLUSH_VIRTUAL_ADDRESS_LIST_EX => {
            let FlushAddressSpaceEx { flags, vp_set, .. } = input.take()?;
            flush_ex(flags, vp_set, &input.words(control)?)
        }
        CallCode::SEND_IPI => {
            let SendIpi { vector, vtl, reserved, processor_mask } = input.take()?;
            let vps = VpSet::from_mask(processor_mask);
            Ok(Call::SendIpi(ipi_vector(vector, vtl, reserved)?, vps))
        }
        CallCode::SEND_IPI_EX => {
            let SendIpiEx { vector, vtl, reserved, vp_set } = input.take()?;
            let vps = VpSet::sparse(vp_set, &input.words(control)?);
            let vps = vps.ok_or(Status::INVALID_PARAMETER)?;
            Ok(Call::SendIpi(ipi_vector(vector, vtl, reserved)?, vps))
        }
        CallCode::NOTIFY_LONG_SPIN_WAIT => Ok(Call::LongSpinWait),
        CallCode::EXT_QUERY_CAPABILITIES if registers.output.is_multiple_of(WORD as u64) => {
            Ok(Call::QueryCapabilities { output: registers.output })
        }
        CallCode::EXT_QUERY_CAPABILITIES => Err(Status::INVALID_ALIGNMENT),
        CallCode::EXT_MEMORY_HEAT_HINT => match input.take()? {
            MemoryHint::COLD_DISCARD => Ok(Call::Discard(input.list(control)?)),
            _ => Err(Status::INVALID_PARAMETER),
        },
        _ => Err(Status::INVALID_HYPERCALL_CODE),
    }
}

fn post_message(message: PostMessage) -> Result<Call, Status> {
    if message.payload_len as usize > MESSAGE_PAYLOAD_LEN {
        return Err(Status::INVALID_PARAMETER);
    }
    Ok(Call::PostMessage(Box::new(Message(message))))
}

/// VMBus has one flag a connection.
fn signal_event(event: SignalEvent) -> Result<Call, Status> {
    if event.flag != 0 || event.reserved != 0 {
        return Err(Status::INVALID_PARAMETER);
    }
    Ok(Call::SignalEvent { connection: event.connection_id })
}

fn flush(input: FlushAddressSpace) -> Result<Call, Status> {
    let FlushAddressSpace { flags, processor_mask, .. } = input;
    // Windows Server 2012 names nobody and means everybody (Linux `arch/x86/kvm/hyperv.c`).
    let vps = if is_for_all(flags)? || processor_mask == 0 {
        VpSet::All
    } else {
        VpSet::from_mask(processor_mask)
    };
    Ok(Call::FlushTlb(vps))
}

fn flush_ex(flags: u64, vp_set: VpSetHeader, words: &[u64]) -> Result<Call, Status> {
    let named = VpSet::sparse(vp_set, words).ok_or(Status::INVALID_PARAMETER)?;
    Ok(Call::FlushTlb(if is_for_all(flags)? { VpSet::All } else { named }))
}

fn is_for_all(flags: u64) -> Result<bool, Status> {
    if flags & !flush_flags::KNOWN != 0 {
        return Err(Status::INVALID_PARAMETER);
    }
    Ok(flags & flush_flags::ALL_PROCESSORS != 0)
}

/// The vector of an interrupt for the trust level that everybody is in.
fn ipi_vector(vector: u32, vtl: u8, reserved: [u8; 3]) -> Result<u8, Status> {
    let vector = u8::try_from(vector).map_err(|_| Status::INVALID_PARAMETER)?;
    if vector < 16 || vtl != 0 || reserved != [0; 3] {
        return Err(Status::INVALID_PARAMETER);
    }
    Ok(vector)
}

/// How a call passes its input.
struct Shape {
    /// Bytes of the fixed part.
    fixed: usize,
    /// Where it may be in registers.
    fast: Fast,
    /// A variable header may follow.
    variable: bool,
    /// A list of 8-byte elements follows.
    rep: bool,
    /// And somebody here reads it.
    list: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fast {
    /// Nowhere.
    Never,
    /// In the two general registers, and in XMM0 to XMM5 what does not fit.
    Registers,
}

impl Shape {
    /// The shape of `code`, if there is such a call and the guest may make it.
    fn of(code: CallCode, interface: &Interface) -> Result<Self, Status> {
        let shape = |fixed, fast, variable, rep| Self { fixed, fast, variable, rep, list: false };
        let flush = size_of::<FlushAddressSpace>();
        let flush_ex = size_of::<FlushAddressSpaceEx>();
        let (privilege, shape) = match code {
            CallCode::POST_MESSAGE => (
                Privileges::POST_MESSAGES,
                shape(size_of::<PostMessage>(), Fast::Never, false, false),
            ),
            CallCode::SIGNAL_EVENT => (
                Privileges::SIGNAL_EVENTS,
                shape(size_of::<SignalEvent>(), Fast::Registers, false, false),
            ),
            CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE => {
                (Privileges::empty(), shape(flush, Fast::Registers, false, false))
            }
            CallCode::FLUSH_VIRTUAL_ADDRESS_LIST => {
                (Privileges::empty(), shape(flush, Fast::Registers, false, true))
            }
            CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE_EX => {
                (Privileges::empty(), shape(flush_ex, Fast::Registers, true, false))
            }
            CallCode::FLUSH_VIRTUAL_ADDRESS_LIST_EX => {
                (Privileges::empty(), shape(flush_ex, Fast::Registers, true, true))
            }
            CallCode::SEND_IPI => {
                (Privileges::empty(), shape(size_of::<SendIpi>(), Fast::Registers, false, false))
            }
            CallCode::SEND_IPI_EX => {
                (Privileges::empty(), shape(size_of::<SendIpiEx>(), Fast::Registers, true, false))
            }
            CallCode::NOTIFY_LONG_SPIN_WAIT => {
                (Privileges::empty(), shape(size_of::<u64>(), Fast::Registers, false, false))
            }
            // Without the privilege there are no such calls, as with older hosts.
            CallCode::EXT_QUERY_CAPABILITIES | CallCode::EXT_MEMORY_HEAT_HINT
                if !interface.privileges.contains(Privileges::EXTENDED_HYPERCALLS) =>
            {
                return Err(Status::INVALID_HYPERCALL_CODE);
            }
            CallCode::EXT_QUERY_CAPABILITIES => {
                (Privileges::empty(), shape(0, Fast::Never, false, false))
            }
            CallCode::EXT_MEMORY_HEAT_HINT => {
                let hint = shape(size_of::<MemoryHint>(), Fast::Never, false, true);
                (Privileges::empty(), Self { list: true, ..hint })
            }
            _ => return Err(Status::INVALID_HYPERCALL_CODE),
        };
        if !interface.privileges.contains(privilege) {
            return Err(Status::ACCESS_DENIED);
        }
        let general = size_of::<[u64; GENERAL_REGISTERS]>();
        let xmm = interface.features.contains(Features::XMM_INPUT);
        if shape.fixed > general && !xmm {
            return Ok(Self { fast: Fast::Never, ..shape });
        }
        Ok(shape)
    }

    /// Makes sure that `control` fits.
    fn check(&self, control: Control) -> Result<(), Status> {
        let (count, start) = (control.rep_count(), control.rep_start());
        let reps_fit = if self.rep { start < count } else { count == 0 && start == 0 };
        let fits = control.reserved() == 0
            && reps_fit
            && (self.variable || control.variable_header_units() == 0)
            && (self.fast != Fast::Never || !control.is_fast());
        if fits { Ok(()) } else { Err(Status::INVALID_HYPERCALL_INPUT) }
    }

    /// Bytes of fixed input, variable header and list.
    fn len(&self, control: Control) -> usize {
        let list = if self.rep { control.rep_count() as usize } else { 0 };
        self.fixed.next_multiple_of(WORD) + (control.variable_header_units() as usize + list) * WORD
    }
}

const WORD: usize = size_of::<u64>();
const GENERAL_REGISTERS: usize = 2;
const FAST_WORDS: usize = GENERAL_REGISTERS + size_of::<XmmHalves>() / WORD;

/// A copy of a call's fixed input and variable header, and of its list if somebody reads that.
struct Input {
    bytes: Vec<u8>,
    taken: usize,
}

impl Input {
    fn new(
        registers: &Registers,
        shape: &Shape,
        memory: &GuestMemory,
        xmm: impl FnOnce() -> XmmHalves,
    ) -> Result<Self, Status> {
        let control = registers.control;
        let len = shape.len(control);
        // The header's length has ten bits: 8 KiB and a little at most, and what is more than a page
        // is refused before anything is allocated.
        let list = if shape.list { control.rep_count() as usize } else { 0 };
        let header = shape.fixed + (control.variable_header_units() as usize + list) * WORD;
        let bytes = if control.is_fast() {
            fast_input(registers, len, header, xmm)?
        } else {
            slow_input(registers.input, len, header, memory)?
        };
        Ok(Self { bytes, taken: 0 })
    }

    /// The fixed part.
    fn take<T: FromBytes>(&mut self) -> Result<T, Status> {
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let (value, _) = T::read_from_prefix(rest).map_err(|_| Status::INVALID_HYPERCALL_INPUT)?;
        self.taken += size_of::<T>();
        Ok(value)
    }

    /// The variable header.
    fn words(&mut self, control: Control) -> Result<Vec<u64>, Status> {
        (0..control.variable_header_units()).map(|_| self.take()).collect()
    }

    /// The elements of the list that are not done yet.
    fn list<T: FromBytes>(&mut self, control: Control) -> Result<Vec<T>, Status> {
        self.taken += control.rep_start() as usize * size_of::<T>();
        (control.rep_start()..control.rep_count()).map(|_| self.take()).collect()
    }
}

/// Input in registers, of which the first `header` bytes count; `len` is what there has to be.
fn fast_input(
    registers: &Registers,
    len: usize,
    header: usize,
    xmm: impl FnOnce() -> XmmHalves,
) -> Result<Vec<u8>, Status> {
    if len > FAST_WORDS * WORD {
        return Err(Status::INVALID_HYPERCALL_INPUT);
    }
    let mut words = vec![registers.input, registers.output];
    if header > words.len() * WORD {
        words.extend(xmm());
    }
    Ok(words.as_bytes().to_vec())
}

/// Input in memory, which has to be aligned to 8 bytes, in one page, and in RAM.
fn slow_input(
    address: u64,
    len: usize,
    header: usize,
    memory: &GuestMemory,
) -> Result<Vec<u8>, Status> {
    let offset = address % PAGE_SIZE as u64;
    if !address.is_multiple_of(WORD as u64) || offset + len as u64 > PAGE_SIZE as u64 {
        return Err(Status::INVALID_ALIGNMENT);
    }
    let mut bytes = vec![0; header];
    if header == 0 {
        return Ok(bytes);
    }
    let read = memory.read_slice(&mut bytes, GuestAddress(address));
    read.map_err(|_| Status::INVALID_ALIGNMENT)?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "hypercall_tests.rs"]
mod tests;
