// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernel modules of an unpacked package: what depends on what, and each one's plain (decompressed) bytes.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::command;

/// The modules of one kernel release.
#[derive(Debug)]
pub struct Modules {
    directory: PathBuf,
    /// Name to its path below the directory and the names it needs directly or not.
    known: BTreeMap<String, Module>,
    built_in: HashSet<String>,
}

#[derive(Debug)]
struct Module {
    path: String,
    needs: Vec<String>,
}

impl Modules {
    /// Runs depmod over the only kernel in `tree` and returns its release.
    pub fn index(tree: &Path) -> anyhow::Result<String> {
        let lib = tree.join("lib");
        if !lib.join("modules").exists() && tree.join("usr/lib/modules").exists() {
            // Where /lib is the root file system's link; depmod looks for lib/modules.
            fs::create_dir_all(&lib)?;
            std::os::unix::fs::symlink("../usr/lib/modules", lib.join("modules"))?;
        }
        let mut releases = Vec::new();
        for entry in fs::read_dir(lib.join("modules"))
            .with_context(|| format!("{} has no lib/modules", tree.display()))?
        {
            releases.push(entry?.file_name().to_string_lossy().into_owned());
        }
        let [release] = releases.as_slice() else {
            bail!("{} has {} kernels' modules, not one", tree.display(), releases.len());
        };
        command::output(Command::new("/sbin/depmod").arg("--basedir").arg(tree).arg(release))?;
        Ok(release.clone())
    }

    /// Reads the index that [`Modules::index`] made.
    pub fn open(tree: &Path, release: &str) -> anyhow::Result<Self> {
        let directory = tree.join("lib/modules").join(release);
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        Ok(Self {
            known: parse_dependencies(&read("modules.dep")?),
            built_in: read("modules.builtin")?.lines().map(name_of).collect(),
            directory,
        })
    }

    /// `wanted` and all they need, each once and each after what it needs. What the kernel has built in is
    /// left out; what it does not have at all is left out too and returned apart.
    pub fn order(&self, wanted: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut order = Vec::new();
        let mut absent = Vec::new();
        for name in wanted {
            let name = name.replace('-', "_");
            if self.known.contains_key(&name) {
                self.visit(&name, &mut order);
            } else if !self.built_in.contains(&name) {
                absent.push(name);
            }
        }
        (order, absent)
    }

    fn visit(&self, name: &str, order: &mut Vec<String>) {
        if order.iter().any(|done| done == name) {
            return;
        }
        if let Some(module) = self.known.get(name) {
            for need in &module.needs {
                self.visit(need, order);
            }
            order.push(name.to_owned());
        }
    }

    /// Where the module lies below `lib/modules/<release>`, as it will be called once decompressed.
    pub fn plain_path(&self, name: &str) -> anyhow::Result<String> {
        let path = &self.get(name)?.path;
        let end = path.find(".ko").map_or(path.len(), |at| at + ".ko".len());
        Ok(path.chars().take(end).collect())
    }

    /// All the modules that this one needs, nearest first.
    pub fn needs(&self, name: &str) -> anyhow::Result<&[String]> {
        Ok(&self.get(name)?.needs)
    }

    /// The module's object file, decompressed.
    pub fn contents(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let path = self.directory.join(&self.get(name)?.path);
        let tool = match path.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => "xz",
            Some("zst") => "zstd",
            Some("gz") => "gzip",
            _ => return fs::read(&path).with_context(|| path.display().to_string()),
        };
        command::output(Command::new(tool).args(["--decompress", "--stdout"]).arg(&path))
    }

    /// The kernel's list of what it has built in, for the guest's own modprobe.
    pub fn built_in_list(&self) -> anyhow::Result<Vec<u8>> {
        let path = self.directory.join("modules.builtin");
        fs::read(&path).with_context(|| path.display().to_string())
    }

    fn get(&self, name: &str) -> anyhow::Result<&Module> {
        self.known
            .get(name)
            .with_context(|| format!("{} has no module {name}", self.directory.display()))
    }
}

/// `kernel/drivers/hv/hv_storvsc.ko: kernel/...`, all that it needs, nearest first.
fn parse_dependencies(text: &str) -> BTreeMap<String, Module> {
    let mut known = BTreeMap::new();
    for (path, needs) in text.lines().filter_map(|line| line.split_once(':')) {
        let needs = needs.split_whitespace().map(name_of).collect();
        let path = path.to_owned();
        known.insert(name_of(&path), Module { path, needs });
    }
    known
}

/// A module's name is its file's, with `_` for `-`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let name = file.split(".ko").next().unwrap_or(file);
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Modules {
        Modules {
            directory: PathBuf::new(),
            known: parse_dependencies(
                "kernel/a/top-one.ko.xz: kernel/b/middle.ko.xz kernel/c/base.ko.xz\n\
                 kernel/b/middle.ko.xz: kernel/c/base.ko.xz\n\
                 kernel/c/base.ko.xz:\n\
                 kernel/d/alone.ko:\n",
            ),
            built_in: ["kernel/e/inside.ko"].into_iter().map(name_of).collect(),
        }
    }

    #[test]
    fn each_module_comes_after_what_it_needs_and_once() {
        let (order, absent) = modules().order(&["alone", "top-one", "middle", "inside", "none"]);
        assert_eq!(order, ["alone", "base", "middle", "top_one"]);
        assert_eq!(absent, ["none"]);
    }

    #[test]
    fn compressed_modules_get_their_plain_name() {
        let modules = modules();
        assert_eq!(modules.plain_path("top_one").unwrap(), "kernel/a/top-one.ko");
        assert_eq!(modules.plain_path("alone").unwrap(), "kernel/d/alone.ko");
    }
}
