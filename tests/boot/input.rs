// SPDX-License-Identifier: MIT OR Apache-2.0

//! Keyboard and mouse, as the guest's input layer sees them.

use crate::case::{Case, Outcome, tests};

tests![keys_and_pointer_arrive];

/// F70: a line is typed at the guest's own console, and the pointer moves where it is put.
fn keys_and_pointer_arrive(case: &Case) -> Outcome {
    case.kernel.has_mouse()?;
    let control = case.control();
    let guest = case.guest().flag("--control").flag(control.path());
    let mut guest = guest.flag("--keyboard").flag("--mouse").start(
        "modprobe evdev
        for turn in $(seq 100); do
            mouse=$(grep -l Microsoft /sys/class/input/event*/device/name | head -n 1) && break
            usleep 100000
        done
        event=/dev/input/$(basename $(dirname $(dirname $mouse)))
        { read line </dev/tty1; echo typed=$line; } &
        # Records of 24 bytes: two of time, then type, code and value.
        {
            dd if=$event bs=24 count=4 2>/dev/null | hexdump -v -e '12/2 \"%u \" \"\\n\"' >/tmp/records
            while read a b c d e f g h type code value rest; do
                echo record=$type $code $value
            done </tmp/records
            echo moved=yes
        } &
        echo name=$(cat $mouse)
        usleep 500000
        echo ready
        sleep 1000",
    );
    guest.wait_for("ready");
    control.ask(&["type", "Hello, guest! 100%\n"]);
    assert_eq!(guest.wait_for("typed="), "Hello, guest! 100%");
    control.ask(&["point", "4660", "22136", "--buttons", "1"]);
    guest.wait_for("moved=");
    assert!(control.refused(&["type", "ü"]).contains("no key"));
    control.ask(&["shutdown"]);
    let report = guest.end();
    let records = report.all("record").join("\n");
    // EV_KEY BTN_LEFT, EV_ABS ABS_X and ABS_Y.
    for record in ["1 272 1", "3 0 4660", "3 1 22136"] {
        assert!(records.contains(record), "{records}");
    }
    Ok(())
}
