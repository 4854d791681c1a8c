// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which keys make a character, on a keyboard of the United States.

use crate::Key;

const SHIFT: u16 = 0x2a;

/// Keys of scan code set 1 in their order, from code 1 on: what each gives, and with shift. Zero
/// where a key gives no character.
const PLAIN: &[u8] = b"\x1b1234567890-=\x08\tqwertyuiop[]\n\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 ";
const SHIFTED: &[u8] = b"\x1b!@#$%^&*()_+\x08\tQWERTYUIOP{}\n\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 ";

/// The code of the key that has this character, and whether it takes shift.
pub(crate) fn code_of(character: u8) -> Option<(u16, bool)> {
    let find = |keys: &[u8]| keys.iter().position(|key| *key == character);
    let (position, shift) = match find(PLAIN) {
        Some(position) => (position, false),
        None => (find(SHIFTED)?, true),
    };
    Some((u16::try_from(position + 1).ok()?, shift))
}

/// The keys that type `character`, down and up; `None` for one that such a keyboard has not.
pub fn strokes(character: char) -> Option<Vec<Key>> {
    let byte = u8::try_from(character).ok().filter(|byte| *byte != 0)?;
    let (code, shift) = code_of(byte)?;
    let key = |code, down| Key { code, extended: false, down };
    let mut keys = vec![key(code, true), key(code, false)];
    if shift {
        keys.insert(0, key(SHIFT, true));
        keys.push(key(SHIFT, false));
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(character: char) -> Vec<u16> {
        let keys = strokes(character).unwrap();
        keys.into_iter().map(|key| key.code | if key.down { 0 } else { 0x80 }).collect()
    }

    /// Codes as the table of any AT keyboard has them.
    #[test]
    fn characters_are_the_keys_that_they_are_written_on() {
        assert_eq!(codes('a'), [0x1e, 0x9e]);
        assert_eq!(codes('Z'), [0x2a, 0x2c, 0xac, 0xaa]);
        assert_eq!(codes('1'), [0x02, 0x82]);
        assert_eq!(codes('\n'), [0x1c, 0x9c]);
        assert_eq!(codes(' '), [0x39, 0xb9]);
        assert_eq!(codes('|'), [0x2a, 0x2b, 0xab, 0xaa]);
        assert_eq!(codes('?'), [0x2a, 0x35, 0xb5, 0xaa]);
        assert_eq!((strokes('ü'), strokes('\0')), (None, None));
    }
}
