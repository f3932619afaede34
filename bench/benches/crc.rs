//! CRC-32C, which every record carries: of a header, of an ordinary message, of a long one.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use postrider_engine::base::checksum::crc32c;

fn main() {
    divan::main();
}

#[divan::bench(args = [64, 4096, 65_536])]
fn crc(bencher: Bencher<'_, '_>, bytes: usize) {
    let text = vec![b'x'; bytes];
    bencher.counter(BytesCount::new(bytes)).bench_local(|| crc32c(black_box(&text)));
}
