//! AS OF SYSTEM TIME: from what a user writes to a timestamp that can be read at.
//!
//! Timestamps follow the wall clock of whoever leads, a millisecond in the upper bits, so that an instant can be turned into
//! one. A clock that is off, or a leader that begins above what its predecessor had leased, makes that inexact by as much;
//! what is read at the timestamp is a consistent snapshot all the same. docs/decisions/as-of-system-time.md has the rest.

use neorunbase_catalog::Table;
use neorunbase_protocol::message::Timestamp;
use neorunbase_sql::plan::AsOf;
use neorunbase_txn::timestamp::{first_of_millisecond, milliseconds_of};
use neorunbase_types::calendar::timestamp_from_unix_micros;
use neorunbase_types::interval::add_to_timestamp;
use neorunbase_types::{Result, SqlError, SqlState};

/// No millisecond at or after this has timestamps.
const MILLISECONDS_END: u64 = 1 << 43;

/// `22023`
fn invalid(message: &str) -> Box<SqlError> {
    SqlError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("AS OF SYSTEM TIME: {message}"),
    )
}

/// The timestamp to read at. `now` was drawn for this: at timestamps above it, what there is to see may still change.
///
/// # Errors
/// `22023` if it is not past, or before there were timestamps.
pub fn resolve(as_of: AsOf, now: Timestamp) -> Result<Timestamp> {
    let timestamp = match as_of {
        AsOf::Logical(timestamp) => timestamp,
        AsOf::Instant(micros) => at_unix_micros(micros)?,
        AsOf::Ago(interval) => {
            let unix_epoch = timestamp_from_unix_micros(0);
            let now_micros = i64::try_from(milliseconds_of(now) * 1_000).unwrap_or(i64::MAX);
            let then = add_to_timestamp(timestamp_from_unix_micros(now_micros), &interval)?;
            at_unix_micros(then.saturating_sub(unix_epoch))?
        }
    };
    if timestamp > now {
        return Err(invalid("cannot specify timestamp in the future")
            .with_detail(format!("{timestamp} is later than {now}, which is now")));
    }
    if timestamp == 0 {
        return Err(invalid("cannot specify timestamp before 1970"));
    }
    Ok(timestamp)
}

fn at_unix_micros(micros: i64) -> Result<Timestamp> {
    match u64::try_from(micros.div_euclid(1_000)) {
        Ok(milliseconds) if milliseconds < MILLISECONDS_END => Ok(first_of_millisecond(milliseconds)),
        Ok(_) => Err(invalid("cannot specify timestamp in the future")),
        Err(_) => Err(invalid("cannot specify timestamp before 1970")),
    }
}

/// Whether the table's rows of then are where its rows are now.
///
/// # Errors
/// `72000` if it was created, truncated or rewritten since.
pub fn check_rows_of(table: &Table, timestamp: Timestamp) -> Result<()> {
    if timestamp > table.rows_since {
        return Ok(());
    }
    Err(SqlError::new(
        SqlState::SNAPSHOT_TOO_OLD,
        format!("snapshot is older than the rows of relation \"{}\"", table.name),
    )
    .with_detail(format!(
        "The table was created, truncated or rewritten at {}.",
        table.rows_since
    ))
    .with_hint("Choose a later time."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use neorunbase_types::Interval;

    use super::*;

    const NOW_MS: u64 = 1_767_261_600_000;

    fn now() -> Timestamp {
        first_of_millisecond(NOW_MS) + 17
    }

    #[test]
    fn instants_and_intervals_become_timestamps() {
        let ago = |micros| {
            AsOf::Ago(Interval {
                micros,
                ..Interval::default()
            })
        };
        let ms_ago = |ms| Ok(first_of_millisecond(NOW_MS - ms));
        assert_eq!(resolve(ago(-10_000_000), now()), ms_ago(10_000));
        assert_eq!(resolve(ago(-1), now()), ms_ago(1));
        assert_eq!(resolve(AsOf::Instant(NOW_MS as i64 * 1_000), now()), ms_ago(0));
        assert_eq!(resolve(AsOf::Logical(now()), now()), Ok(now()));
        let month = AsOf::Ago(Interval {
            months: -1,
            ..Interval::default()
        });
        assert_eq!(resolve(month, now()), ms_ago(31 * 86_400_000));
    }

    #[test]
    fn the_future_and_the_time_before_all_timestamps_are_refused() {
        for as_of in [
            AsOf::Logical(now() + 1),
            AsOf::Instant((NOW_MS as i64 + 1) * 1_000),
            AsOf::Instant(i64::MAX),
            AsOf::Instant(0),
            AsOf::Instant(-1),
        ] {
            let error = resolve(as_of, now()).unwrap_err();
            assert_eq!(error.state, SqlState::INVALID_PARAMETER_VALUE, "{as_of:?}");
        }
    }
}
