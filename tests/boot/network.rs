// SPDX-License-Identifier: MIT OR Apache-2.0

//! A synthetic network card on a TAP, as hv_netvsc sees it. Both ends check each byte that they get.

use std::env;
use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use busway_harness::Running;

use crate::case::{Case, Outcome, Skip, minutes, tcp_mib, tests, turns};
use crate::guest::{Guest, script_status};
use crate::tap::{ECHO, PULL, PUSH, Tap};

tests![
    an_address_is_had_and_traffic_arrives,
    very_many_bytes_pass_each_way,
    traffic_lasts,
    offloads_are_switched_on_and_off,
    large_frames_and_vlans_pass,
    channels_become_more_and_fewer_under_traffic,
    the_card_comes_and_goes_under_traffic,
    only_frames_that_are_wanted_come_in,
    the_cable_is_pulled_and_put_back,
    a_card_is_taken_under_traffic_and_comes_back,
    a_tap_of_somebody_elses_is_refused,
    a_user_without_a_tap_has_passt,
];

const SCRIPT: &str = include_str!("network.sh");

/// passt leaves its root for an empty one, which cannot be done in an initramfs: it gets one that is mounted.
const PASST: &str = "#!/bin/sh
exec unshare -m sh -c 'mount -o rbind / /mnt && cd /mnt && mount --move . / && exec chroot . PROGRAM --runas 65534:65534 \"$@\"' passt \"$@\"
";

/// Bytes of noise each way that are enough to see that a way works.
const FEW: u64 = 2 << 20;
/// And enough to fill every buffer many times.
const MANY: u64 = 32 << 20;

/// A guest with a card on `tap`, with more words for `--net` behind that.
fn guest<'a>(case: &'a Case, tap: &Tap, words: &str) -> Guest<'a> {
    case.guest().flag("--net").flag(format!("tap={}{words}", tap.name()))
}

/// `script` behind what the network tests share, with the words `HOST`, `GUEST`, `PUSH`, `PULL` and
/// `ECHO` replaced by addresses.
pub(crate) fn script(tap: &Tap, script: &str) -> String {
    let host = tap.host();
    let script = script
        .replace("PUSH", &format!("{host}:{PUSH}"))
        .replace("PULL", &format!("{host}:{PULL}"))
        .replace("ECHO", &format!("{host}:{ECHO}"))
        .replace("NUMBER", &tap.number().to_string())
        .replace("HOST", &host)
        .replace("GUEST", &tap.guest())
        .replace("FEW", &FEW.to_string())
        .replace("MANY", &MANY.to_string());
    format!("{SCRIPT}\n{script}")
}

/// F48, F49: DHCP, ping, TCP both ways, datagrams in one piece and in many.
fn an_address_is_had_and_traffic_arrives(case: &Case) -> Outcome {
    let mut tap = Tap::new(false).map_err(Skip)?;
    tap.serve_dhcp(&case.path("udhcpd"));
    let guest = guest(case, &tap, ",mac=02:00:00:00:00:07").cpus(2).run(&script(
        &tap,
        "# Some kernels have it built in.
        modprobe af_packet || true
        fact mac $(cat /sys/class/net/$card/address)
        ip link set $card up
        fact carrier $(cat /sys/class/net/$card/carrier)
        fact speed $(cat /sys/class/net/$card/speed)
        printf '#!/bin/sh\\n[ $1 != bound ] || ip addr add $ip/24 dev $interface\\n' >/tmp/bound
        chmod +x /tmp/bound
        udhcpc -i $card -n -q -s /tmp/bound
        ping -c 3 -A HOST
        push PUSH length=MANY
        pull PULL length=MANY
        echoes ECHO",
    ));
    assert_eq!(guest.fact("mac"), "02:00:00:00:00:07");
    assert_eq!((guest.fact("carrier"), guest.fact("speed")), ("1", "10000"));
    Ok(())
}

/// F49: no byte is wrong or missing. BUSWAY_TCP_MIB=1024 is as many as a stock guest should be seen with.
fn very_many_bytes_pass_each_way(case: &Case) -> Outcome {
    let tap = Tap::new(true).map_err(Skip)?;
    let mib = tcp_mib().unwrap_or(128);
    let words = format!("up GUEST; push PUSH length={mib}m; pull PULL length={mib}m");
    guest(case, &tap, ",queues=2").cpus(2).run(&script(&tap, &words));
    Ok(())
}

/// F49: one stream, a few and many, there and back at once, for as long as BUSWAY_MINUTES says.
fn traffic_lasts(case: &Case) -> Outcome {
    let Some(minutes) = minutes() else {
        return Err(Skip("it takes as long as BUSWAY_MINUTES says".to_owned()));
    };
    let tap = Tap::new(true).map_err(Skip)?;
    let words = "up GUEST
        end=$(( $(date +%s) + 60 * MINUTES ))
        rounds=0
        until [ $(date +%s) -ge $end ]; do
            for streams in 1 8 64; do
                for stream in $(seq $streams); do
                    push PUSH seed=$stream length=$(( 64 / streams ))m || touch /tmp/failed &
                    pull PULL seed=$stream length=$(( 64 / streams ))m || touch /tmp/failed &
                done
                echoes ECHO
                wait
                [ ! -e /tmp/failed ]
            done
            rounds=$((rounds + 1))
        done
        fact rounds $rounds
        fact complaints $(dmesg | grep -cE 'BUG:|WARNING: CPU|Call Trace|blocked for more|Oops')";
    let words = words.replace("MINUTES", &minutes.to_string());
    let guest = guest(case, &tap, ",queues=4").cpus(4).run(&script(&tap, &words));
    assert!(guest.number("rounds") > 0);
    assert_eq!(guest.fact("complaints"), "0");
    Ok(())
}

/// F49, F50: what the card does for its guest, and what the guest does when it does not. BUSWAY_TCP_MIB
/// says how much passes each way in each state on the way down.
fn offloads_are_switched_on_and_off(case: &Case) -> Outcome {
    let tap = Tap::new(false).map_err(Skip)?;
    let each = tcp_mib().map_or_else(|| "FEW".to_owned(), |mib| format!("{mib}m"));
    let words = "up GUEST
        on() { ethtool -k $card | sed -n \"s/^$1: //p\"; }
        fact checksum $(on tx-checksumming)
        fact segments $(on tcp-segmentation-offload)
        fact scatter $(on scatter-gather)
        traffic() {
            echo \"$2\"
            push PUSH length=$1
            pull PULL length=$1
            echoes ECHO
        }
        ethtool -K $card lro on
        fact coalesced $(on large-receive-offload)
        traffic EACH all
        for feature in lro tso gso tx rx gro sg; do
            ethtool -K $card $feature off
            traffic EACH \"without $feature\"
        done
        for feature in sg tx tso lro; do
            ethtool -K $card $feature on
            traffic FEW \"with $feature\"
        done";
    let guest = guest(case, &tap, "").cpus(2).program("ethtool")?;
    let guest = guest.run(&script(&tap, &words.replace("EACH", &each)));
    for feature in ["checksum", "segments", "scatter", "coalesced"] {
        assert!(guest.fact(feature).starts_with("on"), "{feature}={}", guest.fact(feature));
    }
    Ok(())
}

/// F48, F55.
fn large_frames_and_vlans_pass(case: &Case) -> Outcome {
    let tap = Tap::new(false).map_err(Skip)?;
    tap.ip(&["link", "set", tap.name(), "mtu", "9000"]);
    let (tagged, number) = (format!("{}.5", tap.name()), tap.number());
    tap.ip(&["link", "add", "link", tap.name(), "name", &tagged, "type", "vlan", "id", "5"]);
    tap.ip(&["addr", "add", &format!("10.78.{number}.1/24"), "dev", &tagged]);
    tap.ip(&["link", "set", &tagged, "up"]);
    let guest = guest(case, &tap, "").cpus(2).run(&script(
        &tap,
        "up GUEST
        ip link set $card mtu 9000
        fact mtu $(cat /sys/class/net/$card/mtu)
        ping -c 2 -A -s 8900 HOST
        push PUSH length=FEW
        pull PULL length=FEW
        echoes ECHO
        ip link set $card mtu 9001 || true
        fact most $(cat /sys/class/net/$card/mtu)
        modprobe 8021q
        ip link add link $card name tagged type vlan id 5
        ip addr add 10.78.NUMBER.2/24 dev tagged
        ip link set tagged up
        ping -c 2 -A 10.78.NUMBER.1
        push 10.78.NUMBER.1:7001 length=FEW
        pull 10.78.NUMBER.1:7002 length=FEW
        echoes 10.78.NUMBER.1:7003
        ping -c 2 -A -s 8900 10.78.NUMBER.1
        fact tagged $(cat /sys/class/net/tagged/statistics/rx_packets)",
    ));
    assert_eq!((guest.fact("mtu"), guest.fact("most")), ("9000", "9000"));
    // Segments may have been coalesced, to 64 KiB.
    assert!(guest.number("tagged") > FEW / 65536);
    Ok(())
}

/// F51, F52, F53: frames are spread as the guest says, over as many channels as it has. F59: more small ones
/// than its rings take lose themselves and nothing else. BUSWAY_TURNS says how often, and how many thousands.
fn channels_become_more_and_fewer_under_traffic(case: &Case) -> Outcome {
    let tap = Tap::new(true).map_err(Skip)?;
    let words = "up GUEST
        ping -c 1 HOST
        fact channels $(ethtool -l $card | sed -n 's/^Combined:[[:space:]]*//p' | tail -n 1)
        flows() {
            for flow in $(seq 16); do pull PULL length=200k & done
            wait
        }
        received() { ethtool -S $card | sed -n \"s/^ *rx_queue_$1_packets: //p\"; }
        flows
        for queue in 0 1 2 3; do fact spread $(received $queue); done
        ethtool -X $card equal 2
        before=$(received 3)
        flows
        fact beyond $(( $(received 3) - before ))
        ethtool -x $card >/dev/null
        ethtool -X $card default
        before=$(relids)
        for turn in $(seq TURNS); do
            count=$(echo 1 4 2 3 | cut -d ' ' -f $(( (turn - 1) % 4 + 1 )))
            pull PULL length=LENGTH &
            usleep 200000
            ethtool -L $card combined $count
            wait $!
            push PUSH length=FEW
            fact now $(ls /sys/class/net/$card/queues | grep -c rx)
        done
        ethtool -L $card combined 4
        fact same $(same \"$before\")
        ethtool -G $card rx 512 tx 64
        pull PULL length=FEW
        push PUSH length=FEW
        for flow in 1 2 3 4; do agent flood HOST:9 count=TURNS000 size=1 & done
        wait
        ping -c 3 -A HOST
        echoes ECHO
        fact full $(ethtool -S $card | sed -n 's/^ *\\(stop\\|wake\\)_queue: //p')";
    let (count, length) = turns().map_or((4, "MANY"), |turns| (turns, "FEW"));
    let words = words.replace("TURNS", &count.to_string()).replace("LENGTH", length);
    let guest = guest(case, &tap, ",queues=4").cpus(4).program("ethtool")?;
    let guest = guest.run(&script(&tap, &words));
    assert_eq!(guest.fact("channels"), "4");
    let spread = guest.all("spread");
    assert!(spread.iter().all(|packets| packets.parse::<u64>().unwrap() > 0), "{spread:?}");
    assert_eq!(guest.fact("beyond"), "0");
    assert_eq!(guest.all("now").len(), count as usize);
    assert_eq!(guest.fact("same"), "yes");
    Ok(())
}

/// F14, F53, F60: up and down, in and out, and no relid is lost on the way. BUSWAY_TURNS says how often.
fn the_card_comes_and_goes_under_traffic(case: &Case) -> Outcome {
    let tap = Tap::new(true).map_err(Skip)?;
    let words = "up GUEST
        # The second channel comes by itself.
        until [ $(ls -d $(bound_to hv_netvsc)/channels/* | wc -l) = 2 ]; do usleep 50000; done
        before=$(relids)
        ping -c 1 HOST
        ping -A HOST >/dev/null 2>&1 &
        agent pull PULL length=100m >/dev/null 2>&1 &
        for turn in $(seq TURNS); do
            ip link set $card down
            ip link set $card up
        done
        push PUSH length=FEW
        for turn in $(seq TURNS); do
            # It is in use for a moment after it has come.
            until rmmod hv_netvsc 2>/dev/null; do usleep 50000; done
            modprobe hv_netvsc
            until [ -e /sys/class/net/$card ]; do usleep 10000; done
            up GUEST
        done
        push PUSH length=FEW
        pull PULL length=FEW
        killall ping agent || true
        fact same $(same \"$before\")";
    let turns = turns().unwrap_or(50).to_string();
    let guest = guest(case, &tap, ",queues=2").cpus(2);
    let guest = guest.run(&script(&tap, &words.replace("TURNS", &turns)));
    assert_eq!(guest.fact("same"), "yes");
    Ok(())
}

/// F56, F57: the host sends nine frames to somebody else for each that is the guest's, and few to a group.
/// What is the guest's changes with its address. A packet socket, as tcpdump has one, sees the same as the
/// card's statistics.
///
/// What is sent to a group comes in whoever has joined it: the driver asks for all of them as soon as it has
/// joined one, which a kernel does by itself (`drivers/net/hyperv/rndis_filter.c`, `rndis_set_multicast`).
fn only_frames_that_are_wanted_come_in(case: &Case) -> Outcome {
    let tap = Tap::new(false).map_err(Skip)?;
    let others = format!("10.77.{}.99", tap.number());
    tap.know(&others, "02:00:00:00:00:99");
    let group = format!("239.77.{}.7", tap.number());
    tap.ip(&["route", "add", &group, "dev", tap.name()]);
    let (own, others, group) =
        (format!("{}:9", tap.guest()), format!("{others}:9"), format!("{group}:9"));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let sender = thread::spawn(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for turn in 0.. {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            // Nobody listens, and hearing so is no error here.
            (0..9).for_each(|_| drop(socket.send_to(b"others", &others)));
            let _ = socket.send_to(b"own", &own);
            if turn % 5 == 0 {
                let _ = socket.send_to(b"group", &group);
            }
            thread::sleep(Duration::from_millis(10));
        }
    });
    let guest = guest(case, &tap, "").run(&script(
        &tap,
        "up GUEST
        ping -c 2 -A HOST
        frames() { cat /sys/class/net/$card/statistics/rx_packets; }
        own() { sed -n 's/^Udp: [0-9]* \\([0-9]*\\).*/\\1/p' /proc/net/snmp; }
        # A hundred times the frames that come in for each that comes to the guest itself, of 30 or more.
        hundredfold() {
            frames=$(frames)
            own=$(own)
            while [ $(own) -lt $(( own + 30 )) ]; do usleep 50000; done
            echo $(( ($(frames) - frames) * 100 / ($(own) - own) ))
        }
        modprobe af_packet || true
        # To whom they are that a packet socket gets while 30 come to the guest itself.
        seen() { agent watch $(cat /sys/class/net/$card/address) count=30; }
        fact directed $(hundredfold)
        fact seen $(seen)
        ip link set $card promisc on
        fact all $(hundredfold)
        fact seen $(seen)
        ip link set $card promisc off
        fact again $(hundredfold)
        fact seen $(seen)
        ip link set $card down
        ip link set $card address 02:00:00:00:00:42
        ip link set $card up
        ping -c 3 -A HOST
        fact address $(cat /sys/class/net/$card/address)
        fact elsewhere $(hundredfold)
        fact seen $(seen)",
    ));
    stop.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    assert_eq!(guest.fact("address"), "02:00:00:00:00:42");
    for name in ["directed", "again", "elsewhere"] {
        assert!(guest.number(name) < 300, "{name}={}", guest.number(name));
    }
    assert!(guest.number("all") > 600, "all={}", guest.number("all"));
    let group = format!("01:00:5e:4d:{:02x}:07", tap.number());
    let others = guest.all("seen").into_iter().map(|seen| {
        assert!(seen.contains(&group), "{seen}");
        seen.contains("02:00:00:00:00:99")
    });
    assert_eq!(Vec::from_iter(others), [false, true, false, false]);
    Ok(())
}

/// F55: what becomes of the cable is heard, and is the same in the machine's next life.
fn the_cable_is_pulled_and_put_back(case: &Case) -> Outcome {
    let (tap, control) = (Tap::new(false).map_err(Skip)?, case.control());
    let name = format!("tap={}", tap.name());
    let link = |state| drop(control.ask(&["link", &name, state]));
    let guest = guest(case, &tap, ",mac=02:00:00:00:00:07").flag("--control").flag(control.path());
    let mut guest = guest.start(&script(
        &tap,
        "up GUEST
        attribute() { cat /sys/class/net/$card/$1; }
        becomes() { until [ $(attribute carrier) = $1 ]; do usleep 50000; done; }
        first=$(attribute carrier)
        fact began $first
        if [ $first = 1 ]; then
            ping -c 1 HOST
            echo together
            becomes 0
            ! ping -c 1 -W 2 HOST
            echo apart
            becomes 1
            ping -c 3 -A HOST
            changes=$(attribute carrier_changes)
            echo again
            # The driver shows it as a cable that is out for a moment.
            until [ $(attribute carrier_changes) -ge $((changes + 2)) ]; do usleep 50000; done
            becomes 1
            echo elsewhere
            becomes 0
            reboot -f
            sleep 1000
        fi
        echo second
        becomes 1
        ping -c 3 -A HOST
        push PUSH length=FEW",
    ));
    guest.wait_for("together");
    link("down");
    guest.wait_for("apart");
    link("up");
    guest.wait_for("again");
    link("changed");
    guest.wait_for("elsewhere");
    link("down");
    guest.wait_for("second");
    let status = control.ask(&["status"]);
    let card = &status["done"]["cards"][0];
    assert_eq!((&card["mac"], &card["link_up"]), (&"02:00:00:00:00:07".into(), &false.into()));
    assert!(control.refused(&["link", "tap=none", "up"]).contains("02:00:00:00:00:07"));
    link("up");
    let report = guest.end();
    assert_eq!(report.all("began"), ["1", "0"]);
    assert_eq!((script_status(&report), report.status), (Some(0), 0));
    Ok(())
}

/// F60, by the host's hand: the guest lets go of a card that is rescinded while frames pass, and finds one
/// that is added, and is the one it was; under another relid if it has not released the last one yet.
fn a_card_is_taken_under_traffic_and_comes_back(case: &Case) -> Outcome {
    let (tap, control) = (Tap::new(false).map_err(Skip)?, case.control());
    let name = format!("tap={}", tap.name());
    let guest = guest(case, &tap, "").cpus(2).flag("--control").flag(control.path());
    let mut guest = guest.start(&script(
        &tap,
        "up GUEST
        push PUSH length=FEW
        before=$(relids)
        fact before $(cat /sys/class/net/$card/address)
        device=$(bound_to hv_netvsc)
        ping -A HOST >/dev/null 2>&1 &
        agent pull PULL length=100m >/dev/null 2>&1 &
        echo step=remove
        until [ ! -e $device ]; do usleep 50000; done
        killall ping agent || true
        echo step=add
        until card=$(ls /sys/class/net | grep eth); do usleep 50000; done
        up GUEST
        push PUSH length=FEW
        pull PULL length=FEW
        fact after $(cat /sys/class/net/$card/address)
        fact relids $(( $(echo $before | wc -w) - $(relids | wc -w) ))
        dmesg | grep -E 'BUG:|WARNING: CPU|Call Trace|blocked for more|Oops' && fact complaint yes || true",
    ));
    guest.wait_for("step=remove");
    control.ask(&["net", "remove", &name]);
    assert_eq!(control.ask(&["net", "list"])["done"]["cards"].as_array().unwrap().len(), 0);
    guest.wait_for("step=add");
    // The TAP is free once the host's end of the channel is closed, which the guest does not wait for.
    let added = loop {
        guest.has_time();
        let (status, line) = control.run(&["net", "add", &name]);
        if status == Some(0) {
            break line;
        }
        assert!(line["failed"].as_str().unwrap().contains("in use"), "{line}");
    };
    assert_eq!(added["done"]["cards"][0]["network"], *name, "{added}");
    let report = guest.end();
    assert_eq!((report.status, script_status(&report)), (0, Some(0)));
    assert_eq!(report.fact("before"), report.fact("after"));
    assert_eq!(report.fact("relids"), "0");
    assert!(report.all("complaint").is_empty());
    Ok(())
}

/// By one who is not root, on a host where everybody may open /dev/net/tun, and on one where root alone may.
fn a_tap_of_somebody_elses_is_refused(case: &Case) -> Outcome {
    const NOBODY: u32 = 65534;
    let tap = Tap::new(false).map_err(Skip)?;
    tap.give_to_root();
    let refused = |remedy: &str| {
        let mut command = Command::new("busway");
        command.args(["run", "--kernel"]).arg(case.kernel.vmlinuz());
        command.args(["--net", &format!("tap={}", tap.name())]).uid(NOBODY).gid(NOBODY);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains("--net") && said.contains(remedy), "{said}");
    };
    let device = "/dev/net/tun";
    let before = fs::metadata(device).unwrap().permissions();
    fs::set_permissions(device, Permissions::from_mode(0o666)).unwrap();
    refused("create it with `user $USER`, or run as root");
    fs::set_permissions(device, Permissions::from_mode(0o600)).unwrap();
    refused("chmod 0666 /dev/net/tun");
    fs::set_permissions(device, before).unwrap();
    Ok(())
}

/// The guest gets the host's own address by DHCP, and reaches the host at its gateway's. passt ends with
/// busway.
fn a_user_without_a_tap_has_passt(case: &Case) -> Outcome {
    // passt lends the guest the address of an interface that a default route leads to: this one's, or that of
    // another test's.
    let tap = Tap::new(false).map_err(Skip)?;
    let (gateway, metric) = (format!("10.77.{}.9", tap.number()), tap.number().to_string());
    tap.ip(&["route", "add", "default", "via", &gateway, "dev", tap.name(), "metric", &metric]);
    let programs = case.path("programs");
    fs::create_dir(&programs).unwrap();
    let program = programs.join("passt");
    let passt = env::current_dir().unwrap().join("passt");
    fs::write(&program, PASST.replace("PROGRAM", passt.to_str().unwrap())).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), env::var("PATH").unwrap());
    let guest = case.guest().flag("--net").flag("passt");
    let mut command = guest.command(&script(
        &tap,
        "modprobe af_packet || true
        ip link set $card up
        printf '%s\\n' '#!/bin/sh' '[ $1 = bound ] || exit 0' 'ip addr add $ip/24 dev $interface' \
            'ip route add default via $router' 'echo $router >/tmp/router' >/tmp/bound
        chmod +x /tmp/bound
        udhcpc -i $card -n -q -s /tmp/bound
        router=$(cat /tmp/router)
        fact router $router
        push $router:7001 length=FEW
        pull $router:7002 length=FEW",
    ));
    command.env("PATH", path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let serial = child.stdout.take().unwrap();
    let report = Running::attach(child, serial, case.deadline, case.listener()).end();
    assert_eq!((report.status, script_status(&report)), (0, Some(0)));
    assert!(report.fact("router").starts_with("10.77."));
    Ok(())
}
