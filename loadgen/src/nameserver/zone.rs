//! What the nameserver knows: where the mail of a domain goes, and the addresses of hosts.
//!
//! As text, a name a line:
//! ```text
//! # comment
//! d0.test       mx 10 mx0.hosts.test     one line per host
//! d1.test       null-mx | address-only | nxdomain | servfail | no-answer
//! mx0.hosts.test  a 127.0.0.1             or aaaa ::1
//! ```

use std::net::IpAddr;

use hashbrown::HashMap;

use crate::sink::SinkHost;

/// How long an answer may be kept, in seconds, unless the zone says otherwise.
const TTL_DEFAULT: u32 = 300;

/// The answers to all questions; names are kept in lower case and without a final dot.
#[derive(Debug, Clone)]
pub struct Zone {
    /// Seconds that an answer may be kept.
    pub ttl: u32,
    /// Seconds that "no such name" or "nothing of that type" may be kept.
    pub negative_ttl: u32,
    domains: HashMap<String, Mail>,
    hosts: HashMap<String, Vec<IpAddr>>,
}

/// What is said about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mail {
    /// These hosts take its mail, by preference.
    Mx(Vec<(u16, String)>),
    /// It takes no mail (RFC 7505).
    Null,
    /// It has no MX; its own addresses, if any, take the mail.
    AddressOnly,
    /// There is no such name, whatever else is known of it.
    NxDomain,
    ServFail,
    /// Questions are left to time out.
    NoAnswer,
}

impl Default for Zone {
    fn default() -> Self {
        let (domains, hosts) = (HashMap::new(), HashMap::new());
        Self { ttl: TTL_DEFAULT, negative_ttl: TTL_DEFAULT, domains, hosts }
    }
}

impl Zone {
    /// Domain `i` has one MX, host `i` of `hosts` (and round again); host `h` is `<name>.<base>`.
    pub fn for_hosts<'a>(
        domains: impl IntoIterator<Item = &'a str>,
        hosts: &[SinkHost],
        base: &str,
    ) -> Self {
        assert!(!hosts.is_empty(), "a domain needs a host");
        let mut zone = Self::default();
        for host in hosts {
            zone.set_host(&format!("{}.{base}", host.name), vec![host.address.ip()]);
        }
        for (index, domain) in domains.into_iter().enumerate() {
            let host = &hosts[index % hosts.len()].name;
            zone.set_domain(domain, Mail::Mx(vec![(10, format!("{host}.{base}"))]));
        }
        zone
    }

    pub fn set_domain(&mut self, domain: &str, mail: Mail) {
        self.domains.insert(canonical(domain), mail);
    }

    pub fn set_host(&mut self, host: &str, addresses: Vec<IpAddr>) {
        self.hosts.insert(canonical(host), addresses);
    }

    /// Forgets a name altogether.
    pub fn remove(&mut self, name: &str) {
        self.domains.remove(&canonical(name));
        self.hosts.remove(&canonical(name));
    }

    /// Reads the text form; an error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut zone = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("");
            let words: Vec<_> = line.split_whitespace().collect();
            if !words.is_empty() && zone.take_line(&words).is_none() {
                return Err(format!("line {}: {line:?} does not read", number + 1));
            }
        }
        Ok(zone)
    }

    pub(super) fn mail(&self, name: &str) -> Option<&Mail> {
        self.domains.get(name)
    }

    pub(super) fn addresses(&self, name: &str) -> Option<&[IpAddr]> {
        self.hosts.get(name).map(Vec::as_slice)
    }

    fn take_line(&mut self, words: &[&str]) -> Option<()> {
        match *words {
            [domain, "mx", preference, host] => {
                let entry = (preference.parse().ok()?, host.to_owned());
                match self.domains.entry(canonical(domain)).or_insert(Mail::Mx(Vec::new())) {
                    Mail::Mx(list) => list.push(entry),
                    _ => return None,
                }
            }
            [host, "a" | "aaaa", address] => {
                let address = address.parse().ok()?;
                self.hosts.entry(canonical(host)).or_default().push(address);
            }
            [domain, word] => self.set_domain(domain, Mail::from_word(word)?),
            _ => return None,
        }
        Some(())
    }
}

impl Mail {
    fn from_word(word: &str) -> Option<Self> {
        match word {
            "null-mx" => Some(Self::Null),
            "address-only" => Some(Self::AddressOnly),
            "nxdomain" => Some(Self::NxDomain),
            "servfail" => Some(Self::ServFail),
            "no-answer" => Some(Self::NoAnswer),
            _ => None,
        }
    }
}

/// The form in which names are compared.
pub(super) fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zone_reads_from_text() {
        let text = "D0.test. mx 10 a.test # first\nd0.test mx 20 b.test\n\na.test a 127.0.0.1\n\
            d1.test null-mx\n";
        let zone = Zone::parse(text).unwrap();
        let list = vec![(10, "a.test".to_owned()), (20, "b.test".to_owned())];
        assert_eq!(zone.mail("d0.test"), Some(&Mail::Mx(list)));
        assert_eq!(zone.addresses("a.test").map(<[_]>::len), Some(1));
        assert_eq!(
            Zone::parse("d.test cname x").unwrap_err(),
            "line 1: \"d.test cname x\" does not read"
        );
    }
}
