// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a guest's console says of its health.

/// What Linux says when something is wrong with itself, not with a device.
const SIGNS: [&str; 14] = [
    "Kernel panic",
    "Oops:",
    "BUG:",
    "BUG at",
    "WARNING: ",
    "general protection fault",
    "KASAN:",
    "UBSAN:",
    "KFENCE:",
    "detected stall",
    "soft lockup",
    "blocked for more than",
    "corruption",
    "refcount_t:",
];

/// Signs behind which Linux says where it was.
const FAULTS: [&str; 4] = ["Oops:", "BUG:", "BUG at", "general protection fault"];

/// Lines behind a sign of a fault in which the place of it stands.
const NEAR: usize = 8;

/// The first line that says so, without what differs from boot to boot: times, numbers, addresses.
pub(super) fn sign(console: &str, known: &[String]) -> Option<String> {
    signs(console).into_iter().find(|sign| !known.contains(sign))
}

/// All of them; with a fault, the function that it was in.
pub(super) fn signs(console: &str) -> Vec<String> {
    // The last line may still be on its way.
    let (whole, _) = console.rsplit_once('\n').unwrap_or_default();
    let lines: Vec<_> = whole.lines().collect();
    let is_sign = |line: &&str| SIGNS.iter().any(|sign| line.contains(sign));
    let signs = lines.iter().enumerate().filter(|(_, line)| is_sign(line));
    let signs = signs.map(|(at, line)| {
        let is_fault = FAULTS.iter().any(|sign| line.contains(sign));
        let behind = lines.get(at + 1..).filter(|_| is_fault).unwrap_or_default();
        let behind = behind.iter().take(NEAR);
        let place = behind.filter_map(|line| line.split_once("RIP: 0010:")).next();
        let place = place.and_then(|(_, place)| place.split(['+', ' ']).next());
        let place = place.map(|place| format!(" in {place}")).unwrap_or_default();
        signature(line) + &place
    });
    signs.collect()
}

fn signature(line: &str) -> String {
    let line = line.trim();
    // "[   12.345678] "
    let line = match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((time, rest)) if time.trim().starts_with(|c: char| c.is_ascii_digit()) => rest,
        _ => line,
    };
    let word = |word: &str| {
        let number = word.trim_start_matches("0x").trim_end_matches([',', ':', '.']);
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_number { "N".to_owned() } else { word.to_owned() }
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_boot_to_boot_is_no_part_of_a_sign() {
        let text = "[    1.5] hv_vmbus: fine\n[   31.25] BUG: unable to handle page fault for address: ffff88800dead000\r\n";
        let sign = sign(text, &[]).unwrap();
        assert_eq!(sign, "BUG: unable to handle page fault for address: N");
        assert_eq!(super::sign(text, &[sign]), None);
        assert_eq!(super::sign("storvsc: an error, 5 times\n", &[]), None);
        assert_eq!(super::sign("[ 1.5] BUG: unable to ha", &[]), None, "the line is not whole");
        let fault = "general protection fault: 0000\nCPU: 0\nRIP: 0010:storvsc_on+0x3/0x4 [x]\n";
        assert_eq!(signs(fault), ["general protection fault: N in storvsc_on"]);
        let by_itself = "SRSO: WARNING: See the manual.\n";
        let both = format!("{by_itself}{fault}");
        assert_eq!(super::sign(&both, &signs(by_itself)).as_deref(), Some(&*signs(fault)[0]));
        let warn = "[  2.0] WARNING: CPU: 0 PID: 1 at kernel/a.c:12 f+0x1/0x2\n";
        assert_eq!(signs(warn), ["WARNING: CPU: N PID: N at kernel/a.c:12 f+0x1/0x2"]);
    }
}
