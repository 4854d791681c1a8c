// SPDX-License-Identifier: MIT OR Apache-2.0

//! What users get wrong: each mistake is one line that names the flag and what to do, with status
//! 2, and it creates and changes nothing. None of this needs KVM.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

/// A directory with the files that the cases name; gone at the end.
struct Bench(PathBuf);

impl Bench {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("busway-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let bench = Self(path);
        bench.write("bzImage", &bz_image());
        bench.write("text", b"#!/bin/sh\necho no kernel\n");
        bench.write("empty", b"");
        bench.write("disk.img", &[0; 1024]);
        bench.write("odd.img", &[0; 1000]);
        bench.write("misspelt.json", br#"{"kernel": "bzImage", "memroy": "1G"}"#);
        fs::File::create(bench.path("large")).unwrap().set_len(600 << 20).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn busway(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_busway"));
        command.current_dir(&self.0).args(arguments.split_whitespace()).env_remove("BUSWAY_LOG");
        command
    }

    /// Names and sizes of all files.
    fn listing(&self) -> Vec<(PathBuf, u64)> {
        let entries = fs::read_dir(&self.0).unwrap().map(Result::unwrap);
        let mut all: Vec<_> =
            entries.map(|entry| (entry.path(), entry.metadata().unwrap().len())).collect();
        all.sort();
        all
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// As much of a bzImage as a loader looks at (Linux `Documentation/x86/boot.rst`).
fn bz_image() -> Vec<u8> {
    let mut image = vec![0; 4096];
    let mut put = |offset: usize, bytes: &[u8]| {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0x1f1, &[1]); // setup_sects
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes()); // version
    put(0x211, &[1]); // loadflags: loaded high
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
    put(0x236, &1_u16.to_le_bytes()); // xloadflags: 64-bit entry
    put(0x238, &2047_u32.to_le_bytes()); // cmdline_size
    put(0x258, &0x100_0000_u64.to_le_bytes()); // pref_address
    put(0x260, &0x200_0000_u32.to_le_bytes()); // init_size
    image
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// One line that has all of `parts`, and status 2.
fn assert_refused(output: &Output, what: &str, parts: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{what}: {text}");
    assert_eq!(text.lines().count(), 1, "{what}: {text}");
    assert!(text.starts_with("busway: "), "{what}: {text}");
    for part in parts {
        assert!(text.contains(part), "{what}: no {part:?} in {text}");
    }
    assert!(output.stdout.is_empty(), "{what}");
}

/// Arguments, and what the line has to say: the flag, the fault, the remedy.
const CASES: &[(&str, &[&str])] = &[
    ("run", &["--kernel", "missing", "give"]),
    ("run --kernel nowhere", &["--kernel", "nowhere", "No such file", "check the path"]),
    ("run --kernel .", &["--kernel", "directory", "give a file"]),
    ("run --kernel empty", &["--kernel", "empty", "give a file"]),
    ("run --kernel text", &["--kernel", "neither a bzImage nor an ELF", "/boot"]),
    ("run --kernel large", &["--kernel", "neither a bzImage nor an ELF"]),
    ("run --kernel bzImage --initrd nowhere", &["--initrd", "nowhere", "check the path"]),
    ("run --kernel bzImage --initrd large", &["--initrd", "600 MiB", "raise --memory"]),
    ("run --kernel bzImage --memory 1M", &["--memory 1M", "64M or more"]),
    ("run --kernel bzImage --memory 100000K", &["--memory 100000K", "whole MiB"]),
    ("run --kernel bzImage --memory 512", &["--memory 512", "unit", "512M"]),
    ("run --kernel bzImage --memory 9999999T", &["--memory 9999999T", "lower it"]),
    ("run --kernel bzImage --cpus 0", &["--cpus 0", "1 to 64"]),
    ("run --kernel bzImage --cpus 65", &["--cpus 65", "1 to 64"]),
    ("run --kernel bzImage --cpus two", &["--cpus two", "number"]),
    ("run --kernel bzImage --timeout 0", &["--timeout 0", "one second"]),
    ("run --kernel bzImage --timeout soon", &["--timeout soon", "seconds"]),
    ("run --kernel bzImage --capture x,snap=a", &["--capture", "snap=", "number"]),
    ("run --kernel bzImage --capture x,all", &["--capture", "\"all\"", "pages"]),
    ("decode nowhere.pcapng", &["nowhere.pcapng", "No such file"]),
    ("decode text", &["text", "byte 0", "no pcapng file"]),
    ("decode text --filter channel=disk", &["--filter", "channel=disk", "channel=NAME"]),
    ("run --kernel bzImage --vmbus-version 7.0", &["--vmbus-version 7.0", "0.13, 1.1", "5.3, 6.0"]),
    ("run --kernel bzImage --storage-version 7", &["--storage-version 7", "2.0, 4.2", "6.0, 6.2"]),
    ("smoke --kernel bzImage --network-version 3", &["--network-version 3", "1, 2, 4.0", "6.1"]),
    (
        "run --kernel bzImage --integration-version 5",
        &["--integration-version 5", "1.0, 3.0", "4.0"],
    ),
    ("run --kernel bzImage --serial tty", &["--serial tty", "stdio, null"]),
    ("run --kernel bzImage --on-panic sleep", &["--on-panic sleep", "exit or wait"]),
    ("run --kernel bzImage --disk nowhere.img", &["--disk", "nowhere.img", "correct the path"]),
    ("run --kernel bzImage --disk .", &["--disk", "directory", "regular file"]),
    ("run --kernel bzImage --disk odd.img", &["--disk", "1000 B", "512", "truncate"]),
    ("run --kernel bzImage --disk empty", &["--disk", "empty", "truncate"]),
    ("run --kernel bzImage --disk disk.img,rw", &["--disk", "rw", "readonly"]),
    ("run --kernel bzImage --disk disk.img,serial=", &["--disk", "serial", "printable"]),
    ("run --kernel bzImage --disk disk.img --disk disk.img", &["--disk", "twice", "readonly"]),
    ("run --kernel bzImage --net user", &["--net user", "tap=NAME", "passt", "loopback"]),
    ("run --kernel bzImage --net tap=busway-none", &["--net", "busway-none", "ip tuntap add"]),
    ("run --kernel bzImage --net tap=lo", &["--net", "'lo' is no TAP", "ip tuntap add"]),
    ("run --kernel bzImage --net socket=nowhere", &["--net", "nowhere", "start the program"]),
    ("run --kernel bzImage --net loopback,mac=010000000001", &["--net", "mac=", "02:00"]),
    ("run --kernel bzImage --net loopback,speed=10", &["--net", "speed=10", "mtu"]),
    ("run --kernel bzImage --net loopback,queues=0", &["--net", "queues=0", "1 to 64"]),
    ("run --kernel bzImage --net passt,queues=2", &["--net passt", "one queue", "TAP"]),
    ("run --kernel bzImage --net loopback,mtu=9001", &["--net", "mtu=9001", "9000"]),
    ("run --kernel bzImage --display sdl", &["--display", "sdl", "vnc=ADDRESS:PORT", "png=PATH"]),
    ("run --kernel bzImage --display png=x,size=9x9", &["--display", "size=9x9", "640x480"]),
    ("run --kernel bzImage --net tap=a --net tap=a", &["--net tap=a", "twice", "of its own"]),
    ("smoke", &["--kernel", "missing", "give"]),
    ("smoke --kernel text", &["--kernel", "neither a bzImage nor an ELF"]),
    ("smoke --kernel bzImage --expect disk", &["--expect disk", "'disk'", "vmbus", "storage"]),
    ("smoke --kernel bzImage --report xml=f", &["--report xml=f", "json=FILE or junit=FILE"]),
    ("smoke --kernel bzImage --report json=a/b", &["--report", "a/b", "No such file"]),
    ("smoke --kernel bzImage --report junit=.", &["--report", "directory", "give a file"]),
    ("smoke --kernel bzImage --serial null --serial-log f", &["--serial-log", "--help"]),
    ("smoke --kernel bzImage --kvm nowhere", &["nowhere", "modprobe"]),
    ("run --spec nowhere.json", &["--spec", "nowhere.json", "check the path"]),
    ("run --spec misspelt.json", &["--spec", "memroy", "--print-spec"]),
    ("run --spec text", &["--spec", "text", "--print-spec"]),
    ("run --kernel bzImage --wrong", &["--wrong", "--help"]),
    ("run --kernel", &["--kernel", "--help"]),
    ("run --kernel bzImage --kvm nowhere", &["nowhere", "modprobe", "firmware"]),
    ("run --kernel bzImage --kvm /dev/null", &["/dev/null", "not KVM's device", "--kvm"]),
    ("run --kernel bzImage --kvm /dev/null --serial file=new", &["/dev/null"]),
    ("run --kernel text --serial unix=new", &["--kernel"]),
];

#[test]
fn each_mistake_is_one_line_and_changes_nothing() {
    let bench = Bench::new("mistakes");
    let before = bench.listing();
    for (arguments, parts) in CASES {
        let output = bench.busway(arguments).output().unwrap();
        assert_refused(&output, arguments, parts);
    }
    assert_eq!(bench.listing(), before);
}

#[test]
fn a_cmdline_has_a_limit_that_is_the_kernels() {
    let bench = Bench::new("cmdline");
    let mut command = bench.busway("run --kernel bzImage --cmdline");
    let output = command.arg("x".repeat(2048)).output().unwrap();
    assert_refused(&output, "cmdline", &["--cmdline", "2048", "2047", "shorten"]);
}

#[test]
fn passt_that_is_not_installed_is_named() {
    let bench = Bench::new("passt");
    let mut command = bench.busway("run --kernel bzImage --net passt");
    let output = command.env("PATH", "").output().unwrap();
    assert_refused(&output, "passt", &["--net", "passt is not installed", "apt install passt"]);
}

/// A user whom neither the device nor a disk belongs to.
#[test]
fn what_is_not_permitted_is_told_from_what_is_not_there() {
    const NOBODY: u32 = 65534;
    let bench = Bench::new("permission");
    let forbid = |name: &str, mode| {
        fs::set_permissions(bench.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    bench.write("kvm", b"x");
    forbid("kvm", 0o600);
    forbid("disk.img", 0o444);
    let refused = |arguments: &str, parts: &[&str]| {
        let mut command = Command::new(copy_for_everybody(&bench));
        command.current_dir(&bench.0).args(arguments.split_whitespace());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        } else {
            forbid("kvm", 0);
        }
        assert_refused(&output_of_copy(&mut command), arguments, parts);
    };
    refused("run --kernel bzImage --kvm kvm", &["kvm", "usermod -aG kvm"]);
    refused("run --kernel bzImage --disk disk.img", &["--disk", "add ',readonly'"]);
    refused("run --kernel bzImage --disk disk.img,readonly --kvm kvm", &["usermod -aG kvm"]);
}

/// Runs a program that was just copied. A process that another test forks at this moment may still
/// have the copy open for writing, and the system then refuses to execute it.
fn output_of_copy(command: &mut Command) -> Output {
    loop {
        match command.output() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => thread::yield_now(),
            output => return output.unwrap(),
        }
    }
}

/// The build directory may be closed to others.
fn copy_for_everybody(bench: &Bench) -> PathBuf {
    let copy = bench.path("busway");
    if !copy.exists() {
        fs::copy(env!("CARGO_BIN_EXE_busway"), &copy).unwrap();
    }
    copy
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn print_spec_and_spec_agree() {
    let bench = Bench::new("spec");
    let flags = "run --kernel bzImage --cpus 4 --memory 1G --disk disk.img,serial=A \
                 --serial null --timeout 9 --on-panic wait --no-reboot \
                 --vmbus-version 4.1 --network-version 5 --print-spec";
    let printed = bench.busway(flags).output().unwrap();
    assert_eq!(printed.status.code(), Some(0), "{}", stderr(&printed));
    bench.write("vm.json", &printed.stdout);
    let spec: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!((&spec["on_reset"], &spec["on_panic"]), (&"exit".into(), &"wait".into()));
    assert_eq!((&spec["timeout"], &spec["serial"]), (&9.into(), &"null".into()));
    let versions = serde_json::json!({
        "vmbus": "4.1", "storage": "6.2", "network": "5.0",
        "integration": "4.0", "video": "3.5", "balloon": "2.0",
    });
    assert_eq!(spec["versions"], versions);
    let again = bench.busway("run --spec vm.json --print-spec").output().unwrap();
    assert_eq!(again.stdout, printed.stdout);
    let changed = bench.busway("run --spec vm.json --cpus 2 --print-spec").output().unwrap();
    let text = String::from_utf8(changed.stdout).unwrap();
    assert!(text.contains(r#""cpus": 2"#) && text.contains(r#""memory": "1G""#), "{text}");
}

#[test]
fn check_says_so_when_there_is_no_kvm() {
    let bench = Bench::new("check");
    let output = bench.busway("check --kvm nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("cannot run guests on nowhere") && text.contains("modprobe"), "{text}");

    let output = bench.busway("check --kvm nowhere --json").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["usable"], false);
    assert!(report["error"].as_str().unwrap().contains("modprobe"));
}

/// A CI system that only looks at the reports learns it too.
#[test]
fn a_smoke_test_that_cannot_start_is_in_its_reports() {
    let bench = Bench::new("reports");
    bench.write(
        "smoke.json",
        b"an older and much longer report, of which nothing stays".repeat(99).as_slice(),
    );
    let arguments =
        "smoke --kernel bzImage --kvm nowhere --report json=smoke.json --report junit=smoke.xml";
    let output = bench.busway(arguments).output().unwrap();
    assert_refused(&output, "reports", &["nowhere"]);
    let json = fs::read(bench.path("smoke.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(report["passed"], false);
    assert!(report["error"].as_str().unwrap().contains("nowhere"));
    let xml = fs::read_to_string(bench.path("smoke.xml")).unwrap();
    assert!(xml.contains("errors=\"1\"") && xml.contains("nowhere"), "{xml}");
}

#[test]
fn help_teaches_and_is_no_error() {
    let bench = Bench::new("help");
    for arguments in ["--help", "run --help", "smoke --help", "check --help", "--version"] {
        let output = bench.busway(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments}");
    }
    let help = bench.busway("run --help").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    for part in ["Examples:", "Exit status:", "Ctrl-A X", "[default: 512M]"] {
        assert!(help.contains(part), "{part}");
    }
    assert!(Path::new(env!("CARGO_BIN_EXE_busway")).exists());
}
