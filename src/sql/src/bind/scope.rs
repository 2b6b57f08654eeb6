//! Which columns a name may mean.

use neorunbase_expression::Expression;
use neorunbase_types::{Result, SqlError, SqlState};
use sqlparser::ast::Ident;

/// A column that can be named.
#[derive(Clone, Debug)]
pub(crate) struct ScopeColumn {
    pub(crate) name: String,
    pub(crate) value: Expression,
}

/// A relation of a FROM clause.
#[derive(Clone, Debug)]
pub(crate) struct ScopeRelation {
    /// Its alias, or the table's name.
    pub(crate) name: String,
    /// The table's schema, unless an alias hides it.
    pub(crate) schema: Option<String>,
    /// The table's own name, where an alias hides it.
    pub(crate) hidden_name: Option<String>,
    /// Its qualifier in the logical plan.
    pub(crate) qualifier: String,
    pub(crate) columns: Vec<ScopeColumn>,
}

/// The relations of one query level.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub(crate) relations: Vec<ScopeRelation>,
    /// What `*` means, and unqualified names: columns merged by USING stand here once.
    pub(crate) star: Vec<ScopeColumn>,
}

impl Scope {
    pub(crate) fn of_relation(relation: ScopeRelation) -> Self {
        Self {
            star: relation.columns.clone(),
            relations: vec![relation],
        }
    }

    /// Adds the relations of another FROM item.
    pub(crate) fn append(&mut self, other: Self) -> Result<()> {
        for relation in &other.relations {
            let twice = self.relations.iter().any(|known| {
                known.name == relation.name
                    && (known.schema == relation.schema
                        || known.schema.is_none()
                        || relation.schema.is_none())
            });
            if twice {
                return Err(SqlError::new(
                    SqlState("42712"),
                    format!("table name \"{}\" specified more than once", relation.name),
                ));
            }
        }
        self.relations.extend(other.relations);
        self.star.extend(other.star);
        Ok(())
    }

    /// What an unqualified name means here, if anything.
    pub(crate) fn find(&self, name: &str) -> Result<Option<&Expression>> {
        let mut matches = self.star.iter().filter(|column| column.name == name);
        let first = matches.next();
        if matches.next().is_some() {
            return Err(SqlError::new(
                SqlState::AMBIGUOUS_COLUMN,
                format!("column reference \"{name}\" is ambiguous"),
            ));
        }
        Ok(first.map(|column| &column.value))
    }

    /// The relation that `[schema.]name` means here, if any.
    pub(crate) fn relation(&self, schema: Option<&str>, name: &str) -> Result<Option<&ScopeRelation>> {
        let mut matches = self.relations.iter().filter(|relation| {
            relation.name == name && (schema.is_none() || relation.schema.as_deref() == schema)
        });
        let first = matches.next();
        if matches.next().is_some() {
            return Err(SqlError::new(
                SqlState("42P09"),
                format!("table reference \"{name}\" is ambiguous"),
            ));
        }
        Ok(first)
    }
}

/// Splits `[[database.]schema.]relation.column`.
pub(crate) fn split_column(parts: &[Ident]) -> Result<(Option<(Option<&str>, &str)>, &str)> {
    match parts {
        [column] => Ok((None, &column.value)),
        [relation, column] => Ok((Some((None, &relation.value)), &column.value)),
        [schema, relation, column] | [_, schema, relation, column] => {
            Ok((Some((Some(&schema.value), &relation.value)), &column.value))
        }
        _ => Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            "improper qualified name (too many dotted names)",
        )),
    }
}

/// Finds a column in the innermost scope that knows the name. `scopes` is ordered outermost first.
pub(crate) fn resolve<'a>(scopes: &'a [Scope], parts: &[Ident]) -> Result<&'a Expression> {
    let (relation, column) = split_column(parts)?;
    let Some((schema, relation)) = relation else {
        for scope in scopes.iter().rev() {
            if let Some(found) = scope.find(column)? {
                return Ok(found);
            }
        }
        if scopes
            .iter()
            .any(|scope| scope.relations.iter().any(|relation| relation.name == column))
        {
            return Err(SqlError::unsupported("a whole row as a value").with_hint("Name its columns."));
        }
        return Err(SqlError::new(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{column}\" does not exist"),
        ));
    };
    for scope in scopes.iter().rev() {
        if let Some(found) = scope.relation(schema, relation)? {
            let mut matches = found.columns.iter().filter(|candidate| candidate.name == column);
            let first = matches.next();
            if matches.next().is_some() {
                return Err(SqlError::new(
                    SqlState::AMBIGUOUS_COLUMN,
                    format!("column reference \"{column}\" is ambiguous"),
                ));
            }
            return first.map(|column| &column.value).ok_or_else(|| {
                SqlError::new(
                    SqlState::UNDEFINED_COLUMN,
                    format!("column {relation}.{column} does not exist"),
                )
            });
        }
    }
    Err(missing_relation(scopes, relation))
}

/// `missing FROM-clause entry` and its friendlier sibling.
pub(crate) fn missing_relation(scopes: &[Scope], relation: &str) -> Box<SqlError> {
    let hidden = scopes
        .iter()
        .flat_map(|scope| &scope.relations)
        .find(|known| known.hidden_name.as_deref() == Some(relation));
    match hidden {
        Some(known) => SqlError::new(
            SqlState::UNDEFINED_TABLE,
            format!("invalid reference to FROM-clause entry for table \"{relation}\""),
        )
        .with_hint(format!(
            "Perhaps you meant to reference the table alias \"{}\".",
            known.name
        )),
        None => SqlError::new(
            SqlState::UNDEFINED_TABLE,
            format!("missing FROM-clause entry for table \"{relation}\""),
        ),
    }
}
