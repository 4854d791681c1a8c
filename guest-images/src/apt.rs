// SPDX-License-Identifier: MIT OR Apache-2.0

//! Debian packages by way of apt, with lists, cache, sources and status of our own: nothing of the
//! machine's apt state is read but its configuration (proxies) and written nowhere. No root is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::command;

/// Names the environment variable that overrides the mirror.
pub const MIRROR_VARIABLE: &str = "BUSWAY_DEBIAN_MIRROR";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where debootstrap keeps the mirror that it would use itself.
const DEBOOTSTRAP: &str = "/usr/sbin/debootstrap";

/// Downloads files with apt's own methods and proxies.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// One suite and architecture.
#[derive(Debug)]
pub struct Apt {
    config: PathBuf,
    downloads: PathBuf,
    suite: String,
    arch: String,
}

impl Apt {
    /// Sets up the private state below `root` and brings the package lists up to date.
    pub fn open(root: &Path, suite: &str, arch: &str) -> anyhow::Result<Self> {
        let mirror = mirror()?;
        let state = root.join("apt").join(format!("{suite}-{arch}"));
        let apt = Self {
            config: state.join("apt.conf"),
            downloads: root.join("packages"),
            suite: suite.to_owned(),
            arch: arch.to_owned(),
        };
        for below in ["lists/partial", "cache/archives/partial", "preferences.d"] {
            fs::create_dir_all(state.join(below))?;
        }
        fs::create_dir_all(&apt.downloads)?;
        fs::write(state.join("status"), "")?;
        fs::write(
            state.join("sources.list"),
            sources_of(suite)
                .map(|suite| {
                    format!("deb [target=Packages signed-by={KEYRING}] {mirror} {suite} main\n")
                })
                .collect::<String>(),
        )?;
        fs::write(&apt.config, configuration(&state, suite, arch))?;
        apt.update()?;
        Ok(apt)
    }

    fn update(&self) -> anyhow::Result<()> {
        eprintln!("images: reading the package lists of {} ({})", self.suite, self.arch);
        // A list that could not be fetched is a warning to apt by default.
        command::output(self.apt("apt-get").args(["update", "-qq", "--error-on=any"]))
            .with_context(|| {
                format!(
                    "the package lists of {} are out of reach; set {MIRROR_VARIABLE} to another Debian mirror if this one is wrong",
                    self.suite
                )
            })?;
        Ok(())
    }

    /// The packages that make up a kernel: `package` itself and what it depends on by the name of a kernel
    /// part. A meta package comes along; it is empty. From Linux 6.18 on an image is split in several.
    pub fn kernel_parts(&self, package: &str) -> anyhow::Result<Vec<String>> {
        const PARTS: [&str; 4] = ["linux-image-", "linux-modules-", "linux-binary-", "linux-base-"];
        let mut found = vec![package.to_owned()];
        let mut next = 0;
        while let Some(package) = found.get(next).cloned() {
            next += 1;
            for dependency in self.dependencies(&package)? {
                let part = PARTS.iter().any(|prefix| dependency.starts_with(prefix));
                if part && !found.contains(&dependency) {
                    found.push(dependency);
                }
            }
        }
        Ok(found)
    }

    fn dependencies(&self, package: &str) -> anyhow::Result<Vec<String>> {
        let answer = command::text(self.apt("apt-cache").args(["depends", "--important", package]))
            .with_context(|| format!("{} has no package {package}", self.suite))?;
        Ok(dependencies_in(&answer))
    }

    /// The version that the suite has now.
    pub fn version(&self, package: &str) -> anyhow::Result<String> {
        let answer =
            command::text(self.apt("apt-cache").args(["show", "--no-all-versions", package]))
                .with_context(|| format!("{} has no package {package}", self.suite))?;
        let version = answer.lines().find_map(|line| line.strip_prefix("Version: "));
        Ok(version
            .with_context(|| format!("apt-cache gives no version of {package}"))?
            .trim()
            .to_owned())
    }

    /// Unpacks these packages, and nothing that they depend on, into `tree`.
    pub fn unpack(&self, packages: &[&str], tree: &Path) -> anyhow::Result<()> {
        let answer = self.sources("download", packages)?;
        self.unpack_all(&Source::parse_all(&answer), tree)
    }

    /// Unpacks the package and all that it needs, its C library too, as if nothing were installed.
    pub fn unpack_closure(&self, package: &str, tree: &Path) -> anyhow::Result<()> {
        let answer = self.sources("install", &[package])?;
        self.unpack_all(&Source::parse_all(&answer), tree)
    }

    fn sources(&self, action: &str, packages: &[&str]) -> anyhow::Result<String> {
        let mut command = self.apt("apt-get");
        command.args([action, "--print-uris", "-qq", "--no-install-recommends"]);
        command::text(command.args(packages))
            .with_context(|| format!("{} cannot provide {}", self.suite, packages.join(", ")))
    }

    fn unpack_all(&self, sources: &[Source<'_>], tree: &Path) -> anyhow::Result<()> {
        if sources.is_empty() {
            bail!("apt-get names no packages with hashes");
        }
        self.download(sources)?;
        fs::create_dir_all(tree)?;
        for source in sources {
            let archive = self.downloads.join(source.name);
            command::output(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(tree))
                .with_context(|| format!("could not unpack {}", archive.display()))?;
        }
        Ok(())
    }

    /// Fetches what is not there yet. apt goes on where an interrupted download stopped, and checks the
    /// hashes that the signed lists give.
    fn download(&self, sources: &[Source<'_>]) -> anyhow::Result<()> {
        let missing = sources.iter().filter(|source| !self.downloads.join(source.name).exists());
        let missing: Vec<_> = missing.collect();
        let partial = |source: &Source<'_>| self.downloads.join(format!("{}.part", source.name));
        let mut command = self.apt(APT_HELPER);
        command.args(["-q=1", "download-file"]);
        for source in &missing {
            command.arg(source.uri).arg(partial(source)).arg(source.hash);
        }
        if missing.is_empty() {
            return Ok(());
        }
        eprintln!("images: fetching {} packages", missing.len());
        let status = command
            .stdout(std::io::stderr())
            .status()
            .with_context(|| format!("could not run {APT_HELPER}"))?;
        if !status.success() {
            bail!("not all could be fetched ({status}); run it again to go on where it stopped");
        }
        for source in &missing {
            fs::rename(partial(source), self.downloads.join(source.name))?;
        }
        Ok(())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(&self.config).env("LC_ALL", "C");
        command
    }
}

/// A line of `apt-get --print-uris`: `'URI' NAME SIZE HASH`.
struct Source<'a> {
    uri: &'a str,
    name: &'a str,
    hash: &'a str,
}

impl<'a> Source<'a> {
    fn parse_all(answer: &'a str) -> Vec<Self> {
        answer.lines().filter_map(Self::parse).collect()
    }

    fn parse(line: &'a str) -> Option<Self> {
        let (uri, rest) = line.strip_prefix('\'')?.split_once("' ")?;
        let mut words = rest.split_whitespace();
        let (name, _size, hash) = (words.next()?, words.next()?, words.next()?);
        // Without a hash there would be nothing to check by.
        hash.starts_with("SHA").then_some(Self { uri, name, hash })
    }
}

/// Backports stand on the suite that they are made for.
fn sources_of(suite: &str) -> impl Iterator<Item = &str> {
    suite.strip_suffix("-backports").into_iter().chain([suite])
}

/// Read by apt after the machine's own files, so that proxies hold and all else is ours.
fn configuration(state: &Path, suite: &str, arch: &str) -> String {
    let state = state.display();
    format!(
        r#"Dir::State "{state}";
Dir::State::lists "{state}/lists";
Dir::State::status "{state}/status";
Dir::State::extended_states "{state}/extended_states";
Dir::Cache "{state}/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Etc::sourcelist "{state}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "{state}/preferences.d";
APT::Default-Release "{suite}";
APT::Architecture "{arch}";
#clear APT::Architectures;
APT::Architectures {{ "{arch}"; }};
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::ForceHash "SHA256";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
"#
    )
}

/// Whether [`Apt::open`] will know where to go. Where it does not, debootstrap helps: it knows a mirror.
pub fn knows_mirror() -> bool {
    mirror().is_ok()
}

/// The mirror that the machine itself uses; the variable wins, and debootstrap's serves where the machine is
/// no Debian.
fn mirror() -> anyhow::Result<String> {
    if let Ok(mirror) = std::env::var(MIRROR_VARIABLE) {
        return Ok(mirror);
    }
    let targets = |option: &[&str]| {
        let mut command = Command::new("apt-get");
        command.arg("indextargets").args(option);
        command.args(["--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"]);
        command::text(&mut command).unwrap_or_default()
    };
    // The second answer comes without package lists too, and without origins.
    let targets = targets(&[]) + &targets(&["--no-release-info"]);
    let debootstrap = fs::read_to_string(DEBOOTSTRAP).unwrap_or_default();
    mirror_in_targets(&targets)
        .or_else(|| mirror_in_debootstrap(&debootstrap))
        .with_context(|| {
            format!(
                "no Debian mirror is known to this machine's apt or to debootstrap; set {MIRROR_VARIABLE} to \
                 the URI of one (the directory with dists/ in it)"
            )
        })
}

fn mirror_in_targets(targets: &str) -> Option<String> {
    let named = || targets.lines().find_map(|line| line.strip_prefix("Debian|Debian|"));
    // A machine that has never read its package lists knows no origins, only URIs.
    let by_uri = || {
        let uris = targets.lines().filter_map(|line| line.rsplit('|').next());
        uris.into_iter().find(|uri| uri.trim_end_matches('/').ends_with("/debian"))
    };
    named().or_else(by_uri).map(str::to_owned)
}

fn mirror_in_debootstrap(script: &str) -> Option<String> {
    // Other distributions' debootstrap names their own mirror first.
    let defaults = script.lines().filter(|line| line.starts_with("DEF_"));
    let mut uris = defaults.filter_map(|line| line.split_once("MIRROR="));
    let (_, uri) = uris.find(|(_, uri)| uri.trim_matches('"').ends_with("/debian"))?;
    Some(uri.trim_matches('"').to_owned())
}

fn dependencies_in(answer: &str) -> Vec<String> {
    let lines = answer.lines().map(str::trim);
    // "|Depends:" is one of several that would do; "PreDepends:" counts as well.
    let names = lines.filter_map(|line| line.split_once("Depends: "));
    names.map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_debian_mirror_is_found_among_other_sources() {
        let targets = "Vendor|Vendor|https://vendor.example/apt/\n\
            Debian|Debian-Security|https://mirror.example/debian-security/\n\
            Debian|Debian|https://mirror.example/debian/\n";
        assert_eq!(mirror_in_targets(targets).as_deref(), Some("https://mirror.example/debian/"));
        assert_eq!(mirror_in_targets("Ubuntu|Ubuntu|https://u.example/ubuntu/\n"), None);
        let unread = "$(ORIGIN)|$(LABEL)|https://mirror.example/debian-security/\n\
            $(ORIGIN)|$(LABEL)|https://mirror.example/debian/\n";
        assert_eq!(mirror_in_targets(unread).as_deref(), Some("https://mirror.example/debian/"));
    }

    #[test]
    fn debootstraps_mirror_counts_only_if_it_is_debians() {
        let script = "#!/bin/sh\nDEF_MIRROR=\"https://mirror.example/debian\"\n";
        assert_eq!(mirror_in_debootstrap(script).as_deref(), Some("https://mirror.example/debian"));
        let other = "DEF_MIRROR=\"https://mirror.example/ubuntu\"\n";
        assert_eq!(mirror_in_debootstrap(other), None);
        let both = format!("{other}DEF_HTTPS_MIRROR=\"https://mirror.example/debian\"\n");
        assert_eq!(mirror_in_debootstrap(&both).as_deref(), Some("https://mirror.example/debian"));
    }

    #[test]
    fn dependencies_are_read_from_apt_cache() {
        let answer = "linux-image-x\n  PreDepends: dpkg\n |Depends: kmod\n  Depends: linux-image-7\n  Recommends: foo\n";
        assert_eq!(dependencies_in(answer), ["dpkg", "kmod", "linux-image-7"]);
    }

    #[test]
    fn a_package_without_a_strong_hash_is_not_fetched() {
        let line = "'https://m.example/p/x_1%3a2.deb' x_1%3a2_all.deb 1500 SHA256:ab";
        let source = Source::parse(line).unwrap();
        assert_eq!(
            (source.uri, source.name, source.hash),
            ("https://m.example/p/x_1%3a2.deb", "x_1%3a2_all.deb", "SHA256:ab")
        );
        assert!(Source::parse("'https://m.example/x.deb' x.deb 1500").is_none());
        assert!(Source::parse("'https://m.example/x.deb' x.deb 1500 MD5Sum:ab").is_none());
    }
}
