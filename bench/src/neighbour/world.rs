//! Virtual time between one sender and one receiver: the network, both clocks, what each side sees.
//!
//! ```text
//! arrivals -> Sender --order--> World --half a round trip--> Receiver
//!                  <--heard---        <----its own time-----
//! ```
//! A connection has at most one event under way, so nothing can be late for a connection that is gone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use postrider_engine::base::time::Mono;

use super::arrivals::Arrivals;
use super::receiver::{Answer, Greeting, Receiver};
use super::tally::Tally;

/// When every run begins: not zero, so that "long ago" exists.
pub(crate) const START: Mono = Mono(1_000_000_000_000);
/// Both senders give up on a connect after this long (`smtp_connect_timeout`, `connect`).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A receiver is this far away.
pub(crate) const ROUND_TRIP: Duration = Duration::from_millis(20);

/// A message to one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mail {
    pub(crate) number: u32,
    pub(crate) arrival: Mono,
    pub(crate) domain: u16,
    pub(crate) tenant: u16,
    pub(crate) class: Class,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Bulk,
    Transactional,
}

/// What a sender asks of the network; it names its connections itself, and uses a number again only
/// once it has heard that the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Connect {
        conn: u32,
    },
    Give {
        conn: u32,
        mail: u32,
    },
    /// Once everything given was answered.
    Close {
        conn: u32,
    },
}

impl Order {
    pub(crate) fn conn(self) -> u32 {
        match self {
            Self::Connect { conn } | Self::Give { conn, .. } | Self::Close { conn } => conn,
        }
    }
}

/// What a sender hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It can take mail.
    Opened {
        conn: u32,
        /// From the connection to the greeting.
        greeting: Duration,
    },
    Answered {
        conn: u32,
        mail: u32,
        answer: Answer,
        /// From the end of the message to the answer.
        took: Duration,
    },
    /// Given to a connection that ended before its turn.
    Untried { conn: u32, mail: u32 },
    /// The last word about a connection.
    Ended { conn: u32, how: Ending },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// Closed by us, or by the receiver after an answer that said why.
    Finished,
    /// 421 in place of a greeting.
    TurnedAway,
    Refused,
    /// The connect timed out.
    Silent,
    /// Cut off in the middle.
    Lost,
}

/// A scheduler that is judged.
pub(crate) trait Sender {
    fn handle_mail(&mut self, now: Mono, mail: &Mail);
    fn handle_heard(&mut self, now: Mono, heard: Heard);
    fn handle_time(&mut self, now: Mono);
    /// To be polled until `None` after every event.
    fn poll_order(&mut self) -> Option<Order>;
    fn next_wakeup(&self) -> Option<Mono>;
    /// Round trips that a message costs on a connection that is open.
    fn round_trips(&self) -> u32;
    /// Messages that it will not try again though nobody took them.
    fn given_up(&self) -> u64;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Our SYN reaches the receiver.
    Connecting(u32),
    /// The receiver's EHLO reply reaches us.
    Opened(u32, Duration),
    /// A message reaches the receiver.
    Offered(u32),
    /// Its answer reaches us.
    Answered(u32, Answer, Duration),
    /// Our end reaches the receiver.
    Leaving(u32),
    /// We know that the connection is gone.
    Gone(u32, Ending),
}

/// A connection between order and end.
#[derive(Debug, Default)]
struct Line {
    given: VecDeque<u32>,
    /// Messages answered so far.
    answered: u32,
    state: State,
    close_wanted: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Opening,
    Idle,
    Busy,
    Leaving,
}

/// One run.
pub(crate) struct World<'a> {
    now: Mono,
    sender: &'a mut dyn Sender,
    receiver: &'a mut dyn Receiver,
    arrivals: Arrivals,
    mails: Vec<Mail>,
    lines: Vec<Option<Line>>,
    events: BinaryHeap<Reverse<(Mono, u64, Event)>>,
    sequence: u64,
    tally: Tally,
}

impl<'a> World<'a> {
    pub(crate) fn new(
        sender: &'a mut dyn Sender,
        receiver: &'a mut dyn Receiver,
        arrivals: Arrivals,
        tally: Tally,
    ) -> Self {
        Self {
            now: START,
            sender,
            receiver,
            arrivals,
            mails: Vec::new(),
            lines: Vec::new(),
            events: BinaryHeap::new(),
            sequence: 0,
            tally,
        }
    }

    /// Runs until `end` and gives what was seen.
    pub(crate) fn run(mut self, end: Mono) -> Tally {
        while let Some(next) = self.next_moment().filter(|next| *next < end) {
            self.now = self.now.max(next);
            self.tally.pass_to(self.now, &*self.receiver);
            self.step();
            self.carry_out();
        }
        self.tally.pass_to(end, &*self.receiver);
        self.tally.end(end, self.sender.given_up())
    }

    fn next_moment(&self) -> Option<Mono> {
        let event = self.events.peek().map(|Reverse((at, ..))| *at);
        [event, self.arrivals.next(), self.sender.next_wakeup()].into_iter().flatten().min()
    }

    /// One thing that is due.
    fn step(&mut self) {
        if let Some(Reverse((at, _, event))) = self.events.peek().copied()
            && at <= self.now
        {
            self.events.pop();
            return self.happen(event);
        }
        if let Some(mail) = self.arrivals.take(self.now) {
            self.tally.arrived(&mail);
            self.mails.push(mail);
            return self.sender.handle_mail(self.now, &mail);
        }
        self.sender.handle_time(self.now);
    }

    fn carry_out(&mut self) {
        while let Some(order) = self.sender.poll_order() {
            match order {
                Order::Connect { conn } => self.connect(conn),
                Order::Give { conn, mail } => {
                    self.line(conn).given.push_back(mail);
                    self.offer(conn);
                }
                Order::Close { conn } => {
                    self.line(conn).close_wanted = true;
                    self.offer(conn);
                }
            }
        }
    }

    fn connect(&mut self, conn: u32) {
        let index = conn as usize;
        if self.lines.len() <= index {
            self.lines.resize_with(index + 1, || None);
        }
        assert!(self.lines[index].is_none(), "connection {conn} is opened twice");
        self.lines[index] = Some(Line::default());
        self.tally.connecting();
        self.after(ROUND_TRIP / 2, Event::Connecting(conn));
    }

    /// Lets an idle connection do what is next.
    fn offer(&mut self, conn: u32) {
        let more = ROUND_TRIP * (self.sender.round_trips() - 1);
        let line = self.line(conn);
        if line.state != State::Idle {
            return;
        }
        if line.given.is_empty() {
            if line.close_wanted {
                line.state = State::Leaving;
                self.after(ROUND_TRIP / 2, Event::Leaving(conn));
            }
            return;
        }
        line.state = State::Busy;
        self.after(ROUND_TRIP / 2 + more, Event::Offered(conn));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Connecting(conn) => self.greet(conn),
            Event::Opened(conn, greeting) => {
                self.line(conn).state = State::Idle;
                self.sender.handle_heard(self.now, Heard::Opened { conn, greeting });
                self.offer(conn);
            }
            Event::Offered(conn) => self.offered(conn),
            Event::Answered(conn, answer, took) => self.answered(conn, answer, took),
            Event::Leaving(conn) => {
                self.part();
                self.after(ROUND_TRIP / 2, Event::Gone(conn, Ending::Finished));
            }
            Event::Gone(conn, how) => self.gone(conn, how),
        }
    }

    fn greet(&mut self, conn: u32) {
        match self.receiver.greet(self.now) {
            Greeting::Welcome(wait) => {
                self.tally.opened();
                // The greeting comes to us, EHLO goes there, its reply comes back.
                self.after(wait + ROUND_TRIP * 3 / 2, Event::Opened(conn, wait));
            }
            Greeting::TurnedAway => self.fail(conn, ROUND_TRIP / 2, Ending::TurnedAway),
            Greeting::Refused => self.fail(conn, ROUND_TRIP / 2, Ending::Refused),
            Greeting::Silence => self.fail(conn, CONNECT_TIMEOUT, Ending::Silent),
        }
    }

    fn fail(&mut self, conn: u32, wait: Duration, how: Ending) {
        self.tally.refused();
        self.after(wait, Event::Gone(conn, how));
    }

    fn offered(&mut self, conn: u32) {
        let line = self.line(conn);
        let (number, before) = (line.given[0], line.answered);
        let mail = self.mails[number as usize];
        let (answer, wait) = self.receiver.take(self.now, &mail, before);
        self.tally.offered(self.now, &mail, answer);
        let took = wait + ROUND_TRIP;
        self.after(wait + ROUND_TRIP / 2, Event::Answered(conn, answer, took));
    }

    fn answered(&mut self, conn: u32, answer: Answer, took: Duration) {
        let line = self.line(conn);
        line.answered += 1;
        line.state = State::Idle;
        let mail = line.given.pop_front().unwrap_or_default();
        if answer == Answer::Taken {
            self.tally.delivered(self.now, &self.mails[mail as usize]);
        }
        self.sender.handle_heard(self.now, Heard::Answered { conn, mail, answer, took });
        match answer {
            Answer::Taken | Answer::Later => self.offer(conn),
            Answer::SlowDown => self.cut(conn, Ending::Finished),
            Answer::Lost => self.cut(conn, Ending::Lost),
        }
    }

    /// The receiver has closed.
    fn cut(&mut self, conn: u32, how: Ending) {
        self.part();
        self.gone(conn, how);
    }

    fn part(&mut self) {
        self.receiver.leave(self.now);
        self.tally.closed();
    }

    fn gone(&mut self, conn: u32, how: Ending) {
        let line = self.lines[conn as usize].take().unwrap_or_default();
        for mail in line.given {
            self.sender.handle_heard(self.now, Heard::Untried { conn, mail });
        }
        self.sender.handle_heard(self.now, Heard::Ended { conn, how });
    }

    fn line(&mut self, conn: u32) -> &mut Line {
        let line = self.lines.get_mut(conn as usize).and_then(Option::as_mut);
        line.unwrap_or_else(|| panic!("connection {conn} is not open"))
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((self.now.plus(wait), self.sequence, event)));
    }
}
