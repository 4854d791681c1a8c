// SPDX-License-Identifier: MIT OR Apache-2.0

//! One VNC client.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use busway_input::{AXIS_MAX, Key, Pointer, key_of};
use busway_video::{Rect, Viewer};

use super::pixels::{FORMAT_LEN, PixelFormat};
use crate::input::Input;

const VERSION: &[u8; 12] = b"RFB 003.008\n";
/// The only kind of security: none.
const NO_SECURITY: u8 = 1;

/// How long a client may take for the rest of a message, or to read what it is sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a change may wait for a message of the client's.
const PERIOD: Duration = Duration::from_millis(20);

/// The most text that a client may offer to paste, in bytes. It is read and forgotten.
const MAX_TEXT: u32 = 1 << 20;
/// Keys that are let go when a client vanishes; nobody holds more at once.
const MAX_HELD: usize = 32;

/// Encodings: pixels as they are, and the one that says that the size has changed.
const RAW: i32 = 0;
const DESKTOP_SIZE: i32 = -223;

/// A client that does not do as it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("it speaks no RFB: {0:?}")]
    Version(String),
    #[error("it asks for security {0}")]
    Security(u8),
    #[error("it sends a message of type {0}")]
    Message(u8),
    #[error("it wants pixels as no client does")]
    Format,
    #[error("it offers {0} B of text")]
    Text(u32),
    #[error("the screen is {0} x {1} now, and it knows no such change")]
    Resized(u32, u32),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A client, from its connection to its end.
pub(super) struct Client {
    stream: TcpStream,
    viewer: Viewer,
    input: Input,
    format: PixelFormat,
    /// The width and height that the client knows.
    size: (u32, u32),
    /// The screen has another, or had from the start.
    resized: Option<(u32, u32)>,
    knows_resize: bool,
    /// It waits for changes.
    waits: bool,
    dirty: Vec<Rect>,
    held: Vec<(u16, bool)>,
    buttons: u8,
}

impl Client {
    pub(super) fn new(
        stream: TcpStream,
        viewer: Viewer,
        preferred: (u16, u16),
        input: Input,
    ) -> Self {
        Self {
            stream,
            viewer,
            input,
            format: PixelFormat::GUEST,
            size: (preferred.0.into(), preferred.1.into()),
            resized: None,
            knows_resize: false,
            waits: false,
            dirty: Vec::new(),
            held: Vec::new(),
            buttons: 0,
        }
    }

    /// Serves it until it goes, or does what it should not.
    pub(super) fn serve(mut self) -> Result<(), ClientError> {
        let served = self.converse();
        for (code, extended) in std::mem::take(&mut self.held) {
            let _ = self.input.press(&[Key { code, extended, down: false }]);
        }
        match served {
            Err(ClientError::Io(error)) if error.kind() == ErrorKind::UnexpectedEof => Ok(()),
            served => served,
        }
    }

    fn converse(&mut self) -> Result<(), ClientError> {
        self.stream.set_nodelay(true)?;
        self.stream.set_write_timeout(Some(PATIENCE))?;
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.shake_hands()?;
        loop {
            if let Some(kind) = self.next_kind()? {
                self.message(kind)?;
            }
            if self.waits {
                self.update()?;
            }
        }
    }

    fn read<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// RFC 6143, 7.1 to 7.3. Versions 3.3 and 3.7 know less and mean the same.
    fn shake_hands(&mut self) -> Result<(), ClientError> {
        self.stream.write_all(VERSION)?;
        let version: [u8; 12] = self.read()?;
        let minor = match &version {
            b"RFB 003.003\n" => 3,
            b"RFB 003.007\n" => 7,
            VERSION => 8,
            _ => return Err(ClientError::Version(String::from_utf8_lossy(&version).into_owned())),
        };
        if minor == 3 {
            self.stream.write_all(&u32::from(NO_SECURITY).to_be_bytes())?;
        } else {
            self.stream.write_all(&[1, NO_SECURITY])?;
            let [security] = self.read()?;
            if security != NO_SECURITY {
                return Err(ClientError::Security(security));
            }
        }
        if minor == 8 {
            self.stream.write_all(&[0; 4])?;
        }
        // Whether others may see the screen too; they may.
        let [_shared] = self.read()?;
        if let Some(size) = self.viewer.wait(Duration::ZERO).resized {
            self.size = size;
        }
        const NAME: &[u8] = b"busway";
        let mut init = self.size_bytes().to_vec();
        init.extend(PixelFormat::GUEST_WIRE);
        init.extend((NAME.len() as u32).to_be_bytes());
        init.extend(NAME);
        Ok(self.stream.write_all(&init)?)
    }

    fn size_bytes(&self) -> [u8; 4] {
        // A picture's sides fit 16 bits.
        let [w, h] = [self.size.0, self.size.1].map(|side| (side as u16).to_be_bytes());
        [w[0], w[1], h[0], h[1]]
    }

    /// The type of the next message, if one comes soon.
    fn next_kind(&mut self) -> Result<Option<u8>, ClientError> {
        self.stream.set_read_timeout(Some(PERIOD))?;
        let kind = match self.read() {
            Ok([kind]) => Some(kind),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                None
            }
            Err(error) => return Err(error.into()),
        };
        self.stream.set_read_timeout(Some(PATIENCE))?;
        Ok(kind)
    }

    /// RFC 6143, 7.5.
    fn message(&mut self, kind: u8) -> Result<(), ClientError> {
        match kind {
            0 => {
                let [_, _, _, wire @ ..]: [u8; 3 + FORMAT_LEN] = self.read()?;
                self.format = PixelFormat::parse(wire).ok_or(ClientError::Format)?;
            }
            2 => {
                let [_, high, low] = self.read()?;
                self.knows_resize = false;
                for _ in 0..u16::from_be_bytes([high, low]) {
                    self.knows_resize |= i32::from_be_bytes(self.read()?) == DESKTOP_SIZE;
                }
            }
            3 => {
                let [incremental, rect @ ..]: [u8; 9] = self.read()?;
                let [x, y, width, height] =
                    [0, 2, 4, 6].map(|at| u16::from_be_bytes([rect[at], rect[at + 1]]).into());
                self.waits = true;
                if incremental == 0 {
                    self.dirty.clear();
                    self.dirty.push(Rect { x, y, width, height });
                }
            }
            4 => {
                let [down, _, _, keysym @ ..]: [u8; 7] = self.read()?;
                self.key(u32::from_be_bytes(keysym), down != 0);
            }
            5 => {
                let [buttons, x1, x0, y1, y0] = self.read()?;
                self.pointer(buttons, u16::from_be_bytes([x1, x0]), u16::from_be_bytes([y1, y0]));
            }
            6 => {
                let [_, _, _, len @ ..]: [u8; 7] = self.read()?;
                let len = u32::from_be_bytes(len);
                if len > MAX_TEXT {
                    return Err(ClientError::Text(len));
                }
                io::copy(&mut (&mut self.stream).take(len.into()), &mut io::sink())?;
            }
            _ => return Err(ClientError::Message(kind)),
        }
        Ok(())
    }

    fn key(&mut self, keysym: u32, down: bool) {
        let Some((code, extended)) = key_of(keysym) else { return };
        self.held.retain(|held| *held != (code, extended));
        if down && self.held.len() < MAX_HELD {
            self.held.push((code, extended));
        }
        // A machine without a keyboard, or a guest without its driver, hears nothing.
        let _ = self.input.press(&[Key { code, extended, down }]);
    }

    fn pointer(&mut self, mask: u8, x: u16, y: u16) {
        let axis = |at: u16, side: u32| {
            let last = side.saturating_sub(1).max(1);
            let at = u32::from(at).min(last);
            (at * u32::from(AXIS_MAX) / last) as u16
        };
        let pressed = |bit: u8| mask & !self.buttons & bit != 0;
        let wheel = i8::from(pressed(8)) - i8::from(pressed(16));
        self.buttons = mask;
        // Left, middle, right; a mouse has the middle one last.
        let buttons = mask & 1 | (mask & 2) << 1 | (mask & 4) >> 1;
        let (x, y) = (axis(x, self.size.0), axis(y, self.size.1));
        let _ = self.input.point(Pointer { x, y, buttons, wheel });
    }

    /// Sends what has changed, if anything has.
    fn update(&mut self) -> Result<(), ClientError> {
        let changes = self.viewer.wait(Duration::ZERO);
        if let Some(size) = changes.resized {
            self.dirty.clear();
            self.dirty.push(Rect::whole(size));
            self.resized = Some(size).filter(|size| *size != self.size);
        }
        self.dirty.extend(changes.rects);
        if let Some((width, height)) = self.resized.take() {
            if !self.knows_resize {
                return Err(ClientError::Resized(width, height));
            }
            self.size = (width, height);
            let mut message = vec![0, 0, 0, 1, 0, 0, 0, 0];
            message.extend(self.size_bytes());
            message.extend(DESKTOP_SIZE.to_be_bytes());
            self.waits = false;
            return Ok(self.stream.write_all(&message)?);
        }
        let rects: Vec<_> = self.dirty.drain(..).map(|rect| rect.within(self.size)).collect();
        let rects: Vec<_> = rects.into_iter().filter(|rect| !rect.is_empty()).collect();
        if rects.is_empty() {
            return Ok(());
        }
        self.waits = false;
        let count = u16::try_from(rects.len()).unwrap_or(u16::MAX);
        self.stream.write_all(&[[0, 0], count.to_be_bytes()].concat())?;
        rects.into_iter().take(count.into()).try_for_each(|rect| self.send(rect))
    }

    fn send(&mut self, rect: Rect) -> Result<(), ClientError> {
        let len = rect.width as usize * rect.height as usize * 4;
        // Dark, or of another size by now: the client hears of that next.
        let pixels = self.viewer.part(self.size, rect).unwrap_or_else(|| vec![0; len]);
        let edges = [rect.x, rect.y, rect.width, rect.height];
        let mut header: Vec<u8> =
            edges.iter().flat_map(|edge| (*edge as u16).to_be_bytes()).collect();
        header.extend(RAW.to_be_bytes());
        self.stream.write_all(&header)?;
        Ok(self.stream.write_all(&self.format.convert(pixels))?)
    }
}
