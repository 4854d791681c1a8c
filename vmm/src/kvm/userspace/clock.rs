// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reference time: by the guest's own TSC where that can be known from outside, else by the host's
//! clock, and then without a page for the guest.
//!
//! The host reads its TSC and adds what KVM adds for the guest. All vCPUs of a machine have the
//! same offset and the host's own rate as long as the host's TSCs agree, which is when it keeps
//! its own time by them (`arch/x86/kvm/x86.c`, `kvm_synchronize_tsc`, `gtod_is_based_on_tsc`).
//!
//! The TSC goes on while the machine is paused. Reference time does not: it is behind by what pauses took.

use std::fs;
use std::sync::Mutex;
use std::time::Instant;

use busway_hyperv::cpuid::{Access, Interface};
use busway_hyperv::reference_tsc::ReferenceTsc;

use super::super::{KvmError, Vcpu, ioctl};
use crate::lock;

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
pub(super) struct Clock {
    source: Source,
    pauses: Mutex<Pauses>,
}

enum Source {
    /// From the guest's TSC, which is the host's and this much more.
    Tsc { page: ReferenceTsc, offset: u64 },
    /// Since then.
    Host(Instant),
}

/// In 100 ns.
#[derive(Default)]
struct Pauses {
    /// What all took.
    behind: u64,
    /// Reference time since the last one has begun.
    frozen: Option<u64>,
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
                return Ok(Self::of(Source::Tsc { page, offset }));
            }
        }
        Ok(Self::of(Source::Host(Instant::now())))
    }

    fn of(source: Source) -> Self {
        Self { source, pauses: Mutex::default() }
    }

    /// Now, in 100 ns.
    pub(super) fn now(&self) -> u64 {
        let pauses = lock(&self.pauses);
        pauses.frozen.unwrap_or_else(|| self.source.now().saturating_sub(pauses.behind))
    }

    pub(super) fn is_frozen(&self) -> bool {
        lock(&self.pauses).frozen.is_some()
    }

    /// Stands still.
    pub(super) fn freeze(&self) {
        let mut pauses = lock(&self.pauses);
        let now = self.source.now().saturating_sub(pauses.behind);
        pauses.frozen.get_or_insert(now);
    }

    /// Goes on from there.
    pub(super) fn thaw(&self) {
        let mut pauses = lock(&self.pauses);
        if let Some(frozen) = pauses.frozen.take() {
            pauses.behind = self.source.now().saturating_sub(frozen);
        }
    }

    /// What the guest's reference TSC page says.
    pub(super) fn page(&self) -> Option<ReferenceTsc> {
        match self.source {
            Source::Tsc { page, .. } => Some(page.behind(lock(&self.pauses).behind)),
            Source::Host(_) => None,
        }
    }
}

impl Source {
    fn now(&self) -> u64 {
        match self {
            Self::Tsc { page, offset } => page.at(ioctl::host_tsc().wrapping_add(*offset)),
            Self::Host(start) => {
                u64::try_from(start.elapsed().as_nanos() / 100).unwrap_or(u64::MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_stands_still_and_goes_on_from_there() {
        let clock = Clock::of(Source::Host(Instant::now()));
        clock.freeze();
        let frozen = clock.now();
        thread::sleep(Duration::from_millis(20));
        clock.freeze();
        assert_eq!((clock.now(), clock.is_frozen()), (frozen, true));
        let before = clock.source.now();
        clock.thaw();
        let behind = lock(&clock.pauses).behind;
        assert!(behind >= before - frozen, "{behind} of {}", before - frozen);
        assert!(clock.now() >= frozen && clock.now() <= clock.source.now() - behind);
        assert!(!clock.is_frozen());
    }
}
