// SPDX-License-Identifier: MIT OR Apache-2.0

//! Stock guests on hosts of every age: `--vmbus-version` and its like, seen from both ends.

use crate::capture::decode;
use crate::case::{Case, Outcome, Skip, tests};
use crate::network::script;
use crate::tap::Tap;

tests![
    a_host_of_version_6_0,
    a_host_of_version_5_3,
    a_host_of_version_5_2,
    a_host_of_version_5_1,
    a_host_of_version_5_0,
    a_host_of_version_4_1,
    a_host_of_version_4_0,
    a_host_of_version_3_0,
    a_host_of_version_2_4,
    a_host_of_version_1_1,
    a_host_of_version_0_13,
];

// Each guest covers a version of the bus, one of storage, one of network and one of integration components.
// Between them, all that Linux 6.1 speaks is spoken; and all that 5.10 does, which takes the last two hosts.

fn a_host_of_version_6_0(case: &Case) -> Outcome {
    falls_back(case, (6, 0), (6, 2), "6.1", "4.0")
}

fn a_host_of_version_5_3(case: &Case) -> Outcome {
    falls_back(case, (5, 3), (6, 2), "6.0", "3.2")
}

fn a_host_of_version_5_2(case: &Case) -> Outcome {
    falls_back(case, (5, 2), (6, 0), "5.0", "3.1")
}

fn a_host_of_version_5_1(case: &Case) -> Outcome {
    falls_back(case, (5, 1), (6, 0), "6.1", "3.0")
}

fn a_host_of_version_5_0(case: &Case) -> Outcome {
    falls_back(case, (5, 0), (6, 0), "4.0", "4.0")
}

fn a_host_of_version_4_1(case: &Case) -> Outcome {
    falls_back(case, (4, 1), (6, 2), "2", "3.2")
}

fn a_host_of_version_4_0(case: &Case) -> Outcome {
    falls_back(case, (4, 0), (6, 0), "1", "3.1")
}

fn a_host_of_version_3_0(case: &Case) -> Outcome {
    falls_back(case, (3, 0), (5, 1), "5.0", "3.0")
}

fn a_host_of_version_2_4(case: &Case) -> Outcome {
    falls_back(case, (2, 4), (5, 1), "2", "1.0")
}

fn a_host_of_version_1_1(case: &Case) -> Outcome {
    falls_back(case, (1, 1), (4, 2), "2", "1.0")
}

/// It signals by the interrupt page.
fn a_host_of_version_0_13(case: &Case) -> Outcome {
    falls_back(case, (0, 13), (2, 0), "1", "1.0")
}

/// The guest asks for its newest versions first, is refused, and works with the host's: it reads its disk
/// and exchanges bytes with the host, before and after its card was set up anew.
fn falls_back(
    case: &Case,
    bus: (u32, u32),
    storage: (u32, u32),
    network: &str,
    integration: &str,
) -> Outcome {
    if !case.kernel.speaks(bus.0 << 16 | bus.1) {
        return Err(Skip(format!("this kernel does not speak VMBus {}.{}", bus.0, bus.1)));
    }
    if !case.kernel.speaks_storage(storage) {
        return Err(Skip(format!(
            "this kernel does not speak storage {}.{}",
            storage.0, storage.1
        )));
    }
    let has_subchannels = storage >= (5, 1);
    let [bus, storage] = [bus, storage].map(|(major, minor)| format!("{major}.{minor}"));
    let tap = Tap::new(true).map_err(Skip)?;
    let (disk, file) = (case.disk(4), case.path("pcapng"));
    let guest = case.guest().cpus(2).disk(&disk).flag("--capture").flag(&file);
    let guest = guest.flag("--net").flag(format!("tap={},queues=2", tap.name()));
    // The driver of vss complains of hosts before 3.0 (`drivers/hv/hv_snapshot.c`).
    let guest = guest.flag("--integration").flag("shutdown,heartbeat,time,kvp");
    let guest = guest.flag("--integration-version").flag(integration);
    let guest = guest.flag("--balloon").flag("--balloon-version").flag("1.0");
    let guest = guest.flag("--vmbus-version").flag(&bus).flag("--storage-version").flag(&storage);
    let guest = guest.flag("--network-version").flag(network).run(&script(
        &tap,
        "dmesg | sed -n 's/.*Vmbus version:/vmbus=/p'
        fact disk $(sum $(disk 0))
        fact disk.channels $(ls $(bound_to hv_storvsc)/channels | wc -l)
        traffic() {
            ping -c 2 -A HOST
            push PUSH length=100k
            pull PULL length=100k
            echoes ECHO
        }
        up GUEST
        traffic
        fact card.channels $(ls $(bound_to hv_netvsc)/channels | wc -l)
        ip link set $card mtu 1501 2>/dev/null && fact long yes || fact long no
        traffic
        dmesg -r | grep -v -e PCI: -e 'mtu greater' | sed -n 's/^<[0-3]>/complaint=/p'",
    ));
    assert_eq!(guest.fact("vmbus"), bus);
    assert_eq!(guest.fact("disk"), disk.sha256());
    assert_eq!(guest.number("disk.channels"), if has_subchannels { 2 } else { 1 });
    // Since 5.0, and since 2 (`drivers/net/hyperv/netvsc_drv.c`).
    let is_old = ["1", "2", "4.0"].contains(&network);
    assert_eq!(guest.number("card.channels"), if is_old { 1 } else { 2 });
    assert_eq!(guest.fact("long"), if network == "1" { "no" } else { "yes" });
    assert_eq!(guest.all("complaint"), [""; 0]);

    let records = decode(case, &file).records;
    let last = |kind: &str, is_it: &dyn Fn(&str) -> bool| {
        // A packet's descriptor comes before what it says.
        let of_kind = records.iter().rev().filter(|record| record["kind"] == kind);
        let mut said = of_kind.filter_map(|record| record["text"].as_str()?.rsplit(" | ").next());
        said.find(|said| is_it(said)).unwrap_or_default()
    };
    let starts = |kind, start: &str| last(kind, &|said| said.starts_with(start));
    let contact = starts("message", "INITIATE_CONTACT");
    assert_eq!(contact.split(' ').nth(1), Some(&*format!("version={bus}")), "{contact}");
    let response = starts("message", "VERSION_RESPONSE");
    assert!(response.starts_with("VERSION_RESPONSE supported"), "{response}");
    let query = starts("packet", "QUERY_PROTOCOL_VERSION");
    assert_eq!(query, format!("QUERY_PROTOCOL_VERSION {storage}"));
    let answer = last("packet", &|said| said.ends_with(" to QUERY_PROTOCOL_VERSION"));
    assert_eq!(answer, "COMPLETE_IO SUCCESS to QUERY_PROTOCOL_VERSION");
    let answer = starts("packet", "INIT_COMPLETE");
    assert_eq!(answer, format!("INIT_COMPLETE {network} SUCCESS"));
    let agreed = |component: &str| {
        let said = records.iter().filter(|record| record["device"] == component);
        let mut said = said.filter_map(|record| record["text"].as_str()?.rsplit(" | ").next());
        let choice = said.find(|said| said.contains("NEGOTIATE") && said.contains("answer"));
        choice.and_then(|choice| choice.rsplit(": ").next()).unwrap_or_default()
    };
    let framework = if integration == "1.0" { "1.0" } else { "3.0" };
    let newest = components(integration);
    for (component, version) in ["shutdown", "heartbeat", "timesync"].into_iter().zip(newest) {
        assert_eq!(agreed(component), format!("{version} (framework {framework})"), "{component}");
    }
    let heard = |start: &str| !starts("packet", start).is_empty();
    assert!(heard(&format!("HEARTBEAT {} answer", newest[1])));
    assert!(heard(&format!("TIME_SYNC {} answer", newest[2])));
    let asked = last("packet", &|said| said.starts_with("VERSION_REQUEST"));
    assert!(asked.ends_with(" 1.0"), "{asked}");
    assert!(heard("CAPABILITIES_RESPONSE"));
    Ok(())
}

/// What shutdown, heartbeat and time agree on with a host of this version.
fn components(newest: &str) -> [&'static str; 3] {
    match newest {
        "1.0" => ["1.0", "1.0", "1.0"],
        "3.0" => ["3.0", "3.0", "3.0"],
        "3.1" => ["3.1", "3.0", "3.0"],
        "3.2" => ["3.2", "3.0", "3.0"],
        _ => ["3.2", "3.0", "4.0"],
    }
}
