// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether this machine's KVM can carry busway's guests: by what it can do, not by the device's presence.

use std::fs;
use std::path::Path;

use kvm_bindings as kvm;
use kvm_ioctls::Kvm;

/// What the `kvm` engine and the boot stand on, as of `Documentation/virt/kvm/api.rst`.
const NEEDED: [(u32, &str); 9] = [
    (kvm::KVM_CAP_HYPERV, "KVM_CAP_HYPERV"),
    (kvm::KVM_CAP_HYPERV_SYNIC2, "KVM_CAP_HYPERV_SYNIC2"),
    (kvm::KVM_CAP_HYPERV_EVENTFD, "KVM_CAP_HYPERV_EVENTFD"),
    (kvm::KVM_CAP_HYPERV_VP_INDEX, "KVM_CAP_HYPERV_VP_INDEX"),
    (kvm::KVM_CAP_HYPERV_CPUID, "KVM_CAP_HYPERV_CPUID"),
    (kvm::KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"),
    (kvm::KVM_CAP_IRQFD, "KVM_CAP_IRQFD"),
    (kvm::KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"),
    (kvm::KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"),
];

/// KVM's modules that run guests by the processor's own means.
const HARDWARE: [&str; 2] = ["kvm_intel", "kvm_amd"];

/// Clock sources from which KVM derives a guest's TSC page; without one the guest falls back to slow clocks.
const CLOCKS: [&str; 2] = ["tsc", "hyperv_clocksource_tsc_page"];

/// The first thing that is missing, in one line; `None` when KVM here is whole.
pub(crate) fn what_is_missing() -> Option<String> {
    if !Path::new("/dev/kvm").exists() {
        return Some("this machine has no /dev/kvm".to_owned());
    }
    let device = match Kvm::new() {
        Ok(device) => device,
        Err(error) => return Some(format!("/dev/kvm cannot be opened: {error}")),
    };
    lacking_engine(Path::new("/sys/module"))
        .or_else(|| lacking_capability(|cap| device.check_extension_raw(cap.into())))
        .or_else(|| lacking_clock(Path::new("/sys/devices/system/clocksource/clocksource0")))
}

/// A KVM with another engine (`kvm_pvm` has been met) interprets kernel-mode code or rewrites it: stock
/// kernels do not boot on it, whatever its capabilities say.
fn lacking_engine(modules: &Path) -> Option<String> {
    let hardware = HARDWARE.iter().any(|name| modules.join(name).exists());
    let other = fs::read_dir(modules).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let foreign = name.starts_with("kvm_") && !HARDWARE.contains(&name.as_str());
        foreign.then_some(name)
    });
    match other {
        Some(other) => Some(format!(
            "KVM here is {other}, which does not run guests by the processor's virtualization"
        )),
        None if hardware => None,
        None => Some("KVM here has neither kvm_intel nor kvm_amd behind it".to_owned()),
    }
}

fn lacking_capability(check: impl Fn(u32) -> i32) -> Option<String> {
    let missing = NEEDED.iter().find(|(cap, _)| check(*cap) <= 0)?;
    Some(format!("KVM here has no {}", missing.1))
}

fn lacking_clock(directory: &Path) -> Option<String> {
    let clock = fs::read_to_string(directory.join("current_clocksource")).unwrap_or_default();
    let clock = clock.trim();
    if CLOCKS.contains(&clock) {
        return None;
    }
    Some(format!(
        "this machine's clock source is {clock:?}, from which KVM makes no TSC page for guests"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(names: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        directory
    }

    #[test]
    fn only_hardware_engines_will_do() {
        assert_eq!(lacking_engine(modules(&["kvm", "kvm_amd"]).path()), None);
        assert_eq!(lacking_engine(modules(&["kvm", "kvm_intel"]).path()), None);
        let reason = lacking_engine(modules(&["kvm", "kvm_pvm"]).path()).unwrap();
        assert!(reason.contains("kvm_pvm"), "{reason}");
        // Loaded beside the hardware's module, it may be the one in use.
        assert!(lacking_engine(modules(&["kvm", "kvm_amd", "kvm_pvm"]).path()).is_some());
        assert!(lacking_engine(modules(&["kvm"]).path()).is_some());
    }

    #[test]
    fn the_first_missing_capability_is_named() {
        assert_eq!(lacking_capability(|_| 1), None);
        let lacking = [kvm::KVM_CAP_IRQFD, kvm::KVM_CAP_HYPERV_SYNIC2];
        let without = |cap| i32::from(!lacking.contains(&cap));
        let reason = lacking_capability(without).unwrap();
        assert!(reason.contains("KVM_CAP_HYPERV_SYNIC2"), "{reason}");
    }

    #[test]
    fn a_clock_without_tsc_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("current_clocksource");
        fs::write(&file, "tsc\n").unwrap();
        assert_eq!(lacking_clock(directory.path()), None);
        fs::write(&file, "kvm-clock\n").unwrap();
        let reason = lacking_clock(directory.path()).unwrap();
        assert!(reason.contains("kvm-clock"), "{reason}");
    }
}
