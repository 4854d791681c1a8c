// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask lab`: one command on a KVM host with Hyper-V support, wherever this runs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::lab::{FileIn, FileOut, Host, Job, Machine};
use crate::workspace;

const EXAMPLES: &str = "Examples:
  cargo xtask lab -- busway check
  cargo xtask lab --file disk.img --out results -- sh -c 'sha256sum disk.img > out/sum'
  cargo xtask lab --shell";

/// Status for "the lab failed", so that it is not taken for the command's own.
const LAB_FAILED: u8 = 125;

/// Run a command on a KVM host with Hyper-V support: this machine, or an emulated one.
///
/// This machine is taken if its KVM is whole. Else QEMU emulates an AMD processor with SVM, which needs no
/// KVM, and Debian's kernel with kvm-amd runs on it; that comes up in some 4 s.
///
/// The command starts in a directory with the --file files in it and `busway` on its PATH; in the emulated
/// host the other programs are busybox's. Its output arrives live and its exit status is xtask's own; 125
/// means that the lab itself failed, and one line on stderr says how.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A file or directory to have in the working directory, under its base name or as NAME. Programs
    /// bring the shared libraries that ldd names.
    #[arg(long = "file", value_name = "PATH[=NAME]")]
    files: Vec<String>,
    /// Where what the command leaves in ./out goes; or with NAME=, what it leaves there. May be repeated.
    #[arg(long = "out", value_name = "[NAME=]PATH")]
    outs: Vec<String>,
    /// Memory of the emulated host, with M or G.
    #[arg(long, default_value = "6G", value_parser = parse_memory)]
    memory: u64,
    /// Processors of the emulated host.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Seconds after which the whole is stopped, start included.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Never use this machine's own KVM. (BUSWAY_LAB=direct or =lab in the environment forces either way.)
    #[arg(long)]
    force_emulated: bool,
    /// A shell on the terminal instead of a command; no timeout.
    #[arg(long, conflicts_with = "command")]
    shell: bool,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required_unless_present = "shell")]
    command: Vec<OsString>,
}

/// Does what the command line asks.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match job_of(arguments).and_then(|(host, job)| host.run(&job, &mut |_| {})) {
        Ok(status) => Ok(ExitCode::from(status)),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            Ok(ExitCode::from(LAB_FAILED))
        }
    }
}

fn job_of(arguments: Arguments) -> anyhow::Result<(Host, Job)> {
    let machine = Machine { memory_mib: arguments.memory, cpus: arguments.cpus };
    let host =
        if arguments.force_emulated { Host::Emulated(machine) } else { Host::choose(machine)? };
    let files = arguments.files.iter().map(|text| file_in(text));
    let job = Job {
        command: if arguments.shell { vec![shell_of(host)] } else { arguments.command },
        terminal: arguments.shell,
        programs: vec![workspace::busway()?],
        files: files.collect::<anyhow::Result<_>>()?,
        outs: arguments.outs.iter().map(|text| file_out(text)).collect(),
        timeout: (!arguments.shell).then(|| Duration::from_secs(arguments.timeout)),
    };
    Ok((host, job))
}

fn shell_of(host: Host) -> OsString {
    let own = std::env::var_os("SHELL").filter(|_| matches!(host, Host::Direct));
    own.unwrap_or("sh".into())
}

fn file_in(text: &str) -> anyhow::Result<FileIn> {
    // A name that holds `=` is taken whole where such a file is there.
    let (source, name) = match text.rsplit_once('=') {
        Some((source, name)) if !PathBuf::from(text).exists() => (source, Some(name)),
        _ => (text, None),
    };
    let source = PathBuf::from(source);
    if !source.exists() {
        bail!("--file {text}: there is no {}", source.display());
    }
    let base = source.canonicalize()?;
    let base = base.file_name().and_then(|name| name.to_str());
    let name = name.or(base).context("--file needs a name that is UTF-8")?;
    if name.starts_with('/') || name.split('/').any(|part| part == "..") {
        bail!("--file {text}: NAME is a path below the working directory, not {name}");
    }
    Ok(FileIn { name: name.to_owned(), source })
}

fn file_out(text: &str) -> FileOut {
    let (name, target) = text.split_once('=').unwrap_or(("out", text));
    FileOut { name: name.to_owned(), target: PathBuf::from(target) }
}

/// MiB in `6G`, `512M`.
fn parse_memory(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['G', 'g']) {
        Some(number) => (number, 1024),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 1),
    };
    let number: u64 = number.parse().map_err(|_| "a number with M or G is wanted, such as 4G")?;
    number
        .checked_mul(unit)
        .filter(|mib| *mib >= 512)
        .ok_or_else(|| "the emulated host needs 512M at least".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_with_its_unit() {
        assert_eq!(parse_memory("6G"), Ok(6144));
        assert_eq!(parse_memory("768m"), Ok(768));
        assert!(parse_memory("64M").is_err());
        assert!(parse_memory("lots").is_err());
        assert!(parse_memory("99999999999999999999G").is_err());
    }

    #[test]
    fn a_file_may_be_renamed_but_stays_in_the_working_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a=b");
        std::fs::write(&path, "x").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(file_in(path).unwrap().name, "a=b");
        assert_eq!(file_in(&format!("{path}=c/d")).unwrap().name, "c/d");
        assert!(file_in(&format!("{path}=../d")).is_err());
        assert!(file_in(&format!("{path}=/d")).is_err());
        assert!(file_in("/no/such/file").is_err());
    }
}
