// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commands in a shell on the guest's serial port.

use crate::running::Running;

/// What a command in the guest came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What it wrote, line by line; kernel messages of that time may be among it.
    pub text: String,
    /// Its exit status.
    pub status: i32,
}

impl Running {
    /// Has a shell that reads the serial port run a command, and waits for its end.
    ///
    /// The shell must be there already: [wait for](Self::wait_for) what it or its login says first.
    ///
    /// # Panics
    /// The guest ends, or its time is over.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> Output {
        self.commands += 1;
        let (begin, end) =
            (format!("busway-{}>", self.commands), format!("busway-{}:", self.commands));
        // A terminal shows what is typed: there, other characters follow the words than in the answers. One
        // command, so that all of it is shown before any of it is done.
        let quoted = command.replace('\'', "'\\''");
        self.type_in(&format!("echo '{begin}'; eval '{quoted}'; echo '{end}'$?\n"));
        let mut text: Option<String> = None;
        loop {
            let Some(line) = self.next() else {
                panic!("the guest ended during {command:?}{}", self.so_far().tail());
            };
            match &mut text {
                None if line.ends_with(&begin) => text = Some(String::new()),
                None => {}
                Some(text) => {
                    if let Some((last, status)) = ending(&line, &end) {
                        text.push_str(last);
                        return Output { text: std::mem::take(text), status };
                    }
                    text.push_str(&line);
                    text.push('\n');
                }
            }
        }
    }
}

/// What was written before the mark on its line, and the status behind it.
fn ending<'a>(line: &'a str, mark: &str) -> Option<(&'a str, i32)> {
    let (last, status) = line.split_once(mark)?;
    Some((last, status.trim().parse().ok()?))
}
