//! The settings file, up to where it is known to be TOML.

use std::{fs, io, path::Path};

use super::SettingsError;

/// The text of a file that must be there.
pub(super) fn read(path: &Path) -> Result<String, SettingsError> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    // Parsed here once more than needed, for a message that shows no line of the file: a secret
    // may stand there.
    match toml::from_str::<toml::Table>(&text) {
        Ok(_) => Ok(text),
        Err(error) => {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            let mut what: Vec<&str> = error.message().split_whitespace().collect();
            if error.message().contains("integer `") {
                what = vec!["a number is too large; a text needs quotes"];
            }
            Err(SettingsError::Unreadable(format!(
                "the file {path:?} is no TOML, see its line {line}: {}",
                what.join(" ")
            )))
        }
    }
}

/// The text of a file, or `None` where there is no such file. One that is there and cannot
/// be read is an error: the operator wrote it to be heeded.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, SettingsError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => read(path).map(Some),
    }
}

/// Whether a text in TOML sets anything.
pub(super) fn has_keys(text: &str) -> bool {
    toml::from_str::<toml::Table>(text).is_ok_and(|table| !table.is_empty())
}

fn unreadable(path: &Path, error: &io::Error) -> SettingsError {
    SettingsError::Unreadable(format!(
        "the file {path:?} cannot be read, it must be a text file in UTF-8: {error}"
    ))
}
