//! What a session must know of the settings.

use std::time::Duration;

use crate::model::settings::Settings;

/// Shared by all sessions of a shard; a session keeps the settings it began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeSettings {
    pub hostname: Box<str>,
    /// The largest message, counted as it is stored: without stuffing dots.
    pub message_bytes: u64,
    /// Recipients per message.
    pub recipients: u16,
    /// Time without a whole command, or without a byte of text.
    pub idle_timeout: Duration,
    /// Total time for the text of one message.
    pub data_timeout: Duration,
}

impl From<&Settings> for IntakeSettings {
    fn from(settings: &Settings) -> Self {
        Self {
            hostname: settings.hostname.clone(),
            message_bytes: settings.limits.message_bytes,
            recipients: settings.limits.recipients,
            idle_timeout: settings.limits.idle_timeout,
            data_timeout: settings.limits.data_timeout,
        }
    }
}
