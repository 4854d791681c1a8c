// SPDX-License-Identifier: MIT OR Apache-2.0

//! Programs of other packages for a guest, each an archive that is appended to the base initramfs. Its
//! libraries come from the same packages, so the machine's never slip in.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use anyhow::Context;

use crate::cpio::Archive;
use crate::manifest::ProgramEntry;
use crate::tree::Tree;

/// Writes the archive of `program`, whose package and all it depends on lie unpacked in `tree`.
pub fn build(program: &ProgramEntry, tree: &Path, archive: &Path) -> anyhow::Result<()> {
    let packages = Tree::open(tree)?;
    let mut libraries = BTreeSet::new();
    let paths: Vec<_> = program.paths.iter().map(|path| place(tree, path)).collect();
    for path in &paths {
        libraries.extend(packages.libraries(path)?);
    }
    if let Some(parent) = archive.parent() {
        fs::create_dir_all(parent)?;
    }
    let unfinished = archive.with_extension("part");
    let mut out = Archive::new(BufWriter::new(File::create(&unfinished)?));
    let (name, loader) = packages.loader();
    out.copy(name, loader)?;
    for path in &paths {
        copy(&mut out, tree, &tree.join(path))?;
    }
    for library in &libraries {
        copy(&mut out, tree, library)?;
    }
    out.finish()?;
    fs::rename(unfinished, archive)?;
    Ok(())
}

/// Where `path` is in a suite whose programs are all below /usr.
fn place(tree: &Path, path: &str) -> String {
    if tree.join(path).exists() { path.to_owned() } else { format!("usr/{path}") }
}

fn copy(out: &mut Archive<BufWriter<File>>, tree: &Path, file: &Path) -> anyhow::Result<()> {
    let below = file.strip_prefix(tree)?.to_str().context("path is not UTF-8")?;
    out.copy(below, file).with_context(|| file.display().to_string())?;
    Ok(())
}
