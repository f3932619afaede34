//! A moment as RFC 5322 §3.3 writes it, in UTC; Howard Hinnant's civil date arithmetic.

use std::fmt;

use crate::base::digits::{decimal, padded};
use crate::base::time::Wall;

const SECONDS_PER_DAY: u64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01: years that begin in March put the leap day last.
const DAYS_BEFORE_1970: u64 = 719_468;
const DAYS_PER_ERA: u64 = 146_097;

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];

/// Shows a [`Wall`] as `Sun, 22 Nov 2026 06:48:57 +0000`.
#[derive(Clone, Copy, Debug)]
pub struct MailDate(pub Wall);

impl MailDate {
    /// Appends it.
    pub fn append_to(self, out: &mut Vec<u8>) {
        let seconds = self.0.seconds();
        let (days, time) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
        let (year, month, day) = civil(days);
        out.extend_from_slice(name(&WEEKDAYS, days % 7).as_bytes());
        out.extend_from_slice(b", ");
        out.extend_from_slice(decimal(day).as_bytes());
        out.push(b' ');
        out.extend_from_slice(name(&MONTHS, month).as_bytes());
        out.push(b' ');
        out.extend_from_slice(decimal(year).as_bytes());
        for (before, number) in [(b' ', time / 3600), (b':', time / 60 % 60), (b':', time % 60)] {
            out.push(before);
            out.extend_from_slice(padded(number, 2).as_bytes());
        }
        out.extend_from_slice(b" +0000");
    }
}

impl fmt::Display for MailDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.append_to(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// Year, month counted from March as 0, and day of the month.
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let leap_days = day_of_era / 1460 + day_of_era / 146_096 - day_of_era / 36_524;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    // January and February belong to the year that began the March before.
    (era * 400 + year_of_era + u64::from(month >= 10), month, day)
}

fn name(names: &[&'static str], index: u64) -> &'static str {
    usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: u64, expected: &str) {
        assert_eq!(MailDate(Wall(seconds * 1_000_000_000)).to_string(), expected);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        check(0, "Thu, 1 Jan 1970 00:00:00 +0000");
        check(951_782_399, "Mon, 28 Feb 2000 23:59:59 +0000");
        check(951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000");
        check(951_868_800, "Wed, 1 Mar 2000 00:00:00 +0000");
        check(1_709_210_096, "Thu, 29 Feb 2024 12:34:56 +0000");
        check(1_735_689_599, "Tue, 31 Dec 2024 23:59:59 +0000");
        check(1_795_330_137, "Sun, 22 Nov 2026 06:48:57 +0000");
        check(4_107_542_400, "Mon, 1 Mar 2100 00:00:00 +0000");
    }

    /// Day after day by the rules a child learns, over four centuries and more.
    #[test]
    fn every_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..160_000 {
            let march_based = (month + 9) % 12;
            assert_eq!(civil(days), (year, march_based, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (day, month) = if day == length { (1, month + 1) } else { (day + 1, month) };
            (month, year) = if month == 13 { (1, year + 1) } else { (month, year) };
        }
    }
}
