//! Opening: from the next address to try up to the first MAIL.

use super::{Next, Opener, Owner, Phase, Security, Session};
use crate::base::planted::{Bug, planted};
use crate::base::time::{Mono, Now};
use crate::egress::itinerary::{Hop, Obstacle};
use crate::egress::order::Order;
use crate::egress::verdict::{Stage, is_go, judge};
use crate::model::connection::Close;
use crate::model::note::{Cause, LeaseEnd, Phases, Trouble};
use crate::model::outcome::{Enhanced, Reply};
use crate::model::route::Way;
use crate::model::settings::TlsMode;
use crate::wire::smtp::reply::{Capabilities, write_hello};

impl Session {
    pub(super) fn try_another(&mut self, now: Now) {
        if self.is_unneeded() {
            let end = self.trouble.take().unwrap_or(LeaseEnd::Finished);
            return self.go_on(Next::Finish(end), now);
        }
        match self.itinerary.advance() {
            Some(hop) => {
                self.security = Security::Clear;
                self.connect(hop, now);
            }
            None => self.give_up(now),
        }
    }

    pub(super) fn is_unneeded(&self) -> bool {
        self.owner == Owner::IsDone && self.exchange.is_empty()
    }

    /// Nothing more is tried.
    pub(super) fn give_up(&mut self, now: Now) {
        let end = self.trouble.take().unwrap_or_else(|| self.untried());
        self.go_on(Next::Finish(end), now);
    }

    pub(super) fn connect(&mut self, hop: Hop, now: Now) {
        self.deadline = Mono::NEVER;
        if self.opening.is_paced && !self.has_leave {
            self.phase = Phase::Asking(hop);
            return self.out.push(Order::Another);
        }
        self.phase = Phase::Connecting;
        (self.phases, self.since) = (Phases::default(), now.mono);
        let by = now.mono.plus(self.timeouts().connect);
        self.out.push(Order::Connect { to: hop.to, from: hop.from, by });
    }

    /// Why no host was so much as connected to.
    fn untried(&self) -> LeaseEnd {
        match (&self.opening.target.way, self.itinerary.obstacle()) {
            (Way::Deferred(reply) | Way::Failed(reply), _) => {
                LeaseEnd::Unreachable(Trouble::nowhere(Cause::Site, reply.clone()))
            }
            (Way::Hosts(_), Obstacle::Busy(ip)) => LeaseEnd::Busy { ip },
            (Way::Hosts(_), Obstacle::AllSkipped) => LeaseEnd::Skipped,
            (Way::Hosts(_), Obstacle::NoFamily) => {
                let name = self.opening.source.as_ref().map_or("", |source| &source.name);
                let text = format!("source {name} has no address to reach any of the hosts from");
                LeaseEnd::Local(Reply::local(451, Enhanced(4, 3, 0), &text))
            }
        }
    }

    /// This machine cannot: no fault of the site, and no other host would help.
    pub(super) fn finish_locally(&mut self, text: &str, now: Now) {
        let end = LeaseEnd::Local(Reply::local(451, Enhanced(4, 3, 0), text));
        self.go_on(Next::Finish(end), now);
    }

    pub(super) fn await_opener(&mut self, opener: Opener, now: Now) {
        let timeouts = self.timeouts();
        let wait = match opener {
            Opener::Greeting => timeouts.greeting,
            Opener::Ehlo | Opener::Helo | Opener::StartTls => timeouts.command,
        };
        self.deadline = now.mono.plus(wait);
        self.phase = Phase::Opening(opener);
    }

    pub(super) fn say_hello(&mut self, verb: &str, opener: Opener, now: Now) {
        let own = self.opening.source.as_ref().and_then(|source| source.hostname.as_deref());
        let hostname = own.unwrap_or(&self.options.hostname);
        let written = self.out.write(|text| write_hello(text, verb, hostname));
        assert!(written.is_ok(), "a host name was checked when the settings were read");
        self.await_opener(opener, now);
    }

    /// `is_last`: nothing came behind the reply.
    pub(super) fn handle_opener(&mut self, opener: Opener, is_last: bool, now: Now) {
        let code = self.reader.code();
        if opener == Opener::Greeting {
            self.phases.greeting = self.lap(now);
        }
        match opener {
            Opener::Greeting if is_go(Stage::Greeting, code) => {
                self.say_hello("EHLO", Opener::Ehlo, now);
            }
            Opener::Ehlo if is_go(Stage::Hello, code) => {
                self.handle_capabilities(Capabilities::parse(&self.reader), now);
            }
            Opener::Helo if is_go(Stage::Hello, code) => {
                // What an earlier host of this lease offered does not count for this one.
                if !planted(Bug::CapabilitiesKept) {
                    self.exchange.open(Capabilities::default());
                }
                self.open(now);
            }
            Opener::Ehlo if matches!(code, 500 | 502) => self.say_hello("HELO", Opener::Helo, now),
            Opener::StartTls if code / 100 == 2 => self.secure(is_last, now),
            Opener::StartTls if matches!(code / 100, 4 | 5) && code != 421 => self.open(now),
            _ => self.handle_turned_away(opener, now),
        }
    }

    fn handle_capabilities(&mut self, capabilities: Capabilities, now: Now) {
        let chunking = capabilities.chunking && self.opening.settings.chunking;
        self.exchange.open(Capabilities { chunking, ..capabilities });
        let is_wanted = self.options.tls == TlsMode::Opportunistic;
        if is_wanted && capabilities.starttls && self.security == Security::Clear {
            self.out.send(b"STARTTLS\r\n");
            self.await_opener(Opener::StartTls, now);
        } else {
            self.open(now);
        }
    }

    /// Whatever stands behind the 220 in clear was put there by somebody else, to be taken for
    /// the host's words after the handshake.
    fn secure(&mut self, is_last: bool, now: Now) {
        if !is_last {
            return self.break_off(self.out_of_step("input behind the reply to STARTTLS"), now);
        }
        self.phase = Phase::Securing;
        self.since = now.mono;
        self.deadline = now.mono.plus(self.timeouts().tls);
        self.out.push(Order::Secure { name: self.itinerary.host_name().into() });
    }

    pub(super) fn handle_turned_away(&mut self, opener: Opener, now: Now) {
        let reply = self.reader.to_reply();
        if matches!(reply.code / 100, 4 | 5) {
            let stage = if opener == Opener::Greeting { Stage::Greeting } else { Stage::Hello };
            let (_, cause) = judge(stage, &reply);
            let trouble = self.trouble(cause, reply);
            self.remember(LeaseEnd::TurnedAway(trouble));
            self.itinerary.skip_host();
            self.close(Close::Graceful, Next::Another, now);
        } else {
            self.break_off(self.out_of_step(&reply.to_string()), now);
        }
    }

    fn open(&mut self, now: Now) {
        self.phase = Phase::Open;
        self.exchange.begin(self.itinerary.remote(), std::mem::take(&mut self.phases));
        self.deadline = Mono::NEVER;
        self.awaited = self.exchange.awaited();
        if self.exchange.is_empty() && self.owner == Owner::MaySend {
            self.out.push(Order::Ready);
        }
        self.carry_on(now);
    }

    pub(super) fn remember(&mut self, end: LeaseEnd) {
        let spoke = matches!(self.trouble, Some(LeaseEnd::TurnedAway(_)));
        if !spoke || matches!(end, LeaseEnd::TurnedAway(_)) {
            self.trouble = Some(end);
        }
    }
}
