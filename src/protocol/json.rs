//! Reading the members of one JSON object that the protocol names.
//!
//! Why not a derive: a derived struct loses the whole message over one wrong field, and with it
//! the `cseq` under which to answer. Here each named member is first taken as raw text and typed
//! later, one by one. Members that are not named are skipped, keys that stand twice are reported,
//! and a lone surrogate (`"\ud800"`, grammatical JSON that no string can hold) spoils only the
//! member it stands in.

use std::{borrow::Cow, fmt, io};

use serde::{
    Deserialize, Deserializer as _,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use thiserror::Error;

use super::error::Refusal;

/// The named members of an object in the order of the names; `None` where it is missing.
#[derive(Debug)]
pub struct Members<'a, const N: usize> {
    /// The raw text of each member.
    pub values: [Option<&'a RawValue>; N],
    /// Whether the member stood there more than once. `values` then holds the last.
    pub duplicate: [bool; N],
}

/// A text that is no JSON object. What it says of it never quotes it: a token may stand there.
#[derive(Debug, Error)]
pub enum NotAnObject {
    /// It is no JSON.
    #[error("a message is one JSON object; this is no JSON from line {line}, column {column} on")]
    Syntax {
        /// Where it ceases to be JSON.
        line: usize,
        /// Where in that line.
        column: usize,
    },
    /// It is JSON, but no object.
    #[error("a message is one JSON object; this is JSON of another type")]
    OtherType,
}

impl From<serde_json::Error> for NotAnObject {
    fn from(error: serde_json::Error) -> Self {
        match error.classify() {
            serde_json::error::Category::Data => Self::OtherType,
            _ => Self::Syntax {
                line: error.line(),
                column: error.column(),
            },
        }
    }
}

/// Takes `text` apart.
///
/// # Errors
/// [`NotAnObject`] where it is no JSON, or JSON of another kind.
pub fn members<'a, const N: usize>(
    text: &'a str,
    names: &[&'static str; N],
) -> Result<Members<'a, N>, NotAnObject> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = deserializer.deserialize_map(MembersVisitor(names))?;
    deserializer.end()?;
    Ok(members)
}

struct MembersVisitor<'n, const N: usize>(&'n [&'static str; N]);

impl<'de, const N: usize> Visitor<'de> for MembersVisitor<'_, N> {
    type Value = Members<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members {
            values: [None; N],
            duplicate: [false; N],
        };
        while let Some(key) = map.next_key::<&RawValue>()? {
            match place(key, self.0) {
                Some(at) => {
                    members.duplicate[at] |= members.values[at].is_some();
                    members.values[at] = Some(map.next_value()?);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(members)
    }
}

/// Which of the names a key is. It is taken as raw text, so that a key with a lone surrogate is
/// merely unknown; not as bytes, since then a control character in it would pass for JSON.
fn place(key: &RawValue, names: &[&str]) -> Option<usize> {
    let text = key.get();
    let plain = text.strip_prefix('"')?.strip_suffix('"')?;
    let key = if plain.contains('\\') {
        string(key)?
    } else {
        Cow::Borrowed(plain)
    };
    names.iter().position(|name| *name == key)
}

/// One object's members by name, typed on demand; every complaint names the member by its path.
pub struct Object<'a, const N: usize> {
    path: &'static str,
    names: &'static [&'static str; N],
    values: [Option<&'a RawValue>; N],
}

impl<'a, const N: usize> Object<'a, N> {
    /// Reads the object at `path`, which is how complaints call it; a missing or null one is
    /// empty.
    ///
    /// # Errors
    /// A 400 where it is no object or names a member twice.
    pub fn read(
        path: &'static str,
        raw: Option<&'a RawValue>,
        names: &'static [&'static str; N],
    ) -> Result<Self, Refusal> {
        let Some(raw) = present(raw) else {
            return Ok(Self {
                path,
                names,
                values: [None; N],
            });
        };
        let members = members(raw.get(), names)
            .map_err(|_| Refusal::bad_request(format!("{path} must be an object")))?;
        if let Some(at) = members.duplicate.iter().position(|twice| *twice) {
            return Err(Refusal::bad_request(format!(
                "{path}.{} stands there twice; once is enough",
                names[at]
            )));
        }
        Ok(Self {
            path,
            names,
            values: members.values,
        })
    }

    /// The member as raw text; a null one counts as missing.
    pub fn raw(&self, name: &'static str) -> Option<&'a RawValue> {
        let at = self.names.iter().position(|n| *n == name);
        debug_assert!(at.is_some(), "{name} is not among the names of this object");
        at.and_then(|at| present(self.values[at]))
    }

    /// An optional string.
    ///
    /// # Errors
    /// A 400 where it is something else.
    pub fn string(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, Refusal> {
        self.typed(name, "a string", string)
    }

    /// An optional `true` or `false`.
    ///
    /// # Errors
    /// A 400 where it is something else.
    pub fn boolean(&self, name: &'static str) -> Result<Option<bool>, Refusal> {
        self.typed(name, "true or false", |raw| {
            serde_json::from_str(raw.get()).ok()
        })
    }

    /// An optional integer of 0 or more.
    ///
    /// # Errors
    /// A 400 where it is something else.
    pub fn unsigned(&self, name: &'static str) -> Result<Option<u64>, Refusal> {
        self.typed(name, "an integer of 0 or more", |raw| {
            serde_json::from_str(raw.get()).ok()
        })
    }

    /// What a required member is refused with when it is missing.
    pub fn missing(&self, name: &'static str) -> Refusal {
        Refusal::bad_request(format!("{}.{name} is required", self.path))
    }

    /// What a member is refused with when its value is not among those allowed.
    pub fn wrong(&self, name: &'static str, why: impl fmt::Display) -> Refusal {
        Refusal::bad_request(format!("{}.{name} {why}", self.path))
    }

    fn typed<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        read: impl FnOnce(&'a RawValue) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        match self.raw(name) {
            None => Ok(None),
            Some(raw) => match read(raw) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong(name, format_args!("must be {expected}"))),
            },
        }
    }
}

/// Whether the brackets of a JSON text nest at most `most` deep. The outermost bracket is level 1.
pub fn nests_at_most(text: &str, most: usize) -> bool {
    let is_opening = |byte: &u8| matches!(byte, b'{' | b'[');
    // Nearly every text ends here: what holds few brackets cannot nest them deeply.
    if text.bytes().filter(is_opening).count() <= most {
        return true;
    }
    let (mut depth, mut in_string, mut is_escaped) = (0, false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > most {
                    return false;
                }
            }
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    true
}

/// Null counts as missing.
pub fn present(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| raw.get() != "null")
}

/// The string that `raw` is; `None` where it is another type or has a lone surrogate.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Borrowed<'_>>(raw.get())
        .ok()
        .map(|text| text.0)
}

/// Appends `text` as a JSON string, quotes included.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string can be written to memory");
}

/// Appends a number in decimal digits.
pub fn write_number(value: u64, out: &mut impl io::Write) {
    serde_json::to_writer(out, &value).expect("a number can be written to memory");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const NAMES: [&str; 2] = ["a", "b"];

    fn read(text: &str) -> Result<Members<'_, 2>, NotAnObject> {
        members(text, &NAMES)
    }

    #[test]
    fn members_are_raw_text_byte_for_byte() {
        let got = read(r#" { "b" : { "x" : 1.50e+3 , "y":"\ud800" } , "c": 1 } "#).unwrap();
        assert!(got.values[0].is_none());
        assert_eq!(
            got.values[1].unwrap().get(),
            r#"{ "x" : 1.50e+3 , "y":"\ud800" }"#
        );
        assert_eq!(got.duplicate, [false, false]);
    }

    #[test]
    fn a_key_that_stands_twice_is_reported() {
        let got = read(r#"{"a":1,"b":2,"a":3,"z":1,"z":2}"#).unwrap();
        assert_eq!(got.duplicate, [true, false]);
    }

    #[test]
    fn an_escaped_key_is_the_same_key() {
        let got = read(r#"{"\u0061":1}"#).unwrap();
        assert_eq!(got.values[0].unwrap().get(), "1");
    }

    #[test]
    fn a_lone_surrogate_in_an_unknown_key_or_value_is_skipped() {
        let got = read(r#"{"\ud800":"\udc00","a":1}"#).unwrap();
        assert_eq!(got.values[0].unwrap().get(), "1");
    }

    #[test]
    fn other_json_and_no_json_are_no_object() {
        for text in [
            "",
            "[]",
            "1",
            "null",
            "\"a\"",
            "{",
            "{}x",
            "{\"a\":}",
            "{'a':1}",
            "{a:1}",
            "{1:1}",
            "{null:1}",
            "{\"a\u{1}\":1}",
            "{\"z\n\":1}",
            "{\"z\":\"\t\"}",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
        assert!(read(&deep).is_ok());
        let unknown = format!("{{\"z\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
        assert!(read(&unknown).is_ok());
    }

    #[test]
    fn only_brackets_outside_of_strings_nest() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(nests_at_most(&nested(3), 3));
        assert!(!nests_at_most(&nested(4), 3));
        for text in [
            "[[1],[2],[3],[4]]",
            r#"{"[[[[":"\\"}"#,
            r#"["[[[[\"{{{{","]",[[]]]"#,
            r#"["\\",[["{{{{"]]]"#,
        ] {
            assert!(nests_at_most(text, 3), "{text}");
        }
        assert!(!nests_at_most(r#"["\\",[[{}]],"]"]"#, 3));
    }

    proptest! {
        #[test]
        fn the_depth_is_that_of_a_parser(
            value in any::<bool>().prop_map(Value::from).prop_recursive(8, 64, 4, |inner| {
                prop_oneof![
                    prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                    prop::collection::hash_map(r#"[\[\]{}"\\a]{0,4}"#, inner, 0..4)
                        .prop_map(|map| Value::Object(map.into_iter().collect())),
                ]
            }),
            most in 0usize..10,
        ) {
            fn depth(value: &Value) -> usize {
                match value {
                    Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
                    Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
                    _ => 0,
                }
            }
            prop_assert_eq!(nests_at_most(&value.to_string(), most), depth(&value) <= most);
        }
    }

    #[test]
    fn a_string_with_a_lone_surrogate_is_none() {
        let got = read(r#"{"a":"\ud800","b":"\ud83c\udfa5"}"#).unwrap();
        assert_eq!(string(got.values[0].unwrap()), None);
        assert_eq!(string(got.values[1].unwrap()).unwrap(), "🎥");
    }
}
