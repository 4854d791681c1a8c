// SPDX-License-Identifier: MIT OR Apache-2.0

//! MSR numbers and bits are spelled out as the TLFS and Linux's `hyperv-tlfs.h` have them.

use busway_memory::{GuestAddress, GuestMemory, Region};
use vm_memory::Bytes;

use super::*;
use crate::cpuid::WANTED;

const RAM: u64 = 0x10_0000;
const FREQUENCIES: Frequencies = Frequencies { tsc: 2_100_000_000, apic: 1_000_000_000 };

fn memory() -> GuestMemory {
    GuestMemory::allocate(&[Region { start: GuestAddress(0), len: RAM as usize }]).unwrap()
}

fn partition() -> PartitionRegisters {
    let clock = crate::reference_tsc::ReferenceTsc::new(FREQUENCIES.tsc, 0);
    PartitionRegisters::new(WANTED, memory(), FREQUENCIES, clock)
}

fn vp() -> VpRegisters {
    VpRegisters::new(3, WANTED, memory())
}

fn at(reference: u64) -> Now {
    Now { reference, runtime: 0 }
}

fn read(vp: &VpRegisters, msr: u32) -> u64 {
    match vp.read(msr, at(0)) {
        Ok(Value::Is(value)) => value,
        other => panic!("{msr:#x}: {other:?}"),
    }
}

mod partition_wide {
    use super::*;

    #[test]
    fn a_hypercall_page_needs_a_guest_with_a_name() {
        let mut partition = partition();
        assert_eq!(partition.write(0x4000_0001, 0x5001), Ok(Effect::None));
        assert_eq!(partition.read(0x4000_0001, 0), Ok(0x5000), "bit 0 did not stick");
        assert_eq!(partition.memory_at(0x5000), 0);

        partition.write(0x4000_0000, 0x8100_0000_0000_0000).unwrap();
        partition.write(0x4000_0001, 0x5001).unwrap();
        assert_eq!(partition.read(0x4000_0001, 0), Ok(0x5001));
        assert_eq!(partition.memory_at(0x5000), 0xfa1e_0ff3, "ENDBR64");

        partition.write(0x4000_0000, 0).unwrap();
        assert_eq!(partition.read(0x4000_0001, 0), Ok(0x5000), "off with its name");
    }

    #[test]
    fn a_hypercall_page_is_ram() {
        let mut partition = partition();
        partition.write(0x4000_0000, 1).unwrap();
        assert_eq!(partition.write(0x4000_0001, RAM | 1), Err(GeneralProtection));
        assert_eq!(partition.write(0x4000_0001, !0), Err(GeneralProtection));
        assert_eq!(partition.read(0x4000_0001, 0), Ok(0));
        assert_eq!(partition.write(0x4000_0001, RAM), Ok(Effect::None), "disabled, it is anything");
    }

    #[test]
    fn a_locked_hypercall_page_stays() {
        let mut partition = partition();
        partition.write(0x4000_0000, 1).unwrap();
        partition.write(0x4000_0001, 0x5ff3).unwrap();
        assert_eq!(partition.read(0x4000_0001, 0), Ok(0x5ff3), "reserved bits too");
        assert_eq!(partition.write(0x4000_0001, 0x6001), Err(GeneralProtection));
        assert_eq!(partition.write(0x4000_0001, 0x5ff3), Err(GeneralProtection));
        assert_eq!(partition.read(0x4000_0001, 0), Ok(0x5ff3));
    }

    #[test]
    fn the_tsc_page_is_filled_and_may_be_anywhere() {
        let mut partition = partition();
        partition.write(0x4000_0021, 0x7801).unwrap();
        assert_eq!(partition.read(0x4000_0021, 0), Ok(0x7801));
        assert_eq!(partition.memory_at(0x7000), 1, "its sequence is valid");
        assert_eq!(partition.write(0x4000_0021, RAM | 1), Ok(Effect::None));
        assert_eq!(partition.read(0x4000_0021, 0), Ok(RAM | 1));
        assert_eq!(partition.write(0x4000_0021, 0x8000), Ok(Effect::None));
        assert_eq!(partition.memory_at(0x8000), 0, "not enabled");
    }

    #[test]
    fn clocks_and_frequencies_are_read_only() {
        let mut partition = partition();
        for (msr, value) in
            [(0x4000_0020, 77), (0x4000_0022, 2_100_000_000), (0x4000_0023, 1_000_000_000)]
        {
            assert_eq!(partition.read(msr, 77), Ok(value));
            assert_eq!(partition.write(msr, 0), Err(GeneralProtection), "{msr:#x}");
        }
    }

    #[test]
    fn reset_is_asked_for_by_bit_0() {
        let mut partition = partition();
        assert_eq!(partition.write(0x4000_0003, 0), Ok(Effect::None));
        assert_eq!(partition.write(0x4000_0003, 2), Ok(Effect::None));
        assert_eq!(partition.write(0x4000_0003, 1), Ok(Effect::Reset));
        assert_eq!(partition.read(0x4000_0003, 0), Ok(0));
    }

    #[test]
    fn a_crash_is_reported_once_it_is_complete() {
        let mut partition = partition();
        assert_eq!(partition.write(0x4000_0102, 5), Ok(Effect::None));
        let Ok(Effect::Crash(report)) = partition.write(0x4000_0105, 1 << 63) else {
            panic!("no report");
        };
        assert_eq!(report.words, [0, 0, 5, 0, 0]);
        assert_eq!(partition.read(0x4000_0105, 0), Ok(3 << 62));
    }

    impl PartitionRegisters {
        fn memory_at(&self, address: u64) -> u32 {
            self.memory().read_obj(GuestAddress(address)).unwrap()
        }
    }
}

mod offered {
    use super::*;

    /// What no CPUID bit here offers: guest idle, re-enlightenment, invariant TSC, debugging, and
    /// numbers that are no MSR at all.
    #[test]
    fn the_rest_of_the_range_is_forbidden() {
        let mut vp = vp();
        let mut partition = partition();
        let unknown = [0x04, 0x11, 0x24, 0x40, 0x74, 0x85, 0xa0, 0xb8, 0xf0, 0xf1, 0xff];
        let unknown = unknown.into_iter().chain([0x106, 0x107, 0x118, 0x1ff]);
        for msr in unknown.map(|low| 0x4000_0000 + low) {
            assert!(!is_partitions(msr));
            assert_eq!(vp.read(msr, at(0)), Err(GeneralProtection), "{msr:#x}");
            assert_eq!(vp.write(msr, 0, at(0)), Err(GeneralProtection), "{msr:#x}");
            assert_eq!(partition.read(msr, 0), Err(GeneralProtection), "{msr:#x}");
            assert_eq!(partition.write(msr, 0), Err(GeneralProtection), "{msr:#x}");
        }
    }

    #[test]
    fn what_cpuid_does_not_offer_is_forbidden() {
        let mut interface = WANTED;
        interface.access -= Access::STIMERS | Access::RESET | Access::APIC;
        interface.features -= Features::CRASH | Features::DIRECT_STIMERS;
        let mut vp = VpRegisters::new(0, interface, memory());
        let mut partition = PartitionRegisters::new(interface, memory(), FREQUENCIES, None);
        assert_eq!(vp.write(0x4000_00b0, 0, at(0)), Err(GeneralProtection));
        assert_eq!(vp.write(0x4000_0070, 0, at(0)), Err(GeneralProtection));
        assert_eq!(partition.write(0x4000_0003, 0), Err(GeneralProtection));
        assert_eq!(partition.write(0x4000_0100, 0), Err(GeneralProtection));
        // Linux does this one without asking.
        assert_eq!(vp.write(0x4000_0073, 0x3001, at(0)), Ok(Effect::None));
    }

    #[test]
    fn direct_timers_are_a_feature_of_their_own() {
        let mut interface = WANTED;
        interface.features -= Features::DIRECT_STIMERS;
        let mut vp = VpRegisters::new(0, interface, memory());
        assert_eq!(vp.write(0x4000_00b0, 1 << 12 | 0xed0, at(0)), Err(GeneralProtection));
        assert_eq!(vp.write(0x4000_00b0, 2 << 16, at(0)), Ok(Effect::Timers));
    }
}

mod per_vp {
    use super::*;

    #[test]
    fn registers_are_read_as_they_were_written() {
        let mut vp = vp();
        let value = 0xfedc_ba98_7654_3ffe;
        for msr in [0x4000_0080, 0x4000_0082, 0x4000_0083, 0x4000_0073] {
            vp.write(msr, value, at(0)).unwrap();
            assert_eq!(read(&vp, msr), value, "{msr:#x}");
        }
        let mut sints = vec![];
        for (index, msr) in (0..16).zip(0x4000_0090..) {
            let value = 0xffff_ffff_fff8_0040 + index;
            sints.push(vp.write(msr, value, at(0)));
            assert_eq!(read(&vp, msr), value);
        }
        assert!(matches!(sints[15], Ok(Effect::Sint(15, sint)) if sint.vector() == Some(0x4f)));
        assert_eq!(read(&vp, 0x4000_0002), 3);
        assert_eq!(read(&vp, 0x4000_0081), 1);
        assert_eq!(read(&vp, 0x4000_0084), 0);
        assert_eq!(vp.read(0x4000_0010, Now { reference: 1, runtime: 2 }), Ok(Value::Is(2)));
    }

    #[test]
    fn what_is_read_only_or_write_only() {
        let mut vp = vp();
        for msr in [0x4000_0002, 0x4000_0010, 0x4000_0081] {
            assert_eq!(vp.write(msr, 0, at(0)), Err(GeneralProtection), "{msr:#x}");
        }
        assert_eq!(vp.read(0x4000_0070, at(0)), Err(GeneralProtection), "EOI");
    }

    #[test]
    fn pages_count_as_the_three_registers_say_together() {
        let mut vp = vp();
        vp.write(0x4000_0083, 0x3001, at(0)).unwrap();
        vp.write(0x4000_0082, 0x4001, at(0)).unwrap();
        let pages = SynicRegisters { control: 1, message_page: 0x3001, event_page: 0x4001 };
        assert_eq!(vp.write(0x4000_0080, 1, at(0)), Ok(Effect::Pages(pages)));
        assert_eq!(vp.write(0x4000_0084, 0, at(0)), Ok(Effect::EndOfMessage));
    }

    #[test]
    fn after_reset_sources_are_masked_and_nothing_is_enabled() {
        let vp = vp();
        assert!((0x4000_0090..=0x4000_009f).all(|msr| read(&vp, msr) == 0x1_0000));
        for msr in [0x4000_0080, 0x4000_0082, 0x4000_0083, 0x4000_00b0, 0x4000_00b7] {
            assert_eq!(read(&vp, msr), 0);
        }
    }

    #[test]
    fn a_source_has_a_vector_unless_it_is_masked() {
        let mut vp = vp();
        assert_eq!(vp.write(0x4000_0092, 0x0f, at(0)), Err(GeneralProtection));
        assert_eq!(read(&vp, 0x4000_0092), 0x1_0000, "as it was");
        vp.write(0x4000_0092, 0x1_0000, at(0)).unwrap();
        assert_eq!(vp.sint(2).vector(), None);
        vp.write(0x4000_0092, 0xf3, at(0)).unwrap();
        assert_eq!((vp.sint(2).vector(), vp.sint(2).is_auto_eoi()), (Some(0xf3), false));
        vp.write(0x4000_0092, 0x2_00f3, at(0)).unwrap();
        assert!(vp.sint(2).is_auto_eoi());
        vp.write(0x4000_0092, 0x4_00f3, at(0)).unwrap();
        assert_eq!((vp.sint(2).vector(), vp.sint(2).is_masked()), (None, false), "polled");
        assert_eq!(vp.sint(16), Sint::RESET);
    }

    #[test]
    fn the_apic_is_somebody_elses() {
        let mut vp = vp();
        assert_eq!(vp.write(0x4000_0070, 0, at(0)), Ok(Effect::EndOfInterrupt));
        let icr = 5 << 56 | 0x40f3;
        assert_eq!(vp.write(0x4000_0071, icr, at(0)), Ok(Effect::InterruptCommand(icr)));
        assert_eq!(read(&vp, 0x4000_0071), icr);
        assert_eq!(vp.write(0x4000_0072, 0x20, at(0)), Ok(Effect::TaskPriority(0x20)));
        assert_eq!(vp.write(0x4000_0072, 0x120, at(0)), Err(GeneralProtection));
        assert_eq!(vp.read(0x4000_0072, at(0)), Ok(Value::TaskPriority));
    }

    #[test]
    fn the_assist_page_never_says_that_no_eoi_is_needed() {
        let memory = memory();
        memory.write_obj(!0_u64, GuestAddress(0x3000)).unwrap();
        let mut vp = VpRegisters::new(0, WANTED, memory.clone());
        vp.write(0x4000_0073, 0x3000, at(0)).unwrap();
        assert_eq!(memory.read_obj::<u64>(GuestAddress(0x3000)).unwrap(), !0, "not enabled");
        vp.write(0x4000_0073, 0x3001, at(0)).unwrap();
        assert_eq!(memory.read_obj::<u64>(GuestAddress(0x3000)).unwrap(), !0 << 32);
        assert_eq!(vp.write(0x4000_0073, RAM | 1, at(0)), Ok(Effect::None), "no RAM, no harm");
    }
}

mod timers {
    use super::*;

    const CONFIG: u32 = 0x4000_00b0;
    const COUNT: u32 = 0x4000_00b1;
    const ENABLE: u64 = 1;
    const PERIODIC: u64 = 2;
    const AUTO_ENABLE: u64 = 8;
    const DIRECT: u64 = 1 << 12 | 0xed << 4;
    const SINT4: u64 = 4 << 16;

    /// Runs the timers; returns what they delivered, and when to come again.
    fn run(vp: &mut VpRegisters, now: u64, answer: Delivered) -> (Vec<Expiry>, Option<u64>) {
        let mut delivered = Vec::new();
        let next = vp.run_timers(now, &mut |expiry| {
            delivered.push(expiry);
            answer
        });
        (delivered, next)
    }

    /// Linux's way (`drivers/clocksource/hyperv_timer.c`): auto-enable, and then a count for each
    /// event.
    #[test]
    fn a_one_shot_expires_once_at_its_count() {
        let mut vp = vp();
        vp.write(CONFIG, AUTO_ENABLE | DIRECT, at(0)).unwrap();
        assert_eq!(vp.write(COUNT, 1000, at(400)), Ok(Effect::Timers));
        assert_eq!(read(&vp, CONFIG), ENABLE | AUTO_ENABLE | DIRECT);
        assert_eq!(run(&mut vp, 999, Delivered::Yes), (vec![], Some(1000)));
        let expiry = Expiry { timer: 0, due: 1000, notice: Notice::Vector(0xed) };
        assert_eq!(run(&mut vp, 1000, Delivered::Yes), (vec![expiry], None));
        assert_eq!(read(&vp, CONFIG), AUTO_ENABLE | DIRECT, "it has switched itself off");
        assert_eq!(read(&vp, COUNT), 1000);
        assert_eq!(run(&mut vp, 5000, Delivered::Yes), (vec![], None));
    }

    #[test]
    fn a_count_in_the_past_expires_at_once() {
        let mut vp = vp();
        vp.write(CONFIG, AUTO_ENABLE | DIRECT, at(0)).unwrap();
        vp.write(COUNT, 5, at(400)).unwrap();
        assert_eq!(run(&mut vp, 400, Delivered::Yes).0.len(), 1);
    }

    #[test]
    fn a_count_of_zero_stops_the_timer() {
        let mut vp = vp();
        vp.write(CONFIG, AUTO_ENABLE | DIRECT, at(0)).unwrap();
        vp.write(COUNT, 1000, at(0)).unwrap();
        vp.write(COUNT, 0, at(0)).unwrap();
        assert_eq!(run(&mut vp, 2000, Delivered::Yes), (vec![], None));
        assert_eq!(read(&vp, CONFIG), AUTO_ENABLE | DIRECT);
    }

    #[test]
    fn without_auto_enable_a_count_waits_for_the_config() {
        let mut vp = vp();
        vp.write(COUNT + 2, 1000, at(0)).unwrap();
        assert_eq!(run(&mut vp, 2000, Delivered::Yes), (vec![], None));
        vp.write(CONFIG + 2, ENABLE | DIRECT, at(0)).unwrap();
        assert_eq!(run(&mut vp, 2000, Delivered::Yes).0[0].timer, 1);
    }

    #[test]
    fn a_periodic_timer_goes_on_and_does_not_catch_up() {
        let mut vp = vp();
        vp.write(COUNT, 10_000, at(0)).unwrap();
        vp.write(CONFIG, ENABLE | PERIODIC | DIRECT, at(500)).unwrap();
        assert_eq!(run(&mut vp, 10_499, Delivered::Yes), (vec![], Some(10_500)));
        assert_eq!(run(&mut vp, 10_500, Delivered::Yes).1, Some(20_500));
        // Three ticks late: one is delivered, and the grid stays.
        let (delivered, next) = run(&mut vp, 45_000, Delivered::Yes);
        assert_eq!((delivered.len(), delivered[0].due, next), (1, 20_500, Some(50_500)));
        assert_eq!(read(&vp, CONFIG), ENABLE | PERIODIC | DIRECT);
    }

    #[test]
    fn a_period_has_a_lower_bound() {
        let mut vp = vp();
        vp.write(COUNT, 1, at(0)).unwrap();
        vp.write(CONFIG, ENABLE | PERIODIC | DIRECT, at(0)).unwrap();
        let (_, next) = run(&mut vp, 1_000_000, Delivered::Yes);
        assert!(next.unwrap() >= 1_000_500, "{next:?}");
        assert_eq!(read(&vp, COUNT), 1);
    }

    #[test]
    fn a_message_waits_until_its_source_is_unmasked() {
        let mut vp = vp();
        vp.write(CONFIG, AUTO_ENABLE | SINT4, at(0)).unwrap();
        vp.write(COUNT, 1000, at(0)).unwrap();
        assert_eq!(run(&mut vp, 1000, Delivered::Yes), (vec![], None));
        assert!(vp.timer_waits());
        vp.write(0x4000_0094, 0x40, at(0)).unwrap();
        assert_eq!(run(&mut vp, 1000, Delivered::Yes).0.len(), 1);
        assert!(!vp.timer_waits());
    }

    #[test]
    fn a_message_that_finds_no_room_is_tried_again() {
        let mut vp = vp();
        vp.write(0x4000_0094, 0x40, at(0)).unwrap();
        vp.write(CONFIG, AUTO_ENABLE | SINT4, at(0)).unwrap();
        vp.write(COUNT, 1000, at(0)).unwrap();
        let expiry = Expiry { timer: 0, due: 1000, notice: Notice::Message(4) };
        assert_eq!(run(&mut vp, 1000, Delivered::Later), (vec![expiry], None), "not by the clock");
        assert!(vp.timer_waits());
        assert_eq!(read(&vp, CONFIG), ENABLE | AUTO_ENABLE | SINT4, "not over yet");
        assert_eq!(run(&mut vp, 1700, Delivered::Yes), (vec![expiry], None));
        assert!(!vp.timer_waits());
        assert_eq!(run(&mut vp, 1700, Delivered::Yes), (vec![], None));
    }

    #[test]
    fn a_tick_that_finds_no_room_is_lost() {
        let mut vp = vp();
        vp.write(COUNT, 10_000, at(0)).unwrap();
        vp.write(CONFIG, ENABLE | PERIODIC | SINT4, at(0)).unwrap();
        assert_eq!(run(&mut vp, 10_000, Delivered::Later).1, Some(20_000));
        assert!(!vp.timer_waits());
        assert_eq!(run(&mut vp, 10_000, Delivered::Yes), (vec![], Some(20_000)));
    }

    #[test]
    fn a_message_timer_on_sint_0_is_disabled_at_once() {
        let mut vp = vp();
        vp.write(COUNT, 1000, at(0)).unwrap();
        vp.write(CONFIG, ENABLE | PERIODIC, at(0)).unwrap();
        assert_eq!(read(&vp, CONFIG), PERIODIC);
        vp.write(CONFIG, AUTO_ENABLE, at(0)).unwrap();
        vp.write(COUNT, 1000, at(0)).unwrap();
        assert_eq!(read(&vp, CONFIG), AUTO_ENABLE);
        assert_eq!(run(&mut vp, 9999, Delivered::Yes), (vec![], None));
    }

    #[test]
    fn the_earliest_of_four_timers_counts() {
        let mut vp = vp();
        for (index, count) in (0..4).zip([4000, 2000, 3000, 0]) {
            vp.write(CONFIG + 2 * index, AUTO_ENABLE | DIRECT, at(0)).unwrap();
            vp.write(COUNT + 2 * index, count, at(0)).unwrap();
        }
        assert_eq!(run(&mut vp, 0, Delivered::Yes).1, Some(2000));
        let (delivered, next) = run(&mut vp, 3500, Delivered::Yes);
        assert_eq!(delivered.iter().map(|e| e.timer).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(next, Some(4000));
    }

    #[test]
    fn no_count_and_no_period_overflows() {
        let mut vp = vp();
        vp.write(COUNT, u64::MAX, at(0)).unwrap();
        vp.write(CONFIG, ENABLE | PERIODIC | DIRECT, at(u64::MAX - 5)).unwrap();
        assert_eq!(run(&mut vp, u64::MAX, Delivered::Yes).1, Some(u64::MAX));
    }
}
