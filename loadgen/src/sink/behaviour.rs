//! How a host of the sink treats its clients.

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// A host in one word; each is short for a [`super::Personality`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Takes everything.
    Accept,
    /// Says 421 4.7.0 instead of a banner, and closes.
    Throttle421,
    /// Says 421 4.7.0 to a command, and closes.
    Throttle421At(Stage),
    /// Closes the listener, so that connects are refused; open connections go on.
    Refuse,
    /// Says 451 4.3.0 to every RCPT.
    TempfailRcpt,
    /// Says 550 5.1.1 to every RCPT.
    RejectRcpt,
    /// Takes the text, then says 451 4.3.0.
    TempfailData,
    /// Takes the text, then says 554 5.7.1.
    RejectData,
    /// Says 451 4.7.1 the first time it meets a recipient.
    Greylist,
    /// Takes the message, then closes without a reply: whoever sends it again makes a duplicate.
    CloseAfterDot,
    /// Takes connections and bytes, and never says a word.
    Silent,
    /// Waits so long before every reply.
    Slow(Duration),
    /// Says 421 4.7.0 to connections beyond so many.
    ConnectionCap(u64),
}

impl FromStr for Behaviour {
    type Err = String;

    /// Reads the names of the command line: `greylist`, `slow=20` (milliseconds), `cap=5`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (word, number) = text.split_once('=').unwrap_or((text, ""));
        let wanted =
            || number.parse::<u64>().map_err(|_| format!("{word} needs a number: {word}=5"));
        Ok(match word {
            "accept" => Self::Accept,
            "throttle" => Self::Throttle421,
            "throttle-mail" => Self::Throttle421At(Stage::Mail),
            "refuse" => Self::Refuse,
            "tempfail-rcpt" => Self::TempfailRcpt,
            "reject-rcpt" => Self::RejectRcpt,
            "tempfail-data" => Self::TempfailData,
            "reject-data" => Self::RejectData,
            "greylist" => Self::Greylist,
            "close-after-dot" => Self::CloseAfterDot,
            "silent" => Self::Silent,
            "slow" => Self::Slow(Duration::from_millis(wanted()?)),
            "cap" => Self::ConnectionCap(wanted()?),
            _ => return Err(format!("{text:?} is no behaviour")),
        })
    }
}

/// The connect, the command, or the end of a text, that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Banner,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Dot,
}
