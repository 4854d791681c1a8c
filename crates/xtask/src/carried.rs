// SPDX-License-Identifier: MIT OR Apache-2.0

//! Programs of Debian's packages that are carried into a job, to run there without being installed.

use std::fs;
use std::path::Path;

use anyhow::Context;
use busway_guest_images::tree::Tree;

/// Copies what `program` of the tree needs to run elsewhere: the program, `lib` with its loader, and `share`
/// with what it reads.
pub(crate) fn copy(
    tree: &Tree,
    program: &str,
    share: &[&str],
    target: &Path,
) -> anyhow::Result<()> {
    let copy = |source: &Path, folder: &str| -> anyhow::Result<()> {
        let folder = target.join(folder);
        fs::create_dir_all(&folder)?;
        let name = source.file_name().context("a file has a name")?;
        // By name and not by what a link leads to: libraries are looked for by their sonames.
        fs::copy(source, folder.join(name)).with_context(|| source.display().to_string())?;
        Ok(())
    };
    copy(&tree.path(program), "")?;
    copy(tree.loader().1, "lib")?;
    for library in tree.libraries(program)? {
        copy(&library, "lib")?;
    }
    for file in share {
        copy(&tree.path(file), "share")?;
    }
    Ok(())
}
