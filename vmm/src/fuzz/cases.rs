// SPDX-License-Identifier: MIT OR Apache-2.0

//! Cases: one rule of a fault script each, made from a seed.

use std::fmt::Write as _;

use fastrand::Rng;

use super::shapes::{Field, Known, Shape};

/// One wrong thing that the host says.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// Its place among all cases, from 0.
    pub(super) number: usize,
    /// Which kind of message suffers, by its place among the device's.
    pub(super) shape: usize,
    /// What is done to it, in words.
    pub(super) what: String,
    /// The rule, as a script has it.
    pub(super) rule: String,
}

impl Case {
    /// The rule's name, in scripts and reports.
    pub(super) fn name(&self) -> String {
        format!("case-{}", self.number)
    }
}

/// The case of this number: the same for the same seed, whatever came before it.
pub(super) fn case(
    device: &str,
    shapes: &[Shape],
    seed: u64,
    number: usize,
    is_first: bool,
) -> Case {
    let mut random = Rng::with_seed(seed ^ Rng::with_seed(number as u64).u64(..));
    // A boot stands one damaged handshake, rarely two.
    let all = shapes.iter().enumerate();
    let fit: Vec<_> = all.clone().filter(|(_, shape)| shape.is_handshake == is_first).collect();
    let fit = if fit.is_empty() { all.collect() } else { fit };
    let (at, shape) = fit[random.usize(..fit.len())];
    let nth = random.u64(shape.nth.clone());
    let (action, what) = action(shape, &mut random);
    let mut rule = format!("[[rule]]\nname = \"case-{number}\"\ndevice = \"{device}\"\n");
    // Writing to a string does not fail.
    let _ = writeln!(rule, "from = \"host\"\npacket = \"{}\"", shape.packet);
    let _ = match &shape.known {
        Known::Always => Ok(()),
        Known::By(at, bytes) => writeln!(rule, "payload = {{ at = {at}, bytes = {bytes:?} }}"),
        Known::Answer(operation) => writeln!(rule, "operation = \"{operation}\""),
    };
    let _ = writeln!(rule, "nth = {nth}\ndo = {action}");
    let what = format!("{} {nth}: {what}", shape.name);
    Case { number, shape: at, what, rule }
}

fn action(shape: &Shape, random: &mut Rng) -> (String, String) {
    let plain = |what: &str| (format!("\"{what}\""), what.to_owned());
    match random.u8(..24) {
        0 => plain("duplicate"),
        1 => plain("reorder"),
        2 => {
            let span = random.u32(1..1500);
            (format!("{{ delay = \"{span}ms\" }}"), format!("{span} ms late"))
        }
        3 => {
            let id = [0, 1, u64::from(u32::MAX), random.u64(..) >> 1][random.usize(..4)];
            (format!("{{ transaction-id = {id} }}"), format!("transaction id {id:#x}"))
        }
        4..=6 => {
            // Where a field ends, or in its middle.
            let Field { at, len, .. } = shape.fields[random.usize(..shape.fields.len())];
            let len = at + random.usize(..len);
            (format!("{{ truncate = {len} }}"), format!("{len} B of payload"))
        }
        _ => {
            let places = [("set", &shape.fields), ("set-header", &shape.header)];
            let places = places.into_iter().chain([("set-data", &shape.data)]);
            let all = places.flat_map(|(action, fields)| fields.iter().map(move |at| (action, at)));
            let all: Vec<_> = all.collect();
            let (action, field) = all[random.usize(..all.len())];
            written(action, field, random)
        }
    }
}

/// Bytes of a field that are written: its front will do where it is a text.
const LONGEST: usize = 16;

/// A field becomes something that a driver may not have thought of.
fn written(action: &str, field: &Field, random: &mut Rng) -> (String, String) {
    let &Field { name, at, len } = field;
    let len = len.min(LONGEST);
    let last = len - 1;
    let mut bytes = vec![0; len];
    match random.u8(..8) {
        0 => {}
        1 => bytes[0] = 1,
        2 => bytes.fill(0xff),
        // The largest positive and the smallest negative number.
        3 => {
            bytes.fill(0xff);
            bytes[last] = 0x7f;
        }
        4 => bytes[last] = 0x80,
        5 => bytes[0] = random.u8(2..),
        6 => {
            let at = random.usize(..len);
            bytes[at] = 1 << random.u8(..8);
        }
        _ => bytes.fill_with(|| random.u8(..)),
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    (format!("{{ {action} = {{ at = {at}, bytes = {bytes:?} }} }}"), format!("{name} = {hex}"))
}

/// A script of these cases.
pub(super) fn script<'a>(cases: impl IntoIterator<Item = &'a Case>) -> String {
    let rules = cases.into_iter().map(|case| format!("# {}\n{}\n", case.what, case.rule));
    rules.collect()
}

#[cfg(test)]
mod tests {
    use busway_fault::Script;

    use super::super::devices::TARGETS;
    use super::*;

    #[test]
    fn each_case_is_a_rule_that_can_be_played_and_comes_again() {
        for target in TARGETS {
            let (device, shapes) = (target.name, (target.shapes)());
            let make = |number| case(device, &shapes, 7, number, number % 2 == 0);
            let cases: Vec<_> = (0..4000).map(make).collect();
            let text = script(&cases);
            let rules = Script::parse(&text, None, 0).unwrap_or_else(|error| {
                panic!("{device}: {error}: {}", text.lines().nth(error.line - 1).unwrap())
            });
            assert_eq!(rules.rules.len(), 4000);
            assert_eq!(rules.rules[17].name, cases[17].name());
            assert_eq!(make(123).rule, cases[123].rule);
            let all_shapes = (0..shapes.len()).all(|at| cases.iter().any(|case| case.shape == at));
            assert!(all_shapes, "{device}: every kind of message has its cases");
            let fields = shapes.iter().flat_map(|it| it.fields.iter().chain(&it.data));
            let is_left = |name: &&str| !text.contains(&format!(": {name} = "));
            let left: Vec<_> = fields.map(|field| field.name).filter(is_left).collect();
            assert!(left.is_empty(), "{device}: no case for {left:?}");
        }
    }
}
