//! Which addresses a stranger's DNS may send us to: public unicast ones, and no others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why `ip` is no place for mail by MX; `None`: it is public. A domain's owner chooses its MX
/// addresses, so any other answer would let a sender make this machine talk to its own network.
#[must_use]
pub(super) fn refusal(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => refusal_v4(ip),
        IpAddr::V6(ip) => refusal_v6(ip),
    }
}

fn refusal_v4(ip: Ipv4Addr) -> Option<&'static str> {
    match ip.octets() {
        [0, ..] => Some("unspecified"),
        [127, ..] => Some("loopback"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("private"),
        [169, 254, ..] => Some("link-local"),
        [100, 64..=127, ..] => Some("shared"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some("documentation"),
        [198, 18..=19, ..] => Some("benchmarking"),
        [224..=239, ..] => Some("multicast"),
        [192, 0, 0, _] | [240..=255, ..] => Some("reserved"),
        _ => None,
    }
}

fn refusal_v6(ip: Ipv6Addr) -> Option<&'static str> {
    if ip.is_unspecified() {
        return Some("unspecified");
    }
    if ip.is_loopback() {
        return Some("loopback");
    }
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] => Some("v4-mapped"),
        [0, 0, 0, 0, 0, 0, ..] => Some("v4-compatible"),
        // NAT64 and 6to4 carry an IPv4 address that is judged in their place.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            refusal_v4(embedded(high, low))
        }
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some("documentation"),
        [0xfc00..=0xfdff, ..] => Some("private"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xff00..=0xffff, ..] => Some("multicast"),
        // Only 2000::/3 is given out as global unicast.
        [0x2000..=0x3fff, ..] => None,
        _ => Some("reserved"),
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_let_through() {
        let check = |ip: &str, why| assert_eq!(refusal(ip.parse().unwrap()), why, "{ip}");
        for public in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "192.0.1.1", "2606:4700::1"] {
            check(public, None);
        }
        check("0.0.0.0", Some("unspecified"));
        check("127.9.9.9", Some("loopback"));
        check("172.31.255.255", Some("private"));
        check("169.254.169.254", Some("link-local"));
        check("239.1.1.1", Some("multicast"));
        check("255.255.255.255", Some("reserved"));
        check("203.0.113.9", Some("documentation"));
        check("::", Some("unspecified"));
        check("::1", Some("loopback"));
        check("::ffff:1.1.1.1", Some("v4-mapped"));
        check("::127.0.0.1", Some("v4-compatible"));
        check("64:ff9b::10.0.0.1", Some("private"));
        check("64:ff9b::1.1.1.1", None);
        check("2002:7f00:1::", Some("loopback"));
        check("fe80::1", Some("link-local"));
        check("fd00::1", Some("private"));
        check("ff02::1", Some("multicast"));
        check("2001:db8::1", Some("documentation"));
    }
}
