// SPDX-License-Identifier: MIT OR Apache-2.0

//! The synthetic MSRs: numbers, names, and the bits that more than one place reads.
//!
//! Source: TLFS, "Synthetic MSRs"; Linux `include/asm-generic/hyperv-tlfs.h`.

/// Declares MSR numbers and a function that names them.
macro_rules! msrs {
    ($( $(#[$meta:meta])* $name:ident = $number:expr; )*) => {
        $( $(#[$meta])* pub const $name: u32 = $number; )*

        /// The name of a synthetic MSR that has one here; SINTs and stimers are named by their
        /// first.
        pub const fn name(msr: u32) -> Option<&'static str> {
            match msr {
                $( $name => Some(stringify!($name)), )*
                _ => None,
            }
        }
    };
}

msrs! {
    /// Who the guest is; 0 switches the hypercall page off.
    GUEST_OS_ID = 0x4000_0000;
    /// The hypercall page: bit 0 enables, 63:12 are its PFN.
    HYPERCALL = 0x4000_0001;
    /// The number of this VP, read-only.
    VP_INDEX = 0x4000_0002;
    /// Writing 1 resets the machine.
    RESET = 0x4000_0003;
    /// Time that this VP ran, in 100 ns.
    VP_RUNTIME = 0x4000_0010;
    /// Time since the machine was made, in 100 ns.
    TIME_REF_COUNT = 0x4000_0020;
    /// The reference TSC page: bit 0 enables, 63:12 are its PFN.
    REFERENCE_TSC = 0x4000_0021;
    /// TSC frequency in Hz.
    TSC_FREQUENCY = 0x4000_0022;
    /// Local APIC timer frequency in Hz.
    APIC_FREQUENCY = 0x4000_0023;
    /// APIC end of interrupt.
    EOI = 0x4000_0070;
    /// APIC interrupt command.
    ICR = 0x4000_0071;
    /// APIC task priority.
    TPR = 0x4000_0072;
    /// The VP assist page: bit 0 enables, 63:12 are its PFN.
    VP_ASSIST_PAGE = 0x4000_0073;
    /// SynIC: bit 0 enables the whole controller of this VP.
    SCONTROL = 0x4000_0080;
    /// SynIC version, read-only.
    SVERSION = 0x4000_0081;
    /// The event flags page: bit 0 enables, 63:12 are its PFN.
    SIEFP = 0x4000_0082;
    /// The message page: bit 0 enables, 63:12 are its PFN.
    SIMP = 0x4000_0083;
    /// End of message: a slot was freed while another message waited.
    EOM = 0x4000_0084;
    /// The first of sixteen synthetic interrupt sources.
    SINT0 = 0x4000_0090;
    /// The last of them.
    SINT15 = 0x4000_009f;
    /// Configuration of the first of four synthetic timers; its count is the next MSR.
    STIMER0_CONFIG = 0x4000_00b0;
    /// Expiry of the first synthetic timer.
    STIMER0_COUNT = 0x4000_00b1;
    /// Expiry of the last one.
    STIMER3_COUNT = 0x4000_00b7;
    /// First of five words that describe a crash.
    CRASH_P0 = 0x4000_0100;
    /// Last of them.
    CRASH_P4 = 0x4000_0104;
    /// What crash reports can carry (read), and the report itself (write).
    CRASH_CTL = 0x4000_0105;
}

/// Every number that is a synthetic MSR or may become one: first, and how many.
pub const RANGE: (u32, u32) = (GUEST_OS_ID, 0x200);

/// Bit 0 of SCONTROL, SIMP, SIEFP and the other page registers.
pub const ENABLE: u64 = 1;

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_have_names() {
        assert_eq!(super::name(0x4000_0084), Some("EOM"));
        assert_eq!(super::name(0x4000_0085), None);
    }
}
