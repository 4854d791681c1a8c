// SPDX-License-Identifier: MIT OR Apache-2.0

//! iPXE: a boot loader that starts in real mode, and whose drivers for VMBus have nothing in common with
//! Linux's. It speaks versions 3.0 and, after an unload, 0.13.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use busway_harness::Running;

use crate::capture::decode;
use crate::case::{Case, Outcome, Skip, number, tests};
use crate::guest::script_status;
use crate::tap::Tap;

tests![a_boot_loader_gets_an_address_and_a_file, a_boot_loader_starts_linux];

/// F62. Before the version that it likes it tries whether it can leave the bus again.
fn a_boot_loader_gets_an_address_and_a_file(case: &Case) -> Outcome {
    let mut tap = Tap::new(false).map_err(Skip)?;
    let file = case.path("pcapng");
    let capture = ["--capture", file.to_str().unwrap()];
    let mut guest = chain(case, &mut tap, "echo chained=yes", Vec::new(), &capture);
    guest.wait_for("chained=");
    guest.terminate();
    guest.end();
    let records = decode(case, &file).records;
    let messages = records.iter().filter(|record| record["kind"] == "message");
    let said = messages.filter_map(|record| record["text"].as_str()?.rsplit(" | ").next());
    let said: Vec<_> = said.map(|text| text.split(' ').take(2).collect::<Vec<_>>()).collect();
    assert_eq!(
        said[..6],
        [
            ["INITIATE_CONTACT", "version=3.0"].as_slice(),
            &["VERSION_RESPONSE", "supported"],
            &["UNLOAD"],
            &["UNLOAD_RESPONSE"],
            &["INITIATE_CONTACT", "version=0.13"],
            &["VERSION_RESPONSE", "supported"],
        ]
    );
    Ok(())
}

/// F62. Linux is entered in real mode too, and finds the bus as if nobody had used it.
fn a_boot_loader_starts_linux(case: &Case) -> Outcome {
    if number("BUSWAY_NETBOOT").is_none() {
        return Err(Skip("it takes two minutes: BUSWAY_NETBOOT=1 asks for it".to_owned()));
    }
    let mut tap = Tap::new(false).map_err(Skip)?;
    let script =
        "fact version $(dmesg | sed -n 's/.*Vmbus version:\\([0-9.]*\\).*/\\1/p' | tail -n 1)
        fact card $(cat /sys/class/net/*/address | grep -v 00:00:00:00:00:00)";
    let initrd = case.guest().initrd(script);
    let commands = "kernel vmlinuz console=ttyS0 panic=-1 quiet\ninitrd initrd\nboot";
    let files = vec![("vmlinuz", case.kernel.vmlinuz()), ("initrd", initrd)];
    let report = chain(case, &mut tap, commands, files, &[]).end();
    assert_eq!((report.status, script_status(&report)), (0, Some(0)));
    assert_eq!(report.fact("version"), case.kernel.newest_vmbus());
    assert_eq!(report.all("card"), ["02:00:00:00:00:07"; 2]);
    Ok(())
}

/// iPXE with an address of `tap`'s, where it has loaded a script with these commands, and can load these
/// files; `words` are for busway.
fn chain(
    case: &Case,
    tap: &mut Tap,
    commands: &str,
    mut files: Vec<(&'static str, PathBuf)>,
    words: &[&str],
) -> Running {
    tap.serve_dhcp(&case.path("udhcpd"));
    let [first, next] = ["first", "next"].map(|name| case.path(name));
    let text = format!("#!ipxe\necho address=${{net0/ip}}\necho card=${{net0/mac}}\n{commands}\n");
    fs::write(&next, text).unwrap();
    files.push(("next", next));
    let server = TcpListener::bind((tap.host(), 0)).unwrap();
    let address = server.local_addr().unwrap();
    thread::spawn(move || serve(&server, &files));
    fs::write(&first, format!("#!ipxe\ndhcp net0\nchain http://{address}/next\n")).unwrap();
    let words = [&["--initrd", first.to_str().unwrap()], words].concat();
    let mut guest = start(case, tap, &words);
    assert_eq!(guest.wait_for("address="), tap.guest());
    assert_eq!(guest.wait_for("card="), "02:00:00:00:00:07");
    guest
}

fn start(case: &Case, tap: &Tap, words: &[&str]) -> Running {
    let mut command = Command::new("busway");
    command.args(["run", "--kernel", "ipxe.lkrn"]);
    command.args(["--hyperv", case.kernel.engine]);
    command.args(["--net", &format!("tap={},mac=02:00:00:00:00:07", tap.name())]).args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let serial = child.stdout.take().unwrap();
    Running::attach(child, serial, case.deadline, case.listener())
}

/// Gives out files by HTTP, under their names.
fn serve(server: &TcpListener, files: &[(&str, PathBuf)]) {
    for stream in server.incoming() {
        // A guest that hangs up has had enough.
        let _ = answer(stream.unwrap(), files);
    }
}

fn answer(mut stream: TcpStream, files: &[(&str, PathBuf)]) -> std::io::Result<()> {
    let mut request = String::new();
    let mut lines = BufReader::new(&stream);
    lines.read_line(&mut request)?;
    while lines.read_line(&mut String::new())? > 2 {}
    let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let Some((_, path)) = files.iter().find(|(have, _)| *have == name) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    };
    let contents = fs::read(path)?;
    let length = contents.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(&contents)
}
