//! Listeners: who may send, and whose mail it is.

use ipnet::IpNet;
use toml::Spanned;

use super::bounds::Checks;
use super::document::{Given, Listen};
use super::names;
use super::problem::Finding;
use super::tenants::class;
use crate::model::flow::Flow;
use crate::model::settings::ListenerSettings;

/// Each listener is a socket on every shard.
const LISTENERS_MAX: usize = 64;

/// Networks of one list; searched for each client that connects.
const NETWORKS_MAX: usize = 1024;

pub(super) fn listeners(
    checks: &mut Checks<'_>,
    given: &[Spanned<Listen>],
) -> Vec<ListenerSettings> {
    checks.count("listeners", given, LISTENERS_MAX);
    let mut listeners: Vec<ListenerSettings> = Vec::new();
    for entry in given.iter().take(LISTENERS_MAX) {
        let listen = entry.get_ref();
        let relay_from = relay_from(checks, listen.relay_from.as_deref());
        let Some(text) = checks.required("listen.address", &listen.address, entry.span()) else {
            continue;
        };
        let Some(address) = checks.text("listen.address", text, names::listener) else { continue };
        if listeners.iter().any(|other| other.address == address) {
            checks.note(Finding::invalid("listen.address", text.span(), "given twice"));
        }
        let flow = flow(checks, listen);
        let trust_headers_from =
            networks(checks, "listen.trust_headers_from", &listen.trust_headers_from);
        listeners.push(ListenerSettings { address, relay_from, flow, trust_headers_from });
    }
    listeners
}

/// The networks that may relay; without the key only this machine, with an empty list nobody.
fn relay_from(checks: &mut Checks<'_>, given: Option<&[Spanned<String>]>) -> Vec<IpNet> {
    let Some(given) = given else {
        return ["127.0.0.0/8", "::1/128"].iter().filter_map(|net| net.parse().ok()).collect();
    };
    networks(checks, "listen.relay_from", given)
}

fn networks(checks: &mut Checks<'_>, key: &str, given: &[Spanned<String>]) -> Vec<IpNet> {
    checks.count("networks", given, NETWORKS_MAX);
    let networks = given.iter().take(NETWORKS_MAX);
    networks.filter_map(|net| checks.text(key, net, names::network)).collect()
}

/// What mail that comes in here is, unless it says otherwise.
fn flow(checks: &mut Checks<'_>, given: &Listen) -> Flow {
    let mut label = |key: &str, given: &Given<String>| {
        let name = given.as_ref().and_then(|name| checks.text(key, name, names::name));
        name.unwrap_or_default()
    };
    Flow {
        tenant: label("listen.tenant", &given.tenant),
        campaign: label("listen.campaign", &given.campaign),
        class: class(&given.class).unwrap_or_default(),
        expire: None,
    }
}
