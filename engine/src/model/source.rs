//! A source: the local addresses that connections go out from, and the name they greet with.

use std::net::IpAddr;

/// One egress source. Without an address of either family the kernel chooses the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressSource {
    pub name: Box<str>,
    /// For hosts at an IPv4 address.
    pub address: Option<IpAddr>,
    /// For hosts at an IPv6 address.
    pub address6: Option<IpAddr>,
    /// The name in EHLO; none: that of the engine.
    pub hostname: Option<Box<str>>,
}

/// What to bind to before a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// To nothing: the kernel chooses.
    Free,
    To(IpAddr),
    /// The source has no address of that family: not to be connected to.
    Impossible,
}

impl EgressSource {
    /// What a connection to `remote` goes out from.
    #[must_use]
    pub fn binding(&self, remote: IpAddr) -> Binding {
        let own = if remote.is_ipv4() { self.address } else { self.address6 };
        match own {
            Some(address) => Binding::To(address),
            None if self.address.is_none() && self.address6.is_none() => Binding::Free,
            None => Binding::Impossible,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_binds_within_the_family_of_the_host() {
        let (v4, v6): (IpAddr, IpAddr) =
            ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let source = |address, address6| EgressSource {
            name: "a".into(),
            address,
            address6,
            hostname: None,
        };
        let far = ["9.9.9.9".parse().unwrap(), "2606:4700::1".parse().unwrap()];
        let told = |source: EgressSource| far.map(|remote| source.binding(remote));
        assert_eq!(told(source(Some(v4), Some(v6))), [Binding::To(v4), Binding::To(v6)]);
        assert_eq!(told(source(Some(v4), None)), [Binding::To(v4), Binding::Impossible]);
        assert_eq!(told(source(None, Some(v6))), [Binding::Impossible, Binding::To(v6)]);
        assert_eq!(told(source(None, None)), [Binding::Free, Binding::Free]);
    }
}
