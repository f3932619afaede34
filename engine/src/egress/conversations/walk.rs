//! Random walks through a session: the host and the world do anything, in any order.

use std::collections::VecDeque;

use super::letters::{letter, slice, with_chunks};
use super::talk::{FULL, PLAIN, TLS, Talk, options};
use crate::base::prng::Prng;
use crate::base::time::Mono;
use crate::egress::order::Order;
use crate::egress::session::EgressOptions;
use crate::model::connection::{ConnectError, End, TlsError, TlsFacts};
use crate::model::message::Place;
use crate::model::note::Attempt;
use crate::model::settings::{OutcomeDurability, SiteSettings};

/// What hosts of every temper say; the walk below picks among these.
const SAYINGS: [&str; 18] = [
    "220 mx\r\n",
    "250 ok\r\n",
    "250 ok\r\n",
    "250 ok\r\n",
    "354 go\r\n",
    "354 go\r\n",
    FULL,
    PLAIN,
    TLS,
    "421 bye\r\n",
    "450 4.7.1 too many\r\n",
    "550 no\r\n",
    "552 full\r\n",
    "502 what\r\n",
    "2",
    "250-\r\n",
    "221 bye\r\n",
    "junk\r\n",
];

/// A world that answers each order in some order of its own, or not at all.
struct Walk {
    talk: Talk,
    prng: Prng,
    connecting: bool,
    connected: bool,
    securing: bool,
    fetching: Option<Place>,
    given: u32,
    /// Right replies to what was sent and not yet answered.
    owed: VecDeque<&'static str>,
    done: Vec<u32>,
    delivered: u32,
    connections: u32,
    ended: bool,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let outcomes =
            if prng.below(2) == 0 { OutcomeDurability::Strict } else { OutcomeDurability::Grouped };
        let settings = SiteSettings {
            messages_per_connection: u32::try_from(1 + prng.below(4)).unwrap(),
            ..SiteSettings::default()
        };
        let hosts: [&[&str]; 2] = [&["1.1.1.1:25", "1.1.1.2:25"], &["2.2.2.2:25"]];
        let (talk, first) = Talk::with(EgressOptions { outcomes, ..options() }, settings, &hosts);
        assert_eq!(first, ["connect 1.1.1.1:25"]);
        Self {
            talk,
            prng,
            connecting: true,
            connected: false,
            securing: false,
            fetching: None,
            given: 0,
            owed: VecDeque::new(),
            done: Vec::new(),
            delivered: 0,
            connections: 1,
            ended: false,
        }
    }

    fn step(&mut self) {
        let now = self.talk.now;
        match self.prng.below(12) {
            0 if self.given - u32::try_from(self.done.len()).unwrap() < 2 && self.given < 6 => {
                self.given += 1;
                let chunked = self.prng.below(3) == 0;
                let next = if chunked { with_chunks(self.given) } else { letter(self.given, 2) };
                self.talk.session.handle_work(now, next);
            }
            1 if self.given >= 4 => self.talk.session.handle_close(now),
            2 if self.connecting && self.prng.below(8) == 0 => {
                self.connecting = false;
                self.talk.session.handle_busy(now);
            }
            2 if self.connecting => {
                self.connecting = false;
                let result = match self.prng.below(6) {
                    0 => Err(ConnectError::Refused),
                    1 => Err(ConnectError::TimedOut),
                    _ => Ok(()),
                };
                self.connected = result.is_ok();
                self.owed = VecDeque::from(["220 mx\r\n"]);
                self.talk.session.handle_connected(now, result);
            }
            3 if self.securing => {
                self.securing = false;
                let error = Err(TlsError("no".into()));
                let facts = Ok(TlsFacts { version: "1.3", cipher: "x" });
                let result = if self.prng.below(2) == 0 { error } else { facts };
                self.talk.session.handle_secured(now, result);
            }
            4 if self.connected && self.prng.below(6) == 0 => {
                (self.connected, self.securing) = (false, false);
                let how = if self.prng.below(2) == 0 { End::ByPeer } else { End::Unknown };
                self.talk.session.handle_ended(now, how);
            }
            5 => self.talk.session.handle_settled(now),
            6 if self.connected => self.talk.session.handle_drained(now),
            7 => {
                if let Some(place) = self.fetching.take() {
                    let chunk = (self.prng.below(8) > 0).then(|| slice(b"0123\r\n"));
                    self.talk.session.handle_chunk(now, place, chunk.as_ref());
                }
            }
            8 if self.prng.below(8) == 0 => {
                let at = self.talk.session.next_wakeup();
                if at != Mono::NEVER {
                    self.talk.now.mono = self.talk.now.mono.max(at);
                    self.talk.session.handle_time(self.talk.now);
                }
            }
            9.. if self.connected && !self.securing => self.speak(),
            _ => {}
        }
        self.obey();
    }

    /// Mostly the right reply, if one is owed; now and then anything at all.
    fn speak(&mut self) {
        let reply = match self.owed.pop_front() {
            Some(reply) if self.prng.below(20) > 0 => reply,
            None if self.prng.below(50) > 0 => return,
            _ => SAYINGS[usize::try_from(self.prng.below(SAYINGS.len() as u64)).unwrap()],
        };
        self.talk.session.handle_bytes(self.talk.now, reply.as_bytes());
    }

    /// What a good host would answer to these lines.
    fn owe(&mut self, text: &str) {
        for line in text.lines() {
            let reply = match line.split(' ').next().unwrap() {
                "EHLO" => [FULL, FULL, PLAIN, TLS][usize::try_from(self.prng.below(4)).unwrap()],
                "HELO" | "MAIL" | "RCPT" | "RSET" | "." => "250 ok\r\n",
                "DATA" => "354 go\r\n",
                "STARTTLS" => "220 go\r\n",
                "QUIT" => "221 bye\r\n",
                _ => continue,
            };
            self.owed.push_back(reply);
        }
    }

    /// Notes the orders, and checks that none comes out of its place.
    fn obey(&mut self) {
        while let Some(order) = self.talk.session.poll() {
            assert!(!self.ended, "an order after the last: {order:?}");
            match order {
                Order::Connect { .. } => {
                    assert!(!self.connecting && !self.connected, "two connections on one permit");
                    self.connecting = true;
                    self.connections += 1;
                }
                Order::Send(range) => {
                    let text = String::from_utf8_lossy(self.talk.session.text(range)).into_owned();
                    assert!(self.connected && !text.is_empty());
                    self.owe(&text);
                }
                Order::SendSlice(slice) => assert!(self.connected && slice.bytes > 0),
                Order::Secure { .. } => self.securing = true,
                Order::Close(_) => assert!(self.connected, "there is something to close"),
                Order::Another => unreachable!("connections are not paced here"),
                Order::Ready => assert!(self.connected, "ready for mail without a connection"),
                Order::FetchChunk { place, .. } => self.fetching = Some(place),
                Order::Done(done) => {
                    self.done.push(done.message.ordinal());
                    self.delivered += u32::from(matches!(done.result, Attempt::Delivered(_)));
                }
                Order::Ended(_) => {
                    assert!(!self.connected && !self.connecting, "the permit is in use");
                    self.ended = true;
                }
            }
        }
    }

    /// The world grows calm: what is owed is answered, and time passes.
    fn calm_down(&mut self, seed: u64) {
        if !self.ended {
            self.talk.session.handle_close(self.talk.now);
            self.obey();
        }
        for _ in 0..100 {
            if self.connecting {
                self.connecting = false;
                self.talk.session.handle_connected(self.talk.now, Err(ConnectError::Refused));
            } else if self.connected {
                self.connected = false;
                self.talk.session.handle_ended(self.talk.now, End::Unknown);
            } else if self.talk.session.next_wakeup() != Mono::NEVER {
                self.talk.now.mono = self.talk.session.next_wakeup();
                self.talk.session.handle_time(self.talk.now);
            }
            self.obey();
        }
        assert!(self.ended, "seed {seed} hangs: {:?}", self.talk.session);
        self.done.sort_unstable();
        assert_eq!(self.done, (1..=self.given).collect::<Vec<_>>(), "seed {seed}");
        assert!(self.connections <= 8, "seed {seed}");
    }
}

/// Whatever a host and the world do: one connection at a time, every delivery is done once, the
/// permit comes back last and only when nothing is connected.
#[test]
fn every_walk_ends_with_every_delivery_done_once() {
    let mut delivered = 0;
    for seed in 0..5_000 {
        let mut walk = Walk::new(seed);
        for _ in 0..200 {
            walk.step();
            if walk.ended {
                break;
            }
        }
        walk.calm_down(seed);
        delivered += walk.delivered;
    }
    assert!(delivered > 1_000, "the walk goes somewhere: {delivered}");
}
