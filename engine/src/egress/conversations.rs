//! Whole conversations with scripted hosts: what a session orders, line by line.

mod chunked;
mod facts;
mod walk;

use std::sync::Arc;
use std::time::Duration;

use super::letter::{BodyPart, Letter};
use super::order::Order;
use super::session::{EgressOptions, Session};
use crate::base::block::BlockBuilder;
use crate::base::time::{Mono, Now, Wall};
use crate::model::connection::{Close, ConnectError, End, ShardId, TlsError, TlsFacts};
use crate::model::delivery::{Delivery, LeaseId};
use crate::model::message::{MessageId, Place, SegmentSeq, Slice};
use crate::model::note::{Attempt, HostSet, LeaseEnd, Opening};
use crate::model::route::{MailHost, SiteKey, Target, Way};
use crate::model::settings::{OutcomeDurability, SiteSettings, TlsMode};
use crate::wire::envelope::{Envelope, Origin};

pub(super) fn slice(bytes: &[u8]) -> Slice {
    let mut block = BlockBuilder::with_capacity(bytes.len());
    block.append(bytes);
    Slice { block: block.freeze(), at: 0, bytes: u32::try_from(bytes.len()).unwrap() }
}

/// Letter `n`, from `s@n` to `r0@n`, `r1@n`...; its content is `hi n`.
pub(super) fn letter(n: u32, recipients: u16) -> Letter {
    let content = format!("hi {n}\r\n");
    let segment = SegmentSeq(1);
    Letter {
        delivery: Delivery {
            message: MessageId::new(segment, n),
            home: ShardId(0),
            place: Place { segment, offset: 0, bytes: 64 },
            in_pieces: 0,
            first: 0,
            count: recipients,
            attempts: 0,
            accepted: Wall(0),
            record: None,
        },
        envelope: envelope(n, recipients),
        parts: vec![BodyPart::Inline(slice(content.as_bytes()))],
        bytes: 6,
        eight_bit: false,
        dot_lines: false,
    }
}

fn envelope(n: u32, recipients: u16) -> Slice {
    let names: Vec<String> = (0..recipients).map(|index| format!("r{index}@{n}")).collect();
    addressed(&format!("s@{n}"), &names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn addressed(sender: &str, recipients: &[&str]) -> Slice {
    let mut envelope = Envelope::default();
    envelope.set_sender(sender);
    for recipient in recipients {
        envelope.add_recipient(recipient);
    }
    let peer = "127.0.0.1:1".parse().unwrap();
    let mut bytes = Vec::new();
    envelope.encode("c", Origin { peer, listener: 0, accepted: Wall(0) }, &mut bytes);
    slice(&bytes)
}

struct Talk {
    session: Session,
    now: Now,
}

const FULL: &str = "250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 1000\r\n";
const PLAIN: &str = "250 mx\r\n";
const TLS: &str = "250-mx\r\n250-STARTTLS\r\n250 PIPELINING\r\n";

impl Talk {
    fn with(
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

    fn of(opening: Opening, options: EgressOptions) -> (Self, Vec<String>) {
        let now = Now { mono: Mono(1_000), wall: Wall(1_000) };
        let mut talk = Self { session: Session::new(opening, Arc::new(options), now), now };
        let log = talk.log();
        (talk, log)
    }

    fn new() -> Self {
        Self::with(options(), SiteSettings::default(), &[&["1.1.1.1:25"]]).0
    }

    /// Connected, greeted and open, with what the host said to EHLO.
    fn open(ehlo: &str) -> Self {
        let mut talk = Self::new();
        assert_eq!(talk.connected(), [""; 0]);
        talk.greet(ehlo);
        talk
    }

    fn greet(&mut self, ehlo: &str) {
        assert_eq!(self.hears("220 mx\r\n"), ["> EHLO us"]);
        assert_eq!(self.hears(ehlo), ["ready"]);
    }

    /// Orders as lines; all that is sent between two other orders is one line, a flight.
    fn log(&mut self) -> Vec<String> {
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

    fn connected(&mut self) -> Vec<String> {
        self.session.handle_connected(self.now, Ok(()));
        self.log()
    }

    fn not_connected(&mut self, why: ConnectError) -> Vec<String> {
        self.session.handle_connected(self.now, Err(why));
        self.log()
    }

    fn hears(&mut self, text: &str) -> Vec<String> {
        self.session.handle_bytes(self.now, text.as_bytes());
        self.log()
    }

    fn gets(&mut self, letter: Letter) -> Vec<String> {
        self.session.handle_work(self.now, letter);
        self.log()
    }

    fn told_to_close(&mut self) -> Vec<String> {
        self.session.handle_close(self.now);
        self.log()
    }

    fn ended(&mut self, how: End) -> Vec<String> {
        self.session.handle_ended(self.now, how);
        self.log()
    }

    fn drained(&mut self) -> Vec<String> {
        self.session.handle_drained(self.now);
        self.log()
    }

    fn secured(&mut self, ok: bool) -> Vec<String> {
        let facts = TlsFacts { version: "1.3", cipher: "x" };
        let result = if ok { Ok(facts) } else { Err(TlsError("bad".into())) };
        self.session.handle_secured(self.now, result);
        self.log()
    }

    /// Passes the time to the next wake-up, which must be this far away.
    fn waits(&mut self, wait: Duration) -> Vec<String> {
        let at = self.session.next_wakeup();
        assert_eq!(at.since(self.now.mono), wait);
        self.now.mono = at;
        self.session.handle_time(self.now);
        self.log()
    }

    fn is_idle(&self) -> bool {
        self.session.next_wakeup() == Mono::NEVER
    }
}

fn options() -> EgressOptions {
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

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn one_flight_per_message_in_steady_state() {
    let mut talk = Talk::open(FULL);
    assert_eq!(talk.gets(letter(1, 1)), ["> MAIL FROM:<s@1> SIZE=6 | RCPT TO:<r0@1> | DATA"]);
    assert_eq!(talk.gets(letter(2, 1)), [""; 0]);
    let flight = "> hi 1 | . | MAIL FROM:<s@2> SIZE=6 | RCPT TO:<r0@2> | DATA";
    assert_eq!(talk.hears("250 ok\r\n250 ok\r\n354 go\r\n"), [flight]);
    for n in 2..50 {
        let replies = "250 2.0.0 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n";
        // The next letter comes when one is done: it shares the flight of the body before it.
        let mut log = talk.hears("250 2.0.0 taken\r\n");
        assert_eq!(log, [format!("{} delivered 250 2.0.0 taken", n - 1)]);
        assert_eq!(talk.gets(letter(n + 1, 1)), [""; 0]);
        log = talk.hears(replies.split_once('\n').unwrap().1);
        let next = n + 1;
        let flight =
            format!("> hi {n} | . | MAIL FROM:<s@{next}> SIZE=6 | RCPT TO:<r0@{next}> | DATA");
        assert_eq!(log, [flight]);
    }
}

/// Plays a well-behaved conversation with the host's bytes cut at every place: the orders are
/// the same, in the same order.
#[test]
fn every_cut_of_the_replies_gives_the_same_orders() {
    let steps: [&str; 5] = [
        "220-hello\r\n220 mx\r\n",
        FULL,
        "250 ok\r\n250 2.1.5 ok\r\n550-5.1.1 no\r\n550 5.1.1 user\r\n354 go\r\n",
        "250 2.0.0 taken\r\n451 4.7.1 greylisted\r\n503 what\r\n503 what\r\n",
        "221 bye\r\n",
    ];
    let play = |step_cut: usize, at: usize| {
        let mut talk = Talk::new();
        let mut log = talk.gets(letter(1, 2));
        log.extend(talk.gets(letter(2, 1)));
        log.extend(talk.told_to_close());
        log.extend(talk.connected());
        for (step, text) in steps.iter().enumerate() {
            let cut = if step == step_cut { at } else { 0 };
            log.extend(talk.hears(&text[..cut]));
            log.extend(talk.hears(&text[cut..]));
        }
        log.extend(talk.ended(End::ByPeer));
        log
    };
    let whole = play(0, 0);
    assert_eq!(
        whole,
        [
            "> EHLO us",
            "> MAIL FROM:<s@1> SIZE=6 | RCPT TO:<r0@1> | RCPT TO:<r1@1> | DATA",
            "> hi 1 | . | MAIL FROM:<s@2> SIZE=6 | RCPT TO:<r0@2> | DATA",
            "1 0 Delivered 250 2.0.0 taken; 1 Failed 550 5.1.1 no user",
            "2 0 Deferred 451 4.7.1 greylisted",
            "> QUIT",
            "close",
            "ended",
        ]
    );
    for (step, text) in steps.iter().enumerate() {
        for at in 0..=text.len() {
            assert_eq!(play(step, at), whole, "step {step} cut at {at}");
        }
    }
}

#[test]
fn without_pipelining_every_command_waits_for_its_reply() {
    let mut talk = Talk::open(PLAIN);
    assert_eq!(talk.gets(letter(1, 2)), ["> MAIL FROM:<s@1>"]);
    assert_eq!(talk.gets(letter(2, 1)), [""; 0]);
    assert_eq!(talk.hears("250 ok\r\n"), ["> RCPT TO:<r0@1>"]);
    assert_eq!(talk.hears("250 ok\r\n"), ["> RCPT TO:<r1@1>"]);
    assert_eq!(talk.hears("250 ok\r\n"), ["> DATA"]);
    assert_eq!(talk.hears("354 go\r\n"), ["> hi 1 | ."]);
    assert_eq!(talk.hears("250 ok\r\n"), ["1 delivered 250 ok", "> MAIL FROM:<s@2>"]);
    assert_eq!(talk.hears("550 no\r\n"), ["2 0 Failed 550 no"]);
    assert_eq!(talk.gets(letter(3, 1)), ["> MAIL FROM:<s@3>"]);
    assert_eq!(talk.hears("250 ok\r\n"), ["> RCPT TO:<r0@3>"]);
    assert_eq!(talk.gets(letter(4, 1)), [""; 0]);
    assert_eq!(talk.hears("550 no\r\n"), ["3 0 Failed 550 no", "> RSET"]);
    assert_eq!(talk.hears("250 ok\r\n"), ["> MAIL FROM:<s@4>"]);
}

#[test]
fn a_go_ahead_for_nobody_gets_a_lone_dot() {
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    assert_eq!(talk.hears("250 ok\r\n550 no\r\n354 go\r\n"), ["> ."]);
    // Even a 250 delivers to nobody.
    assert_eq!(talk.hears("250 thanks\r\n"), ["1 0 Failed 550 no"]);
    let next = "> RSET | MAIL FROM:<s@2> SIZE=6 | RCPT TO:<r0@2> | DATA";
    assert_eq!(talk.gets(letter(2, 1)), [next]);
    assert_eq!(talk.hears("250 ok\r\n552 later\r\n"), [""; 0]);
    let log = talk.hears("452 later\r\n554 no valid recipients\r\n");
    assert_eq!(log, ["2 0 Failed 552 later"]);
}

#[test]
fn a_refused_sender_or_content_is_consumed_to_its_last_reply() {
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 2));
    let refused = "550 5.7.1 no\r\n503 a\r\n503 b\r\n503 c\r\n";
    assert_eq!(talk.hears(refused), ["1 0 Failed 550 5.7.1 no; 1 Failed 550 5.7.1 no"]);
    assert_eq!(
        talk.gets(letter(2, 2)),
        ["> RSET | MAIL FROM:<s@2> SIZE=6 | RCPT TO:<r0@2> | RCPT TO:<r1@2> | DATA"]
    );
    let data_refused = "250 ok\r\n250 ok\r\n250 ok\r\n552 5.1.1 no\r\n451 4.3.0 not now\r\n";
    assert_eq!(
        talk.hears(data_refused),
        ["2 0 Deferred 451 4.3.0 not now; 1 Deferred 552 5.1.1 no"]
    );
    talk.gets(letter(3, 1));
    assert_eq!(talk.hears("250 ok\r\n452 4.7.0 slow down\r\n"), [""; 0]);
    assert_eq!(talk.hears("503 a\r\n503 b\r\n"), ["3 throttled 452 4.7.0 slow down"]);
    assert!(talk.is_idle());
}

#[test]
fn a_message_the_host_cannot_take_is_not_tried_on_it() {
    let mut talk = Talk::open(FULL);
    let large = Letter { bytes: 1001, ..letter(1, 1) };
    let refused = "1 0 Failed 552 5.3.4 message of 1001 bytes, the host takes 1000";
    assert_eq!(talk.gets(large), [refused]);
    let eight_bit = Letter { eight_bit: true, ..letter(2, 1) };
    let mail = "> MAIL FROM:<s@2> SIZE=6 BODY=8BITMIME | RCPT TO:<r0@2> | DATA";
    assert_eq!(talk.gets(eight_bit), [mail]);
    let mut talk = Talk::open(PLAIN);
    let eight_bit = Letter { eight_bit: true, ..letter(1, 1) };
    let refused = "1 0 Failed 554 5.6.3 8-bit content, and the host does not offer 8BITMIME";
    assert_eq!(talk.gets(eight_bit), [refused]);
    let damaged = Letter { envelope: slice(b"junk"), ..letter(2, 1) };
    assert_eq!(talk.gets(damaged), ["2 unreadable"]);
    let mut short = letter(3, 1);
    short.delivery.count = 2;
    assert_eq!(talk.gets(short), ["3 unreadable"]);
}

#[test]
fn a_reset_for_a_letter_that_came_to_nothing_is_no_riddle() {
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.hears("250 ok\r\n550 no\r\n554 no\r\n");
    let damaged = Letter { envelope: slice(b"junk"), ..letter(2, 1) };
    assert_eq!(talk.gets(damaged), ["> RSET", "2 unreadable"]);
    assert_eq!(talk.hears("250 ok\r\n"), [""; 0]);
    assert_eq!(talk.gets(letter(3, 1)).len(), 1);
}

/// Hostile words where no mail is at stake: they end the conversation and nothing else.
#[test]
fn hostile_replies_to_reset_and_quit_cost_no_attempt() {
    for reply in ["junk\r\n", "550 no\r\n", "354 go\r\n"] {
        let mut talk = Talk::open(FULL);
        talk.gets(letter(1, 1));
        talk.hears("250 ok\r\n550 no\r\n554 no\r\n");
        talk.gets(letter(2, 1));
        assert_eq!(talk.hears(reply), ["2 not tried", "abort"]);
        assert_eq!(talk.ended(End::ByPeer), ["ended"]);
    }
    for (reply, end) in [("junk\r\n", "abort"), ("550 no\r\n", "close"), ("421 x\r\n", "close")] {
        let mut talk = Talk::open(FULL);
        talk.told_to_close();
        assert_eq!(talk.hears(reply), [end]);
        assert_eq!(talk.ended(End::ByPeer), ["ended"]);
    }
}

#[test]
fn an_address_with_a_control_byte_fails_alone() {
    let mut talk = Talk::open(FULL);
    let evil = Letter { envelope: addressed("s@1", &["r\rRSET@1", "r1@1"]), ..letter(1, 2) };
    assert_eq!(talk.gets(evil), ["> MAIL FROM:<s@1> SIZE=6 | RCPT TO:<r1@1> | DATA"]);
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    let expected = "1 0 Failed 553 5.1.3 it holds a control byte; 1 Delivered 250 ok";
    assert_eq!(talk.hears("250 ok\r\n"), [expected]);
}

#[test]
fn many_recipients_are_written_within_the_window() {
    let mut talk = Talk::open(FULL);
    let flight = talk.gets(letter(1, 300)).remove(0);
    assert_eq!(flight.matches("RCPT").count(), 127);
    assert!(!flight.contains("DATA"));
    let more = talk.hears(&"250 ok\r\n".repeat(128)).join("");
    assert_eq!(more.matches("RCPT").count(), 128);
    let rest = talk.hears(&"250 ok\r\n".repeat(128)).join("");
    assert_eq!(rest.matches("RCPT").count(), 45);
    assert!(rest.ends_with("DATA"), "{rest}");
}

#[test]
fn a_lost_connection_costs_only_the_message_under_way() {
    let lost = |n: u32| format!("{n} 0 Deferred 451 4.4.2 mx0[1.1.1.1]: connection lost");
    let unreachable = "unreachable 451 4.4.2 mx0[1.1.1.1]: connection lost";
    let replies = ["", "250 ok\r\n", "250 ok\r\n250 ok\r\n", "250 ok\r\n250 ok\r\n354 go\r\n"];
    for before in replies {
        let mut talk = Talk::open(FULL);
        talk.gets(letter(1, 1));
        talk.gets(letter(2, 1));
        talk.hears(before);
        assert_eq!(talk.ended(End::ByPeer), [&lost(1), "2 not tried", unreachable], "{before}");
    }
    // Behind one that was taken, the next one had said nothing yet: it was not its turn.
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.gets(letter(2, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    talk.hears("250 taken\r\n");
    assert_eq!(talk.ended(End::ByPeer), ["2 not tried", "ended"]);
    // Once answered, it was.
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.gets(letter(2, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    talk.hears("250 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    assert_eq!(talk.ended(End::ByPeer), [&lost(2), "ended"]);
}

#[test]
fn a_refusal_given_before_the_loss_stands() {
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 2));
    talk.hears("250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n");
    let log = talk.ended(End::ByPeer);
    let lost = "451 4.4.2 mx0[1.1.1.1]: connection lost";
    assert_eq!(log[0], format!("1 0 Failed 550 no; 1 Deferred {lost}"));
}

#[test]
fn a_421_at_any_point_throttles_the_message_under_way() {
    let replies = ["", "250 ok\r\n", "250 ok\r\n250 ok\r\n", "250 ok\r\n250 ok\r\n354 go\r\n"];
    for before in replies {
        let mut talk = Talk::open(FULL);
        talk.gets(letter(1, 1));
        talk.gets(letter(2, 1));
        talk.hears(before);
        let log = talk.hears("421 4.7.0 slow\r\n");
        assert_eq!(log, ["1 throttled 421 4.7.0 slow", "2 not tried", "close"], "{before}");
        assert_eq!(talk.ended(End::ByPeer), ["ended"]);
    }
    let mut talk = Talk::open(FULL);
    assert_eq!(talk.hears("421 idle\r\n"), ["close"]);
    assert_eq!(talk.ended(End::ByPeer), ["turned away 421 idle"]);
}

#[test]
fn hosts_and_addresses_are_tried_one_after_the_other() {
    let hosts: [&[&str]; 3] = [&["1.1.1.1:25", "1.1.1.2:25"], &["2.2.2.2:25"], &["3.3.3.3:25"]];
    let (mut talk, log) = Talk::with(options(), SiteSettings::default(), &hosts);
    assert_eq!(log, ["connect 1.1.1.1:25"]);
    assert_eq!(talk.gets(letter(1, 1)), [""; 0]);
    assert_eq!(talk.not_connected(ConnectError::Refused), ["connect 1.1.1.2:25"]);
    assert_eq!(talk.not_connected(ConnectError::TimedOut), [""; 0]);
    assert_eq!(talk.waits(SECOND), ["connect 2.2.2.2:25"]);
    talk.connected();
    assert_eq!(talk.hears("554 5.7.1 go away\r\n"), ["close"]);
    assert_eq!(talk.ended(End::Unknown), [""; 0]);
    assert_eq!(talk.waits(SECOND), ["connect 3.3.3.3:25"]);
    talk.connected();
    assert_eq!(
        talk.ended(End::ByPeer),
        ["1 not tried", "turned away 554 5.7.1 go away"],
        "a word of a host says more than the silence of another"
    );
}

#[test]
fn this_machine_running_short_ends_the_lease_at_once() {
    let mut talk = Talk::new();
    talk.gets(letter(1, 1));
    let log = talk.not_connected(ConnectError::Local);
    assert_eq!(log[0], "1 not tried");
    assert!(log[1].starts_with("local 451 4.3.0"), "{log:?}");
}

#[test]
fn the_permit_is_free_only_when_the_peer_has_ended_or_cannot_count_us() {
    let finish = |how| {
        let mut talk = Talk::open(FULL);
        assert_eq!(talk.told_to_close(), ["> QUIT"]);
        assert_eq!(talk.hears("221 bye\r\n"), ["close"]);
        (talk.ended(how), talk)
    };
    assert_eq!(finish(End::ByPeer).0, ["ended"]);
    let (log, mut talk) = finish(End::Unknown);
    assert_eq!(log, [""; 0]);
    assert_eq!(talk.waits(SECOND), ["ended"]);
    assert_eq!(talk.gets(letter(9, 1)), ["9 not tried"]);
    // No answer to QUIT.
    let mut talk = Talk::open(FULL);
    talk.told_to_close();
    assert_eq!(talk.waits(5 * SECOND), ["abort"]);
    assert_eq!(talk.ended(End::Unknown), [""; 0]);
    assert_eq!(talk.waits(SECOND), ["ended"]);
    // An answer to QUIT, and then no end.
    let mut talk = Talk::open(FULL);
    talk.told_to_close();
    assert_eq!(talk.hears("221 bye\r\n"), ["close"]);
    assert_eq!(talk.waits(5 * SECOND), ["abort"]);
}

#[test]
fn helo_is_for_hosts_that_do_not_know_ehlo() {
    let mut talk = Talk::new();
    talk.gets(letter(1, 1));
    talk.connected();
    talk.hears("220 mx\r\n");
    assert_eq!(talk.hears("502 what\r\n"), ["> HELO us"]);
    assert_eq!(talk.hears("250 mx\r\n"), ["> MAIL FROM:<s@1>"]);
    let mut talk = Talk::new();
    talk.connected();
    talk.hears("220 mx\r\n");
    assert_eq!(talk.hears("550 not you\r\n"), ["close"]);
    assert_eq!(talk.ended(End::ByPeer), ["turned away 550 not you"]);
}

#[test]
fn security_is_taken_where_offered_and_the_greeting_begins_anew() {
    let mut talk = Talk::new();
    talk.gets(letter(1, 1));
    talk.connected();
    talk.hears("220 mx\r\n");
    assert_eq!(talk.hears(TLS), ["> STARTTLS"]);
    assert_eq!(talk.hears("220 go\r\n"), ["secure mx0"]);
    assert_eq!(talk.secured(true), ["> EHLO us"]);
    // What was offered in clear is forgotten; a second offer of STARTTLS is not taken.
    assert_eq!(talk.hears("250-mx\r\n250 STARTTLS\r\n"), ["> MAIL FROM:<s@1>"]);
}

#[test]
fn a_failed_handshake_is_followed_by_one_connection_in_clear() {
    for trouble in 0..3 {
        let mut talk = Talk::new();
        talk.gets(letter(1, 1));
        talk.connected();
        talk.hears("220 mx\r\n");
        talk.hears(TLS);
        talk.hears("220 go\r\n");
        match trouble {
            0 => assert_eq!(talk.secured(false), ["abort"]),
            1 => assert_eq!(talk.waits(MINUTE), ["abort"]),
            _ => {}
        }
        assert_eq!(talk.ended(End::ByPeer), ["connect 1.1.1.1:25"]);
        talk.connected();
        talk.hears("220 mx\r\n");
        assert_eq!(talk.hears(TLS), ["> MAIL FROM:<s@1> | RCPT TO:<r0@1> | DATA"]);
    }
}

#[test]
fn security_refused_or_switched_off_means_in_clear() {
    let mut talk = Talk::new();
    talk.gets(letter(1, 1));
    talk.connected();
    talk.hears("220 mx\r\n");
    talk.hears(TLS);
    assert_eq!(talk.hears("454 not now\r\n"), ["> MAIL FROM:<s@1> | RCPT TO:<r0@1> | DATA"]);
    let off = EgressOptions { tls: TlsMode::Off, ..options() };
    let (mut talk, _) = Talk::with(off, SiteSettings::default(), &[&["1.1.1.1:25"]]);
    talk.connected();
    talk.hears("220 mx\r\n");
    assert_eq!(talk.hears(TLS), ["ready"]);
}

#[test]
fn nothing_injected_behind_starttls_is_believed() {
    for injected in ["250 x\r\n", "2", "\x16\x03"] {
        let mut talk = Talk::new();
        talk.gets(letter(1, 1));
        talk.connected();
        talk.hears("220 mx\r\n");
        talk.hears(TLS);
        assert_eq!(talk.hears(&format!("220 go\r\n{injected}")), ["abort"], "{injected:?}");
        let log = talk.ended(End::ByPeer);
        let why = "unreachable 451 4.5.0 mx0[1.1.1.1]: input behind the reply to STARTTLS";
        assert_eq!(log, ["1 not tried", why]);
    }
    let mut talk = Talk::new();
    talk.connected();
    talk.hears("220 mx\r\n");
    talk.hears(TLS);
    talk.hears("220 go\r\n");
    assert_eq!(talk.hears("250 late\r\n"), ["abort"]);
}

/// What each hostile answer at each stage leads to; nothing is left hanging or half believed.
#[test]
fn hostile_replies_end_the_conversation() {
    let endless = "250-more\r\n".repeat(1000);
    let long = "2".repeat(100_000);
    let bad = [
        "25\r\n",
        "2500 x\r\n",
        "abc\r\n",
        "999 x\r\n",
        "000 x\r\n",
        "199 x\r\n",
        "\r\n",
        "HTTP/1.1 400 Bad Request\r\n",
        "\x15\x03\x01\x00\x02",
        "250-a\r\n251 b\r\n",
        &endless,
        &long,
        "334 x\r\n",
    ];
    let stages = [
        vec![],
        vec!["220 mx\r\n"],
        vec!["220 mx\r\n", FULL],
        vec!["220 mx\r\n", FULL, "250 ok\r\n"],
        vec!["220 mx\r\n", FULL, "250 ok\r\n", "250 ok\r\n"],
        vec!["220 mx\r\n", FULL, "250 ok\r\n", "250 ok\r\n", "354 go\r\n"],
    ];
    for (stage, before) in stages.iter().enumerate() {
        for reply in bad {
            let mut talk = Talk::new();
            talk.gets(letter(1, 1));
            talk.gets(letter(2, 1));
            talk.connected();
            before.iter().for_each(|text| drop(talk.hears(text)));
            let mut log = talk.hears(reply);
            if log.is_empty() {
                // A line that has not ended: the deadline ends it.
                log = talk.waits(if stage == 0 || stage < 4 {
                    5 * MINUTE
                } else {
                    dot_or_data(stage)
                });
            }
            log.extend(talk.ended(End::ByPeer));
            let shown = &reply[..reply.len().min(40)];
            assert_eq!(log.iter().filter(|line| *line == "abort").count(), 1, "{stage} {shown:?}");
            assert!(log.iter().any(|line| line == "2 not tried"), "{stage} {shown:?} {log:?}");
            let first = if stage < 2 { "1 not tried" } else { "1 0 Deferred 451 4." };
            assert!(log.iter().any(|line| line.starts_with(first)), "{stage} {shown:?} {log:?}");
            assert!(log.last().unwrap().starts_with("unreachable 451 4."), "{log:?}");
        }
    }
}

fn dot_or_data(stage: usize) -> Duration {
    if stage == 4 { 2 * MINUTE } else { 10 * MINUTE }
}

#[test]
fn replies_sent_blindly_are_not_believed() {
    // With the greeting.
    let mut talk = Talk::new();
    talk.connected();
    assert_eq!(talk.hears("220 mx\r\n250 mx\r\n"), ["> EHLO us", "abort"]);
    // Half of one.
    let mut talk = Talk::new();
    talk.connected();
    assert_eq!(talk.hears("220 mx\r\n25"), ["> EHLO us", "abort"]);
    // While idle, whole and in part.
    let mut talk = Talk::open(FULL);
    assert_eq!(talk.hears("250 ok\r\n"), ["abort"]);
    let mut talk = Talk::open(FULL);
    assert_eq!(talk.hears("25"), [""; 0]);
    assert_eq!(talk.gets(letter(1, 1)), ["1 not tried", "abort"]);
    // A 250 for the content together with the 354, before the content was sent.
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    let log = talk.hears("250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n");
    assert_eq!(log[0], "> hi 1 | .");
    assert!(log[1].starts_with("1 0 Deferred 451 4.5.0"), "{log:?}");
    // One reply too many puts the next transaction out of step, and is found there.
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.gets(letter(2, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    let log = talk.hears("250 taken\r\n250 extra\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    assert_eq!(log[0], "1 delivered 250 taken");
    assert!(log[1].starts_with("2 0 Deferred 451 4.5.0"), "{log:?}");
}

#[test]
fn a_reply_in_the_middle_of_the_content_delivers_nothing() {
    for (reply, result) in
        [("250 ok\r\n", "1 0 Deferred 451 4.5.0"), ("421 x\r\n", "1 throttled 421 x")]
    {
        let mut talk = Talk::open(FULL);
        talk.gets(with_chunks(1));
        assert_eq!(talk.hears("250 ok\r\n250 ok\r\n354 go\r\n"), ["> head", "fetch 64"]);
        assert!(talk.hears(reply)[0].starts_with(result), "{reply}");
    }
}

fn with_chunks(n: u32) -> Letter {
    let segment = SegmentSeq(1);
    let chunk = |offset| BodyPart::Chunk { place: Place { segment, offset, bytes: 70 }, bytes: 6 };
    let parts = vec![BodyPart::Inline(slice(b"head\r\n")), chunk(64), chunk(128)];
    Letter { parts, bytes: 18, ..letter(n, 1) }
}

#[test]
fn chunks_flow_one_at_a_time() {
    let mut talk = Talk::open(FULL);
    talk.gets(with_chunks(1));
    talk.gets(letter(2, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    let place = |offset| Place { segment: SegmentSeq(1), offset, bytes: 70 };
    let chunk = slice(b"0123\r\n");
    talk.session.handle_chunk(talk.now, place(64), Some(&chunk));
    assert_eq!(talk.log(), ["> 0123"]);
    assert_eq!(talk.drained(), ["fetch 128"]);
    talk.session.handle_chunk(talk.now, place(128), Some(&chunk));
    assert_eq!(talk.log(), ["> 0123 | . | MAIL FROM:<s@2> SIZE=6 | RCPT TO:<r0@2> | DATA"]);
    assert_eq!(talk.hears("250 ok\r\n"), ["1 delivered 250 ok"]);
}

#[test]
fn an_unreadable_chunk_sets_the_message_aside_and_delivers_no_half() {
    let mut talk = Talk::open(FULL);
    talk.gets(with_chunks(1));
    talk.gets(letter(2, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    let place = Place { segment: SegmentSeq(1), offset: 64, bytes: 70 };
    talk.session.handle_chunk(talk.now, place, None);
    assert_eq!(talk.log(), ["1 unreadable", "2 not tried", "abort"]);
    assert_eq!(talk.ended(End::Unknown), [""; 0]);
    assert_eq!(talk.waits(SECOND), ["ended"]);
}

#[test]
fn every_stage_has_a_total_deadline_that_bytes_do_not_move() {
    let mut talk = Talk::new();
    talk.gets(letter(1, 1));
    talk.connected();
    talk.now.mono = talk.now.mono.plus(MINUTE);
    assert_eq!(talk.hears("22"), [""; 0]);
    assert_eq!(talk.waits(4 * MINUTE), ["abort"]);

    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.now.mono = talk.now.mono.plus(MINUTE);
    talk.hears("2");
    talk.now.mono = talk.now.mono.plus(MINUTE);
    talk.hears("5");
    assert!(talk.waits(3 * MINUTE)[0].contains("no reply to a command in time"));

    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.hears("250 ok\r\n250 ok\r\n");
    assert!(talk.waits(2 * MINUTE)[0].contains("no reply to DATA in time"));

    // A peer that does not read: the content's own deadline.
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    talk.now.mono = talk.now.mono.plus(MINUTE);
    let mut other = talk;
    assert!(other.waits(9 * MINUTE)[0].contains("the message was not taken in time"));

    // From the dot on, that of its reply.
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    talk.now.mono = talk.now.mono.plus(MINUTE);
    talk.drained();
    let log = talk.waits(10 * MINUTE);
    assert!(log[0].contains("1 0 Deferred 451 4.4.2"), "{log:?}");
    assert!(log[0].contains("no reply to the message in time"));
}

#[test]
fn a_connection_carries_no_more_messages_than_it_may() {
    let settings = SiteSettings { messages_per_connection: 1, ..SiteSettings::default() };
    let (mut talk, _) = Talk::with(options(), settings, &[&["1.1.1.1:25"]]);
    talk.connected();
    talk.greet(FULL);
    talk.gets(letter(1, 1));
    talk.gets(letter(2, 1));
    assert_eq!(talk.hears("250 ok\r\n250 ok\r\n354 go\r\n"), ["> hi 1 | ."]);
    assert_eq!(talk.hears("250 ok\r\n"), ["1 delivered 250 ok", "2 not tried", "> QUIT"]);
}

#[test]
fn strict_outcomes_hold_the_next_dot_and_nothing_else() {
    let strict = EgressOptions { outcomes: OutcomeDurability::Strict, ..options() };
    let (mut talk, _) = Talk::with(strict, SiteSettings::default(), &[&["1.1.1.1:25"]]);
    talk.connected();
    talk.greet(FULL);
    talk.gets(letter(1, 1));
    talk.gets(letter(2, 1));
    talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
    let log = talk.hears("250 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    assert_eq!(log, ["1 delivered 250 taken", "> hi 2"]);
    talk.session.handle_settled(talk.now);
    assert_eq!(talk.log(), ["> ."]);
    // A settlement that never comes is not the host's fault.
    talk.gets(letter(3, 1));
    talk.hears("250 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    assert_eq!(talk.waits(10 * MINUTE), ["3 not tried", "abort"]);
}

#[test]
fn work_beyond_the_window_comes_back() {
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.gets(letter(2, 1));
    talk.gets(letter(3, 1));
    assert_eq!(talk.gets(letter(4, 1)), ["4 not tried"]);
    talk.session.handle_unreadable(talk.now, &letter(5, 1).delivery);
    assert_eq!(talk.log(), ["5 unreadable"]);
}
