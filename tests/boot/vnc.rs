// SPDX-License-Identifier: MIT OR Apache-2.0

//! The least of a VNC client: no password, raw pixels in the server's own format.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A connection to a guest's screen.
pub(crate) struct Vnc {
    stream: TcpStream,
    /// Width and height.
    pub(crate) size: (u16, u16),
}

impl Vnc {
    /// Connects, and shakes hands by RFB 3.8.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let mut vnc = Self { stream, size: (0, 0) };
        assert_eq!(&vnc.read(12), b"RFB 003.008\n");
        vnc.write(b"RFB 003.008\n");
        assert_eq!(vnc.read(2), [1, 1]);
        vnc.write(&[1]);
        assert_eq!(vnc.read(4), [0; 4]);
        vnc.write(&[1]);
        let init = vnc.read(24);
        vnc.size = (vnc_u16(&init, 0), vnc_u16(&init, 2));
        let name_len = u32::from_be_bytes(init[20..24].try_into().unwrap());
        vnc.read(name_len as usize);
        vnc
    }

    fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Types a line of characters that need no shift, and its end.
    pub(crate) fn type_line(&mut self, line: &str) {
        for keysym in line.chars().map(u32::from).chain([0xff0d]) {
            for down in [1, 0] {
                self.write(&[4, down, 0, 0]);
                self.write(&keysym.to_be_bytes());
            }
        }
    }

    /// Puts the pointer somewhere, with buttons down.
    pub(crate) fn point(&mut self, x: u16, y: u16, buttons: u8) {
        self.write(&[5, buttons]);
        self.write(&x.to_be_bytes());
        self.write(&y.to_be_bytes());
    }

    /// Asks for the whole picture: blue, green and red of each pixel.
    pub(crate) fn picture(&mut self) -> Vec<[u8; 3]> {
        let (width, height) = self.size;
        self.write(&[3, 0, 0, 0, 0, 0]);
        self.write(&width.to_be_bytes());
        self.write(&height.to_be_bytes());
        let mut picture = vec![[0; 3]; usize::from(width) * usize::from(height)];
        let update = self.read(4);
        for _ in 0..vnc_u16(&update, 2) {
            let header = self.read(12);
            assert_eq!(header[8..], [0; 4], "raw");
            let [x, y, w, h] = [0, 2, 4, 6].map(|at| usize::from(vnc_u16(&header, at)));
            let pixels = self.read(w * h * 4);
            for (line, pixels) in pixels.chunks_exact(w * 4).enumerate() {
                let at = (y + line) * usize::from(width) + x;
                for (to, pixel) in picture[at..].iter_mut().zip(pixels.chunks_exact(4)) {
                    *to = [pixel[0], pixel[1], pixel[2]];
                }
            }
        }
        picture
    }
}

fn vnc_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
