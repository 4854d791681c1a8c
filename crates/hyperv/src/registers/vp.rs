// SPDX-License-Identifier: MIT OR Apache-2.0

//! The registers that each VP has.

use busway_memory::{GuestMemory, PAGE_SIZE};
use busway_wire::synic::SINT_COUNT;
use vm_memory::{Bytes, GuestAddress};

use super::stimer::Timer;
use super::{Delivered, Effect, Expiry, GeneralProtection, Notice, Sint, Value, is_offered};
use crate::cpuid::{Features, Interface};
use crate::msr;
use crate::synic::SynicRegisters;

/// The clocks as a VP reads them, both in 100 ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Time since the machine was made.
    pub reference: u64,
    /// Time that the VP has run.
    pub runtime: u64,
}

/// Synthetic timers of a VP.
const TIMERS: usize = 4;
/// SVERSION: the only version there is.
const SYNIC_VERSION: u64 = 1;

/// The registers of one VP.
#[derive(Debug)]
pub struct VpRegisters {
    index: u32,
    interface: Interface,
    memory: GuestMemory,
    assist_page: u64,
    interrupt_command: u64,
    synic: SynicRegisters,
    sints: [Sint; SINT_COUNT],
    timers: [Timer; TIMERS],
}

impl VpRegisters {
    /// The registers of VP `index` after a reset, of a guest that is offered `interface`.
    pub fn new(index: u32, interface: Interface, memory: GuestMemory) -> Self {
        Self {
            index,
            interface,
            memory,
            assist_page: 0,
            interrupt_command: 0,
            synic: SynicRegisters::default(),
            sints: [Sint::RESET; SINT_COUNT],
            timers: [Timer::default(); TIMERS],
        }
    }

    /// RDMSR.
    pub fn read(&self, msr: u32, now: Now) -> Result<Value, GeneralProtection> {
        if !is_offered(&self.interface, msr) {
            return Err(GeneralProtection);
        }
        let value = match msr {
            msr::VP_INDEX => self.index.into(),
            msr::VP_RUNTIME => now.runtime,
            msr::ICR => self.interrupt_command,
            msr::TPR => return Ok(Value::TaskPriority),
            msr::VP_ASSIST_PAGE => self.assist_page,
            msr::SCONTROL => self.synic.control,
            msr::SVERSION => SYNIC_VERSION,
            msr::SIEFP => self.synic.event_page,
            msr::SIMP => self.synic.message_page,
            msr::EOM => 0,
            _ => {
                // EOI can only be written, and lands here too.
                let sint = nth(msr, msr::SINT0).and_then(|index| self.sints.get(index));
                let timer =
                    timer(msr).and_then(|(index, half)| Some((self.timers.get(index)?, half)));
                match (sint, timer) {
                    (Some(sint), _) => sint.bits(),
                    (None, Some((timer, Half::Config))) => timer.config(),
                    (None, Some((timer, Half::Count))) => timer.count(),
                    (None, None) => return Err(GeneralProtection),
                }
            }
        };
        Ok(Value::Is(value))
    }

    /// WRMSR.
    pub fn write(&mut self, msr: u32, value: u64, now: Now) -> Result<Effect, GeneralProtection> {
        if !is_offered(&self.interface, msr) {
            return Err(GeneralProtection);
        }
        match msr {
            msr::EOI => return Ok(Effect::EndOfInterrupt),
            msr::ICR => {
                self.interrupt_command = value;
                return Ok(Effect::InterruptCommand(value));
            }
            msr::TPR => {
                let priority = u8::try_from(value).map_err(|_| GeneralProtection)?;
                return Ok(Effect::TaskPriority(priority));
            }
            msr::VP_ASSIST_PAGE => {
                self.set_assist_page(value);
                return Ok(Effect::None);
            }
            msr::SCONTROL => self.synic.control = value,
            msr::SIEFP => self.synic.event_page = value,
            msr::SIMP => self.synic.message_page = value,
            msr::EOM => return Ok(Effect::EndOfMessage),
            _ => return self.write_source(msr, value, now),
        }
        Ok(Effect::Pages(self.synic))
    }

    /// A SINT or a timer; everything else cannot be written.
    fn write_source(
        &mut self,
        msr: u32,
        value: u64,
        now: Now,
    ) -> Result<Effect, GeneralProtection> {
        if let Some(index) = nth(msr, msr::SINT0)
            && let Some(sint) = self.sints.get_mut(index)
        {
            *sint = Sint::new(value)?;
            return Ok(Effect::Sint(index as u8, *sint));
        }
        let direct = self.interface.features.contains(Features::DIRECT_STIMERS);
        let (index, half) = timer(msr).ok_or(GeneralProtection)?;
        let timer = self.timers.get_mut(index).ok_or(GeneralProtection)?;
        match half {
            Half::Config if Timer::is_direct(value) && !direct => return Err(GeneralProtection),
            Half::Config => timer.set_config(value, now.reference),
            Half::Count => timer.set_count(value, now.reference),
        }
        Ok(Effect::Timers)
    }

    /// The first word of the page tells the guest that it need not end an interrupt; that is never
    /// so here, whatever the page held before. A page that is no RAM cannot be told apart from one
    /// that says nothing.
    fn set_assist_page(&mut self, value: u64) {
        self.assist_page = value;
        if value & msr::ENABLE != 0 {
            let page = GuestAddress(value & !(PAGE_SIZE as u64 - 1));
            let _ = self.memory.write_obj(0_u32, page);
        }
    }

    /// Delivers what the VP's timers have to say at reference time `now`. Returns when to come
    /// again by the clock. A timer whose message finds no room, or a masked source, is tried again
    /// at each call, so there has to be one whenever that may have changed.
    pub fn run_timers(
        &mut self,
        now: u64,
        deliver: &mut dyn FnMut(Expiry) -> Delivered,
    ) -> Option<u64> {
        let masked = self.sints.map(Sint::is_masked);
        let mut deliver = |expiry: Expiry| match expiry.notice {
            Notice::Message(sint) if masked.get(usize::from(sint)) == Some(&true) => {
                Delivered::Later
            }
            _ => deliver(expiry),
        };
        let timers = (0..).zip(&mut self.timers);
        timers.filter_map(|(index, timer)| timer.run(index, now, &mut deliver)).min()
    }

    /// A timer waits for room for its message.
    pub fn timer_waits(&self) -> bool {
        self.timers.iter().any(Timer::is_waiting)
    }

    /// A source's register.
    pub fn sint(&self, sint: u8) -> Sint {
        self.sints.get(usize::from(sint)).copied().unwrap_or(Sint::RESET)
    }
}

/// Which register of a timer.
#[derive(Clone, Copy)]
enum Half {
    Config,
    Count,
}

fn nth(msr: u32, first: u32) -> Option<usize> {
    msr.checked_sub(first).map(|index| index as usize)
}

/// The timer and the half of it that `msr` is, if it is behind the first timer's.
fn timer(msr: u32) -> Option<(usize, Half)> {
    let index = nth(msr, msr::STIMER0_CONFIG)?;
    Some((index / 2, if index % 2 == 0 { Half::Config } else { Half::Count }))
}
