//! The engine's side of the world: turns, their effects, the disk, notes and the resolver.

use std::sync::Arc;

use postrider_engine::model::connection::{ConnectError, ShardId};
use postrider_engine::model::message::MessageId;
use postrider_engine::model::route::Question;
use postrider_engine::shard::{Effect, Event, Fact, QuestionId, Shard, turn};

use super::{World, wrong};
use crate::sim::agenda::Due;
use crate::sim::bounds::Of;
use crate::sim::checkers::{Seen, Violation};
use crate::sim::clock::{MS, SECOND, US};
use crate::sim::ledger::parse_id;
use crate::sim::net::{Far, Lent, LinkId, Told, Word};
use crate::sim::spooled;
use crate::sim::trap::{Armed, Mode};

/// How long after its time an orderly stop may end: what was cut off then has to be seen off.
const STOP_GRACE: u64 = 120 * SECOND;
/// At one moment in so many others are slow to take a shard's notes, and it must not take up its backlog.
const HELD_BACK_ONE_IN: u64 = 3;

/// What is fetched ahead of time may be another's, or gone, when its turn comes.
fn look_ahead(shard: &Shard, events: &[Lent]) {
    let notes = events.iter().filter_map(|event| match event {
        Lent::Whole(Some(Event::Noted { note, .. })) => Some(note),
        _ => None,
    });
    shard.prefetch_notes(notes);
    shard.prefetch_replies(events.iter().filter_map(|event| match event {
        Lent::Bytes(conn, _) => Some(conn.slot),
        _ => None,
    }));
}

impl World {
    /// Puts a word into the inbox of a link's shard, if its run still lasts.
    pub(super) fn tell_shard(&mut self, link: LinkId, word: Word) {
        let (run, shard) = (self.net.link(link).run, self.net.link(link).shard);
        self.tell(run, shard, word);
    }

    pub(super) fn tell(&mut self, run: u32, shard: usize, word: Word) {
        let Some(engine) = self.engine.as_mut().filter(|engine| engine.run == run) else { return };
        engine.cores[shard].inbox.push_back(word);
        let soon = self.clock.at + self.scheduling.skewed(1, 50 * US);
        self.turn_at(shard, soon);
    }

    /// Makes sure that a shard takes a turn at this moment or before.
    pub(super) fn turn_at(&mut self, shard: usize, at: u64) {
        let Some(engine) = &mut self.engine else { return };
        let core = &mut engine.cores[shard];
        if at < core.turn_at {
            core.turn_at = at;
            self.agenda.add(at, Due::Turn { run: engine.run, shard });
        }
    }

    pub(super) fn turn(&mut self, run: u32, shard: usize) -> Result<(), Violation> {
        let (at, now) = (self.clock.at, self.clock.now());
        let Some(engine) = self.engine.as_mut().filter(|engine| engine.run == run) else {
            return Ok(());
        };
        let core = &mut engine.cores[shard];
        if core.turn_at != at {
            return Ok(());
        }
        core.turn_at = u64::MAX;
        let all = core.inbox.len().min(200);
        let some =
            if all > 1 && self.scheduling.one_in(4) { self.scheduling.length(1, all) } else { all };
        let words: Vec<Word> = core.inbox.drain(..some).collect();
        let is_late =
            |word: &Word| matches!(word, Word::Whole(Event::Noted { .. } | Event::Fetched { .. }));
        self.is_late_turn = words.iter().any(is_late);
        let mut told = Told::default();
        for word in words {
            self.resolve(shard, word, &mut told);
        }
        let Some(engine) = self.engine.as_mut() else { return Ok(()) };
        let core = &mut engine.cores[shard];
        core.is_quiet = false;
        core.shard.hold_back(at.is_multiple_of(HELD_BACK_ONE_IN));
        look_ahead(&core.shard, &told.events);
        let events = told.events.iter_mut().filter_map(|lent| lent.event());
        let wake = turn(&mut core.shard, now, events, &mut core.effects);
        let is_more = !core.inbox.is_empty();
        for link in &told.heard {
            self.heard(*link)?;
        }
        self.carry_out(shard)?;
        for link in &told.finishing {
            self.net.finish(&mut self.agenda, at, *link);
        }
        self.look_at_cells(false)?;
        let wake = self.clock.of_mono(wake);
        let soon = at + self.scheduling.skewed(US, 20 * US);
        self.turn_at(shard, if is_more { soon } else { wake.max(soon) });
        self.end_if_quiet()
    }

    /// Works a word out, now that its shard takes a turn.
    fn resolve(&mut self, shard: usize, word: Word, told: &mut Told) {
        let at = self.clock.at;
        let Word::Accept(link) = word else {
            return self.net.tell(&mut self.agenda, at, word, told);
        };
        let Some(engine) = &mut self.engine else { return };
        let Some(conn) = engine.cores[shard].shard.take_client_slot() else {
            return self.net.refuse(&mut self.agenda, at, link);
        };
        self.net.bind(link, conn);
        let client = match self.net.link(link).far {
            Far::Client(client) => u8::try_from(client).unwrap_or(0),
            Far::Rogue | Far::Host(_) => u8::MAX,
        };
        let peer = ([10, 200, 0, client], 40_000).into();
        let accepted = Event::Accepted { conn, listener: 0, peer };
        told.events.push(Lent::Whole(Some(accepted)));
        self.net.tell(&mut self.agenda, at, Word::Look(link), told);
    }

    fn carry_out(&mut self, shard: usize) -> Result<(), Violation> {
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let mut effects = std::mem::take(&mut engine.cores[shard].effects);
        let list = std::mem::take(&mut effects.list);
        if let Some(figures) = self.figures(list.len()) {
            self.see(&Seen::Figures(&figures))?;
        }
        self.check_acknowledged(shard, &list, &effects)?;
        for effect in list {
            self.effect(shard, effect, &effects.bytes)?;
            if self.engine.is_none() {
                break;
            }
        }
        effects.clear();
        if let Some(engine) = &mut self.engine {
            engine.cores[shard].effects = effects;
        }
        Ok(())
    }

    /// Every 250 for a message, before it goes out: the disk must hold it by now.
    fn check_acknowledged(
        &mut self,
        shard: usize,
        list: &[Effect],
        effects: &postrider_engine::shard::Effects,
    ) -> Result<(), Violation> {
        for effect in list {
            let Effect::Send { conn, span } = effect else { continue };
            let is_client = |link| matches!(self.net.link(link).far, Far::Client(_));
            if !self.net.of_conn(shard, *conn).is_some_and(is_client) {
                continue;
            }
            for line in effects.span(*span).split(|byte| *byte == b'\n') {
                let name = line.strip_prefix(b"250 2.0.0 Ok: queued as ");
                let name = name.and_then(|name| std::str::from_utf8(name).ok());
                let Some(id) = name.and_then(|name| parse_id(name.trim_end())) else { continue };
                self.acknowledged(id)?;
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, id: MessageId) -> Result<(), Violation> {
        let stored = spooled::find(&self.disk.files, id, &self.clock);
        if let Some(mail) = stored.as_ref().and_then(|one| self.ledger.mail_of_spooled(one)) {
            self.ledger.name(mail, id);
        }
        self.trace.say(self.clock.at, || format!("engine acknowledges {id}: {stored:?}"));
        let is_excused = self.is_rotten || self.rotten.contains(&id);
        let (at, run) = (self.clock.at, self.run);
        self.see(&Seen::Issued { id, stored: stored.as_ref(), is_excused, at, run })
    }

    fn effect(&mut self, shard: usize, effect: Effect, bytes: &[u8]) -> Result<(), Violation> {
        let at = self.clock.at;
        match effect {
            Effect::Send { conn, span } => {
                let text = &bytes[span.at as usize..(span.at + span.bytes) as usize];
                if let Some(link) = self.net.of_conn(shard, conn) {
                    self.sees_commands(link, text)?;
                }
                self.send(shard, conn, text);
            }
            Effect::SendSlice { conn, slice } => self.send(shard, conn, slice.bytes()),
            Effect::Reading { conn, on } => {
                if let Some(link) = self.net.of_conn(shard, conn) {
                    self.with_net(link, |net, _, _, words| net.core_reads(link, on, words))?;
                }
            }
            Effect::Secure { conn, .. } => {
                if let Some(link) = self.net.of_conn(shard, conn) {
                    self.net.core_secures(&mut self.agenda, at, link);
                }
            }
            Effect::Close { conn, how } => {
                if let Some(link) = self.net.of_conn(shard, conn) {
                    self.with_net(link, |net, agenda, at, words| {
                        net.core_closes(agenda, at, link, how, words);
                    })?;
                }
            }
            Effect::Connect { conn, to, by, from } => {
                let link = self.connect(shard, conn, to, by);
                self.bind_source(link, from.map(|ip| *ip));
                return self.begins(link, Of::Connections, None);
            }
            Effect::Commit { commit, file, offset, block } => {
                self.trace.note(at, "commit", block.bytes());
                let faults = self.calm_since.is_none().then_some(&self.options.faults);
                let (write, takes) = self.disk.write(commit, file, offset, block, faults);
                self.agenda.add(at + takes, Due::Written { run: self.run, shard, write });
                return self.asked_to_write(write);
            }
            Effect::Fetch { read, file, offset, bytes } => {
                let (read, takes) = self.disk.read(read, file, offset, bytes);
                self.agenda.add(at + takes, Due::Read { run: self.run, shard, read });
                return self.asked_to_read(read);
            }
            Effect::PrepareSegment => {
                self.quiet.segment_asked_for();
                let takes = self.fault_chance.skewed(100 * US, SECOND);
                self.agenda.add(at + takes, Due::Segment { run: self.run, shard });
                return self.asked_for_file(shard);
            }
            Effect::Resolve { question, what } => self.ask(shard, question, *what),
            Effect::Tell { to, note } => self.send_note(shard, to, note),
            Effect::Answer { asked, answer } => return self.answer_comes(asked, *answer),
            Effect::Report(fact) => return self.reported(&fact),
            Effect::Stopped => {
                if let Some(engine) = &mut self.engine {
                    engine.cores[shard].is_quiet = true;
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, shard: usize, conn: postrider_engine::model::connection::Conn, text: &[u8]) {
        let at = self.clock.at;
        let Some(link) = self.net.of_conn(shard, conn) else { return };
        self.trace.note(at, "send", text);
        self.trace.say(at, || format!("{link:?} core says {:?}", shown(text)));
        self.net.core_sends(&mut self.agenda, at, link, text);
    }

    fn connect(
        &mut self,
        shard: usize,
        conn: postrider_engine::model::connection::Conn,
        to: std::net::SocketAddr,
        by: postrider_engine::base::time::Mono,
    ) -> LinkId {
        let (at, by) = (self.clock.at, self.clock.of_mono(by));
        let mut hosts = self.options.groups.iter().flat_map(|group| group.sites.iter().flatten());
        let Some(host) = hosts.position(|host| host.ip == to.ip()) else {
            unreachable!("the engine connects to {to}, which is nobody's");
        };
        let manners = &self.hosts[host].manners;
        let (refuses, ignores) =
            if self.is_calm() { (0, 0) } else { (manners.refuses, manners.ignores) };
        let fate = if self.host_chance.permille(refuses) {
            Err(ConnectError::Refused)
        } else if self.host_chance.permille(ignores) {
            Err(ConnectError::TimedOut)
        } else {
            Ok(())
        };
        let ends = (shard, conn, host);
        let link = self.net.dial_out(&mut self.agenda, at, ends, self.run, fate, by);
        self.trace.say(at, || format!("{link:?} core {shard} connects to host {host}: {fate:?}"));
        link
    }

    fn send_note(&mut self, shard: usize, to: ShardId, note: postrider_engine::model::note::Note) {
        let takes = self.scheduling.skewed(100, 2 * MS);
        let Some(engine) = &mut self.engine else { return };
        let to = usize::from(to.0);
        let pair = shard * engine.cores.len() + to;
        let (notes, last) = &mut engine.notes[pair];
        *last = (self.clock.at + takes).max(*last + 1);
        notes.push_back(note);
        self.agenda.add(*last, Due::Note { run: engine.run, from: shard, to });
    }

    pub(super) fn note_arrives(&mut self, run: u32, from: usize, to: usize) {
        let Some(engine) = self.engine.as_mut().filter(|engine| engine.run == run) else { return };
        let pair = from * engine.cores.len() + to;
        let Some(note) = engine.notes[pair].0.pop_front() else { return };
        self.trace.say(self.clock.at, || format!("core {from} to {to}: {}", brief(&note)));
        let from = ShardId(u16::try_from(from).unwrap_or(0));
        self.tell(run, to, Word::Whole(Event::Noted { from, note }));
    }

    pub(super) fn written(&mut self, run: u32, shard: usize, write: u64) -> Result<(), Violation> {
        let end = self.traps.springs(Armed::Write(write));
        if end == Some(Mode::Torn) {
            self.disk.leave_torn(write);
            return self.end(false, true);
        }
        let Some((commit, result)) = self.disk.written(write) else { return Ok(()) };
        if end.is_some() {
            return self.end(false, true);
        }
        if let Err(error) = result {
            self.trace.say(self.clock.at, || format!("write of core {shard} fails: {error:?}"));
        }
        self.tell(run, shard, Word::Whole(Event::Committed { commit, result }));
        Ok(())
    }

    pub(super) fn fetched(&mut self, run: u32, shard: usize, read: u64) -> Result<(), Violation> {
        let faults = self.calm_since.is_none().then_some(&self.options.faults);
        if self.traps.springs(Armed::Read(read)).is_some() {
            return self.end(false, true);
        }
        let Some((read, result)) = self.disk.fetched(read, faults) else { return Ok(()) };
        if result.is_err() {
            self.trace.say(self.clock.at, || format!("read of core {shard} fails"));
            self.see(&Seen::ReadFailed)?;
        }
        self.tell(run, shard, Word::Whole(Event::Fetched { read, result }));
        Ok(())
    }

    pub(super) fn segment_made(&mut self, run: u32, shard: usize) -> Result<(), Violation> {
        let files_max = if self.is_calm() { None } else { self.options.faults.files_max };
        let (bytes, wall) = (self.options.segment_bytes, self.clock.now().wall);
        // A process that ends while it makes a file may or may not have made it.
        if run != self.run && self.fault_chance.one_in(2) {
            return Ok(());
        }
        let id = ShardId(u16::try_from(shard).unwrap_or(0));
        if run != self.run && self.engine.is_some() {
            return Ok(());
        }
        let end = self.traps.springs(Armed::NewFile(shard));
        let fails = end == Some(Mode::Fails);
        let made = self.disk.make(bytes, id, wall, if fails { Some(0) } else { files_max });
        if run == self.run && self.engine.is_some() {
            self.quiet.segment_made(shard, made.is_ok());
        }
        self.trace.say(self.clock.at, || format!("segment for core {shard}: {made:?}"));
        if end.is_some() && !fails {
            return self.end(false, true);
        }
        self.tell(run, shard, Word::Whole(Event::SegmentReady(made)));
        Ok(())
    }

    pub(super) fn recovered(&mut self, run: u32, shard: usize) {
        let Some(engine) = self.engine.as_mut().filter(|engine| engine.run == run) else { return };
        if let Some(recovered) = engine.cores[shard].recovered.take() {
            self.tell(run, shard, Word::Whole(recovered));
        }
    }

    fn ask(&mut self, shard: usize, question: QuestionId, what: Question) {
        let domain = match what {
            Question::MailHosts(domain) | Question::Host(domain) => domain,
        };
        let at = self.clock.at + self.names.delay();
        let (run, question) = (self.run, question.0);
        self.agenda.add(at, Due::Answer { run, shard, question, domain });
    }

    pub(super) fn answered(&mut self, run: u32, shard: usize, question: u32, domain: &str) {
        let answer = Arc::new(self.names.answer(domain, &self.options.groups));
        self.trace.say(self.clock.at, || format!("{domain} is {answer:?}"));
        let question = QuestionId(question);
        self.tell(run, shard, Word::Whole(Event::Resolved { question, answer }));
    }

    fn reported(&mut self, fact: &Fact) -> Result<(), Violation> {
        self.trace.say(self.clock.at, || format!("engine reports {fact:?}"));
        let mut about = Vec::new();
        match fact {
            Fact::MessageSetAside { message, .. } => {
                self.is_something_aside = true;
                // What was damaged stays so: only a read that was refused goes well another time.
                let is_rotten = parse_id(message).is_some_and(|id| self.rotten.contains(&id));
                if self.is_calm() && !is_rotten {
                    self.agenda.add(self.clock.at + SECOND, Due::LastStop);
                }
            }
            Fact::DoubleBounce { message, .. } => {
                let found = parse_id(message)
                    .and_then(|id| spooled::find(&self.disk.files, id, &self.clock));
                about = found.map(|found| found.reports).unwrap_or_default();
            }
            _ => {}
        }
        self.see(&Seen::Told { fact, about: &about })
    }

    /// After a stop: the process ends once nothing moves, and that must come.
    fn end_if_quiet(&mut self) -> Result<(), Violation> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let Some(by) = engine.stop_by else { return Ok(()) };
        if engine.is_quiet() {
            if self.disk.writes_in_flight() > 0 {
                return Err(wrong("stops in order", "quiet with writes in flight".to_owned()));
            }
            return self.end(true, false);
        }
        if self.clock.at > by + STOP_GRACE {
            return Err(wrong("stops in order", "not quiet long after its time".to_owned()));
        }
        Ok(())
    }
}

/// Text of the wire, as far as a reader needs it.
pub(super) fn shown(text: &[u8]) -> String {
    let cut = text.len().min(100);
    String::from_utf8_lossy(&text[..cut]).into_owned()
}

fn brief(note: &postrider_engine::model::note::Note) -> String {
    let mut text = format!("{note:?}");
    text.truncate(300);
    text
}
