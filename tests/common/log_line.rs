//! The log's two formats, read strictly: whatever is not exactly such a line fails the test.

use std::{fmt, ops::Index};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

impl Format {
    pub const BOTH: [Self; 2] = [Self::Text, Self::Json];

    /// Its name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    pub fn parse(self, line: &str) -> Line {
        let parsed = match self {
            Self::Text => parse_text(line),
            Self::Json => parse_json(line),
        };
        parsed.unwrap_or_else(|| panic!("no line of the log: {line:?}"))
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// In milliseconds of its day.
    pub time: u32,
    pub level: String,
    pub message: String,
    /// In their order. Numbers as they were written.
    pub fields: Vec<(String, String)>,
}

impl Line {
    pub fn get(&self, key: &str) -> Option<&str> {
        let field = self.fields.iter().find(|(name, _)| name == key);
        field.map(|(_, value)| value.as_str())
    }

    pub fn number(&self, key: &str) -> f64 {
        self[key].parse().unwrap()
    }

    pub fn count(&self, key: &str) -> u64 {
        self[key].parse().unwrap()
    }

    pub fn keys(&self) -> Vec<&str> {
        self.fields.iter().map(|(key, _)| key.as_str()).collect()
    }
}

impl Index<&str> for Line {
    type Output = str;

    fn index(&self, key: &str) -> &str {
        self.get(key)
            .unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }
}

/// `2026-01-31T23:59:59.999Z`, in milliseconds of its day.
fn time(text: &str) -> Option<u32> {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    if shape != "0000-00-00T00:00:00.000Z" {
        return None;
    }
    let [hours, minutes, seconds, millis] =
        [11..13, 14..16, 17..19, 20..23].map(|digits| text[digits].parse::<u32>().unwrap());
    Some(((hours * 60 + minutes) * 60 + seconds) * 1000 + millis)
}

fn printable(line: &str) -> bool {
    // The controls, and what turns text around or hides in it.
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    !line.chars().any(hidden)
}

/// `TIME LEVEL message key=value key="quoted value"`
fn parse_text(line: &str) -> Option<Line> {
    let (stamp, rest) = line.split_once(' ')?;
    let (level, rest) = rest.split_at_checked(5)?;
    let rest = rest.strip_prefix(' ')?;
    if !printable(line) {
        return None;
    }
    let is_key = |word: &str| {
        word.split_once('=').is_some_and(|(key, _)| {
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        })
    };
    let mut message = Vec::new();
    let mut rest = rest;
    while !rest.is_empty() {
        let word = rest.split(' ').next()?;
        if is_key(word) {
            break;
        }
        message.push(word);
        rest = rest[word.len()..].trim_start_matches(' ');
    }
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        if !is_key(&format!("{key}=")) {
            return None;
        }
        let (value, after) = text_value(after)?;
        fields.push((key.to_owned(), value));
        rest = match after {
            "" => "",
            more => more.strip_prefix(' ').filter(|more| !more.is_empty())?,
        };
    }
    Some(Line {
        time: time(stamp)?,
        level: level.trim_end().to_ascii_lowercase(),
        message: message.join(" "),
        fields,
    })
}

fn text_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(' ').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        return (!value.is_empty() && value.bytes().all(plain)).then(|| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    loop {
        let (at, c) = chars.next()?;
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                '0' => value.push('\0'),
                c @ ('"' | '\\' | '\'') => value.push(c),
                'u' => {
                    chars.next().filter(|(_, c)| *c == '{')?;
                    let mut code = String::new();
                    loop {
                        match chars.next()?.1 {
                            '}' => break,
                            digit => code.push(digit),
                        }
                    }
                    value.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
                }
                _ => return None,
            },
            c => value.push(c),
        }
    }
}

/// A JSON object with its members in their order.
struct Ordered(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Ordered;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Ordered(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// `{"time":…,"level":…,"message":…,"key":…}`
fn parse_json(line: &str) -> Option<Line> {
    let Ordered(members) = serde_json::from_str(line).ok()?;
    let mut members = members.into_iter();
    let mut first = |name| {
        let (key, value) = members.next()?;
        (key == name).then_some(())?;
        value.as_str().map(str::to_owned)
    };
    let (stamp, level, message) = (first("time")?, first("level")?, first("message")?);
    if !printable(line) {
        return None;
    }
    let fields: Vec<(String, String)> = members
        .map(|(key, value)| match value {
            Value::String(text) => Some((key, text)),
            Value::Number(number) => Some((key, number.to_string())),
            Value::Bool(value) => Some((key, value.to_string())),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let mut keys: Vec<&str> = fields.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    if keys.len() != fields.len() {
        return None;
    }
    Some(Line {
        time: time(&stamp)?,
        level,
        message,
        fields,
    })
}
