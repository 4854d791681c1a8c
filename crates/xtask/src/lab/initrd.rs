// SPDX-License-Identifier: MIT OR Apache-2.0

//! The emulated host's initramfs: busybox, KVM's modules, and the job with all its files.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use busway_guest_images::cpio::Archive;
use busway_guest_images::modules::Modules;
use busway_guest_images::store::Image;

use super::Job;

const INIT: &[u8] = include_bytes!("init");

/// KVM, the ports that the job's output leaves by, TAP for guests' networks with what tests do there, and
/// disks that count what they are asked to do.
const MODULES: [&str; 7] =
    ["kvm_amd", "virtio_pci", "virtio_console", "tun", "af_packet", "8021q", "loop"];

/// Writes the archive to `path`; each port will end with `mark` and a status.
pub(crate) fn build(path: &Path, image: &Image, job: &Job, mark: &[u8]) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let mut out = Archive::new(BufWriter::with_capacity(1 << 20, file));
    out.file("init", 0o755, INIT)?;
    out.copy("bin/busybox", &image.busybox)?;
    for directory in ["dev", "proc", "sys", "work"] {
        out.directory(directory)?;
    }
    add_modules(&mut out, image)?;
    add_files(&mut out, job)?;
    out.file("lab/mark", 0o644, mark)?;
    let names: Vec<_> = job.outs.iter().map(|file| format!("{}\n", file.name)).collect();
    out.file("lab/outs", 0o644, names.concat().as_bytes())?;
    out.file("lab/command", 0o644, &script(&job.command))?;
    if job.terminal {
        out.file("lab/terminal", 0o644, &terminal())?;
    }
    out.finish().context("could not write the lab's initramfs")?;
    Ok(())
}

fn add_modules<W: Write>(out: &mut Archive<W>, image: &Image) -> anyhow::Result<()> {
    let modules = Modules::open(&image.tree, &image.release)?;
    let (order, absent) = modules.order(&MODULES);
    if !absent.is_empty() {
        bail!("the lab's kernel {} has no {}", image.release, absent.join(", "));
    }
    for name in &order {
        out.file(&format!("lab/modules/{name}.ko"), 0o644, &modules.contents(name)?)?;
    }
    let mut order = order.join("\n");
    order.push('\n');
    out.file("lab/order", 0o644, order.as_bytes())?;
    Ok(())
}

fn add_files<W: Write>(out: &mut Archive<W>, job: &Job) -> anyhow::Result<()> {
    let mut libraries = BTreeSet::new();
    let mut add = |name: &str, source: &Path| -> anyhow::Result<()> {
        out.copy_tree(name, source)
            .with_context(|| format!("could not read {}", source.display()))?;
        libraries.extend(libraries_of(source)?);
        Ok(())
    };
    for program in &job.programs {
        let name = program.file_name().and_then(OsStr::to_str);
        let name = name.context("a program's name must be UTF-8")?;
        add(&format!("lab/bin/{name}"), program)?;
    }
    for file in &job.files {
        add(&format!("work/{}", file.name), &file.source)?;
    }
    for library in libraries {
        let name = library.to_str().context("a library's path must be UTF-8")?;
        out.copy(name, &library).with_context(|| format!("could not read {name}"))?;
    }
    Ok(())
}

/// The shared libraries and the loader that a program of this machine needs, by ldd; none for other files.
fn libraries_of(file: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !is_elf(file) {
        return Ok(Vec::new());
    }
    let output = Command::new("ldd").arg(file).env("LC_ALL", "C").output();
    let output = output.context("could not run ldd")?;
    let answer = String::from_utf8_lossy(&output.stdout);
    if let Some(line) = answer.lines().find(|line| line.ends_with("not found")) {
        bail!("{}: {}", file.display(), line.trim());
    }
    Ok(libraries_in(&answer))
}

fn is_elf(file: &Path) -> bool {
    let mut magic = [0; 4];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *b"\x7fELF"
}

/// The absolute paths in `libc.so.6 => /lib/libc.so.6 (0x7f...)` and `/lib64/ld.so (0x7f...)`.
fn libraries_in(answer: &str) -> Vec<PathBuf> {
    let words = answer.lines().filter_map(|line| {
        let path = line.split_once("=> ").map_or(line, |(_, path)| path);
        path.split_whitespace().next()
    });
    words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// `exec 'program' 'argument'...`, each quoted for the shell.
fn script(command: &[std::ffi::OsString]) -> Vec<u8> {
    let mut script = b"exec".to_vec();
    for word in command {
        script.extend_from_slice(b" '");
        for byte in word.as_bytes() {
            match byte {
                b'\'' => script.extend_from_slice(br"'\''"),
                byte => script.push(*byte),
            }
        }
        script.push(b'\'');
    }
    script.push(b'\n');
    script
}

/// Makes the command's terminal the size and kind of ours.
fn terminal() -> Vec<u8> {
    let size = Command::new("stty").arg("size").stdin(std::process::Stdio::inherit()).output();
    let size = size.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let kind = std::env::var("TERM").unwrap_or_default();
    let kind: String = kind.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let mut text = format!("export TERM={kind}\n");
    let size = size.unwrap_or_default();
    // A terminal that does not know its size says 0 0.
    if let Some((rows, columns)) = size.trim().split_once(' ').filter(|(rows, _)| *rows != "0") {
        text += &format!("stty rows {rows} cols {columns}\n");
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldds_answer_yields_libraries_and_loader() {
        let answer = "\tlinux-vdso.so.1 (0x7ffd)\n\tlibgcc_s.so.1 => /lib/libgcc_s.so.1 (0x7f1)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x7f2)\n";
        assert_eq!(
            libraries_in(answer),
            [Path::new("/lib/libgcc_s.so.1"), Path::new("/lib64/ld-linux-x86-64.so.2")]
        );
        assert!(libraries_in("\tstatically linked\n").is_empty());
    }

    #[test]
    fn a_shell_reads_the_command_back_word_by_word() {
        let words = ["a b", "it's", "", "$HOME;\"\n\\"];
        let mut command: Vec<std::ffi::OsString> = vec!["printf".into(), "%s|".into()];
        command.extend(words.iter().map(std::ffi::OsString::from));
        let script = String::from_utf8(script(&command)).unwrap();
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(output.stdout, b"a b|it's||$HOME;\"\n\\|");
    }
}
