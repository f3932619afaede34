//! The grammars on the way in and out: command lines, replies, the text of a message.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use postrider_engine::wire::smtp::command::Command;
use postrider_engine::wire::smtp::dot::Unstuffer;
use postrider_engine::wire::smtp::reply::ReplyReader;

/// The commands of one message, without their line ends.
const COMMANDS: [&[u8]; 4] = [
    b"MAIL FROM:<sender@source.test> SIZE=4096 BODY=8BITMIME",
    b"RCPT TO:<somebody@example.test>",
    b"DATA",
    b"BDAT 4096 LAST",
];

/// What a host answers to one message.
const REPLIES: &[u8] =
    b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 go ahead\r\n250 2.0.0 Ok: queued as 4F2A\r\n";

/// What a host offers.
const HELLO: &[u8] = b"250-mx.example.test\r\n250-PIPELINING\r\n250-SIZE 67108864\r\n\
                       250-STARTTLS\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n";

fn main() {
    divan::main();
}

#[divan::bench]
fn commands(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(COMMANDS.len())).bench_local(|| {
        for line in COMMANDS {
            divan::black_box_drop(Command::parse(black_box(line)));
        }
    });
}

#[divan::bench]
fn replies(bencher: Bencher<'_, '_>) {
    let mut reader = ReplyReader::default();
    bencher.counter(ItemsCount::new(4_usize)).bench_local(|| read_all(&mut reader, REPLIES));
}

#[divan::bench]
fn hello(bencher: Bencher<'_, '_>) {
    let mut reader = ReplyReader::default();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| read_all(&mut reader, HELLO));
}

fn read_all(reader: &mut ReplyReader, replies: &[u8]) {
    let mut bytes = black_box(replies);
    while reader.feed(&mut bytes).is_ok_and(|is_whole| is_whole) {
        black_box(reader.code());
    }
}

/// Text on its way in: dots un-stuffed, line ends checked, header fields counted.
#[divan::bench(args = [4096, 65_536])]
fn text(bencher: Bencher<'_, '_>, bytes: usize) {
    let line = b"0123456789012345678901234567890123456789012345678901234567890123456789\r\n";
    let mut text = b"Subject: a text\r\n\r\n".to_vec();
    while text.len() < bytes {
        text.extend_from_slice(line);
    }
    text.extend_from_slice(b".\r\n");
    let mut out = Vec::with_capacity(text.len());
    bencher.counter(BytesCount::new(text.len())).bench_local(|| {
        out.clear();
        black_box(Unstuffer::default().feed(black_box(&text), &mut out));
    });
}
