//! A session and the host it talks to, line by line.

use std::sync::Arc;
use std::time::Duration;

use crate::base::time::{Mono, Now, Wall};
use crate::egress::letter::Letter;
use crate::egress::order::Order;
use crate::egress::session::{EgressOptions, Session};
use crate::model::connection::{Close, ConnectError, End, ShardId, TlsError, TlsFacts};
use crate::model::delivery::LeaseId;
use crate::model::note::{Attempt, HostSet, LeaseEnd, Opening};
use crate::model::route::{MailHost, SiteKey, Target, Way};
use crate::model::settings::{OutcomeDurability, SiteSettings, TlsMode};

pub(super) const FULL: &str = "250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 1000\r\n";
pub(super) const PLAIN: &str = "250 mx\r\n";
pub(super) const TLS: &str = "250-mx\r\n250-STARTTLS\r\n250 PIPELINING\r\n";

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// A session, what time it is for it, and what it orders, as lines.
pub(super) struct Talk {
    pub(super) session: Session,
    pub(super) now: Now,
}

impl Talk {
    pub(super) fn with(
        options: EgressOptions,
        settings: SiteSettings,
        hosts: &[&[&str]],
    ) -> (Self, Vec<String>) {
        let host = |(n, addresses): (usize, &&[&str])| MailHost {
            preference: 10,
            name: format!("mx{n}").into(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        };
        let target = Target::new(
            SiteKey::MxSet("mx0".into()),
            Way::Hosts(hosts.iter().enumerate().map(host).collect()),
            Mono::NEVER,
        );
        let opening = Opening {
            lease: LeaseId { owner: ShardId(0), slot: 0, generation: 0 },
            target: Arc::new(target),
            settings: Arc::new(settings),
            source: None,
            skip: HostSet::EMPTY,
            is_paced: false,
        };
        Self::of(opening, options)
    }

    pub(super) fn of(opening: Opening, options: EgressOptions) -> (Self, Vec<String>) {
        let now = Now { mono: Mono(1_000), wall: Wall(1_000) };
        let mut talk = Self { session: Session::new(opening, Arc::new(options), now), now };
        let log = talk.log();
        (talk, log)
    }

    pub(super) fn new() -> Self {
        Self::with(options(), SiteSettings::default(), &[&["1.1.1.1:25"]]).0
    }

    /// Connected, greeted and open, with what the host said to EHLO.
    pub(super) fn open(ehlo: &str) -> Self {
        let mut talk = Self::new();
        assert_eq!(talk.connected(), [""; 0]);
        talk.greet(ehlo);
        talk
    }

    pub(super) fn greet(&mut self, ehlo: &str) {
        assert_eq!(self.hears("220 mx\r\n"), ["> EHLO us"]);
        assert_eq!(self.hears(ehlo), ["ready"]);
    }

    /// Orders as lines; all that is sent between two other orders is one line, a flight.
    pub(super) fn log(&mut self) -> Vec<String> {
        let (mut log, mut flight) = (Vec::new(), Vec::new());
        loop {
            let order = self.session.poll();
            match &order {
                Some(Order::Send(range)) => {
                    flight.extend_from_slice(self.session.text(range.clone()));
                    continue;
                }
                Some(Order::SendSlice(slice)) => {
                    flight.extend_from_slice(slice.bytes());
                    continue;
                }
                _ => {}
            }
            if !flight.is_empty() {
                let text = String::from_utf8(std::mem::take(&mut flight)).unwrap();
                assert!(text.ends_with("\r\n"), "{text:?}");
                log.push(format!("> {}", text.trim_end().replace("\r\n", " | ")));
            }
            let Some(order) = order else { return log };
            log.push(describe(order));
        }
    }

    pub(super) fn connected(&mut self) -> Vec<String> {
        self.session.handle_connected(self.now, Ok(()));
        self.log()
    }

    pub(super) fn not_connected(&mut self, why: ConnectError) -> Vec<String> {
        self.session.handle_connected(self.now, Err(why));
        self.log()
    }

    pub(super) fn hears(&mut self, text: &str) -> Vec<String> {
        self.session.handle_bytes(self.now, text.as_bytes());
        self.log()
    }

    pub(super) fn gets(&mut self, letter: Letter) -> Vec<String> {
        self.session.handle_work(self.now, letter);
        self.log()
    }

    pub(super) fn told_to_close(&mut self) -> Vec<String> {
        self.session.handle_close(self.now);
        self.log()
    }

    pub(super) fn ended(&mut self, how: End) -> Vec<String> {
        self.session.handle_ended(self.now, how);
        self.log()
    }

    pub(super) fn drained(&mut self) -> Vec<String> {
        self.session.handle_drained(self.now);
        self.log()
    }

    pub(super) fn secured(&mut self, ok: bool) -> Vec<String> {
        let facts = TlsFacts { version: "1.3", cipher: "x" };
        let result = if ok { Ok(facts) } else { Err(TlsError("bad".into())) };
        self.session.handle_secured(self.now, result);
        self.log()
    }

    /// Passes the time to the next wake-up, which must be this far away.
    pub(super) fn waits(&mut self, wait: Duration) -> Vec<String> {
        let at = self.session.next_wakeup();
        assert_eq!(at.since(self.now.mono), wait);
        self.now.mono = at;
        self.session.handle_time(self.now);
        self.log()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.session.next_wakeup() == Mono::NEVER
    }
}

pub(super) fn options() -> EgressOptions {
    EgressOptions {
        hostname: "us".into(),
        tls: TlsMode::Opportunistic,
        outcomes: OutcomeDurability::Grouped,
    }
}

fn describe(order: Order) -> String {
    match order {
        Order::Connect { to, from: Some(from), .. } => format!("connect {to} from {from}"),
        Order::Connect { to, .. } => format!("connect {to}"),
        Order::Secure { name } => format!("secure {name}"),
        Order::Close(Close::Graceful) => "close".into(),
        Order::Close(Close::Abort) => "abort".into(),
        Order::Ready => "ready".into(),
        Order::Another => "another".into(),
        Order::FetchChunk { place, .. } => format!("fetch {}", place.offset),
        Order::Done(done) => {
            format!("{} {}", done.message.ordinal(), describe_result(&done.result))
        }
        Order::Ended(LeaseEnd::Finished) => "ended".into(),
        Order::Ended(LeaseEnd::Unreachable(trouble)) => format!("unreachable {}", trouble.reply),
        Order::Ended(LeaseEnd::TurnedAway(trouble)) => format!("turned away {}", trouble.reply),
        Order::Ended(LeaseEnd::Local(reply)) => format!("local {reply}"),
        Order::Ended(LeaseEnd::Busy { ip }) => format!("busy {ip}"),
        Order::Ended(LeaseEnd::Skipped) => "skipped".into(),
        Order::Send(_) | Order::SendSlice(_) => unreachable!(),
    }
}

fn describe_result(result: &Attempt) -> String {
    match result {
        Attempt::Delivered(reply) => format!("delivered {reply}"),
        Attempt::Mixed { recipients, .. } => {
            let one = |result: &crate::model::note::RecipientResult| {
                format!("{} {:?} {}", result.recipient, result.class, result.reply)
            };
            recipients.iter().map(one).collect::<Vec<_>>().join("; ")
        }
        Attempt::NotTried => "not tried".into(),
        Attempt::Unheard => "unheard".into(),
        Attempt::Throttled(complaint) => format!("throttled {}", complaint.reply),
        Attempt::Unreadable => "unreadable".into(),
    }
}
