//! What the driver tells a shard of its connections: noted when it happens, worked out when the
//! shard takes its turn.

use std::collections::VecDeque;

use postrider_engine::model::connection::{Conn, ConnectError, End, TlsError, TlsFacts};
use postrider_engine::shard::Event;

use super::{LinkId, Net, Phase, PipeEnd, Transport};
use crate::sim::agenda::Agenda;

/// Receive buffers of the driver: what one `Received` may bring.
const RECEIVE_BYTES: usize = 8192;

/// What a shard will be told, to be worked out when it takes its turn.
#[derive(Debug)]
pub enum Word {
    Accept(LinkId),
    /// Something arrived.
    Look(LinkId),
    Connected(LinkId, Result<(), ConnectError>),
    Drained(LinkId),
    Secured(LinkId, Result<(), ()>),
    Ended(LinkId, End),
    Retired(LinkId),
    Whole(Event<'static>),
}

/// What a shard is told now.
#[derive(Debug)]
pub enum Lent {
    Bytes(Conn, Vec<u8>),
    Whole(Option<Event<'static>>),
}

impl Lent {
    pub fn event(&mut self) -> Option<Event<'_>> {
        match self {
            Self::Bytes(conn, bytes) => Some(Event::Received { conn: *conn, bytes }),
            Self::Whole(event) => event.take(),
        }
    }
}

/// What a turn told a shard, and what is to be done after it.
#[derive(Debug, Default)]
pub struct Told {
    pub events: Vec<Lent>,
    pub finishing: Vec<LinkId>,
    /// Links of which bytes were told.
    pub heard: Vec<LinkId>,
}

impl Net {
    /// Works a word out for a shard whose turn it is. `ended`: links to be finished afterwards.
    pub fn tell(&mut self, agenda: &mut Agenda, at: u64, word: Word, told: &mut Told) {
        match word {
            Word::Accept(_) => unreachable!("accepting needs a slot first"),
            Word::Look(link) => self.look(agenda, at, link, told),
            Word::Connected(link, result) => {
                let state = &mut self.links[link.0];
                let Some(conn) = state.conn else { return };
                let was_connecting = state.phase == Phase::Connecting;
                told.events.push(Lent::Whole(Some(Event::Connected { conn, result })));
                if was_connecting && result.is_ok() {
                    state.phase = Phase::Open;
                    self.look(agenda, at, link, told);
                } else if was_connecting {
                    self.begin_closing(agenda, at, link, PipeEnd::Reset);
                }
            }
            Word::Drained(link) => {
                let state = &self.links[link.0];
                if let (Phase::Open, Some(conn)) = (state.phase, state.conn) {
                    told.events.push(Lent::Whole(Some(Event::Drained { conn })));
                }
            }
            Word::Secured(link, result) => {
                let Some(conn) = self.links[link.0].conn else { return };
                let facts = TlsFacts { version: "TLSv1.3", cipher: "TLS13_AES_256_GCM_SHA384" };
                let result = result.map(|()| facts).map_err(|()| TlsError("bad record".into()));
                told.events.push(Lent::Whole(Some(Event::Secured { conn, result })));
            }
            Word::Ended(link, how) => {
                let Some(conn) = self.links[link.0].conn else { return };
                told.events.push(Lent::Whole(Some(Event::Ended { conn, how })));
            }
            Word::Retired(link) => self.retire(link, told),
            Word::Whole(event) => told.events.push(Lent::Whole(Some(event))),
        }
    }

    fn retire(&mut self, link: LinkId, told: &mut Told) {
        let state = &mut self.links[link.0];
        let Some(conn) = state.conn.take() else { return };
        state.phase = Phase::Gone;
        state.up.bytes = VecDeque::new();
        self.by_conn.remove(&(state.shard, conn.slot, conn.generation));
        told.events.push(Lent::Whole(Some(Event::Retired { conn })));
    }

    fn look(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, told: &mut Told) {
        let state = &mut self.links[link.0];
        let Some(conn) = state.conn else { return };
        match state.phase {
            Phase::Open if !state.is_reading && state.arrived.is_empty() && state.has_ended => {
                self.end(agenda, at, link, told);
            }
            Phase::Open if !state.is_reading => {}
            Phase::Open => {
                while !state.arrived.is_empty() {
                    let len = state.arrived.len().min(RECEIVE_BYTES);
                    let bytes: Vec<u8> = state.arrived.drain(..len).collect();
                    state.heard += bytes.len() as u64;
                    if matches!(state.transport, Transport::Plain | Transport::Tls) {
                        told.heard.push(link);
                        told.events.push(Lent::Bytes(conn, bytes));
                    }
                }
                if state.has_ended {
                    self.end(agenda, at, link, told);
                }
            }
            Phase::Draining | Phase::Lingering => {
                state.arrived.clear();
                if state.has_ended {
                    self.end(agenda, at, link, told);
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, agenda: &mut Agenda, at: u64, link: LinkId, told: &mut Told) {
        let state = &mut self.links[link.0];
        let Some(conn) = state.conn else { return };
        let how = End::ByPeer;
        told.events.push(Lent::Whole(Some(Event::Ended { conn, how })));
        if state.phase != Phase::Lingering && !state.is_broken {
            state.phase = Phase::Finishing;
            told.finishing.push(link);
        } else {
            self.begin_closing(agenda, at, link, PipeEnd::Fin);
        }
    }
}
