// SPDX-License-Identifier: MIT OR Apache-2.0

//! Text as Windows has it: UTF-16 in a field of fixed length, ended by a zero.

/// Text is too long for its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} UTF-16 units, where {max} are the most")]
pub struct TooLong {
    /// Units of the text.
    pub len: usize,
    /// Units that fit, the zero not counted.
    pub max: usize,
}

/// `text` in a field of `N` units, the rest of which is zero.
pub fn field<const N: usize>(text: &str) -> Result<[u16; N], TooLong> {
    let mut field = [0; N];
    let len = text.encode_utf16().count();
    let max = N.saturating_sub(1);
    if len > max {
        return Err(TooLong { len, max });
    }
    for (unit, value) in field.iter_mut().zip(text.encode_utf16()) {
        *unit = value;
    }
    Ok(field)
}

/// The text up to the first zero. What is no UTF-16 becomes U+FFFD.
pub fn text(field: &[u16]) -> String {
    let end = field.iter().position(|unit| *unit == 0).unwrap_or(field.len());
    String::from_utf16_lossy(field.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_ends_it_and_must_fit() {
        let max = 3;
        assert_eq!(field::<4>("abc"), Ok([97, 98, 99, 0]));
        assert_eq!(field::<4>("abcd"), Err(TooLong { len: 4, max }));
        // A character beyond the first plane takes two units.
        assert_eq!(field::<4>("𝄞𝄞"), Err(TooLong { len: 4, max }));
        assert_eq!(text(&field::<4>("ü𝄞").unwrap()), "ü𝄞");
    }

    #[test]
    fn any_units_are_some_text() {
        assert_eq!(text(&[]), "");
        assert_eq!(text(&[0xd834, 97]), "\u{fffd}a");
    }
}
