// SPDX-License-Identifier: MIT OR Apache-2.0

//! Programs of other packages for a guest, each an archive that is appended to the base initramfs. The
//! libraries are looked up by the tree's own loader inside the tree, so the machine's never slip in.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::command;
use crate::cpio::Archive;
use crate::manifest::ProgramEntry;

/// Library directory, loader's name in it, and where programs expect the loader.
const LAYOUTS: [(&str, &str, &str); 2] = [
    ("x86_64-linux-gnu", "ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
    ("i386-linux-gnu", "ld-linux.so.2", "lib/ld-linux.so.2"),
];

/// Writes the archive of `program`, whose package and all it depends on lie unpacked in `tree`.
pub fn build(program: &ProgramEntry, tree: &Path, archive: &Path) -> anyhow::Result<()> {
    let loader = Loader::find(tree)?;
    let mut libraries = BTreeSet::new();
    for path in &program.paths {
        loader.libraries(&tree.join(path), &mut libraries)?;
    }
    if let Some(parent) = archive.parent() {
        fs::create_dir_all(parent)?;
    }
    let unfinished = archive.with_extension("part");
    let mut out = Archive::new(BufWriter::new(File::create(&unfinished)?));
    out.copy(loader.expected_at, &loader.path)?;
    for path in program.paths.iter().map(Path::new) {
        copy(&mut out, tree, &tree.join(path))?;
    }
    for library in &libraries {
        copy(&mut out, tree, library)?;
    }
    out.finish()?;
    fs::rename(unfinished, archive)?;
    Ok(())
}

fn copy(out: &mut Archive<BufWriter<File>>, tree: &Path, file: &Path) -> anyhow::Result<()> {
    let below = file.strip_prefix(tree)?.to_str().context("path is not UTF-8")?;
    out.copy(below, file).with_context(|| file.display().to_string())?;
    Ok(())
}

struct Loader {
    path: PathBuf,
    expected_at: &'static str,
    tree: PathBuf,
    search: String,
}

impl Loader {
    fn find(tree: &Path) -> anyhow::Result<Self> {
        for (directory, name, expected_at) in LAYOUTS {
            let directories = ["lib", "usr/lib"].map(|lib| tree.join(lib).join(directory));
            let loaders = directories.iter().map(|directory| directory.join(name));
            if let Some(path) = loaders.into_iter().find(|path| path.exists()) {
                return Ok(Self {
                    path,
                    expected_at,
                    tree: tree.to_owned(),
                    search: search_path(&directories),
                });
            }
        }
        bail!("{} has no C library", tree.display());
    }

    fn libraries(&self, file: &Path, found: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
        let answer = command::text(
            Command::new(&self.path)
                .args(["--inhibit-cache", "--library-path", &self.search, "--list"])
                .arg(file),
        )
        .with_context(|| file.display().to_string())?;
        for path in answer.lines().filter_map(|line| line.split_once(" => ")) {
            let path = Path::new(path.1.split(" (").next().unwrap_or(path.1));
            if !path.starts_with(&self.tree) {
                bail!(
                    "{} needs {}, which its package closure lacks",
                    file.display(),
                    path.display()
                );
            }
            found.insert(path.to_owned());
        }
        Ok(())
    }
}

/// The directories and those below them: some packages keep private libraries in one of their own.
fn search_path(directories: &[PathBuf]) -> String {
    let mut search = Vec::new();
    for directory in directories {
        search.push(directory.display().to_string());
        let below = fs::read_dir(directory).into_iter().flatten().flatten();
        let below = below.map(|entry| entry.path()).filter(|path| path.is_dir());
        search.extend(below.map(|path| path.display().to_string()));
    }
    search.join(":")
}
