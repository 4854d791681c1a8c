// SPDX-License-Identifier: MIT OR Apache-2.0

//! The hypervisor's CPUID leaves, 0x40000000 and up.
//!
//! [`Interface`] says what a machine offers; [`Interface::leaves`] puts it into registers and
//! [`Interface::parse`] reads it back from those that an engine says it supports. What busway
//! offers is [`WANTED`] cut down to what the engine can do, so a guest never sees a bit that
//! nobody answers for.
//!
//! Source: TLFS, "Feature and Interface Discovery"; Linux `include/asm-generic/hyperv-tlfs.h` and
//! `arch/x86/kernel/cpu/mshyperv.c`.

use bitflags::bitflags;

/// The first hypervisor leaf, which holds the vendor and the highest leaf.
pub const BASE: u32 = 0x4000_0000;

/// The highest leaf that [`Interface::leaves`] announces.
const MAX: u32 = 0x4000_0006;

/// "Microsoft Hv" as EBX, ECX and EDX hold it.
const VENDOR: [u32; 3] = [0x7263_694d, 0x666f_736f, 0x7648_2074];

/// "Hv#1": the interface is the one of the TLFS. Linux does not look; FreeBSD, NetBSD, iPXE and
/// Windows do.
const INTERFACE: u32 = 0x3123_7648;

/// Windows Server 2016 (10.0.14393): old enough to promise nothing that is not here.
const BUILD: u32 = 14393;
const MAJOR_MINOR: u32 = 10 << 16;

/// The leaves 0x40000080 to 82 are of another interface ("VS#1"). Linux 7.3 reads the last one
/// without asking for that interface, and an Intel CPU answers an unknown leaf with the contents
/// of another: they have to exist and to be zero.
const STACK_LEAVES: std::ops::RangeInclusive<u32> = 0x4000_0080..=0x4000_0082;

bitflags! {
    /// Leaf 0x40000003, EAX: synthetic MSRs that the guest may touch.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Access: u32 {
        /// VP_RUNTIME.
        const VP_RUNTIME = 1 << 0;
        /// TIME_REF_COUNT.
        const REFERENCE_TIME = 1 << 1;
        /// SCONTROL to SINT15.
        const SYNIC = 1 << 2;
        /// The synthetic timers.
        const STIMERS = 1 << 3;
        /// EOI, ICR, TPR and the VP assist page. Linux writes the last one without asking.
        const APIC = 1 << 4;
        /// GUEST_OS_ID and HYPERCALL.
        const HYPERCALL = 1 << 5;
        /// VP_INDEX.
        const VP_INDEX = 1 << 6;
        /// RESET.
        const RESET = 1 << 7;
        /// The reference TSC page.
        const REFERENCE_TSC = 1 << 9;
        /// TSC_FREQUENCY and APIC_FREQUENCY.
        const FREQUENCIES = 1 << 11;
    }
}

bitflags! {
    /// Leaf 0x40000003, EBX: hypercalls that the partition may make.
    ///
    /// Bits that other hosts set are left out on purpose: CreatePartitions (0) and CpuManagement
    /// (12) make Linux believe that it is the root partition, which has no VMBus, and
    /// AccessPartitionId (1) makes Linux 6.1 make a call that ends in BUG().
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Privileges: u32 {
        /// HvPostMessage.
        const POST_MESSAGES = 1 << 4;
        /// HvSignalEvent.
        const SIGNAL_EVENTS = 1 << 5;
        /// The calls from 0x8001 on.
        const EXTENDED_HYPERCALLS = 1 << 20;
    }
}

bitflags! {
    /// Leaf 0x40000003, EDX: other features.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u32 {
        /// Hypercall input in XMM registers.
        const XMM_INPUT = 1 << 4;
        /// The frequency MSRs can be read.
        const FREQUENCIES = 1 << 8;
        /// The crash MSRs.
        const CRASH = 1 << 10;
        /// Synthetic timers can raise a vector directly. The other way, a message on the SINT that
        /// VMBus uses too, would have two writers of one message slot.
        const DIRECT_STIMERS = 1 << 19;
    }
}

bitflags! {
    /// Leaf 0x40000004, EAX: what the guest should do for speed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Hints: u32 {
        /// Flush other VPs' TLBs by hypercall.
        const REMOTE_TLB_FLUSH = 1 << 2;
        /// End interrupts through the VP assist page or the EOI MSR.
        const APIC_ACCESS = 1 << 3;
        /// Do not watch for late timers: a VP may stand still for long.
        const RELAXED_TIMING = 1 << 5;
        /// Do not ask for automatic EOI; it would switch the host's APIC virtualization off.
        const NO_AUTO_EOI = 1 << 9;
        /// Send IPIs by hypercall.
        const CLUSTER_IPI = 1 << 10;
        /// Use the forms of those calls that take sparse VP sets.
        const EX_PROCESSOR_MASKS = 1 << 11;
    }
}

/// One CPUID leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// What is in EAX when CPUID executes.
    pub function: u32,
    /// Results.
    pub eax: u32,
    /// Results.
    pub ebx: u32,
    /// Results.
    pub ecx: u32,
    /// Results.
    pub edx: u32,
}

/// What a machine offers as Hyper-V.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// MSRs.
    pub access: Access,
    /// Hypercalls.
    pub privileges: Privileges,
    /// Other features.
    pub features: Features,
    /// Recommendations.
    pub hints: Hints,
    /// Failed attempts at a spinlock before the guest should make the long-spin call.
    pub spin_retries: u32,
}

/// Everything that busway would offer if the engine could do it all.
pub const WANTED: Interface = Interface {
    access: Access::all(),
    privileges: Privileges::all(),
    features: Features::all(),
    hints: Hints::all(),
    spin_retries: 0xfff,
};

/// What VMBus cannot do without, in any guest.
pub const NEEDED: Interface = Interface {
    access: Access::REFERENCE_TIME
        .union(Access::SYNIC)
        .union(Access::HYPERCALL)
        .union(Access::VP_INDEX)
        .union(Access::APIC),
    privileges: Privileges::POST_MESSAGES.union(Privileges::SIGNAL_EVENTS),
    features: Features::empty(),
    hints: Hints::empty(),
    spin_retries: NEVER_SPIN,
};

/// The value of [`Interface::spin_retries`] that says: never make the call.
pub const NEVER_SPIN: u32 = u32::MAX;

impl Interface {
    /// What `leaves` offer, of all that has a name here.
    pub fn parse(leaves: &[Leaf]) -> Self {
        let find = |function| {
            let known = leaves.iter().find(|leaf| leaf.function == function);
            known.copied().unwrap_or_default()
        };
        let (features, hints) = (find(BASE + 3), find(BASE + 4));
        Self {
            access: Access::from_bits_truncate(features.eax),
            privileges: Privileges::from_bits_truncate(features.ebx),
            features: Features::from_bits_truncate(features.edx),
            hints: Hints::from_bits_truncate(hints.eax),
            spin_retries: if hints.ebx == 0 { NEVER_SPIN } else { hints.ebx },
        }
    }

    /// What both offer.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self {
            access: self.access & other.access,
            privileges: self.privileges & other.privileges,
            features: self.features & other.features,
            hints: self.hints & other.hints,
            spin_retries: if other.spin_retries == NEVER_SPIN {
                NEVER_SPIN
            } else {
                self.spin_retries
            },
        }
    }

    /// The names of what `needed` has and `self` lacks, as the TLFS's bits are called here.
    pub fn missing(self, needed: Self) -> Vec<&'static str> {
        let access = (needed.access - self.access).iter_names();
        let privileges = (needed.privileges - self.privileges).iter_names();
        let features = (needed.features - self.features).iter_names();
        let hints = (needed.hints - self.hints).iter_names();
        access
            .map(|(name, _)| name)
            .chain(privileges.map(|(name, _)| name))
            .chain(features.map(|(name, _)| name))
            .chain(hints.map(|(name, _)| name))
            .collect()
    }

    /// The leaves that say so to a guest, of which at most `max_vps` VPs exist.
    pub fn leaves(self, max_vps: u32) -> Vec<Leaf> {
        let leaf = |function, [eax, ebx, ecx, edx]: [u32; 4]| Leaf { function, eax, ebx, ecx, edx };
        let [vendor_b, vendor_c, vendor_d] = VENDOR;
        let mut leaves = vec![
            leaf(BASE, [MAX, vendor_b, vendor_c, vendor_d]),
            leaf(BASE + 1, [INTERFACE, 0, 0, 0]),
            leaf(BASE + 2, [BUILD, MAJOR_MINOR, 0, 0]),
            leaf(BASE + 3, [self.access.bits(), self.privileges.bits(), 0, self.features.bits()]),
            leaf(BASE + 4, [self.hints.bits(), self.spin_retries, 0, 0]),
            leaf(BASE + 5, [max_vps, max_vps, 0, 0]),
            leaf(MAX, [0; 4]),
        ];
        leaves.extend(STACK_LEAVES.map(|function| leaf(function, [0; 4])));
        leaves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(leaves: &[Leaf], function: u32) -> Leaf {
        *leaves.iter().find(|l| l.function == function).unwrap()
    }

    fn text(registers: [u32; 3]) -> String {
        let bytes = registers.iter().flat_map(|r| r.to_le_bytes()).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_vendor_is_hyper_v_and_the_highest_leaf_exists() {
        let leaves = WANTED.leaves(64);
        let base = leaf(&leaves, 0x4000_0000);
        assert_eq!(text([base.ebx, base.ecx, base.edx]), "Microsoft Hv");
        // Linux takes 0x40000005 to 0x4000ffff (`arch/x86/kernel/cpu/mshyperv.c`).
        assert!((0x4000_0005..=0x4000_ffff).contains(&base.eax));
        leaf(&leaves, base.eax);
        assert_eq!(
            leaf(&leaves, 0x4000_0001).eax.to_le_bytes(),
            *b"Hv#1",
            "FreeBSD and Windows look for it"
        );
    }

    /// The bits by their numbers, as guests test them.
    #[test]
    fn what_linux_needs_is_there_and_what_breaks_it_is_not() {
        let leaves = WANTED.leaves(64);
        let features = leaf(&leaves, 0x4000_0003);
        for bit in [1, 2, 3, 4, 5, 6, 9, 11] {
            assert_ne!(features.eax & 1 << bit, 0, "EAX bit {bit}");
        }
        assert_eq!(features.ebx, 1 << 4 | 1 << 5 | 1 << 20);
        for bit in [8, 10, 19] {
            assert_ne!(features.edx & 1 << bit, 0, "EDX bit {bit}");
        }
        // Guest idle and invariant TSC control: nobody answers for them.
        assert_eq!(features.eax & (1 << 10 | 1 << 15), 0);
    }

    /// A leaf of KVM's at 0x40000100 would win over Hyper-V's in Linux.
    #[test]
    fn there_is_no_second_hypervisor() {
        let leaves = WANTED.leaves(1);
        assert!(leaves.iter().all(|leaf| leaf.function < 0x4000_0100));
        for function in 0x4000_0080..=0x4000_0082 {
            let expected = Leaf { function, ..Leaf::default() };
            assert_eq!(leaf(&leaves, function), expected);
        }
    }

    #[test]
    fn limits_follow_the_number_of_vps() {
        assert_eq!(leaf(&WANTED.leaves(64), 0x4000_0005).eax, 64);
    }

    #[test]
    fn what_the_engine_lacks_is_not_offered() {
        let mut supported = WANTED.leaves(1);
        for leaf in &mut supported {
            match leaf.function {
                0x4000_0003 => {
                    leaf.eax &= !(1 << 9);
                    leaf.edx &= !(1 << 19);
                }
                0x4000_0004 => {
                    leaf.eax &= !(1 << 10);
                    leaf.ebx = u32::MAX;
                }
                _ => {}
            }
        }
        let offered = WANTED.intersection(Interface::parse(&supported));
        assert!(!offered.access.contains(Access::REFERENCE_TSC));
        assert_eq!(offered.access | Access::REFERENCE_TSC, WANTED.access);
        assert_eq!(offered.spin_retries, u32::MAX);
        assert_eq!(offered.missing(WANTED), ["REFERENCE_TSC", "DIRECT_STIMERS", "CLUSTER_IPI"]);
        assert_eq!(offered.missing(NEEDED), Vec::<&str>::new());
    }

    #[test]
    fn an_engine_without_leaves_offers_nothing() {
        let nothing = Interface::parse(&[]);
        assert_eq!(nothing.spin_retries, u32::MAX);
        assert!(nothing.missing(NEEDED).contains(&"SYNIC"));
    }
}
