// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pixels as a client wants them.

/// How a client wants a pixel (RFC 6143, 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PixelFormat {
    /// Bytes: 1, 2 or 4.
    bytes: usize,
    big_endian: bool,
    /// The greatest value of red, green and blue.
    max: [u32; 3],
    /// Where each begins.
    shift: [u32; 3],
}

/// Bytes of a format on the wire.
pub(super) const FORMAT_LEN: usize = 16;

impl PixelFormat {
    /// The guest's own.
    pub(super) const GUEST: Self =
        Self { bytes: 4, big_endian: false, max: [255; 3], shift: [16, 8, 0] };

    /// [`GUEST`](Self::GUEST) on the wire: 32 bits of which 24 are used, little-endian, true colour.
    pub(super) const GUEST_WIRE: [u8; FORMAT_LEN] =
        [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];

    /// What a client asks for; `None` for what it cannot have, such as a table of colours.
    pub(super) fn parse(wire: [u8; FORMAT_LEN]) -> Option<Self> {
        let [bits, _, big_endian, true_colour, r1, r0, g1, g0, b1, b0, r, g, b, ..] = wire;
        let bytes = match bits {
            8 | 16 | 32 => usize::from(bits / 8),
            _ => return None,
        };
        let max = [[r1, r0], [g1, g0], [b1, b0]].map(|max| u16::from_be_bytes(max).into());
        let shift = [r, g, b].map(u32::from);
        let fits =
            shift.iter().zip(max).all(|(shift, max)| *shift < 32 && max <= u32::MAX >> shift);
        (true_colour != 0 && fits).then_some(Self {
            bytes,
            big_endian: big_endian != 0,
            max,
            shift,
        })
    }

    /// The guest's pixels, as the client wants them.
    pub(super) fn convert(&self, guest: Vec<u8>) -> Vec<u8> {
        if *self == Self::GUEST {
            return guest;
        }
        let mut out = Vec::with_capacity(guest.len() / 4 * self.bytes);
        for pixel in guest.chunks_exact(4) {
            let [blue, green, red] = [0, 1, 2].map(|at| u32::from(pixel[at]));
            let part = |colour: u32, at: usize| (colour * self.max[at] / 255) << self.shift[at];
            let value = part(red, 0) | part(green, 1) | part(blue, 2);
            match self.big_endian {
                true => out.extend(&value.to_be_bytes()[4 - self.bytes..]),
                false => out.extend(&value.to_le_bytes()[..self.bytes]),
            }
        }
        out
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn the_guests_own_format_is_the_same_either_way() {
        assert_eq!(PixelFormat::parse(PixelFormat::GUEST_WIRE), Some(PixelFormat::GUEST));
        assert_eq!(PixelFormat::GUEST.convert(vec![1, 2, 3, 4]), [1, 2, 3, 4]);
    }

    #[test]
    fn colours_are_scaled_and_put_where_they_belong() {
        let rgb565 = [16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0];
        let red_and_blue = vec![0, 0, 255, 0, 255, 0, 0, 0, 0, 128, 0, 9];
        let little = PixelFormat::parse(rgb565).unwrap().convert(red_and_blue.clone());
        assert_eq!(little, [0x00, 0xf8, 0x1f, 0x00, 0xe0, 0x03]);
        let mut big = rgb565;
        big[2] = 1;
        let big = PixelFormat::parse(big).unwrap().convert(red_and_blue.clone());
        assert_eq!(big, [0xf8, 0x00, 0x00, 0x1f, 0x03, 0xe0]);
        let bgr233 = [8, 8, 0, 1, 0, 7, 0, 7, 0, 3, 0, 3, 6, 0, 0, 0];
        let small = PixelFormat::parse(bgr233).unwrap().convert(red_and_blue);
        assert_eq!(small, [0b111, 0b1100_0000, 0b011_000]);
    }

    #[test]
    fn formats_that_make_no_sense_are_refused() {
        let good = PixelFormat::GUEST_WIRE;
        for (at, value) in [(0, 24), (0, 0), (3, 0), (10, 32), (10, 25), (4, 255)] {
            let mut wire = good;
            wire[at] = value;
            if at == 4 {
                wire[10] = 31;
            }
            assert_eq!(PixelFormat::parse(wire), None, "{at} {value}");
        }
    }
}
