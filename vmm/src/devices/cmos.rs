// SPDX-License-Identifier: MIT OR Apache-2.0

//! The battery-backed clock (MC146818), showing the host's time in UTC.
//!
//! A guest reads it once, at boot, to know the date. It does not tick by itself, has no alarm and
//! forgets what is written but for the index.

use std::time::{SystemTime, UNIX_EPOCH};

/// The index port; bit 7 would mask NMIs.
const INDEX: u16 = 0x70;

const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_D: u8 = 0x0d;
const CENTURY: u8 = 0x32;

/// 32768 Hz time base; no update in progress.
const STATUS_A_RUNNING: u8 = 0x26;
/// 24 hours, BCD.
const STATUS_B_24H: u8 = 1 << 1;
/// The battery is good.
const STATUS_D_VALID: u8 = 1 << 7;

/// The clock.
#[derive(Debug, Default)]
pub struct Cmos {
    index: u8,
}

impl Cmos {
    /// Reads a port, 0x70 or 0x71.
    pub fn read(&mut self, port: u16) -> u8 {
        if port == INDEX {
            return 0xff;
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        register(self.index, &Date::from_unix(since_epoch.as_secs()))
    }

    /// Writes a port.
    pub fn write(&mut self, port: u16, value: u8) {
        if port == INDEX {
            self.index = value & 0x7f;
        }
    }
}

fn register(index: u8, date: &Date) -> u8 {
    match index {
        0 => bcd(date.second),
        2 => bcd(date.minute),
        4 => bcd(date.hour),
        6 => bcd(date.weekday),
        7 => bcd(date.day),
        8 => bcd(date.month),
        9 => bcd(date.year % 100),
        CENTURY => bcd(date.year / 100),
        STATUS_A => STATUS_A_RUNNING,
        STATUS_B => STATUS_B_24H,
        STATUS_D => STATUS_D_VALID,
        _ => 0,
    }
}

/// Two decimal digits.
fn bcd(value: u64) -> u8 {
    (value / 10 % 10 * 16 + value % 10) as u8
}

/// A moment in UTC; each field as the clock shows it.
#[derive(Debug, PartialEq, Eq)]
struct Date {
    year: u64,
    month: u64,
    day: u64,
    /// 1 is Sunday.
    weekday: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Date {
    /// The proleptic Gregorian date of a Unix time, counted in years that begin on 1 March, so
    /// that the leap day is a year's last.
    fn from_unix(seconds: u64) -> Self {
        const DAYS_BEFORE_EPOCH: u64 = 719_468; // from 0000-03-01
        const ERA: u64 = 146_097; // days in 400 years
        let days = seconds / 86_400 + DAYS_BEFORE_EPOCH;
        let day_of_era = days % ERA;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Self {
            year: days / ERA * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
            weekday: (seconds / 86_400 + 4) % 7 + 1,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(year: u64, month: u64, day: u64, weekday: u64, time: [u64; 3]) -> Date {
        let [hour, minute, second] = time;
        Date { year, month, day, weekday, hour, minute, second }
    }

    /// Values from `date -u -d @SECONDS`.
    #[test]
    fn dates() {
        assert_eq!(Date::from_unix(0), date(1970, 1, 1, 5, [0, 0, 0]));
        assert_eq!(Date::from_unix(951_782_399), date(2000, 2, 28, 2, [23, 59, 59]));
        assert_eq!(Date::from_unix(951_868_799), date(2000, 2, 29, 3, [23, 59, 59]));
        assert_eq!(Date::from_unix(1_735_689_599), date(2024, 12, 31, 3, [23, 59, 59]));
        assert_eq!(Date::from_unix(4_107_542_400), date(2100, 3, 1, 2, [0, 0, 0]));
    }

    #[test]
    fn the_guest_reads_bcd() {
        let date = Date::from_unix(951_868_799);
        let read = |index| register(index, &date);
        assert_eq!([0, 2, 4, 6, 7, 8, 9, 0x32].map(read), [0x59, 0x59, 0x23, 3, 0x29, 2, 0, 0x20]);
        assert_eq!(read(0x0a) & 0x80, 0, "never in the middle of an update");
    }

    #[test]
    fn the_index_port_selects() {
        let mut cmos = Cmos::default();
        cmos.write(0x70, 0x80 | 0x0d);
        assert_eq!(cmos.read(0x71), 0x80);
        cmos.write(0x71, 0);
        assert_eq!(cmos.read(0x71), 0x80, "writes are forgotten");
    }
}
