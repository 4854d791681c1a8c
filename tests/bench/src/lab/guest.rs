// SPDX-License-Identifier: MIT OR Apache-2.0

//! A stock guest under busway or under another program, listened to.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use busway_guest_images::cpio::Archive;

/// In seconds: no guest here takes a tenth of it.
const TIMEOUT: &str = "300";

/// `busway run` with a kernel.
pub fn busway(kernel: &Path) -> Command {
    let mut command = Command::new("busway");
    command.arg("run").arg("--kernel").arg(kernel).args(["--timeout", TIMEOUT]);
    command
}

/// The kernel's command line for a script that the stock init runs.
pub const CMDLINE: &str = "console=ttyS0 quiet loglevel=1 panic=-1";

/// `busway run` with the stock kernel, and a script that its init runs.
pub fn stock(script: &str) -> Command {
    ours(&initrd("test/run", &format!("#!/bin/sh\n{script}\n")), CMDLINE)
}

/// `busway run` with the stock kernel.
pub fn ours(initrd: &Path, cmdline: &str) -> Command {
    let mut command = busway(Path::new("vmlinuz"));
    command.arg("--initrd").arg(initrd).args(["--cmdline", cmdline]);
    command
}

/// The same machine as QEMU's q35, as far as it goes.
pub fn qemu(initrd: &Path, cmdline: &str) -> Command {
    let mut command = Command::new("qemu/lib/ld-linux-x86-64.so.2");
    let mut say = |words: &str| {
        command.args(words.split(' '));
    };
    say("--inhibit-cache --library-path qemu/lib qemu/qemu-system-x86_64 -L qemu/share");
    say("-nodefaults -no-user-config -display none -no-reboot");
    say("-M q35 -accel kvm -cpu host -m 512M -serial stdio -kernel vmlinuz");
    command.arg("-initrd").arg(initrd).args(["-append", cmdline]);
    command
}

/// The stock initramfs with a script, and the agent, behind it.
pub fn initrd(place: &str, script: &str) -> PathBuf {
    let path = PathBuf::from("initrd");
    fs::copy("initrd.cpio", &path).expect("the stock initramfs");
    let file = File::options().append(true).open(&path).expect("its copy");
    let mut archive = Archive::new(file);
    archive.file(place, 0o755, script.as_bytes()).expect("room for a script");
    archive.copy("bin/agent", Path::new("agent")).expect("the agent");
    archive.finish().expect("an archive");
    path
}

/// A disk of 64 MiB, empty but not sparse: its blocks are in the host's page cache.
pub fn disk() -> PathBuf {
    let path = PathBuf::from("disk.img");
    fs::write(&path, vec![0x5a; 64 << 20]).expect("room for a disk");
    path
}

/// A program whose guest runs. Dropped, it is killed.
pub struct Running {
    child: Child,
    serial: BufReader<ChildStdout>,
    started: Instant,
}

impl Running {
    /// From here on, time counts.
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| fail(command, &error));
        let serial = child.stdout.take().expect("a pipe");
        Self { child, serial: BufReader::new(serial), started }
    }

    /// How long it took to the first byte on the guest's serial port.
    pub fn first_byte(&mut self) -> Duration {
        let mut byte = [0];
        self.serial.read_exact(&mut byte).expect("a byte from the guest");
        self.started.elapsed()
    }

    /// How long it took to the line that contains this.
    pub fn line(&mut self, wanted: &str) -> Duration {
        self.whole_line(wanted);
        self.started.elapsed()
    }

    /// The next line that contains this.
    pub fn whole_line(&mut self, wanted: &str) -> String {
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = self.serial.read_until(b'\n', &mut line).expect("a line from the guest");
            let text = String::from_utf8_lossy(&line);
            if text.contains(wanted) {
                return text.into_owned();
            }
            assert!(length != 0, "the guest ended without {wanted:?}");
            eprint!("bench: the guest says {text}");
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Until the guest has switched itself off.
    pub fn end(mut self) {
        io::copy(&mut self.serial, &mut io::sink()).expect("the guest's words");
        let status = self.child.wait().expect("a child");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::panic, reason = "a measurement that cannot be taken ends the program")]
fn fail(command: &Command, error: &io::Error) -> ! {
    panic!("{command:?}: {error}");
}
