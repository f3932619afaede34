//! What a session must know of the settings.

use std::time::Duration;

use crate::model::flow::{Flow, MailClass};
use crate::model::settings::Settings;
use crate::wire::envelope::Labels;
use crate::wire::label_fields::LabelFields;

/// Shared by all sessions of a shard; a session keeps the settings it began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeSettings {
    pub hostname: Box<str>,
    /// The largest message, counted without stuffing dots.
    pub message_bytes: u64,
    /// Recipients per message.
    pub recipients: u16,
    /// Time without a whole command, or without a byte of text.
    pub idle_timeout: Duration,
    /// Total time for the text of one message.
    pub data_timeout: Duration,
    /// What comes in by each listener and does not say otherwise.
    pub flows: Vec<Flow>,
    /// Tenants whose mail has a class of its own, sorted by name.
    pub classes: Vec<(Box<str>, MailClass)>,
}

impl IntakeSettings {
    /// Whose mail it is, and how urgent: as its header says, if that counts, else as its listener
    /// does. A class that is not named is the tenant's.
    pub(super) fn labels<'a>(
        &'a self,
        listener: u16,
        fields: Option<&'a LabelFields>,
    ) -> Labels<'a> {
        let said = self.flows.get(usize::from(listener)).map_or_else(Labels::default, Labels::from);
        match fields {
            None => self.with_class(said, None),
            Some(fields) => self.with_class(overridden(said, fields), fields.class),
        }
    }

    fn with_class<'a>(&self, labels: Labels<'a>, named: Option<MailClass>) -> Labels<'a> {
        let of_tenant = || {
            let found = self.classes.binary_search_by(|(name, _)| (**name).cmp(labels.tenant));
            found.ok().map(|index| self.classes[index].1)
        };
        Labels { class: named.or_else(of_tenant).unwrap_or(labels.class), ..labels }
    }
}

fn overridden<'a>(said: Labels<'a>, fields: &'a LabelFields) -> Labels<'a> {
    Labels {
        class: said.class,
        tenant: fields.tenant.as_deref().unwrap_or(said.tenant),
        campaign: fields.campaign.as_deref().unwrap_or(said.campaign),
        expire: fields.expire.or(said.expire),
    }
}

impl From<&Settings> for IntakeSettings {
    fn from(settings: &Settings) -> Self {
        Self {
            hostname: settings.hostname.clone(),
            message_bytes: settings.limits.message_bytes,
            recipients: settings.limits.recipients,
            idle_timeout: settings.limits.idle_timeout,
            data_timeout: settings.limits.data_timeout,
            flows: settings.listeners.iter().map(|listener| listener.flow.clone()).collect(),
            classes: classes(settings),
        }
    }
}

fn classes(settings: &Settings) -> Vec<(Box<str>, MailClass)> {
    let own = settings.tenants.iter().filter_map(|one| Some((one.name.clone(), one.class?)));
    let mut classes: Vec<_> = own.collect();
    classes.sort();
    classes
}
