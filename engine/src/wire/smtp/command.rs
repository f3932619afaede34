//! One SMTP command line into a value (RFC 5321 §4.1.1, RFC 1870, 3030, 6152).

use super::address::{AddressError, Path};

/// RFC 5321 §4.5.3.1.2; what a client says of itself is kept for the Received field.
const HELO_BYTES_MAX: usize = 255;
/// RFC 1870 §3 and RFC 3030 §2 give sizes up to 20 digits.
const SIZE_DIGITS_MAX: usize = 20;

/// A command, as far as its own line tells; whether it may come now is the session's matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    Ehlo(&'a str),
    Helo(&'a str),
    Mail {
        /// Never [`Path::Postmaster`].
        sender: Path<'a>,
        params: MailParams,
    },
    Rcpt {
        /// Never [`Path::Null`].
        recipient: Path<'a>,
    },
    Data,
    /// `bytes` of message text follow this line.
    Bdat {
        bytes: u64,
        last: bool,
    },
    Rset,
    Noop,
    Vrfy,
    Expn,
    Help,
    Quit,
    StartTls,
    /// No command of SMTP that we know.
    Unknown,
    /// The start of another protocol: HTTP aimed at this port by someone else's hand. Nothing
    /// that follows it may be executed.
    Foreign,
}

/// The parameters of MAIL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailParams {
    /// SIZE=: what the client says the message will measure; a number beyond `u64` is its maximum.
    pub size: Option<u64>,
    /// BODY=, 7BIT if it was not given.
    pub body: BodyType,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyType {
    #[default]
    SevenBit,
    EightBitMime,
}

/// Why a line is not executed; [`CommandError::reply`] is what to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// Control bytes, a bare CR or LF among them.
    Control,
    /// A known verb with arguments it does not take, or without those it needs.
    Arguments,
    /// The size of a BDAT chunk cannot be read, so it is unknown where commands begin again: the
    /// connection must be closed.
    ChunkSize,
    Sender(AddressError),
    Recipient(AddressError),
    /// A parameter of MAIL or RCPT that was not offered.
    Parameter,
}

impl<'a> Command<'a> {
    /// Reads one line, without its CRLF.
    ///
    /// # Errors
    /// The line must then not be executed in any part.
    pub fn parse(line: &'a [u8]) -> Result<Self, CommandError> {
        if line.iter().any(u8::is_ascii_control) {
            return Err(CommandError::Control);
        }
        // Bytes that are not UTF-8 can stand in an address only; they get the reply for 8-bit text.
        let text = match std::str::from_utf8(line) {
            Ok(text) => text.trim_end_matches(' '),
            Err(_) => return Err(not_text(line)),
        };
        let (verb, arguments) = text.split_once(' ').unwrap_or((text, ""));
        Self::from_parts(verb, arguments)
    }

    fn from_parts(verb: &str, arguments: &'a str) -> Result<Self, CommandError> {
        let mut upper = [0; 8];
        let Some(name) = upper.get_mut(..verb.len()) else { return Ok(Self::Unknown) };
        name.copy_from_slice(verb.as_bytes());
        name.make_ascii_uppercase();
        match &*name {
            b"EHLO" => client_name(arguments).map(Self::Ehlo),
            b"HELO" => client_name(arguments).map(Self::Helo),
            b"MAIL" => mail(arguments),
            b"RCPT" => rcpt(arguments),
            b"DATA" => bare(arguments, Self::Data),
            b"BDAT" => bdat(arguments),
            b"RSET" => bare(arguments, Self::Rset),
            b"NOOP" => Ok(Self::Noop),
            b"VRFY" => with_text(arguments, Self::Vrfy),
            b"EXPN" => with_text(arguments, Self::Expn),
            b"HELP" => Ok(Self::Help),
            b"QUIT" => bare(arguments, Self::Quit),
            b"STARTTLS" => bare(arguments, Self::StartTls),
            b"GET" | b"HEAD" | b"POST" | b"PUT" | b"PATCH" | b"DELETE" | b"OPTIONS"
            | b"CONNECT" | b"TRACE" => Ok(Self::Foreign),
            _ => Ok(Self::Unknown),
        }
    }
}

impl CommandError {
    /// The reply, without its CRLF.
    #[must_use]
    pub fn reply(self) -> &'static str {
        match self {
            Self::Control => "500 5.5.2 Control characters are not allowed in a command",
            Self::Arguments => "501 5.5.4 Bad arguments",
            Self::ChunkSize => "501 5.5.4 Bad chunk size, closing connection",
            Self::Sender(AddressError::Syntax) => "501 5.1.7 Bad sender address syntax",
            Self::Sender(AddressError::TooLong) => "501 5.1.7 Sender address too long",
            Self::Recipient(AddressError::Syntax) => "501 5.1.3 Bad recipient address syntax",
            Self::Recipient(AddressError::TooLong) => "501 5.1.3 Recipient address too long",
            Self::Sender(AddressError::EightBit) | Self::Recipient(AddressError::EightBit) => {
                "553 5.6.7 Internationalized addresses are not supported here"
            }
            Self::Parameter => "555 5.5.4 Parameter not supported",
        }
    }
}

fn not_text(line: &[u8]) -> CommandError {
    match line.get(..4) {
        Some(verb) if verb.eq_ignore_ascii_case(b"MAIL") => {
            CommandError::Sender(AddressError::EightBit)
        }
        Some(verb) if verb.eq_ignore_ascii_case(b"RCPT") => {
            CommandError::Recipient(AddressError::EightBit)
        }
        Some(verb) if verb.eq_ignore_ascii_case(b"BDAT") => CommandError::ChunkSize,
        _ => CommandError::Arguments,
    }
}

/// Any name made of what names and literals are made of: clients get theirs wrong in harmless
/// ways (underscores, bare host names), and nothing is decided by it.
fn client_name(arguments: &str) -> Result<&str, CommandError> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    let fits = !arguments.is_empty() && arguments.len() <= HELO_BYTES_MAX;
    if fits && arguments.bytes().all(is_name) {
        Ok(arguments)
    } else {
        Err(CommandError::Arguments)
    }
}

fn mail(arguments: &str) -> Result<Command<'_>, CommandError> {
    let text = after_keyword(arguments, "FROM:")?;
    let (sender, rest) = Path::parse(text).map_err(CommandError::Sender)?;
    if sender == Path::Postmaster {
        return Err(CommandError::Sender(AddressError::Syntax));
    }
    let mut params = MailParams::default();
    let mut seen = (false, false);
    for param in parameters(rest)? {
        let (name, value) = param?;
        if name.eq_ignore_ascii_case("SIZE") && !std::mem::replace(&mut seen.0, true) {
            params.size = Some(declared_size(value)?);
        } else if name.eq_ignore_ascii_case("BODY") && !std::mem::replace(&mut seen.1, true) {
            params.body = body_type(value)?;
        } else if ["SIZE", "BODY"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            return Err(CommandError::Arguments);
        } else {
            return Err(CommandError::Parameter);
        }
    }
    Ok(Command::Mail { sender, params })
}

fn rcpt(arguments: &str) -> Result<Command<'_>, CommandError> {
    let text = after_keyword(arguments, "TO:")?;
    let (recipient, rest) = Path::parse(text).map_err(CommandError::Recipient)?;
    if recipient == Path::Null {
        return Err(CommandError::Recipient(AddressError::Syntax));
    }
    match parameters(rest)?.next() {
        Some(param) => Err(param.err().unwrap_or(CommandError::Parameter)),
        None => Ok(Command::Rcpt { recipient }),
    }
}

/// What follows `FROM:` or `TO:`. Spaces behind the colon are against RFC 5321 §3.3, very common,
/// and harmless before a bracket that must come.
fn after_keyword<'a>(arguments: &'a str, keyword: &str) -> Result<&'a str, CommandError> {
    match arguments.split_at_checked(keyword.len()) {
        Some((found, rest)) if found.eq_ignore_ascii_case(keyword) => {
            Ok(rest.trim_start_matches(' '))
        }
        _ => Err(CommandError::Arguments),
    }
}

type Parameter<'a> = Result<(&'a str, Option<&'a str>), CommandError>;

/// The `keyword[=value]` pairs behind a path.
fn parameters(rest: &str) -> Result<impl Iterator<Item = Parameter<'_>>, CommandError> {
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(CommandError::Arguments);
    }
    Ok(rest.split(' ').filter(|word| !word.is_empty()).map(parameter))
}

fn parameter(word: &str) -> Parameter<'_> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let good_start = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let is_value =
        |value: &str| !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() && b != b'=');
    if good_start && is_name && value.is_none_or(is_value) {
        Ok((name, value))
    } else {
        Err(CommandError::Arguments)
    }
}

fn declared_size(value: Option<&str>) -> Result<u64, CommandError> {
    let digits = value.ok_or(CommandError::Arguments)?;
    if !is_number(digits) {
        return Err(CommandError::Arguments);
    }
    // Twenty digits can be more than 64 bits hold: too large for any limit, all the same.
    Ok(digits.parse().unwrap_or(u64::MAX))
}

fn body_type(value: Option<&str>) -> Result<BodyType, CommandError> {
    match value {
        Some(value) if value.eq_ignore_ascii_case("7BIT") => Ok(BodyType::SevenBit),
        Some(value) if value.eq_ignore_ascii_case("8BITMIME") => Ok(BodyType::EightBitMime),
        // BINARYMIME is not offered.
        Some(_) => Err(CommandError::Parameter),
        None => Err(CommandError::Arguments),
    }
}

fn bdat(arguments: &str) -> Result<Command<'_>, CommandError> {
    let (digits, rest) = arguments.split_once(' ').unwrap_or((arguments, ""));
    let last = match rest {
        "" => false,
        _ if rest.eq_ignore_ascii_case("LAST") => true,
        _ => return Err(CommandError::ChunkSize),
    };
    match digits.parse() {
        Ok(bytes) if is_number(digits) => Ok(Command::Bdat { bytes, last }),
        _ => Err(CommandError::ChunkSize),
    }
}

/// Digits and nothing else; `str::parse` alone would take a sign.
fn is_number(text: &str) -> bool {
    (1..=SIZE_DIGITS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

fn bare<'a>(arguments: &str, command: Command<'a>) -> Result<Command<'a>, CommandError> {
    if arguments.is_empty() { Ok(command) } else { Err(CommandError::Arguments) }
}

fn with_text<'a>(arguments: &str, command: Command<'a>) -> Result<Command<'a>, CommandError> {
    if arguments.is_empty() { Err(CommandError::Arguments) } else { Ok(command) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::address::Mailbox;
    use super::*;

    fn mailbox(text: &str) -> Path<'_> {
        Path::Mailbox(Mailbox::parse(text).unwrap())
    }

    fn check(line: &str, expected: Result<Command<'_>, CommandError>) {
        assert_eq!(Command::parse(line.as_bytes()), expected, "{line:?}");
    }

    #[test]
    fn verbs_are_known_in_any_case() {
        check("ehlo a.example", Ok(Command::Ehlo("a.example")));
        check("HeLo [192.0.2.1]", Ok(Command::Helo("[192.0.2.1]")));
        check("EHLO my_host", Ok(Command::Ehlo("my_host")));
        check("data", Ok(Command::Data));
        check("DATA ", Ok(Command::Data));
        check("NOOP anything at all", Ok(Command::Noop));
        check("VRFY someone", Ok(Command::Vrfy));
        check("starttls", Ok(Command::StartTls));
        check("XCLIENT ADDR=1.2.3.4", Ok(Command::Unknown));
        check("DEBUG", Ok(Command::Unknown));
        check("AVERYLONGVERB", Ok(Command::Unknown));
        check("", Ok(Command::Unknown));
        check("POST / HTTP/1.1", Ok(Command::Foreign));
    }

    #[test]
    fn arguments_must_fit_the_verb() {
        let long = format!("EHLO {}", "a".repeat(256));
        for line in [
            "EHLO",
            "EHLO a b",
            "EHLO a(b)",
            "HELO ",
            "DATA now",
            "RSET x",
            "QUIT x",
            "VRFY",
            "EXPN",
            "STARTTLS x",
            "MAIL",
            "MAIL FROM",
            "MAIL TO:<a@b>",
            "RCPT FROM:<a@b>",
            &long,
            "EHLO \u{fc}",
        ] {
            check(line, Err(CommandError::Arguments));
        }
    }

    #[test]
    fn mail_takes_size_and_body_and_nothing_else() {
        let with = |size, body| {
            let params = MailParams { size, body };
            Ok(Command::Mail { sender: mailbox("a@b"), params })
        };
        check("MAIL FROM:<a@b>", with(None, BodyType::SevenBit));
        check("mail from: <a@b> size=10", with(Some(10), BodyType::SevenBit));
        check("MAIL FROM:<a@b>  BODY=8bitmime  SIZE=7", with(Some(7), BodyType::EightBitMime));
        check(
            "MAIL FROM:<a@b> SIZE=99999999999999999999",
            with(Some(u64::MAX), BodyType::SevenBit),
        );
        let params = MailParams::default();
        check("MAIL FROM:<>", Ok(Command::Mail { sender: Path::Null, params }));
        for (param, error) in [
            ("SIZE", CommandError::Arguments),
            ("SIZE=", CommandError::Arguments),
            ("SIZE=-1", CommandError::Arguments),
            ("SIZE=+1", CommandError::Arguments),
            ("SIZE=0x10", CommandError::Arguments),
            ("SIZE=999999999999999999999", CommandError::Arguments),
            ("SIZE=1 SIZE=1", CommandError::Arguments),
            ("BODY", CommandError::Arguments),
            ("BODY=BINARYMIME", CommandError::Parameter),
            ("AUTH=<>", CommandError::Parameter),
            ("SMTPUTF8", CommandError::Parameter),
            ("RET=FULL", CommandError::Parameter),
            ("=x", CommandError::Arguments),
            ("-a=x", CommandError::Arguments),
            ("a=b=c", CommandError::Arguments),
        ] {
            check(&format!("MAIL FROM:<a@b> {param}"), Err(error));
        }
        check("MAIL FROM:<a@b>SIZE=1", Err(CommandError::Arguments));
        check("RCPT TO:<a@b> NOTIFY=NEVER", Err(CommandError::Parameter));
    }

    #[test]
    fn paths_that_make_no_sense_here_are_refused() {
        check("MAIL FROM:<postmaster>", Err(CommandError::Sender(AddressError::Syntax)));
        check("RCPT TO:<>", Err(CommandError::Recipient(AddressError::Syntax)));
        check("RCPT TO:<Postmaster>", Ok(Command::Rcpt { recipient: Path::Postmaster }));
        check("RCPT TO:a@b", Err(CommandError::Recipient(AddressError::Syntax)));
        check("RCPT TO:<\u{fc}@b>", Err(CommandError::Recipient(AddressError::EightBit)));
        let latin1 = Command::parse(b"MAIL FROM:<\xfc@b>");
        assert_eq!(latin1, Err(CommandError::Sender(AddressError::EightBit)));
    }

    #[test]
    fn chunk_sizes_are_plain_numbers() {
        check("BDAT 0", Ok(Command::Bdat { bytes: 0, last: false }));
        check("bdat 10 last", Ok(Command::Bdat { bytes: 10, last: true }));
        check("BDAT 18446744073709551615", Ok(Command::Bdat { bytes: u64::MAX, last: false }));
        for form in [
            "",
            "-1",
            "+5",
            "0x10",
            "5.0",
            "18446744073709551616",
            "18446744073709551621",
            "LAST",
            "5 FIRST",
            "5 LAST x",
            "5  LAST",
            "\u{fc}",
        ] {
            check(&format!("BDAT {form}"), Err(CommandError::ChunkSize));
        }
    }

    #[test]
    fn control_bytes_stop_a_line() {
        for line in ["MAIL FROM:<a\rb@c>", "NOOP\nRSET", "NOOP\0", "NOOP\t", "NOOP \u{7f}"] {
            check(line, Err(CommandError::Control));
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _outcome = Command::parse(&line);
        }

        #[test]
        fn nothing_unsafe_passes_in_an_address(tail in "[ -~\u{80}-\u{ff}]{0,80}") {
            for verb in ["MAIL FROM:", "RCPT TO:"] {
                let line = format!("{verb}<{tail}");
                let path = match Command::parse(line.as_bytes()) {
                    Ok(Command::Mail { sender, .. }) => sender,
                    Ok(Command::Rcpt { recipient }) => recipient,
                    _ => continue,
                };
                if let Path::Mailbox(found) = path {
                    prop_assert!(found.as_str().bytes().all(|b| (b' '..=b'~').contains(&b)));
                    prop_assert!(found.as_str().len() <= 254 && found.local().len() <= 64);
                    prop_assert_eq!(Mailbox::parse(found.as_str()), Ok(found));
                }
            }
        }
    }
}
