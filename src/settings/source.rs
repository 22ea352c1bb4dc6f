//! Where the settings come from: at the start, and again at each reload.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use super::{DEFAULT_FILE, Settings, SettingsError, file};

/// The settings file and the flags of a process. It remembers what the file was when it was last
/// read: a reload must not take a file that is just being replaced for a change of every key.
#[derive(Debug, Default)]
pub struct Source {
    file: Option<PathBuf>,
    bind: Option<SocketAddr>,
    /// Whether the file existed.
    was_there: AtomicBool,
    /// Whether the file set a key.
    had_keys: AtomicBool,
}

impl Source {
    /// Reads `file`, which must then exist, or [`DEFAULT_FILE`] where that exists. `bind` is the
    /// command line's.
    pub fn new(file: Option<PathBuf>, bind: Option<SocketAddr>) -> Self {
        Self {
            file,
            bind,
            ..Self::default()
        }
    }

    /// Reads and checks the settings: the file, then the process's environment, then the flags.
    ///
    /// # Errors
    /// [`SettingsError`], in one line. A file that existed when the settings were last read and
    /// does not any more is an error, and so is one that had keys and has none: an editor empties
    /// a file before it writes it.
    pub fn read(&self) -> Result<Settings, SettingsError> {
        let path = self.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        let text = match self.file {
            Some(_) => Some(file::read(path)?),
            None => file::read_if_there(path)?,
        };
        if text.is_none() && self.was_there.load(Ordering::Relaxed) {
            return Err(SettingsError::Unreadable(format!(
                "the file {path:?} existed when the settings were last read, and does not any more"
            )));
        }
        let has_keys = text.as_deref().is_some_and(file::has_keys);
        if !has_keys && self.had_keys.load(Ordering::Relaxed) {
            return Err(SettingsError::Unreadable(format!(
                "the file {path:?} had keys when the settings were last read, and has none any more"
            )));
        }
        let is_there = text.is_some();
        let text = text.unwrap_or_default();
        let settings = Settings::from_layers(&text, std::env::vars_os(), self.bind)?;
        self.was_there.store(is_there, Ordering::Relaxed);
        self.had_keys.store(has_keys, Ordering::Relaxed);
        Ok(settings)
    }
}
