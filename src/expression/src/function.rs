//! The built-in operators and functions, by what they do. Overloads for different types share one id: the
//! arguments' types tell them apart.

use serde::{Deserialize, Serialize};

/// A built-in operator or function. New ones go to the end: the position is the wire form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it; `signatures` ties them to SQL's
pub enum Function {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Negate,
    UnaryPlus,
    BitAnd,
    BitOr,
    BitXor,
    BitNot,
    ShiftLeft,
    ShiftRight,
    Concatenate,
    RegexMatches,
    RegexMatchesInsensitive,
    RegexNotMatches,
    RegexNotMatchesInsensitive,
    Absolute,
    Ceil,
    Floor,
    Round,
    Truncate,
    SquareRoot,
    CubeRoot,
    Exponential,
    NaturalLogarithm,
    Logarithm,
    Sign,
    IntegerQuotient,
    GreatestCommonDivisor,
    LeastCommonMultiple,
    Pi,
    Degrees,
    Radians,
    Sine,
    Cosine,
    Tangent,
    Cotangent,
    ArcSine,
    ArcCosine,
    ArcTangent,
    ArcTangent2,
    Scale,
    MinimumScale,
    TrimScale,
    Factorial,
    Lower,
    Upper,
    Initcap,
    CharacterLength,
    OctetLength,
    BitLength,
    Substring,
    SubstringRegex,
    Left,
    Right,
    TrimBoth,
    TrimLeft,
    TrimRight,
    PadLeft,
    PadRight,
    Replace,
    Position,
    Repeat,
    Reverse,
    Concat,
    ConcatWithSeparator,
    SplitPart,
    Ascii,
    Chr,
    Md5,
    StartsWith,
    Translate,
    Overlay,
    ToHex,
    Encode,
    Decode,
    RegexReplace,
    QuoteLiteral,
    QuoteIdentifier,
    Now,
    CurrentDate,
    LocalTimestamp,
    LocalTime,
    DateTrunc,
    DatePart,
    Extract,
    Age,
    MakeDate,
    MakeTime,
    MakeTimestamp,
    ToTimestamp,
    ToDate,
    ToChar,
    JustifyDays,
    JustifyHours,
    JustifyInterval,
    IsFinite,
    TimeZone,
    DateBin,
    MakeInterval,
}

impl Function {
    /// Whether a NULL argument makes the result NULL without a look at the others.
    pub fn is_strict(self) -> bool {
        !matches!(self, Self::Concat | Self::ConcatWithSeparator)
    }

    /// Whether the result depends on the transaction's time.
    pub fn needs_clock(self) -> bool {
        matches!(
            self,
            Self::Now | Self::CurrentDate | Self::LocalTimestamp | Self::LocalTime
        )
    }

    /// Whether this is one of `= <> < <= > >=`.
    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            Self::Equal
                | Self::NotEqual
                | Self::Less
                | Self::LessOrEqual
                | Self::Greater
                | Self::GreaterOrEqual
        )
    }

    /// The comparison that holds when the sides change places; `None` if this is none.
    pub fn commuted(self) -> Option<Self> {
        Some(match self {
            Self::Equal => Self::Equal,
            Self::NotEqual => Self::NotEqual,
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            _ => return None,
        })
    }

    /// The comparison that holds exactly when this does not (of values that are not NULL); `None` if this is none.
    pub fn negated(self) -> Option<Self> {
        Some(match self {
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Greater => Self::LessOrEqual,
            Self::GreaterOrEqual => Self::Less,
            _ => return None,
        })
    }
}
