//! What a result column is called when nobody says.

use sqlparser::ast::{DataType, Expr, SetExpr};

use super::names::{name_of_type, parts};

/// The label of an expression, as PostgreSQL chooses it.
pub(crate) fn column_name(expression: &Expr) -> String {
    figure(expression).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// The name and whether it is a strong one (a column, a function) rather than a weak one (a type).
fn figure(expression: &Expr) -> Option<(String, bool)> {
    let strong = |name: &str| Some((name.to_owned(), true));
    match expression {
        Expr::Identifier(ident) => strong(&ident.value),
        Expr::CompoundIdentifier(idents) => idents.last().and_then(|ident| strong(&ident.value)),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => figure(inner),
        Expr::Function(function) => {
            let name = parts(&function.name)
                .ok()?
                .last()
                .map(|ident| ident.value.clone())?;
            strong(&name)
        }
        Expr::Cast { expr, data_type, .. } => match figure(expr) {
            Some((name, true)) => Some((name, true)),
            _ => Some((type_label(data_type), false)),
        },
        Expr::TypedString(typed) => Some((type_label(&typed.data_type), false)),
        Expr::Interval(_) => Some(("interval".to_owned(), false)),
        Expr::Case { else_result, .. } => match else_result.as_deref().and_then(figure) {
            Some((name, true)) => Some((name, true)),
            _ => Some(("case".to_owned(), false)),
        },
        Expr::Extract { .. } => strong("extract"),
        Expr::Position { .. } => strong("position"),
        Expr::Substring { .. } => strong("substring"),
        Expr::Trim { trim_where, .. } => strong(match trim_where {
            Some(sqlparser::ast::TrimWhereField::Leading) => "ltrim",
            Some(sqlparser::ast::TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        Expr::Overlay { .. } => strong("overlay"),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Floor { .. } => strong("floor"),
        Expr::AtTimeZone { .. } => strong("timezone"),
        Expr::Exists { negated: false, .. } => strong("exists"),
        Expr::Array(_) => strong("array"),
        Expr::Subquery(query) => match &*query.body {
            SetExpr::Select(select) => match select.projection.first()? {
                sqlparser::ast::SelectItem::UnnamedExpr(inner) => figure(inner),
                sqlparser::ast::SelectItem::ExprWithAlias { alias, .. } => strong(&alias.value),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// The name in `pg_type` that a type name stands for.
fn type_label(data_type: &DataType) -> String {
    super::types::bind_type(data_type).map_or_else(
        |_| name_of_type(data_type),
        |sql_type| sql_type.type_name().to_owned(),
    )
}
