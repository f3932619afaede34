//! Who may send mail through us.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Whether a client at `peer` is in one of the networks.
///
/// An IPv4 client of a dual-stack socket comes as `::ffff:192.0.2.1`; it is an IPv4 client, and
/// only IPv4 networks (or their mapped form) hold it: `::/0` lets no IPv4 client in.
#[must_use]
pub fn relay_allowed(peer: IpAddr, networks: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    networks.iter().any(|network| canonical(*network).contains(&peer))
}

fn canonical(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(v6) = network else { return network };
    let unmapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(MAPPED_BITS));
    unmapped.and_then(|(address, bits)| Ipv4Net::new(address, bits).ok()).map_or(network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, network: &str, expected: bool) {
        let networks = [network.parse().unwrap()];
        assert_eq!(relay_allowed(peer.parse().unwrap(), &networks), expected, "{peer} {network}");
    }

    #[test]
    fn mapped_clients_are_ipv4_clients() {
        check("10.1.2.3", "10.0.0.0/8", true);
        check("11.1.2.3", "10.0.0.0/8", false);
        check("::ffff:10.1.2.3", "10.0.0.0/8", true);
        check("::ffff:11.1.2.3", "10.0.0.0/8", false);
        check("10.1.2.3", "::ffff:10.0.0.0/104", true);
        check("11.1.2.3", "::ffff:10.0.0.0/104", false);
        check("::1", "::1/128", true);
        check("2001:db8::5", "2001:db8::/32", true);
        check("2001:db9::5", "2001:db8::/32", false);
        check("192.0.2.1", "::/0", false);
        check("::ffff:192.0.2.1", "::/0", false);
        check("::1", "0.0.0.0/0", false);
    }

    #[test]
    fn nobody_may_relay_without_networks() {
        assert!(!relay_allowed("127.0.0.1".parse().unwrap(), &[]));
    }
}
