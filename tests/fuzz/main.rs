// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a hostile guest may say, at random: synthetic MSRs, hypercalls, channel messages, page lists,
//! rings. Nothing of it may make the host panic, loop, or stop serving a guest that behaves again.
//!
//! Each case follows from a seed and its number alone, so a failure can be repeated:
//!
//! ```text
//! cargo test -p busway-tests --test fuzz                          a second for each target
//! cargo xtask test --quick --fuzz 60                              a minute for each, beside the other tests
//! BUSWAY_FUZZ_SECONDS=600 cargo test -p busway-tests --release --test fuzz -- control
//! BUSWAY_FUZZ_SEED=7 BUSWAY_FUZZ_CASE=1234 cargo test ...         that case and no other
//! ```

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod control;
#[path = "../conformance/echo.rs"]
mod echo;
mod hypercalls;
mod lists;
mod random;
mod registers;
mod rings;

use std::cell::RefCell;
use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

use random::Random;

/// One case of a target.
type Target = fn(&mut Random);

const TARGETS: [(&str, Target); 5] = [
    ("registers", registers::case),
    ("hypercalls", hypercalls::case),
    ("control", control::case),
    ("lists", lists::case),
    ("rings", rings::case),
];

/// A case takes some milliseconds. One that takes so long never ends.
const FOR_EVER: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    panic::set_hook(Box::new(|info| PANIC.set(info.to_string())));
    let trial = |(name, target)| Trial::test(name, move || run(name, target));
    let trials = TARGETS.into_iter().map(trial).collect();
    let mut arguments = Arguments::from_args();
    // Side by side, all of them take as long as one.
    arguments.test_threads.get_or_insert(TARGETS.len());
    libtest_mimic::run(&arguments, trials).exit_code()
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn run(name: &'static str, target: Target) -> Result<(), Failed> {
    let seed = number("BUSWAY_FUZZ_SEED").unwrap_or(1);
    let only = number("BUSWAY_FUZZ_CASE");
    let seconds = number("BUSWAY_FUZZ_SECONDS").unwrap_or(1);
    let end = Instant::now() + Duration::from_secs(seconds);
    let current = watched(name, seed);
    for case in only.unwrap_or(0).. {
        current.store(case, Ordering::Relaxed);
        let mut random = Random::new(seed, case);
        if panic::catch_unwind(AssertUnwindSafe(|| target(&mut random))).is_err() {
            let repeat = format!("BUSWAY_FUZZ_SEED={seed} BUSWAY_FUZZ_CASE={case}");
            return Err(format!("{}\nagain by: {repeat}", PANIC.take()).into());
        }
        if only.is_some() || Instant::now() >= end {
            if seconds > 1 {
                eprintln!("{name}: {} cases", case + 1);
            }
            break;
        }
    }
    current.store(OVER, Ordering::Relaxed);
    Ok(())
}

const OVER: u64 = u64::MAX;

/// The number of the case that runs; if it stays the same for too long, that is the end.
fn watched(name: &'static str, seed: u64) -> Arc<AtomicU64> {
    let current = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&current);
    thread::spawn(move || {
        let mut last = (u64::MAX - 1, Instant::now());
        loop {
            thread::sleep(Duration::from_secs(1));
            match seen.load(Ordering::Relaxed) {
                OVER => return,
                case if case != last.0 => last = (case, Instant::now()),
                case if last.1.elapsed() > FOR_EVER => {
                    eprintln!("{name}: case {case} of seed {seed} does not end");
                    std::process::exit(1);
                }
                _ => {}
            }
        }
    });
    current
}
