// SPDX-License-Identifier: MIT OR Apache-2.0

//! Unpacked packages with their own C library: which libraries a program in them needs, and how it runs
//! without being installed. The tree's own loader answers both, so the machine's libraries never slip in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::command;

/// Library directory, loader's name in it, and where programs expect the loader.
const LAYOUTS: [(&str, &str, &str); 2] = [
    ("x86_64-linux-gnu", "ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
    ("i386-linux-gnu", "ld-linux.so.2", "lib/ld-linux.so.2"),
];

/// A directory into which a package and all it depends on have been unpacked.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    loader: PathBuf,
    expected_at: &'static str,
    search: String,
}

impl Tree {
    /// Finds the C library in the tree.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        for (directory, name, expected_at) in LAYOUTS {
            let directories = ["lib", "usr/lib"].map(|lib| root.join(lib).join(directory));
            let loaders = directories.iter().map(|directory| directory.join(name));
            if let Some(loader) = loaders.into_iter().find(|path| path.exists()) {
                return Ok(Self {
                    root: root.to_owned(),
                    loader,
                    expected_at,
                    search: search_path(&directories),
                });
            }
        }
        bail!("{} has no C library", root.display());
    }

    /// Where programs expect the loader, without the leading slash, and where it is.
    pub fn loader(&self) -> (&'static str, &Path) {
        (self.expected_at, &self.loader)
    }

    /// A path inside the tree.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// A command that runs a program of the tree, such as `usr/bin/fio`, on this machine.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(&self.loader);
        command
            .args(["--inhibit-cache", "--library-path", &self.search])
            .arg(self.root.join(program));
        command
    }

    /// The libraries that the program needs, directly or not.
    pub fn libraries(&self, program: &str) -> anyhow::Result<Vec<PathBuf>> {
        let answer = command::text(
            Command::new(&self.loader)
                .args(["--inhibit-cache", "--library-path", &self.search, "--list"])
                .arg(self.root.join(program)),
        )
        .with_context(|| program.to_owned())?;
        let mut found = Vec::new();
        for (_, path) in answer.lines().filter_map(|line| line.split_once(" => ")) {
            let path = Path::new(path.split(" (").next().unwrap_or(path));
            if !path.starts_with(&self.root) {
                bail!("{program} needs {}, which its packages lack", path.display());
            }
            found.push(path.to_owned());
        }
        Ok(found)
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
