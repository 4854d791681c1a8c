// SPDX-License-Identifier: MIT OR Apache-2.0

//! The emulated host: one QEMU process for each job.
//!
//! Files go in within the initramfs. Three virtio serial ports bring out the job's stdout, its stderr and a
//! tar stream of its files, each to a socket here and each with a trailer; kernel messages go to a serial
//! port and a file of their own. When all three trailers are here the host is told to power off.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use busway_guest_images::manifest::Manifest;
use busway_guest_images::store::Image;

use super::qemu::{self, PORTS};
use super::stream::{self, End};
use super::{HostCrashed, Job, Machine, initrd};
use crate::{tools, workspace};

/// The guest image whose kernel runs the emulated host too.
const KERNEL: &str = "bookworm-cloud";

/// For what takes no time when all is well: QEMU to connect, the host to power off.
const MOMENT: Duration = Duration::from_secs(20);

/// For the host to start, which takes some three seconds, or one in very many never does.
const START: Duration = Duration::from_secs(240);

/// About what the kernel writes of one oops.
const PANIC_LINES: usize = 60;

/// How often a QEMU that died without a word is noticed.
const TICK: Duration = Duration::from_millis(100);

/// Runs the job; see [`super::Host::run`].
pub(crate) fn run(
    machine: Machine,
    job: &Job,
    watch: &mut (dyn FnMut(&[u8]) + Send),
) -> anyhow::Result<u8> {
    tools::ensure_images()?;
    tools::ensure(tools::LAB)?;
    let (store, manifest) = (workspace::images(), Manifest::load()?);
    let image = store.image(manifest.image(KERNEL)?, false)?;
    let qemu = store.tool(manifest.tool("qemu")?)?;
    let run = Run::prepare(&image, job)?;
    let directory = run.directory.path();
    let command = qemu::command(&qemu, machine, &image, directory, job.terminal)?;
    let result = run.go(command, job, watch);
    if result.is_err() {
        // The run's directory goes; what may explain the failure stays.
        for log in ["console.log", "qemu.log"] {
            let _ = fs::copy(run.path(log), run.kept(log));
        }
    }
    result
}

struct Run {
    directory: tempfile::TempDir,
    mark: Vec<u8>,
}

impl Run {
    fn prepare(image: &Image, job: &Job) -> anyhow::Result<Self> {
        let parent = workspace::target().join("lab");
        fs::create_dir_all(&parent)?;
        sweep(&parent);
        let pid = std::process::id();
        let directory =
            tempfile::Builder::new().prefix(&format!("run-{pid}-")).tempdir_in(&parent)?;
        let random = directory.path().file_name().unwrap_or_default();
        let mark = format!("\0lab {} ", random.to_string_lossy()).into_bytes();
        let run = Self { directory, mark };
        initrd::build(&run.path("initrd.cpio"), image, job, &run.mark)?;
        Ok(run)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where a log of a failed run stays until the next one fails.
    fn kept(&self, name: &str) -> PathBuf {
        workspace::target().join("lab").join(name)
    }

    fn go(
        &self,
        mut command: Command,
        job: &Job,
        watch: &mut (dyn FnMut(&[u8]) + Send),
    ) -> anyhow::Result<u8> {
        let deadline = job.timeout.map(|timeout| Instant::now() + timeout);
        let start = Some(Instant::now() + START);
        let listeners = Listeners::bind(self.directory.path())?;
        let mut qemu = Qemu(command.spawn().context("could not start QEMU")?);
        let Some([stdout, stderr, files]) = listeners.accept(&mut qemu.0)? else {
            return Err(self.why_it_ended(&mut qemu.0));
        };
        let mut acknowledge = stdout.try_clone()?;
        let (sender, ends) = mpsc::channel();
        let status = thread::scope(|scope| {
            let report = Report(sender);
            let (a, b, c) = (report.clone(), report.clone(), report);
            scope.spawn(move || a.done(stream::copy(stdout, &mut Watched(watch), &self.mark)));
            scope.spawn(move || b.done(stream::copy(stderr, &mut io::stderr(), &self.mark)));
            scope.spawn(move || c.done(self.unpack(files)));
            let status = self.wait(&ends, &mut qemu.0, start, deadline, job.timeout);
            if status.is_err() {
                // Closes the sockets, so that the threads end.
                qemu.kill();
            }
            status
        })?;
        acknowledge.write_all(b"\n").ok();
        qemu.wait_for_power_off();
        self.deliver(job, status)?;
        Ok(status)
    }

    fn wait(
        &self,
        ends: &mpsc::Receiver<anyhow::Result<End>>,
        qemu: &mut Child,
        mut start: Option<Instant>,
        deadline: Option<Instant>,
        timeout: Option<Duration>,
    ) -> anyhow::Result<u8> {
        let mut status = 0;
        let mut open = PORTS.len();
        while open > 0 {
            start = start.filter(|_| !self.has_started());
            if start.is_some_and(|start| Instant::now() >= start) {
                let said = format!("the emulated host did not start within {} s", START.as_secs());
                return Err(HostCrashed(said).into());
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let seconds = timeout.unwrap_or_default().as_secs();
                bail!(
                    "the command did not end within {seconds} s (--timeout) and was stopped; kernel messages are in {}",
                    self.kept("console.log").display()
                );
            }
            match ends.recv_timeout(TICK) {
                Ok(end) => match end? {
                    End::Trailer(said) => {
                        status = said;
                        open -= 1;
                    }
                    End::Broken => {
                        // The sockets close a moment before the process is gone.
                        let ended = wait_for(qemu, MOMENT);
                        ended.context("QEMU closed its ports but does not end")?;
                        return Err(self.why_it_ended(qemu));
                    }
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("a port's thread ended without a word")
                }
            }
        }
        Ok(status)
    }

    /// Its kernel, or the init at the latest, has said something.
    fn has_started(&self) -> bool {
        fs::metadata(self.path("console.log")).is_ok_and(|log| log.len() != 0)
    }

    /// tar's stream into the run's directory; tar starts with the first byte.
    fn unpack(&self, files: UnixStream) -> anyhow::Result<End> {
        let target = self.path("out");
        fs::create_dir_all(&target)?;
        let mut tar = Tar { target, child: None };
        let end = stream::copy(files, &mut tar, &self.mark)?;
        if let Some(mut child) = tar.child {
            drop(child.stdin.take());
            let status = child.wait()?;
            if !status.success() && matches!(end, End::Trailer(_)) {
                bail!("tar could not unpack what the command left: {status}");
            }
        }
        Ok(end)
    }

    fn deliver(&self, job: &Job, status: u8) -> anyhow::Result<()> {
        for file in &job.outs {
            super::deliver(&self.path("out").join(&file.name), file, status)?;
        }
        Ok(())
    }

    /// One line on a host that went away before its job was done; what its kernel said of it goes to stderr.
    fn why_it_ended(&self, qemu: &mut Child) -> anyhow::Error {
        let console = fs::read(self.path("console.log")).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        if let Some((panic, before)) = panic_in(&console) {
            eprint!("{before}");
            let log = self.kept("console.log");
            let log = log.display();
            let said = format!("the emulated host crashed: {panic}; kernel messages are in {log}");
            return HostCrashed(said).into();
        }
        let said = match qemu.try_wait() {
            Ok(Some(status)) if status.success() => {
                "the emulated host powered off before the command ended".to_owned()
            }
            Ok(Some(status)) => {
                let log = fs::read_to_string(self.path("qemu.log")).unwrap_or_default();
                format!("QEMU died ({status}): {}", complaint_in(&log))
            }
            _ => "QEMU stopped answering".to_owned(),
        };
        anyhow::Error::msg(said)
    }
}

/// Removes what runs that were killed have left.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let pid = name.strip_prefix("run-").and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The kernel's reason to panic, without its timestamp, and the lines that it wrote before.
fn panic_in(console: &str) -> Option<(&str, String)> {
    let at = console.find("Kernel panic - not syncing")?;
    let before: Vec<_> = console.get(..at)?.lines().collect();
    let last = before.len().saturating_sub(PANIC_LINES);
    let before = before.get(last..)?.iter().map(|line| format!("{}\n", line.trim_end()));
    let before = before.collect();
    console.get(at..)?.lines().next().map(|line| (line.trim(), before))
}

/// QEMU's last word that is not about processor features TCG lacks.
fn complaint_in(log: &str) -> &str {
    let mut lines = log.lines().rev().map(str::trim);
    lines
        .find(|line| !line.is_empty() && !line.contains("TCG doesn't support"))
        .unwrap_or("it gave no reason")
}

struct Listeners(Vec<UnixListener>);

impl Listeners {
    fn bind(directory: &Path) -> anyhow::Result<Self> {
        // By way of the open directory the path is short, however deep the checkout lies.
        let open = File::open(directory)?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        let mut listeners = Vec::new();
        for port in PORTS {
            let listener = UnixListener::bind(short.join(port))?;
            listener.set_nonblocking(true)?;
            listeners.push(listener);
        }
        Ok(Self(listeners))
    }

    /// QEMU's connections, in the order of [`PORTS`]; none when QEMU ended first.
    fn accept(self, qemu: &mut Child) -> anyhow::Result<Option<[UnixStream; 3]>> {
        let deadline = Instant::now() + MOMENT;
        let mut streams = Vec::new();
        for listener in &self.0 {
            let stream = loop {
                match listener.accept() {
                    Ok((stream, _)) => break stream,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
                if qemu.try_wait()?.is_some() {
                    return Ok(None);
                }
                if Instant::now() > deadline {
                    bail!("QEMU did not open its ports");
                }
                thread::sleep(Duration::from_millis(2));
            };
            stream.set_nonblocking(false)?;
            streams.push(stream);
        }
        Ok(streams.try_into().ok())
    }
}

/// Kills QEMU wherever a run ends early.
struct Qemu(Child);

impl Qemu {
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    fn wait_for_power_off(mut self) {
        // Powering off by itself, QEMU puts a terminal back as it was.
        let _ = wait_for(&mut self.0, MOMENT);
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

fn wait_for(child: &mut Child, patience: Duration) -> Option<()> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if child.try_wait().ok()?.is_some() {
            return Some(());
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

#[derive(Clone)]
struct Report(Sender<anyhow::Result<End>>);

impl Report {
    fn done<E: Into<anyhow::Error>>(self, end: Result<End, E>) {
        // Nobody listens any more once the run has failed.
        let _ = self.0.send(end.map_err(Into::into));
    }
}

/// Our stdout, with somebody looking on.
struct Watched<'a>(&'a mut (dyn FnMut(&[u8]) + Send));

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write_all(bytes)?;
        (self.0)(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// A tar that starts when there is something to unpack.
struct Tar {
    target: PathBuf,
    child: Option<Child>,
}

impl Write for Tar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.child.is_none() {
            let mut command = Command::new("tar");
            command.args(["-x", "--no-same-owner", "-f", "-", "-C"]).arg(&self.target);
            self.child = Some(command.stdin(Stdio::piped()).spawn()?);
        }
        match self.child.as_mut().and_then(|child| child.stdin.as_mut()) {
            Some(stdin) => stdin.write(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
