//! Accepting: a multishot accept on every listener, re-armed whenever it ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use socket2::SockRef;

use super::driver::{Core, Driver};
use super::socket::Phase;
use super::submit::Completion;
use super::token::{Op, Token};
use crate::base::time::Mono;
use crate::shard::Event;

/// How long accepting pauses when descriptors or memory run out: closing connections frees them,
/// and asking again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Listener {
    /// None once accepting has stopped for good.
    fd: Option<OwnedFd>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Accepting,
    Paused {
        until: Mono,
    },
    /// The cancel is under way.
    Stopping,
}

impl Listener {
    /// Accepted connections inherit the listener's TCP_NODELAY: no call per connection.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        SockRef::from(&fd).set_tcp_nodelay(true)?;
        Ok(Self { fd: Some(fd), state: State::Idle })
    }

    pub(super) fn paused_until(&self) -> Option<Mono> {
        match self.state {
            State::Paused { until } => Some(until),
            _ => None,
        }
    }
}

impl Driver {
    /// Starts accepting on all listeners.
    pub(crate) fn start_accepting(&mut self) {
        for index in 0..self.listeners.len() {
            if self.listeners[index].state == State::Idle {
                self.arm_accept(index);
            }
        }
    }

    /// Stops accepting for good and closes the listeners. Connections the kernel has already
    /// accepted still reach the core.
    pub(crate) fn stop_accepting(&mut self) {
        for index in 0..self.listeners.len() {
            if self.listeners[index].state == State::Accepting {
                self.ring.cancel(accept_token(index), Token::new(Op::Aside, 0));
                self.listeners[index].state = State::Stopping;
            } else if self.listeners[index].state != State::Stopping {
                self.listeners[index] = Listener { fd: None, state: State::Idle };
            }
        }
    }

    pub(super) fn resume_accepting(&mut self) {
        for index in 0..self.listeners.len() {
            if self.listeners[index].paused_until().is_some_and(|until| until <= self.now) {
                self.arm_accept(index);
            }
        }
    }

    pub(super) fn handle_accepted(&mut self, core: &mut impl Core, completion: Completion) {
        let (index, result, more) =
            (completion.token.slot as usize, completion.result, completion.more());
        if let Some(fd) = completion.accepted() {
            self.admit(core, index, fd);
        }
        if more {
            return;
        }
        match self.listeners[index].state {
            State::Stopping => self.listeners[index] = Listener { fd: None, state: State::Idle },
            _ if lacks_resources(-result) => {
                self.counters.accept_pauses += 1;
                let until = self.now.plus(ACCEPT_PAUSE);
                self.listeners[index].state = State::Paused { until };
            }
            _ => self.arm_accept(index),
        }
    }

    fn admit(&mut self, core: &mut impl Core, index: usize, fd: OwnedFd) {
        // A peer that has already reset has no address any more: nobody to talk to.
        let Some(peer) = SockRef::from(&fd).peer_addr().ok().and_then(|peer| peer.as_socket())
        else {
            return;
        };
        let Some(conn) = core.take_slot() else {
            self.counters.refused += 1;
            return;
        };
        self.counters.accepted += 1;
        self.take_up(conn, Phase::Open, Some(fd));
        self.arm_receive(conn);
        let listener = u16::try_from(index).expect("listeners are few");
        self.ready.push_back(Event::Accepted { conn, listener, peer });
    }

    fn arm_accept(&mut self, index: usize) {
        let Some(fd) = &self.listeners[index].fd else {
            return;
        };
        self.ring.accept(fd.as_fd(), accept_token(index));
        self.listeners[index].state = State::Accepting;
    }
}

fn accept_token(index: usize) -> Token {
    Token::new(Op::Accept, u32::try_from(index).expect("listeners are few"))
}

fn lacks_resources(errno: i32) -> bool {
    matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
}
