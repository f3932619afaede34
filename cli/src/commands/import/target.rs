//! The settings that an import prints, in the order they should stand.

use std::collections::BTreeSet;

use postrider_engine::config::Period;
use serde::{Serialize, Serializer};

#[derive(Debug, Default, Serialize)]
pub(super) struct Target {
    #[serde(skip_serializing_if = "Egress::is_empty")]
    pub(super) egress: Egress,
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub(super) site: Named<Site>,
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub(super) provider: Named<Provider>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rule: Vec<Rule>,
}

/// Tables by name, in the order they were added: the first provider that matches counts.
#[derive(Debug)]
pub(super) struct Named<T>(pub(super) Vec<(String, T)>);

#[derive(Debug, Default, Serialize)]
pub(super) struct Egress {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<&'static str>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Site {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connections: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connections_per_source: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) messages_per_connection: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) recipients_per_message: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) idle_timeout: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connect_timeout: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) greeting_timeout: Option<Time>,
    #[serde(skip_serializing_if = "CommandTimeouts::is_empty")]
    pub(super) command_timeout: CommandTimeouts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data_timeout: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dot_timeout: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connection_rate: Option<Pace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message_rate: Option<Pace>,
}

/// There each of these has its own, which a later file may change; ours has one for all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CommandTimeouts {
    pub(super) ehlo: Option<Time>,
    pub(super) mail_from: Option<Time>,
    pub(super) rcpt_to: Option<Time>,
    pub(super) rset: Option<Time>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Provider {
    /// A set: a suffix given twice says nothing twice.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) mx: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) domains: BTreeSet<String>,
    #[serde(skip_serializing_if = "Caps::is_empty")]
    pub(super) per_source: Caps,
    #[serde(skip_serializing_if = "Site::is_empty")]
    pub(super) site: Site,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Caps {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connections: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message_rate: Option<Pace>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Rule {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) domain: Option<String>,
    pub(super) reply: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) within: Option<Time>,
    pub(super) action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) suspend: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "for")]
    pub(super) lasts: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<Limit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Limit {
    Connections(u32),
    Rate(Pace),
}

/// `"10/s"`, or with its burst.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Pace {
    Plain(String),
    Bursting { rate: String, burst: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub(super) Period);

impl Egress {
    fn is_empty(&self) -> bool {
        self.port.is_none() && self.tls.is_none()
    }
}

impl Site {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl CommandTimeouts {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// No command may be cut off that has its time there.
    fn longest(&self) -> Option<Time> {
        self.ehlo.max(self.mail_from).max(self.rcpt_to).max(self.rset)
    }
}

impl Caps {
    fn is_empty(&self) -> bool {
        self.connections.is_none() && self.message_rate.is_none()
    }
}

impl<T> Named<T> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Serialize> Serialize for Named<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, table)| (name, table)))
    }
}

impl Serialize for CommandTimeouts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.longest().serialize(serializer)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
