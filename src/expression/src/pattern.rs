//! `LIKE`, `ILIKE` and regular expressions.

use std::cell::RefCell;
use std::rc::Rc;

use neorunbase_types::{Datum, Result, SqlError, SqlState};
use regex::{Regex, RegexBuilder};

use crate::call::mismatch;
use crate::function::Function as F;
use crate::text::lower;

/// Whether `value` is like `pattern`. `escape` is the text of an ESCAPE clause.
pub(crate) fn like(
    value: &Datum,
    pattern: &Datum,
    escape: Option<&Datum>,
    insensitive: bool,
) -> Result<bool> {
    let escape = match escape {
        None => Some('\\'),
        Some(Datum::Text(text)) => {
            let mut characters = text.chars();
            match (characters.next(), characters.next()) {
                (first, None) => first,
                _ => {
                    return Err(
                        SqlError::new(SqlState::INVALID_ESCAPE_SEQUENCE, "invalid escape string")
                            .with_hint("Escape string must be empty or one character."),
                    );
                }
            }
        }
        Some(_) => return Err(SqlError::internal("escape is not text")),
    };
    match (value, pattern) {
        (Datum::Text(value), Datum::Text(pattern)) if insensitive => {
            matches(lower(value).as_bytes(), lower(pattern).as_bytes(), escape, true)
        }
        (Datum::Text(value), Datum::Text(pattern)) => {
            matches(value.as_bytes(), pattern.as_bytes(), escape, true)
        }
        (Datum::Bytea(value), Datum::Bytea(pattern)) => matches(value, pattern, escape, false),
        _ => Err(SqlError::internal("LIKE of values that are not text")),
    }
}

/// Greedy matching that goes back only to the last `%`: linear for all but contrived patterns.
fn matches(value: &[u8], pattern: &[u8], escape: Option<char>, text: bool) -> Result<bool> {
    let mut buffer = [0_u8; 4];
    let escape: &[u8] = match escape {
        Some(escape) => escape.encode_utf8(&mut buffer).as_bytes(),
        None => &[],
    };
    let step = |position: usize| {
        // `_` stands for a character, not a byte.
        if !text {
            return 1;
        }
        match value[position] {
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0.. => 4,
            _ => 1,
        }
    };
    let (mut at, mut wanted) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let mut advanced = false;
        if wanted < pattern.len() {
            let rest = &pattern[wanted..];
            if !escape.is_empty() && rest.starts_with(escape) {
                let Some(&literal) = rest.get(escape.len()) else {
                    // PostgreSQL complains only when the matching comes here with text left.
                    if at < value.len() {
                        return Err(SqlError::new(
                            SqlState::INVALID_ESCAPE_SEQUENCE,
                            "LIKE pattern must not end with escape character",
                        ));
                    }
                    return Ok(false);
                };
                if at < value.len() && value[at] == literal {
                    at += 1;
                    wanted += escape.len() + 1;
                    advanced = true;
                }
            } else if rest[0] == b'%' {
                retry = Some((wanted + 1, at));
                wanted += 1;
                advanced = true;
            } else if at < value.len() && rest[0] == b'_' {
                at += step(at);
                wanted += 1;
                advanced = true;
            } else if at < value.len() && rest[0] == value[at] {
                at += 1;
                wanted += 1;
                advanced = true;
            }
        } else if at >= value.len() {
            return Ok(true);
        }
        if advanced {
            continue;
        }
        // Let the last `%` take one character more.
        match retry {
            Some((after, from)) if from < value.len() => {
                let next = from + step(from);
                retry = Some((after, next));
                wanted = after;
                at = next;
            }
            _ => return Ok(false),
        }
    }
}

/// Compiled expressions that a thread keeps; enough for the patterns of a few statements.
const CACHED: usize = 32;

thread_local! {
    static CACHE: RefCell<Vec<(String, bool, Rc<Regex>)>> = const { RefCell::new(Vec::new()) };
}

fn compiled(pattern: &str, insensitive: bool) -> Result<Rc<Regex>> {
    let cached = CACHE.with_borrow(|cache| {
        cache
            .iter()
            .find(|(text, flag, _)| *flag == insensitive && text == pattern)
            .map(|(_, _, regex)| Rc::clone(regex))
    });
    if let Some(regex) = cached {
        return Ok(regex);
    }
    let translated = translate(pattern)?;
    let regex = RegexBuilder::new(&translated)
        .case_insensitive(insensitive)
        .dot_matches_new_line(true)
        .size_limit(4 << 20)
        .build()
        .map_err(|error| {
            SqlError::new(
                SqlState::INVALID_REGULAR_EXPRESSION,
                format!("invalid regular expression: {}", complaint(&error.to_string())),
            )
        })?;
    let regex = Rc::new(regex);
    CACHE.with_borrow_mut(|cache| {
        if cache.len() >= CACHED {
            cache.remove(0);
        }
        cache.push((pattern.to_owned(), insensitive, Rc::clone(&regex)));
    });
    Ok(regex)
}

/// PostgreSQL's words for what the regex crate complains of.
fn complaint(reason: &str) -> &str {
    const WORDS: &[(&str, &str)] = &[
        ("unclosed group", "parentheses () not balanced"),
        ("unopened group", "parentheses () not balanced"),
        ("unclosed character class", "brackets [] not balanced"),
        (
            "repetition operator missing expression",
            "quantifier operand invalid",
        ),
        ("repetition", "invalid repetition count(s)"),
        ("character class range", "invalid character range"),
        ("escape", "invalid escape \\ sequence"),
        ("size limit", "regular expression is too complex"),
    ];
    let known = WORDS
        .iter()
        .find(|(theirs, _)| reason.contains(theirs))
        .map(|(_, ours)| *ours);
    known.unwrap_or_else(|| {
        reason
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ")
    })
}

/// PostgreSQL's escapes in the regex crate's words.
fn translate(pattern: &str) -> Result<String> {
    let mut output = String::with_capacity(pattern.len() + 8);
    // A leading `(?i)` and the like is the same in both; `***=` asks for a literal.
    if let Some(literal) = pattern.strip_prefix("***=") {
        return Ok(regex::escape(literal));
    }
    let mut characters = pattern.strip_prefix("***:").unwrap_or(pattern).chars().peekable();
    let mut in_class = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('y') => output.push_str("\\b"),
                Some('Y') => output.push_str("\\B"),
                Some('m') => output.push_str("\\b{start}"),
                Some('M') => output.push_str("\\b{end}"),
                Some('Z') => output.push_str("\\z"),
                Some(digit @ '1'..='9') if !in_class => {
                    let _ = digit;
                    return Err(SqlError::unsupported("back reference in a regular expression"));
                }
                Some(other) if other.is_ascii_alphanumeric() || other.is_ascii_punctuation() => {
                    output.push('\\');
                    output.push(other);
                }
                Some(other) => output.push(other),
                None => {
                    return Err(SqlError::new(
                        SqlState::INVALID_REGULAR_EXPRESSION,
                        "invalid regular expression: invalid escape \\ sequence",
                    ));
                }
            },
            '[' if in_class && matches!(characters.peek(), Some(':')) => output.push('['),
            // Inside a class the other brackets and operators of the crate mean themselves.
            '[' if in_class => output.push_str("\\["),
            '&' | '~' | '-' if in_class && characters.peek() == Some(&character) => {
                output.push('\\');
                output.push(character);
            }
            '[' => {
                in_class = true;
                output.push('[');
                if characters.peek() == Some(&'^') {
                    output.push('^');
                    characters.next();
                }
                // A bracket in the first place is literal.
                if characters.peek() == Some(&']') {
                    output.push_str("\\]");
                    characters.next();
                }
            }
            ':' if in_class && characters.peek() == Some(&']') && output_in_named_class(&output) => {
                output.push_str(":]");
                characters.next();
            }
            ']' => {
                in_class = false;
                output.push(']');
            }
            other => output.push(other),
        }
    }
    Ok(output)
}

/// Whether `[:name` is open at the end.
fn output_in_named_class(output: &str) -> bool {
    output.rfind("[:").is_some_and(|start| {
        output[start + 2..]
            .chars()
            .all(|character| character.is_ascii_alphabetic())
    })
}

pub(crate) fn binary(function: F, value: &Datum, pattern: &Datum) -> Result<Datum> {
    let (Datum::Text(value), Datum::Text(pattern)) = (value, pattern) else {
        return Err(mismatch(function));
    };
    match function {
        F::SubstringRegex => {
            let regex = compiled(pattern, false)?;
            // The first group if there is one, else the whole match.
            Ok(regex
                .captures(value)
                .and_then(|captures| captures.get(usize::from(captures.len() > 1)))
                .map_or(Datum::Null, |found| Datum::Text(found.as_str().into())))
        }
        F::RegexMatches => Ok(Datum::Boolean(compiled(pattern, false)?.is_match(value))),
        F::RegexMatchesInsensitive => Ok(Datum::Boolean(compiled(pattern, true)?.is_match(value))),
        F::RegexNotMatches => Ok(Datum::Boolean(!compiled(pattern, false)?.is_match(value))),
        F::RegexNotMatchesInsensitive => Ok(Datum::Boolean(!compiled(pattern, true)?.is_match(value))),
        _ => Err(mismatch(function)),
    }
}

/// `regexp_replace(text, pattern, replacement [, flags])`
pub(crate) fn replace(arguments: &[Datum]) -> Result<Datum> {
    let [
        Datum::Text(value),
        Datum::Text(pattern),
        Datum::Text(replacement),
        rest @ ..,
    ] = arguments
    else {
        return Err(mismatch(F::RegexReplace));
    };
    let (mut global, mut insensitive) = (false, false);
    if let [Datum::Text(flags)] = rest {
        for flag in flags.chars() {
            match flag {
                'g' => global = true,
                'i' => insensitive = true,
                'c' => insensitive = false,
                _ => {
                    return Err(SqlError::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        format!("invalid regular expression option: \"{flag}\""),
                    ));
                }
            }
        }
    }
    let regex = compiled(pattern, insensitive)?;
    let expand = |captures: &regex::Captures<'_>| {
        let mut output = String::new();
        let mut characters = replacement.chars();
        while let Some(character) = characters.next() {
            if character != '\\' {
                output.push(character);
                continue;
            }
            match characters.next() {
                Some('&') => output.push_str(&captures[0]),
                Some(digit @ '1'..='9') => {
                    let group = digit as usize - '0' as usize;
                    output.push_str(captures.get(group).map_or("", |found| found.as_str()));
                }
                Some('\\') => output.push('\\'),
                Some(other) => {
                    output.push('\\');
                    output.push(other);
                }
                None => output.push('\\'),
            }
        }
        output
    };
    let replaced = regex.replacen(value, usize::from(!global), expand);
    Ok(Datum::Text(replaced.into()))
}
