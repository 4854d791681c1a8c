// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine's end of the control socket: a thread for each client, so that one that waits for
//! the guest keeps nobody waiting.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use log::warn;

use super::Handles;
use super::conversation::Conversation;
use super::protocol::Line;

/// Clients at once. Whoever may connect may end the machine; this is against mistakes.
const MAX_CLIENTS: usize = 64;

/// The longest line that a client may send, in bytes.
const MAX_LINE: u64 = 64 << 10;

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("--control: cannot listen on {path}; give a path where nothing is yet, in a directory that is yours", path = path.display())]
pub struct ControlError {
    path: PathBuf,
    source: io::Error,
}

/// The socket of a machine. Dropping it removes it.
pub struct Server {
    path: PathBuf,
}

impl Server {
    /// Listens at `path` and serves whoever connects.
    pub fn start(path: &Path, handles: &Handles) -> Result<Self, ControlError> {
        let failed = |source| ControlError { path: path.to_owned(), source };
        let listener = listen(path).map_err(failed)?;
        let server = Self { path: path.to_owned() };
        let handles = handles.clone();
        let serve = move || accept(&listener, &handles);
        thread::Builder::new().name("control".to_owned()).spawn(serve).map_err(failed)?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Listens at `path`, where a socket that nobody listens on any more may still be.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    let is_socket = path.symlink_metadata().is_ok_and(|data| data.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

fn accept(listener: &UnixListener, handles: &Handles) {
    let clients = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming() {
        let Ok(client) = client else {
            continue;
        };
        if clients.fetch_add(1, Ordering::SeqCst) >= MAX_CLIENTS {
            clients.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let conversation = Conversation::new(handles.clone());
        let count = Arc::clone(&clients);
        let serve = move || {
            // A client that goes in the middle of a request has no use for its answer.
            let _ = converse(&client, conversation);
            count.fetch_sub(1, Ordering::SeqCst);
        };
        if let Err(error) = thread::Builder::new().name("client".to_owned()).spawn(serve) {
            clients.fetch_sub(1, Ordering::SeqCst);
            warn!("a client of --control could not be served: {error}");
        }
    }
}

/// Serves one client until it goes.
fn converse(client: &UnixStream, mut conversation: Conversation) -> io::Result<()> {
    let mut lines = BufReader::new(client);
    loop {
        let mut line = Vec::new();
        client.set_read_timeout(conversation.patience())?;
        let len = match (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                conversation.out_of_patience();
                continue;
            }
            read => read?,
        };
        if len == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && len as u64 == MAX_LINE {
            let reason = format!("a line has {MAX_LINE} B at most");
            return say(client, &Line::Failed(reason));
        }
        let end = match serde_json::from_slice(&line) {
            Ok(request) => {
                conversation.answer(request, &mut |event| say(client, &Line::Event(event)))
            }
            Err(error) => Err(format!("no request: {error}")),
        };
        say(client, &end.map_or_else(Line::Failed, Line::Done))?;
    }
}

fn say(mut client: &UnixStream, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    client.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use busway_wire::{ic, nvsp, storvsc};

    use super::*;
    use crate::bus::BusLine;
    use crate::control::protocol::Reply;
    use crate::disks::Disks;
    use crate::faults::Faults;
    use crate::input::Input;
    use crate::integration::Integration;
    use crate::nets::Nets;
    use crate::pause::Pause;
    use crate::spec::IntegrationSpec;
    use crate::traffic::Traffic;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("busway-control-{name}-{}", std::process::id()))
    }

    fn server(path: &Path) -> Result<Server, ControlError> {
        let spec: IntegrationSpec = "shutdown,time".parse().unwrap();
        let (integration, input) =
            (Integration::new(&spec, ic::Version::new(4, 0)), Input::new(false, false));
        let (integration, input) = (integration.unwrap(), input.unwrap());
        let traffic = Arc::new(Traffic::new(None));
        let (display, balloon) = (None, None);
        let nets = Nets::open(&[], nvsp::Version::V6_1).unwrap();
        let disks = Disks::open(&[], &[], 1, storvsc::Version::V6_2).unwrap();
        let (bus, faults) = (BusLine::default(), Faults::none().unwrap());
        let pause = Pause::default();
        let handles = Handles {
            integration,
            input,
            nets,
            disks,
            display,
            balloon,
            traffic,
            faults,
            bus,
            pause,
        };
        Server::start(path, &handles)
    }

    #[test]
    fn a_client_is_answered_line_by_line() {
        let path = path("lines");
        let server = server(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
        let mut ask = |line: &str| -> Line {
            (&client).write_all(line.as_bytes()).unwrap();
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap()
        };
        let Line::Done(Reply::Status(status)) = ask("{\"command\":\"status\"}\n") else {
            panic!("no status");
        };
        let names: Vec<_> = status.services.iter().map(|service| &*service.name).collect();
        assert_eq!(names, ["shutdown", "time"]);
        assert!(status.services.iter().all(|service| !service.ready));
        assert_eq!((status.heartbeat, status.paused), (None, false));
        for (command, paused) in [("pause", true), ("pause", true), ("resume", false)] {
            let answer = ask(&format!("{{\"command\":\"{command}\"}}\n"));
            assert_eq!(answer, Line::Done(Reply::Machine { paused }));
            assert!(matches!(ask("{\"command\":\"status\"}\n"),
                Line::Done(Reply::Status(status)) if status.paused == paused));
        }
        let Line::Failed(reason) = ask("{\"command\":\"shutdown\"}\n") else {
            panic!("nobody is there who could");
        };
        assert_eq!(reason, "the guest cannot be asked: no driver of its has opened the channel");
        assert!(matches!(ask("hello\n"), Line::Failed(reason) if reason.contains("no request")));
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn a_line_without_end_is_cut_off() {
        let path = path("long");
        let _server = server(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let writer = client.try_clone().unwrap();
        let sending = thread::spawn(move || (&writer).write_all(&vec![b'x'; 1 << 20]));
        let mut line = String::new();
        BufReader::new(&client).read_line(&mut line).unwrap();
        assert!(line.contains("at most"), "{line}");
        assert!(sending.join().unwrap().is_err());
    }

    #[test]
    fn a_path_in_use_is_refused() {
        let path = path("used");
        std::fs::write(&path, "precious").unwrap();
        assert!(server(&path).err().unwrap().to_string().contains("--control"));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();
        let _first = server(&path).unwrap();
        assert!(server(&path).is_err(), "somebody listens");
    }
}
