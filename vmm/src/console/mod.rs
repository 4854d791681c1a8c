// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host's end of the guest's serial port.
//!
//! A console outlives the machine's resets: the terminal stays raw, the file open, the socket
//! connected. [`Output`] is the half that the guest's port writes to, on a vCPU thread; input is
//! read on the event loop.

mod escape;
mod output;
mod terminal;

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use escape::{Command, Escape, HELP};
pub use output::Output;
use output::Sink;
use terminal::RawTerminal;

use crate::lock;
use crate::spec::SerialSpec;

/// The console cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("--serial: cannot {what} {path}; {remedy}", path = path.display())]
pub struct ConsoleError {
    what: &'static str,
    remedy: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The host's end of a serial port.
pub struct Console {
    sink: Arc<Mutex<Sink>>,
    input: Input,
    /// Restores the terminal when it goes.
    _terminal: Option<RawTerminal>,
}

/// Where input comes from.
enum Input {
    Nothing,
    Stdin { file: File, escape: Option<Escape> },
    Socket { listener: Listener, client: Option<UnixStream> },
}

/// A socket that is gone from the file system when it is closed.
struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What reading gave.
pub enum Received {
    /// Bytes for the guest; perhaps none.
    Bytes(Vec<u8>),
    /// The user asked busway itself for something.
    Command(Command),
    /// There will be no more from this source.
    End,
}

impl Console {
    /// Opens what `spec` names.
    pub fn open(spec: &SerialSpec) -> Result<Self, ConsoleError> {
        let stdio = |source| ConsoleError {
            what: "use",
            remedy: "give --serial null",
            path: "standard input".into(),
            source,
        };
        Ok(match spec {
            SerialSpec::Null => Self::new(Sink::Nothing, Input::Nothing),
            SerialSpec::Stdio => {
                let terminal = RawTerminal::new().map_err(stdio)?;
                let duplicate = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned();
                let file = File::from(duplicate(io::stdin().as_fd()).map_err(stdio)?);
                let output = File::from(duplicate(io::stdout().as_fd()).map_err(stdio)?);
                let escape = terminal.is_some().then(Escape::default);
                let mut console = Self::new(Sink::file(output), Input::Stdin { file, escape });
                console._terminal = terminal;
                console
            }
            SerialSpec::File(path) => {
                let file = OpenOptions::new().create(true).write(true).truncate(true).open(path);
                let file = file.map_err(|source| ConsoleError {
                    what: "write",
                    remedy: "give a file that you may write",
                    path: path.clone(),
                    source,
                })?;
                Self::new(Sink::file(file), Input::Nothing)
            }
            SerialSpec::Unix(path) => {
                let listener = listen(path).map_err(|source| ConsoleError {
                    what: "listen on",
                    remedy: "give a path where nothing is yet, in a directory that is yours",
                    path: path.clone(),
                    source,
                })?;
                Self::new(Sink::Nothing, Input::Socket { listener, client: None })
            }
        })
    }

    fn new(sink: Sink, input: Input) -> Self {
        Self { sink: Arc::new(Mutex::new(sink)), input, _terminal: None }
    }

    /// The half that the guest's port writes to.
    pub fn output(&self) -> Output {
        Output::new(Arc::clone(&self.sink))
    }

    /// The descriptor of who waits to connect.
    pub fn listener(&self) -> Option<RawFd> {
        match &self.input {
            Input::Socket { listener, .. } => Some(listener.socket.as_raw_fd()),
            _ => None,
        }
    }

    /// The descriptor that input comes from now.
    pub fn input(&self) -> Option<RawFd> {
        match &self.input {
            Input::Stdin { file, .. } => Some(file.as_raw_fd()),
            Input::Socket { client: Some(client), .. } => Some(client.as_raw_fd()),
            _ => None,
        }
    }

    /// Takes a client that connects, in place of the one before.
    pub fn accept(&mut self) -> io::Result<()> {
        let Input::Socket { listener, client } = &mut self.input else {
            return Ok(());
        };
        let (stream, _) = listener.socket.accept()?;
        stream.set_nonblocking(true)?;
        *lock(&self.sink) = Sink::socket(stream.try_clone()?);
        *client = Some(stream);
        Ok(())
    }

    /// Reads what is there. The caller knows that something is.
    pub fn read(&mut self) -> Received {
        let mut buffer = [0; 256];
        let read = match &mut self.input {
            Input::Nothing | Input::Socket { client: None, .. } => return Received::End,
            Input::Stdin { file, .. } => file.read(&mut buffer),
            Input::Socket { client: Some(client), .. } => client.read(&mut buffer),
        };
        match read {
            Ok(len) if len > 0 => self.interpret(buffer.get(..len).unwrap_or_default()),
            Err(error) if is_temporary(&error) => Received::Bytes(Vec::new()),
            Ok(_) | Err(_) => {
                self.hang_up();
                Received::End
            }
        }
    }

    fn interpret(&mut self, bytes: &[u8]) -> Received {
        match &mut self.input {
            Input::Stdin { escape: Some(escape), .. } => escape.filter(bytes),
            _ => Received::Bytes(bytes.to_vec()),
        }
    }

    /// The other end is gone. A file or terminal goes on showing output; a socket waits for the
    /// next client.
    fn hang_up(&mut self) {
        match &mut self.input {
            Input::Socket { client, .. } => {
                *client = None;
                *lock(&self.sink) = Sink::Nothing;
            }
            _ => self.input = Input::Nothing,
        }
    }
}

/// Listens at `path`, where a socket that nobody listens on any more may still be.
fn listen(path: &Path) -> io::Result<Listener> {
    let is_socket = |path: &Path| {
        path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
    };
    if is_socket(path) && UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    Ok(Listener { socket: UnixListener::bind(path)?, path: path.to_owned() })
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("busway-console-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_socket_replaces_only_a_socket_that_nobody_listens_on() {
        let path = path("socket");
        std::fs::write(&path, "precious").unwrap();
        let spec = SerialSpec::Unix(path.clone());
        let error = Console::open(&spec).err().unwrap().to_string();
        assert!(error.contains("--serial") && error.contains("where nothing is yet"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();

        let first = Console::open(&spec).unwrap();
        assert!(Console::open(&spec).is_err(), "somebody listens");
        // As it is after a crash: the socket is there, and nobody behind it.
        std::mem::forget(first);
        std::fs::remove_file(&path).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        drop(Console::open(&spec).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn a_file_gets_the_output() {
        use std::io::Write;
        let path = path("file");
        let console = Console::open(&SerialSpec::File(path.clone())).unwrap();
        console.output().write_all(b"Linux version").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"Linux version");
        std::fs::remove_file(&path).unwrap();
    }
}
