// SPDX-License-Identifier: MIT OR Apache-2.0

//! One test on one kernel: its scratch space, its deadline, and what its guests said, which is shown when
//! it fails and only then.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use busway_harness::{Control, Listener};
use libtest_mimic::{Completion, Failed};
use tempfile::TempDir;

use crate::guest::Guest;
use crate::image::Image;
use crate::kernel::Kernel;

/// How a test ends when it does not panic.
pub(crate) type Outcome = Result<(), Skip>;

/// Why a test cannot run here.
pub(crate) struct Skip(pub(crate) String);

/// A test, on any kernel.
pub(crate) struct Test {
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Case) -> Outcome,
}

/// Lists the tests of a file, under the names of their functions.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[$crate::case::Test] = &[$($crate::case::Test {
            module: module_path!(),
            name: stringify!($name),
            run: $name,
        }),*];
    };
}
pub(crate) use tests;

impl Test {
    /// `bookworm-cloud/kvm/storage::the_disk_is_read_whole`.
    pub(crate) fn name_on(&self, kernel: &Kernel) -> String {
        let module = self.module.rsplit("::").next().unwrap_or_default();
        format!("{}/{}/{module}::{}", kernel.name, kernel.engine, self.name)
    }
}

/// How long a test may take: some ten times what the slowest needs in the emulated lab.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long a guest may make no progress: less than the patience, so that busway says where its vCPUs are.
const STILLNESS: Duration = Duration::from_secs(300);

/// What each reboot of a test adds to its patience.
const MORE_FOR_A_REBOOT: Duration = Duration::from_secs(60);

/// What each MiB adds that a test moves each way beyond what it moves by itself.
const MORE_FOR_A_MIB: Duration = Duration::from_secs(12);

/// What each turn adds of a card that comes and goes.
const MORE_FOR_A_TURN: Duration = Duration::from_secs(12);

/// What each minute of traffic adds to that.
const MORE_FOR_A_MINUTE: Duration = Duration::from_secs(90);

/// What each vCPU adds that BUSWAY_CPUS asks for.
const MORE_FOR_A_VCPU: Duration = Duration::from_secs(30);

/// What each thousand connections adds that BUSWAY_SOCKETS asks for.
const MORE_FOR_A_THOUSAND_SOCKETS: Duration = Duration::from_secs(300);

/// MiB that go by TCP each way where very many are to pass, if BUSWAY_TCP_MIB says so.
pub(crate) fn tcp_mib() -> Option<u32> {
    number("BUSWAY_TCP_MIB")
}

/// How often a network card comes and goes, its channels become more and fewer, if BUSWAY_TURNS says so.
pub(crate) fn turns() -> Option<u32> {
    number("BUSWAY_TURNS")
}

/// How long traffic should last, if BUSWAY_MINUTES says so.
pub(crate) fn minutes() -> Option<u32> {
    number("BUSWAY_MINUTES")
}

/// How often a guest reboots where it does that again and again: as BUSWAY_REBOOTS says, else a few times.
pub(crate) fn reboots() -> u32 {
    number("BUSWAY_REBOOTS").unwrap_or(3)
}

/// What this variable says, if it is there.
pub(crate) fn number(variable: &str) -> Option<u32> {
    std::env::var(variable).ok().map(|count| count.parse().unwrap())
}

/// What each disk adds that BUSWAY_DISKS asks for.
const MORE_FOR_A_DISK: Duration = Duration::from_secs(4);

/// A test while it runs.
pub(crate) struct Case {
    /// What its guests boot.
    pub(crate) kernel: &'static Kernel,
    /// When all its guests must have ended.
    pub(crate) deadline: Instant,
    /// How long one of them may make no progress.
    pub(crate) stillness: Duration,
    scratch: TempDir,
    transcript: Transcript,
}

impl Case {
    pub(crate) fn new(kernel: &'static Kernel) -> Self {
        // In memory, as the machine's own disk would only add its moods.
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let mib = tcp_mib().unwrap_or(0) + number("BUSWAY_SOCK_MIB").unwrap_or(0);
        let soak = u64::from(number("BUSWAY_SOAK_SECONDS").unwrap_or(0));
        let freeze = number("BUSWAY_FREEZE_SECONDS").unwrap_or(0);
        let still = u64::from(freeze + number("BUSWAY_PAUSE_SECONDS").unwrap_or(0));
        let more = MORE_FOR_A_DISK * number("BUSWAY_DISKS").unwrap_or(0)
            + MORE_FOR_A_MIB * mib
            + MORE_FOR_A_THOUSAND_SOCKETS * number("BUSWAY_SOCKETS").unwrap_or(0).div_ceil(1000)
            + MORE_FOR_A_TURN * turns().unwrap_or(0)
            + MORE_FOR_A_MINUTE * minutes().unwrap_or(0)
            + Duration::from_secs(soak + still)
            + MORE_FOR_A_VCPU * number("BUSWAY_CPUS").unwrap_or(0);
        Self {
            kernel,
            deadline: Instant::now() + PATIENCE + MORE_FOR_A_REBOOT * reboots() + more,
            stillness: STILLNESS + more,
            scratch: tempfile::tempdir_in(parent).unwrap(),
            transcript: Transcript::default(),
        }
    }

    /// A machine to be described further and started. One vCPU, no disk, the test's kernel.
    pub(crate) fn guest(&self) -> Guest<'_> {
        Guest::new(self)
    }

    /// A disk of `mib` MiB of noise, of which no sector is like another.
    pub(crate) fn disk(&self, mib: usize) -> Image {
        Image::noise(self.path("disk"), mib << 20)
    }

    /// A disk of `mib` MiB of zeros, which takes no space yet.
    pub(crate) fn empty_disk(&self, mib: usize) -> Image {
        Image::empty(self.path("disk"), mib << 20)
    }

    /// A name in the scratch space that nothing has yet.
    pub(crate) fn path(&self, stem: &str) -> PathBuf {
        let mut names = (0..).map(|number| self.scratch.path().join(format!("{stem}{number}")));
        names.find(|path| !path.exists()).unwrap()
    }

    /// Hears its guests.
    pub(crate) fn listener(&self) -> Listener {
        let transcript = self.transcript.clone();
        Arc::new(move |line| transcript.line(line))
    }

    /// A control socket for a machine that is to be started.
    pub(crate) fn control(&self) -> Control {
        Control::new().listener(self.listener()).deadline(self.deadline)
    }

    /// Where its guests' words are kept.
    pub(crate) fn transcript(&self) -> &Transcript {
        &self.transcript
    }
}

/// What the guests of a test said, and how busway was called. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Transcript(Arc<Mutex<String>>);

impl Transcript {
    pub(crate) fn line(&self, line: &str) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(line);
        text.push('\n');
    }

    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Lets a panic's message go into the report of its test, not between the others' lines.
pub(crate) fn keep_panics() {
    panic::set_hook(Box::new(|info| PANIC.set(info.to_string())));
}

static TIMES: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// Runs it, and adds what its guests said to the failure, if it is one.
///
/// If that shows that the processor broke its own rules, it is run once more, and so is the first of a run whose
/// guest stood still before it began; xtask's report says so.
pub(crate) fn run(test: &'static Test, kernel: &'static Kernel) -> Result<Completion, Failed> {
    let result = attempt(test, kernel);
    let said = result.as_ref().err().and_then(Failed::message);
    let Some(why) = said.and_then(excuse) else {
        return result;
    };
    println!("\nremark: {}: {why}; run again", test.name_on(kernel));
    attempt(test, kernel)
}

/// Why a test that failed with this is run again, if it is.
fn excuse(said: &str) -> Option<String> {
    if interrupts_an_interrupt(said) {
        let what = "the guest died of an interrupt at the first instruction of an interrupt's entry, where none can be";
        return Some(what.to_owned());
    }
    static STOOD_STILL: AtomicBool = AtomicBool::new(false);
    let place = stands_still_at_its_start(said)?;
    (!STOOD_STILL.swap(true, Ordering::Relaxed))
        .then(|| format!("the guest stood still before its init began, {place}"))
}

/// Where the vCPUs of the last guest were, if busway ended it because it made no progress, and its init had not
/// begun. One kernel of some thousands does in the emulated host: a processor of it takes no timer interrupt any
/// more. A second one in a run is no chance.
fn stands_still_at_its_start(said: &str) -> Option<String> {
    let guest = &said[said.rfind("\n--- \"busway\"")?..];
    let has_begun = guest.contains("busway-guest: starts");
    if has_begun || !guest.contains("has made no progress within --timeout") {
        return None;
    }
    let places = guest.lines().filter(|line| line.contains(" was at rip "));
    let places: Vec<_> = places.map(|line| line.trim_start_matches("! busway: ")).collect();
    Some(places.join("; "))
}

/// Whether a guest was interrupted where an interrupt gate has just masked interrupts: its processor, in
/// the emulated host QEMU's, has delivered one twice. Linux's entry relies on that it does not
/// (`arch/x86/entry/entry_64.S`: it takes the second for one from kernel mode, before SWAPGS).
fn interrupts_an_interrupt(said: &str) -> bool {
    let entries = said.lines().filter_map(|line| line.split_once("RIP: 0010:asm_sysvec_"));
    let mut places = entries.filter_map(|(_, rest)| rest.split_once('+'));
    places.any(|(_, offset)| offset.starts_with("0x0/"))
}

fn attempt(test: &'static Test, kernel: &'static Kernel) -> Result<Completion, Failed> {
    let case = Case::new(kernel);
    let started = Instant::now();
    let result = panic::catch_unwind(AssertUnwindSafe(|| (test.run)(&case)));
    let time = (started.elapsed(), test.name_on(kernel));
    TIMES.lock().unwrap_or_else(PoisonError::into_inner).push(time);
    match result {
        Ok(Ok(())) => Ok(Completion::Completed),
        Ok(Err(Skip(reason))) => Ok(Completion::ignored_with(reason)),
        Err(_) => Err(format!("{}\n{}", PANIC.take(), case.transcript().text()).into()),
    }
}

/// What took how long, longest first; a test that shares its guest with others pays for it if it was first.
pub(crate) fn print_times() {
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
    times.sort();
    for (time, name) in times.iter().rev() {
        println!("{:6.1} s  {name}", time.as_secs_f64());
    }
}
