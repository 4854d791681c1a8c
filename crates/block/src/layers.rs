// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images that are more than a file of the disk's bytes: opening them, with all files below them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::RwLock;

use imago::format::builder::{FormatCreateBuilder, FormatDriverBuilder};
use imago::format::gate::ImplicitOpenGate;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::storage::StorageOpenOptions;
use imago::vmdk::Vmdk;

use crate::contents::{Contents, Library};
use crate::open::{DiskOptions, Layer, OpenError, lock, open_file, refine};
use crate::ordered::OrderedFile;
use crate::scratch::Scratch;
use crate::vhd::Vhd;
use crate::{Format, vhd, vhdx};

/// Opens what an image's own header names: files that lie below it, locked as it is. Only where the
/// user has said what format it is: a guest that has a raw image can write such a header into it, and
/// would find in its next life whatever file of the host's it has named.
struct Below {
    is_trusted: bool,
}

impl ImplicitOpenGate<OrderedFile> for Below {
    fn open_format<F: FormatDriverBuilder<OrderedFile>>(
        &mut self,
        builder: F,
    ) -> io::Result<Library> {
        Ok(Library::new(builder.write(false).open(Self { is_trusted: self.is_trusted })?))
    }

    fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<OrderedFile> {
        let path = options.get_filename().ok_or(io::ErrorKind::NotFound)?.to_owned();
        if !self.is_trusted {
            return Err(io::Error::other(format!(
                "it names another file, '{}': say what it is (',format=qcow2' or ',format=vmdk') if you trust it",
                path.display()
            )));
        }
        let (file, _) = open_file(&path, !options.get_writable()).map_err(io::Error::other)?;
        OrderedFile::new(file, &path, options.get_writable(), false)
    }
}

/// Opens the image of `format` in a file and its length, and what lies over it; with the least bytes
/// of a logical block.
pub(crate) fn open(
    path: &Path,
    (file, len): (File, u64),
    format: Format,
    options: &DiskOptions,
) -> Result<(Contents, u32), OpenError> {
    let unreadable = |source| OpenError::Unreadable { path: path.to_owned(), format, source };
    let not_written = || OpenError::NotWritten { path: path.to_owned(), format };
    let writes = !options.read_only && options.layer.is_none();
    let is_trusted = options.format.is_some();
    if let Some(Layer::Overlay(overlay)) = &options.layer {
        let below = match format {
            Format::Raw | Format::Qcow2 | Format::Vmdk => {
                library(path, file, format, false, is_trusted)
            }
            Format::Vhd | Format::Vhdx => {
                return Err(OpenError::NotBelow { path: path.to_owned(), format });
            }
        };
        let below = below.map_err(unreadable)?;
        return Ok((over(overlay, path, format, below)?, 0));
    }
    let (contents, logical_block) = match format {
        Format::Raw => (Contents::Plain(file, len), 0),
        Format::Vhd => match vhd::open(&file, len).map_err(unreadable)? {
            Vhd::Fixed(capacity) => (Contents::Plain(file, capacity), 0),
            Vhd::Dynamic(_) if writes => return Err(not_written()),
            Vhd::Dynamic(vhd) => (Contents::Vhd(file, vhd), 0),
        },
        Format::Vhdx if writes => return Err(not_written()),
        Format::Vhdx => {
            let vhdx = vhdx::open(&file).map_err(unreadable)?;
            let logical_block = vhdx.logical_block;
            (Contents::Vhdx(file, vhdx), logical_block)
        }
        Format::Vmdk if writes => return Err(not_written()),
        Format::Qcow2 | Format::Vmdk => {
            let library = library(path, file, format, writes, is_trusted).map_err(unreadable)?;
            (Contents::Library(Box::new(RwLock::new(library))), 0)
        }
    };
    if options.layer == Some(Layer::Temporary) {
        let scratch = Scratch::new(contents.capacity());
        let scratch = scratch.map_err(|source| OpenError::Temporary { source })?;
        return Ok((Contents::Temporary(scratch, Box::new(contents)), logical_block));
    }
    Ok((contents, logical_block))
}

fn library(
    path: &Path,
    file: File,
    format: Format,
    writes: bool,
    is_trusted: bool,
) -> io::Result<Library> {
    let below = Below { is_trusted };
    let file = OrderedFile::new(file, path, writes, writes && format == Format::Qcow2)?;
    Ok(match format {
        Format::Qcow2 => {
            Library::new(Qcow2::<OrderedFile>::builder(file).write(writes).open(below)?)
        }
        Format::Vmdk => Library::new(Vmdk::<OrderedFile>::builder(file).open(below)?),
        Format::Raw | Format::Vhd | Format::Vhdx => {
            Library::new(Raw::<OrderedFile>::builder(file).write(writes).open(below)?)
        }
    })
}

/// The qcow2 file `overlay` over an image, as it is there or else made anew.
fn over(
    overlay: &Path,
    path: &Path,
    format: Format,
    below: Library,
) -> Result<Contents, OpenError> {
    let failed =
        |source| OpenError::Unreadable { path: overlay.to_owned(), format: Format::Qcow2, source };
    let opened = match overlay.try_exists().map_err(failed)? {
        true => {
            let (file, _) = open_file(overlay, false)?;
            let file = OrderedFile::new(file, overlay, true, true).map_err(failed)?;
            let image = Qcow2::<OrderedFile>::builder(file).backing(Some(below)).write(true);
            image.open(Below { is_trusted: false })
        }
        false => {
            let new = OpenOptions::new().read(true).write(true).create_new(true).open(overlay);
            let file = new.map_err(|source| refine(overlay, false, source))?;
            lock(overlay, &file, false)?;
            make(overlay, path, format, below, file).inspect_err(|_| {
                // A file that is no image would be in the way of the next attempt.
                let _ = fs::remove_file(overlay);
            })
        }
    };
    let library = Library::new(opened.map_err(failed)?);
    // What the library has allocated for a new image is only counted in its cache.
    library.flush().map_err(failed)?;
    Ok(Contents::Library(Box::new(RwLock::new(library))))
}

fn make(
    overlay: &Path,
    path: &Path,
    format: Format,
    below: Library,
    file: File,
) -> io::Result<Qcow2<OrderedFile>> {
    let name = path.canonicalize()?.into_os_string().into_string();
    let name = name.map_err(|_| io::Error::other("the image's path is no UTF-8"))?;
    Qcow2::<OrderedFile>::create_builder(OrderedFile::new(file, overlay, true, true)?)
        .size(below.size())
        .backing(name, format.to_string())
        .create_open(Below { is_trusted: false }, |file| {
            Ok(Qcow2::builder(file).backing(Some(below)).write(true))
        })
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
