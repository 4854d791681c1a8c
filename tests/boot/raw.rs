// SPDX-License-Identifier: MIT OR Apache-2.0

//! Raw channels, and the guest's drivers in user space.

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType, connect, send, socket};

use crate::case::{Case, Outcome, Skip, tests};
use crate::guest::script_status;

tests![a_driver_in_user_space_takes_a_raw_channel];

const GUID: &str = "11223344-5566-4000-8000-99aabbccddee";

/// F76, C8: uio_hv_generic binds to a class that nobody knows, maps its rings, and is interrupted by a packet of
/// the program's behind the channel.
fn a_driver_in_user_space_takes_a_raw_channel(case: &Case) -> Outcome {
    let path = case.path("raw");
    let raw = format!("{GUID},monitor,unix={}", path.display());
    let mut guest = case.guest().flag("--raw").flag(raw).start(&format!(
        "modprobe uio_hv_generic || {{ echo maps=none; sleep 1000; }}
        echo {GUID} >/sys/bus/vmbus/drivers/uio_hv_generic/new_id
        for turn in $(seq 100); do
            [ -c /dev/uio0 ] && break
            usleep 100000
        done
        fact maps $(cat /sys/class/uio/uio0/maps/*/name)
        exec 3<>/dev/uio0
        # Interrupts on, then the number of those that came.
        printf '\\1\\0\\0\\0' >&3
        echo open=yes
        fact interrupts $(dd bs=4 count=1 <&3 2>/dev/null | hexdump -v -e '1/4 \"%u\"')
        exec 3<&-
        dmesg -r | grep -v PCI: | sed -n 's/^<[0-3]>/complaint=/p'",
    ));
    let maps = guest.wait_for("maps=");
    if maps == "none" {
        return Err(Skip("uio_hv_generic is not there".to_owned()));
    }
    for map in ["txrx_rings", "int_page", "monitor_page"] {
        assert!(maps.contains(map), "{maps}");
    }
    guest.wait_for("open=");
    let program = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    connect(&program, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    // A frame: in band (6), no flags, no header, transaction 9; then the payload.
    let frame = [&[6, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0][..], b"packet!!"].concat();
    send(&program, &frame, SendFlags::empty()).unwrap();
    assert_eq!(guest.wait_for("interrupts="), "1");
    let report = guest.end();
    assert_eq!((script_status(&report), report.status), (Some(0), 0));
    assert!(report.all("complaint").is_empty(), "{:?}", report.all("complaint"));
    Ok(())
}
