// SPDX-License-Identifier: MIT OR Apache-2.0

//! A job on this machine itself, with the same view as in the emulated host: a working directory of its own
//! with copies of its files, its programs on the PATH, its output passed on.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, bail};

use super::Job;

/// Runs the job; see [`super::Host::run`].
pub(crate) fn run(job: &Job, watch: &mut (dyn FnMut(&[u8]) + Send)) -> anyhow::Result<u8> {
    let directory = tempfile::tempdir()?;
    let work = directory.path().join("work");
    fs::create_dir_all(work.join("out"))?;
    for file in &job.files {
        let target = work.join(&file.name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        super::copy(&file.source, &target)?;
    }
    let programs = directory.path().join("bin");
    fs::create_dir(&programs)?;
    for program in &job.programs {
        let name = program.file_name().context("a program needs a name")?;
        std::os::unix::fs::symlink(program.canonicalize()?, programs.join(name))?;
    }
    let started = Instant::now();
    let status = execute(job, &work, &programs, watch)?;
    if job.timeout.is_some_and(|timeout| started.elapsed() >= timeout) {
        let seconds = job.timeout.unwrap_or_default().as_secs();
        bail!("the command did not end within {seconds} s (--timeout) and was stopped");
    }
    let status = exit_code(status);
    for file in &job.outs {
        super::deliver(&work.join(&file.name), file, status)?;
    }
    Ok(status)
}

fn execute(
    job: &Job,
    work: &Path,
    programs: &Path,
    watch: &mut (dyn FnMut(&[u8]) + Send),
) -> anyhow::Result<ExitStatus> {
    let mut command = command(job)?;
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::split_paths(&path);
    let path = env::join_paths([programs.to_owned()].into_iter().chain(path))?;
    command.current_dir(work).env("PATH", path);
    if job.terminal {
        return command.status().context("could not start the command");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("could not start timeout")?;
    if let Some(mut stdout) = child.stdout.take() {
        pass_on(&mut stdout, watch)?;
    }
    Ok(child.wait()?)
}

fn command(job: &Job) -> anyhow::Result<Command> {
    let (program, arguments) = job.command.split_first().context("no command was given")?;
    let Some(timeout) = job.timeout else {
        let mut command = Command::new(program);
        command.args(arguments);
        return Ok(command);
    };
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &timeout.as_secs().to_string()]);
    command.args(&job.command);
    Ok(command)
}

fn pass_on(from: &mut impl Read, watch: &mut (dyn FnMut(&[u8]) + Send)) -> io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut chunk)?;
        let bytes = chunk.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        io::stdout().write_all(bytes)?;
        io::stdout().flush()?;
        watch(bytes);
    }
}

/// As a shell reports it: 128 + n for a command that signal n ended.
fn exit_code(status: ExitStatus) -> u8 {
    let signal = status.signal().map(|signal| signal + 128);
    let code = status.code().or(signal).unwrap_or(i32::from(u8::MAX));
    u8::try_from(code).unwrap_or(u8::MAX)
}
