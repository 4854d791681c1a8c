// SPDX-License-Identifier: MIT OR Apache-2.0

//! A vCPU's CPUID: what KVM supports, with one socket of single-threaded cores, and with
//! busway's hypervisor leaves in place of KVM's.
//!
//! KVM's own leaves must go: Linux takes the hypervisor whose leaves start highest, and KVM's
//! could be told to start at 0x40000100.
//!
//! Sources: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.

use busway_hyperv::cpuid::Leaf;
use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use vmm_sys_util::errno::Error as Errno;

/// Where a vCPU is among its kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Its number, which is its APIC id.
    pub(super) index: u32,
    /// How many there are.
    pub(super) count: u32,
}

impl Place {
    /// Bits of an APIC id that number cores.
    fn core_bits(self) -> u32 {
        self.count.next_power_of_two().trailing_zeros()
    }
}

/// The CPUID of the vCPU at `place`.
pub(super) fn for_vcpu(
    supported: &[kvm_cpuid_entry2],
    place: Place,
    hypervisor: &[Leaf],
) -> Result<CpuId, Errno> {
    let mut entries: Vec<_> = supported
        .iter()
        .filter(|entry| !matches!(entry.function, 0x4000_0000..=0x4fff_ffff | 0xb | 0x1f))
        .map(|&entry| placed(entry, place))
        .collect();
    if supported.iter().any(|entry| entry.function == 0 && entry.eax >= 0xb) {
        entries.extend(extended_topology(place));
    }
    entries.extend(hypervisor.iter().map(|leaf| kvm_cpuid_entry2 {
        function: leaf.function,
        eax: leaf.eax,
        ebx: leaf.ebx,
        ecx: leaf.ecx,
        edx: leaf.edx,
        ..Default::default()
    }));
    CpuId::from_entries(&entries).map_err(|_| Errno::new(libc::E2BIG))
}

/// Replaces `bits` of `register` by `value`, which is in place.
fn replace(register: &mut u32, bits: u32, value: u32) {
    *register = *register & !bits | value & bits;
}

const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
const HYPER_THREADING: u32 = 1 << 28;

/// `entry` as the vCPU at `place` sees it.
fn placed(mut entry: kvm_cpuid_entry2, place: Place) -> kvm_cpuid_entry2 {
    let Place { index, count } = place;
    let many = count > 1;
    match entry.function {
        1 => {
            replace(&mut entry.ebx, 0xff << 24, index << 24);
            replace(&mut entry.ebx, 0xff << 16, count << 16);
            // The local APIC is KVM's, which has both; KVM leaves the second to its user.
            entry.ecx |= X2APIC | TSC_DEADLINE | HYPERVISOR;
            replace(&mut entry.edx, HYPER_THREADING, if many { HYPER_THREADING } else { 0 });
        }
        // Deterministic cache parameters; bits 7:5 are the level.
        4 | 0x8000_001d if entry.eax & 0x1f != 0 => {
            let sharing = if entry.eax >> 5 & 7 == 3 { count - 1 } else { 0 };
            replace(&mut entry.eax, 0xfff << 14, sharing << 14);
            if entry.function == 4 {
                replace(&mut entry.eax, 0x3f << 26, (count - 1) << 26);
            }
        }
        0x8000_0008 => {
            replace(&mut entry.ecx, 0xff, count - 1);
            replace(&mut entry.ecx, 0xf << 12, place.core_bits() << 12);
        }
        0x8000_001e => {
            entry.eax = index;
            entry.ebx = index;
            entry.ecx = 0;
        }
        _ => {}
    }
    entry
}

/// Leaf 0xb: threads, then cores.
fn extended_topology(place: Place) -> [kvm_cpuid_entry2; 3] {
    const THREAD: u32 = 1 << 8;
    const CORE: u32 = 2 << 8;
    let level = |level, shift, logical, kind| kvm_cpuid_entry2 {
        function: 0xb,
        index: level,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: logical,
        ecx: level | kind,
        edx: place.index,
        ..Default::default()
    };
    [level(0, 0, 1, THREAD), level(1, place.core_bits(), place.count, CORE), level(2, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() }
    }

    fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        let mut found =
            cpuid.as_slice().iter().filter(|e| e.function == function && e.index == index);
        let entry = *found.next().unwrap();
        assert!(found.next().is_none(), "leaf {function:#x} is there twice");
        entry
    }

    /// What an EPYC host's KVM reports, as far as it matters here.
    fn supported() -> Vec<kvm_cpuid_entry2> {
        vec![
            entry(0, [0xd, 0, 0, 0]),
            entry(1, [0x80_0f12, 0x0702_0800, 0, 0]),
            entry(0xb, [9, 9, 9, 9]),
            entry(0x4000_0000, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
            entry(0x4000_0001, [0x0100_7efb, 0, 0, 0]),
            entry(0x8000_0008, [0x3028, 0, 0x7007, 0]),
            entry(0x8000_001d, [0x0001_c163, 0, 0, 0]),
            entry(0x8000_001e, [7, 0x103, 0x100, 0]),
        ]
    }

    #[test]
    fn no_leaf_of_kvms_is_left() {
        let hypervisor = [Leaf { function: 0x4000_0000, ebx: 0x7263_694d, ..Leaf::default() }];
        let cpuid = for_vcpu(&supported(), Place { index: 0, count: 1 }, &hypervisor).unwrap();
        assert_eq!(find(&cpuid, 0x4000_0000, 0).ebx, 0x7263_694d);
        assert!(cpuid.as_slice().iter().all(|entry| entry.function != 0x4000_0001));
        assert_ne!(find(&cpuid, 1, 0).ecx & 1 << 31, 0, "a hypervisor is present");
    }

    #[test]
    fn each_vcpu_is_a_core_of_one_socket() {
        let cpuid = for_vcpu(&supported(), Place { index: 5, count: 6 }, &[]).unwrap();
        assert_eq!(find(&cpuid, 1, 0).ebx, 0x0506_0800);
        let core_level = find(&cpuid, 0xb, 1);
        assert_eq!((core_level.eax, core_level.ebx, core_level.edx), (3, 6, 5));
        assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx, 0x3005);
        assert_eq!(find(&cpuid, 0x8000_001d, 0).eax >> 14 & 0xfff, 5, "L3 is everybody's");
        let node = find(&cpuid, 0x8000_001e, 0);
        assert_eq!((node.eax, node.ebx, node.ecx), (5, 5, 0));
    }

    #[test]
    fn a_lone_vcpu_is_no_multiprocessor() {
        let cpuid = for_vcpu(&supported(), Place { index: 0, count: 1 }, &[]).unwrap();
        assert_eq!(find(&cpuid, 1, 0).edx & 1 << 28, 0);
        assert_eq!(find(&cpuid, 0xb, 1).eax, 0);
    }
}
