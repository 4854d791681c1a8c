// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a guest may do with its machine and its devices again and again: reboot, kexec, crash and save
//! itself, unbind drivers, take CPUs away. After each, busway holds what it held before.

use std::time::{Duration, Instant};

use busway_harness::{Report, Running};

use crate::case::{Case, Outcome, Skip, number, reboots, tests};
use crate::guest::{Guest, script_status};
use crate::resources::Resources;
use crate::terminal::Terminal;

tests![
    a_crash_kernel_saves_the_core_on_a_disk,
    reboots_leave_nothing_behind,
    a_kernel_that_another_kernel_starts_finds_all_devices,
    devices_are_unbound_in_use_and_leave_nothing_behind,
    cpus_go_and_come_back,
    a_cpu_that_is_stuck_holds_nobody_up,
];

/// What each script begins with: it stands still until the test goes on, and has said which channels it
/// has.
const PRELUDE: &str = r#"
    relids() {
        fact relids $(ls -d $bus/*/channels/* | sed 's/.*\///' | sort -n)
    }
    pause() {
        relids
        fact devices $(ls $bus)
        echo "paused=$1"
        read line
    }
"#;

/// A guest that stops now and then to be looked at.
struct Subject {
    terminal: Terminal,
    running: Running,
    deadline: Instant,
}

impl Subject {
    fn start(case: &Case, guest: Guest<'_>, script: &str) -> Self {
        let terminal = Terminal::open();
        let running = terminal.start(guest, case, &format!("{PRELUDE}\n{script}"));
        Self { terminal, running, deadline: case.deadline }
    }

    /// Waits until the guest stands still, and says what busway holds then.
    fn look(&mut self, pause: &str) -> Resources {
        assert_eq!(self.running.wait_for("paused="), pause);
        Resources::settled(self.running.pid(), self.deadline)
    }

    /// Lets the guest go on.
    fn go_on(&self) {
        self.terminal.type_in("\r");
    }

    /// Until it has switched itself off.
    fn end(self) -> Report {
        self.go_on();
        let report = self.running.end();
        assert_eq!(report.status, 0);
        let relids = report.all("relids");
        assert!(relids[0].split(' ').count() >= 2, "{relids:?}");
        assert_eq!(relids, vec![relids[0]; relids.len()]);
        let devices = report.all("devices");
        assert_eq!(devices, vec![devices[0]; devices.len()]);
        report
    }
}

/// A guest with something of everything.
fn furnished(case: &Case) -> Guest<'_> {
    let disk = case.empty_disk(16);
    case.guest().disk(&disk).flag("--net").flag("loopback").flag("--keyboard").flag("--mouse")
}

/// F24, F84.
fn reboots_leave_nothing_behind(case: &Case) -> Outcome {
    let guest = furnished(case).cpus(2).timeout(Duration::from_secs(100_000));
    let script =
        "disk 0; pause booted; if [ \"$line\" = off ]; then exit; fi; reboot -f; sleep 1000";
    let mut subject = Subject::start(case, guest, script);
    let first = subject.look("booted");
    for life in 1..=reboots() {
        subject.go_on();
        assert_eq!(subject.look("booted"), first, "after reboot {life}");
    }
    subject.terminal.type_in("off");
    let report = subject.end();
    assert_eq!(report.all("relids").len(), reboots() as usize + 1);
    Ok(())
}

/// F20. The first kernel shuts its devices down, and does not tell busway of a reset.
fn a_kernel_that_another_kernel_starts_finds_all_devices(case: &Case) -> Outcome {
    let disk = case.disk(4);
    let second = "fact second $(sum $(disk 0)); pause second";
    let second = case.guest().initrd(&format!("{PRELUDE}\n{second}"));
    let guest = case.guest().program("kexec-tools")?.cpus(2).disk(&disk);
    let guest = guest.flag("--net").flag("loopback").flag("--memory").flag("1G");
    let guest = guest.file("test/vmlinuz", case.kernel.vmlinuz()).file("test/second", second);
    let script = "fact first $(sum $(disk 0))
        kexec -l /test/vmlinuz --initrd=/test/second --command-line=\"$(cat /proc/cmdline)\"
        pause first
        kexec -e
        sleep 1000";
    let mut subject = Subject::start(case, guest, script);
    let first = subject.look("first");
    subject.go_on();
    assert_eq!(subject.look("second"), first);
    let report = subject.end();
    assert_eq!([report.fact("first"), report.fact("second")], [disk.sha256(), disk.sha256()]);
    assert!(!report.lines.iter().any(|line| line.contains("Waiting for VMBus UNLOAD")));
    Ok(())
}

/// F21, F22: from a CPU that is not the first. The guest's words are with busway, its core is on the disk.
fn a_crash_kernel_saves_the_core_on_a_disk(case: &Case) -> Outcome {
    let disk = case.empty_disk(64);
    // A crash kernel has one CPU and little memory; the beginning of the core will do.
    let second = case.guest().initrd(
        "dmesg | sed -n 's/.*\\(Waiting for VMBus UNLOAD\\).*/late=\\1/p'
        head -c 4m /proc/vmcore | dd of=$(disk 0) bs=1M conv=fsync 2>/dev/null
        fact core $(head -c 4m /proc/vmcore | sha256sum | cut -d ' ' -f 1)",
    );
    let guest = case.guest().program("kexec-tools")?.cpus(2).disk(&disk);
    let guest = guest.flag("--memory").flag("768M").flag("--on-panic").flag("wait");
    let guest = guest.word("crashkernel=192M").file("test/vmlinuz", case.kernel.vmlinuz());
    let guest = guest.file("test/second", second);
    let report = guest
        .start(
            "disk 0
            kexec -p /test/vmlinuz --initrd=/test/second \
                --command-line='console=ttyS0 quiet panic=-1 nr_cpus=1 reset_devices'
            fact loaded $(cat /sys/kernel/kexec_crash_loaded)
            taskset 2 sh -c 'echo c >/proc/sysrq-trigger'",
        )
        .end();
    assert_eq!(report.fact("loaded"), "1");
    // A guest that panicked has failed, whatever it does then.
    assert_eq!(report.status, 1);
    assert!(report.busway.contains("sysrq triggered crash"), "{}", report.busway);
    assert_eq!(script_status(&report), Some(0), "of the crash kernel");
    assert_eq!(report.fact("core"), disk.sha256_of(4 << 20));
    assert!(disk.begins_with(b"\x7fELF"));
    assert_eq!(report.all("late"), [""; 0]);
    Ok(())
}

/// F15, F19: each device, twice, while disk and network are busy.
fn devices_are_unbound_in_use_and_leave_nothing_behind(case: &Case) -> Outcome {
    let guest = furnished(case).cpus(4);
    let script = "disk 0
        ip link set eth0 up
        ip addr add 10.9.9.1/24 dev eth0
        dmesg -c >/dev/null
        pause before
        devices=$(ls $bus)
        for turn in 1 2; do
            for device in $devices; do
                [ -e $bus/$device/driver ] || continue
                driver=$(basename $(readlink $bus/$device/driver))
                agent read $(disk 0) >/dev/null &
                reader=$!
                ping -q -c 100 -i 0.01 10.9.9.2 >/dev/null 2>&1 &
                sender=$!
                usleep 50000
                echo $device >/sys/bus/vmbus/drivers/$driver/unbind
                [ ! -e $bus/$device/driver ]
                echo $device >/sys/bus/vmbus/drivers/$driver/bind
                [ -e $bus/$device/driver ]
                kill $sender || true
                wait $reader $sender || true
                for card in $(ls /sys/class/net | grep eth); do
                    ip link set $card up
                    ip addr replace 10.9.9.1/24 dev $card
                done
            done
        done
        agent read $(disk 0) block=1m >/dev/null
        pause after
        dmesg -r | sed -n 's/^<[0-3]>/complaint=/p'";
    let mut subject = Subject::start(case, guest, script);
    let before = subject.look("before");
    subject.go_on();
    assert_eq!(subject.look("after"), before);
    let report = subject.end();
    // A disk that goes while it is read may be worth a word to the guest.
    let complaints = report.all("complaint");
    assert!(complaints.iter().all(|line| line.contains(" sd")), "{complaints:?}");
    Ok(())
}

/// F26: a CPU on which channels are cannot go; when they have moved it can, and comes back.
fn cpus_go_and_come_back(case: &Case) -> Outcome {
    let guest = furnished(case).cpus(4);
    let script = "disk=$(disk 0)
        cpus=/sys/devices/system/cpu
        pause before
        for turn in 1 2 3; do
            agent read $disk >/dev/null &
            reader=$!
            for cpu in 1 2 3; do
                for channel in $bus/*/channels/*; do
                    [ $(cat $channel/cpu) != $cpu ] || echo 0 >$channel/cpu
                done
                echo 0 >$cpus/cpu$cpu/online
            done
            wait $reader
            fact online $(nproc)
            agent read $disk block=1m >/dev/null
            for cpu in 1 2 3; do
                echo 1 >$cpus/cpu$cpu/online
            done
            fact online $(nproc)
            for channel in $bus/*/channels/*; do
                [ ! -w $channel/cpu ] || echo $turn >$channel/cpu || true
            done
            agent read $disk block=1m >/dev/null
        done
        pause after";
    let mut subject = Subject::start(case, guest, script);
    let before = subject.look("before");
    subject.go_on();
    assert_eq!(subject.look("after"), before);
    let report = subject.end();
    assert_eq!(report.all("online"), ["1", "4", "1", "4", "1", "4"]);
    Ok(())
}

/// CPU 1 takes no interrupt, and the other does not wait for it: nor does busway, when it is asked, when the guest
/// resets, and when it is to end. What is to be done on CPU 1 is done when it goes on.
///
/// On request: now and then Linux itself has all CPUs interrupted and waits for each (`kernel/smp.c`), and then
/// no CPU of the guest's does anything.
fn a_cpu_that_is_stuck_holds_nobody_up(case: &Case) -> Outcome {
    if number("BUSWAY_STUCK").is_none() {
        let why = "Linux may wait for its own stuck CPU: BUSWAY_STUCK=1 asks for it";
        return Err(Skip(why.to_owned()));
    }
    let (disk, control) = (case.disk(4), case.control());
    let guest = case.guest().cpus(2).disk(&disk).flag("--control").flag(control.path());
    // A clock that is set would be such a reason, and is set when the machine goes on.
    let guest = guest.flag("--integration").flag("shutdown,heartbeat");
    let mut guest = guest.start(
        "disk=$(disk 0)
        modprobe msr
        for channel in $bus/*/channels/*; do
            [ $(cat $channel/cpu) = 0 ] || echo 0 >$channel/cpu
        done
        # The serial port's, too. An interrupt moves when it comes for the next time.
        for interrupt in /proc/irq/[0-9]*; do
            (echo 1 >$interrupt/smp_affinity) 2>/dev/null || true
        done
        echo step=alone
        taskset -p 1 $$ >/dev/null
        cd /tmp
        stick() {
            rm -f free late
            : >said
            agent stick 1 until=free >said &
            until grep -q stuck said; do usleep 20000; done
            taskset 2 touch late &
            fact sha256 $(agent read $disk | sha256sum | cut -d ' ' -f 1)
            [ ! -e late ]
            echo step=stuck
            read line
        }
        stick
        [ ! -e late ]
        touch free
        wait
        [ -e late ]
        fact sha256 $(taskset 2 agent read $disk | sha256sum | cut -d ' ' -f 1)
        echo step=free
        stick
        echo b >/proc/sysrq-trigger",
    );
    guest.wait_for("step=stuck");
    for paused in [true, false] {
        control.ask(&[if paused { "pause" } else { "resume" }]);
        assert_eq!(control.ask(&["status"])["done"]["paused"], paused);
    }
    guest.type_in("\r");
    guest.wait_for("step=free");
    guest.wait_for("step=stuck");
    guest.type_in("\r");
    // Of the machine that starts over.
    guest.wait_for("step=stuck");
    guest.terminate();
    let report = guest.end();
    assert_eq!(report.status, 128 + 15);
    assert_eq!(report.all("sha256"), vec![disk.sha256(); 4]);
    Ok(())
}
