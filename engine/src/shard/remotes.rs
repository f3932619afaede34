//! Remote addresses: who may have how many connections to one, all sites and shards together.

use std::net::IpAddr;

/// The keeper of the limits of remote addresses. It answers at once.
pub(super) trait Remotes {
    /// Whether a connection to `ip` may be begun; if so, it counts until [`Remotes::left`].
    fn may_connect(&mut self, ip: IpAddr) -> bool;

    /// The end of a connection to `ip` is known, or was waited for long enough.
    fn left(&mut self, ip: IpAddr);
}

/// No address has a limit of its own.
pub(super) struct Unlimited;

impl Remotes for Unlimited {
    fn may_connect(&mut self, _ip: IpAddr) -> bool {
        true
    }

    fn left(&mut self, _ip: IpAddr) {}
}

/// What one session counts at remote addresses: at most one connection. It lasts from connect to
/// connect, so that a second one to the same address, in clear, is under the same permit.
#[derive(Debug, Default)]
pub(super) struct Counted(Option<IpAddr>);

impl Counted {
    /// Whether the session may connect to `ip`. It asks only when the end of its connection before
    /// is known, so the address of that one counts it no longer.
    pub(super) fn may_connect(&mut self, ip: IpAddr, remotes: &mut dyn Remotes) -> bool {
        if self.0 == Some(ip) {
            return true;
        }
        self.leave(remotes);
        let is_admitted = remotes.may_connect(ip);
        self.0 = is_admitted.then_some(ip);
        is_admitted
    }

    /// The session is over.
    pub(super) fn leave(&mut self, remotes: &mut dyn Remotes) {
        if let Some(before) = self.0.take() {
            remotes.left(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One connection to each address.
    #[derive(Default)]
    struct OneEach(Vec<IpAddr>);

    impl Remotes for OneEach {
        fn may_connect(&mut self, ip: IpAddr) -> bool {
            let has_room = !self.0.contains(&ip);
            if has_room {
                self.0.push(ip);
            }
            has_room
        }

        fn left(&mut self, ip: IpAddr) {
            let at = self.0.iter().position(|counted| *counted == ip);
            self.0.remove(at.expect("only what was admitted leaves"));
        }
    }

    #[test]
    fn a_session_counts_at_one_address_at_a_time() {
        let mut remotes = OneEach::default();
        let [here, there]: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        let (mut one, mut other) = (Counted::default(), Counted::default());
        assert!(one.may_connect(here, &mut remotes));
        assert!(one.may_connect(here, &mut remotes), "again, under the same permit");
        assert!(!other.may_connect(here, &mut remotes));
        assert!(other.may_connect(there, &mut remotes));
        assert!(!one.may_connect(there, &mut remotes));
        assert!(other.may_connect(here, &mut remotes), "the other has left it");
        one.leave(&mut remotes);
        other.leave(&mut remotes);
        other.leave(&mut remotes);
        assert!(remotes.0.is_empty());
    }
}
