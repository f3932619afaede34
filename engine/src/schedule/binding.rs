//! What binds, in an operator's words: the limit, its use, and who set it where.

use super::Scheduler;
use super::answers::seconds;
use super::hold::RULE;
use super::limits::Hindrance;
use super::pacing::{Bound, name_of};
use super::path::Path;
use super::site::Site;
use crate::base::cell::{Cell, CellKey};
use crate::base::gcra::Rate;
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::model::admin::Binding;
use crate::model::settings::{Origin, SiteSettings};

/// What sets limits that nobody configured.
const CONTROL_LOOP: &str = "the control loop";

impl Scheduler {
    /// A hindrance as an operator reads it: in words, with the limit, its use, and who set it.
    pub(super) fn binding(
        &self,
        now: Now,
        site: &Site,
        path: Option<&Path>,
        hindrance: &Hindrance,
    ) -> Binding {
        let until = |until: &Mono| Some(seconds(now, *until));
        let closed = |what: &str, text: &str, at: &Mono| Binding {
            until_seconds: until(at),
            origin: Some(CONTROL_LOOP.to_owned()),
            ..plain(what, text.to_owned())
        };
        match hindrance {
            Hindrance::Held { by, until: at } => Binding {
                until_seconds: at.as_ref().and_then(until),
                origin: Some(self.who(by)),
                ..plain("held", format!("held by {by}"))
            },
            Hindrance::Throttled { until } => {
                closed("throttled", "the site asked to slow down, and is left alone", until)
            }
            Hindrance::Unreachable { until } => {
                closed("unreachable", "the site could not be reached, and is left alone", until)
            }
            Hindrance::Local { until } => {
                closed("local", "this machine could not open a connection", until)
            }
            Hindrance::Probe => {
                let text = "one delivery tries whether the site works again".to_owned();
                Binding { origin: Some(CONTROL_LOOP.to_owned()), ..plain("probe", text) }
            }
            Hindrance::Connection => {
                plain("connecting", "a connection is being opened, or its end awaited".to_owned())
            }
            Hindrance::InUse { until: at } => Binding {
                until_seconds: until(at),
                ..plain("in_use", "a connection in use may be free sooner than another".to_owned())
            },
            Hindrance::Shared { cap } => self.shared_binding(path, cap),
            Hindrance::WarmUp { until: at } => {
                Binding { until_seconds: until(at), ..self.warm_up_binding(now, site, path) }
            }
            Hindrance::Rate { until: at, bound } => {
                Binding { until_seconds: until(at), ..self.bound_binding(site, path, bound, None) }
            }
            Hindrance::Connections { bound, .. } if planted(Bug::DefaultLimitExplained) => {
                self.bound_binding(site, path, bound, Some(SiteSettings::default().connections))
            }
            Hindrance::Connections { limit, bound } => {
                self.bound_binding(site, path, bound, Some(*limit))
            }
        }
    }

    fn bound_binding(
        &self,
        site: &Site,
        path: Option<&Path>,
        bound: &Bound,
        limit: Option<u32>,
    ) -> Binding {
        let settings = &site.pace.settings;
        let of_path = path.map(|path| u64::from(path.in_use));
        let from = &settings.limits_from;
        let rate = |rate: Option<Rate>| rate.map_or_else(|| "its rate".to_owned(), in_words);
        let (what, used, limit_in_words, origin) = match bound {
            Bound::Connections => {
                let limit = format!("{} connections", settings.connections);
                ("connections", Some(u64::from(site.in_use)), limit, origin_of(&from.connections))
            }
            Bound::ConnectionsPerSource => {
                let limit = limit.unwrap_or_default();
                let limit = format!("{limit} connections from each source");
                ("connections_per_source", of_path, limit, origin_of(&from.connections_per_source))
            }
            Bound::ConnectionsPerIp => {
                let limit = "connections to one address".to_owned();
                ("connections_per_ip", of_path, limit, origin_of(&from.connections_per_ip))
            }
            Bound::ConnectionRate => {
                let limit = format!("connections at {}", rate(settings.connection_rate));
                ("connection_rate", None, limit, origin_of(&from.connection_rate))
            }
            Bound::MessageRate => {
                let limit = format!("messages at {}", rate(settings.message_rate));
                ("message_rate", None, limit, origin_of(&from.message_rate))
            }
            Bound::ByteRate => {
                let limit = format!("bytes at {}", rate(settings.byte_rate));
                ("byte_rate", None, limit, origin_of(&from.byte_rate))
            }
            Bound::Learned => {
                let rate = path.and_then(|path| path.control.rate()).filter(|_| limit.is_none());
                let learned = match (rate, limit) {
                    (Some(rate), _) => format!("{:.3} messages/s", f64::from(rate) / 1000.0),
                    (None, limit) => format!("{} connections", limit.unwrap_or_default()),
                };
                let what = if limit.is_some() { "window" } else { "learned_rate" };
                (what, of_path.filter(|_| limit.is_some()), learned, CONTROL_LOOP.to_owned())
            }
            Bound::Rule(name) => {
                let limit =
                    limit.map_or_else(|| "a rate".to_owned(), |one| format!("{one} connections"));
                ("rule", of_path, limit, self.who(&format!("{RULE}{name}")))
            }
            Bound::Shared(cap) => return self.shared_binding(path, cap),
        };
        Binding {
            what: what.to_owned(),
            text: format!("the limit is {limit_in_words}, set by {origin}"),
            limit: limit.map(u64::from),
            used,
            origin: Some(origin),
            until_seconds: None,
        }
    }

    /// A cap that several sites share.
    fn shared_binding(&self, path: Option<&Path>, cap: &str) -> Binding {
        let cells = path.into_iter().flat_map(|path| &path.cells);
        let cell = cells.into_iter().find(|cell| *name_of(cell.key()) == *cap);
        cell.map_or_else(
            || plain("shared", format!("{cap} is used up by all that share it")),
            |cell| self.cell_binding("shared", cell),
        )
    }

    /// The caps of a tenant whose mail stands in no line for them.
    pub(super) fn tenant_binding(&self, tenant: &str) -> Option<Binding> {
        let cell = self.roster.tenant(tenant)?.cell.as_ref()?;
        Some(self.cell_binding("tenant", cell))
    }

    fn cell_binding(&self, what: &str, cell: &Cell) -> Binding {
        let permits = cell.permits();
        let (limit, used) = (permits.cap(), permits.in_use());
        let is_full = limit.is_some_and(|limit| used >= limit);
        let name = name_of(cell.key());
        let text = match is_full {
            true => format!("{name} is used up by all that share it"),
            false => format!("a rate of {name} is used up by all that share it"),
        };
        Binding {
            limit: limit.map(u64::from),
            used: limit.map(|_| u64::from(used)),
            origin: Some(self.cap_origin(cell.key()).unwrap_or_else(|| name.to_string())),
            ..plain(what, text)
        }
    }

    fn cap_origin(&self, key: &CellKey) -> Option<String> {
        let origin = match key {
            CellKey::Provider(name) | CellKey::SourceProvider(_, name) => {
                &self.policies.provider(name)?.origin
            }
            CellKey::Source(name) => {
                let number = self.roster.source_number(name)?;
                let settings = self.roster.source_at(number).settings.as_ref()?;
                return Some(origin_of(&settings.origin));
            }
            CellKey::Tenant(name) => &self.roster.tenant(name)?.settings.origin,
            CellKey::RemoteIp(_) => return None,
        };
        Some(origin_of(origin))
    }

    /// Who holds something: an operator as they are, a rule with its place.
    pub(super) fn who(&self, by: &str) -> String {
        let label = by.strip_prefix(RULE).and_then(|name| self.rules.label(name));
        match label {
            Some(label) if !label.origin.place.is_empty() => {
                format!("{by} at {}", label.origin.place)
            }
            _ => by.to_owned(),
        }
    }
}

/// A word and a sentence, with no figures.
pub(super) fn plain(what: &str, text: String) -> Binding {
    Binding {
        what: what.to_owned(),
        text,
        limit: None,
        used: None,
        origin: None,
        until_seconds: None,
    }
}

/// Where a setting was made: the table, and its file and line.
pub(super) fn origin_of(origin: &Origin) -> String {
    if origin.place.is_empty() {
        return origin.table.to_string();
    }
    format!("[{}] at {}", origin.table, origin.place)
}

fn in_words(rate: Rate) -> String {
    format!("{} in {:?}", rate.units, rate.per)
}
