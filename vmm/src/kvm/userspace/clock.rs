// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reference time: by the guest's own TSC where that can be known from outside, else by the host's
//! clock, and then without a page for the guest.
//!
//! The host reads its TSC and adds what KVM adds for the guest. All vCPUs of a machine have the
//! same offset and the host's own rate as long as the host's TSCs agree, which is when it keeps
//! its own time by them (`arch/x86/kvm/x86.c`, `kvm_synchronize_tsc`, `gtod_is_based_on_tsc`).

use std::fs;
use std::time::Instant;

use busway_hyperv::cpuid::{Access, Interface};
use busway_hyperv::reference_tsc::ReferenceTsc;

use super::super::{KvmError, Vcpu, ioctl};

/// The file that names the host's clock.
pub const CLOCKSOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// The host's clock.
pub(super) fn source() -> String {
    fs::read_to_string(CLOCKSOURCE).unwrap_or_default()
}

/// Whether a host whose clock is `source` keeps time by its TSC.
pub fn is_by_tsc(source: &str) -> bool {
    matches!(source.trim(), "tsc" | "hyperv_clocksource_tsc_page")
}

/// A machine's reference time.
pub(super) enum Clock {
    /// From the guest's TSC, which is the host's and this much more.
    Tsc { page: ReferenceTsc, offset: u64 },
    /// Since then.
    Host(Instant),
}

impl Clock {
    /// A clock that starts now, for a guest that is offered `interface` and whose TSC has
    /// `frequency` Hz.
    pub(super) fn new(
        interface: Interface,
        vcpu: Option<&Vcpu>,
        frequency: u64,
    ) -> Result<Self, KvmError> {
        if let Some(vcpu) = vcpu
            && interface.access.contains(Access::REFERENCE_TSC)
        {
            let offset = vcpu.tsc_offset()?;
            let start = ioctl::host_tsc().wrapping_add(offset);
            if let Some(page) = ReferenceTsc::new(frequency, start) {
                return Ok(Self::Tsc { page, offset });
            }
        }
        Ok(Self::Host(Instant::now()))
    }

    /// Now, in 100 ns.
    pub(super) fn now(&self) -> u64 {
        match self {
            Self::Tsc { page, offset } => page.at(ioctl::host_tsc().wrapping_add(*offset)),
            Self::Host(start) => {
                u64::try_from(start.elapsed().as_nanos() / 100).unwrap_or(u64::MAX)
            }
        }
    }

    /// What the guest's reference TSC page says.
    pub(super) const fn page(&self) -> Option<ReferenceTsc> {
        match self {
            Self::Tsc { page, .. } => Some(*page),
            Self::Host(_) => None,
        }
    }
}
