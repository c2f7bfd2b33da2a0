//! Where the service is, and other settings of programs: a file, and the environment.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Error, look_time};
use crate::control::NAME_MAX;

/// Where services are when nobody says otherwise.
const DEFAULT_SOCKET: &str = "/run/courser.sock";
/// Bytes of the longest configuration file.
const FILE_MAX: u64 = 1 << 20;
/// Nobody should look around for longer.
const LOOK_MAX: Duration = Duration::from_millis(10);

/// How a program attaches to a service.
///
/// The file that `COURSER_CONFIG` names may say in its table `[stack]` where the `socket` is, for how many microseconds
/// threads look around before they sleep (`look-us`), and what operators see the program as (`name`). Other tables and keys are
/// for others. `COURSER_SOCKET` comes before the file's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The service's socket.
    pub socket: PathBuf,
    /// What operators see the program as; the default is the name of its file.
    pub name: String,
    /// How long a thread that waits looks for news before it sleeps. Longer makes answers quicker and costs processor time.
    /// The default is 50 µs, or nothing where only one thread can run at once.
    pub look: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let program = env::args_os().next().map(PathBuf::from);
        let name = program.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let name: String = name.unwrap_or_default().chars().take(NAME_MAX / 4).collect();
        Self { socket: DEFAULT_SOCKET.into(), name, look: look_time() }
    }
}

impl Config {
    /// What the environment and the file that it names say.
    ///
    /// # Errors
    /// [`Error::Config`] when the file cannot be read or makes no sense.
    pub fn from_environment() -> Result<Self, Error> {
        Self::from_lookup(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, Error> {
        let mut config = match lookup("COURSER_CONFIG") {
            Some(file) => Self::read(&file)?,
            None => Self::default(),
        };
        if let Some(socket) = lookup("COURSER_SOCKET") {
            config.socket = socket;
        }
        Ok(config)
    }

    /// What a file says.
    ///
    /// # Errors
    /// [`Error::Config`] when it cannot be read or makes no sense.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let wrong = |what: &dyn std::fmt::Display| Error::Config(format!("{}: {what}", file.display()));
        let size = fs::metadata(file).map_err(|error| wrong(&error))?.len();
        if size > FILE_MAX {
            return Err(wrong(&"it is longer than a configuration file may be"));
        }
        let text = fs::read_to_string(file).map_err(|error| wrong(&error))?;
        Self::parse(&text).map_err(|what| wrong(&what))
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let file: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        let mut config = Self::default();
        let Some(stack) = file.get("stack") else { return Ok(config) };
        let stack = stack.as_table().ok_or("`stack` is no table; write [stack]")?;
        if let Some(socket) = stack.get("socket") {
            let socket = socket.as_str().filter(|path| !path.is_empty());
            config.socket =
                socket.ok_or("`socket` in [stack] is no path; write socket = \"/run/courser.sock\"")?.into();
        }
        if let Some(name) = stack.get("name") {
            let name = name.as_str().filter(|name| name.len() <= NAME_MAX);
            config.name = name.ok_or("`name` in [stack] is no text of up to 64 bytes")?.to_owned();
        }
        if let Some(look) = stack.get("look-us") {
            let look = look.as_integer().and_then(|look| u64::try_from(look).ok()).map(Duration::from_micros);
            let look = look.filter(|look| *look <= LOOK_MAX);
            config.look = look.ok_or("`look-us` in [stack] is no number of microseconds from 0 to 10000")?;
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_where_the_service_is_and_the_environment_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("courser.toml");
        let text = "[stack]\nsocket = \"/a/b\"\nlook-us = 7\nname = \"me\"\nendpoints = 3\n[log]\nlevel = 1\n";
        fs::write(&file, text).unwrap();
        let only_file = |name: &str| (name == "COURSER_CONFIG").then(|| file.clone());
        let config = Config::from_lookup(only_file).unwrap();
        assert_eq!((config.socket.to_str(), config.name.as_str()), (Some("/a/b"), "me"));
        assert_eq!(config.look, Duration::from_micros(7));
        let both = |name: &str| only_file(name).or_else(|| (name == "COURSER_SOCKET").then(|| "/c".into()));
        let config = Config::from_lookup(both).unwrap();
        assert_eq!((config.socket.to_str(), config.name.as_str()), (Some("/c"), "me"));
        let config = Config::from_lookup(|_| None).unwrap();
        assert_eq!(config.socket.to_str(), Some(DEFAULT_SOCKET));
        assert!(!config.name.is_empty(), "the name of the program's file");
    }

    #[test]
    fn what_a_file_says_wrongly_is_told_with_its_place() {
        for (text, why) in [
            ("[stack]\nsocket = 3", "`socket` in [stack]"),
            ("[stack]\nsocket = \"\"", "`socket` in [stack]"),
            ("stack = 1", "write [stack]"),
            ("[stack]\nlook-us = -1", "`look-us` in [stack]"),
            ("[stack]\nlook-us = 10001", "`look-us` in [stack]"),
            ("[stack]\nname = 1", "`name` in [stack]"),
            ("[stack", "line 1"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        let lookup = |name: &str| (name == "COURSER_CONFIG").then(|| PathBuf::from("/nowhere/at/all.toml"));
        let error = Config::from_lookup(lookup).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all.toml"), "{error}");
    }
}
