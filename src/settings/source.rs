//! Where the settings come from: at the start, and again at each reload.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{DEFAULT_FILE, Settings, SettingsError, file};

/// What a settings file was when it was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileState {
    exists: bool,
    /// Whether it sets a key.
    has_keys: bool,
}

/// The settings file and the flags of a process. It remembers what the file of the settings in
/// effect was: a reload must not take a file that is just being replaced for a change of every key.
#[derive(Debug, Default)]
pub struct Source {
    file: Option<PathBuf>,
    bind: Option<SocketAddr>,
    in_effect: Mutex<FileState>,
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
    /// [`Source::took_effect`] takes the second value once the settings are in effect.
    ///
    /// # Errors
    /// [`SettingsError`], in one line. Where the file of the settings in effect existed, a missing
    /// file is an error, and where that had keys, a file without keys is one: an editor empties a
    /// file before it writes it.
    pub fn read(&self) -> Result<(Settings, FileState), SettingsError> {
        let path = self.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        let text = match self.file {
            Some(_) => Some(file::read(path)?),
            None => file::read_if_there(path)?,
        };
        let read = FileState {
            exists: text.is_some(),
            has_keys: text.as_deref().is_some_and(file::has_keys),
        };
        let in_effect = *self
            .in_effect
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if in_effect.exists && !read.exists {
            return Err(SettingsError::Unreadable(format!(
                "the settings in effect come from the file {path:?}, which does not exist any more"
            )));
        }
        if in_effect.has_keys && !read.has_keys {
            return Err(SettingsError::Unreadable(format!(
                "the settings in effect come from the file {path:?}, which has no keys any more"
            )));
        }
        let text = text.unwrap_or_default();
        let settings = Settings::from_layers(&text, std::env::vars_os(), self.bind)?;
        Ok((settings, read))
    }

    /// The settings that were read with this state are in effect from now on.
    pub fn took_effect(&self, file: FileState) {
        *self
            .in_effect
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = file;
    }
}
