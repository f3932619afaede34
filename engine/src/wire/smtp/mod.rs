//! SMTP as bytes.
