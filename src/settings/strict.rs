//! From merged layers to [`Settings`], with no value taken for one of another type.
//!
//! The config crate's own deserializer would make 2 of `1.5`, 1 of `true` and a number of a text;
//! serde_json's tree makes nothing of anything.

use std::fmt;

use config::Config;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::{Settings, SettingsError, environment::entry_variables};

/// Reads the settings.
pub(super) fn read(merged: Config) -> Result<Settings, SettingsError> {
    let tree: Value = merged
        .try_deserialize()
        .map_err(|error| SettingsError::Unreadable(error.to_string()))?;
    check_gaps("", &tree)?;
    serde_path_to_error::deserialize(&tree)
        .map_err(|error| complaint(error.path(), &error.inner().to_string(), &tree))
}

/// Finds the first entry of a list that is missing although a later one is given. TOML cannot leave
/// an entry out, the numbered variables of the environment can.
fn check_gaps(path: &str, tree: &Value) -> Result<(), SettingsError> {
    match tree {
        Value::Object(table) => table.iter().try_for_each(|(key, value)| match path {
            "" => check_gaps(key, value),
            _ => check_gaps(&format!("{path}.{key}"), value),
        }),
        Value::Array(entries) => match entries.iter().position(Value::is_null) {
            Some(gap) => Err(SettingsError::invalid(
                &format!("{path}[{gap}]"),
                None,
                format_args!(
                    "must be given where later entries are: set {}, or number the others from 0 \
                     without a gap",
                    entry_variables(path, gap)
                ),
            )),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// What serde found wrong, said in our way. Its own words may hold the value, and are not used
/// beyond what it expected instead.
fn complaint(path: &Path, said: &str, tree: &Value) -> SettingsError {
    let key = path.to_string();
    let value = path.iter().try_fold(tree, |value, segment| match segment {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } => value.get(key),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    if let Some(known) = between(said, "`, expected one of ", "") {
        let known = known.replace('`', "");
        let remedy = format_args!("there is no such key; there are {known}");
        return SettingsError::invalid(&key, value, remedy);
    }
    if let Some(missing) = between(said, "missing field `", "`") {
        let key = format!("{key}.{missing}");
        return SettingsError::invalid(&key, None, "must be given");
    }
    match between(said, ", expected ", "") {
        Some(expected) => {
            let remedy = format_args!("must be {}", Plainly(expected));
            SettingsError::invalid(&key, value, remedy)
        }
        None => SettingsError::invalid(&key, value, said),
    }
}

/// What stands between the first `from` and the `to` behind it (or the end, for "").
fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(from)?;
    match to {
        "" => Some(rest),
        to => rest.split_once(to).map(|(inside, _)| inside),
    }
}

/// What serde expected, in an operator's words.
struct Plainly<'a>(&'a str);

impl fmt::Display for Plainly<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "usize" => f.write_str("a whole number, 0 or more"),
            "u32" => write!(f, "a whole number from 0 to {}", u32::MAX),
            "a boolean" => f.write_str("true or false"),
            "a string" => f.write_str("a text in quotes"),
            "a sequence" => f.write_str("a list"),
            table if table.starts_with("struct ") => f.write_str("a table of keys"),
            other => f.write_str(other),
        }
    }
}
