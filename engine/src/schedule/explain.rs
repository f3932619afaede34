//! Why mail for a site waits, and until when, as a small value.

use super::Scheduler;
use super::answers::seconds;
use super::limits::Hindrance;
use super::pacing::Bound;
use super::path::Path;
use super::site::Site;
use crate::base::gcra::Rate;
use crate::base::time::{Mono, Now};
use crate::model::admin::Binding;
use crate::model::outcome::Reply;
use crate::model::route::SiteKey;
use crate::model::settings::Origin;

/// What sets limits that nobody configured.
const CONTROL_LOOP: &str = "the control loop";

/// The state of one site.
#[derive(Clone, Debug)]
pub struct SiteView {
    pub site: SiteKey,
    pub ready: u32,
    pub deferred: u32,
    pub in_flight: u32,
    pub connections: u32,
    pub connections_max: u32,
    /// The domain, or "default", whose settings gave `connections_max`.
    pub bound_by: Box<str>,
    pub waits_for: WaitsFor,
    /// The last complaint of the site.
    pub last_reply: Option<Reply>,
}

/// The limit that binds at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// Nothing is ready.
    Nothing,
    /// The next try of what is deferred.
    NextTry { at: Mono },
    /// A limit, a rate, a pause or a hold.
    Limit(Hindrance),
    /// The engine is stopping.
    Stop,
}

impl Scheduler {
    /// The state of a site, if it holds anything.
    #[must_use]
    pub fn explain(&self, now: Now, key: &SiteKey) -> Option<SiteView> {
        self.sites.find(key).map(|number| self.view(now, &self.sites[number]))
    }

    /// The states of all sites that hold mail for `domain`. Looks at every domain: for people.
    #[must_use]
    pub fn explain_domain(&self, now: Now, domain: &str) -> Vec<SiteView> {
        let courses = self.courses.iter().filter(|course| *course.domain == *domain);
        let mut sites: Vec<u32> = courses.map(|course| course.site).collect();
        sites.sort_unstable();
        sites.dedup();
        sites.into_iter().map(|site| self.view(now, &self.sites[site])).collect()
    }

    fn view(&self, now: Now, site: &Site) -> SiteView {
        SiteView {
            site: site.key.clone(),
            ready: site.ready,
            deferred: site.deferred,
            in_flight: site.in_flight,
            connections: site.in_use,
            connections_max: site.pace.settings.connections,
            bound_by: (*site.pace.bound_by).into(),
            waits_for: self.waits_for(now, site),
            last_reply: site.last_reply.clone(),
        }
    }

    pub(super) fn waits_for(&self, now: Now, site: &Site) -> WaitsFor {
        if self.stopping {
            return WaitsFor::Stop;
        }
        if site.ready == 0 {
            let next = self.next_try(now, site);
            return next.map_or(WaitsFor::Nothing, |at| WaitsFor::NextTry { at });
        }
        self.hindrance(now, site).map_or(WaitsFor::Nothing, WaitsFor::Limit)
    }

    /// What keeps the next delivery of a site from going out: of its paths, the one that comes nearest.
    fn hindrance(&self, now: Now, site: &Site) -> Option<Hindrance> {
        let path = |path| self.path_hindrance(now, site, path);
        let nearest =
            site.paths.iter().map(path).min_by_key(|one| one.as_ref().map(Hindrance::rank));
        nearest?.or_else(|| self.left_to_another(now, site))
    }

    pub(super) fn path_hindrance(&self, now: Now, site: &Site, path: &Path) -> Option<Hindrance> {
        let sent = self.may_send(now, site, (path.source, Some(path)), 0);
        sent.and_then(|()| self.may_open(now, site, Some(path))).err()
    }

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
                origin: Some(by.to_string()),
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
            Hindrance::Shared { cap } => self.shared_binding(path, cap),
            Hindrance::WarmUp { until: at } => {
                Binding { until_seconds: until(at), ..self.warm_up_binding(now, site, path) }
            }
            Hindrance::Rate { until: at, bound } => {
                Binding { until_seconds: until(at), ..self.bound_binding(site, path, bound, None) }
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
        let own = origin_of(&settings.origin);
        let rate = |rate: Option<Rate>| rate.map_or_else(|| "its rate".to_owned(), in_words);
        let (what, used, limit_in_words, origin) = match bound {
            Bound::Connections => {
                let limit = format!("{} connections", settings.connections);
                ("connections", Some(u64::from(site.in_use)), limit, own)
            }
            Bound::ConnectionsPerSource => {
                let limit = limit.unwrap_or_default();
                let limit = format!("{limit} connections from each source");
                ("connections_per_source", of_path, limit, own)
            }
            Bound::ConnectionsPerIp => {
                ("connections_per_ip", of_path, "connections to one address".to_owned(), own)
            }
            Bound::ConnectionRate => {
                let limit = format!("connections at {}", rate(settings.connection_rate));
                ("connection_rate", None, limit, own)
            }
            Bound::MessageRate => {
                let limit = format!("messages at {}", rate(settings.message_rate));
                ("message_rate", None, limit, own)
            }
            Bound::ByteRate => {
                ("byte_rate", None, format!("bytes at {}", rate(settings.byte_rate)), own)
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
                ("rule", of_path, limit, format!("rule {name}"))
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
        let cell = cells.into_iter().find(|cell| *super::pacing::name_of(cell.key()) == *cap);
        let limit = cell.and_then(|cell| cell.permits().cap());
        Binding {
            what: "shared".to_owned(),
            text: format!("{cap} is used up by all that share it"),
            limit: limit.map(u64::from),
            used: cell.map(|cell| u64::from(cell.permits().in_use())),
            origin: Some(cap.to_owned()),
            until_seconds: None,
        }
    }

    pub(super) fn next_try(&self, now: Now, site: &Site) -> Option<Mono> {
        let fifos = site.fifos.heads().filter_map(|id| self.entries[id].due(now.mono));
        fifos.chain(site.restored.next()).min()
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
