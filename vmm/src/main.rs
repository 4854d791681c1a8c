// SPDX-License-Identifier: MIT OR Apache-2.0

//! The program: command line in, exit status out.

use std::process::ExitCode;

use anyhow::Context;
use busway::check::Report;
use busway::cli::{CheckArgs, Cli, Command, CtlArgs, RunArgs, Task};
use busway::control::client::{Client, Ending};
use busway::control::protocol::{DiskTask, DvdTask, FaultTask, NetTask, Request};
use busway::smoke::args::SmokeArgs;
use busway::spec::{NetSpec, NetworkSpec, VmSpec};
use clap::Parser;
use clap::error::ErrorKind;

/// busway could not do what it was asked, or the host failed.
const FAILED: u8 = 2;
/// `busway ctl`: the machine or its guest did not do what it was asked.
const REFUSED: u8 = 1;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    start_log(cli.verbose);
    let status = match &cli.command {
        Command::Run(arguments) => run(arguments),
        Command::Smoke(arguments) => smoke(arguments),
        Command::FuzzGuest(arguments) => {
            busway::fuzz::fuzz(arguments).map(|stood| u8::from(!stood)).map_err(Into::into)
        }
        Command::Decode(arguments) => busway::decode::decode(arguments).map_err(Into::into),
        Command::Check(arguments) => check(arguments),
        Command::Top(arguments) => busway::top::top(arguments).map(|()| 0).map_err(Into::into),
        Command::Ctl(arguments) => ctl(arguments),
    };
    match status {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("busway: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(arguments: &RunArgs) -> anyhow::Result<u8> {
    let spec = arguments.to_spec()?;
    if arguments.print_spec {
        return print(&spec);
    }
    Ok(busway::run::run(&spec, &arguments.kvm, arguments.stats.as_deref(), None)?.status())
}

fn print(spec: &VmSpec) -> anyhow::Result<u8> {
    spec.check()?;
    let text = serde_json::to_string_pretty(spec).context("the spec cannot be printed")?;
    println!("{text}");
    Ok(0)
}

fn smoke(arguments: &SmokeArgs) -> anyhow::Result<u8> {
    if arguments.machine.print_spec {
        return print(&arguments.to_spec()?);
    }
    Ok(busway::smoke::smoke(arguments)?)
}

fn check(arguments: &CheckArgs) -> anyhow::Result<u8> {
    let report = Report::new(&arguments.kvm);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report).context("cannot print the report")?);
    } else {
        print!("{report}");
    }
    Ok(if report.is_usable() { 0 } else { FAILED })
}

fn ctl(arguments: &CtlArgs) -> anyhow::Result<u8> {
    let mut client = Client::connect(&arguments.socket, arguments.json)?;
    match &arguments.task {
        Task::Request(request) => Ok(status(&client.ask(&absolute(request)?)?)),
        Task::Backup { seconds, command } => {
            let frozen = client.ask(&Request::Freeze { seconds: *seconds })?;
            if matches!(frozen, Ending::Failed(_)) {
                return Ok(REFUSED);
            }
            let run = std::process::Command::new(&command[0]).args(&command[1..]).status();
            let thawed = client.ask(&Request::Thaw)?;
            let run = run.with_context(|| command[0].display().to_string())?;
            Ok(if run.success() { status(&thawed) } else { REFUSED })
        }
    }
}

fn status(ending: &Ending) -> u8 {
    match ending {
        Ending::Done(_) => 0,
        Ending::Failed(_) => REFUSED,
    }
}

/// The machine looks for files elsewhere.
fn absolute(request: &Request) -> anyhow::Result<Request> {
    let mut request = request.clone();
    let files: Vec<_> = match &mut request {
        Request::Copy { file, .. }
        | Request::Fault(FaultTask::Add { file, .. })
        | Request::Screenshot { file: Some(file) }
        | Request::Dvd(DvdTask::Insert { file, .. }) => vec![file],
        Request::Disk(DiskTask::Add { disk }) => {
            [&mut disk.file].into_iter().chain(&mut disk.overlay).collect()
        }
        Request::Net(NetTask::Add { net: NetSpec { network: NetworkSpec::Socket(path), .. } }) => {
            vec![path]
        }
        _ => Vec::new(),
    };
    for file in files {
        *file = std::path::absolute(&file).with_context(|| file.display().to_string())?;
    }
    Ok(request)
}

/// Help goes out as it is; an error is one line, like every other.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(FAILED);
    }
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    eprintln!("busway: {line}; `busway run --help` lists the flags");
    ExitCode::from(FAILED)
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let environment = env_logger::Env::new().filter_or("BUSWAY_LOG", level);
    env_logger::Builder::from_env(environment)
        .format(|buffer, record| {
            use std::io::Write;
            writeln!(buffer, "busway: {}", record.args())
        })
        .init();
}
