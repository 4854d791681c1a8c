// SPDX-License-Identifier: MIT OR Apache-2.0

//! A TAP of the host's, with an address and somebody who answers.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use busway_guest_agent::{check_noise, send_noise};

/// Who listens on all addresses of the host: one that takes noise, one that gives it, one that sends
/// datagrams back.
pub(crate) const PUSH: u16 = 7001;
pub(crate) const PULL: u16 = 7002;
pub(crate) const ECHO: u16 = 7003;

/// A TAP. Gone at the end.
pub(crate) struct Tap {
    name: String,
    number: u8,
    several: bool,
    dhcp: Option<Child>,
}

impl Tap {
    /// A TAP with a number of its own; `several` is whether it has several queues. Or why there can be
    /// none here.
    pub(crate) fn new(several: bool) -> Result<Self, String> {
        static ANSWERS: Once = Once::new();
        static NEXT: AtomicU8 = AtomicU8::new(1);
        ANSWERS.call_once(answer);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = &*format!("bw{number}");
        let created = attach(name, several).and_then(|file| persist(&file, true));
        created.map_err(|error| format!("no TAP can be had here, which takes root: {error}"))?;
        let tap = Self { name: name.to_owned(), number, several, dhcp: None };
        tap.ip(&["addr", "add", &format!("{}/24", tap.host()), "dev", name]);
        tap.ip(&["link", "set", name, "up"]);
        // Nothing that the host says of its own accord should be in what tests count.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        Ok(tap)
    }

    /// Keeps it from everybody else who may open /dev/net/tun; without that it is everybody's.
    pub(crate) fn give_to_root(&self) {
        let root = std::ptr::null_mut();
        let done =
            attach(&self.name, self.several).and_then(|file| ioctl(&file, TUNSETOWNER, root));
        done.unwrap();
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What no other has.
    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    /// The host's address on it.
    pub(crate) fn host(&self) -> String {
        format!("10.77.{}.1", self.number)
    }

    /// The guest's.
    pub(crate) fn guest(&self) -> String {
        format!("10.77.{}.2", self.number)
    }

    /// Has the host know where `address` is, without asking for it.
    pub(crate) fn know(&self, address: &str, mac: &str) {
        let done = Command::new("arp").args(["-i", &self.name, "-s", address, mac]).status();
        assert!(done.unwrap().success());
    }

    /// Runs `ip`, which must succeed.
    pub(crate) fn ip(&self, words: &[&str]) {
        let output = Command::new("ip").args(words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {}: {said}", words.join(" "));
    }

    /// Gives out the guest's address by DHCP.
    pub(crate) fn serve_dhcp(&mut self, scratch: &Path) {
        let leases = scratch.with_extension("leases");
        fs::write(&leases, "").unwrap();
        let guest = self.guest();
        let text = format!(
            "start {guest}\nend {guest}\ninterface {}\nmax_leases 1\nlease_file {}\n\
             pidfile {}\noption subnet 255.255.255.0\n",
            self.name,
            leases.display(),
            scratch.with_extension("pid").display()
        );
        fs::write(scratch, text).unwrap();
        let mut command = Command::new("udhcpd");
        command.arg("-f").arg(scratch).stdout(Stdio::null()).stderr(Stdio::null());
        self.dhcp = Some(command.spawn().unwrap());
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Some(dhcp) = &mut self.dhcp {
            let _ = dhcp.kill();
            let _ = dhcp.wait();
        }
        let _ = attach(&self.name, self.several).and_then(|file| persist(&file, false));
    }
}

/// `_IOW('T', 202, int)` to `_IOW('T', 204, int)` (Linux `include/uapi/linux/if_tun.h`).
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
const TUNSETOWNER: libc::c_ulong = 0x4004_54cc;

/// IFF_TAP, IFF_NO_PI, IFF_VNET_HDR; IFF_MULTI_QUEUE.
const FLAGS: u16 = 0x5002;
const MULTI_QUEUE: u16 = 0x0100;

/// A queue of the TAP, which comes into being with it.
fn attach(name: &str, several: bool) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = if several { FLAGS | MULTI_QUEUE } else { FLAGS };
    request[16..18].copy_from_slice(&flags.to_le_bytes());
    ioctl(&file, TUNSETIFF, request.as_mut_ptr())?;
    Ok(file)
}

/// Whether it stays when nobody has it open.
fn persist(file: &File, stays: bool) -> io::Result<()> {
    ioctl(file, TUNSETPERSIST, std::ptr::without_provenance_mut(usize::from(stays)))
}

#[expect(unsafe_code, reason = "an ioctl")]
fn ioctl(file: &File, request: libc::c_ulong, argument: *mut u8) -> io::Result<()> {
    // SAFETY: TUNSETIFF is called with an array of the size of a `struct ifreq`, the others take
    // a number.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Answers on all addresses of the host, for as long as the program runs.
fn answer() {
    listen(PUSH, |stream, seed, length| {
        let right = check_noise(stream, seed, length);
        let _ = stream.write_all(&[u8::from(right.is_ok())]);
    });
    listen(PULL, |stream, seed, length| {
        let _ = send_noise(stream, seed, length);
        let _ = stream.read(&mut [0]);
    });
    let echo = UdpSocket::bind(("0.0.0.0", ECHO)).unwrap();
    thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        while let Ok((length, from)) = echo.recv_from(&mut bytes) {
            let _ = echo.send_to(&bytes[..length], from);
        }
    });
}

/// Serves each who connects to `port` and says which seed and what length.
fn listen(port: u16, serve: fn(&mut TcpStream, u64, u64)) {
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut what = [[0; 8]; 2];
                if stream.read_exact(what.as_flattened_mut()).is_ok() {
                    let [seed, length] = what.map(u64::from_le_bytes);
                    serve(&mut stream, seed, length);
                }
            });
        }
    });
}
