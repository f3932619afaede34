//! What holds from the start to the end: a reload cannot change it, and says so.

use std::net::SocketAddr;

use crate::model::settings::{ListenerSettings, Settings};

/// The settings of the start, as far as they stay.
pub(super) struct Fixed {
    /// As they were given, but for limits that were left open: these are derived.
    given: Settings,
    /// With real ports. A shard knows its listeners by their place.
    listeners: Vec<ListenerSettings>,
}

impl Fixed {
    /// Puts the real ports into the settings.
    pub(super) fn new(settings: &mut Settings, addresses: &[SocketAddr]) -> Self {
        let given = settings.clone();
        for (listener, address) in settings.listeners.iter_mut().zip(addresses) {
            listener.address = *address;
        }
        Self { given, listeners: settings.listeners.clone() }
    }

    /// Makes new settings keep to what stays; the names of those that asked for something else.
    pub(super) fn keep(&self, settings: &mut Settings) -> Vec<&'static str> {
        let limits = &mut settings.limits;
        for (limit, derived) in [
            (&mut limits.connections_in, self.given.limits.connections_in),
            (&mut limits.connections_out, self.given.limits.connections_out),
        ] {
            *limit = if *limit == 0 { derived } else { *limit };
        }
        let changed = self.changed(settings);
        settings.engine.clone_from(&self.given.engine);
        settings.spool.clone_from(&self.given.spool);
        settings.listeners.clone_from(&self.listeners);
        settings.limits.body_memory_bytes = self.given.limits.body_memory_bytes;
        settings.dns.clone_from(&self.given.dns);
        settings.admin.clone_from(&self.given.admin);
        changed
    }

    /// As an operator writes them.
    fn changed(&self, new: &Settings) -> Vec<&'static str> {
        let old = &self.given;
        // A shard has room for so many connections of both kinds together.
        let room = |of: &Settings| {
            u64::from(of.limits.connections_in) + u64::from(of.limits.connections_out)
        };
        let all = [
            ("engine.shards", old.engine != new.engine),
            ("spool", old.spool != new.spool),
            ("listen", old.listeners != new.listeners),
            ("limits.connections_in and limits.connections_out together", room(new) > room(old)),
            ("limits.body_memory", old.limits.body_memory_bytes != new.limits.body_memory_bytes),
            ("dns", old.dns != new.dns),
            ("admin.socket", old.admin != new.admin),
        ];
        all.into_iter().filter_map(|(name, is_other)| is_other.then_some(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const START: &str = "[spool]\npath = \"/a\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
        [limits]\nconnections_in = 10\nconnections_out = 10\n";

    fn settings(more: &str) -> Settings {
        config::parse(&format!("{START}{more}"), "t.toml", "mta.example").unwrap()
    }

    fn fixed() -> Fixed {
        Fixed::new(&mut settings(""), &["127.0.0.1:2525".parse().unwrap()])
    }

    #[test]
    fn what_is_the_same_is_not_told_though_the_kernel_chose_the_port() {
        let mut same = settings("[site.default]\nconnections = 3\n");
        assert_eq!(fixed().keep(&mut same), [""; 0]);
        assert_eq!(same.listeners[0].address.port(), 2525);
        assert_eq!(same.sites.default.connections, 3);
    }

    #[test]
    fn what_waits_for_a_restart_is_named_and_left_as_it_was() {
        let mut new = settings("body_memory = \"64MiB\"\n[admin]\nsocket = \"/run/a.sock\"\n");
        new.limits.connections_out = 11;
        new.listeners[0].address = "127.0.0.1:25".parse().unwrap();
        new.spool.path = "/b".into();
        let told = fixed().keep(&mut new);
        let connections = "limits.connections_in and limits.connections_out together";
        assert_eq!(told, ["spool", "listen", connections, "limits.body_memory", "admin.socket"]);
        assert_eq!((new.admin, new.listeners[0].address.port()), (None, 2525));
        assert_eq!(new.spool, settings("").spool);
    }

    #[test]
    fn limits_left_open_stay_as_they_were_derived() {
        let mut open = settings("");
        (open.limits.connections_in, open.limits.connections_out) = (0, 0);
        assert_eq!(fixed().keep(&mut open), [""; 0]);
        assert_eq!(open.limits.connections_in, 10);
    }
}
