//! The error every SQL-facing crate reports: PostgreSQL's fields, SQLSTATE included
//! (PostgreSQL 15 manual, appendix A and section 55.8).

use std::fmt;

/// A five-character SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SqlState(pub &'static str);

#[allow(missing_docs)] // the names are PostgreSQL's own
impl SqlState {
    pub const CONNECTION_FAILURE: Self = Self("08006");
    pub const PROTOCOL_VIOLATION: Self = Self("08P01");
    pub const TRANSACTION_RESOLUTION_UNKNOWN: Self = Self("08007");
    pub const FEATURE_NOT_SUPPORTED: Self = Self("0A000");
    pub const CARDINALITY_VIOLATION: Self = Self("21000");
    pub const STRING_DATA_RIGHT_TRUNCATION: Self = Self("22001");
    pub const NUMERIC_VALUE_OUT_OF_RANGE: Self = Self("22003");
    pub const INVALID_DATETIME_FORMAT: Self = Self("22007");
    pub const DATETIME_FIELD_OVERFLOW: Self = Self("22008");
    pub const INVALID_TIME_ZONE_DISPLACEMENT_VALUE: Self = Self("22009");
    pub const INVALID_ESCAPE_SEQUENCE: Self = Self("22025");
    pub const INTERVAL_FIELD_OVERFLOW: Self = Self("22015");
    pub const INVALID_ARGUMENT_FOR_LOGARITHM: Self = Self("2201E");
    pub const INVALID_ARGUMENT_FOR_POWER_FUNCTION: Self = Self("2201F");
    pub const SUBSTRING_ERROR: Self = Self("22011");
    pub const DIVISION_BY_ZERO: Self = Self("22012");
    pub const CHARACTER_NOT_IN_REPERTOIRE: Self = Self("22021");
    pub const INVALID_PARAMETER_VALUE: Self = Self("22023");
    pub const INVALID_REGULAR_EXPRESSION: Self = Self("2201B");
    pub const INVALID_TEXT_REPRESENTATION: Self = Self("22P02");
    pub const INVALID_BINARY_REPRESENTATION: Self = Self("22P03");
    pub const BAD_COPY_FILE_FORMAT: Self = Self("22P04");
    pub const NOT_NULL_VIOLATION: Self = Self("23502");
    pub const UNIQUE_VIOLATION: Self = Self("23505");
    pub const CHECK_VIOLATION: Self = Self("23514");
    pub const ACTIVE_SQL_TRANSACTION: Self = Self("25001");
    pub const READ_ONLY_SQL_TRANSACTION: Self = Self("25006");
    pub const NO_ACTIVE_SQL_TRANSACTION: Self = Self("25P01");
    pub const INVALID_SAVEPOINT: Self = Self("3B001");
    pub const IN_FAILED_SQL_TRANSACTION: Self = Self("25P02");
    /// `25P03`
    pub const IDLE_IN_TRANSACTION_SESSION_TIMEOUT: Self = Self("25P03");
    pub const INVALID_SQL_STATEMENT_NAME: Self = Self("26000");
    pub const INVALID_AUTHORIZATION: Self = Self("28000");
    pub const INVALID_PASSWORD: Self = Self("28P01");
    pub const INVALID_CURSOR_NAME: Self = Self("34000");
    pub const INVALID_CATALOG_NAME: Self = Self("3D000");
    pub const INVALID_SCHEMA_NAME: Self = Self("3F000");
    pub const SERIALIZATION_FAILURE: Self = Self("40001");
    pub const DEADLOCK_DETECTED: Self = Self("40P01");
    pub const SYNTAX_ERROR: Self = Self("42601");
    pub const INSUFFICIENT_PRIVILEGE: Self = Self("42501");
    pub const CANNOT_COERCE: Self = Self("42846");
    pub const GROUPING_ERROR: Self = Self("42803");
    pub const DATATYPE_MISMATCH: Self = Self("42804");
    pub const INVALID_TABLE_DEFINITION: Self = Self("42P16");
    pub const INDETERMINATE_DATATYPE: Self = Self("42P18");
    pub const UNDEFINED_COLUMN: Self = Self("42703");
    pub const UNDEFINED_FUNCTION: Self = Self("42883");
    pub const UNDEFINED_TABLE: Self = Self("42P01");
    pub const UNDEFINED_PARAMETER: Self = Self("42P02");
    pub const UNDEFINED_OBJECT: Self = Self("42704");
    pub const AMBIGUOUS_COLUMN: Self = Self("42702");
    pub const AMBIGUOUS_FUNCTION: Self = Self("42725");
    pub const DUPLICATE_COLUMN: Self = Self("42701");
    pub const DUPLICATE_CURSOR: Self = Self("42P03");
    pub const DUPLICATE_PREPARED_STATEMENT: Self = Self("42P05");
    pub const DUPLICATE_TABLE: Self = Self("42P07");
    pub const DUPLICATE_OBJECT: Self = Self("42710");
    pub const WRONG_OBJECT_TYPE: Self = Self("42809");
    pub const OUT_OF_MEMORY: Self = Self("53200");
    pub const DISK_FULL: Self = Self("53100");
    pub const TOO_MANY_CONNECTIONS: Self = Self("53300");
    pub const PROGRAM_LIMIT_EXCEEDED: Self = Self("54000");
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: Self = Self("55000");
    pub const LOCK_NOT_AVAILABLE: Self = Self("55P03");
    pub const QUERY_CANCELED: Self = Self("57014");
    pub const ADMIN_SHUTDOWN: Self = Self("57P01");
    pub const CANNOT_CONNECT_NOW: Self = Self("57P03");
    pub const IO_ERROR: Self = Self("58030");
    pub const SNAPSHOT_TOO_OLD: Self = Self("72000");
    pub const INTERNAL_ERROR: Self = Self("XX000");
    pub const DATA_CORRUPTED: Self = Self("XX001");
}

impl SqlState {
    /// Finds the constant for a code that came over the wire; unknown codes become `XX000`.
    pub fn from_code(code: &str) -> Self {
        const ALL: &[SqlState] = &[
            SqlState::CONNECTION_FAILURE,
            SqlState::PROTOCOL_VIOLATION,
            SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::CARDINALITY_VIOLATION,
            SqlState::STRING_DATA_RIGHT_TRUNCATION,
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            SqlState::INVALID_DATETIME_FORMAT,
            SqlState::DATETIME_FIELD_OVERFLOW,
            SqlState::INVALID_TIME_ZONE_DISPLACEMENT_VALUE,
            SqlState::INVALID_ESCAPE_SEQUENCE,
            SqlState::INTERVAL_FIELD_OVERFLOW,
            SqlState::INVALID_ARGUMENT_FOR_LOGARITHM,
            SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION,
            SqlState::SUBSTRING_ERROR,
            SqlState::DIVISION_BY_ZERO,
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            SqlState::INVALID_PARAMETER_VALUE,
            SqlState::INVALID_REGULAR_EXPRESSION,
            SqlState::INVALID_TEXT_REPRESENTATION,
            SqlState::INVALID_BINARY_REPRESENTATION,
            SqlState::BAD_COPY_FILE_FORMAT,
            SqlState::NOT_NULL_VIOLATION,
            SqlState::UNIQUE_VIOLATION,
            SqlState::CHECK_VIOLATION,
            SqlState::ACTIVE_SQL_TRANSACTION,
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::NO_ACTIVE_SQL_TRANSACTION,
            SqlState::INVALID_SAVEPOINT,
            SqlState::IN_FAILED_SQL_TRANSACTION,
            SqlState::INVALID_SQL_STATEMENT_NAME,
            SqlState::INVALID_AUTHORIZATION,
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_CURSOR_NAME,
            SqlState::INVALID_CATALOG_NAME,
            SqlState::INVALID_SCHEMA_NAME,
            SqlState::SERIALIZATION_FAILURE,
            SqlState::DEADLOCK_DETECTED,
            SqlState::SYNTAX_ERROR,
            SqlState::INSUFFICIENT_PRIVILEGE,
            SqlState::CANNOT_COERCE,
            SqlState::GROUPING_ERROR,
            SqlState::DATATYPE_MISMATCH,
            SqlState::INVALID_TABLE_DEFINITION,
            SqlState::INDETERMINATE_DATATYPE,
            SqlState::UNDEFINED_COLUMN,
            SqlState::UNDEFINED_FUNCTION,
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_PARAMETER,
            SqlState::UNDEFINED_OBJECT,
            SqlState::AMBIGUOUS_COLUMN,
            SqlState::AMBIGUOUS_FUNCTION,
            SqlState::DUPLICATE_COLUMN,
            SqlState::DUPLICATE_CURSOR,
            SqlState::DUPLICATE_PREPARED_STATEMENT,
            SqlState::DUPLICATE_TABLE,
            SqlState::DUPLICATE_OBJECT,
            SqlState::WRONG_OBJECT_TYPE,
            SqlState::OUT_OF_MEMORY,
            SqlState::DISK_FULL,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::QUERY_CANCELED,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::IO_ERROR,
            SqlState::SNAPSHOT_TOO_OLD,
            SqlState::INTERNAL_ERROR,
            SqlState::DATA_CORRUPTED,
        ];
        ALL.iter()
            .copied()
            .find(|state| state.0 == code)
            .unwrap_or(Self::INTERNAL_ERROR)
    }
}

/// An error as a PostgreSQL client sees it. Messages follow PostgreSQL's style: lower case, no full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// What class of error.
    pub state: SqlState,
    /// The primary message.
    pub message: String,
    /// More about this instance.
    pub detail: Option<String>,
    /// What the user could do.
    pub hint: Option<String>,
    /// 1-based character position in the query text.
    pub position: Option<u32>,
    /// The database objects that it is about.
    pub objects: Option<Box<ErrorObjects>>,
}

/// The database objects that an error is about: fields `s`, `t`, `c` and `n` of an ErrorResponse (PostgreSQL manual,
/// "Error and Notice Message Fields"), by which programs tell what was violated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorObjects {
    /// The schema of the table.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The column; empty: none in particular.
    pub column: String,
    /// The constraint; empty: none.
    pub constraint: String,
    /// Which of several rows it is about, counted from 0; not for clients.
    pub row: Option<u32>,
}

/// The result of anything SQL-facing. The error is boxed to keep the good path small.
pub type Result<T, E = Box<SqlError>> = std::result::Result<T, E>;

impl SqlError {
    /// An error with a state and a primary message.
    #[allow(clippy::new_ret_no_self)] // every use returns it as a boxed error
    pub fn new(state: SqlState, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            state,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            objects: None,
        })
    }

    /// `0A000`: something PostgreSQL has and we do not.
    pub fn unsupported(what: impl fmt::Display) -> Box<Self> {
        Self::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("{what} is not supported"),
        )
    }

    /// `XX000`: an invariant of ours does not hold.
    pub fn internal(what: impl fmt::Display) -> Box<Self> {
        Self::new(SqlState::INTERNAL_ERROR, what.to_string())
    }

    /// Adds the detail field.
    #[must_use]
    pub fn with_detail(mut self: Box<Self>, detail: impl Into<String>) -> Box<Self> {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the hint field.
    #[must_use]
    pub fn with_hint(mut self: Box<Self>, hint: impl Into<String>) -> Box<Self> {
        self.hint = Some(hint.into());
        self
    }

    /// Names the column that it is about.
    #[must_use]
    pub fn about_column(mut self: Box<Self>, schema: &str, table: &str, column: &str) -> Box<Self> {
        self.objects = Some(Box::new(ErrorObjects {
            schema: schema.to_owned(),
            table: table.to_owned(),
            column: column.to_owned(),
            ..ErrorObjects::default()
        }));
        self
    }

    /// Says which of several rows it is about.
    #[must_use]
    pub fn about_row(mut self: Box<Self>, row: u32) -> Box<Self> {
        self.objects.get_or_insert_default().row = Some(row);
        self
    }

    /// Names the constraint that it is about.
    #[must_use]
    pub fn about_constraint(mut self: Box<Self>, schema: &str, table: &str, constraint: &str) -> Box<Self> {
        self.objects = Some(Box::new(ErrorObjects {
            schema: schema.to_owned(),
            table: table.to_owned(),
            constraint: constraint.to_owned(),
            ..ErrorObjects::default()
        }));
        self
    }

    /// Adds the position field.
    #[must_use]
    pub fn with_position(mut self: Box<Self>, position: u32) -> Box<Self> {
        self.position = Some(position);
        self
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.message, self.state.0)
    }
}

impl std::error::Error for SqlError {}
