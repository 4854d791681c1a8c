// SPDX-License-Identifier: MIT OR Apache-2.0

//! The synthetic MSRs and the SynIC's pages: any order, any value.

use busway_hyperv::cpuid::WANTED;
use busway_hyperv::msr;
use busway_hyperv::reference_tsc::ReferenceTsc;
use busway_hyperv::registers::{
    Delivered, Effect, Frequencies, Notice, Now, PartitionRegisters, Value, VpRegisters,
    is_partitions,
};
use busway_hyperv::synic::Synic;
use busway_memory::{GuestAddress, GuestMemory, Region};
use busway_wire::control::MessageBuf;

use crate::random::Random;

const RAM: usize = 1 << 16;

/// Those that hold whatever was written into them.
const PLAIN: [u32; 4] = [msr::SCONTROL, msr::SIEFP, msr::SIMP, msr::VP_ASSIST_PAGE];

pub(crate) fn case(random: &mut Random) {
    let region = Region { start: GuestAddress(0), len: RAM };
    let memory = GuestMemory::allocate(&[region]).unwrap();
    let clock = ReferenceTsc::new(random.word(), random.word());
    let frequencies = Frequencies { tsc: random.word(), apic: random.word() };
    let mut guest = Guest {
        partition: PartitionRegisters::new(WANTED, memory.clone(), frequencies, clock),
        vp: VpRegisters::new(0, WANTED, memory.clone()),
        synic: Synic::new(memory, 1),
        now: 0,
    };
    for _ in 0..random.below(300) {
        guest.step(random);
    }
}

struct Guest {
    partition: PartitionRegisters,
    vp: VpRegisters,
    synic: Synic,
    now: u64,
}

impl Guest {
    fn step(&mut self, random: &mut Random) {
        let (first, count) = msr::RANGE;
        let msr = first + random.below(count.into()) as u32 % random.pick(&[count, 0x24, 0xc0]);
        self.now = match random.below(20) {
            0 => random.word(),
            _ => self.now.saturating_add(random.below(1 << 20)),
        };
        match random.below(8) {
            0 => self.read(msr),
            1 => self.run_timers(random),
            2 => {
                let (sint, flag) = (random.next() as u8 % 18, random.next() as u16);
                self.synic.set_flag(0, sint, flag % 0x900);
            }
            3 => {
                self.synic.post(0, random.next() as u8 % 18, &MessageBuf::from_bytes(&[1; 32]));
            }
            _ => self.write(msr, random),
        }
    }

    fn now(&self) -> Now {
        Now { reference: self.now, runtime: self.now / 2 }
    }

    fn read(&self, msr: u32) {
        if is_partitions(msr) {
            let _ = self.partition.read(msr, self.now);
        } else {
            let _ = self.vp.read(msr, self.now());
        }
    }

    fn write(&mut self, msr: u32, random: &mut Random) {
        let value = match random.below(3) {
            // A timer's, or a SINT's.
            0 => random.next() & 0xf_1ff8 | random.below(16),
            _ => random.word(),
        };
        if is_partitions(msr) {
            let _ = self.partition.write(msr, value);
            return;
        }
        let Ok(effect) = self.vp.write(msr, value, self.now()) else {
            return;
        };
        if PLAIN.contains(&msr) || (msr::SINT0..=msr::SINT15).contains(&msr) {
            assert_eq!(self.vp.read(msr, self.now()), Ok(Value::Is(value)), "{msr:#x}");
        }
        match effect {
            Effect::Pages(registers) => {
                self.synic.configure(0, registers);
            }
            Effect::Sint(index, sint) => {
                assert!(index < 16);
                assert!(sint.vector().is_none_or(|vector| vector >= 16));
            }
            Effect::Timers => self.run_timers(random),
            _ => {}
        }
    }

    fn run_timers(&mut self, random: &mut Random) {
        let mut deliveries = 0;
        let next = self.vp.run_timers(self.now, &mut |expiry| {
            deliveries += 1;
            assert!(expiry.due <= self.now && expiry.timer < 4);
            assert_ne!(expiry.notice, Notice::Message(0));
            random.pick(&[Delivered::Yes, Delivered::Later])
        });
        assert!(deliveries <= 4, "a timer speaks once");
        // An alarm that is due already would be one without end.
        assert!(next.is_none_or(|next| next > self.now || self.now == u64::MAX), "{next:?}");
    }
}
