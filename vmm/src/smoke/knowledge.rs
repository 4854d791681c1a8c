// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a step that a guest did not take means: what it should have sent next, and why it may not
//! have.
//!
//! Sources: Linux `drivers/hv/connection.c`, `drivers/hv/hv.c`, `drivers/scsi/storvsc_drv.c`,
//! `drivers/net/hyperv/`, `drivers/hv/hv_util.c`, `net/vmw_vsock/hyperv_transport.c`,
//! `drivers/uio/uio_hv_generic.c` and the `Kconfig` of each; TLFS, "Synthetic MSRs" for the guest's
//! identity.

use busway_wire::{Guid, class};

use super::judge::{Expectation, Stage, Subject};

/// What is known of the drivers of a class.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    /// The Linux module.
    pub module: &'static str,
    /// The option of the Linux kernel that makes it.
    pub option: &'static str,
    /// The stage at which such a device is well.
    pub needs: Stage,
    /// The program in the guest without which its driver does not get far. What needs one is not
    /// expected unless it is named.
    pub daemon: Option<&'static str>,
    /// What the guest sends for a version to be agreed on.
    version: &'static str,
    /// What it sends until the handshake is over.
    handshake: &'static str,
    /// What it sends when it uses the device.
    work: &'static str,
    /// Why it may not use it.
    idle: &'static str,
    /// What is said when it does.
    pub works: &'static str,
}

/// A driver of which nothing is known: it is enough that it opens its channel.
const UNKNOWN: Driver = Driver {
    module: "its driver",
    option: "its option",
    needs: Stage::Opened,
    daemon: None,
    version: "the first packet of its protocol",
    handshake: "the rest of its handshake",
    work: "its first request",
    idle: "nobody in the guest used the device",
    works: "in use",
};

const STORAGE: Driver = Driver {
    module: "hv_storvsc",
    option: "CONFIG_HYPERV_STORAGE",
    needs: Stage::Worked,
    version: "BEGIN_INITIALIZATION, then QUERY_PROTOCOL_VERSION with 2.0, 4.2, 5.1, 6.0 or 6.2",
    handshake: "QUERY_PROPERTIES and END_INITIALIZATION",
    work: "a READ of a disk",
    idle: "no disk driver read the disks that it found: sd_mod (CONFIG_BLK_DEV_SD) is missing, \
           or the guest stopped before",
    works: "a disk was read",
    ..UNKNOWN
};

const NETWORK: Driver = Driver {
    module: "hv_netvsc",
    option: "CONFIG_HYPERV_NET",
    needs: Stage::Worked,
    version: "NVSP INIT",
    handshake: "NDIS_VERSION, the GPADLs of its buffers and RNDIS INITIALIZE",
    work: "a frame",
    idle: "nothing in the guest brought the interface up (`ip link set eth0 up`, or a DHCP client)",
    works: "a frame was sent",
    ..UNKNOWN
};

const UTILS: Driver = Driver {
    module: "hv_utils",
    option: "CONFIG_HYPERV_UTILS",
    needs: Stage::Ready,
    version: "its choice of versions",
    handshake: "its choice of versions",
    work: "an answer to a question",
    idle: "the guest's kernel does not answer any more, or stopped before",
    works: "answered",
    ..UNKNOWN
};

const SHUTDOWN: Driver = Driver { works: "can be asked to switch off", ..UTILS };
const TIME_SYNC: Driver =
    Driver { needs: Stage::Worked, works: "took a sample of the time", ..UTILS };
const HEARTBEAT: Driver = Driver { needs: Stage::Worked, works: "answered a beat", ..UTILS };
const KVP: Driver = Driver { daemon: Some("hv_kvp_daemon"), ..UTILS };
const VSS: Driver = Driver { daemon: Some("hv_vss_daemon"), ..UTILS };
const FILE_COPY: Driver =
    Driver { daemon: Some("hv_fcopy_daemon (hv_fcopy_uio_daemon since Linux 6.10)"), ..UTILS };
const BALLOON: Driver = Driver {
    module: "hv_balloon",
    option: "CONFIG_HYPERV_BALLOON",
    needs: Stage::Ready,
    version: "VERSION_REQUEST with 2.0 or 1.0",
    handshake: "CAPABILITIES_REPORT",
    works: "lends memory when it is asked to",
    ..UNKNOWN
};
const MOUSE: Driver = Driver {
    module: "hid_hyperv",
    option: "CONFIG_HID_HYPERV_MOUSE",
    needs: Stage::Ready,
    version: "PROTOCOL_REQUEST with 2.0",
    handshake: "INITIAL_DEVICE_INFO_ACK",
    works: "follows the pointer",
    ..UNKNOWN
};
const KEYBOARD: Driver = Driver {
    module: "hyperv_keyboard",
    option: "CONFIG_HYPERV_KEYBOARD",
    needs: Stage::Ready,
    version: "PROTOCOL_REQUEST with 1.0",
    handshake: "PROTOCOL_REQUEST with 1.0",
    works: "takes keys",
    ..UNKNOWN
};
const VIDEO: Driver = Driver {
    module: "hyperv_drm or hyperv_fb",
    option: "CONFIG_DRM_HYPERV, CONFIG_FB_HYPERV",
    needs: Stage::Ready,
    version: "VERSION_REQUEST with 3.2 or 3.5",
    handshake: "VRAM_LOCATION and a SITUATION_UPDATE that shows a picture in it",
    works: "shows a picture",
    ..UNKNOWN
};

/// What is known of hv_sock, which does nothing by itself.
pub const SOCKETS: Driver = Driver {
    module: "hv_sock",
    option: "CONFIG_HYPERV_VSOCKETS",
    daemon: Some("a program that connects or listens"),
    works: "a connection was made",
    ..UNKNOWN
};

/// What is known of the drivers of raw channels.
pub const RAW: Driver = Driver {
    module: "uio_hv_generic",
    option: "CONFIG_UIO_HV_GENERIC",
    needs: Stage::Worked,
    daemon: Some("a program that sends"),
    works: "a packet came",
    ..UNKNOWN
};

/// What is known of the drivers of `class`.
pub fn driver(class: Guid) -> Driver {
    match class {
        class::SCSI | class::IDE | class::FIBRE_CHANNEL => STORAGE,
        class::NETWORK => NETWORK,
        class::SHUTDOWN => SHUTDOWN,
        class::TIME_SYNC => TIME_SYNC,
        class::HEARTBEAT => HEARTBEAT,
        class::KVP => KVP,
        class::VSS => VSS,
        class::FILE_COPY => FILE_COPY,
        class::BALLOON => BALLOON,
        class::MOUSE => MOUSE,
        class::KEYBOARD => KEYBOARD,
        class::VIDEO => VIDEO,
        _ => UNKNOWN,
    }
}

/// Why an expectation is not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What the guest should have sent next.
    pub next: String,
    /// Why it may not have.
    pub why: String,
}

/// What is missing of `expectation`. `all` are those of the same guest: what one rests on comes
/// first.
pub fn missing(expectation: &Expectation, all: &[Expectation]) -> Missing {
    let last = expectation.last().map(|(stage, _)| stage);
    let is_missing =
        |subject| all.iter().any(|other| other.subject == subject && other.met().is_none());
    let missing = match expectation.subject {
        Subject::Hypervisor => hypervisor(last),
        Subject::Vmbus if is_missing(Subject::Hypervisor) => {
            see("hypervisor", "a write to SCONTROL")
        }
        Subject::Vmbus => vmbus(last),
        _ if is_missing(Subject::Vmbus) => see("vmbus", "OPEN_CHANNEL"),
        Subject::Sockets => sockets(last),
        Subject::Raw { class, .. } => raw(class, last),
        Subject::Device { class, .. } => device(&driver(class), last),
    };
    let Missing { next, why } = missing;
    match &expectation.failure {
        Some(failure) => Missing { next, why: format!("{failure}; {why}") },
        None => Missing { next, why },
    }
}

fn as_said(next: &str, why: &str) -> Missing {
    Missing { next: next.to_owned(), why: why.to_owned() }
}

fn see(name: &str, next: &str) -> Missing {
    as_said(next, &format!("it comes after {name}, which is missing too: see there"))
}

fn hypervisor(last: Option<Stage>) -> Missing {
    match last {
        None => as_said(
            "a write to GUEST_OS_ID (MSR 0x40000000)",
            "the kernel did not find Hyper-V, or stopped before it looked: it needs \
             CONFIG_HYPERVISOR_GUEST and CONFIG_HYPERV, and no nopv on its command line",
        ),
        Some(_) => as_said(
            "a write to the hypercall MSR (0x40000001) with bit 0 set",
            "the kernel found Hyper-V and stopped before its hypercall page was set up",
        ),
    }
}

fn vmbus(last: Option<Stage>) -> Missing {
    match last {
        None => as_said(
            "a write to SCONTROL (MSR 0x40000080) with bit 0 set",
            "the guest found Hyper-V but never wrote SynIC's SCONTROL: no VMBus driver. hv_vmbus \
             must be in the kernel or in its initramfs, and not be forbidden there; since Linux \
             6.18 it needs CONFIG_HYPERV_VMBUS, which CONFIG_HYPERV does not bring any more",
        ),
        Some(Stage::Synic) => as_said(
            "INITIATE_CONTACT",
            "the VMBus driver started and posted no message: it failed between the two, or the \
             guest stopped",
        ),
        Some(Stage::Contact) => as_said(
            "INITIATE_CONTACT with a version between 0.13 and 6.0",
            "the driver speaks no version that the host does, or hv_vmbus.max_version allows none",
        ),
        Some(_) => as_said(
            "REQUEST_OFFERS",
            "the driver connected and stopped; its messages are on the serial port",
        ),
    }
}

fn device(driver: &Driver, last: Option<Stage>) -> Missing {
    let Driver { module, option, .. } = driver;
    match last {
        None | Some(Stage::Offered) => as_said(
            "OPEN_CHANNEL",
            &format!(
                "no driver took the device: {module} ({option}) must be in the kernel or in its \
                 initramfs, and not be forbidden there"
            ),
        ),
        Some(Stage::Opened) => as_said(
            driver.version,
            &match driver.daemon {
                Some(daemon) => format!("{module} answers when {daemon} runs in the guest"),
                None => format!("{module} opened its channel and speaks no version of the host's"),
            },
        ),
        Some(Stage::Version) => {
            as_said(driver.handshake, &format!("{module} gave up in the middle of its handshake"))
        }
        Some(_) => as_said(driver.work, driver.idle),
    }
}

fn sockets(last: Option<Stage>) -> Missing {
    match last {
        None => as_said(
            "TL_CONNECT_REQUEST, or OPEN_CHANNEL of a connection of the host's",
            "no connection came about, and no guest makes one by itself: a program in it has to \
             connect to CID 2 and a port on which one of the host listens (DIR/vsock_PORT), or \
             listen on a port that one of the host asks for (CONNECT PORT on DIR/vsock). The guest \
             needs hv_sock (CONFIG_HYPERV_VSOCKETS), which connects by VMBus 4.0 or newer",
        ),
        Some(_) => as_said(
            "OPEN_CHANNEL",
            "the guest did not take the connection: nobody listens on that port in it, or hv_sock \
             (CONFIG_HYPERV_VSOCKETS) is not loaded",
        ),
    }
}

fn raw(class: Guid, last: Option<Stage>) -> Missing {
    match last {
        None | Some(Stage::Offered) => as_said(
            "OPEN_CHANNEL",
            &format!(
                "no driver opened the channel: one for class {class} must be loaded; or, for a \
                 program in the guest, uio_hv_generic (CONFIG_UIO_HV_GENERIC) has to be given it \
                 (echo {class} > /sys/bus/vmbus/drivers/uio_hv_generic/new_id), and the program \
                 has to open /dev/uio0"
            ),
        ),
        Some(_) => as_said(
            "its first packet",
            "the channel is open and no packet was taken from it: the driver sent none; or no \
             program of the host's is connected to the channel's socket (unix=); or the driver \
             signals by the monitor page, as uio_hv_generic does, and --raw lacks monitor",
        ),
    }
}

/// Who a guest says that it is.
///
/// Source: TLFS, "Reporting the Guest OS Identity"; Linux `hv_generate_guest_id` of
/// `include/asm-generic/mshyperv.h`.
pub fn guest_name(guest_os_id: u64) -> String {
    const OPEN_SOURCE: u64 = 1 << 63;
    if guest_os_id & OPEN_SOURCE == 0 {
        return format!("guest {guest_os_id:#x}");
    }
    match guest_os_id >> 56 & 0x7f {
        1 => {
            let part = |shift: u32| guest_os_id >> shift & 0xff;
            let major = guest_os_id >> 32 & 0xffff;
            format!("Linux {major}.{}.{}", part(24), part(16))
        }
        2 => "FreeBSD, or one that says so".to_owned(),
        _ => format!("guest {guest_os_id:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_have_names() {
        // 0x8100 << 48 | LINUX_VERSION_CODE << 16.
        assert_eq!(guest_name(0x8100_0006_01c0_0000), "Linux 6.1.192");
        assert_eq!(guest_name(0x8200_0000_0000_0000), "FreeBSD, or one that says so");
        assert_eq!(guest_name(0x0001_0400_0000_0000), "guest 0x1040000000000");
    }

    #[test]
    fn every_class_that_has_a_driver_of_its_own_says_which() {
        let without = [class::NETWORK_DIRECT, class::PCI_EXPRESS];
        for (name, class) in class::ALL.iter().filter(|(_, class)| !without.contains(class)) {
            assert!(driver(*class).option.starts_with("CONFIG_"), "{name}");
        }
    }
}
