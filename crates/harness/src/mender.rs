// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lines of a console that the kernel's own messages have torn.
//!
//! What programs write waits in the port's buffer, and a message of the kernel does not wait for it: it lands in
//! the middle of a line, whose rest follows behind the message.

/// Mends one console.
#[derive(Default)]
pub(crate) struct Mender {
    torn: Option<String>,
}

impl Mender {
    /// What this line is: itself, the message that has torn it, or the end of one that was torn, with its
    /// beginning.
    pub(crate) fn mend(&mut self, line: &str) -> String {
        let line = self.torn.take().unwrap_or_default() + line;
        let Some((beginning, message)) = message_in(&line) else {
            return line;
        };
        self.torn = Some(beginning.to_owned());
        message.to_owned()
    }

    /// The beginning whose end did not come.
    pub(crate) fn rest(&mut self) -> Option<String> {
        self.torn.take()
    }
}

/// The kernel's message in the middle of a line. One that a program has printed stands behind a name, a level
/// or a blank.
fn message_in(line: &str) -> Option<(&str, &str)> {
    let starts = line.match_indices('[').map(|(at, _)| line.split_at(at));
    let mut torn = starts.filter(|(beginning, _)| !beginning.is_empty() && !is_message(beginning));
    torn.find(|(beginning, message)| !beginning.ends_with(['=', '>', ' ']) && is_message(message))
}

/// Whether it begins as `[    8.022035] `.
fn is_message(line: &str) -> bool {
    let time = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    let time = time.and_then(|(time, _)| time.trim_start().split_once('.'));
    time.is_some_and(|(seconds, micros)| {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        is_number(seconds) && is_number(micros) && micros.len() == 6
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(lines: &[&str]) -> Vec<String> {
        let mut mender = Mender::default();
        let mut mended: Vec<_> = lines.iter().map(|line| mender.mend(line)).collect();
        mended.extend(mender.rest());
        mended
    }

    #[test]
    fn a_line_is_whole_again() {
        let torn =
            ["card.channels=1[    8.022035] eth0: mtu greater than device maximum", "", "long=no"];
        let whole =
            ["[    8.022035] eth0: mtu greater than device maximum", "card.channels=1", "long=no"];
        assert_eq!(mended(&torn), whole);
        let twice = ["ab[    1.000001] one", "[    1.000002] two", "c", "d"];
        assert_eq!(mended(&twice), ["[    1.000001] one", "[    1.000002] two", "abc", "d"]);
        assert_eq!(mended(&["last[   10.123456] down"]), ["[   10.123456] down", "last"]);
    }

    #[test]
    fn what_is_whole_stays() {
        let lines = [
            "[    4.149799] PCI: Fatal: No config space access function found",
            "complaint=[    4.149799] PCI: Fatal",
            "<3>[    4.149799] PCI: Fatal",
            "both=[    4.149799] one [    4.2] two [    5.000000] three",
            "list[1.5] a[b] [",
            "",
        ];
        assert_eq!(mended(&lines), lines);
    }
}
