//! Window functions.

use super::aggregates::AggregateFunction;

/// The window functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowFunction {
    RowNumber,
    Rank,
    DenseRank,
    PercentRank,
    CumeDist,
    Ntile,
    Lag,
    Lead,
    FirstValue,
    LastValue,
    NthValue,
    /// An aggregate over the window.
    Aggregate(AggregateFunction),
}

impl WindowFunction {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "row_number" => Self::RowNumber,
            "rank" => Self::Rank,
            "dense_rank" => Self::DenseRank,
            "percent_rank" => Self::PercentRank,
            "cume_dist" => Self::CumeDist,
            "ntile" => Self::Ntile,
            "lag" => Self::Lag,
            "lead" => Self::Lead,
            "first_value" => Self::FirstValue,
            "last_value" => Self::LastValue,
            "nth_value" => Self::NthValue,
            _ => return AggregateFunction::from_name(name).map(Self::Aggregate),
        })
    }
}

/// Whether the function makes sense with OVER only.
pub(crate) fn is_window_function(name: &str) -> bool {
    matches!(WindowFunction::from_name(name), Some(function) if !matches!(function, WindowFunction::Aggregate(_)))
}
