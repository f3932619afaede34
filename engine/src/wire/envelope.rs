//! The envelope as bytes.
