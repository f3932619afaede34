//! The TLS seam, with a toy cipher whose records must be opened in the order they were sealed.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::super::{Handshakes, Step, TlsStream};
use super::world::{Seen, World, invalid, pattern, small};
use crate::base::block::BlockBuilder;
use crate::model::connection::{Close, Conn, End, TlsError, TlsFacts};
use crate::model::message::Slice;
use crate::shard::Effect;

/// A record is its length, its number and its bytes, each turned over by the number.
#[derive(Default)]
struct Toy {
    sealed: u8,
    opened: u8,
    wire: Vec<u8>,
}

const RECORD_MAX: usize = 1000;

impl Toy {
    fn record(&mut self, plain: &[u8], wire: &mut Vec<u8>) {
        wire.extend_from_slice(&u16::try_from(plain.len()).unwrap().to_be_bytes());
        wire.push(self.sealed);
        wire.extend(plain.iter().map(|byte| byte ^ self.sealed));
        self.sealed = self.sealed.wrapping_add(1);
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>, TlsError> {
        let Some([high, low, number]) = self.wire.first_chunk().copied() else {
            return Ok(None);
        };
        let end = 3 + usize::from(u16::from_be_bytes([high, low]));
        if number != self.opened {
            return Err(TlsError("out of order".into()));
        }
        if self.wire.len() < end {
            return Ok(None);
        }
        self.opened = self.opened.wrapping_add(1);
        Ok(Some(self.wire.drain(..end).skip(3).map(|byte| byte ^ number).collect()))
    }
}

impl TlsStream for Toy {
    fn open(
        &mut self,
        wire: &[u8],
        plain: &mut dyn FnMut(&[u8]),
        answer: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        self.wire.extend_from_slice(wire);
        while let Some(record) = self.next()? {
            if record == b"update your key" {
                self.record(b"updated", answer);
            } else {
                plain(&record);
            }
        }
        Ok(())
    }

    fn seal(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), TlsError> {
        plain.chunks(RECORD_MAX).for_each(|part| self.record(part, wire));
        Ok(())
    }

    fn close(&mut self, wire: &mut Vec<u8>) {
        self.record(b"", wire);
    }
}

/// We say HELLO, the peer says WELCOME or anything else.
#[derive(Default)]
struct ToyHandshakes {
    steps: VecDeque<(Conn, Step)>,
    heard: Vec<u8>,
}

impl Handshakes for ToyHandshakes {
    fn start(&mut self, conn: Conn, name: &str) {
        self.steps.push_back((conn, Step::Send(format!("HELLO {name}\n").into_bytes())));
    }

    fn feed(&mut self, conn: Conn, wire: &[u8]) -> Result<(), TlsError> {
        self.heard.extend_from_slice(wire);
        let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') else {
            return Ok(());
        };
        if &self.heard[..end] != b"WELCOME" {
            return Err(TlsError("no welcome".into()));
        }
        let behind = self.heard.split_off(end + 1);
        let stream = Box::new(Toy { wire: behind, ..Toy::default() });
        self.steps.push_back((conn, Step::Send(b"FINISHED\n".to_vec())));
        self.steps
            .push_back((conn, Step::Done(stream, TlsFacts { version: "toy", cipher: "none" })));
        Ok(())
    }

    fn cancel(&mut self, conn: Conn) {
        self.steps.retain(|(of, _)| *of != conn);
    }

    fn poll(&mut self) -> Option<(Conn, Step)> {
        self.steps.pop_front()
    }
}

/// The peer's side of a toy connection.
struct ToyPeer {
    stream: TcpStream,
    toy: Toy,
}

impl ToyPeer {
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while byte != [b'\n'] {
            self.stream.read_exact(&mut byte).unwrap();
            line.extend(byte);
        }
        String::from_utf8(line).unwrap()
    }

    /// Reads `bytes` of plaintext, or what comes until the closing notice.
    fn read(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut part = vec![0; 50_000];
        loop {
            while let Some(record) = self.toy.next().map_err(|_| invalid())? {
                all.extend_from_slice(&record);
                if record.is_empty() || all.len() >= bytes {
                    return Ok(all);
                }
            }
            let read = self.stream.read(&mut part)?;
            if read == 0 {
                return Err(invalid());
            }
            self.toy.wire.extend_from_slice(&part[..read]);
        }
    }

    fn write(&mut self, plain: &[u8]) {
        let mut wire = Vec::new();
        self.toy.record(plain, &mut wire);
        self.stream.write_all(&wire).unwrap();
    }
}

/// A world with one connection out, asked to be secured, and its peer.
fn start() -> (World, Conn, ToyPeer) {
    let mut world = World::secured(small(), Box::new(ToyHandshakes::default()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let conn = world.connect(listener.local_addr().unwrap(), Duration::from_secs(1));
    world.until(|world| world.saw(&Seen::Connected(conn, Ok(()))));
    let (stream, _) = listener.accept().unwrap();
    world.perform(Effect::Secure { conn, name: "mx.example".into() });
    (world, conn, ToyPeer { stream, toy: Toy::default() })
}

#[test]
fn plaintext_goes_both_ways_through_a_handshake() {
    let (mut world, conn, mut peer) = start();
    let content = pattern(2 << 20);
    let expected = content.clone();
    let other = thread::spawn(move || {
        assert_eq!(peer.line(), "HELLO mx.example\n");
        // The first record comes right behind the handshake.
        peer.stream.write_all(b"WELCOME\n").unwrap();
        peer.write(b"220 hello\r\n");
        assert_eq!(peer.line(), "FINISHED\n");
        assert!(peer.read(2 << 20).unwrap() == expected, "content differs");
        peer.write(b"update your key");
        assert_eq!(peer.read(7).unwrap(), b"updated");
        peer.write(b"250 ok\r\n");
        assert_eq!(peer.read(100).unwrap(), b"");
    });
    world.until(|world| world.bytes_of(conn) == b"220 hello\r\n");
    assert!(world.saw(&Seen::Secured(conn, Ok("toy"))));
    let mut builder = BlockBuilder::with_capacity(content.len());
    builder.append(&content[5..]);
    let slice =
        Slice { block: builder.freeze(), at: 0, bytes: u32::try_from(content.len() - 5).unwrap() };
    world.send(conn, &content[..5]);
    world.send_slice(conn, slice);
    world.until(|world| world.bytes_of(conn).ends_with(b"250 ok\r\n"));
    assert_eq!(world.count(|seen| *seen == Seen::Drained(conn)), 1);
    world.close(conn, Close::Graceful);
    world.until(|world| world.saw(&Seen::Retired(conn)));
    other.join().unwrap();
    assert!(world.saw(&Seen::Ended(conn, End::ByPeer)));
    world.check_at_rest(64);
}

#[test]
fn a_failed_handshake_is_told_and_leaves_the_connection_mute() {
    let (mut world, conn, mut peer) = start();
    peer.stream.write_all(b"GO AWAY\n").unwrap();
    world.until(|world| world.count(|seen| matches!(seen, Seen::Secured(_, Err(_)))) == 1);
    world.send(conn, b"in the clear");
    world.close(conn, Close::Graceful);
    world.turn();
    let mut heard = Vec::new();
    world.run_for(Duration::from_millis(20));
    peer.stream.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"HELLO mx.example\n");
    drop(peer);
    world.until(|world| world.saw(&Seen::Retired(conn)));
    world.check_at_rest(64);
}

#[test]
fn a_peer_that_leaves_amid_the_handshake_ends_the_connection() {
    let (mut world, conn, peer) = start();
    drop(peer);
    world.until(|world| world.saw(&Seen::Retired(conn)));
    assert!(world.saw(&Seen::Ended(conn, End::ByPeer)));
    world.check_at_rest(64);
}

#[test]
fn records_that_do_not_open_end_the_connection() {
    let (mut world, conn, mut peer) = start();
    peer.stream.write_all(b"WELCOME\n\0\x01\x09x").unwrap();
    world.until(|world| world.saw(&Seen::Retired(conn)));
    assert!(world.saw(&Seen::Secured(conn, Ok("toy"))));
    assert!(world.saw(&Seen::Ended(conn, End::Unknown)));
    world.check_at_rest(64);
}

#[test]
fn nothing_leaves_in_the_clear_while_a_handshake_runs() {
    let (mut world, conn, mut peer) = start();
    world.run_for(Duration::from_millis(20));
    world.send(conn, b"secret");
    world.until(|world| world.saw(&Seen::Retired(conn)));
    let mut heard = Vec::new();
    // A reset may swallow what was not read.
    drop(peer.stream.read_to_end(&mut heard));
    assert!(!heard.ends_with(b"secret"));
    world.check_order();
}
