// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's base initramfs: busybox, the VMBus drivers and what tests mount, and the init. It is not
//! compressed, since unpacking costs an emulated guest more than copying does.

use std::fs::{self, File};
use std::io::{BufWriter, Write};

use anyhow::Context;

use crate::cpio::Archive;
use crate::modules::Modules;
use crate::store::Image;

const INIT: &[u8] = include_bytes!("../init");

/// Loaded by the init unless the kernel's command line names others, in this order.
const LOADED: [&str; 9] = [
    "hv_vmbus",
    "hv_storvsc",
    "sd_mod",
    "hv_netvsc",
    "hv_utils",
    "hv_balloon",
    "hid_hyperv",
    "hyperv_keyboard",
    "hv_sock",
];

/// Carried along for `modprobe`: names that a kernel lacks are passed over.
const CARRIED: [&str; 18] = [
    "sg",
    "sr_mod",
    "uio_hv_generic",
    "hyperv_fb",
    "hyperv_drm",
    "evdev",
    "loop",
    "ext4",
    "crc32c_generic",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859_1",
    "nls_utf8",
    "af_packet",
    "8021q",
    "ipv6",
    "msr",
];

/// Writes the archive at `image.initrd`.
pub fn build(image: &Image) -> anyhow::Result<()> {
    let modules = Modules::open(&image.tree, &image.release)?;
    if let Some(parent) = image.initrd.parent() {
        fs::create_dir_all(parent)?;
    }
    let unfinished = image.initrd.with_extension("part");
    let file = File::create(&unfinished).with_context(|| unfinished.display().to_string())?;
    let mut out = Archive::new(BufWriter::new(file));
    out.file("init", 0o755, INIT)?;
    out.copy("bin/busybox", &image.busybox)?;
    for directory in ["dev", "proc", "sys", "tmp", "mnt", "root"] {
        out.directory(directory)?;
    }
    add_modules(&mut out, &modules, &image.release)?;
    out.finish()?;
    fs::rename(unfinished, &image.initrd)?;
    Ok(())
}

fn add_modules<W: Write>(
    out: &mut Archive<W>,
    modules: &Modules,
    release: &str,
) -> anyhow::Result<()> {
    let directory = format!("lib/modules/{release}");
    let (loaded, _) = modules.order(&LOADED);
    let (all, _) = modules.order(&[&LOADED[..], &CARRIED[..]].concat());
    let mut dependencies = String::new();
    for name in &all {
        let path = modules.plain_path(name)?;
        out.file(&format!("{directory}/{path}"), 0o644, &modules.contents(name)?)?;
        dependencies += &format!("{path}:");
        for need in modules.needs(name)? {
            dependencies += &format!(" {}", modules.plain_path(need)?);
        }
        dependencies.push('\n');
    }
    out.file(&format!("{directory}/modules.dep"), 0o644, dependencies.as_bytes())?;
    out.file(&format!("{directory}/modules.builtin"), 0o644, &modules.built_in_list()?)?;
    let mut names = loaded.join("\n");
    names.push('\n');
    out.file("etc/busway-modules", 0o644, names.as_bytes())?;
    Ok(())
}
