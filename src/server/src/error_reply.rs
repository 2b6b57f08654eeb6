//! SQL errors as nodes send them to each other.

use neorunbase_protocol::message::{ErrorKind, ErrorObjectsReply, ErrorReply};
use neorunbase_types::error::ErrorObjects;
use neorunbase_types::{SqlError, SqlState};

/// The error as it travels.
pub fn error_reply(kind: ErrorKind, error: SqlError) -> ErrorReply {
    ErrorReply {
        kind: kind.into(),
        sql_state: error.state.0.to_owned(),
        message: error.message,
        detail: error.detail.unwrap_or_default(),
        hint: error.hint.unwrap_or_default(),
        objects: error.objects.map(|objects| {
            Box::new(ErrorObjectsReply {
                schema: objects.schema,
                table: objects.table,
                column: objects.column,
                constraint: objects.constraint,
                row: objects.row,
            })
        }),
        ..ErrorReply::default()
    }
}

/// A node's error as the client will see it.
pub fn sql_error(reply: ErrorReply) -> Box<SqlError> {
    let mut error = SqlError::new(SqlState::from_code(&reply.sql_state), reply.message);
    if !reply.detail.is_empty() {
        error = error.with_detail(reply.detail);
    }
    if !reply.hint.is_empty() {
        error = error.with_hint(reply.hint);
    }
    error.objects = reply.objects.map(|objects| {
        Box::new(ErrorObjects {
            schema: objects.schema,
            table: objects.table,
            column: objects.column,
            constraint: objects.constraint,
            row: objects.row,
        })
    });
    error
}
