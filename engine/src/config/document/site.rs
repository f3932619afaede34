//! The tables of sites and providers.

use serde::Deserialize;
use toml::Spanned;

use super::Given;
use crate::config::rates::{Pace, Units};
use crate::config::units::{Period, Size};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Site {
    pub(crate) connections: Given<i64>,
    pub(crate) connections_per_source: Given<i64>,
    pub(crate) connections_per_ip: Given<i64>,
    pub(crate) connection_rate: Given<Pace<Units>>,
    pub(crate) message_rate: Given<Pace<Units>>,
    pub(crate) byte_rate: Given<Pace<Size>>,
    pub(crate) messages_per_connection: Given<i64>,
    pub(crate) recipients_per_message: Given<i64>,
    pub(crate) chunking: Option<bool>,
    pub(crate) start_connections: Given<i64>,
    pub(crate) floor_connections: Given<i64>,
    pub(crate) adaptive: Option<bool>,
    pub(crate) retry: Given<Vec<Spanned<Period>>>,
    pub(crate) expire: Given<Period>,
    pub(crate) idle_timeout: Given<Period>,
    pub(crate) connect_timeout: Given<Period>,
    pub(crate) greeting_timeout: Given<Period>,
    pub(crate) command_timeout: Given<Period>,
    pub(crate) data_timeout: Given<Period>,
    pub(crate) body_timeout: Given<Period>,
    pub(crate) dot_timeout: Given<Period>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Provider {
    pub(crate) mx: Vec<Spanned<String>>,
    pub(crate) domains: Vec<Spanned<String>>,
    pub(crate) connections: Given<i64>,
    pub(crate) connection_rate: Given<Pace<Units>>,
    pub(crate) message_rate: Given<Pace<Units>>,
    pub(crate) byte_rate: Given<Pace<Size>>,
    pub(crate) per_source: Caps,
    pub(crate) site: Given<Site>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Caps {
    pub(crate) connections: Given<i64>,
    pub(crate) connection_rate: Given<Pace<Units>>,
    pub(crate) message_rate: Given<Pace<Units>>,
    pub(crate) byte_rate: Given<Pace<Size>>,
}

/// The keys that several tables share; flattening them in reading would lose the spans.
pub(crate) struct GivenCaps<'a> {
    pub(crate) connections: &'a Given<i64>,
    pub(crate) connection_rate: &'a Given<Pace<Units>>,
    pub(crate) message_rate: &'a Given<Pace<Units>>,
    pub(crate) byte_rate: &'a Given<Pace<Size>>,
}

/// Lends out the caps of a table.
macro_rules! has_caps {
    ($table:ty) => {
        impl $table {
            pub(crate) fn caps(&self) -> crate::config::document::GivenCaps<'_> {
                crate::config::document::GivenCaps {
                    connections: &self.connections,
                    connection_rate: &self.connection_rate,
                    message_rate: &self.message_rate,
                    byte_rate: &self.byte_rate,
                }
            }
        }
    };
}
pub(super) use has_caps;

has_caps!(Caps);
has_caps!(Provider);
