// SPDX-License-Identifier: MIT OR Apache-2.0

//! VMBus as the guest's own hv_vmbus sees it.

use crate::case::{Case, Outcome, Skip, tests};
use crate::survey;

tests![
    the_newest_version_is_agreed_on,
    drivers_bind_to_their_devices,
    each_device_and_channel_can_be_read,
    the_bus_takes_less_time_than_the_kernel,
    a_guest_of_version_5_3_works,
    a_guest_of_version_5_2_works,
    a_guest_of_version_4_1_works,
    a_guest_of_version_4_0_works,
    a_guest_of_version_3_0_works,
    a_guest_of_version_2_4_works,
    a_guest_of_version_1_1_works,
    a_guest_of_version_0_13_works,
    a_driver_comes_and_goes_twenty_times,
    a_device_is_unbound_and_bound_twenty_times,
    channels_move_to_other_cpus_under_load,
];

/// F5.
fn the_newest_version_is_agreed_on(case: &Case) -> Outcome {
    let guest = survey::of(case);
    assert_eq!(guest.fact("vmbus"), case.kernel.newest_vmbus());
    Ok(())
}

/// F6: with the drivers loaded, none of them is without its device.
fn drivers_bind_to_their_devices(case: &Case) -> Outcome {
    let guest = survey::of(case);
    for module in ["hv_vmbus", "hv_storvsc", "hv_netvsc", "hv_utils"] {
        assert!(guest.all("module").contains(&module), "{module} is not loaded");
    }
    let bound = guest.all("bound");
    assert!(!bound.is_empty());
    assert!(bound.iter().all(|line| !line.ends_with(":none")), "{bound:?}");
    assert!(bound.iter().any(|line| line.ends_with(":hv_storvsc")), "{bound:?}");
    Ok(())
}

/// F11, F12, F13.
fn each_device_and_channel_can_be_read(case: &Case) -> Outcome {
    let guest = survey::of(case);
    let devices = guest.all("device");
    let ids = guest.all("device_id");
    assert_eq!(ids.len(), devices.len());
    for (device, id) in devices.iter().zip(ids) {
        assert_eq!(id.trim_matches(['{', '}', ' ']), *device);
    }
    assert!(guest.all("state").iter().all(|state| *state == "3 "), "all are open");
    assert!(guest.all("vendor").iter().all(|vendor| *vendor == "0x1414 "));
    let classes = guest.all("class_id");
    assert!(classes.contains(&"{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f} "), "{classes:?}");
    assert!(guest.all("channel.cpu").iter().all(|cpu| cpu.parse::<u64>().unwrap() < 4));
    assert!(guest.number("interrupts.after") > guest.number("interrupts.before"));
    Ok(())
}

/// F10, as a ratio: with a lost message somewhere the guest would sit there for seconds or for ever.
fn the_bus_takes_less_time_than_the_kernel(case: &Case) -> Outcome {
    let guest = survey::of(case);
    let second = |key| guest.fact(key).parse::<f64>().unwrap();
    // A bus that is built in comes long before the drivers on it.
    let drivers = second("drivers.at").max(second("vmbus.at"));
    assert!(second("disk.at") - drivers < drivers);
    Ok(())
}

fn a_guest_of_version_5_3_works(case: &Case) -> Outcome {
    speaks(case, "5.3", 0x5_0003)
}

fn a_guest_of_version_5_2_works(case: &Case) -> Outcome {
    speaks(case, "5.2", 0x5_0002)
}

fn a_guest_of_version_4_1_works(case: &Case) -> Outcome {
    speaks(case, "4.1", 0x4_0001)
}

fn a_guest_of_version_4_0_works(case: &Case) -> Outcome {
    speaks(case, "4.0", 0x4_0000)
}

fn a_guest_of_version_3_0_works(case: &Case) -> Outcome {
    speaks(case, "3.0", 0x3_0000)
}

fn a_guest_of_version_2_4_works(case: &Case) -> Outcome {
    speaks(case, "2.4", 0x2_0004)
}

fn a_guest_of_version_1_1_works(case: &Case) -> Outcome {
    speaks(case, "1.1", 0x1_0001)
}

/// It signals by the interrupt page.
fn a_guest_of_version_0_13_works(case: &Case) -> Outcome {
    speaks(case, "0.13", 0xd)
}

/// F5: the guest may not speak anything newer, and its disk works all the same, before and after its
/// driver was away.
fn speaks(case: &Case, name: &str, number: u32) -> Outcome {
    if !case.kernel.speaks(number) {
        return Err(Skip(format!("this kernel does not speak VMBus {name}")));
    }
    let disk = case.disk(4);
    let word = format!("hv_vmbus.max_version={number:#x}");
    let guest = case.guest().cpus(2).disk(&disk).word(&word).run(
        "fact before $(sum $(disk 0))
        rmmod hv_storvsc
        modprobe hv_storvsc
        fact after $(sum $(disk 0))
        dmesg | sed -n 's/.*Vmbus version:/vmbus=/p'",
    );
    assert_eq!(guest.fact("vmbus"), name);
    assert_eq!(guest.fact("before"), disk.sha256());
    assert_eq!(guest.fact("after"), disk.sha256());
    Ok(())
}

/// F14, for the storage driver: the device keeps its channel's number and instance, the disk its contents.
fn a_driver_comes_and_goes_twenty_times(case: &Case) -> Outcome {
    let disk = case.disk(2);
    let guest = case.guest().cpus(2).disk(&disk).run(
        "for turn in $(seq 20); do
            fact sha256 $(sum $(disk 0))
            fact device $(basename $(bound_to hv_storvsc)):$(cat $(bound_to hv_storvsc)/id)
            rmmod hv_storvsc
            modprobe hv_storvsc
        done
        dmesg -r | sed -n 's/^<[0-3]>/complaint=/p'",
    );
    let devices = guest.all("device");
    assert_eq!(guest.all("sha256"), vec![disk.sha256(); 20]);
    assert_eq!(devices, vec![devices[0]; 20]);
    Ok(())
}

/// F15.
fn a_device_is_unbound_and_bound_twenty_times(case: &Case) -> Outcome {
    let disk = case.disk(2);
    let guest = case.guest().cpus(2).disk(&disk).run(
        "device=$(basename $(bound_to hv_storvsc))
        for turn in $(seq 20); do
            fact sha256 $(sum $(disk 0))
            echo $device >/sys/bus/vmbus/drivers/hv_storvsc/unbind
            [ -z \"$(bound_to hv_storvsc)\" ]
            echo $device >/sys/bus/vmbus/drivers/hv_storvsc/bind
        done",
    );
    assert_eq!(guest.all("sha256"), vec![disk.sha256(); 20]);
    Ok(())
}

/// F17: interrupts follow the channel, and none is lost on the way. Each move takes a MODIFY_CHANNEL.
fn channels_move_to_other_cpus_under_load(case: &Case) -> Outcome {
    let disk = case.empty_disk(64);
    let guest = case.guest().cpus(4).disk(&disk).run(
        "agent churn $(disk 0) threads=4 count=150 region=16m &
        churn=$!
        moves=0
        while kill -0 $churn 2>/dev/null; do
            for channel in $(bound_to hv_storvsc)/channels/*; do
                cpu=$(( ($(cat $channel/cpu) + 1) % 4 ))
                echo $cpu >$channel/cpu
                [ $(cat $channel/cpu) = $cpu ]
                moves=$((moves + 1))
            done
        done
        wait $churn
        fact moves $moves
        fact interrupts \"$(interrupts HYP)\"",
    );
    let interrupts = guest.fact("interrupts").split_whitespace();
    assert!(guest.number("moves") >= 4);
    assert!(interrupts.map(|count| count.parse::<u64>().unwrap()).all(|count| count > 0));
    Ok(())
}
