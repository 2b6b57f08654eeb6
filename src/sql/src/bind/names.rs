//! Names of tables, columns and types as they stand in syntax trees.

use neorunbase_types::{Result, SqlError, SqlState};
use sqlparser::ast::{DataType, Ident, ObjectName, ObjectNamePart};

/// The parts of a name.
pub(crate) fn parts(name: &ObjectName) -> Result<Vec<&Ident>> {
    name.0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Ok(ident),
            ObjectNamePart::Function(_) => Err(SqlError::unsupported("a function as a name")),
        })
        .collect()
}

/// Schema (if any) and name. A database name in front is accepted and not looked at: there is one database.
pub(crate) fn split_name(name: &ObjectName) -> Result<(Option<String>, String)> {
    let parts = parts(name)?;
    match parts.as_slice() {
        [name] => Ok((None, name.value.clone())),
        [schema, name] | [_, schema, name] => Ok((Some(schema.value.clone()), name.value.clone())),
        _ => Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            format!(
                "improper relation name (too many dotted names): {}",
                display_name(name)
            ),
        )),
    }
}

/// A name as errors show it.
pub(crate) fn display_name(name: &ObjectName) -> String {
    let parts: Vec<String> = name
        .0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => ident.value.clone(),
            ObjectNamePart::Function(function) => function.to_string(),
        })
        .collect();
    parts.join(".")
}

/// The first word of a type's name.
pub(crate) fn name_of_type(data_type: &DataType) -> String {
    let text = data_type.to_string().to_lowercase();
    text.split('(').next().unwrap_or_default().to_owned()
}
