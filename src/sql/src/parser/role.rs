//! CREATE, ALTER and DROP of users.

use neorunbase_types::Result;

use super::cursor::Cursor;
use super::unsupported;
use crate::plan::Definition;

/// `{CREATE|ALTER|DROP} {USER|ROLE} …`
pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Definition> {
    let verb = cursor.identifier()?;
    let is_user = cursor.peek_word() == Some("user");
    cursor.advance();
    if verb == "drop" {
        let if_exists = cursor.take_words(&["if", "exists"]);
        let user = cursor.identifier()?;
        if !cursor.is_end() && cursor.peek_word().is_none() {
            return Err(unsupported("DROP USER of several users").with_hint("Drop them one at a time."));
        }
        cursor.expect_end()?;
        return Ok(Definition::DropUser { user, if_exists });
    }
    let create = verb == "create";
    let user = cursor.identifier()?;
    cursor.take_word("with");
    let mut password = None;
    // CREATE ROLE means NOLOGIN unless told otherwise.
    let mut login = !create || is_user;
    while !cursor.is_end() {
        cursor.take_word("encrypted");
        if cursor.take_word("password") {
            if cursor.peek_word() == Some("null") {
                return Err(unsupported("PASSWORD NULL"));
            }
            password = Some(cursor.string()?);
        } else if cursor.take_word("login") {
            login = true;
        } else {
            let option = cursor
                .peek_word()
                .ok_or_else(|| cursor.syntax_error())?
                .to_ascii_uppercase();
            return Err(unsupported(format!("role option {option}"))
                .with_hint("Only LOGIN and PASSWORD are available."));
        }
    }
    if !login {
        return Err(
            unsupported("a role that cannot log in").with_hint("Use CREATE USER name PASSWORD 'secret'.")
        );
    }
    let password = password.ok_or_else(|| {
        unsupported(format!("{} USER without PASSWORD", verb.to_ascii_uppercase()))
            .with_hint("Add PASSWORD 'secret': every user logs in with one.")
    })?;
    Ok(Definition::SetPassword {
        user,
        password,
        create,
    })
}
