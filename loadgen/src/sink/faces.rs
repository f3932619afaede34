//! The personalities of a sink in force: what each host and recipient domain says, and remembers.

use std::io;
use std::sync::Arc;

use hashbrown::HashMap;
use rustls::ServerConfig;

use super::certificates::Authority;
use super::personality::{Caps, Personality, TlsKind};
use super::standing::Standing;
use super::world::Pattern;
use super::{Capabilities, SinkHost, SinkPlan, chance};

/// Everything that decides; one copy for each thread, which share what is remembered.
#[derive(Clone)]
pub(super) struct Faces {
    pub(super) seed: u64,
    pub(super) hosts: Vec<Face>,
    pub(super) domains: Arc<Domains>,
    /// Offered by hosts without offers of their own.
    offers: Capabilities,
    authority: Authority,
    started_ns: u64,
}

#[derive(Clone)]
pub(super) struct Face {
    /// What it is known by to chance.
    pub(super) id: u64,
    pub(super) personality: Arc<Personality>,
    pub(super) standing: Standing,
    pub(super) offers: Capabilities,
    pub(super) banner: Arc<[u8]>,
    pub(super) ehlo: Arc<[u8]>,
    pub(super) ehlo_secured: Arc<[u8]>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Nothing is ever refused, cut or watched here: it need not be asked.
    pub(super) is_plain: bool,
    pub(super) is_mute: bool,
    pub(super) counts_tries: bool,
}

/// Recipient domains with a personality of their own.
#[derive(Default)]
pub(super) struct Domains {
    pub(super) faces: Vec<Face>,
    exact: HashMap<Vec<u8>, usize>,
    patterns: Vec<(Pattern, usize)>,
}

impl Faces {
    pub(super) fn new(plan: &SinkPlan, started_ns: u64) -> io::Result<Self> {
        let mut faces = Self {
            seed: plan.world.seed,
            hosts: Vec::with_capacity(plan.hosts.len()),
            domains: Arc::new(Domains::new(plan, started_ns)),
            offers: plan.capabilities,
            authority: Authority::new()?,
            started_ns,
        };
        let mut groups = HashMap::new();
        for (index, host) in plan.hosts.iter().enumerate() {
            let (personality, group) = plan.world.of_host(index, &host.name);
            let standing = match group {
                None => Standing::new(&host.name, started_ns),
                Some((group, name)) => {
                    groups.entry(group).or_insert_with(|| Standing::new(&name, started_ns)).clone()
                }
            };
            let face = faces.of_host(host, personality, standing)?;
            faces.hosts.push(face);
        }
        Ok(faces)
    }

    /// The certificate of the authority that signs those of the hosts, in PEM.
    pub(super) fn authority_pem(&self) -> String {
        self.authority.pem()
    }

    /// Gives a host another personality, and a memory of its own; returns the old one.
    pub(super) fn change(
        &mut self,
        index: usize,
        host: &SinkHost,
        personality: Personality,
        connections: u64,
    ) -> io::Result<Standing> {
        let standing = Standing::new(&host.name, self.started_ns);
        let face = self.of_host(host, Arc::new(personality), standing)?;
        face.standing.lock().adopt(connections);
        let old = std::mem::replace(&mut self.hosts[index], face).standing;
        old.lock().abandon(connections);
        Ok(old)
    }

    pub(super) fn standings(&self) -> impl Iterator<Item = &Standing> {
        self.hosts.iter().chain(&self.domains.faces).map(|face| &face.standing)
    }

    fn of_host(
        &self,
        host: &SinkHost,
        personality: Arc<Personality>,
        standing: Standing,
    ) -> io::Result<Face> {
        let name = &host.name;
        let offers = personality.offers.unwrap_or(self.offers);
        let has_tls = personality.tls.kind != TlsKind::None;
        Ok(Face {
            banner: format!("220 {name} ESMTP loadgen\r\n").into_bytes().into(),
            ehlo: ehlo_reply(name, offers, has_tls).into(),
            ehlo_secured: ehlo_reply(name, offers, false).into(),
            tls: self.authority.configure(&personality.tls, name, host.address.ip())?,
            offers,
            ..Face::of_rules(name, personality, standing)
        })
    }
}

impl Face {
    /// A face that says nothing by itself.
    fn of_rules(name: &str, personality: Arc<Personality>, standing: Standing) -> Self {
        Self {
            id: chance::hash(name.as_bytes()),
            is_plain: is_plain(&personality),
            is_mute: personality.is_mute(),
            counts_tries: personality.refusals.iter().any(|rule| rule.odds < 1.0)
                || personality.cuts.iter().any(|cut| cut.odds < 1.0),
            personality,
            standing,
            offers: Capabilities::default(),
            banner: Arc::new([]),
            ehlo: Arc::new([]),
            ehlo_secured: Arc::new([]),
            tls: None,
        }
    }
}

impl Domains {
    fn new(plan: &SinkPlan, started_ns: u64) -> Self {
        let mut domains = Self::default();
        for (name, personality) in plan.world.domains() {
            let standing = Standing::new(name, started_ns);
            let index = domains.faces.len();
            domains.faces.push(Face::of_rules(name, Arc::clone(personality), standing));
            if name.contains('*') {
                domains.patterns.push((Pattern::new(name), index));
            } else {
                domains.exact.entry(name.to_ascii_lowercase().into_bytes()).or_insert(index);
            }
        }
        domains
    }

    /// The personality of the domain of an address: that of its name, else of the first pattern.
    pub(super) fn of_address(&self, address: &[u8]) -> Option<usize> {
        if self.faces.is_empty() {
            return None;
        }
        let at = memchr::memrchr(b'@', address)?;
        let domain = address[at + 1..].to_ascii_lowercase();
        let by_pattern = || self.patterns.iter().find(|(pattern, _)| pattern.fits(&domain));
        self.exact.get(&domain).copied().or_else(|| by_pattern().map(|(_, index)| *index))
    }
}

fn is_plain(traits: &Personality) -> bool {
    let is_watched = traits.cap != Caps { tolerance: traits.cap.tolerance, ..Caps::default() };
    !is_watched
        && traits.refusals.is_empty()
        && traits.cuts.is_empty()
        && traits.limits.is_empty()
        && traits.greylist.is_none()
        && traits.tarpit.is_none()
        && traits.messages_per_connection.is_none()
}

fn ehlo_reply(name: &str, offers: Capabilities, has_tls: bool) -> Vec<u8> {
    let mut lines = vec![name.to_owned()];
    let words = [
        ("PIPELINING", offers.pipelining),
        ("8BITMIME", offers.eight_bit_mime),
        ("CHUNKING", offers.chunking),
        ("STARTTLS", has_tls),
    ];
    lines.extend(
        words.iter().filter(|(_, is_offered)| *is_offered).map(|(word, _)| (*word).to_owned()),
    );
    if offers.size_max > 0 {
        lines.push(format!("SIZE {}", offers.size_max));
    }
    lines.push("ENHANCEDSTATUSCODES".to_owned());
    let last = lines.len() - 1;
    let mut reply = String::new();
    for (at, line) in lines.iter().enumerate() {
        reply.push_str(if at == last { "250 " } else { "250-" });
        reply.push_str(line);
        reply.push_str("\r\n");
    }
    reply.into_bytes()
}
