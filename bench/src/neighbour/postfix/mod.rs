//! Postfix as a sender: the queue manager with its active queue, its scans and its dead sites, and
//! the SMTP client with its connection cache. From `qmgr(8)`, `qmgr_active.c`, `qmgr_deliver.c`,
//! `qmgr_entry.c`, `qmgr_queue.c`, `smtp_connect.c`, `smtp_trouble.c`.
//!
//! ```text
//! incoming --.                 .-- todo --window--> smtp(8) --> done
//!             >-- active (20k) -'                      |
//! deferred --'<------ retry after its age, 300..4000 s -'
//! ```

mod window;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use postrider_engine::base::time::Mono;

use super::receiver::Answer;
use super::world::{Ending, Heard, Mail, Order, Sender};
use window::Window;
pub(crate) use window::{Feedback, Rounding};

/// `qmgr_message_active_limit`.
const ACTIVE_MAX: usize = 20_000;
/// `default_process_limit`: deliveries at once, all destinations together.
const PROCESSES_MAX: usize = 100;
/// `queue_run_delay`.
const SCAN_EVERY: Duration = Duration::from_secs(300);
/// `minimal_backoff_time`, also how long a dead destination is left alone.
const BACKOFF_MIN: Duration = Duration::from_secs(300);
/// `maximal_backoff_time`.
const BACKOFF_MAX: Duration = Duration::from_secs(4000);
/// `maximal_queue_lifetime`.
const LIFETIME: Duration = Duration::from_secs(5 * 24 * 3600);
/// `smtp_connection_cache_time_limit`.
const CACHED_FOR: Duration = Duration::from_secs(2);
/// `smtp_connection_reuse_time_limit`.
const REUSED_FOR: Duration = Duration::from_secs(300);
/// Deliveries that follow each other within this time are back to back (`qmgr_entry.c`).
const BACK_TO_BACK: Duration = Duration::from_secs(1);

pub(crate) struct Postfix {
    mails: Vec<Mail>,
    incoming: VecDeque<u32>,
    deferred: BinaryHeap<Reverse<(Mono, u32)>>,
    /// What the scan under way has still to bring in.
    scanned: VecDeque<u32>,
    next_scan: Mono,
    active: usize,
    busy: usize,
    /// Counts entries, so that the oldest job is found.
    entries: u64,
    sites: Vec<Site>,
    conns: Vec<Conn>,
    free: Vec<u32>,
    orders: VecDeque<Order>,
    given_up: u64,
}

/// A destination: for Postfix that is a domain, wherever its mail hosts are.
struct Site {
    window: Window,
    todo: VecDeque<(u64, u32)>,
    busy: u32,
    wakes: Option<Mono>,
    last_done: Option<Mono>,
    /// Whether sessions are to be kept (`DEL_REQ_FLAG_CONN_STORE`).
    keeps_sessions: bool,
    /// Idle sessions, with the end of their time.
    cached: VecDeque<(Mono, u32)>,
}

#[derive(Clone, Copy)]
struct Conn {
    site: usize,
    mail: Option<u32>,
    opened: Mono,
}

impl Postfix {
    /// `initial` and `limit`: `initial_destination_concurrency`, `default_destination_concurrency_limit`.
    pub(crate) fn new(
        now: Mono,
        domains: u16,
        (initial, limit): (u32, u32),
        (feedback, rounding): (Feedback, Rounding),
    ) -> Self {
        let site = |_| Site {
            window: Window::new(initial, limit, feedback, rounding),
            todo: VecDeque::new(),
            busy: 0,
            wakes: None,
            last_done: None,
            keeps_sessions: false,
            cached: VecDeque::new(),
        };
        Self {
            mails: Vec::new(),
            incoming: VecDeque::new(),
            deferred: BinaryHeap::new(),
            scanned: VecDeque::new(),
            next_scan: now.plus(SCAN_EVERY),
            active: 0,
            busy: 0,
            entries: 0,
            sites: (0..domains).map(site).collect(),
            conns: Vec::new(),
            free: Vec::new(),
            orders: VecDeque::new(),
            given_up: 0,
        }
    }

    /// Brings mail in and sends it out until neither is possible.
    fn turn(&mut self, now: Mono) {
        self.import(now);
        while self.busy < PROCESSES_MAX
            && let Some(site) = self.oldest_open()
        {
            self.start(now, site);
        }
    }

    /// Deferred and incoming mail take turns while the active queue has room.
    fn import(&mut self, now: Mono) {
        while self.active < ACTIVE_MAX {
            let (deferred, new) = (self.scanned.pop_front(), self.incoming.pop_front());
            if deferred.is_none() && new.is_none() {
                return;
            }
            for mail in [deferred, new].into_iter().flatten() {
                self.activate(now, mail);
            }
        }
    }

    /// Mail for a dead destination is deferred as soon as it is seen.
    fn activate(&mut self, now: Mono, mail: u32) {
        let site = usize::from(self.mails[mail as usize].domain);
        if self.sites[site].window.is_dead() {
            return self.defer(now, mail);
        }
        self.active += 1;
        self.entries += 1;
        self.sites[site].todo.push_back((self.entries, mail));
    }

    fn oldest_open(&self) -> Option<usize> {
        let open = self.sites.iter().enumerate().filter(|(_, site)| site.busy < site.window.size());
        let heads = open.filter_map(|(at, site)| site.todo.front().map(|head| (head.0, at)));
        heads.min().map(|(_, at)| at)
    }

    fn start(&mut self, now: Mono, at: usize) {
        let site = &mut self.sites[at];
        let Some((_, mail)) = site.todo.pop_front() else { return };
        site.busy += 1;
        site.decide_on_sessions(now);
        self.busy += 1;
        let conn = match self.sites[at].cached.pop_front() {
            Some((_, conn)) => conn,
            None => self.connect(now, at),
        };
        self.conns[conn as usize].mail = Some(mail);
        self.orders.push_back(Order::Give { conn, mail });
    }

    fn connect(&mut self, now: Mono, site: usize) -> u32 {
        let fresh = Conn { site, mail: None, opened: now };
        let conn = self.free.pop().unwrap_or_else(|| {
            self.conns.push(fresh);
            u32::try_from(self.conns.len() - 1).unwrap_or(u32::MAX)
        });
        self.conns[conn as usize] = fresh;
        self.orders.push_back(Order::Connect { conn });
        conn
    }

    /// The deferred queue: the older a message, the longer it waits.
    fn defer(&mut self, now: Mono, mail: u32) {
        let age = now.since(self.mails[mail as usize].arrival);
        if age < LIFETIME {
            self.deferred.push(Reverse((now.plus(age.clamp(BACKOFF_MIN, BACKOFF_MAX)), mail)));
        } else {
            self.given_up += 1;
        }
    }

    /// A delivery request has ended. `hop_failed`: the SMTP client blames the destination, which it
    /// does before MAIL and when a connection breaks, never for a reply to a command.
    fn finish(&mut self, now: Mono, conn: u32, hop_failed: bool) -> Option<u32> {
        let at = self.conns[conn as usize].site;
        let mail = self.conns[conn as usize].mail.take()?;
        let site = &mut self.sites[at];
        if hop_failed {
            if site.window.bad() {
                site.wakes = Some(now.plus(BACKOFF_MIN));
            }
        } else {
            site.window.good(site.busy);
            site.wakes = None;
        }
        site.busy -= 1;
        site.last_done = Some(now);
        self.busy -= 1;
        self.active -= 1;
        if self.sites[at].window.is_dead() {
            self.give_up(now, at);
        }
        Some(mail)
    }

    /// Everything in core for a dead destination goes to the deferred queue.
    fn give_up(&mut self, now: Mono, at: usize) {
        while let Some((_, mail)) = self.sites[at].todo.pop_front() {
            self.active -= 1;
            self.defer(now, mail);
        }
    }

    /// After a whole transaction: the session is kept, or left.
    fn keep_or_close(&mut self, now: Mono, conn: u32) {
        let Conn { site, opened, .. } = self.conns[conn as usize];
        let site = &mut self.sites[site];
        if site.keeps_sessions && now.since(opened) < REUSED_FOR {
            site.cached.push_back((now.plus(CACHED_FOR), conn));
        } else {
            self.orders.push_back(Order::Close { conn });
        }
    }

    fn answered(&mut self, now: Mono, conn: u32, answer: Answer) {
        let Some(mail) = self.finish(now, conn, answer == Answer::Lost) else { return };
        if answer != Answer::Taken {
            self.defer(now, mail);
        }
        if matches!(answer, Answer::Taken | Answer::Later) {
            self.keep_or_close(now, conn);
        }
    }

    fn ended(&mut self, now: Mono, conn: u32, how: Ending) {
        let site = self.conns[conn as usize].site;
        self.sites[site].cached.retain(|(_, cached)| *cached != conn);
        if let Some(mail) = self.finish(now, conn, how != Ending::Finished) {
            self.defer(now, mail);
        }
        self.free.push(conn);
    }

    fn scan(&mut self, now: Mono) {
        while let Some(Reverse((due, mail))) = self.deferred.peek().copied()
            && due <= now
        {
            self.deferred.pop();
            self.scanned.push_back(mail);
        }
        self.next_scan = now.plus(SCAN_EVERY);
    }

    fn drop_cached(&mut self, now: Mono) {
        for site in &mut self.sites {
            while let Some((end, conn)) = site.cached.front().copied()
                && end <= now
            {
                site.cached.pop_front();
                self.orders.push_back(Order::Close { conn });
            }
        }
    }
}

impl Site {
    fn decide_on_sessions(&mut self, now: Mono) {
        let back_to_back = self.last_done.is_some_and(|last| now.since(last) <= BACK_TO_BACK);
        if back_to_back {
            self.keeps_sessions = true;
        } else if self.busy <= 1 {
            self.keeps_sessions = false;
        }
    }
}

impl Sender for Postfix {
    fn handle_mail(&mut self, now: Mono, mail: &Mail) {
        self.mails.push(*mail);
        self.incoming.push_back(mail.number);
        self.turn(now);
    }

    fn handle_heard(&mut self, now: Mono, heard: Heard) {
        match heard {
            Heard::Answered { conn, answer, .. } => self.answered(now, conn, answer),
            // Its delivery ends with the connection.
            Heard::Opened { .. } | Heard::Untried { .. } => {}
            Heard::Ended { conn, how } => self.ended(now, conn, how),
        }
        self.turn(now);
    }

    fn handle_time(&mut self, now: Mono) {
        if self.next_scan <= now {
            self.scan(now);
        }
        for site in &mut self.sites {
            if site.wakes.is_some_and(|wakes| wakes <= now) {
                site.wakes = None;
                site.window.wake(site.busy);
            }
        }
        self.drop_cached(now);
        self.turn(now);
    }

    fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    fn next_wakeup(&self) -> Option<Mono> {
        let sites = self.sites.iter();
        let wakes = sites.flat_map(|site| [site.wakes, site.cached.front().map(|(end, _)| *end)]);
        wakes.flatten().chain([self.next_scan]).min()
    }

    /// The envelope in one flight, the body in another (command pipelining, but not across messages).
    fn round_trips(&self) -> u32 {
        2
    }

    fn given_up(&self) -> u64 {
        self.given_up
    }
}
