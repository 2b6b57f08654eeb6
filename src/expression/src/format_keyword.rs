//! The patterns of `to_char`, `to_date` and `to_timestamp` for dates and times, cut into their parts.

/// What a part of a pattern stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    Era {
        dots: bool,
    },
    Meridiem {
        dots: bool,
    },
    Century,
    DayName,
    DayAbbreviation,
    DayOfYear,
    IsoDayOfYear,
    Day,
    DayOfWeek,
    IsoDayOfWeek,
    Fraction(u32),
    Hour12,
    Hour24,
    /// Digits of the year, 1 to 4.
    IsoYear(u32),
    IsoWeek,
    Julian,
    Minute,
    Month,
    MonthName,
    MonthAbbreviation,
    Milliseconds,
    Microseconds,
    ZoneOffset,
    ZoneHours,
    ZoneMinutes,
    ZoneName,
    Quarter,
    RomanMonth,
    Seconds,
    SecondsOfDay,
    Week,
    WeekOfMonth,
    YearWithComma,
    /// Digits of the year, 1 to 4.
    Year(u32),
}

/// The case in which names are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LetterCase {
    Upper,
    Capitalised,
    Lower,
}

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Field {
        keyword: Keyword,
        case: LetterCase,
        /// `FM`: without padding.
        fill_mode: bool,
        /// `TH` or `th` behind it.
        ordinal: Option<LetterCase>,
    },
    Literal(char),
}

/// Longer words before their beginnings.
const KEYWORDS: &[(&str, Keyword)] = &[
    ("A.D.", Keyword::Era { dots: true }),
    ("B.C.", Keyword::Era { dots: true }),
    ("AD", Keyword::Era { dots: false }),
    ("BC", Keyword::Era { dots: false }),
    ("A.M.", Keyword::Meridiem { dots: true }),
    ("P.M.", Keyword::Meridiem { dots: true }),
    ("AM", Keyword::Meridiem { dots: false }),
    ("PM", Keyword::Meridiem { dots: false }),
    ("CC", Keyword::Century),
    ("DAY", Keyword::DayName),
    ("DDD", Keyword::DayOfYear),
    ("DD", Keyword::Day),
    ("DY", Keyword::DayAbbreviation),
    ("D", Keyword::DayOfWeek),
    ("FF1", Keyword::Fraction(1)),
    ("FF2", Keyword::Fraction(2)),
    ("FF3", Keyword::Fraction(3)),
    ("FF4", Keyword::Fraction(4)),
    ("FF5", Keyword::Fraction(5)),
    ("FF6", Keyword::Fraction(6)),
    ("HH24", Keyword::Hour24),
    ("HH12", Keyword::Hour12),
    ("HH", Keyword::Hour12),
    ("IDDD", Keyword::IsoDayOfYear),
    ("ID", Keyword::IsoDayOfWeek),
    ("IW", Keyword::IsoWeek),
    ("IYYY", Keyword::IsoYear(4)),
    ("IYY", Keyword::IsoYear(3)),
    ("IY", Keyword::IsoYear(2)),
    ("I", Keyword::IsoYear(1)),
    ("J", Keyword::Julian),
    ("MI", Keyword::Minute),
    ("MM", Keyword::Month),
    ("MONTH", Keyword::MonthName),
    ("MON", Keyword::MonthAbbreviation),
    ("MS", Keyword::Milliseconds),
    ("OF", Keyword::ZoneOffset),
    ("Q", Keyword::Quarter),
    ("RM", Keyword::RomanMonth),
    ("SSSSS", Keyword::SecondsOfDay),
    ("SSSS", Keyword::SecondsOfDay),
    ("SS", Keyword::Seconds),
    ("TZH", Keyword::ZoneHours),
    ("TZM", Keyword::ZoneMinutes),
    ("TZ", Keyword::ZoneName),
    ("US", Keyword::Microseconds),
    ("WW", Keyword::Week),
    ("W", Keyword::WeekOfMonth),
    ("Y,YYY", Keyword::YearWithComma),
    ("YYYY", Keyword::Year(4)),
    ("YYY", Keyword::Year(3)),
    ("YY", Keyword::Year(2)),
    ("Y", Keyword::Year(1)),
];

fn case_of(text: &str) -> LetterCase {
    let mut letters = text.chars().filter(char::is_ascii_alphabetic);
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if first.is_ascii_uppercase() && second.is_ascii_lowercase() => {
            LetterCase::Capitalised
        }
        (Some(first), _) if first.is_ascii_lowercase() => LetterCase::Lower,
        _ => LetterCase::Upper,
    }
}

/// Cuts a pattern.
pub(crate) fn parts(pattern: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = pattern;
    let mut fill_mode = false;
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut characters = quoted.char_indices();
            rest = "";
            while let Some((offset, character)) = characters.next() {
                match character {
                    '"' => {
                        rest = &quoted[offset + 1..];
                        break;
                    }
                    '\\' => parts.extend(characters.next().map(|(_, escaped)| Part::Literal(escaped))),
                    other => parts.push(Part::Literal(other)),
                }
            }
            continue;
        }
        let starts_with = |word: &str| {
            rest.get(..word.len())
                .is_some_and(|prefix| prefix.eq_ignore_ascii_case(word))
        };
        if starts_with("FM") {
            fill_mode = true;
            rest = &rest[2..];
            continue;
        }
        if starts_with("FX") || starts_with("TM") {
            rest = &rest[2..];
            continue;
        }
        let Some((word, keyword)) = KEYWORDS.iter().find(|(word, _)| starts_with(word)) else {
            parts.push(Part::Literal(first));
            rest = &rest[first.len_utf8()..];
            continue;
        };
        let case = case_of(&rest[..word.len()]);
        rest = &rest[word.len()..];
        let ordinal = match rest.get(..2) {
            Some("TH") => Some(LetterCase::Upper),
            Some("th") => Some(LetterCase::Lower),
            _ => None,
        };
        if ordinal.is_some() {
            rest = &rest[2..];
        }
        parts.push(Part::Field {
            keyword: *keyword,
            case,
            fill_mode: std::mem::take(&mut fill_mode),
            ordinal,
        });
    }
    parts
}

/// English names, as the C locale has them.
pub(crate) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// From Sunday.
pub(crate) const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// From January.
pub(crate) const ROMAN_MONTHS: [&str; 12] = [
    "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII",
];
