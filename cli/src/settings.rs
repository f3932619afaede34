//! The settings file from disk, checked; what is wrong with it is shown as a compiler would.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use anyhow::Context;
use postrider_engine::config::{self, Problem, SETTINGS_BYTES_MAX};
use postrider_engine::model::settings::Settings;

/// All that is wrong with a settings file, rendered.
#[derive(Debug)]
pub(crate) struct BadSettings(String);

impl std::error::Error for BadSettings {}

impl fmt::Display for BadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads and checks the settings in `path`.
pub(crate) fn load(path: &Path) -> anyhow::Result<Settings> {
    let text = read(path).with_context(|| format!("cannot read settings {}", path.display()))?;
    let file = path.to_string_lossy();
    let parsed = config::parse(&text, &file, &system_hostname());
    parsed.map_err(|problems| refuse(&problems, &text))
}

/// Reads and checks the settings in `path`, which must have a way for mail to come in.
pub(crate) fn load_to_run(path: &Path) -> anyhow::Result<Settings> {
    let settings = load(path)?;
    let listening = config::require_listener(&settings, &path.to_string_lossy());
    listening.map_err(|problems| refuse(&problems, ""))?;
    Ok(settings)
}

fn refuse(problems: &[Problem], text: &str) -> anyhow::Error {
    let colour = io::stderr().is_terminal();
    BadSettings(config::render(problems, text, colour)).into()
}

/// At most one byte more than settings may have: enough for the check to see that it is too much.
fn read(path: &Path) -> io::Result<String> {
    let most = u64::try_from(SETTINGS_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = String::new();
    File::open(path)?.take(most).read_to_string(&mut text)?;
    Ok(text)
}

/// Empty if it cannot be known; then the settings must give one.
fn system_hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str, load: fn(&Path) -> anyhow::Result<Settings>) -> Result<(), String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("postrider.toml");
        fs::write(&path, text).unwrap();
        load(&path).map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_without_listener_is_good_but_cannot_run() {
        let text = "hostname = \"a.example\"\n";
        assert_eq!(load_text(text, load), Ok(()));
        assert!(load_text(text, load_to_run).unwrap_err().contains("no [[listen]]"));
    }

    #[test]
    fn what_is_wrong_is_shown_in_its_line() {
        let shown = load_text("hostname = \"a b\"\n", load).unwrap_err();
        assert!(shown.contains("postrider.toml:1:12") && shown.contains("^^^^^"), "{shown}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = load(Path::new("/nowhere/postrider.toml")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read settings /nowhere/postrider.toml");
    }
}
