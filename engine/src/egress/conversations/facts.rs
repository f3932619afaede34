//! What a session tells beside the fate of its mail: causes, times, hosts; and where it connects
//! from and to.

use std::sync::Arc;
use std::time::Duration;

use super::letters::letter;
use super::talk::{FULL, PLAIN, SECOND, TLS, Talk, options};
use crate::base::time::Mono;
use crate::egress::order::Order;
use crate::model::connection::{ConnectError, End, ShardId, TlsFacts};
use crate::model::delivery::LeaseId;
use crate::model::note::{
    Attempt, Cause, Complaint, Done, HostSet, LeaseEnd, Opening, Phases, RecipientResult, Remote,
    Trouble,
};
use crate::model::route::{MailHost, SiteKey, Target, Way};
use crate::model::settings::SiteSettings;
use crate::model::source::EgressSource;

/// Hosts `mx0`, `mx1`..., each with a preference and its addresses.
fn opening(hosts: &[(u16, &[&str])]) -> Opening {
    let host = |(n, (preference, addresses)): (usize, &(u16, &[&str]))| MailHost {
        preference: *preference,
        name: format!("mx{n}").into(),
        addresses: addresses.iter().map(|ip| format!("{ip}:25").parse().unwrap()).collect(),
    };
    let target = Target::new(
        SiteKey::MxSet("mx0".into()),
        Way::Hosts(hosts.iter().enumerate().map(host).collect()),
        Mono::NEVER,
    );
    Opening {
        lease: LeaseId { owner: ShardId(0), slot: 0, generation: 0 },
        target: Arc::new(target),
        settings: Arc::new(SiteSettings::default()),
        source: None,
        skip: HostSet::EMPTY,
        is_paced: false,
    }
}

fn skipping(places: &[u8]) -> HostSet {
    let mut skip = HostSet::EMPTY;
    places.iter().for_each(|place| skip.insert(*place));
    skip
}

fn source(address: Option<&str>, address6: Option<&str>) -> Option<Arc<EgressSource>> {
    let parse = |ip: &str| ip.parse().unwrap();
    Some(Arc::new(EgressSource {
        name: "a".into(),
        address: address.map(parse),
        address6: address6.map(parse),
        hostname: Some("a.us".into()),
    }))
}

impl Talk {
    fn busy(&mut self) -> Vec<String> {
        self.session.handle_busy(self.now);
        self.log()
    }

    fn pass(&mut self, millis: u64) {
        self.now.mono = self.now.mono.plus(Duration::from_millis(millis));
    }

    /// Hears `text` in two pieces; what it orders beside sending.
    fn hears_cut(&mut self, text: &str, at: usize) -> Vec<Order> {
        let (one, other) = text.split_at(at);
        let mut orders = Vec::new();
        for piece in [one, other] {
            self.session.handle_bytes(self.now, piece.as_bytes());
            orders.extend(self.orders());
        }
        orders
    }

    fn orders(&mut self) -> Vec<Order> {
        let all = std::iter::from_fn(|| self.session.poll());
        all.filter(|order| !matches!(order, Order::Send(_) | Order::SendSlice(_))).collect()
    }

    /// Why the lease has ended.
    fn trouble(&mut self) -> Trouble {
        match self.orders().pop() {
            Some(Order::Ended(LeaseEnd::Unreachable(trouble) | LeaseEnd::TurnedAway(trouble))) => {
                *trouble
            }
            other => panic!("{other:?}"),
        }
    }

    /// The reports that a text causes; the same wherever it is cut.
    fn reports(play: impl Fn() -> Self, text: &str) -> Vec<Done> {
        let dones = |orders: Vec<Order>| -> Vec<Done> {
            let done = |order| if let Order::Done(done) = order { Some(done) } else { None };
            orders.into_iter().filter_map(done).collect()
        };
        let whole = dones(play().hears_cut(text, 0));
        for at in 1..=text.len() {
            let cut = dones(play().hears_cut(text, at));
            assert_eq!(format!("{cut:?}"), format!("{whole:?}"), "cut at {at}");
        }
        whole
    }
}

/// Every recipient with what is known, then the complaint.
fn told(done: &Done) -> String {
    let complaint = |complaint: &Complaint| format!("{:?} {}", complaint.cause, complaint.reply);
    let recipients = match &done.result {
        Attempt::Mixed { recipients, .. } => recipients.as_slice(),
        _ => &[],
    };
    let one = |result: &RecipientResult| {
        let RecipientResult { recipient, class, cause, .. } = result;
        format!("{recipient} {class:?} {cause:?}; ")
    };
    let each: String = recipients.iter().map(one).collect();
    let complaint = done.result.complaint().map_or_else(|| "no complaint".to_owned(), complaint);
    format!("{each}{complaint}")
}

fn three_recipients() -> Talk {
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 3));
    talk.gets(letter(2, 1));
    talk
}

#[test]
fn a_421_between_the_recipients_is_told_beside_what_became_of_them() {
    let text = "250 ok\r\n250 ok\r\n550 5.1.1 no such user\r\n421 4.7.0 slow down\r\n";
    let dones = Talk::reports(three_recipients, text);
    let each = "0 Deferred Throttle; 1 Failed Recipient; 2 Deferred Throttle; ";
    assert_eq!(told(&dones[0]), format!("{each}Throttle 421 4.7.0 slow down"));
    assert!(matches!(dones[1].result, Attempt::NotTried));
    // Where nobody was refused before, nothing but the throttle is told.
    let dones = Talk::reports(three_recipients, "250 ok\r\n250 ok\r\n421 4.7.0 slow down\r\n");
    assert!(matches!(dones[0].result, Attempt::Throttled(_)), "{dones:?}");
    assert_eq!(told(&dones[0]), "Throttle 421 4.7.0 slow down");
    // Behind a refused sender.
    let dones = Talk::reports(three_recipients, "550 5.7.1 no\r\n421 4.7.0 slow down\r\n");
    let each = "0 Failed Policy; 1 Failed Policy; 2 Failed Policy; ";
    assert_eq!(told(&dones[0]), format!("{each}Throttle 421 4.7.0 slow down"));
    // In the middle of the content.
    let text = "250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n421 bye\r\n";
    let after_go = || {
        let mut talk = three_recipients();
        talk.hears(&text[..text.len() - 9]);
        talk
    };
    let dones = Talk::reports(after_go, "421 bye\r\n");
    let each = "0 Deferred Throttle; 1 Failed Recipient; 2 Deferred Throttle; ";
    assert_eq!(told(&dones[0]), format!("{each}Throttle 421 bye"));
}

#[test]
fn a_throttled_recipient_among_others_is_a_complaint_of_the_site() {
    let replies = "250 ok\r\n250 ok\r\n450 4.7.28 rate limit\r\n250 ok\r\n354 go\r\n";
    let after_go = || {
        let mut talk = three_recipients();
        talk.hears(replies);
        talk
    };
    let dones = Talk::reports(after_go, "250 taken\r\n");
    let each = "0 Delivered None; 1 Deferred Throttle; 2 Delivered None; ";
    assert_eq!(told(&dones[0]), format!("{each}Throttle 450 4.7.28 rate limit"));
    // All of them, in whatever way, are one throttled delivery.
    let dones = Talk::reports(after_go, "451 4.3.2 overloaded\r\n");
    assert!(matches!(dones[0].result, Attempt::Throttled(_)), "{dones:?}");
    // A word about a mailbox, the message or us is none about the site.
    for (reply, cause) in [
        ("451 4.7.1 greylisted", "Deferred Greylist"),
        ("552 5.3.4 too large", "Failed Content"),
        ("554 5.7.1 your address is on a block list", "Failed Policy"),
        ("451 4.3.0 local error", "Deferred Site"),
    ] {
        let mut talk = Talk::open(FULL);
        talk.gets(letter(1, 1));
        talk.hears("250 ok\r\n250 ok\r\n354 go\r\n");
        let Order::Done(done) = talk.hears_cut(&format!("{reply}\r\n"), 0).remove(0) else {
            panic!("a result");
        };
        assert_eq!(told(&done), format!("0 {cause}; no complaint"), "{reply}");
    }
}

#[test]
fn a_lost_connection_is_a_complaint_of_the_site_and_stands_behind_a_throttle() {
    let lose = |replies: &str| {
        let mut talk = Talk::open(FULL);
        talk.gets(letter(1, 2));
        talk.hears(replies);
        talk.session.handle_ended(talk.now, End::ByPeer);
        let Order::Done(done) = talk.orders().remove(0) else { panic!("a result") };
        told(&done)
    };
    let lost = "451 4.4.2 mx0[1.1.1.1]: connection lost";
    assert_eq!(lose("250 ok\r\n"), format!("0 Deferred Site; 1 Deferred Site; Site {lost}"));
    let slow = "250 ok\r\n450 4.7.1 slow down\r\n";
    let each = "0 Deferred Throttle; 1 Deferred Site; ";
    assert_eq!(lose(slow), format!("{each}Throttle 450 4.7.1 slow down"));
}

#[test]
fn a_host_with_too_few_places_says_how_many_it_took() {
    let full = "250 ok\r\n250 ok\r\n452 4.5.3 too many recipients\r\n452 4.5.3 x\r\n354 go\r\n";
    let after_go = || {
        let mut talk = three_recipients();
        talk.hears(full);
        talk
    };
    let dones = Talk::reports(after_go, "250 taken\r\n");
    let each = "0 Delivered None; 1 Deferred Recipient; 2 Deferred Recipient; ";
    assert_eq!(told(&dones[0]), format!("{each}no complaint"));
    assert_eq!(dones[0].accepted_first, Some(1));
    // Refused for what it is, a recipient says nothing about places.
    let mut talk = three_recipients();
    let refused = "250 ok\r\n250 ok\r\n452 4.2.2 full\r\n250 ok\r\n354 go\r\n250 taken\r\n";
    talk.hears_cut(&refused[..refused.len() - 11], 0);
    let Order::Done(done) = talk.hears_cut("250 taken\r\n", 0).remove(0) else {
        panic!("a result")
    };
    assert_eq!(done.accepted_first, None);
}

/// Milliseconds of connect, greeting, TLS, MAIL, RCPT, DATA and dot; 0: it did not happen.
fn millis(phases: Phases) -> [u128; 7] {
    let Phases { connect, greeting, tls, mail, rcpt, data, dot } = phases;
    [connect, greeting, tls, mail, rcpt, data, dot]
        .map(|took| took.duration().map_or(0, |took| took.as_micros().div_ceil(1000)))
}

/// Plays a conversation with known waits, every text cut at `at` or at its end.
fn timed(at: usize) -> Vec<Done> {
    let mut talk = Talk::new();
    let mut orders = Vec::new();
    let mut hear = |talk: &mut Talk, millis: u64, text: &str| {
        talk.pass(millis);
        orders.extend(talk.hears_cut(text, at.min(text.len())));
    };
    talk.gets(letter(1, 2));
    talk.gets(letter(2, 1));
    talk.pass(10);
    talk.connected();
    hear(&mut talk, 20, "220 mx\r\n");
    hear(&mut talk, 1, TLS);
    hear(&mut talk, 1, "220 go\r\n");
    talk.pass(30);
    let facts = TlsFacts { version: "1.3", cipher: "x" };
    talk.session.handle_secured(talk.now, Ok(facts));
    hear(&mut talk, 1, FULL);
    hear(&mut talk, 2, "250 ok\r\n");
    hear(&mut talk, 3, "250 ok\r\n");
    hear(&mut talk, 4, "250 ok\r\n");
    hear(&mut talk, 5, "354 go\r\n");
    // The kernel takes the content in its time; the host's own begins then.
    talk.pass(100);
    talk.session.handle_drained(talk.now);
    hear(&mut talk, 50, "250 taken\r\n");
    // Its commands went out with the dot before: that time is the dot's alone.
    hear(&mut talk, 0, "250 ok\r\n");
    hear(&mut talk, 6, "250 ok\r\n");
    hear(&mut talk, 7, "354 go\r\n");
    hear(&mut talk, 60, "250 taken\r\n");
    let done = |order| if let Order::Done(done) = order { Some(done) } else { None };
    orders.into_iter().filter_map(done).collect()
}

#[test]
fn every_phase_is_timed_once_wherever_replies_are_cut() {
    for at in 0..=FULL.len() {
        let dones = timed(at);
        assert_eq!(millis(dones[0].phases), [10, 20, 30, 2, 7, 5, 50], "cut at {at}");
        assert_eq!(millis(dones[1].phases), [0, 0, 0, 1, 6, 7, 60], "cut at {at}");
        let remote = Some(Remote { host: 0, ip: "1.1.1.1".parse().unwrap() });
        assert!(dones.iter().all(|done| done.remote == remote));
    }
}

#[test]
fn without_pipelining_each_command_is_timed_from_its_writing() {
    let mut talk = Talk::open(PLAIN);
    talk.pass(500);
    talk.gets(letter(1, 1));
    let mut orders = Vec::new();
    for (wait, text) in [(2, "250 ok\r\n"), (3, "250 ok\r\n"), (4, "354 go\r\n"), (5, "550 no\r\n")]
    {
        talk.pass(wait);
        orders.extend(talk.hears_cut(text, 1));
    }
    let Some(Order::Done(done)) = orders.pop() else { panic!("a result") };
    assert_eq!(millis(done.phases), [1, 1, 0, 2, 3, 4, 5]);
}

#[test]
fn the_host_that_turned_us_away_is_named_with_its_times() {
    let hosts: [(u16, &[&str]); 2] = [(10, &["1.1.1.1"]), (20, &["2.2.2.2", "2.2.2.3"])];
    let text = "554 5.7.1 blocked using a list\r\n";
    for at in 0..text.len() {
        let (mut talk, _) = Talk::of(opening(&hosts), options());
        talk.not_connected(ConnectError::Refused);
        talk.pass(10);
        talk.connected();
        talk.pass(20);
        talk.hears_cut(text, at);
        talk.session.handle_ended(talk.now, End::ByPeer);
        let trouble = talk.trouble();
        assert_eq!(trouble.cause, Cause::Policy);
        assert_eq!(trouble.remote, Some(Remote { host: 1, ip: "2.2.2.2".parse().unwrap() }));
        assert_eq!(millis(trouble.phases), [10, 20, 0, 0, 0, 0, 0]);
    }
    // Nobody could be connected to: the last address tried, and no times.
    let (mut talk, _) = Talk::of(opening(&hosts), options());
    talk.not_connected(ConnectError::Refused);
    talk.not_connected(ConnectError::Refused);
    talk.session.handle_connected(talk.now, Err(ConnectError::Refused));
    let trouble = talk.trouble();
    assert_eq!((trouble.cause, trouble.phases), (Cause::Site, Phases::default()));
    assert_eq!(trouble.remote, Some(Remote { host: 1, ip: "2.2.2.3".parse().unwrap() }));
}

#[test]
fn the_times_of_a_connection_are_told_with_a_delivery_or_with_its_end() {
    // With the delivery that was lost: not again with the end.
    let mut talk = Talk::open(FULL);
    talk.gets(letter(1, 1));
    talk.session.handle_ended(talk.now, End::ByPeer);
    let mut orders = talk.orders();
    let Some(Order::Ended(LeaseEnd::Unreachable(trouble))) = orders.pop() else { panic!("an end") };
    let Some(Order::Done(done)) = orders.pop() else { panic!("a result") };
    assert_eq!(millis(done.phases), [1, 1, 0, 0, 0, 0, 0]);
    assert_eq!(millis(trouble.phases), [0; 7]);
    // With the end, where nothing was delivered.
    let mut talk = Talk::open(FULL);
    talk.hears("421 4.7.0 too many connections\r\n");
    talk.session.handle_ended(talk.now, End::ByPeer);
    let trouble = talk.trouble();
    assert_eq!((trouble.cause, millis(trouble.phases)), (Cause::Throttle, [1, 1, 0, 0, 0, 0, 0]));
}

#[test]
fn hosts_to_be_passed_over_are_not_connected_to() {
    let hosts: [(u16, &[&str]); 3] =
        [(10, &["1.1.1.1", "1.1.1.2"]), (10, &["2.2.2.2"]), (20, &["3.3.3.3"])];
    let opening_with = |skip| Opening { skip, ..opening(&hosts) };
    let (mut talk, log) = Talk::of(opening_with(skipping(&[0, 2])), options());
    assert_eq!(log, ["connect 2.2.2.2:25"]);
    let log = talk.not_connected(ConnectError::Refused);
    assert_eq!(log, ["unreachable 451 4.4.2 mx1[2.2.2.2]: connection refused"]);
    let (mut talk, log) = Talk::of(opening_with(skipping(&[0, 1, 2])), options());
    assert_eq!(log, ["skipped"]);
    assert_eq!(talk.gets(letter(1, 1)), ["1 not tried"]);
}

#[test]
fn a_source_gives_the_address_to_connect_from_and_the_name_to_greet_with() {
    let hosts: [(u16, &[&str]); 2] = [(10, &["[2606:4700::1]", "1.1.1.1"]), (20, &["2.2.2.2"])];
    let with = |source| Opening { source, ..opening(&hosts) };
    let (mut talk, log) = Talk::of(with(source(Some("192.0.2.1"), None)), options());
    assert_eq!(log, ["connect 1.1.1.1:25 from 192.0.2.1"], "its family alone");
    talk.connected();
    assert_eq!(talk.hears("220 mx\r\n"), ["> EHLO a.us"]);
    assert_eq!(talk.hears("502 what\r\n"), ["> HELO a.us"]);
    let (_, log) = Talk::of(with(source(Some("192.0.2.1"), Some("2001:db8::1"))), options());
    assert_eq!(log, ["connect [2606:4700::1]:25 from 2001:db8::1"]);
    let (_, log) = Talk::of(with(source(None, None)), options());
    assert_eq!(log, ["connect [2606:4700::1]:25"], "the kernel chooses");
}

#[test]
fn a_source_that_cannot_be_used_is_trouble_of_this_machine() {
    let hosts: [(u16, &[&str]); 2] = [(10, &["1.1.1.1"]), (20, &["2.2.2.2"])];
    let with = |source| Opening { source, ..opening(&hosts) };
    let (_, log) = Talk::of(with(source(None, Some("2001:db8::1"))), options());
    assert_eq!(log, ["local 451 4.3.0 source a has no address to reach any of the hosts from"]);
    let (mut talk, _) = Talk::of(with(source(Some("192.0.2.1"), None)), options());
    let log = talk.not_connected(ConnectError::Source);
    assert_eq!(log, ["local 451 4.3.0 source a: 192.0.2.1 is not an address of this machine"]);
}

#[test]
fn an_address_with_no_room_is_passed_over_for_its_equals() {
    let hosts: [(u16, &[&str]); 3] =
        [(10, &["1.1.1.1", "1.1.1.2"]), (10, &["2.2.2.2"]), (20, &["3.3.3.3"])];
    let (mut talk, _) = Talk::of(opening(&hosts), options());
    assert_eq!(talk.gets(letter(1, 1)), [""; 0]);
    assert_eq!(talk.busy(), ["connect 1.1.1.2:25"]);
    assert_eq!(talk.busy(), ["connect 2.2.2.2:25"]);
    assert_eq!(talk.busy(), ["1 not tried", "busy 1.1.1.1"], "no worse host while these work");
    // What was tried and failed says more.
    let (mut talk, _) = Talk::of(opening(&hosts), options());
    talk.busy();
    assert_eq!(talk.not_connected(ConnectError::TimedOut), [""; 0]);
    assert_eq!(talk.waits(SECOND), ["connect 2.2.2.2:25"]);
    let unreachable = "unreachable 451 4.4.2 mx0[1.1.1.2]: connection timed out";
    assert_eq!(talk.busy(), [unreachable]);
    // Once connected, an answer that comes too late changes nothing.
    let mut talk = Talk::open(FULL);
    assert_eq!(talk.busy(), [""; 0]);
    assert_eq!(talk.gets(letter(1, 1)).len(), 1);
}

#[test]
fn where_connections_are_paced_each_after_the_first_is_asked_for() {
    let hosts: [(u16, &[&str]); 2] = [(10, &["1.1.1.1", "1.1.1.2"]), (10, &["2.2.2.2"])];
    let paced = || Opening { is_paced: true, ..opening(&hosts) };
    let (mut talk, log) = Talk::of(paced(), options());
    assert_eq!(log, ["connect 1.1.1.1:25"], "that one is paid for with its lease");
    assert_eq!(talk.not_connected(ConnectError::Refused), ["another"]);
    assert_eq!(talk.session.next_wakeup(), Mono::NEVER, "the owner answers in any case");
    talk.session.handle_leave(talk.now, true);
    assert_eq!(talk.log(), ["connect 1.1.1.2:25"]);
    // An address that is busy was not connected to: its leave is for the next.
    talk.session.handle_busy(talk.now);
    assert_eq!(talk.log(), ["connect 2.2.2.2:25"]);
    assert_eq!(
        talk.not_connected(ConnectError::Refused),
        ["unreachable 451 4.4.2 mx1[2.2.2.2]: connection refused"]
    );
}

#[test]
fn a_lease_without_leave_to_connect_again_ends_with_the_trouble_it_had() {
    let hosts: [(u16, &[&str]); 2] = [(10, &["1.1.1.1"]), (20, &["2.2.2.2"])];
    let paced = || Opening { is_paced: true, ..opening(&hosts) };
    let (mut talk, _) = Talk::of(paced(), options());
    talk.not_connected(ConnectError::Refused);
    talk.session.handle_leave(talk.now, false);
    assert_eq!(talk.log(), ["unreachable 451 4.4.2 mx0[1.1.1.1]: connection refused"]);
    // One whose owner has no more for it does not connect at all.
    let (mut talk, _) = Talk::of(paced(), options());
    talk.not_connected(ConnectError::Refused);
    talk.session.handle_close(talk.now);
    talk.session.handle_leave(talk.now, true);
    assert_eq!(talk.log(), ["unreachable 451 4.4.2 mx0[1.1.1.1]: connection refused"]);
}
