// SPDX-License-Identifier: MIT OR Apache-2.0

//! The screen, as the guest paints it and the host shows it.

use std::fs::File;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use busway_guest_agent::Fingerprint;
use busway_harness::{Control, Running};

use crate::case::{Case, Outcome, Skip, tests};
use crate::vnc::Vnc;

tests![
    the_screen_shows_the_guests_console,
    the_last_picture_outlives_the_guest,
    a_guest_is_worked_with_over_vnc,
];

/// Brings the text console to the screen, without a cursor that blinks. The driver of the newest kernels is
/// hyperv_drm, which sets the console up after it is loaded.
pub(crate) const CONSOLE: &str = r#"
    modprobe hyperv_fb 2>/dev/null || modprobe hyperv_drm 2>/dev/null || true
    for turn in $(seq 100); do
        [ -e /dev/fb0 ] && break
        usleep 100000
    done
    [ -e /dev/fb0 ] || { echo screen=none; sleep 1000; }
    echo screen=$(cat /sys/class/graphics/fb0/name) $(cat /sys/class/graphics/fb0/virtual_size)
    printf '\033[?25l\033[2J\033[H' >/dev/tty1
    usleep 300000
"#;

/// What the picture in a PNG file looks like: its width, height and fingerprint.
fn look(file: &Path) -> (u32, u32, Fingerprint) {
    let mut reader =
        png::Decoder::new(BufReader::new(File::open(file).unwrap())).read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut rgb).unwrap();
    let pixels = rgb.chunks_exact(3).map(|pixel| [pixel[2], pixel[1], pixel[0]]);
    (frame.width, frame.height, Fingerprint::of(pixels))
}

/// Takes screenshots until one is what the guest reads from its own framebuffer: its driver copies that to the
/// screen some time after it was painted.
fn wait_until_shown(control: &Control, file: &Path, wanted: &str, guest: &Running) {
    loop {
        control.ask(&["screenshot", file.to_str().unwrap()]);
        let (_, _, print) = look(file);
        if format!("{:016x} {}", print.hash, print.lit) == wanted {
            return;
        }
        guest.has_time();
        thread::sleep(Duration::from_millis(300));
    }
}

/// Skips on a kernel that has no driver for it.
fn size_of_screen(guest: &mut Running) -> Result<String, Skip> {
    let screen = guest.wait_for("screen=");
    match screen.rsplit_once(' ') {
        Some((_, size)) => Ok(size.to_owned()),
        None => Err(Skip("neither hyperv_fb nor hyperv_drm is there".to_owned())),
    }
}

/// F71: the screenshot is the guest's framebuffer, pixel for pixel, before and after something is written on it.
fn the_screen_shows_the_guests_console(case: &Case) -> Outcome {
    let control = case.control();
    let (file, last) = (case.path("shot"), case.path("last"));
    let display = format!("png={},size=1280x720", last.display());
    let guest = case.guest().flag("--control").flag(control.path()).flag("--keyboard");
    let mut guest = guest.flag("--display").flag(display).start(&format!(
        "{CONSOLE}
        echo empty=$(agent picture /dev/fb0)
        read line </dev/tty1
        echo typed=$line
        usleep 300000
        echo full=$(agent picture /dev/fb0)
        sleep 1000",
    ));
    assert_eq!(size_of_screen(&mut guest)?, "1280,720");
    let empty = guest.wait_for("empty=");
    wait_until_shown(&control, &file, &empty, &guest);
    let (width, height, _) = look(&file);
    assert_eq!((width, height), (1280, 720));
    // The terminal writes what is typed.
    control.ask(&["type", "A known string\n"]);
    assert_eq!(guest.wait_for("typed="), "A known string");
    let full = guest.wait_for("full=");
    let lit = |print: &str| print.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    // Twelve letters of some twenty pixels each, at the least.
    assert!(lit(&full) > lit(&empty) + 12 * 20, "{empty}, then {full}");
    wait_until_shown(&control, &file, &full, &guest);
    control.ask(&["shutdown"]);
    assert_eq!(guest.end().status, 0);
    Ok(())
}

/// What a guest showed when it ended is in the file; the largest size.
fn the_last_picture_outlives_the_guest(case: &Case) -> Outcome {
    let file = case.path("last");
    let display = format!("png={},size=1920x1080", file.display());
    let mut guest = case.guest().flag("--display").flag(display).start(&format!(
        "{CONSOLE}
        echo goodbye >/dev/tty1
        sleep 2
        echo last=$(agent picture /dev/fb0)",
    ));
    assert_eq!(size_of_screen(&mut guest)?, "1920,1080");
    let last = guest.wait_for("last=");
    assert_eq!(guest.end().status, 0);
    let (width, height, print) = look(&file);
    assert_eq!((width, height), (1920, 1080));
    assert_eq!(format!("{:016x} {}", print.hash, print.lit), last);
    Ok(())
}

/// What is typed over VNC is read by the guest, where the pointer is put it moves, and what it shows is seen; a
/// client that talks nonsense does not change that.
fn a_guest_is_worked_with_over_vnc(case: &Case) -> Outcome {
    case.kernel.has_mouse()?;
    let address: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let guest = case.guest().flag("--display").flag(format!("vnc={address},size=800x600"));
    let mut guest = guest.flag("--keyboard").flag("--mouse").start(&format!(
        "{CONSOLE}
        modprobe evdev
        mouse=$(grep -l Microsoft /sys/class/input/event*/device/name | head -n 1)
        event=/dev/input/$(basename $(dirname $(dirname $mouse)))
        (dd if=$event bs=24 count=4 2>/dev/null >/tmp/records; echo moved=$(hexdump -v -e '12/2 \"%u \"' /tmp/records)) &
        echo ready=yes
        read line </dev/tty1
        echo typed=$line
        usleep 300000
        echo full=$(agent picture /dev/fb0)
        read line </dev/tty1"
    ));
    assert_eq!(size_of_screen(&mut guest)?, "800,600");
    guest.wait_for("ready=");
    let mut vnc = Vnc::connect(address);
    assert_eq!(vnc.size, (800, 600));
    TcpStream::connect(address).unwrap().write_all(&[0xff; 4096]).unwrap();
    vnc.type_line("seen over vnc");
    assert_eq!(guest.wait_for("typed="), "seen over vnc");
    let full = guest.wait_for("full=");
    loop {
        let print = Fingerprint::of(vnc.picture().into_iter());
        if format!("{:016x} {}", print.hash, print.lit) == full {
            break;
        }
        guest.has_time();
        thread::sleep(Duration::from_millis(300));
    }
    vnc.point(799, 0, 1);
    let moved = guest.wait_for("moved=");
    // EV_ABS ABS_X at its end, then EV_KEY BTN_LEFT.
    for record in ["3 0 32767", "1 272 1"] {
        assert!(moved.contains(record), "{moved}");
    }
    vnc.type_line("");
    assert_eq!(guest.end().status, 0);
    Ok(())
}
