// SPDX-License-Identifier: MIT OR Apache-2.0

//! `busway fuzz-guest`: a host that says wrong things to a guest's driver, to see what that makes of it.
//!
//! ```text
//!   wire types ──▶ shapes ──▶ cases (one rule of a fault script each, from a seed)
//!                                 │ some per boot
//!                                 ▼
//!                  a guest of `busway run --faults`, watched: heartbeat, console, panics
//!                                 │ ill
//!                                 ▼
//!                  fewer and fewer cases, until none can be left out ──▶ finding-1.toml
//! ```
//!
//! A finding is a script that `busway run --faults` replays. Guests differ from boot to boot, so a case is
//! aimed at a packet by its number; one that no packet met is counted as such.

mod boot;
mod cases;
mod devices;
mod health;
mod shapes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::RunArgs;
use crate::spec::{DEFAULT_CMDLINE, SpecError, VmSpec};
use boot::{BootError, Boots, Outcome};
use cases::{Case, case, script};
use devices::{TARGETS, Target};
use shapes::Shape;

const EXAMPLES: &str = "\
Examples:
  What does this kernel's hv_storvsc make of 200 wrong answers?
    busway fuzz-guest --kernel vmlinuz --initrd initrd.img --disk disk.img \\
      --device storage --seed 1 --cases 200 --findings out

  What was found, again:
    busway run --kernel vmlinuz --initrd initrd.img --disk disk.img --faults out/finding-1.toml";

const STATUS: &str = "\
Exit status:
  0  the guest stood all cases
  1  it did not: there are findings
  2  the machine could not be started, is ill without any fault, or no case met a packet";

/// What `--help` ends with.
fn help() -> String {
    format!("{EXAMPLES}\n\n{}\n\n{STATUS}", devices::help())
}

/// A machine, and what is done to it.
#[derive(Debug, Args)]
#[command(after_help = help(), after_long_help = help())]
pub struct FuzzArgs {
    /// The machine.
    #[command(flatten)]
    pub machine: RunArgs,

    /// Whose driver is meant, as fault scripts name devices: see below for what each needs
    #[arg(long, value_name = "NAME", display_order = 0)]
    pub device: String,

    /// What random numbers start from; the same seed makes the same cases
    #[arg(long, value_name = "N", default_value_t = 1, display_order = 0)]
    pub seed: u64,

    /// How many wrong things are said
    #[arg(long, value_name = "N", default_value_t = 100, display_order = 0)]
    pub cases: usize,

    /// How many of them to one guest
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..), display_order = 0)]
    pub per_boot: u16,

    /// Seconds that a guest is watched after its first heartbeat
    #[arg(long, value_name = "SECONDS", default_value_t = 15, display_order = 0)]
    pub watch: u64,

    /// Where findings go: scripts that replay them, and what the guest said
    #[arg(long, value_name = "DIR", default_value = "findings", display_order = 0)]
    pub findings: PathBuf,
}

/// It cannot be found out.
#[derive(Debug, thiserror::Error)]
pub enum FuzzError {
    /// The machine is none.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// There is no such device.
    #[error("--device {name}: give one of {known}")]
    Device {
        /// What was given.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// Nothing was said wrongly.
    #[error("no case met a packet of {name}, which needs {needs}")]
    Idle {
        /// The device.
        name: &'static str,
        /// What it takes for there to be packets.
        needs: &'static str,
    },
    /// A boot failed for another reason than the guest's.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The guest is ill by itself.
    #[error("the guest is ill without any fault: {0}")]
    Ill(String),
    /// A finding cannot be kept.
    #[error("--findings {path} cannot be written", path = path.display())]
    Keep {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// Does what the command line says; whether the guest stood it.
pub fn fuzz(arguments: &FuzzArgs) -> Result<bool, FuzzError> {
    let program = std::env::current_exe().map_err(BootError::Start)?;
    let spec = arguments.machine.to_spec()?;
    spec.check()?;
    let mut search = Search::new(arguments, spec, program)?;
    search.all(arguments.cases, usize::from(arguments.per_boot))?;
    println!("{}", search.tally.summary(&search.shapes));
    let _ = fs::remove_dir_all(&search.boots.directory);
    let Target { name, needs, .. } = search.target;
    if search.tally.met.is_empty() && search.tally.findings.is_empty() {
        return Err(FuzzError::Idle { name, needs });
    }
    Ok(search.tally.findings.is_empty())
}

struct Search<'a> {
    target: &'static Target,
    shapes: Vec<Shape>,
    seed: u64,
    boots: Boots,
    findings: &'a PathBuf,
    tally: Tally,
}

/// What has been done and found.
#[derive(Default)]
struct Tally {
    boots: usize,
    cases: usize,
    /// Cases that a packet met.
    met: BTreeSet<usize>,
    /// How many of those each kind of message had.
    by_shape: BTreeMap<usize, usize>,
    /// Each sign of illness, and how many boots showed it.
    findings: BTreeMap<String, usize>,
}

impl<'a> Search<'a> {
    /// One that `program` makes the boots for.
    fn new(arguments: &'a FuzzArgs, mut spec: VmSpec, program: PathBuf) -> Result<Self, FuzzError> {
        let FuzzArgs { device, seed, findings, .. } = arguments;
        let Some(target) = devices::find(device) else {
            let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            return Err(FuzzError::Device { name: device.clone(), known: known.join(", ") });
        };
        // Linux says WARNING with level 4, which `quiet` hides.
        let cmdline = spec.cmdline.get_or_insert_with(|| DEFAULT_CMDLINE.to_owned());
        cmdline.push_str(" loglevel=5");
        let keep = |source| FuzzError::Keep { path: findings.clone(), source };
        let directory = findings.join("now");
        fs::create_dir_all(&directory).map_err(keep)?;
        let directory = fs::canonicalize(directory).map_err(keep)?;
        let boots = Boots {
            program,
            words: Vec::new(),
            patience: Duration::from_secs(spec.timeout.unwrap_or(120)),
            watched: Duration::from_secs(arguments.watch),
            by_heartbeat: device != "heartbeat",
            prods: (target.prods)(&spec, &directory.join("spec")),
            spec,
            directory,
            known: Vec::new(),
        };
        let (shapes, seed) = ((target.shapes)(), *seed);
        Ok(Self { target, shapes, seed, boots, findings, tally: Tally::default() })
    }

    /// A guest that is well, and then all cases.
    fn all(&mut self, cases: usize, per_boot: usize) -> Result<(), FuzzError> {
        self.look_at_health()?;
        self.run(cases, per_boot)
    }

    /// A guest to which nothing wrong is said: what it shows by itself is no finding.
    fn look_at_health(&mut self) -> Result<(), FuzzError> {
        let Outcome { sign, console, .. } = self.boot(&[])?;
        self.boots.known = health::signs(&console);
        match sign.filter(|sign| !self.boots.known.contains(sign)) {
            Some(sign) => Err(FuzzError::Ill(sign)),
            None => Ok(()),
        }
    }

    fn boot(&mut self, cases: &[Case]) -> Result<Outcome, FuzzError> {
        self.tally.boots += 1;
        Ok(self.boots.boot(&script(cases))?)
    }

    fn run(&mut self, count: usize, per_boot: usize) -> Result<(), FuzzError> {
        for first in (0..count).step_by(per_boot) {
            let numbers = first..count.min(first + per_boot);
            let Self { target, shapes, seed, .. } = &*self;
            // One of the handshake's to every other boot: a driver that minds it says nothing more.
            let is_handshake = |number: usize| number.is_multiple_of(2 * per_boot);
            let make = |number| case(target.name, shapes, *seed, number, is_handshake(number));
            let cases: Vec<_> = numbers.map(make).collect();
            let outcome = self.boot(&cases)?;
            let met: Vec<_> =
                cases.iter().filter(|case| outcome.fired.contains(&case.name())).cloned().collect();
            self.tally.cases += cases.len();
            for case in &met {
                self.tally.met.insert(case.number);
                *self.tally.by_shape.entry(case.shape).or_default() += 1;
            }
            let (last, met_count) = (cases.len() + first, met.len());
            match outcome.sign.clone() {
                None => println!("cases {first} to {}: {met_count} met, stood", last - 1),
                Some(sign) => {
                    println!("cases {first} to {}: {met_count} met, {sign}", last - 1);
                    // Nothing is known of a run that could not sum up.
                    let guilty = if met.is_empty() { cases } else { met };
                    self.found(&sign, guilty, &outcome)?;
                }
            }
        }
        Ok(())
    }

    /// The guest is ill: keeps the fewest cases that make it so.
    fn found(&mut self, sign: &str, cases: Vec<Case>, outcome: &Outcome) -> Result<(), FuzzError> {
        let times = self.tally.findings.entry(sign.to_owned()).or_default();
        *times += 1;
        if *times > 1 {
            return Ok(());
        }
        let number = self.tally.findings.len();
        let mut is_ill = |cases: &[Case]| Ok(self.boot(cases)?.sign.as_deref() == Some(sign));
        let (cases, sure) = fewest::<FuzzError>(cases, &mut is_ill)?;
        let Self { target: Target { name, .. }, seed, findings, .. } = self;
        let sure = if sure { "" } else { "\n# It did not come again when this was replayed." };
        let head = format!("# {name}, seed {seed}: {sign}{sure}\n");
        let keep = |source| FuzzError::Keep { path: findings.clone(), source };
        let file = findings.join(format!("finding-{number}.toml"));
        fs::write(&file, head + &script(&cases)).map_err(keep)?;
        let console = findings.join(format!("finding-{number}.console"));
        fs::write(console, &outcome.console).map_err(keep)?;
        let what: Vec<_> = cases.iter().map(|case| &*case.what).collect();
        println!("finding {number}: {sign}\n  by {}\n  {}", what.join("; "), file.display());
        Ok(())
    }
}

/// The fewest of `cases` that still make the guest ill, as `is_ill` finds out: halves are left out, then less,
/// then single ones. And whether that was seen once more.
fn fewest<E>(
    mut cases: Vec<Case>,
    mut is_ill: impl FnMut(&[Case]) -> Result<bool, E>,
) -> Result<(Vec<Case>, bool), E> {
    let (mut sure, mut len) = (false, cases.len().div_ceil(2));
    while len > 0 && cases.len() > 1 {
        let mut at = 0;
        while at < cases.len() && cases.len() > 1 {
            let mut fewer = cases.clone();
            fewer.drain(at..(at + len).min(cases.len()));
            if !fewer.is_empty() && is_ill(&fewer)? {
                (cases, sure) = (fewer, true);
            } else {
                at += len;
            }
        }
        len /= 2;
    }
    if !sure {
        sure = is_ill(&cases)?;
    }
    Ok((cases, sure))
}

impl Tally {
    fn summary(&self, shapes: &[Shape]) -> String {
        let Self { boots, cases, met, by_shape, findings } = self;
        let mut lines = vec![format!(
            "{cases} cases, of which {} met a packet, in {boots} boots; {} findings",
            met.len(),
            findings.len()
        )];
        let changed = by_shape.len();
        lines.push(format!("kinds of message that were changed, {changed} of {}:", shapes.len()));
        for (at, shape) in shapes.iter().enumerate() {
            let count = by_shape.get(&at).copied().unwrap_or_default();
            lines.push(format!("  {count:>5}  {}", shape.name));
        }
        lines.extend(findings.iter().map(|(sign, times)| format!("  {times} times: {sign}")));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::Path;

    use super::*;

    /// Says that all rules of the script have fired, and of two of them together that they make it ill.
    const PLANTED: &str = r#"
        script=$(dirname "$3")/script
        [ -e "$script" ] || exit 0
        names=$(sed -n 's/^name = "\(.*\)"$/\1 1 times/p' "$script" | paste -sd , | sed 's/,/, /g')
        echo "busway: --faults $script: seed 1; $names" >&2
        grep -q '"case-5"' "$script" && grep -q '"case-11"' "$script" || exit 0
        echo '[    1.5] BUG: planted' >"$(dirname "$3")/console"
    "#;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        fuzz: FuzzArgs,
    }

    /// The machine's flags do not matter: it is a program of `directory` that takes its place.
    fn line(device: &str, directory: &Path) -> FuzzArgs {
        let findings = directory.join("out");
        let words = ["", "--kernel", "vmlinuz", "--device", device, "--findings"];
        let words = words.map(OsStr::new).into_iter().chain([findings.as_os_str()]);
        <Line as clap::Parser>::parse_from(words).fuzz
    }

    /// 48 cases for 3 guests, which are `program`.
    fn planted<'a>(line: &'a FuzzArgs, directory: &Path, program: &str) -> Search<'a> {
        let file = directory.join("program");
        fs::write(&file, program).unwrap();
        let spec = line.machine.to_spec().unwrap();
        let mut search = Search::new(line, spec, "sh".into()).unwrap();
        search.boots.words.push(file);
        search.all(48, 16).unwrap();
        search
    }

    #[test]
    fn a_planted_illness_is_found_and_its_script_is_the_shortest() {
        let directory = tempfile::tempdir().unwrap();
        let line = line("network", directory.path());
        let search = planted(&line, directory.path(), PLANTED);
        let Tally { cases, ref met, findings: ref found, .. } = search.tally;
        assert_eq!((cases, met.len()), (48, 48));
        assert_eq!(found.values().copied().collect::<Vec<_>>(), [1], "{found:?}");
        let script = fs::read_to_string(line.findings.join("finding-1.toml")).unwrap();
        let names: Vec<_> = script.lines().filter(|line| line.starts_with("name = ")).collect();
        assert_eq!(names, ["name = \"case-5\"", "name = \"case-11\""]);
        let summary = search.tally.summary(&search.shapes);
        assert!(summary.contains("48 cases, of which 48 met a packet"), "{summary}");
        assert!(summary.contains("kinds of message that were changed, "), "{summary}");
    }

    #[test]
    fn every_other_boot_has_a_handshake_that_is_as_it_should_be() {
        let directory = tempfile::tempdir().unwrap();
        let line = line("keyboard", directory.path());
        let search = planted(&line, directory.path(), &PLANTED.replace("BUG", "nothing"));
        let changed = search.shapes.iter().zip(search.tally.by_shape.values());
        let changed: Vec<_> = changed.map(|(shape, count)| (shape.name, *count)).collect();
        assert_eq!(changed, [("PROTOCOL_RESPONSE", 2), ("EVENT", 46)]);
    }

    #[test]
    fn what_is_not_needed_for_a_finding_is_left_out() {
        let shapes = (devices::find("storage").unwrap().shapes)();
        let cases: Vec<_> = (0..16).map(|n| case("storage", &shapes, 1, n, false)).collect();
        let mut boots = 0;
        let mut by = |guilty: &'static [usize]| {
            let is_ill = |cases: &[Case]| {
                boots += 1;
                let has = |number| cases.iter().any(|case| case.number == number);
                Ok::<_, ()>(guilty.iter().all(|number| has(*number)))
            };
            let (cases, sure) = fewest(cases.clone(), is_ill).unwrap();
            (cases.iter().map(|case| case.number).collect::<Vec<_>>(), sure)
        };
        assert_eq!(by(&[11]), (vec![11], true));
        assert_eq!(by(&[2, 13]), (vec![2, 13], true));
        // It came by chance: nothing is known of what it takes.
        let (all, sure) = by(&[99]);
        assert_eq!((all.len(), sure), (16, false));
        assert!(boots < 80, "{boots}");
    }
}
