//! `postrider import`: settings of another mail server, as ours.

mod automation;
mod meaning;
mod read;
mod remarks;
mod shaping;
mod target;
mod values;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use postrider_engine::config::SETTINGS_BYTES_MAX;

use crate::flags::ImportShapingFlags;

/// Something in the file has no counterpart.
const LEFT_SOMETHING_OUT: u8 = 2;

/// Prints the settings to stdout, and what becomes of the rest to stderr, one line each.
pub(crate) fn shaping(flags: &ImportShapingFlags) -> anyhow::Result<ExitCode> {
    let mut files = Vec::new();
    for path in &flags.files {
        let text = read(path).with_context(|| format!("cannot read {}", path.display()))?;
        files.push((path.display().to_string(), text));
    }
    let texts: Vec<shaping::File<'_>> =
        files.iter().map(|(name, text)| (&**name, &**text)).collect();
    let imported = shaping::import(&texts, flags.sources).map_err(|(name, error)| {
        anyhow::Error::new(error).context(format!("{name} is not in the format of shaping.toml"))
    })?;
    let settings = toml::to_string_pretty(&imported.target)?;
    print!("# By postrider import shaping.\n\n{settings}");
    for remark in imported.remarks.in_file_order() {
        eprintln!("{remark}");
    }
    match imported.remarks.is_anything_left_out() {
        true => Ok(ExitCode::from(LEFT_SOMETHING_OUT)),
        false => Ok(ExitCode::SUCCESS),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let most = u64::try_from(SETTINGS_BYTES_MAX)?;
    let mut text = String::new();
    let count = File::open(path)?.take(most + 1).read_to_string(&mut text)?;
    if count > SETTINGS_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
