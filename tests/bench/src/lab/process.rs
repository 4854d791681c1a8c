// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a process costs the machine, from `/proc` (Linux `Documentation/filesystems/proc.rst`).

use std::fs;
use std::path::Path;

/// KiB that it has dirtied and shares with nobody. A guest's memory, which is in a memfd, does not count.
pub fn private_kib(pid: u32) -> u64 {
    private_kib_in(&fs::read_to_string(format!("/proc/{pid}/smaps")).expect("a process that runs"))
}

fn private_kib_in(smaps: &str) -> u64 {
    let mut guest = false;
    let mut sum = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Private_Dirty:") if !guest => {
                sum += words.next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
            }
            // Addresses, permissions, offset, device, inode and the name.
            Some(word) if !word.ends_with(':') => {
                guest = words.nth(4).is_some_and(|name| name.starts_with("/memfd:"));
            }
            _ => {}
        }
    }
    sum
}

/// How often its threads have gone to sleep until now, and so been woken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sleeps {
    /// vCPUs, which sleep when the guest does.
    pub vcpus: u64,
    /// All others.
    pub others: u64,
}

pub fn sleeps(pid: u32) -> Sleeps {
    let mut sleeps = Sleeps::default();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process that runs");
    for thread in threads.flatten() {
        let (name, count) = sleeps_of(&thread.path());
        let sum = if name.starts_with("vcpu") { &mut sleeps.vcpus } else { &mut sleeps.others };
        *sum += count;
    }
    sleeps
}

fn sleeps_of(thread: &Path) -> (String, u64) {
    let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
    let value = |name| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_default().trim().to_owned()
    };
    (value("Name:"), value("voluntary_ctxt_switches:").parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_guests_memory_is_not_the_programs() {
        let smaps = "\
55d0c0000000-55d0c0100000 r-xp 00001000 08:01 1234     /usr/bin/busway
Rss:                 900 kB
Private_Dirty:         1 kB
7f0000000000-7f0020000000 rw-s 00000000 00:01 77       /memfd:guest (deleted)
Private_Dirty:    524288 kB
VmFlags: rd wr sh
7f0030000000-7f0030100000 rw-p 00000000 00:00 0
Private_Dirty:        20 kB
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0        [stack]
Private_Dirty:       300 kB
";
        assert_eq!(private_kib_in(smaps), 321);
    }

    #[test]
    fn a_thread_that_sleeps_is_counted() {
        let (slept, has_slept) = mpsc::channel();
        let sleeper = |name: &str| {
            let slept = slept.clone();
            let (end, ended) = mpsc::channel::<()>();
            let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
                (0..20).for_each(|_| thread::sleep(Duration::from_millis(1)));
                slept.send(()).unwrap();
                let _ = ended.recv();
            });
            (end, thread.unwrap())
        };
        let sleepers = ["vcpu0", "storage"].map(sleeper);
        sleepers.iter().for_each(|_| has_slept.recv().unwrap());
        let counted = sleeps(std::process::id());
        for (end, thread) in sleepers {
            drop(end);
            thread.join().unwrap();
        }
        assert!(counted.vcpus >= 20 && counted.others >= 20, "{counted:?}");
        assert!(counted.vcpus < 40, "a vCPU's only: {counted:?}");
    }
}
