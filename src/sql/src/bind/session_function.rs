//! Functions about the session and the catalog whose answers are known when a statement is analysed, and the few
//! arrays that are known then.

use neorunbase_expression::{Expression, Function, coerce, resolve_operator};
use neorunbase_types::{CastContext, Datum, Result, SqlError, SqlState, SqlType, numeric};
use sqlparser::ast::{self, Expr};

use super::Binder;
use super::expression::unnest;
use super::function::call_arguments;
use super::literal;
use super::names::split_name;
use super::table::SYSTEM_SCHEMAS;

/// What `version()` says: clients read the number to learn what the server understands.
pub const VERSION: &str = concat!(
    "PostgreSQL 15.0 (NeorunBase ",
    env!("CARGO_PKG_VERSION"),
    ") on x86_64-pc-linux-gnu, compiled by rustc, 64-bit"
);

impl Binder<'_> {
    /// The answer, if this is such a function.
    pub(crate) fn bind_session_function(
        &mut self,
        name: &str,
        arguments: &[Expr],
    ) -> Result<Option<Expression>> {
        let context = self.context;
        let schema = || {
            context
                .search_path
                .iter()
                .find(|schema| context.catalog.schemas.contains(schema))
        };
        Ok(Some(match (name, arguments) {
            ("current_user" | "session_user" | "user" | "current_role", []) => literal::name(&context.user),
            ("current_database" | "current_catalog", []) => literal::name(&context.database),
            ("current_schema", []) => {
                schema().map_or_else(|| Expression::null(SqlType::Name), |schema| literal::name(schema))
            }
            ("version", []) => literal::text(VERSION),
            ("cluster_logical_timestamp", []) => {
                self.uses_logical_timestamp = true;
                match context.logical_timestamp {
                    Some(timestamp) => Expression::literal(
                        Datum::Numeric(numeric::parse(&timestamp.to_string())?),
                        SqlType::Numeric(None),
                    ),
                    None => Expression::null(SqlType::Numeric(None)),
                }
            }
            ("pg_backend_pid", []) => literal::integer(context.process_id),
            ("pg_is_in_recovery", []) => Expression::boolean(false),
            ("pg_my_temp_schema", []) => Expression::literal(Datum::Oid(0), SqlType::Oid),
            ("pg_client_encoding", []) => literal::name("UTF8"),
            ("current_setting", [setting, missing_ok @ ..]) => {
                let name = self.constant_text(setting, "current_setting")?;
                match context.settings.get(&name.to_lowercase()) {
                    Some(value) => literal::text(value),
                    None if !missing_ok.is_empty() => Expression::null(SqlType::Text),
                    None => {
                        return Err(SqlError::new(
                            SqlState::UNDEFINED_OBJECT,
                            format!("unrecognized configuration parameter \"{name}\""),
                        ));
                    }
                }
            }
            // Every table is found by its plain name: there is one schema beside the system's.
            (
                "pg_table_is_visible"
                | "pg_function_is_visible"
                | "pg_type_is_visible"
                | "pg_operator_is_visible",
                [oid],
            ) => {
                let argument = self.bind_expression(oid)?;
                Expression::IsNull {
                    argument: Box::new(argument),
                    negated: true,
                }
            }
            ("array_position", [array, element]) => {
                let element = self.bind_expression(element)?;
                let Some(items) = self.bind_constant_array(array, &element)? else {
                    return Err(SqlError::unsupported(
                        "array_position of an array that is not spelled out",
                    ));
                };
                position_in(&element, items)?
            }
            _ => return Ok(None),
        }))
    }

    fn constant_text(&mut self, argument: &Expr, function: &str) -> Result<String> {
        match self.bind_expression(argument)? {
            Expression::Literal {
                value: Datum::Text(text),
                ..
            } => Ok(text.into()),
            _ => Err(SqlError::unsupported(format_args!(
                "{function} of anything but a literal"
            ))),
        }
    }

    /// The elements of an array that is spelled out: `ARRAY[…]`, `'{…}'`, `current_schemas(…)`. Elements that have
    /// no type of their own take `like`'s.
    pub(crate) fn bind_constant_array(
        &mut self,
        array: &Expr,
        like: &Expression,
    ) -> Result<Option<Vec<Expression>>> {
        let array = unnest(array);
        match array {
            Expr::Array(array) => array
                .elem
                .iter()
                .map(|item| self.bind_expression(item))
                .collect::<Result<_>>()
                .map(Some),
            Expr::Cast {
                expr,
                data_type: ast::DataType::Array(_),
                ..
            } => self.bind_constant_array(expr, like),
            Expr::Value(value) => {
                let Some(text) = value.value.clone().into_string() else {
                    return Ok(None);
                };
                let items = array_items(&text)?;
                let wanted = like.sql_type();
                items
                    .into_iter()
                    .map(|item| match item {
                        Some(item) => coerce(Expression::unknown(&item), &wanted, CastContext::Implicit),
                        None => Ok(Expression::null(wanted.clone())),
                    })
                    .collect::<Result<_>>()
                    .map(Some)
            }
            Expr::Function(function) => {
                let (_, name) = split_name(&function.name)?;
                if name != "current_schemas" {
                    return Ok(None);
                }
                let arguments = call_arguments(function)?;
                let [implicit] = arguments.values.as_slice() else {
                    return Ok(None);
                };
                let implicit = matches!(
                    self.bind_condition(implicit, "current_schemas")?,
                    Expression::Literal {
                        value: Datum::Boolean(true),
                        ..
                    }
                );
                let system = implicit.then(|| SYSTEM_SCHEMAS[0].to_owned());
                let known = |schema: &&String| self.context.catalog.schemas.contains(schema);
                let schemas = self.context.search_path.iter().filter(known).cloned();
                Ok(Some(
                    system
                        .into_iter()
                        .chain(schemas)
                        .map(|schema| literal::name(&schema))
                        .collect(),
                ))
            }
            _ => Ok(None),
        }
    }

    /// `'name'::regclass`: the oid of a table.
    pub(crate) fn bind_regclass(&mut self, inner: &Expr) -> Result<Expression> {
        let text = match unnest(inner) {
            Expr::Value(value) => value.value.clone().into_string(),
            _ => None,
        };
        let Some(text) = text else {
            return Err(SqlError::unsupported(
                "a cast of anything but a literal to regclass",
            ));
        };
        if let Ok(oid) = text.parse::<u32>() {
            return Ok(Expression::literal(Datum::Oid(oid), SqlType::Oid));
        }
        let idents = text
            .split('.')
            .map(
                |part| match part.strip_prefix('"').and_then(|part| part.strip_suffix('"')) {
                    Some(quoted) => ast::Ident::new(quoted),
                    None => ast::Ident::new(part.to_lowercase()),
                },
            )
            .collect::<Vec<_>>();
        let name = ast::ObjectName::from(idents);
        if let Some(table) = self.lookup_table(&name)? {
            return Ok(Expression::literal(Datum::Oid(table.id), SqlType::Oid));
        }
        let (schema, plain) = split_name(&name)?;
        match crate::system_tables::oid(schema.as_deref(), &plain) {
            Some(oid) => Ok(Expression::literal(Datum::Oid(oid), SqlType::Oid)),
            None => Err(SqlError::new(
                SqlState::UNDEFINED_TABLE,
                format!("relation \"{text}\" does not exist"),
            )),
        }
    }
}

/// `array_position`: a CASE over the elements.
fn position_in(element: &Expression, items: Vec<Expression>) -> Result<Expression> {
    let mut branches = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let found = resolve_operator("=", Some(element.clone()), item)?;
        debug_assert!(matches!(
            found,
            Expression::Call {
                function: Function::Equal,
                ..
            }
        ));
        branches.push((
            found,
            literal::integer(i32::try_from(index + 1).unwrap_or(i32::MAX)),
        ));
    }
    Ok(Expression::Case {
        branches,
        otherwise: None,
        sql_type: SqlType::Integer,
    })
}

/// The elements of a one-dimensional array literal.
fn array_items(text: &str) -> Result<Vec<Option<String>>> {
    let malformed = || {
        SqlError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("malformed array literal: \"{text}\""),
        )
        .with_detail("Array value must start with \"{\" or dimension information.")
    };
    let inner = text
        .trim()
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .ok_or_else(malformed)?;
    let mut items = Vec::new();
    if inner.trim().is_empty() {
        return Ok(items);
    }
    let mut letters = inner.chars().peekable();
    loop {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        let mut item = String::new();
        let quoted = letters.next_if_eq(&'"').is_some();
        loop {
            match letters.next() {
                Some('\\') => item.push(letters.next().ok_or_else(malformed)?),
                Some('"') if quoted => break,
                Some(letter @ ('{' | '}')) if !quoted => {
                    let _ = letter;
                    return Err(SqlError::unsupported("a multidimensional array"));
                }
                Some(',') if !quoted => {
                    items.push(unquoted(&item));
                    item = String::new();
                    while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
                    if letters.peek() == Some(&'"') {
                        break;
                    }
                }
                Some(letter) => item.push(letter),
                None if quoted => return Err(malformed()),
                None => {
                    items.push(unquoted(&item));
                    return Ok(items);
                }
            }
        }
        if quoted {
            items.push(Some(item));
            while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
            match letters.next() {
                Some(',') => {}
                None => return Ok(items),
                Some(_) => return Err(malformed()),
            }
        }
    }
}

fn unquoted(item: &str) -> Option<String> {
    let item = item.trim();
    (!item.eq_ignore_ascii_case("null")).then(|| item.to_owned())
}
