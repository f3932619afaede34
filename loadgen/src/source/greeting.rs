//! The opening of a session: banner, EHLO, STARTTLS and AUTH, up to the first message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Phase;
use super::desk::Desk;
use super::reply::Reply;
use super::session::{Expected, Session, Standing};

/// Who logs in with AUTH PLAIN (RFC 4616).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

/// What the server offers and the plan wants.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Offers {
    pub(super) pipelining: bool,
    pub(super) chunking: bool,
    is_secured: bool,
}

impl Session {
    pub(super) fn handle_banner(&mut self, reply: &Reply<'_>, now: u64, desk: &mut Desk) {
        if !reply.is_positive() {
            self.standing = Standing::Broken;
            return;
        }
        if desk.records.banner.is_none() {
            desk.records.note_banner(&reply.first_line());
        }
        self.send_ehlo(now, desk);
    }

    fn send_ehlo(&mut self, now: u64, desk: &Desk) {
        let out = self.out.buffer();
        out.extend_from_slice(b"EHLO ");
        out.extend_from_slice(desk.plan.helo.as_bytes());
        out.extend_from_slice(b"\r\n");
        self.expect(Expected::Ehlo, now);
    }

    pub(super) fn handle_ehlo(&mut self, reply: &Reply<'_>, now: u64, desk: &mut Desk) {
        if !reply.is_positive() {
            self.standing = Standing::Broken;
            return;
        }
        if desk.plan.tls && !self.offers.is_secured {
            if reply.offers(b"STARTTLS", None) {
                self.send(b"STARTTLS\r\n", Expected::StartTls, now);
            } else {
                self.give_up("(STARTTLS is not offered)", desk);
            }
            return;
        }
        self.offers.pipelining = desk.plan.pipelining && reply.offers(b"PIPELINING", None);
        self.offers.chunking = desk.plan.chunking && reply.offers(b"CHUNKING", None);
        let Some(credentials) = &desk.plan.auth else { return };
        if reply.offers(b"AUTH", Some(b"PLAIN")) {
            let line = credentials.auth_plain();
            self.send(line.as_bytes(), Expected::Auth, now);
        } else {
            self.give_up("(AUTH PLAIN is not offered)", desk);
        }
    }

    pub(super) fn handle_starttls(&mut self, welcome: bool) {
        self.standing = if welcome { Standing::Securing } else { Standing::Broken };
    }

    /// The handshake has ended: what was offered before counts no more (RFC 3207 4.2).
    pub(super) fn handle_secured(&mut self, now: u64, desk: &mut Desk) {
        if !self.rest.is_empty() {
            // What came in the clear behind the 220 must not be taken for said under TLS.
            self.give_up("(plain bytes before the handshake)", desk);
            return;
        }
        desk.records.record(Phase::Tls, now.saturating_sub(self.flight_ns));
        self.offers = Offers { is_secured: true, ..Offers::default() };
        self.standing = Standing::Busy;
        self.send_ehlo(now, desk);
    }

    pub(super) fn handle_auth(&mut self, welcome: bool) {
        if !welcome {
            self.standing = Standing::Broken;
        }
    }

    fn give_up(&mut self, reason: &str, desk: &mut Desk) {
        desk.records.note_error(reason);
        self.standing = Standing::Broken;
    }
}

impl Credentials {
    /// The command with its initial response (RFC 4954 4).
    fn auth_plain(&self) -> String {
        let text = format!("\0{}\0{}", self.user, self.password);
        format!("AUTH PLAIN {}\r\n", STANDARD.encode(text))
    }
}

impl std::str::FromStr for Credentials {
    type Err = String;

    /// Reads `user:password`; the password may hold colons.
    fn from_str(text: &str) -> Result<Self, String> {
        let (user, password) = text.split_once(':').ok_or("USER:PASSWORD is wanted")?;
        Ok(Self { user: user.to_owned(), password: password.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_said_as_the_rfc_wants() {
        let credentials: Credentials = "tim:tan:stan".parse().unwrap();
        assert_eq!(credentials.auth_plain(), "AUTH PLAIN AHRpbQB0YW46c3Rhbg==\r\n");
        assert!("nobody".parse::<Credentials>().is_err());
    }
}
