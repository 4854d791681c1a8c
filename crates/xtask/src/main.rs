// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask`: everything that a developer or CI does with the project.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod carried;
mod demo;
mod images;
mod lab;
mod lab_command;
mod matrix;
mod test;
mod tools;
mod workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "busway's own commands",
    after_help = "What the machine lacks from apt is installed when root, and otherwise named in one line to copy."
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Demo(demo::Arguments),
    Test(test::Arguments),
    Lab(lab_command::Arguments),
    Matrix(matrix::Arguments),
    Images(images::Arguments),
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Lab(arguments) => lab_command::run(arguments),
        Task::Matrix(arguments) => matrix::run(&arguments),
        Task::Images(arguments) => images::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
