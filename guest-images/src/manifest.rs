// SPDX-License-Identifier: MIT OR Apache-2.0

//! `manifest.toml`: the list of guests and of programs that can be carried into them.

use anyhow::{Context, bail};
use serde::Deserialize;

const TEXT: &str = include_str!("../manifest.toml");

/// The whole list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Kernels to boot.
    #[serde(rename = "image")]
    pub images: Vec<Entry>,
    /// Programs that a test may take along.
    #[serde(rename = "program", default)]
    pub programs: Vec<ProgramEntry>,
    /// Packages whose programs run on this machine, without being installed.
    #[serde(rename = "tool", default)]
    pub tools: Vec<ToolEntry>,
    /// Single files of packages.
    #[serde(rename = "file", default)]
    pub files: Vec<FileEntry>,
}

/// One kernel image.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What commands and tests call it.
    pub name: String,
    /// Debian suite, such as `bookworm`.
    pub suite: String,
    /// Kernel package, or a meta package that depends on one.
    pub package: String,
    /// Debian architecture, such as `amd64`.
    pub arch: String,
    /// Why this guest is worth its time.
    pub proves: String,
}

/// Programs of one package.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramEntry {
    /// What commands and tests call it.
    pub name: String,
    /// Debian package.
    pub package: String,
    /// Paths inside the package's tree, without a leading slash.
    pub paths: Vec<String>,
    /// Suites that have it; all, if none is named.
    #[serde(default)]
    pub suites: Vec<String>,
}

impl ProgramEntry {
    /// Whether guests of `suite` can have it.
    pub fn is_in(&self, suite: &str) -> bool {
        self.suites.is_empty() || self.suites.iter().any(|have| have == suite)
    }
}

/// A package for this machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolEntry {
    /// What commands call it.
    pub name: String,
    /// Debian suite.
    pub suite: String,
    /// Debian package.
    pub package: String,
    /// Debian architecture.
    pub arch: String,
}

/// A file of a package.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// What commands and tests call it.
    pub name: String,
    /// Debian suite.
    pub suite: String,
    /// Debian package.
    pub package: String,
    /// Debian architecture.
    pub arch: String,
    /// Path inside the package's tree, without a leading slash.
    pub path: String,
}

impl Manifest {
    /// The project's own list, as built in.
    pub fn load() -> anyhow::Result<Self> {
        toml::from_str(TEXT).context("guest-images/manifest.toml")
    }

    /// The image of that name; the error lists the names there are.
    pub fn image(&self, name: &str) -> anyhow::Result<&Entry> {
        let Some(entry) = self.images.iter().find(|entry| entry.name == name) else {
            let names: Vec<_> = self.images.iter().map(|entry| entry.name.as_str()).collect();
            bail!("no image is called {name}: there are {}", names.join(", "));
        };
        Ok(entry)
    }

    /// The tool of that name.
    pub fn tool(&self, name: &str) -> anyhow::Result<&ToolEntry> {
        let entry = self.tools.iter().find(|entry| entry.name == name);
        entry.with_context(|| format!("no tool is called {name}"))
    }

    /// The file of that name.
    pub fn file(&self, name: &str) -> anyhow::Result<&FileEntry> {
        let entry = self.files.iter().find(|entry| entry.name == name);
        entry.with_context(|| format!("no file is called {name}"))
    }

    /// The program of that name; the error lists the names there are.
    pub fn program(&self, name: &str) -> anyhow::Result<&ProgramEntry> {
        let Some(entry) = self.programs.iter().find(|entry| entry.name == name) else {
            let names: Vec<_> = self.programs.iter().map(|entry| entry.name.as_str()).collect();
            bail!("no program is called {name}: there are {}", names.join(", "));
        };
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_a_path() {
        let manifest = Manifest::load().unwrap();
        let images = manifest.images.iter().map(|entry| &entry.name);
        let mut names: Vec<_> =
            images.chain(manifest.programs.iter().map(|entry| &entry.name)).collect();
        assert!(names.iter().all(|name| {
            name.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
        }));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let manifest = Manifest::load().unwrap();
        let error = manifest.image("windows").unwrap_err().to_string();
        assert!(error.contains("windows") && error.contains("bookworm-cloud"), "{error}");
    }
}
