//! The proleptic Gregorian calendar, counted in days from 2000-01-01 as PostgreSQL does.

/// Microseconds in a second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;
/// Microseconds in a minute.
pub const MICROS_PER_MINUTE: i64 = 60 * MICROS_PER_SECOND;
/// Microseconds in an hour.
pub const MICROS_PER_HOUR: i64 = 60 * MICROS_PER_MINUTE;
/// Microseconds in a day.
pub const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;
/// Days from 1970-01-01 to 2000-01-01.
pub const UNIX_EPOCH_TO_POSTGRES_DAYS: i64 = 10_957;
/// Microseconds from 1970-01-01 to 2000-01-01.
pub const UNIX_EPOCH_TO_POSTGRES_MICROS: i64 = UNIX_EPOCH_TO_POSTGRES_DAYS * MICROS_PER_DAY;
/// `infinity` as a date.
pub const DATE_INFINITY: i32 = i32::MAX;
/// `-infinity` as a date.
pub const DATE_MINUS_INFINITY: i32 = i32::MIN;
/// `infinity` as a timestamp.
pub const TIMESTAMP_INFINITY: i64 = i64::MAX;
/// `-infinity` as a timestamp.
pub const TIMESTAMP_MINUS_INFINITY: i64 = i64::MIN;
/// The first representable day, 4714-11-24 BC, for dates and timestamps alike.
pub const FIRST_DATE: i32 = -2_451_545;
/// The day after the last representable date, 5874898-06-03.
pub const DATE_END: i32 = 2_147_483_494 - 2_451_545;
/// The first representable timestamp.
pub const FIRST_TIMESTAMP: i64 = -211_813_488_000_000_000;
/// The microsecond after the last representable timestamp, 294277-01-01.
pub const TIMESTAMP_END: i64 = 9_223_371_331_200_000_000;

/// Days from 2000-01-01 to a date. `year` is astronomical: 0 is 1 BC. Months and days may be out of their
/// ranges as long as the result is meant (day 0 is the day before the first).
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years start in March here, which puts the leap day last.
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468 - UNIX_EPOCH_TO_POSTGRES_DAYS
}

/// Year (astronomical), month and day of the day `days` after 2000-01-01.
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468 + UNIX_EPOCH_TO_POSTGRES_DAYS;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = (if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    }) as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Whether the astronomical year has a 29 February.
pub fn is_leap_year(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

/// Days of a month (1 to 12).
pub fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if is_leap_year(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Splits microseconds since 2000-01-01 into days and microseconds of that day.
pub fn split_timestamp(micros: i64) -> (i64, i64) {
    (
        micros.div_euclid(MICROS_PER_DAY),
        micros.rem_euclid(MICROS_PER_DAY),
    )
}

/// Whether the timestamp is neither infinite nor out of PostgreSQL's range.
pub fn timestamp_in_range(micros: i64) -> bool {
    (FIRST_TIMESTAMP..TIMESTAMP_END).contains(&micros)
}

/// Whether the date is neither infinite nor out of PostgreSQL's range.
pub fn date_in_range(days: i64) -> bool {
    (i64::from(FIRST_DATE)..i64::from(DATE_END)).contains(&days)
}

/// Turns microseconds since 1970 into microseconds since 2000.
pub fn timestamp_from_unix_micros(unix_micros: i64) -> i64 {
    unix_micros.saturating_sub(UNIX_EPOCH_TO_POSTGRES_MICROS)
}
