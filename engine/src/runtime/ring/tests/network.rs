//! Connections: echo, floods, slow peers, ends of every kind.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::super::DriverOptions;
use super::world::{Seen, World, now, pattern, small};
use crate::base::block::BlockBuilder;
use crate::model::connection::{Close, Conn, ConnectError, End};
use crate::model::message::Slice;
use crate::shard::Effect;

const SECOND: Duration = Duration::from_secs(1);

fn slices(bytes: &[u8], each: usize) -> Vec<Slice> {
    let mut builder = BlockBuilder::with_capacity(bytes.len());
    builder.append(bytes);
    let whole =
        Slice { block: builder.freeze(), at: 0, bytes: u32::try_from(bytes.len()).unwrap() };
    (0..bytes.len())
        .step_by(each)
        .map(|at| {
            whole.part(
                u32::try_from(at).unwrap(),
                u32::try_from(each.min(bytes.len() - at)).unwrap(),
            )
        })
        .collect()
}

/// Runs `count` peers, each on a thread of its own.
fn spawn(count: u32, peer: impl Fn(u32) + Clone + Send + 'static) -> Vec<JoinHandle<()>> {
    let start = |number| {
        let peer = peer.clone();
        thread::spawn(move || peer(number))
    };
    (0..count).map(start).collect()
}

fn join(peers: Vec<JoinHandle<()>>) {
    peers.into_iter().for_each(|peer| peer.join().unwrap());
}

fn reset_on_close(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn what_arrives_can_be_sent_back() {
    let mut world = World::new(small());
    world.core.echo = true;
    let mut peer = TcpStream::connect(world.address).unwrap();
    let conn = world.accept();
    peer.write_all(b"EHLO client\r\n").unwrap();
    world.until(|world| world.saw(&Seen::Drained(conn)));
    let mut answer = [0; 13];
    peer.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"EHLO client\r\n");
    drop(peer);
    world.until(|world| world.saw(&Seen::Retired(conn)));
    assert!(world.saw(&Seen::Ended(conn, End::ByPeer)));
    world.check_at_rest(64);
}

#[test]
fn a_thousand_connections_are_served() {
    let mut world = World::new(small());
    world.core.echo = true;
    let address = world.address;
    let peers = thread::spawn(move || {
        let mut streams: Vec<_> = (0..1000).map(|_| TcpStream::connect(address).unwrap()).collect();
        for (number, stream) in (0u32..).zip(&mut streams) {
            stream.write_all(&number.to_be_bytes()).unwrap();
        }
        for (number, stream) in (0u32..).zip(&mut streams) {
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(u32::from_be_bytes(answer), number);
        }
    });
    world.until(|world| world.retired() == 1000);
    peers.join().unwrap();
    world.check_at_rest(64);
}

#[test]
fn connections_over_the_bound_are_closed_unsaid() {
    let mut world = World::new(DriverOptions { connections_max: 1, ..small() });
    let _first = TcpStream::connect(world.address).unwrap();
    world.accept();
    let mut second = TcpStream::connect(world.address).unwrap();
    world.until(|world| world.driver.counters().refused == 1);
    assert_eq!(second.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(world.accepted().len(), 1);
}

#[test]
fn a_slow_reader_gets_every_byte_of_a_big_send() {
    let mut world = World::new(small());
    let content = pattern(8 << 20);
    let mut peer = TcpStream::connect(world.address).unwrap();
    let conn = world.accept();
    world.send(conn, b"begin ");
    for slice in slices(&content, 50_000) {
        world.send_slice(conn, slice);
    }
    world.send(conn, b" end");
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        let mut part = vec![0; 300_000];
        while all.len() < (8 << 20) + 10 {
            let read = peer.read(&mut part).unwrap();
            all.extend_from_slice(&part[..read]);
            thread::yield_now();
        }
        all
    });
    world.until(|world| world.saw(&Seen::Drained(conn)));
    let all = reader.join().unwrap();
    assert!(all.starts_with(b"begin ") && all.ends_with(b" end"));
    assert!(all[6..all.len() - 4] == content, "content differs");
}

#[test]
fn short_sends_are_continued() {
    let mut world = World::new(small());
    let content = pattern(4 << 20);
    let mut peer = TcpStream::connect(world.address).unwrap();
    let conn = world.accept();
    for slice in slices(&content, 1000) {
        world.send_slice(conn, slice);
    }
    let reader = thread::spawn(move || {
        let mut all = vec![0; 4 << 20];
        peer.read_exact(&mut all).unwrap();
        all
    });
    world.until(|world| world.saw(&Seen::Drained(conn)));
    assert!(reader.join().unwrap() == content, "content differs");
    assert_eq!(world.count(|seen| matches!(seen, Seen::Drained(_))), 1);
}

#[test]
fn starved_receivers_lose_nothing() {
    let mut world =
        World::new(DriverOptions { receive_buffers: 2, receive_buffer_bytes: 512, ..small() });
    let address = world.address;
    let content = pattern(200_000);
    let sent = content.clone();
    let peers = spawn(8, move |_| TcpStream::connect(address).unwrap().write_all(&sent).unwrap());
    world.until(|world| world.retired() == 8);
    for conn in world.accepted() {
        assert!(world.bytes_of(conn) == content, "content differs");
    }
    assert!(world.driver.counters().starved > 0, "two buffers are too few");
    join(peers);
    world.check_at_rest(2);
}

#[test]
fn a_tiny_completion_queue_loses_nothing() {
    let mut world = World::new(DriverOptions { sq_entries: 2, cq_entries: 4, ..small() });
    let address = world.address;
    let content = pattern(100_000);
    let sent = content.clone();
    let peers = spawn(32, move |_| TcpStream::connect(address).unwrap().write_all(&sent).unwrap());
    world.until(|world| world.retired() == 32);
    join(peers);
    for conn in world.accepted() {
        assert!(world.bytes_of(conn) == content, "content differs");
    }
    assert!(world.driver.counters().overflows > 0, "four completions are too few");
    world.check_at_rest(64);
}

#[test]
fn pausing_keeps_what_arrived_and_replays_it_in_order() {
    let mut world = World::new(small());
    let content = pattern(600_000);
    let address = world.address;
    let sent = content.clone();
    let peer = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&sent).unwrap();
    });
    let conn = world.accept();
    for round in 0..2000 {
        world.read(conn, round % 2 == 1);
        if round % 3 == 0 {
            world.turn();
        }
        if world.saw(&Seen::Retired(conn)) {
            break;
        }
    }
    world.read(conn, true);
    world.until(|world| world.saw(&Seen::Retired(conn)));
    peer.join().unwrap();
    assert!(world.bytes_of(conn) == content, "content differs");
    assert!(world.saw(&Seen::Ended(conn, End::ByPeer)));
    world.check_at_rest(64);
}

#[test]
fn a_paused_connection_tells_nothing() {
    let mut world = World::new(small());
    let mut peer = TcpStream::connect(world.address).unwrap();
    let conn = world.accept();
    world.read(conn, false);
    world.turn();
    peer.write_all(b"held back").unwrap();
    drop(peer);
    world.run_for(Duration::from_millis(50));
    assert!(world.bytes_of(conn).is_empty());
    world.read(conn, true);
    world.until(|world| world.saw(&Seen::Retired(conn)));
    assert_eq!(world.bytes_of(conn), b"held back");
}

#[test]
fn bytes_kept_by_a_pause_come_before_the_end() {
    let mut world = World::new(small());
    let mut peer = TcpStream::connect(world.address).unwrap();
    let conn = world.accept();
    peer.write_all(b"last words").unwrap();
    drop(peer);
    // The cancel is queued, and the bytes and the end reach the ring before it is submitted.
    world.read(conn, false);
    world.run_for(Duration::from_millis(50));
    world.read(conn, true);
    world.until(|world| world.saw(&Seen::Retired(conn)));
    assert_eq!(world.bytes_of(conn), b"last words");
    world.check_at_rest(64);
}

#[test]
fn a_peer_that_resets_amid_our_send_ends_the_connection() {
    let mut world = World::new(small());
    let peer = TcpStream::connect(world.address).unwrap();
    let conn = world.accept();
    for slice in slices(&pattern(8 << 20), 100_000) {
        world.send_slice(conn, slice);
    }
    world.run_for(Duration::from_millis(20));
    reset_on_close(&peer);
    drop(peer);
    world.until(|world| world.saw(&Seen::Retired(conn)));
    assert!(world.saw(&Seen::Ended(conn, End::ByPeer)));
    assert!(!world.saw(&Seen::Drained(conn)));
    world.check_at_rest(64);
}

#[test]
fn the_last_reply_of_a_peer_that_resets_is_still_read() {
    let mut world = World::new(small());
    let mut peer = TcpStream::connect(world.address).unwrap();
    let conn = world.accept();
    for slice in slices(&pattern(8 << 20), 100_000) {
        world.send_slice(conn, slice);
    }
    world.run_for(Duration::from_millis(20));
    peer.write_all(b"552 too big\r\n").unwrap();
    // Closing with unread bytes resets.
    drop(peer);
    world.until(|world| world.saw(&Seen::Retired(conn)));
    assert_eq!(world.bytes_of(conn), b"552 too big\r\n");
    assert!(world.saw(&Seen::Ended(conn, End::ByPeer)));
}

#[test]
fn a_half_closed_peer_still_gets_its_reply() {
    let mut world = World::new(small());
    world.core.echo = true;
    let mut peer = TcpStream::connect(world.address).unwrap();
    peer.write_all(b"QUIT\r\n").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    world.until(|world| world.retired() == 1);
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"QUIT\r\n");
    world.check_at_rest(64);
}

#[test]
fn an_abort_gives_every_buffer_back() {
    let mut world = World::new(DriverOptions { receive_buffers: 16, ..small() });
    let address = world.address;
    let peers = spawn(20, move |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        // Ends with a broken pipe or a reset.
        while stream.write_all(&[b'x'; 10_000]).is_ok() {}
    });
    world.until(|world| {
        world.accepted().len() == 20 && world.count(|seen| matches!(seen, Seen::Received(..))) > 500
    });
    for conn in world.accepted() {
        world.send(conn, b"never to arrive");
        world.close(conn, Close::Abort);
    }
    world.until(|world| world.retired() == 20);
    join(peers);
    assert_eq!(world.count(|seen| matches!(seen, Seen::Ended(_, End::Unknown))), 20);
    world.check_at_rest(16);
}

#[test]
fn an_abort_amid_a_send_ends_at_once() {
    let mut world = World::new(small());
    let mut peer = TcpStream::connect(world.address).unwrap();
    let conn = world.accept();
    for slice in slices(&pattern(8 << 20), 1 << 20) {
        world.send_slice(conn, slice);
    }
    world.run_for(Duration::from_millis(20));
    let start = now();
    world.close(conn, Close::Abort);
    world.until(|world| world.saw(&Seen::Retired(conn)));
    assert!(now().since(start) < SECOND);
    assert!(peer.read_to_end(&mut Vec::new()).is_err(), "the peer sees a reset");
    world.check_at_rest(64);
}

#[test]
fn a_graceful_close_sends_what_is_queued_and_sees_the_peers_end() {
    let mut world = World::new(small());
    let content = pattern(3 << 20);
    let mut peer = TcpStream::connect(world.address).unwrap();
    let conn = world.accept();
    for slice in slices(&content, 100_000) {
        world.send_slice(conn, slice);
    }
    world.close(conn, Close::Graceful);
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        peer.write_all(b"ignored").unwrap();
        peer.read_to_end(&mut all).unwrap();
        all
    });
    world.until(|world| world.saw(&Seen::Retired(conn)));
    assert!(reader.join().unwrap() == content, "content differs");
    assert!(world.saw(&Seen::Ended(conn, End::ByPeer)));
    assert!(world.bytes_of(conn).is_empty());
    world.check_at_rest(64);
}

#[test]
fn a_graceful_close_does_not_wait_for_ever() {
    let mut world = World::new(small());
    let _peer = TcpStream::connect(world.address).unwrap();
    let conn = world.accept();
    let start = now();
    world.close(conn, Close::Graceful);
    world.until(|world| world.saw(&Seen::Retired(conn)));
    assert!(now().since(start) >= 2 * SECOND);
    assert!(world.saw(&Seen::Ended(conn, End::Unknown)));
}

#[test]
fn a_connect_reaches_its_peer_and_talks() {
    let mut world = World::new(small());
    world.core.echo = true;
    let address = world.address;
    let conn = world.connect(address, SECOND);
    world.until(|world| world.saw(&Seen::Connected(conn, Ok(()))));
    // Both ends are ours, and they echo each other until one is closed.
    world.send(conn, b"ping");
    world.until(|world| world.bytes_of(conn).len() >= 40);
    world.close(conn, Close::Abort);
    world.until(|world| world.retired() == 2);
    world.check_at_rest(64);
}

#[test]
fn a_connect_goes_out_from_its_source() {
    let mut world = World::new(small());
    for (here, sources) in
        [("127.0.0.1:0", ["127.0.0.2", "127.0.0.3"].as_slice()), ("[::1]:0", &["::1"])]
    {
        let listener = TcpListener::bind(here).unwrap();
        for source in sources {
            let to = listener.local_addr().unwrap();
            let conn = world.connect_from(Some(source), to, SECOND);
            world.until(|world| world.saw(&Seen::Connected(conn, Ok(()))));
            let (_stream, from) = listener.accept().unwrap();
            assert_eq!(from.ip().to_string(), *source);
        }
    }
}

#[test]
fn a_refused_connect_says_so_and_retires() {
    let mut world = World::new(small());
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let conn = world.connect(nobody, SECOND);
    world.until(|world| world.saw(&Seen::Retired(conn)));
    assert_eq!(
        world.core.seen,
        [Seen::Connected(conn, Err(ConnectError::Refused)), Seen::Retired(conn)]
    );
    world.check_at_rest(64);
}

#[test]
fn an_unanswered_connect_times_out() {
    let mut world = World::new(small());
    let (blackhole, _queue) = full_backlog();
    let start = now();
    let conn = world.connect(blackhole, Duration::from_millis(200));
    world.until(|world| world.saw(&Seen::Retired(conn)));
    assert!(world.saw(&Seen::Connected(conn, Err(ConnectError::TimedOut))));
    assert!((0.2..2.0).contains(&now().since(start).as_secs_f64()));
    world.check_at_rest(64);
}

#[test]
fn a_connect_given_up_is_answered_and_retires() {
    let mut world = World::new(small());
    let (blackhole, _queue) = full_backlog();
    let conn = world.connect(blackhole, 10 * SECOND);
    world.run_for(Duration::from_millis(20));
    world.close(conn, Close::Abort);
    world.until(|world| world.saw(&Seen::Retired(conn)));
    assert!(world.saw(&Seen::Connected(conn, Err(ConnectError::TimedOut))));
    world.check_at_rest(64);
}

#[test]
fn a_source_that_is_not_ours_is_a_local_failure() {
    let mut world = World::new(small());
    let address = world.address;
    for strange in ["192.0.2.1", "2001:db8::1"] {
        let conn = world.connect_from(Some(strange), address, SECOND);
        world.until(|world| world.saw(&Seen::Retired(conn)));
        assert!(world.saw(&Seen::Connected(conn, Err(ConnectError::Source))));
    }
    world.check_at_rest(64);
}

/// A listener whose queue is full, so that nobody answers: and what fills it.
fn full_backlog() -> (SocketAddr, Vec<socket2::Socket>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap();
    let mut queue = vec![socket];
    for _ in 0..4 {
        let client =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        drop(client.connect(&address));
        queue.push(client);
    }
    (address.as_socket().unwrap(), queue)
}

#[test]
fn slots_are_reused_only_after_they_retired() {
    let mut world = World::new(DriverOptions { connections_max: 8, ..small() });
    let address = world.address;
    let peers = spawn(4, move |peer| {
        for round in 0..500 {
            let Ok(mut stream) = TcpStream::connect(address) else { continue };
            if (round + peer) % 3 == 0 {
                reset_on_close(&stream);
            }
            // The driver may have closed it already.
            drop(stream.write_all(b"hello"));
        }
    });
    let mut closed = 0;
    while !peers.iter().all(JoinHandle::is_finished) {
        world.turn();
        let accepted = world.accepted();
        for (number, conn) in accepted.iter().enumerate().skip(closed) {
            world.close(*conn, if number % 2 == 0 { Close::Abort } else { Close::Graceful });
        }
        closed = accepted.len();
    }
    join(peers);
    world.run_for(Duration::from_millis(50));
    for conn in world.accepted() {
        world.close(conn, Close::Abort);
    }
    world.until(|world| world.retired() == world.accepted().len());
    assert!(world.retired() > 100, "only {} came through", world.retired());
    // The script's `Slots` would have refused a slot that retired twice.
    world.check_at_rest(64);
}

#[test]
fn effects_for_a_connection_that_is_gone_do_nothing() {
    let mut world = World::new(small());
    let gone = Conn { slot: 7, generation: 3 };
    world.send(gone, b"hello");
    world.read(gone, false);
    world.close(gone, Close::Abort);
    world.perform(Effect::Secure { conn: gone, name: "example".into() });
    world.turn();
    assert!(world.core.seen.is_empty());
}

#[test]
fn after_stopping_nobody_is_accepted() {
    let mut world = World::new(small());
    let _peer = TcpStream::connect(world.address).unwrap();
    world.accept();
    world.driver.stop_accepting();
    world.run_for(Duration::from_millis(20));
    assert!(TcpStream::connect(world.address).is_err());
    assert_eq!(world.accepted().len(), 1);
}

#[test]
fn the_eventfd_is_signalled_by_the_wanted_time() {
    let mut world = World::new(small());
    world.driver.stop_accepting();
    world.run_for(Duration::from_millis(20));
    world.driver.wake_at(Some(now().plus(5 * SECOND)));
    while world.turn() > 0 || !world.driver.rest(now()).unwrap() {}
    while world.sleep(0) {}
    // Earlier than the timer that is set.
    world.driver.wake_at(Some(now().plus(Duration::from_millis(50))));
    while world.turn() > 0 || !world.driver.rest(now()).unwrap() {}
    let start = now();
    while now().since(start) < Duration::from_millis(45) {
        assert!(world.sleep(2000), "the eventfd was not signalled");
        world.turn();
    }
    assert!(now().since(start) < SECOND);
}

/// Dozes until nothing more comes of what was begun before.
fn doze_off(world: &mut World) {
    world.driver.doze(now(), now().plus(Duration::from_millis(20))).unwrap();
    while world.turn() > 0 {}
}

#[test]
fn a_doze_ends_at_its_time_if_nothing_happens() {
    let mut world = World::new(small());
    doze_off(&mut world);
    let start = now();
    world.driver.doze(start, start.plus(Duration::from_millis(30))).unwrap();
    assert!(now().since(start) >= Duration::from_millis(29));
    assert_eq!(world.turn(), 0);
    world.check_at_rest(64);
}

/// Each in an otherwise endless doze: one that misses its call would outlast the test.
#[test]
fn whoever_calls_ends_a_doze_and_the_next_one_too() {
    let mut world = World::new(small());
    for _ in 0..3 {
        doze_off(&mut world);
        let call = world.call.try_clone().unwrap();
        let caller = thread::spawn(move || {
            std::fs::File::from(call).write_all(&1u64.to_ne_bytes()).unwrap();
        });
        world.driver.doze(now(), now().plus(100 * SECOND)).unwrap();
        caller.join().unwrap();
        assert!(world.turn() > 0);
    }
}

#[test]
fn a_call_before_the_doze_is_heard() {
    let mut world = World::new(small());
    let mut call = std::fs::File::from(world.call.try_clone().unwrap());
    call.write_all(&1u64.to_ne_bytes()).unwrap();
    let start = now();
    world.driver.doze(start, start.plus(100 * SECOND)).unwrap();
    assert!(now().since(start) < 50 * SECOND);
}

/// The completion of the send does not end the doze, the answer does.
#[test]
fn one_doze_takes_what_is_sent_and_brings_the_answer() {
    let mut world = World::new(small());
    let mut peer = TcpStream::connect(world.address).unwrap();
    let conn = world.accept();
    let peer = thread::spawn(move || {
        let mut asked = [0; 4];
        peer.read_exact(&mut asked).unwrap();
        peer.write_all(b"back").unwrap();
        peer
    });
    doze_off(&mut world);
    world.send(conn, b"ping");
    let before = world.driver.counters().enters;
    while world.bytes_of(conn) != b"back" {
        world.driver.doze(now(), now().plus(100 * SECOND)).unwrap();
        world.turn();
    }
    assert!(world.driver.counters().enters - before <= 3);
    drop(peer.join().unwrap());
}

#[test]
fn a_dropped_driver_leaves_nothing_behind() {
    for _ in 0..20 {
        let mut world = World::new(small());
        let mut peer = TcpStream::connect(world.address).unwrap();
        let conn = world.accept();
        for slice in slices(&pattern(4 << 20), 1 << 20) {
            world.send_slice(conn, slice);
        }
        world.turn();
        let start = now();
        drop(world);
        assert!(
            now().since(start) < SECOND,
            "the kernel let go only after {:?}",
            now().since(start)
        );
        // An end or a reset, after whatever the kernel had taken.
        drop(peer.read_to_end(&mut Vec::new()));
    }
}
