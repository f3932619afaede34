//! Grammars: bytes to values and back; no I/O, no clock, no state kept between calls.

pub mod date;
pub mod envelope;
pub mod header;
pub mod header_scan;
pub mod label_fields;
pub mod smtp;
