// SPDX-License-Identifier: MIT OR Apache-2.0

//! The message and event pages of every VP's synthetic interrupt controller.
//!
//! A VP's SynIC has two pages of guest memory. The *message page* has a slot for each SINT: the
//! host fills a free slot, the guest empties it. The *event page* has 2048 flags for each SINT: the
//! host sets them, the guest clears them. After either, the host raises the SINT, which is the
//! engine's work and not done here: each operation says whether it is due.
//!
//! The guest chooses where the pages are (SIMP, SIEFP), whether they count (bit 0 of each) and
//! whether the SynIC works at all (SCONTROL), and may change that at any time, from any VP, while
//! others signal. A flag for a page that is not there is held until it is; a message is the
//! sender's to keep.
//!
//! Source: TLFS, "Virtual Interrupt Controller" and "Inter-Partition Communication".

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use busway_memory::{GuestMemory, PAGE_SIZE};
use busway_wire::control::MessageBuf;
use busway_wire::synic::{
    EVENT_FLAGS, EVENT_FLAGS_LEN, MESSAGE_PENDING, MESSAGE_SLOT_LEN, MessageKind, SINT_COUNT,
    SlotHeader, TimerExpired,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileMemory};
use zerocopy::IntoBytes;

/// What the guest wrote into the three MSRs that enable a VP's SynIC and place its pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynicRegisters {
    /// HV_X64_MSR_SCONTROL: bit 0 enables.
    pub control: u64,
    /// HV_X64_MSR_SIMP: bit 0 enables, bits 63:12 are the message page's frame.
    pub message_page: u64,
    /// HV_X64_MSR_SIEFP: bit 0 enables, bits 63:12 are the event page's frame.
    pub event_page: u64,
}

impl SynicRegisters {
    /// The page that `register` enables, as long as the SynIC is enabled.
    const fn page(&self, register: u64) -> u64 {
        if self.control & register & ENABLE == 0 { NO_PAGE } else { register & !PAGE_MASK }
    }
}

const ENABLE: u64 = 1;
const PAGE_MASK: u64 = PAGE_SIZE as u64 - 1;
/// No page starts at an odd address.
const NO_PAGE: u64 = 1;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It is in the slot: raise the SINT.
    Delivered,
    /// The slot holds an older message; the guest has been asked to write EOM when it is free.
    /// Try again then.
    Busy,
    /// The VP has no message page now. Try again when it is [configured](Synic::configure).
    NoPage,
}

/// The SynIC pages of all VPs of a guest. Shared by whoever signals.
#[derive(Debug)]
pub struct Synic {
    memory: GuestMemory,
    vps: Box<[Vp]>,
}

#[derive(Debug)]
struct Vp {
    message_page: AtomicU64,
    event_page: AtomicU64,
    /// Held while a slot is filled: the bus and the timers may want the same one.
    filling: Mutex<()>,
    /// Flags that were set while there was no event page, in the page's own layout.
    held: Box<[AtomicU32]>,
}

/// Words of flags in an event page.
const EVENT_WORDS: usize = SINT_COUNT * EVENT_FLAGS_LEN / 4;
const WORDS_PER_SINT: usize = EVENT_FLAGS_LEN / 4;

impl Vp {
    fn new() -> Self {
        Self {
            message_page: AtomicU64::new(NO_PAGE),
            event_page: AtomicU64::new(NO_PAGE),
            filling: Mutex::new(()),
            held: (0..EVENT_WORDS).map(|_| AtomicU32::new(0)).collect(),
        }
    }
}

impl Synic {
    /// The SynICs of `vp_count` VPs, all disabled.
    pub fn new(memory: GuestMemory, vp_count: u32) -> Self {
        Self { memory, vps: (0..vp_count).map(|_| Vp::new()).collect() }
    }

    /// How many VPs there are; a VP is named by its index.
    pub const fn vp_count(&self) -> usize {
        self.vps.len()
    }

    /// Takes over what the guest wrote for `vp`. Returns the SINTs to raise, a bit each: those whose
    /// flags were held back until now.
    pub fn configure(&self, vp: u32, registers: SynicRegisters) -> u16 {
        let Some(vp) = self.vp(vp) else {
            return 0;
        };
        vp.message_page.store(registers.page(registers.message_page), Ordering::SeqCst);
        vp.event_page.store(registers.page(registers.event_page), Ordering::SeqCst);
        self.release_held(vp)
    }

    /// Disables every SynIC and forgets what was held: the machine was reset.
    pub fn reset(&self) {
        for vp in &self.vps {
            vp.message_page.store(NO_PAGE, Ordering::SeqCst);
            vp.event_page.store(NO_PAGE, Ordering::SeqCst);
            for word in &vp.held {
                word.store(0, Ordering::SeqCst);
            }
        }
    }

    /// Puts a channel message into `vp`'s slot of `sint`.
    pub fn post(&self, vp: u32, sint: u8, message: &MessageBuf) -> Posted {
        self.fill(vp, sint, MessageKind::CHANNEL, message.as_bytes())
    }

    /// Puts a timer's message into `vp`'s slot of `sint`.
    pub fn post_timer(&self, vp: u32, sint: u8, message: &TimerExpired) -> Posted {
        self.fill(vp, sint, MessageKind::TIMER_EXPIRED, message.as_bytes())
    }

    fn fill(&self, vp: u32, sint: u8, kind: MessageKind, payload: &[u8]) -> Posted {
        let Some(vp) = self.vp(vp) else {
            return Posted::NoPage;
        };
        let _filling = vp.filling.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = slot_address(vp.message_page.load(Ordering::SeqCst), sint) else {
            return Posted::NoPage;
        };
        self.fill_slot(slot, kind, payload).unwrap_or(Posted::NoPage)
    }

    /// `None` if the page is no RAM; the guest can name any address.
    fn fill_slot(&self, slot: GuestAddress, kind: MessageKind, payload: &[u8]) -> Option<Posted> {
        let memory = &*self.memory;
        let region = memory.get_slice(slot, MESSAGE_SLOT_LEN).ok()?;
        let in_slot = region.get_atomic_ref::<AtomicU32>(0).ok()?;
        if in_slot.load(Ordering::Acquire) != MessageKind::NONE.0 {
            // The guest frees the slot and then looks at the flag; this sets the flag and then
            // looks at the slot. With a full barrier on both sides one of them sees the other.
            region.write_obj(MESSAGE_PENDING, FLAGS_OFFSET).ok()?;
            std::sync::atomic::fence(Ordering::SeqCst);
            if in_slot.load(Ordering::Acquire) != MessageKind::NONE.0 {
                return Some(Posted::Busy);
            }
        }
        region.write_slice(payload, size_of::<SlotHeader>()).ok()?;
        region.write_obj(u8::try_from(payload.len()).ok()?, PAYLOAD_LEN_OFFSET).ok()?;
        region.write_obj(0_u8, FLAGS_OFFSET).ok()?;
        region.write_obj(0_u64, ORIGIN_OFFSET).ok()?;
        in_slot.store(kind.0, Ordering::Release);
        Some(Posted::Delivered)
    }

    /// Sets event flag `flag` of `sint` on `vp`; true if the SINT must be raised.
    ///
    /// Not if the flag stood already: the guest has not yet looked, and will see both. Without an
    /// event page the flag is held until there is one.
    pub fn set_flag(&self, vp: u32, sint: u8, flag: u16) -> bool {
        let Some(vp) = self.vp(vp) else {
            return false;
        };
        if usize::from(sint) >= SINT_COUNT || flag >= EVENT_FLAGS {
            return false;
        }
        let word = usize::from(sint) * WORDS_PER_SINT + usize::from(flag / 32);
        let bit = 1 << (flag % 32);
        let page = vp.event_page.load(Ordering::SeqCst);
        if page == NO_PAGE {
            if let Some(held) = vp.held.get(word) {
                held.fetch_or(bit, Ordering::SeqCst);
            }
            // The page may have come between the two; then nobody else releases this flag.
            return self.release_held(vp) & 1 << sint != 0;
        }
        self.set_bits(page, word, bit)
    }

    /// Sets flag `flag` in the first half of the interrupt page at `page`, by which guests before
    /// VMBus 2.4 learn which channel is meant; event flag 0 of VP 0 goes with it.
    pub fn set_page_flag(&self, page: u64, flag: u16) {
        if flag < EVENT_FLAGS {
            self.set_bits(page, usize::from(flag / 32), 1 << (flag % 32));
        }
    }

    /// Sets `bits` of an event page's word; true if any of them was clear. A page that is no RAM
    /// swallows them, as it would the guest's own writes.
    fn set_bits(&self, page: u64, word: usize, bits: u32) -> bool {
        let address = GuestAddress(page.saturating_add(word as u64 * 4));
        let Ok(slice) = self.memory.get_slice(address, 4) else {
            return false;
        };
        match slice.get_atomic_ref::<AtomicU32>(0) {
            Ok(flags) => flags.fetch_or(bits, Ordering::SeqCst) & bits != bits,
            Err(_) => false,
        }
    }

    /// Moves held flags to the event page, if there is one; returns the SINTs to raise.
    fn release_held(&self, vp: &Vp) -> u16 {
        let page = vp.event_page.load(Ordering::SeqCst);
        if page == NO_PAGE {
            return 0;
        }
        let mut sints = 0;
        for (index, word) in vp.held.iter().enumerate() {
            let bits = word.swap(0, Ordering::SeqCst);
            if bits != 0 && self.set_bits(page, index, bits) {
                sints |= 1 << (index / WORDS_PER_SINT);
            }
        }
        sints
    }

    fn vp(&self, vp: u32) -> Option<&Vp> {
        self.vps.get(vp as usize)
    }
}

const PAYLOAD_LEN_OFFSET: usize = std::mem::offset_of!(SlotHeader, payload_len);
const FLAGS_OFFSET: usize = std::mem::offset_of!(SlotHeader, flags);
const ORIGIN_OFFSET: usize = std::mem::offset_of!(SlotHeader, origin);

fn slot_address(page: u64, sint: u8) -> Option<GuestAddress> {
    if page == NO_PAGE || usize::from(sint) >= SINT_COUNT {
        return None;
    }
    page.checked_add(u64::from(sint) * MESSAGE_SLOT_LEN as u64).map(GuestAddress)
}

#[cfg(test)]
mod tests {
    use busway_memory::Region;
    use busway_wire::synic::VMBUS_SINT;

    use super::*;

    const SIMP: u64 = 0x3000;
    const SIEFP: u64 = 0x5000;
    const ON: SynicRegisters =
        SynicRegisters { control: 1, message_page: SIMP | 1, event_page: SIEFP | 1 };

    fn synic() -> (GuestMemory, Synic) {
        let region = Region { start: GuestAddress(0), len: 16 * PAGE_SIZE };
        let memory = GuestMemory::allocate(&[region]).unwrap();
        (memory.clone(), Synic::new(memory, 2))
    }

    fn word(memory: &GuestMemory, address: u64) -> u32 {
        memory.read_obj(GuestAddress(address)).unwrap()
    }

    #[test]
    fn a_message_fills_the_slot_as_the_tlfs_lays_it_out() {
        let (memory, synic) = synic();
        synic.configure(1, ON);
        let message = MessageBuf::from_bytes(&[15, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(synic.post(1, VMBUS_SINT, &message), Posted::Delivered);
        let mut slot = [0xee; 26];
        memory.read_slice(&mut slot, GuestAddress(SIMP + 0x200)).unwrap();
        #[rustfmt::skip]
        assert_eq!(slot, [
            1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            15, 0, 0, 0, 0, 0, 0, 0, 1, 0,
        ]);
    }

    #[test]
    fn a_full_slot_is_left_alone_and_asks_for_eom() {
        let (memory, synic) = synic();
        synic.configure(0, ON);
        let first = MessageBuf::from_bytes(&[1; 8]);
        let second = MessageBuf::from_bytes(&[2; 8]);
        assert_eq!(synic.post(0, VMBUS_SINT, &first), Posted::Delivered);
        assert_eq!(word(&memory, SIMP + 0x204) >> 8 & 1, 0);
        assert_eq!(synic.post(0, VMBUS_SINT, &second), Posted::Busy);
        assert_eq!(word(&memory, SIMP + 0x204) >> 8 & 1, 1, "message pending");
        assert_eq!(word(&memory, SIMP + 0x210), 0x0101_0101, "the first message still stands");

        memory.write_obj(0_u32, GuestAddress(SIMP + 0x200)).unwrap();
        assert_eq!(synic.post(0, VMBUS_SINT, &second), Posted::Delivered);
        assert_eq!(word(&memory, SIMP + 0x204) >> 8 & 1, 0, "nothing is pending any more");
        assert_eq!(word(&memory, SIMP + 0x210), 0x0202_0202);
    }

    #[test]
    fn a_timers_message_is_laid_out_as_the_tlfs_says() {
        let (memory, synic) = synic();
        synic.configure(0, ON);
        let message = TimerExpired { timer: 3, reserved: 0, expiration: 0x1122, delivery: 0x3344 };
        assert_eq!(synic.post_timer(0, 4, &message), Posted::Delivered);
        let mut slot = [0xee; 41];
        memory.read_slice(&mut slot, GuestAddress(SIMP + 0x400)).unwrap();
        #[rustfmt::skip]
        assert_eq!(slot, [
            0x10, 0, 0, 0x80, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            3, 0, 0, 0, 0, 0, 0, 0,
            0x22, 0x11, 0, 0, 0, 0, 0, 0,
            0x44, 0x33, 0, 0, 0, 0, 0, 0,
            0,
        ]);
        assert_eq!(synic.post_timer(0, 4, &message), Posted::Busy);
        assert_eq!(synic.post_timer(0, VMBUS_SINT, &message), Posted::Delivered, "a slot each");
        assert_eq!(synic.post(0, VMBUS_SINT, &MessageBuf::from_bytes(&[1; 8])), Posted::Busy);
    }

    #[test]
    fn without_a_page_a_message_stays_with_its_sender() {
        let (_memory, synic) = synic();
        let message = MessageBuf::from_bytes(&[1; 8]);
        let no_page = |registers| {
            synic.configure(0, registers);
            assert_eq!(synic.post(0, VMBUS_SINT, &message), Posted::NoPage);
        };
        no_page(SynicRegisters::default());
        no_page(SynicRegisters { control: 0, ..ON });
        no_page(SynicRegisters { message_page: SIMP, ..ON });
        no_page(SynicRegisters { message_page: u64::MAX, ..ON });
        synic.configure(0, ON);
        assert_eq!(synic.post(7, VMBUS_SINT, &message), Posted::NoPage);
        assert_eq!(synic.post(0, 16, &message), Posted::NoPage);
    }

    #[test]
    fn a_flag_is_a_bit_of_its_sint_and_raises_once() {
        let (memory, synic) = synic();
        synic.configure(0, ON);
        assert!(synic.set_flag(0, VMBUS_SINT, 37));
        assert_eq!(word(&memory, SIEFP + 0x204), 1 << 5);
        assert!(!synic.set_flag(0, VMBUS_SINT, 37), "the guest has not looked yet");
        assert!(synic.set_flag(0, VMBUS_SINT, 38));
        memory.write_obj(0_u32, GuestAddress(SIEFP + 0x204)).unwrap();
        assert!(synic.set_flag(0, VMBUS_SINT, 37));
        assert!(!synic.set_flag(0, VMBUS_SINT, 2048));
        assert!(!synic.set_flag(9, VMBUS_SINT, 1));
    }

    #[test]
    fn a_flag_of_the_interrupt_page_is_a_bit_of_its_first_half() {
        let (memory, synic) = synic();
        synic.set_page_flag(0x6000, 2047);
        assert_eq!(word(&memory, 0x60fc), 1 << 31);
        synic.set_page_flag(0x6000, 2048);
        assert_eq!(word(&memory, 0x6100), 0);
    }

    #[test]
    fn flags_without_a_page_are_held_until_there_is_one() {
        let (memory, synic) = synic();
        assert!(!synic.set_flag(1, VMBUS_SINT, 3));
        assert!(!synic.set_flag(1, 4, 2047));
        let off = SynicRegisters { control: 0, ..ON };
        assert_eq!(synic.configure(1, off), 0);
        assert_eq!(synic.configure(1, ON), 1 << VMBUS_SINT | 1 << 4);
        assert_eq!(word(&memory, SIEFP + 0x200), 1 << 3);
        assert_eq!(word(&memory, SIEFP + 0x4fc), 1 << 31);
        assert_eq!(synic.configure(1, ON), 0, "nothing is held any more");
    }

    #[test]
    fn pages_outside_of_ram_harm_nobody() {
        let (_memory, synic) = synic();
        synic.configure(0, SynicRegisters { event_page: !0, message_page: !0, control: 1 });
        assert!(!synic.set_flag(0, VMBUS_SINT, 1));
    }
}
