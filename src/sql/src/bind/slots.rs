//! What an expression's inputs stand for while a statement is being bound. Each `Input(n)` of a bound expression
//! is a slot: a column of some relation, or something that only a query can compute (an aggregate, a window
//! function, a subquery).

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use neorunbase_expression::{ColumnId, Expression, Function};
use neorunbase_types::SqlType;

/// Names a slot; the `Input` of bound expressions.
pub(crate) type SlotId = usize;

/// What a slot is.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    Column(ColumnSlot),
    Aggregate(AggregateCall),
    Window(WindowCall),
    Subquery(SubqueryCall),
}

/// A column of a relation of some query level.
#[derive(Clone, Debug)]
pub(crate) struct ColumnSlot {
    /// The query it belongs to: 0 is the outermost.
    pub(crate) level: usize,
    /// The relation's qualifier in the logical plan; `None` for computed columns.
    pub(crate) qualifier: Option<String>,
    /// The column's name in the logical plan.
    pub(crate) column: String,
    pub(crate) sql_type: SqlType,
    pub(crate) nullable: bool,
    /// `relation.column` as the user knows them, for errors.
    pub(crate) display: String,
    /// Table and column ids of plain columns.
    pub(crate) origin: Option<(u32, ColumnId)>,
}

/// `function(DISTINCT arguments ORDER BY …) FILTER (WHERE …)`
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AggregateCall {
    pub(crate) level: usize,
    pub(crate) function: crate::query::aggregates::AggregateFunction,
    pub(crate) arguments: Vec<Expression>,
    pub(crate) distinct: bool,
    pub(crate) filter: Option<Expression>,
    pub(crate) order_by: Vec<SortKey>,
    pub(crate) sql_type: SqlType,
}

/// A window function call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WindowCall {
    pub(crate) level: usize,
    pub(crate) function: crate::query::windows::WindowFunction,
    pub(crate) arguments: Vec<Expression>,
    pub(crate) filter: Option<Expression>,
    pub(crate) partition_by: Vec<Expression>,
    pub(crate) order_by: Vec<SortKey>,
    pub(crate) frame: datafusion::logical_expr::WindowFrame,
    pub(crate) sql_type: SqlType,
}

/// A subquery in an expression.
#[derive(Clone, Debug)]
pub(crate) struct SubqueryCall {
    pub(crate) kind: SubqueryKind,
    pub(crate) plan: Arc<LogicalPlan>,
    /// Whether that column may be NULL.
    pub(crate) column_nullable: bool,
}

/// The forms of subquery.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SubqueryKind {
    /// `(SELECT …)`
    Scalar,
    /// `EXISTS (SELECT …)`
    Exists,
    /// `operand = ANY (SELECT …)`, which is IN, and its like with other comparisons.
    Any(Expression, Function),
}

/// One key of an ORDER BY.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SortKey {
    pub(crate) value: Expression,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
}

/// All slots of a statement.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    columns: BTreeMap<(Option<String>, String), SlotId>,
}

impl Slots {
    pub(crate) fn get(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(id)
    }

    pub(crate) fn column(&self, id: SlotId) -> Option<&ColumnSlot> {
        match self.get(id)? {
            Slot::Column(column) => Some(column),
            _ => None,
        }
    }

    /// The slot of a column; the same column always has the same slot, so that equal expressions are equal.
    pub(crate) fn add_column(&mut self, column: ColumnSlot) -> SlotId {
        let key = (column.qualifier.clone(), column.column.clone());
        if let Some(id) = self.columns.get(&key) {
            return *id;
        }
        let id = self.push(Slot::Column(column));
        self.columns.insert(key, id);
        id
    }

    /// Equal aggregate and window calls share a slot.
    pub(crate) fn add(&mut self, slot: Slot) -> SlotId {
        let known = self.slots.iter().position(|known| match (known, &slot) {
            (Slot::Aggregate(known), Slot::Aggregate(new)) => known == new,
            (Slot::Window(known), Slot::Window(new)) => known == new,
            _ => false,
        });
        match known {
            Some(index) => index,
            None => self.push(slot),
        }
    }

    /// The column slot with these names in the plan.
    pub(crate) fn find_column(&self, qualifier: Option<&str>, column: &str) -> Option<&ColumnSlot> {
        let key = (qualifier.map(str::to_owned), column.to_owned());
        self.columns.get(&key).and_then(|id| self.column(*id))
    }

    /// An outer join made the column nullable.
    pub(crate) fn mark_nullable(&mut self, id: SlotId) {
        if let Some(Slot::Column(column)) = self.slots.get_mut(id) {
            column.nullable = true;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    fn push(&mut self, slot: Slot) -> SlotId {
        self.slots.push(slot);
        self.slots.len() - 1
    }
}
