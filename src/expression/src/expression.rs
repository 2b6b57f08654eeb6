//! Typed expression trees. Every conversion is a node of its own, so evaluation never has to guess.

use neorunbase_types::{Datum, SqlType};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::depth::DepthGuard;
use crate::function::Function;

/// A column of a table, by the number that never changes.
pub type ColumnId = u32;

/// An expression over a row, parameters and the transaction's time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub enum Expression {
    /// A constant.
    Literal {
        /// Its value.
        value: Datum,
        /// Its type; `Unknown` (with a text or NULL value) until the context decides.
        sql_type: SqlType,
    },
    /// A value of the row.
    Input {
        /// Position in [`EvaluationContext::row`](crate::EvaluationContext::row).
        index: usize,
        /// Its type.
        sql_type: SqlType,
    },
    /// `$1` and so on.
    Parameter {
        /// Counted from 0.
        index: usize,
        /// Its type; `Unknown` until the context decides.
        sql_type: SqlType,
    },
    /// A conversion.
    Cast {
        /// What is converted.
        argument: Box<Expression>,
        /// The argument's type.
        from: SqlType,
        /// The result's type.
        to: SqlType,
        /// Written by the user: text that is too long is cut instead of refused.
        explicit: bool,
    },
    /// An operator or a function of values.
    Call {
        /// Which.
        function: Function,
        /// Arguments of the types that the function wants.
        arguments: Vec<Expression>,
        /// The result's type.
        sql_type: SqlType,
    },
    /// `AND` of all; evaluation stops at the first false.
    And(Vec<Expression>),
    /// `OR` of all; evaluation stops at the first true.
    Or(Vec<Expression>),
    /// `NOT`
    Not(Box<Expression>),
    /// `IS [NOT] NULL`
    IsNull {
        /// What is tested.
        argument: Box<Expression>,
        /// `IS NOT NULL`
        negated: bool,
    },
    /// `IS [NOT] TRUE`, `FALSE`, `UNKNOWN`
    IsBoolean {
        /// What is tested.
        argument: Box<Expression>,
        /// The truth value asked for; `None` is unknown.
        value: Option<bool>,
        /// `IS NOT`
        negated: bool,
    },
    /// `IS [NOT] DISTINCT FROM`; both sides have one type.
    IsDistinctFrom {
        /// Left side.
        left: Box<Expression>,
        /// Right side.
        right: Box<Expression>,
        /// `IS NOT DISTINCT FROM`
        negated: bool,
    },
    /// `CASE WHEN … THEN … ELSE … END`; `CASE x WHEN y` is written out as comparisons.
    Case {
        /// Conditions and their results.
        branches: Vec<(Expression, Expression)>,
        /// `ELSE`; NULL without.
        otherwise: Option<Box<Expression>>,
        /// The type of all results.
        sql_type: SqlType,
    },
    /// `COALESCE`
    Coalesce {
        /// Tried in order.
        arguments: Vec<Expression>,
        /// The type of all.
        sql_type: SqlType,
    },
    /// `NULLIF`; both sides have one type.
    NullIf {
        /// The result, unless equal to the other.
        left: Box<Expression>,
        /// What makes the result NULL.
        right: Box<Expression>,
    },
    /// `GREATEST`: of what is not NULL.
    Greatest {
        /// Candidates of one type.
        arguments: Vec<Expression>,
        /// The type of all.
        sql_type: SqlType,
    },
    /// `LEAST`: of what is not NULL.
    Least {
        /// Candidates of one type.
        arguments: Vec<Expression>,
        /// The type of all.
        sql_type: SqlType,
    },
    /// `[NOT] IN (…)`; all of one type.
    InList {
        /// What is looked for.
        argument: Box<Expression>,
        /// Where.
        list: Vec<Expression>,
        /// `NOT IN`
        negated: bool,
    },
    /// `[NOT] LIKE` and `ILIKE`
    Like {
        /// The text (or bytea).
        argument: Box<Expression>,
        /// The pattern.
        pattern: Box<Expression>,
        /// `ESCAPE`; a backslash without, nothing if empty.
        escape: Option<Box<Expression>>,
        /// `ILIKE`
        case_insensitive: bool,
        /// `NOT LIKE`
        negated: bool,
    },
}

impl Serialize for Expression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let _guard =
            DepthGuard::enter().ok_or_else(|| serde::de::Error::custom("expression is nested too deeply"))?;
        Self::deserialize(deserializer)
    }
}

impl Expression {
    /// A typed constant.
    pub fn literal(value: Datum, sql_type: SqlType) -> Self {
        Self::Literal { value, sql_type }
    }

    /// NULL of a type.
    pub fn null(sql_type: SqlType) -> Self {
        Self::Literal {
            value: Datum::Null,
            sql_type,
        }
    }

    /// A boolean constant.
    pub fn boolean(value: bool) -> Self {
        Self::Literal {
            value: Datum::Boolean(value),
            sql_type: SqlType::Boolean,
        }
    }

    /// A quoted literal (`Unknown` until its context decides).
    pub fn unknown(text: &str) -> Self {
        Self::Literal {
            value: Datum::Text(text.into()),
            sql_type: SqlType::Unknown,
        }
    }

    /// A column of the row.
    pub fn input(index: usize, sql_type: SqlType) -> Self {
        Self::Input { index, sql_type }
    }

    /// The type of the result.
    pub fn sql_type(&self) -> SqlType {
        match self {
            Self::Literal { sql_type, .. }
            | Self::Input { sql_type, .. }
            | Self::Parameter { sql_type, .. }
            | Self::Call { sql_type, .. }
            | Self::Case { sql_type, .. }
            | Self::Coalesce { sql_type, .. }
            | Self::Greatest { sql_type, .. }
            | Self::Least { sql_type, .. } => sql_type.clone(),
            Self::Cast { to, .. } => to.clone(),
            Self::NullIf { left, .. } => left.sql_type(),
            Self::And(_)
            | Self::Or(_)
            | Self::Not(_)
            | Self::IsNull { .. }
            | Self::IsBoolean { .. }
            | Self::IsDistinctFrom { .. }
            | Self::InList { .. }
            | Self::Like { .. } => SqlType::Boolean,
        }
    }

    /// Calls `visitor` with each direct part.
    pub fn for_each_child(&self, visitor: &mut dyn FnMut(&Expression)) {
        match self {
            Self::Literal { .. } | Self::Input { .. } | Self::Parameter { .. } => {}
            Self::Cast { argument, .. }
            | Self::Not(argument)
            | Self::IsNull { argument, .. }
            | Self::IsBoolean { argument, .. } => visitor(argument),
            Self::Call { arguments, .. }
            | Self::And(arguments)
            | Self::Or(arguments)
            | Self::Coalesce { arguments, .. }
            | Self::Greatest { arguments, .. }
            | Self::Least { arguments, .. } => arguments.iter().for_each(visitor),
            Self::IsDistinctFrom { left, right, .. } | Self::NullIf { left, right } => {
                visitor(left);
                visitor(right);
            }
            Self::Case {
                branches, otherwise, ..
            } => {
                for (condition, result) in branches {
                    visitor(condition);
                    visitor(result);
                }
                if let Some(otherwise) = otherwise {
                    visitor(otherwise);
                }
            }
            Self::InList { argument, list, .. } => {
                visitor(argument);
                list.iter().for_each(visitor);
            }
            Self::Like {
                argument,
                pattern,
                escape,
                ..
            } => {
                visitor(argument);
                visitor(pattern);
                if let Some(escape) = escape {
                    visitor(escape);
                }
            }
        }
    }

    /// Calls `visitor` with a mutable reference to each direct part.
    pub fn for_each_child_mut(&mut self, visitor: &mut dyn FnMut(&mut Expression)) {
        match self {
            Self::Literal { .. } | Self::Input { .. } | Self::Parameter { .. } => {}
            Self::Cast { argument, .. }
            | Self::Not(argument)
            | Self::IsNull { argument, .. }
            | Self::IsBoolean { argument, .. } => visitor(argument),
            Self::Call { arguments, .. }
            | Self::And(arguments)
            | Self::Or(arguments)
            | Self::Coalesce { arguments, .. }
            | Self::Greatest { arguments, .. }
            | Self::Least { arguments, .. } => arguments.iter_mut().for_each(visitor),
            Self::IsDistinctFrom { left, right, .. } | Self::NullIf { left, right } => {
                visitor(left);
                visitor(right);
            }
            Self::Case {
                branches, otherwise, ..
            } => {
                for (condition, result) in branches {
                    visitor(condition);
                    visitor(result);
                }
                if let Some(otherwise) = otherwise {
                    visitor(otherwise);
                }
            }
            Self::InList { argument, list, .. } => {
                visitor(argument);
                list.iter_mut().for_each(visitor);
            }
            Self::Like {
                argument,
                pattern,
                escape,
                ..
            } => {
                visitor(argument);
                visitor(pattern);
                if let Some(escape) = escape {
                    visitor(escape);
                }
            }
        }
    }

    /// Calls `visitor` with this node and all below, parents first.
    pub fn visit(&self, visitor: &mut dyn FnMut(&Expression)) {
        visitor(self);
        self.for_each_child(&mut |child| child.visit(visitor));
    }

    /// Whether this node or one below satisfies `predicate`.
    pub fn any(&self, predicate: &dyn Fn(&Expression) -> bool) -> bool {
        if predicate(self) {
            return true;
        }
        let mut found = false;
        self.for_each_child(&mut |child| found = found || child.any(predicate));
        found
    }

    /// Rebuilds the tree from its leaves up: `rewrite` gets each node with its parts already rewritten.
    #[must_use]
    pub fn rewrite(mut self, rewrite: &mut dyn FnMut(Expression) -> Expression) -> Self {
        self.for_each_child_mut(&mut |child| {
            let taken = std::mem::replace(child, Expression::null(SqlType::Unknown));
            *child = taken.rewrite(rewrite);
        });
        rewrite(self)
    }

    /// Renumbers inputs.
    #[must_use]
    pub fn map_inputs(self, map: &mut dyn FnMut(usize) -> usize) -> Self {
        self.rewrite(&mut |node| match node {
            Self::Input { index, sql_type } => Self::Input {
                index: map(index),
                sql_type,
            },
            other => other,
        })
    }

    /// Replaces inputs by expressions, as when a projection is put into a filter above it. Inputs without a
    /// replacement stay.
    #[must_use]
    pub fn substitute_inputs(self, replacements: &[Expression]) -> Self {
        self.rewrite(&mut |node| match node {
            Self::Input { index, .. } if index < replacements.len() => replacements[index].clone(),
            other => other,
        })
    }

    /// Positions of the inputs used, ascending, each once.
    pub fn inputs(&self) -> Vec<usize> {
        let mut inputs = Vec::new();
        self.visit(&mut |node| {
            if let Self::Input { index, .. } = node {
                inputs.push(*index);
            }
        });
        inputs.sort_unstable();
        inputs.dedup();
        inputs
    }

    /// Parameters used, with the types that were found for them, in order of appearance.
    pub fn parameters(&self) -> Vec<(usize, SqlType)> {
        let mut parameters = Vec::new();
        self.visit(&mut |node| {
            if let Self::Parameter { index, sql_type } = node {
                parameters.push((*index, sql_type.clone()));
            }
        });
        parameters
    }

    /// Replaces parameters by their values.
    #[must_use]
    pub fn bind_parameters(self, values: &[Datum]) -> Self {
        self.rewrite(&mut |node| match node {
            Self::Parameter { index, sql_type } if index < values.len() => Self::Literal {
                value: values[index].clone(),
                sql_type,
            },
            other => other,
        })
    }

    /// Whether the value depends on nothing: no row, no parameter, no clock.
    pub fn is_constant(&self) -> bool {
        !self.any(&|node| match node {
            Self::Input { .. } | Self::Parameter { .. } => true,
            Self::Call { function, .. } => function.needs_clock(),
            Self::Cast { from, to, .. } => Self::cast_needs_clock(from, to),
            _ => false,
        })
    }

    /// Whether the value does not depend on the row, so that one evaluation does for a whole statement.
    pub fn is_row_independent(&self) -> bool {
        !self.any(&|node| matches!(node, Self::Input { .. }))
    }

    /// Texts such as `now` make the conversion depend on the time.
    pub(crate) fn cast_needs_clock(from: &SqlType, to: &SqlType) -> bool {
        (from.is_string() || *from == SqlType::Unknown)
            && matches!(
                to,
                SqlType::Date | SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz
            )
    }

    /// Splits a conjunction into its parts; anything else is its own only part.
    pub fn into_conjuncts(self) -> Vec<Expression> {
        match self {
            Self::And(parts) => parts.into_iter().flat_map(Self::into_conjuncts).collect(),
            other => vec![other],
        }
    }

    /// The conjunction of all; `None` of nothing.
    pub fn conjunction(parts: Vec<Expression>) -> Option<Expression> {
        let mut parts: Vec<Expression> = parts.into_iter().flat_map(Self::into_conjuncts).collect();
        match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => Some(Self::And(parts)),
        }
    }
}
