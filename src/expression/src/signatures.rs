//! SQL's names for the built-in operators and functions, with the types that they take: the rows of
//! `pg_operator` and `pg_proc` that we have.

use neorunbase_types::SqlType;

use crate::function::Function as F;

/// One overload.
#[derive(Debug)]
pub(crate) struct Signature {
    pub name: &'static str,
    pub arguments: &'static [SqlType],
    pub result: SqlType,
    pub function: F,
}

const BOOL: SqlType = SqlType::Boolean;
const INT2: SqlType = SqlType::SmallInt;
const INT4: SqlType = SqlType::Integer;
const INT8: SqlType = SqlType::BigInt;
const FLOAT4: SqlType = SqlType::Real;
const FLOAT8: SqlType = SqlType::DoublePrecision;
const NUMERIC: SqlType = SqlType::Numeric(None);
const TEXT: SqlType = SqlType::Text;
const BPCHAR: SqlType = SqlType::Char(0);
const NAME: SqlType = SqlType::Name;
const BYTEA: SqlType = SqlType::Bytea;
const DATE: SqlType = SqlType::Date;
const TIME: SqlType = SqlType::Time;
const TS: SqlType = SqlType::Timestamp;
const TSTZ: SqlType = SqlType::TimestampTz;
const INTERVAL: SqlType = SqlType::Interval;
const UUID: SqlType = SqlType::Uuid;
const OID: SqlType = SqlType::Oid;

const fn s(name: &'static str, arguments: &'static [SqlType], result: SqlType, function: F) -> Signature {
    Signature {
        name,
        arguments,
        result,
        function,
    }
}

/// Expands to the overloads of a name, each `(arguments) -> result`.
macro_rules! overloads {
    ($($name:literal $function:ident: $(($($argument:ident),*) -> $result:ident),+;)*) => {
        &[$($(s($name, &[$($argument),*], $result, F::$function),)+)*]
    };
}

/// Binary operators.
pub(crate) const BINARY_OPERATORS: &[Signature] = overloads! {
    "+" Add: (INT2, INT2) -> INT2, (INT4, INT4) -> INT4, (INT8, INT8) -> INT8, (FLOAT4, FLOAT4) -> FLOAT4,
        (FLOAT8, FLOAT8) -> FLOAT8, (FLOAT4, FLOAT8) -> FLOAT8, (FLOAT8, FLOAT4) -> FLOAT8, (NUMERIC, NUMERIC) -> NUMERIC, (DATE, INT4) -> DATE, (INT4, DATE) -> DATE,
        (DATE, INTERVAL) -> TS, (INTERVAL, DATE) -> TS, (DATE, TIME) -> TS, (TIME, DATE) -> TS,
        (INTERVAL, INTERVAL) -> INTERVAL, (TIME, INTERVAL) -> TIME, (INTERVAL, TIME) -> TIME,
        (TS, INTERVAL) -> TS, (INTERVAL, TS) -> TS, (TSTZ, INTERVAL) -> TSTZ, (INTERVAL, TSTZ) -> TSTZ;
    "-" Subtract: (INT2, INT2) -> INT2, (INT4, INT4) -> INT4, (INT8, INT8) -> INT8, (FLOAT4, FLOAT4) -> FLOAT4,
        (FLOAT8, FLOAT8) -> FLOAT8, (FLOAT4, FLOAT8) -> FLOAT8, (FLOAT8, FLOAT4) -> FLOAT8, (NUMERIC, NUMERIC) -> NUMERIC, (DATE, DATE) -> INT4, (DATE, INT4) -> DATE,
        (DATE, INTERVAL) -> TS, (INTERVAL, INTERVAL) -> INTERVAL, (TIME, INTERVAL) -> TIME,
        (TIME, TIME) -> INTERVAL, (TS, INTERVAL) -> TS, (TS, TS) -> INTERVAL, (TSTZ, INTERVAL) -> TSTZ,
        (TSTZ, TSTZ) -> INTERVAL;
    "*" Multiply: (INT2, INT2) -> INT2, (INT4, INT4) -> INT4, (INT8, INT8) -> INT8, (FLOAT4, FLOAT4) -> FLOAT4,
        (FLOAT8, FLOAT8) -> FLOAT8, (FLOAT4, FLOAT8) -> FLOAT8, (FLOAT8, FLOAT4) -> FLOAT8, (NUMERIC, NUMERIC) -> NUMERIC, (INTERVAL, FLOAT8) -> INTERVAL,
        (FLOAT8, INTERVAL) -> INTERVAL;
    "/" Divide: (INT2, INT2) -> INT2, (INT4, INT4) -> INT4, (INT8, INT8) -> INT8, (FLOAT4, FLOAT4) -> FLOAT4,
        (FLOAT8, FLOAT8) -> FLOAT8, (FLOAT4, FLOAT8) -> FLOAT8, (FLOAT8, FLOAT4) -> FLOAT8, (NUMERIC, NUMERIC) -> NUMERIC, (INTERVAL, FLOAT8) -> INTERVAL;
    "%" Modulo: (INT2, INT2) -> INT2, (INT4, INT4) -> INT4, (INT8, INT8) -> INT8, (NUMERIC, NUMERIC) -> NUMERIC;
    "^" Power: (FLOAT8, FLOAT8) -> FLOAT8, (NUMERIC, NUMERIC) -> NUMERIC;
    "&" BitAnd: (INT2, INT2) -> INT2, (INT4, INT4) -> INT4, (INT8, INT8) -> INT8;
    "|" BitOr: (INT2, INT2) -> INT2, (INT4, INT4) -> INT4, (INT8, INT8) -> INT8;
    "#" BitXor: (INT2, INT2) -> INT2, (INT4, INT4) -> INT4, (INT8, INT8) -> INT8;
    "<<" ShiftLeft: (INT2, INT4) -> INT2, (INT4, INT4) -> INT4, (INT8, INT4) -> INT8;
    ">>" ShiftRight: (INT2, INT4) -> INT2, (INT4, INT4) -> INT4, (INT8, INT4) -> INT8;
    "||" Concatenate: (TEXT, TEXT) -> TEXT, (BYTEA, BYTEA) -> BYTEA;
    "~" RegexMatches: (TEXT, TEXT) -> BOOL, (NAME, TEXT) -> BOOL, (BPCHAR, TEXT) -> BOOL;
    "~*" RegexMatchesInsensitive: (TEXT, TEXT) -> BOOL, (NAME, TEXT) -> BOOL, (BPCHAR, TEXT) -> BOOL;
    "!~" RegexNotMatches: (TEXT, TEXT) -> BOOL, (NAME, TEXT) -> BOOL, (BPCHAR, TEXT) -> BOOL;
    "!~*" RegexNotMatchesInsensitive: (TEXT, TEXT) -> BOOL, (NAME, TEXT) -> BOOL, (BPCHAR, TEXT) -> BOOL;
    "^@" StartsWith: (TEXT, TEXT) -> BOOL;
};

/// Prefix operators.
pub(crate) const PREFIX_OPERATORS: &[Signature] = overloads! {
    "-" Negate: (INT2) -> INT2, (INT4) -> INT4, (INT8) -> INT8, (FLOAT4) -> FLOAT4, (FLOAT8) -> FLOAT8,
        (NUMERIC) -> NUMERIC, (INTERVAL) -> INTERVAL;
    "+" UnaryPlus: (INT2) -> INT2, (INT4) -> INT4, (INT8) -> INT8, (FLOAT4) -> FLOAT4, (FLOAT8) -> FLOAT8,
        (NUMERIC) -> NUMERIC;
    "~" BitNot: (INT2) -> INT2, (INT4) -> INT4, (INT8) -> INT8;
    "@" Absolute: (INT2) -> INT2, (INT4) -> INT4, (INT8) -> INT8, (FLOAT4) -> FLOAT4, (FLOAT8) -> FLOAT8,
        (NUMERIC) -> NUMERIC;
    "|/" SquareRoot: (FLOAT8) -> FLOAT8;
    "||/" CubeRoot: (FLOAT8) -> FLOAT8;
};

/// Types that compare; others find their common type by implicit casts. Of PostgreSQL's operators on two different
/// types only those of floats are here: they alone decide what an integer or numeric beside a `real` becomes.
pub(crate) const COMPARABLE: &[[SqlType; 2]] = &[
    [BOOL, BOOL],
    [INT2, INT2],
    [INT4, INT4],
    [INT8, INT8],
    [FLOAT4, FLOAT4],
    [FLOAT8, FLOAT8],
    [FLOAT4, FLOAT8],
    [FLOAT8, FLOAT4],
    [NUMERIC, NUMERIC],
    [TEXT, TEXT],
    [BPCHAR, BPCHAR],
    [NAME, NAME],
    [BYTEA, BYTEA],
    [DATE, DATE],
    [TIME, TIME],
    [TS, TS],
    [TSTZ, TSTZ],
    [INTERVAL, INTERVAL],
    [UUID, UUID],
    [OID, OID],
];

/// Functions.
pub(crate) const FUNCTIONS: &[Signature] = overloads! {
    "abs" Absolute: (INT2) -> INT2, (INT4) -> INT4, (INT8) -> INT8, (FLOAT4) -> FLOAT4, (FLOAT8) -> FLOAT8,
        (NUMERIC) -> NUMERIC;
    "ceil" Ceil: (FLOAT8) -> FLOAT8, (NUMERIC) -> NUMERIC;
    "ceiling" Ceil: (FLOAT8) -> FLOAT8, (NUMERIC) -> NUMERIC;
    "floor" Floor: (FLOAT8) -> FLOAT8, (NUMERIC) -> NUMERIC;
    "round" Round: (FLOAT8) -> FLOAT8, (NUMERIC) -> NUMERIC, (NUMERIC, INT4) -> NUMERIC;
    "trunc" Truncate: (FLOAT8) -> FLOAT8, (NUMERIC) -> NUMERIC, (NUMERIC, INT4) -> NUMERIC;
    "mod" Modulo: (INT2, INT2) -> INT2, (INT4, INT4) -> INT4, (INT8, INT8) -> INT8, (NUMERIC, NUMERIC) -> NUMERIC;
    "power" Power: (FLOAT8, FLOAT8) -> FLOAT8, (NUMERIC, NUMERIC) -> NUMERIC;
    "pow" Power: (FLOAT8, FLOAT8) -> FLOAT8, (NUMERIC, NUMERIC) -> NUMERIC;
    "sqrt" SquareRoot: (FLOAT8) -> FLOAT8, (NUMERIC) -> NUMERIC;
    "cbrt" CubeRoot: (FLOAT8) -> FLOAT8;
    "exp" Exponential: (FLOAT8) -> FLOAT8, (NUMERIC) -> NUMERIC;
    "ln" NaturalLogarithm: (FLOAT8) -> FLOAT8, (NUMERIC) -> NUMERIC;
    "log" Logarithm: (FLOAT8) -> FLOAT8, (NUMERIC) -> NUMERIC, (NUMERIC, NUMERIC) -> NUMERIC;
    "log10" Logarithm: (FLOAT8) -> FLOAT8, (NUMERIC) -> NUMERIC;
    "sign" Sign: (FLOAT8) -> FLOAT8, (NUMERIC) -> NUMERIC;
    "div" IntegerQuotient: (NUMERIC, NUMERIC) -> NUMERIC;
    "gcd" GreatestCommonDivisor: (INT4, INT4) -> INT4, (INT8, INT8) -> INT8, (NUMERIC, NUMERIC) -> NUMERIC;
    "lcm" LeastCommonMultiple: (INT4, INT4) -> INT4, (INT8, INT8) -> INT8, (NUMERIC, NUMERIC) -> NUMERIC;
    "pi" Pi: () -> FLOAT8;
    "degrees" Degrees: (FLOAT8) -> FLOAT8;
    "radians" Radians: (FLOAT8) -> FLOAT8;
    "sin" Sine: (FLOAT8) -> FLOAT8;
    "cos" Cosine: (FLOAT8) -> FLOAT8;
    "tan" Tangent: (FLOAT8) -> FLOAT8;
    "cot" Cotangent: (FLOAT8) -> FLOAT8;
    "asin" ArcSine: (FLOAT8) -> FLOAT8;
    "acos" ArcCosine: (FLOAT8) -> FLOAT8;
    "atan" ArcTangent: (FLOAT8) -> FLOAT8;
    "atan2" ArcTangent2: (FLOAT8, FLOAT8) -> FLOAT8;
    "scale" Scale: (NUMERIC) -> INT4;
    "min_scale" MinimumScale: (NUMERIC) -> INT4;
    "trim_scale" TrimScale: (NUMERIC) -> NUMERIC;
    "factorial" Factorial: (INT8) -> NUMERIC;
    "lower" Lower: (TEXT) -> TEXT;
    "upper" Upper: (TEXT) -> TEXT;
    "initcap" Initcap: (TEXT) -> TEXT;
    "length" CharacterLength: (TEXT) -> INT4, (BPCHAR) -> INT4, (BYTEA) -> INT4;
    "char_length" CharacterLength: (TEXT) -> INT4, (BPCHAR) -> INT4;
    "character_length" CharacterLength: (TEXT) -> INT4, (BPCHAR) -> INT4;
    "octet_length" OctetLength: (TEXT) -> INT4, (BPCHAR) -> INT4, (BYTEA) -> INT4;
    "bit_length" BitLength: (TEXT) -> INT4, (BYTEA) -> INT4;
    "substring" Substring: (TEXT, INT4) -> TEXT, (TEXT, INT4, INT4) -> TEXT, (BYTEA, INT4) -> BYTEA,
        (BYTEA, INT4, INT4) -> BYTEA;
    "substring" SubstringRegex: (TEXT, TEXT) -> TEXT;
    "substr" Substring: (TEXT, INT4) -> TEXT, (TEXT, INT4, INT4) -> TEXT, (BYTEA, INT4) -> BYTEA,
        (BYTEA, INT4, INT4) -> BYTEA;
    "left" Left: (TEXT, INT4) -> TEXT;
    "right" Right: (TEXT, INT4) -> TEXT;
    "btrim" TrimBoth: (TEXT) -> TEXT, (TEXT, TEXT) -> TEXT, (BYTEA, BYTEA) -> BYTEA;
    "trim" TrimBoth: (TEXT) -> TEXT, (TEXT, TEXT) -> TEXT, (BYTEA, BYTEA) -> BYTEA;
    "ltrim" TrimLeft: (TEXT) -> TEXT, (TEXT, TEXT) -> TEXT, (BYTEA, BYTEA) -> BYTEA;
    "rtrim" TrimRight: (TEXT) -> TEXT, (TEXT, TEXT) -> TEXT, (BYTEA, BYTEA) -> BYTEA;
    "lpad" PadLeft: (TEXT, INT4) -> TEXT, (TEXT, INT4, TEXT) -> TEXT;
    "rpad" PadRight: (TEXT, INT4) -> TEXT, (TEXT, INT4, TEXT) -> TEXT;
    "replace" Replace: (TEXT, TEXT, TEXT) -> TEXT;
    "position" Position: (TEXT, TEXT) -> INT4, (BYTEA, BYTEA) -> INT4;
    "strpos" Position: (TEXT, TEXT) -> INT4;
    "repeat" Repeat: (TEXT, INT4) -> TEXT;
    "reverse" Reverse: (TEXT) -> TEXT;
    "split_part" SplitPart: (TEXT, TEXT, INT4) -> TEXT;
    "ascii" Ascii: (TEXT) -> INT4;
    "chr" Chr: (INT4) -> TEXT;
    "md5" Md5: (TEXT) -> TEXT, (BYTEA) -> TEXT;
    "starts_with" StartsWith: (TEXT, TEXT) -> BOOL;
    "translate" Translate: (TEXT, TEXT, TEXT) -> TEXT;
    "overlay" Overlay: (TEXT, TEXT, INT4) -> TEXT, (TEXT, TEXT, INT4, INT4) -> TEXT;
    "to_hex" ToHex: (INT4) -> TEXT, (INT8) -> TEXT;
    "encode" Encode: (BYTEA, TEXT) -> TEXT;
    "decode" Decode: (TEXT, TEXT) -> BYTEA;
    "regexp_replace" RegexReplace: (TEXT, TEXT, TEXT) -> TEXT, (TEXT, TEXT, TEXT, TEXT) -> TEXT;
    "quote_literal" QuoteLiteral: (TEXT) -> TEXT;
    "quote_ident" QuoteIdentifier: (TEXT) -> TEXT;
    "now" Now: () -> TSTZ;
    "current_timestamp" Now: () -> TSTZ;
    "transaction_timestamp" Now: () -> TSTZ;
    "statement_timestamp" Now: () -> TSTZ;
    "current_date" CurrentDate: () -> DATE;
    "localtimestamp" LocalTimestamp: () -> TS;
    "localtime" LocalTime: () -> TIME;
    "date_trunc" DateTrunc: (TEXT, TS) -> TS, (TEXT, TSTZ) -> TSTZ, (TEXT, INTERVAL) -> INTERVAL;
    "date_part" DatePart: (TEXT, DATE) -> FLOAT8, (TEXT, TIME) -> FLOAT8, (TEXT, TS) -> FLOAT8,
        (TEXT, TSTZ) -> FLOAT8, (TEXT, INTERVAL) -> FLOAT8;
    "extract" Extract: (TEXT, DATE) -> NUMERIC, (TEXT, TIME) -> NUMERIC, (TEXT, TS) -> NUMERIC,
        (TEXT, TSTZ) -> NUMERIC, (TEXT, INTERVAL) -> NUMERIC;
    "age" Age: (TS, TS) -> INTERVAL, (TSTZ, TSTZ) -> INTERVAL;
    "make_date" MakeDate: (INT4, INT4, INT4) -> DATE;
    "make_time" MakeTime: (INT4, INT4, FLOAT8) -> TIME;
    "make_timestamp" MakeTimestamp: (INT4, INT4, INT4, INT4, INT4, FLOAT8) -> TS;
    "make_timestamptz" MakeTimestamp: (INT4, INT4, INT4, INT4, INT4, FLOAT8) -> TSTZ;
    "make_interval" MakeInterval: () -> INTERVAL, (INT4) -> INTERVAL, (INT4, INT4) -> INTERVAL,
        (INT4, INT4, INT4) -> INTERVAL, (INT4, INT4, INT4, INT4) -> INTERVAL,
        (INT4, INT4, INT4, INT4, INT4) -> INTERVAL, (INT4, INT4, INT4, INT4, INT4, INT4) -> INTERVAL,
        (INT4, INT4, INT4, INT4, INT4, INT4, FLOAT8) -> INTERVAL;
    "to_timestamp" ToTimestamp: (FLOAT8) -> TSTZ, (TEXT, TEXT) -> TSTZ;
    "to_date" ToDate: (TEXT, TEXT) -> DATE;
    "to_char" ToChar: (TS, TEXT) -> TEXT, (TSTZ, TEXT) -> TEXT, (INTERVAL, TEXT) -> TEXT, (INT4, TEXT) -> TEXT,
        (INT8, TEXT) -> TEXT, (FLOAT4, TEXT) -> TEXT, (FLOAT8, TEXT) -> TEXT, (NUMERIC, TEXT) -> TEXT;
    "justify_days" JustifyDays: (INTERVAL) -> INTERVAL;
    "justify_hours" JustifyHours: (INTERVAL) -> INTERVAL;
    "justify_interval" JustifyInterval: (INTERVAL) -> INTERVAL;
    "isfinite" IsFinite: (DATE) -> BOOL, (TS) -> BOOL, (TSTZ) -> BOOL, (INTERVAL) -> BOOL;
    "timezone" TimeZone: (TEXT, TS) -> TSTZ, (TEXT, TSTZ) -> TS;
    "date_bin" DateBin: (INTERVAL, TS, TS) -> TS, (INTERVAL, TSTZ, TSTZ) -> TSTZ;
};
