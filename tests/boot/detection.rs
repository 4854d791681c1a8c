// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a guest believes it runs on, and what its clocks and timers are.

use crate::case::{Case, Outcome, Skip, number, tests};
use crate::survey;

tests![
    the_hypervisor_is_hyper_v,
    the_clock_is_the_reference_tsc_page_and_never_runs_backwards,
    timers_are_the_hypervisors,
    the_bus_is_in_acpi,
    the_kernel_has_nothing_to_complain_of,
    one_vcpu_is_enough,
    two_vcpus_work,
    as_many_vcpus_as_asked_for_work,
    memory_above_four_gib_is_reached,
];

/// F1.
fn the_hypervisor_is_hyper_v(case: &Case) -> Outcome {
    let guest = survey::of(case);
    assert_eq!(guest.fact("detected"), "Microsoft Hyper-V");
    assert!(guest.fact("privileges").contains("hints"));
    assert!(guest.fact("build").starts_with("10.0"));
    assert_eq!(guest.fact("firmware_bugs"), "0");
    assert_eq!(guest.number("cpus"), 4);
    Ok(())
}

/// F3, for a moment.
fn the_clock_is_the_reference_tsc_page_and_never_runs_backwards(case: &Case) -> Outcome {
    let guest = survey::of(case);
    assert_eq!(guest.fact("clocksource"), "hyperv_clocksource_tsc_page");
    assert!(!guest.fact("clocksources").contains("kvm-clock"));
    assert_eq!(guest.fact("clock"), "monotonic");
    Ok(())
}

/// F2: each CPU's timer is a synthetic one in direct mode, and the local APIC's is not used.
fn timers_are_the_hypervisors(case: &Case) -> Outcome {
    let guest = survey::of(case);
    let row = |name| guest.fact(name).split_whitespace().map(|count| count.parse::<u64>().unwrap());
    assert_eq!(row("HVS").count(), 4);
    assert!(row("HVS").all(|count| count > 0));
    assert_eq!(row("LOC").sum::<u64>(), 0);
    assert_eq!(row("HRE").sum::<u64>(), 0);
    assert!(row("HYP").sum::<u64>() > 0);
    Ok(())
}

/// F7.
fn the_bus_is_in_acpi(case: &Case) -> Outcome {
    let guest = survey::of(case);
    assert!(guest.all("acpi").iter().any(|device| device.eq_ignore_ascii_case("VMBUS:00")));
    Ok(())
}

/// Linux wants PCI of every PC that EFI has not started; the second generation of Hyper-V has none either.
const NO_PCI: &str = "PCI: Fatal: No config space access function found";

/// F6, F85.
fn the_kernel_has_nothing_to_complain_of(case: &Case) -> Outcome {
    let guest = survey::of(case);
    let complaints = guest.all("complaint").into_iter();
    let complaints: Vec<_> = complaints.filter(|line| !line.ends_with(NO_PCI)).collect();
    assert_eq!(complaints, [""; 0]);
    assert_eq!(guest.all("trouble"), [""; 0]);
    Ok(())
}

fn one_vcpu_is_enough(case: &Case) -> Outcome {
    works_with(case, 1)
}

fn two_vcpus_work(case: &Case) -> Outcome {
    works_with(case, 2)
}

/// F9: as BUSWAY_CPUS says; 64 of them take long in an emulated host.
fn as_many_vcpus_as_asked_for_work(case: &Case) -> Outcome {
    let Some(cpus) = number("BUSWAY_CPUS") else {
        return Err(Skip("it takes long: BUSWAY_CPUS=64 says how many".to_owned()));
    };
    works_with(case, cpus)
}

fn works_with(case: &Case, cpus: u32) -> Outcome {
    let disk = case.disk(4);
    // hv_storvsc makes a queue for each CPU, and each as long as all of its channels together.
    let memory = format!("{}M", 512 + 16 * cpus);
    let guest = case.guest().cpus(cpus).flag("--memory").flag(memory).disk(&disk).run(
        "fact cpus $(nproc)
        fact clocksource $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)
        fact timers \"$(interrupts HVS)\"
        fact sha256 $(sum $(disk 0))",
    );
    assert_eq!(guest.number("cpus"), u64::from(cpus));
    assert_eq!(guest.fact("clocksource"), "hyperv_clocksource_tsc_page");
    assert_eq!(guest.fact("timers").split_whitespace().count(), cpus as usize);
    assert_eq!(guest.fact("sha256"), disk.sha256());
    Ok(())
}

/// Behind the hole below 4 GiB, where a guest takes its pages from first.
fn memory_above_four_gib_is_reached(case: &Case) -> Outcome {
    let disk = case.disk(8);
    let guest = case.guest().flag("--memory").flag("5G").disk(&disk).run(
        "fact normal $(sed -n '/Normal/,$ s/ *present *//p' /proc/zoneinfo | head -n 1)
        fact sha256 $(sum $(disk 0))",
    );
    assert!(guest.number("normal") >= 1 << 30 >> 12, "pages");
    assert_eq!(guest.fact("sha256"), disk.sha256());
    Ok(())
}
