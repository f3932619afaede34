//! Bytes on their way out of one connection: filled by a turn, written in one call where it fits.

use std::io::{self, Write};

/// A buffer that grew beyond this for one large flight is given back afterwards.
const KEPT_BYTES_MAX: usize = 256 * 1024;

#[derive(Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
}

impl Outgoing {
    /// Where to append the next flight.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Takes `spare` to fill, unless something is under way. One buffer that all connections of a thread
    /// write into stays in its caches.
    pub(crate) fn borrow(&mut self, spare: &mut Vec<u8>) {
        if self.is_empty() && self.bytes.capacity() < spare.capacity() {
            std::mem::swap(&mut self.bytes, spare);
        }
    }

    /// Gives back what was borrowed once all of it is written; what is left stays here until then.
    pub(crate) fn give_back(&mut self, spare: &mut Vec<u8>) {
        if self.is_empty() && self.bytes.capacity() > spare.capacity() {
            std::mem::swap(&mut self.bytes, spare);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// Writes until all is out or the socket is full; says whether all is out.
    pub(crate) fn flush(&mut self, to: &mut impl Write) -> io::Result<bool> {
        while !self.is_empty() {
            match to.write(&self.bytes[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.clear();
        Ok(true)
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes.shrink_to(KEPT_BYTES_MAX);
        }
    }
}
