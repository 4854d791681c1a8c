// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host's KVM: whether it can be opened, and what it can do.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use busway_hyperv::cpuid::{Interface, Leaf, NEEDED};
use kvm_bindings::{
    KVM_API_VERSION, KVM_CAP_GET_TSC_KHZ, KVM_CAP_HYPERV_ENFORCE_CPUID, KVM_CAP_HYPERV_EVENTFD,
    KVM_CAP_HYPERV_SYNIC2, KVM_CAP_IOEVENTFD, KVM_CAP_IRQ_ROUTING, KVM_CAP_IRQCHIP, KVM_CAP_IRQFD,
    KVM_CAP_PIT2, KVM_CAP_SIGNAL_MSI, KVM_CAP_SYS_HYPERV_CPUID, KVM_CAP_USER_MEMORY,
    KVM_CAP_X86_MSR_FILTER, KVM_CAP_X86_USER_SPACE_MSR, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
use kvm_ioctls::Kvm;

use super::engine::KvmEngine;
use super::userspace::UserspaceEngine;
use super::{During, KvmError, ioctl};
use crate::engine::EngineKind;
use crate::spec::HypervSpec;

/// The host's KVM.
pub struct Host {
    kvm: Kvm,
    supported_cpuid: Vec<kvm_cpuid_entry2>,
}

/// KVM cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device cannot be opened.
    #[error("cannot open {path}: {remedy}", path = path.display())]
    Open {
        /// The device.
        path: PathBuf,
        /// What to do.
        remedy: String,
        /// The system's reason.
        source: io::Error,
    },
    /// It is some other device.
    #[error("{path} is not KVM's device: give --kvm the path of it, usually /dev/kvm",
        path = path.display())]
    NotKvm {
        /// The device.
        path: PathBuf,
    },
    /// It lacks something.
    #[error("this KVM cannot {purpose} ({name}): {remedy}; `busway check` tells more")]
    Lacks {
        /// What it is needed for.
        purpose: &'static str,
        /// KVM's name.
        name: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A query failed.
    #[error(transparent)]
    Kvm(#[from] KvmError),
}

/// One thing that KVM may be able to do.
#[derive(Clone, Debug)]
pub struct Support {
    /// KVM's or the TLFS's name.
    pub name: String,
    /// What busway does with it, as what follows "can".
    pub purpose: &'static str,
    /// Who cannot do without it.
    pub need: Need,
    /// It is there.
    pub present: bool,
    /// What to do if it is not.
    pub remedy: Option<&'static str>,
}

/// Who cannot do without something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Any guest.
    Every,
    /// Guests of one engine.
    Engine(EngineKind),
    /// Nobody.
    Nobody,
}

impl Need {
    /// Whether guests of `kind` need it.
    pub fn is_for(self, kind: EngineKind) -> bool {
        match self {
            Self::Every => true,
            Self::Engine(engine) => engine == kind,
            Self::Nobody => false,
        }
    }
}

/// The engine that guests get, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub kind: EngineKind,
    /// Why, as what follows "because".
    pub reason: String,
}

const NEWER_KERNEL: &str = "use a host kernel of 5.16 or later";
const WITH_HYPERV: &str = "use a host kernel with CONFIG_KVM_HYPERV=y (part of every distribution's \
     kernel) and hardware virtualization, or the emulated host of `cargo xtask lab`";

const KVM_ONLY: Need = Need::Engine(EngineKind::Kvm);
const USERSPACE_ONLY: Need = Need::Engine(EngineKind::Userspace);

/// Capabilities: number, name, purpose, who needs it.
const CAPABILITIES: [(u32, &str, &str, Need); 14] = [
    (KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY", "use our memory", Need::Every),
    (
        KVM_CAP_IRQCHIP,
        "KVM_CAP_IRQCHIP",
        "emulate interrupt controllers in the kernel",
        Need::Every,
    ),
    (KVM_CAP_PIT2, "KVM_CAP_PIT2", "emulate the PC's timer", Need::Every),
    (KVM_CAP_IRQFD, "KVM_CAP_IRQFD", "take interrupts from eventfds", Need::Every),
    (KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING", "route interrupts", Need::Every),
    (KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI", "send an interrupt to a processor", Need::Every),
    (
        KVM_CAP_X86_USER_SPACE_MSR,
        "KVM_CAP_X86_USER_SPACE_MSR",
        "let busway answer for MSRs",
        Need::Every,
    ),
    (KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER", "let busway choose which MSRs", Need::Every),
    (
        KVM_CAP_HYPERV_SYNIC2,
        "KVM_CAP_HYPERV_SYNIC2",
        "emulate Hyper-V's interrupt controller",
        KVM_ONLY,
    ),
    (
        KVM_CAP_HYPERV_EVENTFD,
        "KVM_CAP_HYPERV_EVENTFD",
        "turn a guest's signals into eventfds",
        KVM_ONLY,
    ),
    (
        KVM_CAP_SYS_HYPERV_CPUID,
        "KVM_CAP_SYS_HYPERV_CPUID",
        "say what it knows of Hyper-V",
        KVM_ONLY,
    ),
    (
        KVM_CAP_HYPERV_ENFORCE_CPUID,
        "KVM_CAP_HYPERV_ENFORCE_CPUID",
        "hold guests to what CPUID offers them",
        Need::Nobody,
    ),
    (
        KVM_CAP_IOEVENTFD,
        "KVM_CAP_IOEVENTFD",
        "turn a write to a port into an eventfd",
        USERSPACE_ONLY,
    ),
    (KVM_CAP_GET_TSC_KHZ, "KVM_CAP_GET_TSC_KHZ", "say how fast a TSC is", USERSPACE_ONLY),
];

impl Need {
    fn remedy(self) -> Option<&'static str> {
        match self {
            Self::Every | USERSPACE_ONLY => Some(NEWER_KERNEL),
            KVM_ONLY => Some(WITH_HYPERV),
            Self::Nobody => None,
        }
    }
}

impl Support {
    fn lacks(&self, remedy: &'static str) -> OpenError {
        OpenError::Lacks { purpose: self.purpose, name: self.name.clone(), remedy }
    }
}

impl Host {
    /// Opens KVM's device at `path`.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| OpenError::NotKvm { path: path.to_owned() })?;
        let kvm = Kvm::new_with_path(name).map_err(|error| {
            let source = io::Error::from(error);
            OpenError::Open { path: path.to_owned(), remedy: remedy(&source), source }
        })?;
        if kvm.get_api_version() != KVM_API_VERSION as i32 {
            return Err(OpenError::NotKvm { path: path.to_owned() });
        }
        let supported_cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .during("say which CPUs it supports")?
            .as_slice()
            .to_vec();
        Ok(Self { kvm, supported_cpuid })
    }

    /// The engine for a guest that asks for `wish`, or for whichever will do. KVM's own comes first:
    /// more of it is in the kernel.
    pub fn choose(&self, wish: HypervSpec) -> Result<Choice, OpenError> {
        let support = self.support()?;
        let lacking = |kind| support.iter().find(|s| !s.present && s.need.is_for(kind));
        let (kvm, userspace) = (lacking(EngineKind::Kvm), lacking(EngineKind::Userspace));
        let chosen = |kind, reason: &str| Ok(Choice { kind, reason: reason.to_owned() });
        match (wish, kvm, userspace) {
            (HypervSpec::Auto, None, _) => chosen(EngineKind::Kvm, "KVM has all of it"),
            (HypervSpec::Auto, Some(Support { name, purpose, .. }), None) => {
                chosen(EngineKind::Userspace, &format!("KVM cannot {purpose} ({name})"))
            }
            (HypervSpec::Kvm, None, _) => chosen(EngineKind::Kvm, "--hyperv says so"),
            (HypervSpec::Userspace, _, None) => chosen(EngineKind::Userspace, "--hyperv says so"),
            (HypervSpec::Kvm, Some(missing), None) => {
                Err(missing.lacks("give --hyperv userspace, which needs nothing of it"))
            }
            (HypervSpec::Auto | HypervSpec::Userspace, _, Some(missing))
            | (HypervSpec::Kvm, Some(missing), _) => Err(missing.lacks(NEWER_KERNEL)),
        }
    }

    /// What guests of the engine are offered.
    pub fn interface(&self, kind: EngineKind) -> Result<Interface, KvmError> {
        match kind {
            EngineKind::Kvm => KvmEngine::offered(self),
            EngineKind::Userspace => Ok(UserspaceEngine::offered()),
        }
    }

    /// Everything that busway asks of KVM.
    pub fn support(&self) -> Result<Vec<Support>, KvmError> {
        let mut all: Vec<_> = CAPABILITIES
            .iter()
            .map(|&(number, name, purpose, need)| Support {
                name: name.to_owned(),
                purpose,
                need,
                present: self.can(number),
                remedy: need.remedy(),
            })
            .collect();
        if self.can(KVM_CAP_SYS_HYPERV_CPUID) {
            all.extend(self.interface_support(self.hyperv_interface()?));
        }
        Ok(all)
    }

    fn interface_support(&self, interface: Interface) -> impl Iterator<Item = Support> {
        let lacks = |purpose, need: Need| {
            move |name: &str| Support {
                name: name.to_owned(),
                purpose,
                need,
                present: false,
                remedy: need.remedy(),
            }
        };
        let needed = interface.missing(NEEDED);
        let wanted = interface.missing(busway_hyperv::cpuid::WANTED);
        let optional: Vec<_> = wanted.into_iter().filter(|name| !needed.contains(name)).collect();
        needed
            .into_iter()
            .map(lacks("offer what VMBus needs of Hyper-V", KVM_ONLY))
            .chain(optional.into_iter().map(lacks("offer all of Hyper-V", Need::Nobody)))
    }

    /// The most vCPUs that KVM advises for a machine.
    pub fn recommended_vcpus(&self) -> usize {
        self.kvm.get_nr_vcpus()
    }

    /// The most vCPUs that a machine can have.
    pub fn max_vcpus(&self) -> usize {
        self.kvm.get_max_vcpus()
    }

    /// Bits of a guest physical address.
    pub fn physical_address_bits(&self) -> u32 {
        let leaf = self.supported_cpuid.iter().find(|entry| entry.function == 0x8000_0008);
        leaf.map_or(36, |entry| entry.eax & 0xff)
    }

    pub(super) fn can(&self, capability: u32) -> bool {
        self.kvm.check_extension_raw(capability.into()) > 0
    }

    pub(super) fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    pub(super) fn supported_cpuid(&self) -> &[kvm_cpuid_entry2] {
        &self.supported_cpuid
    }

    /// What KVM has of what guests want.
    pub(super) fn hyperv_interface(&self) -> Result<Interface, KvmError> {
        let cpuid = ioctl::supported_hv_cpuid(&self.kvm).during("say what it has of Hyper-V")?;
        let leaves: Vec<_> = cpuid
            .as_slice()
            .iter()
            .map(|entry| Leaf {
                function: entry.function,
                eax: entry.eax,
                ebx: entry.ebx,
                ecx: entry.ecx,
                edx: entry.edx,
            })
            .collect();
        Ok(KvmEngine::interface(&leaves))
    }
}

/// What to do when KVM's device cannot be opened.
fn remedy(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no KVM here; load it (modprobe kvm_intel or kvm_amd), \
             switch virtualization on in the firmware, or use the emulated host of \
             `cargo xtask lab`"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "it is not yours to open; join its group (sudo usermod -aG kvm $USER, then log in \
             again) or run as root"
                .to_owned()
        }
        _ => format!("{error}; see that it is KVM's device, usually /dev/kvm"),
    }
}
