// SPDX-License-Identifier: MIT OR Apache-2.0

//! The devices whose drivers can be attacked. One that is new needs a row here: what its host says, by its wire
//! types, and who makes it speak.

mod components;
mod input;
mod network;
mod others;
mod storage;

use std::fmt::Write as _;
use std::path::Path;

use super::shapes::Shape;
use crate::control::protocol::{Action, Kvp, LinkState, Pool, Request};
use crate::spec::{Size, VmSpec};

/// A device whose driver is meant.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// Its name, as fault scripts have it.
    pub(super) name: &'static str,
    /// What it takes for there to be packets.
    pub(super) needs: &'static str,
    /// What its host says.
    pub(super) shapes: fn() -> Vec<Shape>,
    /// What makes its host speak: asked for in turn while the guest is watched. The file is one that is there.
    pub(super) prods: fn(&VmSpec, &Path) -> Vec<Request>,
}

/// All of them.
pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "storage",
        needs: "--disk; the guest should go on to read and write",
        shapes: storage::shapes,
        prods: nothing,
    },
    Target {
        name: "ide",
        needs: "--disk FILE,bus=ide; the same",
        shapes: storage::shapes,
        prods: nothing,
    },
    Target {
        name: "network",
        needs: "--net loopback; the guest brings the card up and sends, and all comes back",
        shapes: network::shapes,
        prods: network_prods,
    },
    Target {
        name: "heartbeat",
        needs: "nothing more: the host asks every two seconds",
        shapes: components::heartbeat,
        prods: nothing,
    },
    Target {
        name: "timesync",
        needs: "nothing more: the host tells the time every few seconds",
        shapes: components::time_sync,
        prods: |_, _| vec![Request::SetTime],
    },
    Target {
        name: "shutdown",
        needs: "nothing more: the host asks, and the guest is gone (--per-boot 2 will do)",
        shapes: components::shutdown,
        prods: |_, _| vec![Request::Shutdown { action: Action::PowerOff, force: false }],
    },
    Target {
        name: "kvp",
        needs: "hv_kvp_daemon, for all but the first message; the host sets and gets pairs",
        shapes: components::kvp,
        prods: kvp_prods,
    },
    Target {
        name: "vss",
        needs: "hv_vss_daemon, for all but the first message; the host freezes and thaws",
        shapes: components::vss,
        prods: |_, _| vec![Request::Freeze { seconds: 5 }, Request::Thaw],
    },
    Target {
        name: "fcopy",
        needs: "--integration all, and hv_fcopy_daemon, for all but the first message",
        shapes: components::file_copy,
        prods: copy_prods,
    },
    Target {
        name: "keyboard",
        needs: "--keyboard; the host types",
        shapes: input::keyboard,
        prods: |_, _| vec![Request::Type { text: "a".to_owned() }],
    },
    Target {
        name: "mouse",
        needs: "--mouse, and a kernel with HID; the host moves the pointer",
        shapes: input::mouse,
        prods: mouse_prods,
    },
    Target {
        name: "video",
        needs: "--display png=FILE, and a driver that starts: the host says no more",
        shapes: others::video,
        prods: nothing,
    },
    Target {
        name: "balloon",
        needs: "--balloon, or --balloon=max=SIZE; the host takes memory and gives it back",
        shapes: others::balloon,
        prods: balloon_prods,
    },
];

/// The device of this name.
pub(super) fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// What each device needs, for `--help`.
pub(super) fn help() -> String {
    let mut text = "What each device needs:\n".to_owned();
    for Target { name, needs, .. } in TARGETS {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {name:<10} {needs}");
    }
    text.push_str(
        "Not to be had: fc, rdma and pci, which this host has not;\n\
         sockets and raw channels, whose bytes are programs' own.",
    );
    text
}

fn nothing(_: &VmSpec, _: &Path) -> Vec<Request> {
    Vec::new()
}

fn network_prods(spec: &VmSpec, _: &Path) -> Vec<Request> {
    let nics = spec.nets.iter().map(|net| net.network.to_string());
    nics.map(|nic| Request::Link { nic, state: LinkState::Changed }).collect()
}

fn kvp_prods(_: &VmSpec, _: &Path) -> Vec<Request> {
    let (key, pool) = ("fuzz".to_owned(), Pool::External);
    let set = Kvp::Set { pool, key: key.clone(), value: "1".to_owned() };
    let all = [set, Kvp::Get { pool, key }, Kvp::List { pool: Pool::Auto }];
    all.map(Request::Kvp).into()
}

fn copy_prods(_: &VmSpec, file: &Path) -> Vec<Request> {
    let (file, target) = (file.to_owned(), "/tmp/".to_owned());
    vec![Request::Copy { file, target, overwrite: true, create_path: true }]
}

fn mouse_prods(_: &VmSpec, _: &Path) -> Vec<Request> {
    let point = |x, buttons| Request::Point { x, y: 9, buttons, wheel: 1 };
    vec![point(9, 0), point(32_767, 1)]
}

fn balloon_prods(spec: &VmSpec, _: &Path) -> Vec<Request> {
    let all = spec.max_memory.unwrap_or(spec.memory).0;
    let set = |bytes| Request::Balloon { memory: Some(Size(bytes)) };
    vec![set(all / 4 * 3), set(all)]
}

#[cfg(test)]
mod tests {
    use super::super::shapes::Shape;
    use super::*;

    #[test]
    fn each_is_a_device_of_scripts_and_its_kinds_have_names_of_their_own() {
        for target in TARGETS {
            let is_known = busway_wire::class::ALL.iter().any(|(name, _)| *name == target.name);
            assert!(is_known, "{}", target.name);
            let mut names: Vec<_> = (target.shapes)().iter().map(|shape| shape.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{}", target.name);
        }
    }

    /// Each number is counted out in the driver's structure, not taken from the wire's types.
    #[test]
    fn fields_are_where_the_drivers_have_them() {
        let field = |device: &str, kind: &str, name: &str| {
            let shapes = (find(device).unwrap().shapes)();
            let shape: &Shape = shapes.iter().find(|shape| shape.name == kind).unwrap();
            let mut all = shape.fields.iter().chain(&shape.header).chain(&shape.data);
            all.find(|field| field.name == name).map(|field| (field.at, field.len)).unwrap()
        };
        // `struct vstor_packet` and `struct vmscsi_request` of drivers/scsi/storvsc_drv.c.
        assert_eq!(field("storage", "EXECUTE_SRB", "status"), (8, 4));
        assert_eq!(field("storage", "EXECUTE_SRB", "srb_status"), (14, 1));
        assert_eq!(field("storage", "EXECUTE_SRB", "data_transfer_length"), (24, 4));
        assert_eq!(field("storage", "QUERY_PROPERTIES", "max_transfer_bytes"), (24, 4));
        // `struct nvsp_message` and `struct vmtransfer_page_packet_header`; `struct rndis_message`.
        assert_eq!(field("network", "RNDIS frame", "channel"), (4, 4));
        assert_eq!(field("network", "RNDIS frame", "byte_offset"), (12, 4));
        assert_eq!(field("network", "RNDIS frame", "info_len"), (32, 4));
        assert_eq!(field("network", "RNDIS answer", "info_offset"), (20, 4));
        assert_eq!(field("network", "SEND_INDIRECTION_TABLE", "offset"), (8, 4));
        // `struct vmbuspipe_hdr`, `struct icmsg_hdr`, `struct ictimesync_ref_data`, `struct hv_kvp_msg`.
        assert_eq!(field("timesync", "TIME_SYNC", "host_time"), (28, 8));
        assert_eq!(field("timesync", "NEGOTIATE", "frameworks"), (28, 2));
        assert_eq!(field("kvp", "KVP", "key_len"), (36, 4));
        // `struct synth_kbd_keystroke`, `struct synthhid_device_info`, `struct synthvid_msg`,
        // `struct dm_unballoon_request`.
        assert_eq!(field("keyboard", "EVENT", "make_code"), (4, 2));
        assert_eq!(field("mouse", "INITIAL_DEVICE_INFO", "report_len"), (55, 2));
        assert_eq!(field("video", "RESOLUTION_RESPONSE", "count"), (144, 1));
        assert_eq!(field("balloon", "UNBALLOON_REQUEST", "range_count"), (12, 4));
    }
}
