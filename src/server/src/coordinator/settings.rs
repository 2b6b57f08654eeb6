//! Run-time settings of a session (SET, SHOW).

use std::collections::BTreeMap;

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
    values: BTreeMap<String, String>,
    /// Values before SET LOCAL, put back at the end of the transaction.
    before_local: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        let values = DEFAULTS
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Self {
            values,
            before_local: BTreeMap::new(),
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
        self.values
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// All settings by name.
    pub fn values(&self) -> BTreeMap<String, String> {
        self.values.clone()
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
        self.values
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
        let previous = self.values.insert(name.to_owned(), value);
        if local && let Some(previous) = previous {
            self.before_local.entry(name.to_owned()).or_insert(previous);
        }
        Ok(())
    }

    /// Puts every setting back to its default.
    pub fn reset_all(&mut self) {
        *self = Self::default();
    }

    /// The transaction has ended: SET LOCAL no longer holds.
    pub fn end_transaction(&mut self) {
        self.values.append(&mut self.before_local);
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
