//! What is said of settings that cannot be used: one line, and no secret in it.

use std::fmt;

use serde_json::Value;
use thiserror::Error;

/// Settings that cannot be used, in one line that says what would be right.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SettingsError {
    /// Not readable, or no TOML.
    #[error("settings: {0}")]
    Unreadable(String),
    /// A key that is not known, or whose value is of the wrong type or out of range.
    #[error("settings: {key} = {value}: {remedy}")]
    Invalid {
        /// The key, with its section.
        key: String,
        /// What it was set to, in quotes where it is text. Never a secret.
        value: String,
        /// What would be right.
        remedy: String,
    },
}

/// The keys below `[auth]` whose values may be shown. Whatever else stands there may be a
/// secret under a misspelt name.
const OPEN_AUTH_KEYS: [&str; 6] = [
    "leeway",
    "app",
    "kid",
    "alg",
    "secret_file",
    "public_key_file",
];

impl SettingsError {
    /// `key` is set to `value` (`None`: to nothing at all), which it may not be.
    pub(super) fn invalid(key: &str, value: Option<&Value>, remedy: impl fmt::Display) -> Self {
        Self::Invalid {
            key: key.escape_debug().to_string(),
            value: match value {
                None => "(missing)".into(),
                Some(_) if is_secret(key) => "(hidden)".into(),
                Some(Value::Null) => "(nothing)".into(),
                Some(Value::Array(items)) if items.is_empty() => "[]".into(),
                Some(Value::Array(_)) => "(a list)".into(),
                Some(Value::Object(_)) => "(a table)".into(),
                Some(Value::String(text)) => format!("{text:?}"),
                Some(scalar) => scalar.to_string(),
            },
            remedy: remedy.to_string(),
        }
    }

    /// The same error where `kept` keys have a value that is not the one in the settings file.
    pub(super) fn until_restart(self, kept: &[&str]) -> Self {
        match self {
            Self::Invalid { key, value, remedy } => Self::Invalid {
                key,
                value,
                remedy: format!(
                    "{remedy}; until a restart the old {} holds",
                    kept.join(", ")
                ),
            },
            unreadable => unreadable,
        }
    }
}

/// Whether a key's value is kept out of every message. `key` is a path, or the name of an
/// environment variable.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace("__", ".");
    let last = key.rsplit('.').next().unwrap_or_default();
    let last = last.split('[').next().unwrap_or_default();
    if OPEN_AUTH_KEYS.contains(&last) {
        return false;
    }
    key.contains("secret") || key.split(['.', '[']).any(|part| part == "auth")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_may_be_secrets_are_not_shown() {
        for (key, secret) in [
            ("auth.keys[0].secret", true),
            ("auth.keys[0].secrt", true),
            ("auth.keys[0]", true),
            ("auth.secret", true),
            ("auth.password", true),
            ("server.secret", true),
            ("secret", true),
            ("MEETING_SERVER__AUTH__KEY", true),
            ("MEETING_SERVER__SECRET", true),
            ("auth.keys[0].secret_file", false),
            ("auth.keys[0].kid", false),
            ("auth.leeway", false),
            ("server.bind", false),
            ("MEETING_SERVER__SERVER__BINT", false),
        ] {
            assert_eq!(is_secret(key), secret, "{key}");
        }
    }

    #[test]
    fn a_key_of_many_lines_is_said_in_one() {
        let error = SettingsError::invalid("a\nb", Some(&"c\nd".into()), "is wrong");
        assert_eq!(error.to_string(), r#"settings: a\nb = "c\nd": is wrong"#);
    }
}
