//! Settings from a file: TOML text in, checked plain values or all that is wrong with it out.

mod bounds;
mod caps;
mod check;
mod document;
mod listeners;
mod names;
mod pattern;
mod percent;
mod places;
mod problem;
mod providers;
mod ramp;
mod rates;
mod reading;
mod rules;
mod sites;
mod sources;
mod starter;
mod tenants;
mod units;

pub use percent::Percent;
pub use problem::{PROBLEMS_MAX, Problem, TextPlace, render};
pub use rates::{Amount, Speed, Units};
pub use starter::starter;
pub use units::{CpuList, Period, Size, UnitError};

use crate::model::settings::Settings;
use bounds::Checks;
use places::Places;
use problem::Finding;

/// The largest settings file; a larger one is some other file.
pub const SETTINGS_BYTES_MAX: usize = 16 << 20;

/// Reads the settings in `text`. `file` is only named in problems; `system_hostname` stands in for
/// a `hostname` left out. The generation is 0: whoever loads the settings counts it.
pub fn parse(text: &str, file: &str, system_hostname: &str) -> Result<Settings, Vec<Problem>> {
    if text.len() > SETTINGS_BYTES_MAX {
        return Err(vec![too_large().place(file, text)]);
    }
    let (document, findings) = reading::read(text);
    let mut checks = Checks::after_reading(findings, Places::new(file, text));
    let settings = check::settings(&mut checks, &document, system_hostname);
    let mut findings = checks.findings;
    if findings.is_empty() {
        return Ok(settings);
    }
    findings.sort_by_key(|finding| finding.span.as_ref().map(|span| (span.start, span.end)));
    findings.truncate(PROBLEMS_MAX);
    Err(findings.into_iter().map(|finding| finding.place(file, text)).collect())
}

/// What `run` needs beyond good settings: something to listen on.
pub fn require_listener(settings: &Settings, file: &str) -> Result<(), Vec<Problem>> {
    if !settings.listeners.is_empty() {
        return Ok(());
    }
    let finding = Finding {
        span: None,
        title: "no [[listen]]: there would be no way for mail to come in".to_owned(),
        label: String::new(),
        help: Some("add [[listen]] with address = \"127.0.0.1:2525\"".to_owned()),
    };
    Err(vec![finding.place(file, "")])
}

fn too_large() -> Finding {
    let title = format!("a settings file has at most {SETTINGS_BYTES_MAX} bytes");
    Finding { span: None, title, label: String::new(), help: None }
}

#[cfg(test)]
mod tests;
