//! Settings in environment variables: `MEETING_SERVER__SERVER__BIND=0.0.0.0:8080`.
//!
//! A variable is text, so the type of its value is that of the built-in default; what has none
//! (the keys of an `[[auth.keys]]`) is text. Nothing is guessed from the value: a secret `00123`
//! is no number. Entries of a list of tables have a number:
//! `MEETING_SERVER__AUTH__KEYS__0__SECRET=…`.

use std::ffi::{OsStr, OsString};

use config::Value;
use toml::Value as Default;

use super::{DEFAULTS, SettingsError};

/// What every variable begins with that is a setting. Other names with `MEETING_SERVER` in front
/// are not ours: Kubernetes sets `MEETING_SERVER_PORT` for a service of that name.
pub const PREFIX: &str = "MEETING_SERVER__";

/// Stands between section and key.
const SEPARATOR: &str = "__";

/// The most entries of a list of tables.
const MAX_ENTRIES: usize = 1000;

/// The settings among `variables`, each with its path in the way of the config crate.
pub(super) fn overrides(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, Value)>, SettingsError> {
    let defaults = toml::from_str(DEFAULTS)
        .map(Default::Table)
        .map_err(|error| SettingsError::Unreadable(error.to_string()))?;
    let overrides: Vec<(String, Value)> = variables
        .into_iter()
        .filter(|(name, _)| is_ours(name))
        .map(|(name, value)| {
            let name = name.to_string_lossy();
            let Some(value) = value.to_str() else {
                let lossy = value.to_string_lossy().into();
                let remedy = "must be text in UTF-8";
                return Err(SettingsError::invalid(&name, Some(&lossy), remedy));
            };
            let (path, default) = place(&name, &defaults)
                .map_err(|remedy| SettingsError::invalid(&name, Some(&value.into()), remedy))?;
            Ok((path, typed(value, default)))
        })
        .collect::<Result<_, _>>()?;
    check_lists(&overrides)?;
    Ok(overrides)
}

/// Checks that no list is set as a whole and by its entries too: it would be left to chance which of
/// them holds, and with `auth.keys` whether tokens are needed.
fn check_lists(overrides: &[(String, Value)]) -> Result<(), SettingsError> {
    for (path, value) in overrides {
        let entry = format!("{path}[");
        if overrides.iter().any(|(other, _)| other.starts_with(&entry)) {
            let list = path.to_ascii_uppercase().replace('.', SEPARATOR);
            let name = format!("{PREFIX}{list}");
            let value = value.to_string().into();
            let remedy = format!("must not be set beside {name}{SEPARATOR}0…");
            return Err(SettingsError::invalid(&name, Some(&value), remedy));
        }
    }
    Ok(())
}

/// What names the entries that an environment variable can set: `MEETING_SERVER__AUTH__KEYS__1__…`
/// for `auth.keys[1]`.
pub(super) fn entry_variables(list: &str, index: usize) -> String {
    let list = list.to_ascii_uppercase().replace('.', SEPARATOR);
    format!("{PREFIX}{list}{SEPARATOR}{index}{SEPARATOR}…")
}

fn is_ours(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

/// Where the setting of this name belongs, and its default, if it has one; or what would be right
/// instead.
fn place<'a>(name: &str, defaults: &'a Default) -> Result<(String, Option<&'a Default>), String> {
    let mut path = String::new();
    let mut at = Some(defaults);
    for part in name.strip_prefix(PREFIX).unwrap_or(name).split(SEPARATOR) {
        at = match at {
            Some(Default::Array(entries)) => {
                let index = part
                    .parse::<usize>()
                    .ok()
                    .filter(|index| *index < MAX_ENTRIES);
                let index = index
                    .ok_or_else(|| format!("{part:?} must be the number of an entry, from 0"))?;
                path.push_str(&format!("[{index}]"));
                entries.first()
            }
            Some(Default::Table(known)) => {
                let next = known.get(&key(part)?).ok_or_else(|| {
                    let known: Vec<String> =
                        known.keys().map(|key| key.to_ascii_uppercase()).collect();
                    format!("there is no {part:?}; there are {}", known.join(", "))
                })?;
                push_key(&mut path, &key(part)?);
                Some(next)
            }
            // An entry that no default describes.
            None => {
                push_key(&mut path, &key(part)?);
                None
            }
            Some(_) => return Err(format!("there is no {part:?} below a single value")),
        };
    }
    match at {
        Some(Default::Table(known)) => {
            let known: Vec<String> = known.keys().map(|key| key.to_ascii_uppercase()).collect();
            Err(format!("is no key; there are {}", known.join(", ")))
        }
        leaf => Ok((path, leaf)),
    }
}

/// The key that a part of a name stands for.
fn key(part: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    if part.is_empty() || !part.bytes().all(allowed) {
        return Err(format!(
            "{part:?} must be a key in capitals, as in {PREFIX}SERVER__BIND"
        ));
    }
    Ok(part.to_ascii_lowercase())
}

fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

/// A text as a value of the default's type, or as it is where it is none: then it is found to be
/// of the wrong type, as it would be in a file.
fn typed(text: &str, default: Option<&Default>) -> Value {
    let read: Option<Value> = match default {
        Some(Default::Integer(_)) => text.trim().parse::<i64>().ok().map(Value::from),
        Some(Default::Boolean(_)) => text.trim().parse::<bool>().ok().map(Value::from),
        Some(Default::Array(_)) => {
            let items = text.split(',').map(str::trim);
            let items: Vec<&str> = items.filter(|item| !item.is_empty()).collect();
            Some(Value::from(items))
        }
        _ => None,
    };
    read.unwrap_or_else(|| Value::from(text))
}
