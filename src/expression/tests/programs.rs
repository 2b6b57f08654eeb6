//! Programs survive the wire, refuse hostile bytes, and do what they say.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use neorunbase_expression::{
    CheckedColumn, EvaluationContext, Expression, Function, InputColumn, NotNullCheck, ScanProgram,
    WriteProgram, coerce_for_column, resolve_in_list, resolve_operator,
};
use neorunbase_types::{Datum, SqlType, numeric};
use proptest::prelude::*;

/// The check of a table `t` with these integer columns.
fn not_null(columns: &[&str]) -> NotNullCheck {
    let columns = columns.iter().enumerate().map(|(input, name)| CheckedColumn {
        input,
        name: (*name).to_owned(),
        sql_type: SqlType::Integer,
        not_null: true,
    });
    NotNullCheck {
        schema: "public".to_owned(),
        table: "t".to_owned(),
        columns: columns.collect(),
    }
}

fn leaf() -> impl Strategy<Value = Expression> {
    prop_oneof![
        any::<i32>().prop_map(|value| Expression::literal(Datum::Integer(value), SqlType::Integer)),
        "[a-zé]{0,12}"
            .prop_map(|text| Expression::literal(Datum::Text(text.into()), SqlType::VarChar(Some(20)))),
        "-?[1-9][0-9]{0,30}\\.[0-9]{1,9}".prop_map(|text| {
            Expression::literal(
                Datum::Numeric(numeric::parse(&text).unwrap()),
                SqlType::Numeric(None),
            )
        }),
        prop::collection::vec(any::<u8>(), 0..9)
            .prop_map(|bytes| Expression::literal(Datum::Bytea(Bytes::from(bytes)), SqlType::Bytea)),
        (0_usize..3).prop_map(|index| Expression::input(index, SqlType::Integer)),
        (0_usize..3).prop_map(|index| Expression::Parameter {
            index,
            sql_type: SqlType::BigInt
        }),
        Just(Expression::null(SqlType::Boolean)),
    ]
}

fn tree() -> impl Strategy<Value = Expression> {
    leaf().prop_recursive(5, 40, 4, |inner| {
        let boxed = inner.clone().prop_map(Box::new).boxed();
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Expression::And),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Expression::Or),
            boxed.clone().prop_map(Expression::Not),
            (boxed.clone(), any::<bool>())
                .prop_map(|(argument, negated)| Expression::IsNull { argument, negated }),
            (boxed.clone(), any::<bool>()).prop_map(|(argument, explicit)| Expression::Cast {
                argument,
                from: SqlType::Integer,
                to: SqlType::Numeric(Some((9, 2))),
                explicit,
            }),
            prop::collection::vec(inner.clone(), 0..3).prop_map(|arguments| Expression::Call {
                function: Function::Substring,
                arguments,
                sql_type: SqlType::Text,
            }),
            (
                prop::collection::vec((inner.clone(), inner.clone()), 0..3),
                prop::option::of(boxed.clone())
            )
                .prop_map(|(branches, otherwise)| Expression::Case {
                    branches,
                    otherwise,
                    sql_type: SqlType::Integer,
                }),
            (boxed.clone(), prop::collection::vec(inner, 0..4), any::<bool>()).prop_map(
                |(argument, list, negated)| Expression::InList {
                    argument,
                    list,
                    negated
                }
            ),
            (
                boxed.clone(),
                boxed.clone(),
                prop::option::of(boxed),
                any::<bool>()
            )
                .prop_map(|(argument, pattern, escape, negated)| Expression::Like {
                    argument,
                    pattern,
                    escape,
                    case_insensitive: !negated,
                    negated,
                }),
        ]
    })
}

fn inputs() -> Vec<InputColumn> {
    vec![
        InputColumn {
            column: 1,
            missing: Datum::Null,
        },
        InputColumn {
            column: 7,
            missing: Datum::Integer(5),
        },
        InputColumn {
            column: 9,
            missing: Datum::text("x"),
        },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn scans_survive_the_wire(filter in prop::option::of(tree()), output in prop::collection::vec(tree(), 0..3)) {
        let program = ScanProgram { inputs: inputs(), filter, output };
        prop_assert_eq!(ScanProgram::decode(&program.encode()).unwrap(), program);
    }

    #[test]
    fn writes_survive_the_wire(value in tree(), returning in tree()) {
        let program = WriteProgram {
            inputs: inputs(),
            filter: None,
            assignments: vec![(7, value)],
            not_null: Some(not_null(&["a"])),
            returning: vec![returning],
        };
        prop_assert_eq!(WriteProgram::decode(&program.encode()).unwrap(), program);
    }

    #[test]
    fn hostile_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ScanProgram::decode(&bytes);
        let _ = WriteProgram::decode(&bytes);
    }

    #[test]
    fn damaged_programs_do_not_panic(filter in tree(), position in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = ScanProgram { inputs: inputs(), filter: Some(filter), output: vec![] }.encode();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        if let Ok(program) = ScanProgram::decode(&bytes) {
            let row = [Datum::Integer(1), Datum::Null, Datum::text("a")];
            let context = EvaluationContext { row: &row, parameters: &[], statement_time_unix_micros: 0 };
            let _ = program.accepts(&context);
        }
    }

    #[test]
    fn evaluation_of_any_tree_ends_in_a_value_or_an_error(expression in tree()) {
        let row = [Datum::Integer(1), Datum::Null, Datum::text("a")];
        let context = EvaluationContext { row: &row, parameters: &row, statement_time_unix_micros: 0 };
        let _ = expression.evaluate(&context);
        let _ = expression.fold_constants();
    }
}

#[test]
fn nesting_beyond_the_limit_is_refused() {
    let nested = |levels: usize| {
        let mut expression = Expression::boolean(true);
        for _ in 0..levels {
            expression = Expression::Not(Box::new(expression));
        }
        ScanProgram {
            inputs: vec![],
            filter: Some(expression),
            output: vec![],
        }
    };
    let deep = nested(200);
    assert_eq!(ScanProgram::decode(&deep.encode()).unwrap(), deep);
    assert!(ScanProgram::decode(&nested(300).encode()).is_err());
    // After a refusal the count starts anew.
    assert!(ScanProgram::decode(&deep.encode()).is_ok());
    // A forged program of any depth is refused before the stack ends; `Not` is one byte a level.
    let mut forged = vec![0, 1];
    forged.extend(std::iter::repeat_n(7, 1_000_000));
    assert!(ScanProgram::decode(&forged).is_err());
}

#[test]
fn inputs_outside_the_row_are_refused() {
    let program = ScanProgram {
        inputs: inputs(),
        filter: None,
        output: vec![Expression::input(3, SqlType::Integer)],
    };
    assert_eq!(
        ScanProgram::decode(&program.encode()).unwrap_err().state.0,
        "08P01"
    );
}

#[test]
fn a_write_assigns_checks_and_returns() {
    let column = || Expression::input(0, SqlType::Integer);
    let five = || Expression::literal(Datum::Integer(5), SqlType::Integer);
    let sum = resolve_operator("+", Some(column()), five()).unwrap();
    let program = WriteProgram {
        inputs: vec![InputColumn {
            column: 3,
            missing: Datum::Null,
        }],
        filter: Some(resolve_operator(">", Some(column()), five()).unwrap()),
        assignments: vec![(3, coerce_for_column(sum, "a", &SqlType::Integer).unwrap())],
        not_null: Some(not_null(&["a"])),
        returning: vec![column()],
    };
    let mut row = vec![Datum::Integer(6)];
    let context = |row: &'static [Datum]| EvaluationContext {
        row,
        parameters: &[],
        statement_time_unix_micros: 0,
    };
    assert!(program.accepts(&context(&[Datum::Integer(6)])).unwrap());
    assert!(!program.accepts(&context(&[Datum::Integer(5)])).unwrap());
    assert!(!program.accepts(&context(&[Datum::Null])).unwrap());
    let assigned = program.assign(&context(&[Datum::Integer(6)])).unwrap();
    program.apply(&mut row, &assigned);
    let new = EvaluationContext {
        row: &row,
        parameters: &[],
        statement_time_unix_micros: 0,
    };
    assert_eq!(program.return_row(&new).unwrap(), vec![Datum::Integer(11)]);
    let error = program.assign(&context(&[Datum::Null])).unwrap_err();
    assert_eq!(error.state.0, "23502");
    assert_eq!(
        error.message,
        "null value in column \"a\" of relation \"t\" violates not-null constraint"
    );
    assert_eq!(error.detail.as_deref(), Some("Failing row contains (null)."));
    let objects = error.objects.unwrap();
    assert_eq!((objects.table.as_str(), objects.column.as_str()), ("t", "a"));
}

#[test]
fn parameters_take_the_type_of_their_place() {
    let parameter = |index| Expression::Parameter {
        index,
        sql_type: SqlType::Unknown,
    };
    let column = Expression::input(0, SqlType::SmallInt);
    let compared = resolve_operator("=", Some(column.clone()), parameter(0)).unwrap();
    assert_eq!(compared.parameters(), vec![(0, SqlType::SmallInt)]);
    let listed = resolve_in_list(column, vec![parameter(0), parameter(1)], false).unwrap();
    assert_eq!(
        listed.parameters(),
        vec![(0, SqlType::SmallInt), (1, SqlType::SmallInt)]
    );
    let stored = coerce_for_column(parameter(0), "a", &SqlType::VarChar(Some(3))).unwrap();
    assert_eq!(stored.parameters(), vec![(0, SqlType::VarChar(None))]);
    assert_eq!(stored.sql_type(), SqlType::VarChar(Some(3)));
}

#[test]
fn constants_do_not_wrap_columns() {
    let literal = |value, sql_type| Expression::literal(value, sql_type);
    let small = Expression::input(0, SqlType::SmallInt);
    let compared = resolve_operator("=", Some(small), literal(Datum::Integer(5), SqlType::Integer)).unwrap();
    let Expression::Call { arguments, .. } = compared else {
        panic!("not a call")
    };
    assert_eq!(arguments[0], Expression::input(0, SqlType::SmallInt));
    assert_eq!(arguments[1], literal(Datum::SmallInt(5), SqlType::SmallInt));
    let text = Expression::input(0, SqlType::VarChar(Some(9)));
    let compared = resolve_operator("=", Some(text.clone()), Expression::unknown("x")).unwrap();
    let Expression::Call { arguments, .. } = compared else {
        panic!("not a call")
    };
    assert_eq!(arguments[0], text);
}

#[test]
fn the_clock_is_the_contexts() {
    let now = neorunbase_expression::resolve_function("now", vec![]).unwrap();
    assert!(!now.is_constant());
    assert_eq!(now.clone().fold_constants(), now);
    let context = EvaluationContext {
        row: &[],
        parameters: &[],
        statement_time_unix_micros: 1_700_000_000_123_456,
    };
    let shown = now.evaluate(&context).unwrap().to_text(&SqlType::TimestampTz);
    assert_eq!(shown, "2023-11-14 22:13:20.123456+00");
    let today = neorunbase_expression::coerce(
        Expression::unknown("today"),
        &SqlType::Date,
        neorunbase_types::CastContext::Explicit,
    )
    .unwrap();
    assert_eq!(
        today.evaluate(&context).unwrap().to_text(&SqlType::Date),
        "2023-11-14"
    );
}
