// SPDX-License-Identifier: MIT OR Apache-2.0

//! AF_VSOCK of a stock guest and unix sockets of the host.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use busway_guest_agent::noise;

use crate::case::{Case, Outcome, number, tests};
use crate::guest::script_status;

tests![
    guest_and_host_call_each_other,
    hundreds_of_connections_leave_nothing_behind,
    ends_that_vanish_are_the_end_of_their_connection_only,
];

/// Where the guest's connections go, and where the host's are asked for.
struct Directory(PathBuf);

impl Directory {
    fn new(case: &Case) -> Self {
        let path = case.path("vsock");
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// Sends back what the guest's connections to `port` send, until each has no more to say.
    fn echo(&self, port: u32) {
        let listener = UnixListener::bind(self.0.join(format!("vsock_{port}"))).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || send_back(stream));
            }
        });
    }

    /// A connection to what listens on `port` in the guest.
    fn call(&self, port: u32) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(self.0.join("vsock"))?;
        stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.extend(byte);
        }
        assert!(line.starts_with(b"OK "), "{line:?}");
        Ok(stream)
    }
}

fn send_back(mut stream: UnixStream) -> io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    loop {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        stream.write_all(&chunk[..length])?;
    }
}

/// Says something and returns what comes back.
fn converse(mut stream: &UnixStream, said: &[u8]) -> Vec<u8> {
    thread::scope(|scope| {
        scope.spawn(move || {
            (&mut &*stream).write_all(said).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        heard
    })
}

/// F73: both ways, many bytes, with an end in one direction while the other goes on. BUSWAY_SOCK_MIB=1024 is
/// as many as a stock guest should be seen with.
fn guest_and_host_call_each_other(case: &Case) -> Outcome {
    let directory = Directory::new(case);
    directory.echo(1024);
    let guest = case.guest().cpus(2).flag("--vsock").flag(directory.path());
    let mib = number("BUSWAY_SOCK_MIB").unwrap_or(8);
    let script = "agent call 1024 seed=1 bytes=MANY
        agent call 1024 seed=2 bytes=1 turns=3
        agent call 1024 seed=3 bytes=0
        agent call 1024 seed=1000 bytes=5000 parallel=256
        # Nobody listens there.
        agent call 1025 || echo refused=yes
        agent echo 2000 count=66";
    let mut guest = guest.start(&script.replace("MANY", &format!("{mib}m")));
    for _ in 0..4 {
        guest.wait_for("called=");
    }
    guest.wait_for("refused=");
    guest.wait_for("listening=");
    let said = noise(5, 4 << 20);
    assert!(converse(&directory.call(2000).unwrap(), &said) == said);
    let calls: Vec<_> = (0..64).map(|_| directory.call(2000).unwrap()).collect();
    for (number, call) in (100..).zip(&calls) {
        let said = noise(number, 3000);
        assert!(converse(call, &said) == said);
    }
    // Nobody listens there.
    assert!(directory.call(2001).is_err());
    let call = directory.call(2000).unwrap();
    assert!(converse(&call, &[]).is_empty());
    let report = guest.end();
    assert_eq!(report.number("echoed"), (4 << 20) + 64 * 3000);
    assert_eq!((script_status(&report), report.status), (Some(0), 0));
    assert_eq!(report.busway, "");
    Ok(())
}

/// F74: the driver can go in the end. BUSWAY_SOCKETS=10000 is five times as many as there are relids
/// (so many in process: tests/conformance).
fn hundreds_of_connections_leave_nothing_behind(case: &Case) -> Outcome {
    let directory = Directory::new(case);
    directory.echo(1024);
    let turns = number("BUSWAY_SOCKETS").unwrap_or(200).div_ceil(4);
    let script = "before=$(ls $bus | wc -l)
        agent call 1024 bytes=10 turns=TURNS parallel=4
        until [ $(ls $bus | wc -l) = $before ]; do usleep 100000; done
        rmmod hv_sock
        modprobe hv_sock
        agent call 1024 bytes=10
        dmesg -r | grep -v PCI: | sed -n 's/^<[0-3]>/complaint=/p'";
    let guest = case.guest().cpus(2).flag("--vsock").flag(directory.path());
    let guest = guest.run(&script.replace("TURNS", &turns.to_string()));
    assert_eq!(guest.all("called"), [&*(4 * turns).to_string(), "1"]);
    assert!(guest.all("complaint").is_empty(), "{:?}", guest.all("complaint"));
    assert_eq!(guest.busway, "");
    Ok(())
}

/// A peer that dies, on either side, with bytes under way.
fn ends_that_vanish_are_the_end_of_their_connection_only(case: &Case) -> Outcome {
    let directory = Directory::new(case);
    directory.echo(1024);
    // It reads a little, then goes.
    let listener = UnixListener::bind(directory.path().join("vsock_1025")).unwrap();
    let vanishing = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
    });
    let guest = case.guest().cpus(2).flag("--vsock").flag(directory.path());
    let mut guest = guest.start(
        "agent call 1025 bytes=8m || echo broken=yes
        agent echo 2000 &
        usleep 300000
        echo ready
        agent call 1024 bytes=4m
        read line </dev/null || true
        echo killing
        kill -9 $!
        usleep 300000
        agent call 1024 bytes=4m
        agent echo 2000 count=1",
    );
    guest.wait_for("broken=");
    vanishing.join().unwrap();
    guest.wait_for("ready");
    let mut call = directory.call(2000).unwrap();
    call.write_all(&[1; 1000]).unwrap();
    call.read_exact(&mut [0; 1000]).unwrap();
    guest.wait_for("killing");
    // Its end is the guest's.
    let mut rest = Vec::new();
    call.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    guest.wait_for("called=");
    guest.wait_for("listening=");
    let said = noise(6, 1 << 20);
    assert!(converse(&directory.call(2000).unwrap(), &said) == said);
    let report = guest.end();
    assert_eq!((script_status(&report), report.status), (Some(0), 0));
    Ok(())
}
