//! Functions that look things up in the catalog: each becomes a CASE over what there is when the statement is
//! analysed.

use neorunbase_expression::{Expression, Function, coerce, resolve_operator};
use neorunbase_types::{CastContext, Datum, Result, SqlError, SqlState, SqlType};
use sqlparser::ast::Expr;

use super::pg_catalog::{all_indexes, all_types};
use super::{INFORMATION_SCHEMA, PG_CATALOG, schema_oid, user_oid};
use crate::bind::Binder;

impl Binder<'_> {
    /// The look-up, if `name` is such a function.
    pub(crate) fn bind_catalog_function(
        &mut self,
        name: &str,
        arguments: &[Expr],
    ) -> Result<Option<Expression>> {
        let context = self.context;
        let null = || Ok(Some(Expression::null(SqlType::Text)));
        Ok(Some(match (name, arguments) {
            ("pg_get_userbyid", [oid]) => {
                let users = context.catalog.users.keys();
                let known = users
                    .map(|user| (user_oid(context, user), user.clone()))
                    .collect();
                self.look_up(oid, known)?
            }
            ("pg_get_indexdef", [oid]) => {
                let known = all_indexes(context)
                    .map(|index| (index.oid, index.definition()))
                    .collect();
                self.look_up(oid, known)?
            }
            ("pg_get_indexdef", [oid, column, _pretty]) => {
                let whole = self.bind_expression(column)?;
                if !matches!(
                    whole,
                    Expression::Literal {
                        value: Datum::Integer(0),
                        ..
                    }
                ) {
                    return Err(SqlError::unsupported("pg_get_indexdef of one column"));
                }
                let known = all_indexes(context)
                    .map(|index| (index.oid, index.definition()))
                    .collect();
                self.look_up(oid, known)?
            }
            ("pg_get_constraintdef", [oid] | [oid, _]) => {
                let known = all_indexes(context)
                    .filter(|index| index.primary)
                    .map(|index| (index.constraint_oid(), index.constraint_definition()))
                    .collect();
                self.look_up(oid, known)?
            }
            // Defaults are kept as their text.
            ("pg_get_expr", [text, _] | [text, _, _]) => {
                let text = self.bind_expression(text)?;
                coerce(text, &SqlType::Text, CastContext::Explicit)?
            }
            ("format_type", [oid, modifier]) => self.format_type(oid, modifier)?,
            ("pg_encoding_to_char", [number]) => self.look_up(number, vec![(6, "UTF8".to_owned())])?,
            ("obj_description" | "shobj_description", [_] | [_, _]) | ("col_description", [_, _]) => {
                return null();
            }
            ("pg_get_partkeydef" | "pg_get_viewdef" | "pg_get_ruledef" | "pg_get_triggerdef", _) => {
                return null();
            }
            ("pg_relation_is_publishable", [_]) => Expression::boolean(true),
            (
                "has_table_privilege"
                | "has_schema_privilege"
                | "has_database_privilege"
                | "has_column_privilege"
                | "has_any_column_privilege"
                | "pg_has_role",
                _,
            ) => Expression::boolean(true),
            ("array_to_string", [list, ..]) => {
                // Lists of the catalogs are NULL here.
                match self.bind_expression(list)? {
                    list if list.sql_type() == SqlType::Text => list,
                    _ => return Err(SqlError::unsupported("array_to_string")),
                }
            }
            _ => return Ok(None),
        }))
    }

    fn look_up(&mut self, key: &Expr, known: Vec<(u32, String)>) -> Result<Expression> {
        let key = self.bind_expression(key)?;
        look_up(&key, known, None)
    }

    /// `format_type(oid, modifier)`
    fn format_type(&mut self, oid: &Expr, modifier: &Expr) -> Result<Expression> {
        let (oid, modifier) = (self.bind_expression(oid)?, self.bind_expression(modifier)?);
        let modifier = coerce(modifier, &SqlType::Integer, CastContext::Implicit)?;
        let number = |value: i32| Expression::literal(Datum::Integer(value), SqlType::Integer);
        let text = |value: &str| Expression::literal(Datum::text(value), SqlType::Text);
        let call = |function, arguments, sql_type| Expression::Call {
            function,
            arguments,
            sql_type,
        };
        let integer = |function, left: Expression, right| call(function, vec![left, right], SqlType::Integer);
        let printed = |value: Expression| Expression::Cast {
            argument: Box::new(value),
            from: SqlType::Integer,
            to: SqlType::Text,
            explicit: true,
        };
        let concat = |parts: Vec<Expression>| call(Function::Concat, parts, SqlType::Text);
        let mut branches = Vec::new();
        for sql_type in all_types() {
            let is_type = equals(&oid, sql_type.oid())?;
            let plain = sql_type.without_modifier().base_name();
            let without = integer(Function::Subtract, modifier.clone(), number(4));
            let with = match sql_type {
                SqlType::VarChar(_) | SqlType::Char(_) => {
                    concat(vec![text(&format!("{plain}(")), printed(without), text(")")])
                }
                SqlType::Numeric(_) => {
                    let precision = integer(Function::ShiftRight, without.clone(), number(16));
                    let scale = integer(Function::BitAnd, without, number(0x7ff));
                    concat(vec![
                        text("numeric("),
                        printed(precision),
                        text(","),
                        printed(scale),
                        text(")"),
                    ])
                }
                _ => text(plain),
            };
            let has_modifier = call(
                Function::GreaterOrEqual,
                vec![modifier.clone(), number(4)],
                SqlType::Boolean,
            );
            branches.push((Expression::And(vec![is_type.clone(), has_modifier]), with));
            let bare = if matches!(sql_type, SqlType::Char(_)) {
                "bpchar"
            } else {
                plain
            };
            branches.push((is_type, text(bare)));
        }
        Ok(Expression::Case {
            branches,
            otherwise: Some(Box::new(text("???"))),
            sql_type: SqlType::Text,
        })
    }

    /// A cast to `regclass`, `regtype`, `regnamespace` or `regrole`: a literal name becomes the oid, an oid becomes
    /// the name. `None` if the type is none of these.
    pub(crate) fn bind_registry_cast(&mut self, type_name: &str, inner: &Expr) -> Result<Option<Expression>> {
        let context = self.context;
        let known: Vec<(u32, String)> = match type_name {
            "regclass" => {
                let tables = context
                    .catalog
                    .tables
                    .values()
                    .map(|table| (table.id, table.name.clone()));
                let indexes = all_indexes(context).map(|index| (index.oid, index.name.to_owned()));
                let system = super::definitions::ALL
                    .iter()
                    .map(|table| (table.oid, table.name.to_owned()));
                tables.chain(indexes).chain(system).collect()
            }
            "regtype" => all_types()
                .iter()
                .map(|sql_type| (sql_type.oid(), sql_type.base_name().to_owned()))
                .collect(),
            "regnamespace" => {
                let system = [
                    (PG_CATALOG, "pg_catalog".to_owned()),
                    (INFORMATION_SCHEMA, "information_schema".to_owned()),
                ];
                let schemas = context
                    .catalog
                    .schemas
                    .iter()
                    .map(|schema| (schema_oid(context, schema), schema.clone()));
                system.into_iter().chain(schemas).collect()
            }
            "regrole" => context
                .catalog
                .users
                .keys()
                .map(|user| (user_oid(context, user), user.clone()))
                .collect(),
            _ => return Ok(None),
        };
        if type_name == "regclass" && matches!(inner, Expr::Value(_)) {
            return self.bind_regclass(inner).map(Some);
        }
        match self.bind_expression(inner)? {
            Expression::Literal {
                value: Datum::Text(name),
                ..
            } => {
                let wanted = name.trim_start_matches("pg_catalog.");
                let by_name = known.iter().find(|(_, name)| name == wanted).map(|(oid, _)| *oid);
                let by_type = all_types()
                    .into_iter()
                    .find(|sql_type| sql_type.type_name() == wanted && type_name == "regtype");
                match by_name.or_else(|| by_type.map(|sql_type| sql_type.oid())) {
                    Some(oid) => Ok(Some(Expression::literal(Datum::Oid(oid), SqlType::Oid))),
                    None => Err(SqlError::new(
                        SqlState::UNDEFINED_OBJECT,
                        format!(
                            "{} \"{name}\" does not exist",
                            type_name.trim_start_matches("reg")
                        ),
                    )),
                }
            }
            oid => {
                let number = coerce(oid.clone(), &SqlType::Text, CastContext::Explicit)?;
                look_up(&oid, known, Some(number)).map(Some)
            }
        }
    }
}

fn equals(key: &Expression, oid: u32) -> Result<Expression> {
    let value = match key.sql_type() {
        SqlType::Oid => Expression::literal(Datum::Oid(oid), SqlType::Oid),
        _ => Expression::literal(Datum::BigInt(i64::from(oid)), SqlType::BigInt),
    };
    resolve_operator("=", Some(key.clone()), value)
}

/// The name that belongs to a number.
fn look_up(key: &Expression, known: Vec<(u32, String)>, otherwise: Option<Expression>) -> Result<Expression> {
    let branches = known
        .into_iter()
        .map(|(oid, name)| {
            Ok((
                equals(key, oid)?,
                Expression::literal(Datum::text(name), SqlType::Text),
            ))
        })
        .collect::<Result<_>>()?;
    Ok(Expression::Case {
        branches,
        otherwise: otherwise.map(Box::new),
        sql_type: SqlType::Text,
    })
}
