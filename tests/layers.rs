// SPDX-License-Identifier: MIT OR Apache-2.0

//! The house's rules (crates/README.md), read from the manifests and the sources.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each crate may use of the project, and nothing more.
const MAY_USE: &[(&str, &[&str])] = &[
    ("busway-wire", &[]),
    ("busway-memory", &[]),
    ("busway-ring", &["busway-wire", "busway-memory"]),
    ("busway-hyperv", &["busway-wire", "busway-memory"]),
    ("busway-vmbus", &["busway-wire", "busway-memory", "busway-ring"]),
    ("busway-block", &["busway-memory"]),
    (
        "busway-storage",
        &["busway-wire", "busway-memory", "busway-ring", "busway-vmbus", "busway-block"],
    ),
    ("busway-hvsock", &["busway-wire", "busway-ring", "busway-vmbus"]),
    ("busway-raw", &["busway-wire", "busway-ring", "busway-vmbus"]),
    ("busway-input", &["busway-wire", "busway-ring", "busway-vmbus"]),
    ("busway-balloon", &["busway-wire", "busway-memory", "busway-ring", "busway-vmbus"]),
    ("busway-video", &["busway-wire", "busway-memory", "busway-ring", "busway-vmbus"]),
    ("busway-integration", &["busway-wire", "busway-ring", "busway-vmbus"]),
    (
        "busway-testkit",
        &["busway-wire", "busway-memory", "busway-ring", "busway-vmbus", "busway-hyperv"],
    ),
    ("busway-harness", &[]),
    ("busway-capture", &["busway-wire", "busway-hyperv"]),
    ("busway-fault", &["busway-wire"]),
    ("busway-strict", &["busway-wire", "busway-vmbus"]),
    ("busway-frames", &["busway-memory"]),
    (
        "busway-network",
        &["busway-wire", "busway-memory", "busway-ring", "busway-vmbus", "busway-frames"],
    ),
];

/// Crates without threads, sockets, clocks or an operating system.
const PURE: &[&str] = &["wire", "ring", "hyperv", "vmbus", "fault", "strict"];

/// What those may not name.
const IMPURE: &[&str] = &["std::thread", "std::net", "std::os::unix::net", "std::time::Instant"];

/// Packages that only the VMM may use.
const VMM_ONLY: &[&str] = &["kvm-ioctls", "kvm-bindings", "event-manager"];

/// The files that may contain `unsafe`.
const UNSAFE: &[&str] = &[
    "crates/block/src/kernel.rs",
    "crates/block/src/ordered.rs",
    "crates/frames/src/kernel/burst.rs",
    "crates/frames/src/kernel/mod.rs",
    "crates/memory/src/buffer.rs",
    "crates/memory/src/guest.rs",
    "crates/memory/src/slices.rs",
    "crates/memory/src/ring_area.rs",
    "vmm/src/kvm/ioctl.rs",
];

/// The files that may name each of the VMM's own packages.
const NAMED_IN: &[(&str, &[&str])] = &[
    ("kvm_", &["vmm/src/kvm/"]),
    (
        "event_manager",
        &[
            "vmm/src/event_loop.rs",
            "vmm/src/event_loop_tests.rs",
            "vmm/src/bus/worker.rs",
            "vmm/src/kvm/userspace/timers.rs",
        ],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The normal dependencies of each package of the workspace.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let normal = |dependency: &&serde_json::Value| dependency["kind"].is_null();
            let names = package["dependencies"].as_array().unwrap().iter().filter(normal);
            let names = names.map(|dependency| dependency["name"].as_str().unwrap().to_owned());
            (package["name"].as_str().unwrap().to_owned(), names.collect())
        })
        .collect()
}

#[test]
fn crates_use_only_what_their_layer_may() {
    let dependencies = dependencies();
    for (name, may_use) in MAY_USE {
        let ours = dependencies[*name].iter().filter(|name| name.starts_with("busway-"));
        for used in ours {
            assert!(may_use.contains(&used.as_str()), "{name} may not use {used}");
        }
    }
    let listed: BTreeSet<_> = MAY_USE.iter().map(|(name, _)| *name).collect();
    for name in dependencies.keys().filter(|name| name.starts_with("busway-")) {
        let is_test = ["busway-tests", "busway-bench", "busway-guest-agent", "busway-guest-images"]
            .contains(&name.as_str());
        assert!(
            is_test || listed.contains(name.as_str()),
            "{name} has no place in the house: add it to MAY_USE"
        );
    }
}

#[test]
fn only_the_vmm_knows_kvm_and_the_event_loop() {
    // xtask asks the machine's KVM what it can, to choose where guests are booted; the benches compare
    // with a program that does nothing but KVM.
    let allowed = ["busway", "xtask", "busway-bench"];
    for (name, used) in dependencies().iter().filter(|(name, _)| !allowed.contains(&name.as_str()))
    {
        for forbidden in VMM_ONLY {
            assert!(!used.contains(*forbidden), "{name} may not use {forbidden}");
        }
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn pure_crates_name_no_thread_socket_or_clock() {
    for name in PURE {
        let mut files = Vec::new();
        sources(&root().join("crates").join(name).join("src"), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for forbidden in IMPURE {
                assert!(!text.contains(forbidden), "{} names {forbidden}", file.display());
            }
        }
    }
}

#[test]
fn unsafe_stands_only_where_it_is_listed() {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    sources(&root().join("vmm"), &mut files);
    for file in files {
        let relative = file.strip_prefix(root()).unwrap().to_str().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let has_unsafe = code
            .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
            .any(|word| word == "unsafe");
        let listed = UNSAFE.contains(&relative);
        assert!(!has_unsafe || listed, "{relative} contains unsafe");
    }
}

#[test]
fn kvm_and_the_event_loop_are_named_where_they_belong() {
    let mut files = Vec::new();
    sources(&root().join("vmm/src"), &mut files);
    for file in files {
        let relative = file.strip_prefix(root()).unwrap().to_str().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        for (name, places) in NAMED_IN {
            let used = format!("use {name}");
            let belongs = places.iter().any(|place| relative.starts_with(place));
            assert!(belongs || !text.contains(&used), "{relative} uses {name}");
        }
    }
}
