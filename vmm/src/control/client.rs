// SPDX-License-Identifier: MIT OR Apache-2.0

//! `busway ctl`: one request to a running machine, and what it says.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::protocol::{Line, Reply, Request};

/// The machine cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("{path}: nobody listens there; give the socket of `busway run --control`", path = path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the machine has ended the conversation")]
    Broken(#[source] io::Error),
    /// What the machine said makes no sense.
    #[error("the machine does not speak as this busway does")]
    Garbled(#[source] serde_json::Error),
}

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was done.
    Done(Reply),
    /// It was not.
    Failed(String),
}

/// A conversation with a machine.
pub struct Client {
    lines: BufReader<UnixStream>,
    /// Lines are shown as they are.
    json: bool,
}

impl Client {
    /// Connects to the machine whose socket is at `path`. With `json`, what it says is shown as it
    /// is, for programs.
    pub fn connect(path: &Path, json: bool) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).map_err(failed)?;
        Ok(Self { lines: BufReader::new(stream), json })
    }

    /// Makes a request, shows what the machine says, and says how it ended.
    pub fn ask(&mut self, request: &Request) -> Result<Ending, ClientError> {
        let json = self.json;
        self.converse(request, &mut |line, said| match said {
            _ if json => print!("{line}"),
            Line::Event(event) => eprintln!("{event}"),
            Line::Done(reply) => print!("{reply}"),
            Line::Failed(reason) => eprintln!("busway: {reason}"),
        })
    }

    /// Makes a request and says how it ended, and shows nothing.
    pub fn fetch(&mut self, request: &Request) -> Result<Ending, ClientError> {
        self.converse(request, &mut |_, _| {})
    }

    fn converse(
        &mut self,
        request: &Request,
        show: &mut dyn FnMut(&str, &Line),
    ) -> Result<Ending, ClientError> {
        let mut text = serde_json::to_string(request).map_err(ClientError::Garbled)?;
        text.push('\n');
        self.lines.get_mut().write_all(text.as_bytes()).map_err(ClientError::Broken)?;
        loop {
            let mut line = String::new();
            let len = self.lines.read_line(&mut line).map_err(ClientError::Broken)?;
            if len == 0 {
                return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            let said = serde_json::from_str(&line).map_err(ClientError::Garbled)?;
            show(&line, &said);
            match said {
                Line::Event(_) => {}
                Line::Done(reply) => return Ok(Ending::Done(reply)),
                Line::Failed(reason) => return Ok(Ending::Failed(reason)),
            }
        }
    }
}
