// SPDX-License-Identifier: MIT OR Apache-2.0

//! An open raw channel: packets between a ring and a socket that keeps their borders.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use busway_ring::{Outgoing, Packet};
use busway_vmbus::{ChannelHandler, Fault, Io, Progress, Sent, Wakeup, When};
use busway_wire::pipe::PipeHeader;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::Listener;
use crate::frame::Frame;

/// The longest message that a program may send: no ring of a known driver takes a longer packet.
const MAX_MESSAGE: usize = 256 << 10;

/// How long a signal by the monitor page may go unseen: 1 ms.
const LATENCY: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// Messages taken from the program in one turn.
const TURN: usize = 16;

/// The program.
struct Client {
    socket: OwnedFd,
}

/// The host's end of a raw channel.
pub(crate) struct RawChannel {
    listener: Option<Listener>,
    pipe: bool,
    /// What the listener, the client and the timer are waited for by.
    ready: OwnedFd,
    /// Says when to look into the ring of a guest that signals by its monitor page.
    timer: Option<OwnedFd>,
    client: Option<Client>,
    /// For the program, as the socket has not taken them: one at most, beside those of the turn.
    to_client: VecDeque<Vec<u8>>,
    /// A message that found no room in the ring.
    to_guest: Option<Vec<u8>>,
}

impl RawChannel {
    pub(crate) fn new(listener: Option<Listener>, pipe: bool, monitored: bool) -> io::Result<Self> {
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        if let Some(listener) = &listener {
            let data = epoll::EventData::new_u64(0);
            epoll::add(&ready, &listener.0.socket, data, epoll::EventFlags::IN)?;
        }
        let timer = monitored.then(start_timer).transpose()?;
        if let Some(timer) = &timer {
            epoll::add(&ready, timer, epoll::EventData::new_u64(2), epoll::EventFlags::IN)?;
        }
        let to_client = VecDeque::new();
        Ok(Self { listener, pipe, ready, timer, client: None, to_client, to_guest: None })
    }

    /// Takes the program that connects, if none is there.
    fn accept(&mut self) -> io::Result<()> {
        let Some(listener) = self.listener.as_ref().filter(|_| self.client.is_none()) else {
            return Ok(());
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let Ok(socket) = accept_with(&listener.0.socket, flags) else {
            return Ok(());
        };
        // One at a time: the next waits in the listener's queue and must not wake us.
        epoll::delete(&self.ready, &listener.0.socket)?;
        let events = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.ready, &socket, epoll::EventData::new_u64(1), events)?;
        self.client = Some(Client { socket });
        Ok(())
    }

    /// The program is gone; the next may come.
    fn hang_up(&mut self) -> io::Result<()> {
        self.to_client.clear();
        self.to_guest = None;
        if let (Some(client), Some(listener)) = (self.client.take(), &self.listener) {
            epoll::delete(&self.ready, &client.socket)?;
            let data = epoll::EventData::new_u64(0);
            epoll::add(&self.ready, &listener.0.socket, data, epoll::EventFlags::IN)?;
        }
        Ok(())
    }

    /// Gives the program what it takes.
    fn write(&mut self) -> io::Result<()> {
        while let (Some(client), Some(message)) = (&self.client, self.to_client.front()) {
            match send(&client.socket, message, SendFlags::NOSIGNAL) {
                Ok(_) => drop(self.to_client.pop_front()),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => self.hang_up()?,
            }
        }
        Ok(())
    }

    /// The program's next message, if one is there.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(client) = &self.client else {
            return Ok(None);
        };
        let mut message = Vec::with_capacity(MAX_MESSAGE);
        match recv(&client.socket, spare_capacity(&mut message), RecvFlags::TRUNC) {
            Ok((_, len)) if len > MAX_MESSAGE => {
                log::warn!("a raw channel's program sends {len} B, {MAX_MESSAGE} B are the most");
                self.hang_up()?;
            }
            // A message of no bytes is none of ours; so is the end.
            Ok((_, 0)) => self.hang_up()?,
            Ok(_) => return Ok(Some(message)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.hang_up()?,
        }
        Ok(None)
    }

    /// Puts the program's message into the ring; false if there is no room now.
    fn send(&mut self, message: &[u8], io: &mut Io<'_>) -> Result<bool, Fault> {
        let sent = if self.pipe {
            let header = PipeHeader::data(u32::try_from(message.len()).unwrap_or(u32::MAX));
            let payload = [header.as_bytes(), message].concat();
            io.send(&Outgoing::in_band(0, &payload))?
        } else {
            let split = Frame::read_from_prefix(message).ok().and_then(|(frame, rest)| {
                let (header, payload) = rest.split_at_checked(frame.header_len as usize)?;
                header.len().is_multiple_of(8).then_some((frame, header, payload))
            });
            let Some((frame, header, payload)) = split else {
                log::warn!("a raw channel's program sends {} B that are no frame", message.len());
                self.hang_up().map_err(Fault::host)?;
                return Ok(true);
            };
            let Frame { kind, flags, transaction_id, .. } = frame;
            io.send(&Outgoing { kind, flags, transaction_id, header, payload })?
        };
        Ok(sent == Sent::Yes)
    }
}

/// One that is due each [`LATENCY`].
fn start_timer() -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let time = Itimerspec { it_interval: LATENCY, it_value: LATENCY };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &time)?;
    Ok(timer)
}

impl ChannelHandler for RawChannel {
    fn on_packet(&mut self, packet: Packet<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
        io.worked();
        if self.listener.is_none() {
            return Ok(());
        }
        if self.pipe {
            let data = PipeHeader::parse(packet.payload).map_err(Fault::protocol)?;
            self.to_client.push_back(data.to_vec());
            return Ok(());
        }
        let frame = Frame {
            kind: packet.descriptor.kind,
            flags: packet.descriptor.flags,
            header_len: u32::try_from(packet.header.len()).unwrap_or(u32::MAX),
            transaction_id: packet.descriptor.transaction_id,
        };
        self.to_client.push_back([frame.as_bytes(), packet.header, packet.payload].concat());
        Ok(())
    }

    fn on_batch(&mut self, io: &mut Io<'_>) -> Result<Progress, Fault> {
        self.accept().map_err(Fault::host)?;
        self.write().map_err(Fault::host)?;
        for _ in 0..TURN {
            let message = match self.to_guest.take() {
                Some(message) => Some(message),
                None => self.read().map_err(Fault::host)?,
            };
            let Some(message) = message else {
                return Ok(Progress::Idle);
            };
            if !self.send(&message, io)? {
                self.to_guest = Some(message);
                return Ok(Progress::Idle);
            }
        }
        Ok(Progress::More)
    }

    fn on_ready(&mut self, _token: u32, _io: &mut Io<'_>) -> Result<(), Fault> {
        // What is ready is looked at in on_batch; this only takes the edges off.
        if let Some(timer) = &self.timer {
            let _ = rustix::io::read(timer, &mut [0; 8]);
        }
        let mut events = Vec::with_capacity(3);
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = epoll::wait(&self.ready, spare_capacity(&mut events), Some(&zero));
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.listener.is_none() || (self.client.is_some() && self.to_client.is_empty())
    }

    fn wakeups(&self) -> Vec<Wakeup<'_>> {
        vec![Wakeup { token: 0, fd: self.ready.as_fd(), when: When::Readable }]
    }
}
