//! Business days: which days people work, and where those days begin and end.
//!
//! Everything here is data and arithmetic. A time zone is looked up when the configuration is read, never while
//! a rule is applied.

use k8s_openapi::jiff::{
    Timestamp, ToSpan,
    civil::{Date, Weekday},
    tz::TimeZone,
};
use std::collections::BTreeSet;

/// Days that are looked at, at most, to find a business day; more than 27 years.
const MAX_DAYS: usize = 10_000;

/// Which days are business days, and where midnight is.
#[derive(Clone, Debug, PartialEq)]
pub struct Calendar {
    /// Days of the week on which nobody works.
    pub weekend: Vec<Weekday>,
    /// Further days on which nobody works.
    pub holidays: BTreeSet<Date>,
    /// Where days begin and end.
    pub time_zone: TimeZone,
}

impl Default for Calendar {
    /// Saturday and Sunday, no holidays, UTC.
    fn default() -> Self {
        Calendar {
            weekend: vec![Weekday::Saturday, Weekday::Sunday],
            holidays: BTreeSet::new(),
            time_zone: TimeZone::UTC,
        }
    }
}

impl Calendar {
    /// The day on which a moment falls.
    pub fn date(&self, at: Timestamp) -> Date {
        at.to_zoned(self.time_zone.clone()).date()
    }

    /// Whether people work on that day. In a calendar whose week is all weekend every day counts.
    pub fn is_business_day(&self, date: Date) -> bool {
        let works = |day: &Weekday| !self.weekend.contains(day);
        let some_day = Weekday::Sunday.cycle_forward().take(7).any(|day| works(&day));
        (works(&date.weekday()) || !some_day) && !self.holidays.contains(&date)
    }

    /// The same time of day, so many days of the calendar later. `None` beyond the end of time.
    pub fn after_days(&self, from: Timestamp, days: u8) -> Option<Timestamp> {
        let from = from.to_zoned(self.time_zone.clone());
        from.checked_add(i64::from(days).days()).ok().map(|at| at.timestamp())
    }

    /// The same time of day, so many business days later. `None` beyond the end of time.
    pub fn after_business_days(&self, from: Timestamp, days: u8) -> Option<Timestamp> {
        let from = from.to_zoned(self.time_zone.clone());
        let (mut date, mut left) = (from.date(), days);
        for _ in 0..MAX_DAYS {
            if left == 0 {
                let at = date.to_datetime(from.time()).to_zoned(self.time_zone.clone());
                return at.ok().map(|at| at.timestamp());
            }
            date = date.tomorrow().ok()?;
            if self.is_business_day(date) {
                left -= 1;
            }
        }
        None
    }

    /// The moment at which a day shows this hour. `None` beyond the end of time.
    pub fn at_hour(&self, date: Date, hour: i8) -> Option<Timestamp> {
        date.at(hour, 0, 0, 0).to_zoned(self.time_zone.clone()).ok().map(|at| at.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn business_days_leave_out_weekends_and_holidays() {
        let mut calendar = Calendar::default();
        let friday = at("2026-11-20T12:00:00Z");
        assert_eq!(calendar.after_business_days(friday, 5), Some(at("2026-11-27T12:00:00Z")));
        calendar.holidays.insert("2026-11-26".parse().unwrap());
        assert_eq!(calendar.after_business_days(friday, 5), Some(at("2026-11-30T12:00:00Z")));
        assert_eq!(calendar.after_business_days(friday, 0), Some(friday));
    }

    #[test]
    fn the_weekend_is_what_the_calendar_says() {
        let weekend = vec![Weekday::Friday, Weekday::Saturday];
        let calendar = Calendar { weekend, ..Calendar::default() };
        let thursday = at("2026-11-19T12:00:00Z");
        assert_eq!(calendar.after_business_days(thursday, 1), Some(at("2026-11-22T12:00:00Z")));
    }

    #[test]
    fn days_begin_and_end_where_the_time_zone_says_and_the_time_of_day_survives_a_change_of_the_clock() {
        // In New York clocks go back an hour on 1 November 2026.
        let time_zone = TimeZone::posix("EST5EDT,M3.2.0,M11.1.0").unwrap();
        let calendar = Calendar { time_zone, ..Calendar::default() };
        let friday_evening = at("2026-10-31T01:30:00Z");
        assert_eq!(calendar.date(friday_evening), "2026-10-30".parse().unwrap());
        assert_eq!(calendar.after_business_days(friday_evening, 1), Some(at("2026-11-03T02:30:00Z")));
        assert_eq!(calendar.after_days(friday_evening, 3), Some(at("2026-11-03T02:30:00Z")));
        assert_eq!(calendar.at_hour("2026-11-02".parse().unwrap(), 9), Some(at("2026-11-02T14:00:00Z")));
    }

    #[test]
    fn a_week_that_is_all_weekend_and_the_end_of_time_are_answered_and_never_looped_over() {
        let weekend = Weekday::Sunday.cycle_forward().take(7).collect();
        let calendar = Calendar { weekend, ..Calendar::default() };
        let start = at("2026-11-20T12:00:00Z");
        assert_eq!(calendar.after_business_days(start, 2), Some(at("2026-11-22T12:00:00Z")));
        assert_eq!(calendar.after_business_days(Timestamp::MAX, 1), None);
        assert_eq!(calendar.after_days(Timestamp::MAX, 1), None);
        assert_eq!(calendar.at_hour(Date::MAX, 23), None);
    }
}
