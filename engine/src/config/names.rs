//! Domains, networks and next hops as an operator writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::model::flow::LABEL_MAX;
use crate::model::settings::{DomainPattern, NextHop};

/// The longest domain name (RFC 1035 §2.3.4), without the trailing dot.
const DOMAIN_BYTES_MAX: usize = 253;

/// The longest label of a domain name (RFC 1035 §2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// The port of SMTP.
const SMTP_PORT: u16 = 25;

/// The port of DNS.
const DNS_PORT: u16 = 53;

/// A domain name in lower case.
pub(super) fn domain(text: &str) -> Result<Box<str>, String> {
    if !text.is_ascii() {
        return Err("write an international domain as A-labels (xn--...)".to_owned());
    }
    if text.ends_with('.') {
        return Err("leave the trailing dot out".to_owned());
    }
    if text.is_empty() || text.len() > DOMAIN_BYTES_MAX {
        return Err(format!("a domain name has 1 to {DOMAIN_BYTES_MAX} characters"));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err("expected a domain name, not an address".to_owned());
    }
    text.split('.').try_for_each(label)?;
    Ok(text.to_ascii_lowercase().into())
}

/// One label: letters, digits and inner hyphens; underscores, which exist in the wild, pass.
fn label(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > LABEL_BYTES_MAX {
        return Err(format!("each label has 1 to {LABEL_BYTES_MAX} characters"));
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if let Some(strange) = text.bytes().find(|byte| !known(*byte)) {
        return Err(format!("{:?} cannot be in a domain name", char::from(strange)));
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err("a label neither begins nor ends with a hyphen".to_owned());
    }
    Ok(())
}

/// `*`, `example.com`, or `.example.com` for all domains below it.
pub(super) fn pattern(text: &str) -> Result<DomainPattern, String> {
    if text == "*" {
        return Ok(DomainPattern::Any);
    }
    if text.starts_with("*.") {
        return Err("for all domains below one, begin with its dot, as in \".example.com\"".into());
    }
    match text.strip_prefix('.') {
        Some(parent) => Ok(DomainPattern::Below(format!(".{}", domain(parent)?).into())),
        None => Ok(DomainPattern::Exact(domain(text)?)),
    }
}

/// `example.com`, or `.example.com` for all below it; not `*`.
pub(super) fn some_domains(text: &str) -> Result<DomainPattern, String> {
    match pattern(text)? {
        DomainPattern::Any => Err("expected a host or domain, or a suffix with its dot".to_owned()),
        pattern => Ok(pattern),
    }
}

/// What the operator calls something: it stands in logs, header fields and commands.
pub(super) fn name(text: &str) -> Result<Box<str>, String> {
    if text.is_empty() || text.len() > LABEL_MAX {
        return Err(format!("a name has 1 to {LABEL_MAX} characters"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a name is printable ASCII without spaces".to_owned());
    }
    Ok(text.into())
}

/// An address that can be bound and connected from.
pub(super) fn source_address(text: &str) -> Result<IpAddr, String> {
    let expected = "expected an address of this machine, as in \"192.0.2.1\" or \"2001:db8::1\"";
    let address: IpAddr = text.parse().map_err(|_| expected.to_owned())?;
    if address.to_canonical() != address {
        return Err(format!("an IPv4 address in IPv6: write \"{}\"", address.to_canonical()));
    }
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_multicast() || broadcast {
        return Err(format!("no connection can come from {address}"));
    }
    Ok(address)
}

/// An address or host name with an optional port: `192.0.2.1`, `[2001:db8::1]:26`, `mx.example:26`.
pub(super) fn next_hop(text: &str) -> Result<NextHop, String> {
    if let Some(address) = address(text, SMTP_PORT) {
        return reachable(address).map(NextHop::Address);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port_number(port)?),
        None => (text, SMTP_PORT),
    };
    let expected = "expected an address or a host name, with an optional port";
    let name = domain(host).map_err(|why| format!("{expected}: {why}"))?;
    Ok(NextHop::Host(name, port))
}

/// A resolver's address with an optional port.
pub(super) fn resolver(text: &str) -> Result<SocketAddr, String> {
    let expected = "expected an address with an optional port, as in \"192.0.2.53\"";
    reachable(address(text, DNS_PORT).ok_or(expected)?)
}

/// An address to listen on; the port must be given. Port 0 takes a free one, which all shards share.
pub(super) fn listener(text: &str) -> Result<SocketAddr, String> {
    let expected = "expected an address and a port, as in \"192.0.2.1:25\" or \"[::]:25\"";
    text.parse().map_err(|_| expected.to_owned())
}

/// A network such as `10.0.0.0/8`, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let expected = "expected a network, as in \"10.0.0.0/8\" or \"::1/128\"";
    let network: IpNet = text.parse().map_err(|_| expected)?;
    match network.trunc() {
        whole if whole == network => Ok(network),
        whole => Err(format!("an address inside a network: the network is \"{whole}\"")),
    }
}

fn address(text: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(with_port) = text.parse::<SocketAddr>() {
        return Some(with_port);
    }
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let alone = match bracketed {
        Some(v6) => v6.parse::<Ipv6Addr>().map(IpAddr::V6),
        None => text.parse::<IpAddr>(),
    };
    alone.ok().map(|ip| SocketAddr::new(ip, port))
}

fn reachable(address: SocketAddr) -> Result<SocketAddr, String> {
    match address.port() {
        0 => Err("a port is 1..=65535".to_owned()),
        _ => Ok(address),
    }
}

fn port_number(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port > 0);
    port.ok_or_else(|| "a port is 1..=65535".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_lowered_and_its_labels_are_checked() {
        assert_eq!(domain("MTA1.Example.net").as_deref(), Ok("mta1.example.net"));
        assert_eq!(domain("xn--bcher-kva.example").as_deref(), Ok("xn--bcher-kva.example"));
        assert!(domain("b\u{fc}cher.example").unwrap_err().contains("A-labels"));
        for bad in ["", ".", "a..b", "a.", "-a.b", "a-.b", "a b", "a\u{0}b", "127.0.0.1", "::1"] {
            assert!(domain(bad).is_err(), "{bad}");
        }
        assert!(domain(&"a".repeat(64)).is_err());
        assert!(domain(&format!("{}a", "a.".repeat(126))).is_ok());
        assert!(domain(&format!("{}aa", "a.".repeat(126))).is_err());
    }

    #[test]
    fn a_suffix_pattern_means_below_only() {
        let below = pattern(".Example.com").unwrap();
        assert!(below.matches("a.example.com") && below.matches("b.a.example.com"));
        assert!(!below.matches("example.com") && !below.matches("badexample.com"));
        assert_eq!(pattern("*"), Ok(DomainPattern::Any));
        assert!(pattern("*.example.com").unwrap_err().contains("\".example.com\""));
        assert!(pattern(".").is_err());
    }

    fn check_hop(text: &str, expected: Option<&str>) {
        let shown = next_hop(text).ok().map(|hop| match hop {
            NextHop::Address(address) => address.to_string(),
            NextHop::Host(name, port) => format!("{name} port {port}"),
        });
        assert_eq!(shown.as_deref(), expected, "{text}");
    }

    #[test]
    fn a_next_hop_may_leave_its_port_out() {
        check_hop("127.0.0.1:2526", Some("127.0.0.1:2526"));
        check_hop("127.0.0.1", Some("127.0.0.1:25"));
        check_hop("[::1]:2526", Some("[::1]:2526"));
        check_hop("[::1]", Some("[::1]:25"));
        check_hop("::1", Some("[::1]:25"));
        check_hop("Relay.example", Some("relay.example port 25"));
        check_hop("relay.example:587", Some("relay.example port 587"));
        for bad in ["", ":25", "relay.example:", "relay.example:0", "relay.example:65536", "a:+5"] {
            check_hop(bad, None);
        }
        check_hop("127.0.0.1:0", None);
        check_hop("[127.0.0.1]:25", None);
    }

    #[test]
    fn a_resolver_defaults_to_the_port_of_dns() {
        assert_eq!(resolver("192.0.2.53"), Ok("192.0.2.53:53".parse().unwrap()));
        assert_eq!(resolver("[2001:db8::1]:5353"), Ok("[2001:db8::1]:5353".parse().unwrap()));
        assert!(resolver("dns.example").is_err());
    }

    #[test]
    fn a_network_has_no_host_bits() {
        assert_eq!(network("10.0.0.5"), Ok("10.0.0.5/32".parse().unwrap()));
        assert!(network("10.0.0.5/8").unwrap_err().contains("10.0.0.0/8"));
        assert!(network("10.0.0.0/33").is_err());
    }

    #[test]
    fn a_name_fits_a_header_field_and_a_command_line() {
        assert_eq!(name("shop-1.eu").as_deref(), Ok("shop-1.eu"));
        assert!(name(&"a".repeat(LABEL_MAX)).is_ok());
        let too_long = "a".repeat(LABEL_MAX + 1);
        for bad in ["", "a b", "a\tb", "a\u{7f}", "b\u{fc}cher", &too_long] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_source_is_an_address_that_can_be_bound() {
        assert_eq!(source_address("192.0.2.1"), Ok("192.0.2.1".parse().unwrap()));
        assert_eq!(source_address("2001:db8::1"), Ok("2001:db8::1".parse().unwrap()));
        assert!(source_address("::ffff:192.0.2.1").unwrap_err().contains("\"192.0.2.1\""));
        for bad in ["", "mta.example", "192.0.2.1:25", "0.0.0.0", "::", "224.0.0.1", "ff02::1"] {
            assert!(source_address(bad).is_err(), "{bad}");
        }
    }
}
