// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask images`: fetches the guests' kernels and builds their initramfs.

use std::process::ExitCode;

use busway_guest_images::manifest::Manifest;

use crate::{tools, workspace};

/// Fetch guest kernels from Debian's package suites and build their initramfs.
///
/// Nothing is installed and the machine's apt state is not touched. The mirror is the one that this
/// machine's apt uses; BUSWAY_DEBIAN_MIRROR names another. What has been fetched is used without network
/// until --refresh asks for the suite's newest.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Images to make; all of them when none is named.
    names: Vec<String>,
    /// Only list what there is, and what has been fetched.
    #[arg(long)]
    list: bool,
    /// Look for a newer kernel package even where an image is there.
    #[arg(long)]
    refresh: bool,
    /// Also make the archive of this program for each image (see guest-images/manifest.toml).
    #[arg(long, value_name = "PROGRAM")]
    with: Vec<String>,
}

/// Does what the command line asks.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let manifest = Manifest::load()?;
    let entries = if arguments.names.is_empty() {
        manifest.images.iter().collect()
    } else {
        let names = arguments.names.iter();
        names.map(|name| manifest.image(name)).collect::<anyhow::Result<Vec<_>>>()?
    };
    let store = workspace::images();
    if arguments.list {
        for entry in entries {
            let state = match store.present(entry) {
                Some(image) => format!("{} ({})", image.release, image.package_version),
                None => "not fetched".to_owned(),
            };
            println!("{:16} {:26} {state}\n{:16} {}", entry.name, entry.package, "", entry.proves);
        }
        return Ok(ExitCode::SUCCESS);
    }
    tools::ensure_images()?;
    for entry in entries {
        let image = store.image(entry, arguments.refresh)?;
        println!("{}: Linux {} (package {})", image.name, image.release, image.package_version);
        println!("  kernel {}", image.vmlinuz.display());
        println!("  initrd {}", image.initrd.display());
        for name in &arguments.with {
            let archive = store.program(entry, manifest.program(name)?)?;
            println!("  {name} {}", archive.display());
        }
    }
    println!("data disk {}", store.disk()?.display());
    Ok(ExitCode::SUCCESS)
}
