//! What clients are answered, each text once (RFC 5321 §4.2.3, codes of RFC 3463).

pub(super) const OK: &str = "250 2.0.0 Ok";
/// The name of the message follows.
pub(super) const QUEUED_AS: &[u8] = b"250 2.0.0 Ok: queued as ";
pub(super) const SENDER_OK: &str = "250 2.1.0 Ok";
pub(super) const RECIPIENT_OK: &str = "250 2.1.5 Ok";
pub(super) const START_TEXT: &str = "354 End data with <CR><LF>.<CR><LF>";
pub(super) const HELP: &str = "214 2.0.0 See RFC 5321";
pub(super) const BYE: &str = "221 2.0.0 Bye";
/// We cannot know, and would not say.
pub(super) const CANNOT_VERIFY: &str = "252 2.0.0 Cannot verify, but will take mail for it";

pub(super) const UNKNOWN: &str = "500 5.5.1 Command not recognized";
pub(super) const NOT_OFFERED: &str = "502 5.5.1 Command not implemented";
pub(super) const GREET_FIRST: &str = "503 5.5.1 Send EHLO or HELO first";
pub(super) const MAIL_FIRST: &str = "503 5.5.1 Send MAIL first";
pub(super) const NESTED_MAIL: &str = "503 5.5.1 Sender already given";
pub(super) const CHUNKS_BEGAN: &str = "503 5.5.1 Message text has begun with BDAT";
pub(super) const NO_RECIPIENTS: &str = "554 5.5.1 No valid recipients";

pub(super) const RELAY_DENIED: &str = "550 5.7.1 Relaying denied";
pub(super) const TOO_MANY_RECIPIENTS: &str = "452 4.5.3 Too many recipients";
pub(super) const TOO_LARGE: &str = "552 5.3.4 Message too large";
pub(super) const LOOP: &str = "554 5.4.6 Too many hops, this message loops";

pub(super) const SPOOL_FULL: &str = "452 4.3.1 Insufficient system storage";
pub(super) const SPOOL_FAILED: &str = "452 4.3.1 Write error, the message was not taken";
pub(super) const BACKLOG: &str = "452 4.3.1 Too much mail is waiting, try again later";
pub(super) const NO_MEMORY: &str = "452 4.3.1 Out of memory, try again later";

pub(super) const TOO_MANY_CONNECTIONS: &str = "421 4.3.2 Too many connections, try again later";
pub(super) const TIMED_OUT: &str = "421 4.4.2 Timeout, closing connection";
pub(super) const STOPPING: &str = "421 4.3.2 Shutting down, closing connection";
pub(super) const TOO_MANY_ERRORS: &str = "421 4.7.0 Too many errors, closing connection";
pub(super) const FOREIGN: &str = "421 4.7.0 This is not a web server, closing connection";
