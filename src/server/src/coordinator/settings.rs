//! Run-time settings of a session (SET, SHOW).

use std::collections::BTreeMap;
use std::sync::Arc;

use neorunbase_sql::plan::{IsolationLevel, TransactionModes};
use neorunbase_types::{Result, SqlError, SqlState};

/// Settings that exist, with their defaults. Some only exist to be shown.
const DEFAULTS: &[(&str, &str)] = &[
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("datestyle", "ISO, MDY"),
    ("default_transaction_deferrable", "off"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("extra_float_digits", "1"),
    ("idle_in_transaction_session_timeout", "0"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "on"),
    ("lock_timeout", "0"),
    ("max_identifier_length", "63"),
    ("search_path", "\"$user\", public"),
    ("server_encoding", "UTF8"),
    ("server_version", "15.8"),
    ("server_version_num", "150008"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("synchronous_commit", "on"),
    ("timezone", "UTC"),
    ("transaction_deferrable", "off"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "off"),
];

/// Settings whose value cannot be changed.
const READ_ONLY: &[&str] = &[
    "integer_datetimes",
    "is_superuser",
    "max_identifier_length",
    "server_encoding",
    "server_version",
    "server_version_num",
];

/// Settings of which only the default is implemented: another value would be ignored silently.
const FIXED: &[&str] = &[
    "bytea_output",
    "client_encoding",
    "intervalstyle",
    "standard_conforming_strings",
    "timezone",
];

/// The settings of one session.
#[derive(Clone, Debug)]
pub struct Settings {
    now: State,
    /// As they were when the transaction block began, and at its savepoints, oldest first.
    saved: Vec<(String, State)>,
}

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
struct State {
    values: Arc<BTreeMap<String, String>>,
    /// Values before SET LOCAL, put back at the end of the transaction.
    before_local: Arc<BTreeMap<String, String>>,
}

impl Default for Settings {
    fn default() -> Self {
        let values: BTreeMap<_, _> = DEFAULTS
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Self {
            now: State {
                values: Arc::new(values),
                ..State::default()
            },
            saved: Vec::new(),
        }
    }
}

fn unknown(name: &str) -> Box<SqlError> {
    SqlError::new(
        SqlState::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"{name}\""),
    )
}

impl Settings {
    /// All settings in order.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.now
            .values
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// All settings by name.
    pub fn values(&self) -> BTreeMap<String, String> {
        self.now.values.as_ref().clone()
    }

    /// The schemas that unqualified names are looked up in.
    pub fn search_path(&self, user: &str) -> Vec<String> {
        let path = self.get("search_path").unwrap_or("");
        path.split(',')
            .map(|schema| schema.trim().trim_matches(['"', '\'']))
            .filter(|schema| !schema.is_empty())
            .map(|schema| {
                if schema == "$user" {
                    user.to_owned()
                } else {
                    schema.to_owned()
                }
            })
            .collect()
    }

    /// The value of `name`.
    ///
    /// # Errors
    /// `42704` if there is no such setting.
    pub fn get(&self, name: &str) -> Result<&str> {
        self.now
            .values
            .get(name)
            .map(String::as_str)
            .ok_or_else(|| unknown(name))
    }

    /// Sets `name` (`None`: to its default).
    ///
    /// # Errors
    /// `42704`, `22023`, `55P02`, or `0A000` where only the default is implemented.
    pub fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<()> {
        let default = DEFAULTS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, default)| *default);
        // Settings with a dot in the name belong to applications, as in PostgreSQL.
        let default = match default {
            Some(default) => default,
            None if name.contains('.') => "",
            None => return Err(unknown(name)),
        };
        if READ_ONLY.contains(&name) {
            return Err(SqlError::new(
                SqlState("55P02"),
                format!("parameter \"{name}\" cannot be changed"),
            ));
        }
        let value = value.unwrap_or(default);
        if FIXED.contains(&name) && !same_setting(name, value, default) {
            return Err(SqlError::unsupported(format!("setting {name} to \"{value}\""))
                .with_hint(format!("only \"{default}\" is available")));
        }
        let value = match name {
            "default_transaction_isolation" => isolation_name(parse_isolation(name, value)?).to_owned(),
            "default_transaction_read_only" | "default_transaction_deferrable" => {
                on_or_off(parse_boolean(name, value)?).to_owned()
            }
            // Belong to a transaction, not to the session.
            "transaction_isolation" | "transaction_read_only" | "transaction_deferrable" => return Ok(()),
            "statement_timeout" | "lock_timeout" | "idle_in_transaction_session_timeout" => {
                parse_milliseconds(name, value)?.to_string()
            }
            _ => value.to_owned(),
        };
        let previous = Arc::make_mut(&mut self.now.values).insert(name.to_owned(), value);
        if !local {
            // The last SET counts after the transaction, whatever was local before.
            if self.now.before_local.contains_key(name) {
                Arc::make_mut(&mut self.now.before_local).remove(name);
            }
        } else if let Some(previous) = previous {
            Arc::make_mut(&mut self.now.before_local)
                .entry(name.to_owned())
                .or_insert(previous);
        }
        Ok(())
    }

    /// Puts every setting back to its default.
    pub fn reset_all(&mut self) {
        self.now = Self::default().now;
    }

    /// A transaction block begins: its ROLLBACK takes what is set from here on back.
    pub fn begin_transaction(&mut self) {
        self.saved = vec![(String::new(), self.now.clone())];
    }

    /// SAVEPOINT.
    pub fn savepoint(&mut self, name: &str) {
        self.saved.push((name.to_owned(), self.now.clone()));
    }

    /// RELEASE SAVEPOINT: forgets it and later ones.
    pub fn release_savepoint(&mut self, name: &str) {
        if let Some(position) = self.find_savepoint(name) {
            self.saved.truncate(position);
        }
    }

    /// ROLLBACK TO SAVEPOINT.
    pub fn rollback_to_savepoint(&mut self, name: &str) {
        if let Some(position) = self.find_savepoint(name) {
            self.now = self.saved[position].1.clone();
            self.saved.truncate(position + 1);
        }
    }

    fn find_savepoint(&self, name: &str) -> Option<usize> {
        let found = self.saved.iter().rposition(|(known, _)| known == name);
        // The first is the block itself.
        found.filter(|position| *position > 0)
    }

    /// The transaction was committed: SET LOCAL no longer holds.
    pub fn commit(&mut self) {
        self.saved.clear();
        if !self.now.before_local.is_empty() {
            let before = std::mem::take(&mut self.now.before_local);
            Arc::make_mut(&mut self.now.values).extend(Arc::unwrap_or_clone(before));
        }
    }

    /// The transaction was rolled back: what was set in its block no longer holds.
    pub fn roll_back(&mut self) {
        if let Some((_, before)) = self.saved.drain(..).next() {
            self.now = before;
        }
        self.commit();
    }

    /// The isolation level of new transactions.
    pub fn default_isolation(&self) -> IsolationLevel {
        self.get("default_transaction_isolation")
            .and_then(|value| parse_isolation("default_transaction_isolation", value))
            .unwrap_or(IsolationLevel::ReadCommitted)
    }

    /// Whether new transactions are read-only.
    pub fn default_read_only(&self) -> bool {
        self.get("default_transaction_read_only")
            .is_ok_and(|value| value == "on")
    }

    /// Whether new transactions are deferrable.
    pub fn default_deferrable(&self) -> bool {
        self.get("default_transaction_deferrable")
            .is_ok_and(|value| value == "on")
    }

    /// What a setting of the current transaction stands for.
    ///
    /// # Errors
    /// `42704` if it is none, `22023`.
    pub fn transaction_mode(name: &str, value: &str) -> Result<TransactionModes> {
        let mut modes = TransactionModes::default();
        match name {
            "transaction_isolation" => modes.isolation = Some(parse_isolation(name, value)?),
            "transaction_read_only" => modes.read_only = Some(parse_boolean(name, value)?),
            "transaction_deferrable" => modes.deferrable = Some(parse_boolean(name, value)?),
            _ => return Err(unknown(name)),
        }
        Ok(modes)
    }

    /// A time limit in milliseconds; 0: none.
    pub fn milliseconds(&self, name: &str) -> u64 {
        self.get(name)
            .ok()
            .and_then(|value| value.parse().ok())
            .unwrap_or(0)
    }
}

fn same_setting(name: &str, value: &str, default: &str) -> bool {
    let value = value.trim_matches('\'').to_ascii_lowercase();
    match name {
        "client_encoding" => matches!(value.as_str(), "utf8" | "utf-8" | "unicode"),
        "timezone" => matches!(value.as_str(), "utc" | "etc/utc" | "gmt" | "universal" | "zulu"),
        "standard_conforming_strings" => matches!(value.as_str(), "on" | "true" | "1" | "yes"),
        _ => value == default.to_ascii_lowercase(),
    }
}

fn invalid(name: &str, value: &str) -> Box<SqlError> {
    SqlError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("invalid value for parameter \"{name}\": \"{value}\""),
    )
}

fn parse_isolation(name: &str, value: &str) -> Result<IsolationLevel> {
    match value.to_ascii_lowercase().as_str() {
        "read committed" | "read uncommitted" => Ok(IsolationLevel::ReadCommitted),
        "repeatable read" => Ok(IsolationLevel::RepeatableRead),
        "serializable" => Ok(IsolationLevel::Serializable),
        _ => Err(invalid(name, value)),
    }
}

/// As SHOW prints it.
pub fn isolation_name(level: IsolationLevel) -> &'static str {
    match level {
        IsolationLevel::ReadCommitted => "read committed",
        IsolationLevel::RepeatableRead => "repeatable read",
        IsolationLevel::Serializable => "serializable",
    }
}

/// As SHOW prints it.
pub fn on_or_off(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

fn parse_boolean(name: &str, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" | "t" => Ok(true),
        "off" | "false" | "no" | "0" | "f" => Ok(false),
        _ => Err(invalid(name, value)),
    }
}

fn parse_milliseconds(name: &str, value: &str) -> Result<u64> {
    let text = value.trim();
    let digits = text.len()
        - text
            .trim_start_matches(|letter: char| letter.is_ascii_digit())
            .len();
    let number: u64 = text[..digits].parse().map_err(|_| invalid(name, value))?;
    let factor = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(invalid(name, value)),
    };
    number.checked_mul(factor).ok_or_else(|| invalid(name, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn set(settings: &mut Settings, value: &str, local: bool) {
        settings.set("application_name", Some(value), local).unwrap();
    }

    fn name(settings: &Settings) -> &str {
        settings.get("application_name").unwrap()
    }

    #[test]
    fn what_a_block_sets_goes_with_its_rollback() {
        let mut settings = Settings::default();
        set(&mut settings, "before", false);
        settings.begin_transaction();
        set(&mut settings, "within", false);
        settings.savepoint("a");
        set(&mut settings, "later", true);
        settings.savepoint("a");
        set(&mut settings, "latest", false);
        settings.rollback_to_savepoint("a");
        assert_eq!(name(&settings), "later");
        settings.release_savepoint("a");
        settings.rollback_to_savepoint("a");
        assert_eq!(name(&settings), "within");
        settings.roll_back();
        assert_eq!(name(&settings), "before");
    }

    #[test]
    fn local_settings_end_with_the_transaction_and_others_stay() {
        let mut settings = Settings::default();
        settings.begin_transaction();
        set(&mut settings, "session", false);
        set(&mut settings, "local", true);
        settings.commit();
        assert_eq!(name(&settings), "session");
        settings.begin_transaction();
        set(&mut settings, "local", true);
        set(&mut settings, "last", false);
        settings.commit();
        assert_eq!(name(&settings), "last");
    }
}
