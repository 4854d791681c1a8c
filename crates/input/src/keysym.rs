// SPDX-License-Identifier: MIT OR Apache-2.0

//! Keys by the names that X has for them, which VNC uses too (RFC 6143, 7.5.4).

use crate::keymap;

/// Names of keys that make no character: the first name of a row, and the codes of the keys in a row
/// from there on. Codes beyond a byte follow E0.
const ROWS: &[(u32, &[u16])] = &[
    (0xfe03, &[0x138]),                                          // AltGr
    (0xfe20, &[0x0f]),                                           // Tab, with shift
    (0xff08, &[0x0e, 0x0f]),                                     // BackSpace, Tab
    (0xff0d, &[0x1c]),                                           // Return
    (0xff14, &[0x46]),                                           // Scroll Lock
    (0xff1b, &[0x01]),                                           // Escape
    (0xff50, &[0x147, 0x14b, 0x148, 0x14d, 0x150]),              // Home, Left, Up, Right, Down
    (0xff55, &[0x149, 0x151, 0x14f]),                            // Page Up, Page Down, End
    (0xff61, &[0x137]),                                          // Print
    (0xff63, &[0x152]),                                          // Insert
    (0xff67, &[0x15d]),                                          // Menu
    (0xff7f, &[0x45]),                                           // Num Lock
    (0xff8d, &[0x11c]),                                          // on the keypad: Enter,
    (0xff95, &[0x47, 0x4b, 0x48, 0x4d, 0x50, 0x49, 0x51, 0x4f]), // Home to End,
    (0xff9d, &[0x4c, 0x52, 0x53]),                               // Begin, Insert, Delete,
    (0xffaa, &[0x37, 0x4e]),                                     // * and +,
    (0xffad, &[0x4a, 0x53, 0x135]),                              // -, point, /,
    (0xffb0, &[0x52, 0x4f, 0x50, 0x51, 0x4b]),                   // 0 to 4,
    (0xffb5, &[0x4c, 0x4d, 0x47, 0x48, 0x49]),                   // 5 to 9
    (0xffbe, &[0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x40]),             // F1 to F6
    (0xffc4, &[0x41, 0x42, 0x43, 0x44, 0x57, 0x58]),             // F7 to F12
    (0xffe1, &[0x2a, 0x36, 0x1d, 0x11d, 0x3a]),                  // Shift, Control, Caps Lock
    (0xffe7, &[0x38, 0x138, 0x38, 0x138, 0x15b, 0x15c]),         // Meta, Alt, Super
    (0xffff, &[0x153]),                                          // Delete
];

/// The key of that name on a keyboard of the United States: its code, and whether that follows E0.
/// Which shift keys are down is told by themselves.
pub fn key_of(keysym: u32) -> Option<(u16, bool)> {
    if let Ok(character) = u8::try_from(keysym)
        && (0x20..0x7f).contains(&character)
    {
        return keymap::code_of(character).map(|(code, _)| (code, false));
    }
    let in_row = |(first, codes): &(u32, &[u16])| {
        let at = usize::try_from(keysym.checked_sub(*first)?).ok()?;
        codes.get(at).copied()
    };
    let code = ROWS.iter().find_map(in_row)?;
    Some((code & 0xff, code > 0xff))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of X's `keysymdef.h`, codes of any AT keyboard.
    #[test]
    fn keys_have_the_names_that_x_gives_them() {
        let named = [
            (u32::from('a'), 0x1e, false),
            (u32::from('A'), 0x1e, false),
            (u32::from('%'), 0x06, false),
            (0xff0d, 0x1c, false),
            (0xff54, 0x50, true),
            (0xff57, 0x4f, true),
            (0xffc9, 0x58, false),
            (0xffe4, 0x1d, true),
            (0xffe9, 0x38, false),
            (0xffff, 0x53, true),
        ];
        for (keysym, code, extended) in named {
            assert_eq!(key_of(keysym), Some((code, extended)), "{keysym:#x}");
        }
        for keysym in [0, 0x1f, 0x7f, 0xe4, 0xff00, 0xffed, u32::MAX] {
            assert_eq!(key_of(keysym), None, "{keysym:#x}");
        }
    }
}
