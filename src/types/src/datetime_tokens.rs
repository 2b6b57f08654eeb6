//! Splits date, time and interval texts into fields, as PostgreSQL's `ParseDateTime` does.

/// What a field looks like; its meaning follows from its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Digits, perhaps with a point.
    Number,
    /// Digits and letters joined by `-`, `/` or `.`.
    Date,
    /// Digits with colons.
    Time,
    /// A word.
    Word,
    /// A sign with digits: a zone or, in intervals, a signed number.
    Zone,
    /// A sign with a word.
    Special,
}

/// One field, lower case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'text> {
    pub kind: TokenKind,
    pub text: &'text str,
}

/// The most fields PostgreSQL accepts.
const MAXIMUM_FIELDS: usize = 25;

/// Splits `lower`, which must be lower case. `None` if it has a character that belongs nowhere, or too much of it.
pub(crate) fn tokenize<'text>(
    lower: &'text str,
    signed_blanks: &'text mut String,
) -> Option<Vec<Token<'text>>> {
    // Blanks between a sign and its number are not part of the field.
    let lower = if needs_joining(lower) {
        *signed_blanks = join_signs(lower);
        signed_blanks.as_str()
    } else {
        lower
    };
    let bytes = lower.as_bytes();
    let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
    let run = |start: usize, accept: &dyn Fn(u8) -> bool| {
        start + bytes[start..].iter().take_while(|&&byte| accept(byte)).count()
    };
    let digit = |byte: u8| byte.is_ascii_digit();
    let mut tokens = Vec::with_capacity(4);
    let mut index = 0;
    while index < bytes.len() {
        let start = index;
        let kind = match bytes[index] {
            byte if byte.is_ascii_whitespace() || byte == 0x0b => {
                index += 1;
                continue;
            }
            b'0'..=b'9' => {
                index = run(index, &digit);
                match at(index) {
                    b':' => {
                        index = run(index, &|byte| {
                            byte.is_ascii_digit() || matches!(byte, b':' | b'.')
                        });
                        TokenKind::Time
                    }
                    delimiter @ (b'-' | b'/' | b'.') => {
                        index += 1;
                        if at(index).is_ascii_digit() {
                            index = run(index, &digit);
                            if at(index) == delimiter {
                                index = run(index, &|byte| byte.is_ascii_digit() || byte == delimiter);
                                TokenKind::Date
                            } else if delimiter == b'.' {
                                TokenKind::Number
                            } else {
                                TokenKind::Date
                            }
                        } else {
                            index = run(index, &|byte| byte.is_ascii_alphanumeric() || byte == delimiter);
                            if delimiter == b'.'
                                && index == start + lower[start..index].len()
                                && lower[start..index]
                                    .bytes()
                                    .all(|byte| byte.is_ascii_digit() || byte == b'.')
                            {
                                TokenKind::Number
                            } else {
                                TokenKind::Date
                            }
                        }
                    }
                    _ => TokenKind::Number,
                }
            }
            b'.' => {
                index = run(index + 1, &digit);
                TokenKind::Number
            }
            byte if byte.is_ascii_alphabetic() => {
                index = run(index, &|byte| byte.is_ascii_alphabetic());
                let joined = match at(index) {
                    b'-' | b'/' | b'.' => true,
                    b'+' | b'0'..=b'9' => !is_core_word(&lower[start..index]),
                    _ => false,
                };
                if joined {
                    index = run(index, &|byte| {
                        byte.is_ascii_alphanumeric()
                            || matches!(byte, b'+' | b'-' | b'/' | b'_' | b'.' | b':')
                    });
                    TokenKind::Date
                } else {
                    TokenKind::Word
                }
            }
            b'+' | b'-' => {
                index += 1;
                if at(index).is_ascii_digit() || at(index) == b'.' {
                    index = run(index, &|byte| {
                        byte.is_ascii_digit() || matches!(byte, b':' | b'.' | b'-')
                    });
                    TokenKind::Zone
                } else if at(index).is_ascii_alphabetic() {
                    index = run(index, &|byte| byte.is_ascii_alphabetic());
                    TokenKind::Special
                } else {
                    return None;
                }
            }
            byte if byte.is_ascii_punctuation() => {
                index += 1;
                continue;
            }
            _ => return None,
        };
        if tokens.len() == MAXIMUM_FIELDS {
            return None;
        }
        tokens.push(Token {
            kind,
            text: &lower[start..index],
        });
    }
    Some(tokens)
}

fn needs_joining(text: &str) -> bool {
    text.as_bytes()
        .windows(2)
        .any(|pair| matches!(pair[0], b'+' | b'-') && pair[1].is_ascii_whitespace())
}

fn join_signs(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    let mut after_sign = false;
    for character in text.chars() {
        if after_sign && character.is_ascii_whitespace() {
            continue;
        }
        after_sign = matches!(character, '+' | '-');
        joined.push(character);
    }
    joined
}

/// Words that may be followed directly by digits, as the `T` of ISO 8601.
fn is_core_word(word: &str) -> bool {
    matches!(
        word,
        "t" | "j"
            | "jd"
            | "julian"
            | "z"
            | "zulu"
            | "utc"
            | "gmt"
            | "ut"
            | "am"
            | "pm"
            | "ad"
            | "bc"
            | "now"
            | "today"
            | "tomorrow"
            | "yesterday"
            | "epoch"
            | "allballs"
            | "at"
            | "on"
            | "y"
            | "m"
            | "d"
            | "h"
            | "mm"
            | "s"
    ) || month_number(word).is_some()
        || is_weekday(word)
}

/// 1 to 12 for a month's name or abbreviation.
pub(crate) fn month_number(word: &str) -> Option<u32> {
    Some(match word {
        "jan" | "january" => 1,
        "feb" | "february" => 2,
        "mar" | "march" => 3,
        "apr" | "april" => 4,
        "may" => 5,
        "jun" | "june" => 6,
        "jul" | "july" => 7,
        "aug" | "august" => 8,
        "sep" | "sept" | "september" => 9,
        "oct" | "october" => 10,
        "nov" | "november" => 11,
        "dec" | "december" => 12,
        _ => return None,
    })
}

/// Names of days, which inputs may carry and nobody reads.
pub(crate) fn is_weekday(word: &str) -> bool {
    matches!(
        word,
        "sun"
            | "sunday"
            | "mon"
            | "monday"
            | "tue"
            | "tues"
            | "tuesday"
            | "wed"
            | "weds"
            | "wednesday"
            | "thu"
            | "thur"
            | "thurs"
            | "thursday"
            | "fri"
            | "friday"
            | "sat"
            | "saturday"
    )
}

/// Minutes east of Greenwich of the abbreviations that mean one offset everywhere that matters.
pub(crate) fn zone_minutes(word: &str) -> Option<i64> {
    Some(match word {
        "z" | "zulu" | "utc" | "gmt" | "ut" | "uct" | "wet" | "etc/utc" | "etc/gmt" | "universal"
        | "etc/universal" | "etc/zulu" | "etc/uct" => 0,
        "bst" | "cet" | "met" | "mez" | "west" | "wat" => 60,
        "cest" | "cetdst" | "mesz" | "eet" | "sast" | "cat" => 120,
        "eest" | "eetdst" | "msk" | "eat" => 180,
        "jst" | "kst" => 540,
        "nzst" | "nzt" => 720,
        "nzdt" => 780,
        "ast" => -240,
        "adt" => -180,
        "est" => -300,
        "edt" => -240,
        "cst" => -360,
        "cdt" => -300,
        "mst" => -420,
        "mdt" => -360,
        "pst" => -480,
        "pdt" => -420,
        "akst" => -540,
        "akdt" => -480,
        "hst" => -600,
        _ => return None,
    })
}
