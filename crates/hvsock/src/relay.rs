// SPDX-License-Identifier: MIT OR Apache-2.0

//! An open connection: bytes between a channel and a unix socket, both ways, each with an end of its
//! own.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use busway_ring::{Outgoing, Packet};
use busway_vmbus::{ChannelHandler, Fault, Io, Progress, Sent, Wakeup, When};
use busway_wire::pipe::{PIPE_HEADER_LEN, PipeError, PipeHeader};
use zerocopy::IntoBytes;

/// Data bytes of a packet to the guest. Its smallest ring, of VMBus 4.0, holds two.
const CHUNK: usize = 8 << 10;

/// Bytes that wait for the host's end. When there are more, packets stay in the ring, and the guest
/// is held back when that is full.
const BACKLOG: usize = 64 << 10;

/// Packets to the guest in one turn.
const TURN: usize = 16;

/// What a guest may not send.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    /// No packet of a stream.
    #[error(transparent)]
    Pipe(#[from] PipeError),
    /// It had said that there would be no more.
    #[error("{0} B of data after the end of the stream")]
    AfterEnd(usize),
}

/// How far one direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// Bytes may come.
    Open,
    /// There will be no more; the other side has not been told yet.
    Ending,
    /// The other side knows.
    Ended,
}

/// The host's end of a connection's channel.
pub(crate) struct Relay {
    stream: Option<UnixStream>,
    to_host: VecDeque<u8>,
    from_guest: Flow,
    writable: bool,
    /// A packet that found no room: header and data.
    to_guest: Vec<u8>,
    from_host: Flow,
    readable: bool,
    /// The host's end is gone: what the guest still says is for nobody.
    broken: bool,
}

impl Relay {
    /// Between the channel and `stream`, which does not block. Without one there is nothing to do
    /// but to end.
    pub(crate) fn new(stream: Option<UnixStream>) -> Self {
        let broken = stream.is_none();
        Self {
            stream,
            to_host: VecDeque::new(),
            from_guest: Flow::Open,
            writable: true,
            to_guest: Vec::new(),
            from_host: if broken { Flow::Ending } else { Flow::Open },
            readable: true,
            broken,
        }
    }

    /// Gives the host's end what it takes, and its end when there is no more.
    fn write(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        while self.writable && !self.to_host.is_empty() {
            let (front, _) = self.to_host.as_slices();
            match stream.write(front) {
                Ok(len) => drop(self.to_host.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.broken = true;
                    self.to_host.clear();
                }
            }
        }
        if self.from_guest == Flow::Ending && self.to_host.is_empty() {
            // Fails if the other end is gone, and then it knows.
            let _ = stream.shutdown(Shutdown::Write);
            self.from_guest = Flow::Ended;
        }
    }

    /// Takes the next packet from the host's end; false if there is nothing now.
    fn read(&mut self) -> bool {
        let Some(stream) = &mut self.stream else {
            return false;
        };
        if !self.readable || self.from_host != Flow::Open {
            return false;
        }
        self.to_guest.resize(PIPE_HEADER_LEN + CHUNK, 0);
        let (header, data) = self.to_guest.split_at_mut(PIPE_HEADER_LEN);
        let len = match stream.read(data) {
            Ok(0) => {
                self.from_host = Flow::Ending;
                0
            }
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                0
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => {
                self.broken = true;
                self.from_host = Flow::Ending;
                0
            }
        };
        header.copy_from_slice(PipeHeader::data(u32::try_from(len).unwrap_or(0)).as_bytes());
        self.to_guest.truncate(if len == 0 { 0 } else { PIPE_HEADER_LEN + len });
        len != 0
    }

    /// Sends the packet that waits; false if there is no room.
    fn send(&mut self, io: &mut Io<'_>) -> Result<bool, Fault> {
        if self.to_guest.is_empty() {
            return Ok(true);
        }
        let sent = io.send(&Outgoing::in_band(0, &self.to_guest))? == Sent::Yes;
        if sent {
            self.to_guest.clear();
        }
        Ok(sent)
    }

    /// Tells the guest that there is no more; false if there is no room for that.
    fn end(&mut self, io: &mut Io<'_>) -> Result<bool, Fault> {
        if self.from_host == Flow::Ending {
            let packet = PipeHeader::data(0);
            if io.send(&Outgoing::in_band(0, packet.as_bytes()))? == Sent::NoRoom {
                return Ok(false);
            }
            self.from_host = Flow::Ended;
        }
        Ok(true)
    }
}

impl ChannelHandler for Relay {
    fn on_packet(&mut self, packet: Packet<'_>, _io: &mut Io<'_>) -> Result<(), Fault> {
        let data = PipeHeader::parse(packet.payload);
        let data = data.map_err(|error| Fault::protocol(RelayError::from(error)))?;
        if data.is_empty() {
            if self.from_guest == Flow::Open {
                self.from_guest = Flow::Ending;
            }
        } else if self.from_guest != Flow::Open {
            return Err(Fault::protocol(RelayError::AfterEnd(data.len())));
        } else if !self.broken {
            self.to_host.extend(data);
        }
        Ok(())
    }

    fn on_batch(&mut self, io: &mut Io<'_>) -> Result<Progress, Fault> {
        self.write();
        for _ in 0..TURN {
            if !self.send(io)? {
                return Ok(Progress::Idle);
            }
            if !self.read() {
                break;
            }
        }
        if !self.send(io)? || !self.end(io)? {
            return Ok(Progress::Idle);
        }
        if self.from_host == Flow::Ended && (self.broken || self.from_guest == Flow::Ended) {
            io.end();
            return Ok(Progress::Idle);
        }
        let more = self.readable && self.from_host == Flow::Open;
        Ok(if more { Progress::More } else { Progress::Idle })
    }

    fn on_ready(&mut self, _token: u32, _io: &mut Io<'_>) -> Result<(), Fault> {
        (self.readable, self.writable) = (true, true);
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.to_host.len() < BACKLOG
    }

    fn wakeups(&self) -> Vec<Wakeup<'_>> {
        let stream = self.stream.iter();
        stream.map(|stream| Wakeup { token: 0, fd: stream.as_fd(), when: When::Changed }).collect()
    }
}
