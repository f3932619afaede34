//! What large providers answer, as read off the wire and in public collections of replies, and
//! what each must mean. Addresses and links are shortened.

use super::Stage::{self, Data, Dot, Greeting, Hello, Mail, Rcpt};
use super::Verdict::{self, Deferred, Failed, SiteTrouble, Throttled};
use super::judge;
use crate::model::note::Cause::{self, Content, Greylist, Policy, Recipient, Site, Throttle};
use crate::wire::smtp::reply::ReplyReader;

type Meaning = (Stage, &'static str, Verdict, Cause);

fn check(provider: &str, replies: &[Meaning]) {
    for (stage, text, verdict, cause) in replies {
        let mut reader = ReplyReader::default();
        let whole = format!("{text}\r\n");
        assert_eq!(reader.feed(&mut whole.as_bytes()), Ok(true), "{text}");
        let reply = reader.to_reply();
        assert_eq!(judge(*stage, &reply), (*verdict, *cause), "{provider}, {stage:?}: {text}");
    }
}

#[test]
fn providers_are_understood() {
    check("Gmail", GMAIL);
    check("Microsoft", MICROSOFT);
    check("Yahoo", YAHOO);
    check("Apple", APPLE);
    check("GMX", GMX);
    check("T-Online", T_ONLINE);
    check("Orange, Free, OVH", FRANCE);
    check("others", OTHERS);
}

const GMAIL: &[Meaning] = &[
    (
        Dot,
        "421-4.7.28 [192.0.2.1] Our system has detected an unusual rate of\r\n\
                 421-4.7.28 unsolicited mail originating from your IP address. To protect our\r\n\
                 421 4.7.28 users from spam, mail has been temporarily rate limited. - gsmtp",
        Throttled,
        Throttle,
    ),
    (
        Greeting,
        "421 4.7.0 Temporary System Problem. Try again later (10). - gsmtp",
        Throttled,
        Throttle,
    ),
    (
        Dot,
        "421-4.7.0 [192.0.2.1 15] Our system has detected that this message is\r\n\
                 421 4.7.0 suspicious due to the very low reputation of the sending IP address.",
        Throttled,
        Throttle,
    ),
    (
        Dot,
        "421 4.7.32 This mail has been rate limited because there is no DMARC alignment",
        Throttled,
        Throttle,
    ),
    (
        Rcpt,
        "452 4.2.2 The email account that you tried to reach is over quota. - gsmtp",
        Deferred,
        Recipient,
    ),
    (
        Rcpt,
        "450-4.2.1 The user you are trying to contact is receiving mail at a rate that\r\n\
                 450 4.2.1 prevents additional messages from being delivered. - gsmtp",
        Deferred,
        Recipient,
    ),
    (Dot, "451 4.3.0 Mail server temporarily rejected message. - gsmtp", Deferred, Site),
    (Rcpt, "452 4.5.3 Your message has too many recipients. - gsmtp", Deferred, Recipient),
    (
        Rcpt,
        "550-5.1.1 The email account that you tried to reach does not exist. Please try\r\n\
                 550 5.1.1 double-checking the recipient's email address for typos. - gsmtp",
        Failed,
        Recipient,
    ),
    (
        Rcpt,
        "550 5.2.1 The email account that you tried to reach is disabled. - gsmtp",
        Failed,
        Recipient,
    ),
    (
        Dot,
        "550-5.7.1 [192.0.2.1 12] Our system has detected that this message is likely\r\n\
                 550 5.7.1 unsolicited mail. To reduce the amount of spam sent to Gmail, this message has been blocked.",
        Failed,
        Content,
    ),
    (
        Dot,
        "550-5.7.1 [192.0.2.1] Our system has detected that this message is likely suspicious\r\n\
                 550 5.7.1 due to the very low reputation of the sending domain.",
        Failed,
        Policy,
    ),
    (
        Dot,
        "550 5.7.26 Unauthenticated email from d.example is not accepted due to domain's DMARC policy.",
        Failed,
        Policy,
    ),
    (
        Dot,
        "552 5.2.3 Your message exceeded Google's message size limits. - gsmtp",
        Failed,
        Recipient,
    ),
    (
        Dot,
        "552 5.7.0 Our system detected an illegal attachment on your message. - gsmtp",
        Failed,
        Content,
    ),
    (
        Dot,
        "550 5.7.1 Messages missing a valid address in From: header are not accepted. - gsmtp",
        Failed,
        Content,
    ),
];

const MICROSOFT: &[Meaning] = &[
    (
        Mail,
        "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77714)",
        Throttled,
        Throttle,
    ),
    (
        Rcpt,
        "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (AS77712344)",
        Throttled,
        Throttle,
    ),
    (
        Rcpt,
        "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. (S775)",
        Throttled,
        Throttle,
    ),
    (
        Mail,
        "421 RP-001 (BAY004-MC1F1) Unfortunately, some messages from 192.0.2.1 weren't sent. Please try again. We have limits for how many messages can be sent per hour and per day.",
        Throttled,
        Throttle,
    ),
    (
        Hello,
        "421 4.3.2 The maximum number of concurrent connections per source has exceeded a limit, closing transmission channel",
        Throttled,
        Throttle,
    ),
    (Dot, "451 4.3.2 Temporary server error. Please try again later ATTR17", Throttled, Throttle),
    (Rcpt, "451 4.7.0 Temporary server error. Please try again later. PRX4", Deferred, Greylist),
    (Rcpt, "451 4.4.3 Temporary server error. Please try again later ATTR18", Deferred, Site),
    (Rcpt, "452 4.5.3 Too many recipients (AS780090)", Deferred, Recipient),
    (Dot, "452 4.3.1 Insufficient system resources (TSTE)", Deferred, Site),
    (Rcpt, "450 4.7.3 Organization queue quota exceeded.", Throttled, Throttle),
    (
        Mail,
        "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3140).",
        Failed,
        Policy,
    ),
    (
        Greeting,
        "550 5.7.1 Service unavailable, Client host [192.0.2.1] blocked using Spamhaus. (AS16012611)",
        SiteTrouble,
        Policy,
    ),
    (
        Rcpt,
        "550 5.7.606 Access denied, banned sending IP [192.0.2.1]. To request removal from this list please visit a page",
        Failed,
        Policy,
    ),
    (Rcpt, "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", Failed, Recipient),
    (Dot, "550 5.4.1 All recipient addresses rejected : Access denied", Failed, Recipient),
    (Rcpt, "550 5.5.0 Requested action not taken: mailbox unavailable.", Failed, Recipient),
    (
        Dot,
        "554 5.2.122 The recipient has exceeded their limit for the number of messages they can receive per hour.",
        Failed,
        Recipient,
    ),
];

const YAHOO: &[Meaning] = &[
    (
        Mail,
        "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1",
        Throttled,
        Throttle,
    ),
    (
        Greeting,
        "451 mta1.example Resources temporarily unavailable. Please try again later [#4.16.1].",
        Throttled,
        Throttle,
    ),
    (Dot, "451 Message temporarily deferred - [GL01]", Deferred, Greylist),
    (
        Mail,
        "553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1, because the ip is in Spamhaus's list",
        Failed,
        Policy,
    ),
    (Dot, "554 5.7.9 Message not accepted for policy reasons.", Failed, Policy),
    (Rcpt, "552 1 Requested mail action aborted, mailbox not found", Deferred, Recipient),
    (
        Dot,
        "554 delivery error: dd This user doesn't have a yahoo.example account: mailbox is disabled (554.30)",
        Failed,
        Recipient,
    ),
];

const APPLE: &[Meaning] = &[
    (
        Dot,
        "421 4.7.1 Messages to x@d.example deferred due to excessive volume. Try again later",
        Throttled,
        Throttle,
    ),
    (Mail, "421 4.7.0 me.com Error: too many errors", Throttled, Throttle),
    (Mail, "451 4.7.1 Service unavailable - try again later", Throttled, Throttle),
    (Rcpt, "451 4.7.1 Service unavailable - try again later", Deferred, Greylist),
    (Dot, "554 5.7.1 [CS01] Message rejected due to local policy.", Failed, Policy),
    (Dot, "554 5.7.1 [HM08] Message rejected due to local policy.", Failed, Policy),
    (
        Dot,
        "550 5.7.1 Your email was rejected due to having a domain present in the Spamhaus DBL",
        Failed,
        Policy,
    ),
    (Rcpt, "550 5.1.1 <x@d.example>: user does not exist", Failed, Recipient),
    (Rcpt, "552 5.2.2 <x@d.example>: user is overquota", Deferred, Recipient),
];

const GMX: &[Meaning] = &[
    (
        Greeting,
        "554-gmx.net (mxgmx007) Nemesis ESMTP Service not available\r\n554-No SMTP service\r\n554 IP address is black listed.",
        SiteTrouble,
        Policy,
    ),
    (
        Mail,
        "450 Requested mail action not taken: mailbox unavailable. Mail send limit exceeded.",
        Throttled,
        Throttle,
    ),
    (
        Rcpt,
        "450 Requested mail action not taken: mailbox unavailable. Mail send limit exceeded.",
        Throttled,
        Throttle,
    ),
    (
        Dot,
        "550 Requested action not taken: mailbox unavailable. Reject due to policy restrictions (IP based)",
        Failed,
        Policy,
    ),
    (Rcpt, "550 Requested action not taken: mailbox unavailable", Failed, Recipient),
    (
        Rcpt,
        "550 Requested mail action aborted: exceeded storage allocation, Quota exceeded",
        Failed,
        Recipient,
    ),
];

const T_ONLINE: &[Meaning] = &[
    (
        Greeting,
        "554 IP=192.0.2.1 - A problem occurred. (Ask your postmaster for help or to contact us to clarify.) (BL)",
        SiteTrouble,
        Policy,
    ),
    (
        Greeting,
        "554 IP=192.0.2.1 - None/bad reputation. Ask your postmaster for help or to contact us for reset. (NOWL)",
        SiteTrouble,
        Policy,
    ),
];

const FRANCE: &[Meaning] = &[
    (
        Greeting,
        "421 mwinf5c04 ME Trop de connexions, veuillez verifier votre configuration. Too many connections, slow down. OFR004_104 [104]",
        Throttled,
        Throttle,
    ),
    (
        Greeting,
        "550 mwinf5c04 ME Adresse IP source bloquee pour incident de spam. Client host blocked for spamming issues. OFR006_102",
        SiteTrouble,
        Policy,
    ),
    (
        Rcpt,
        "552 5.1.1 Boite du destinataire pleine. Recipient overquota. OFR_417 [417]",
        Deferred,
        Recipient,
    ),
    (
        Rcpt,
        "554 5.2.2 <x@d.example>: Recipient address rejected: Quota exceeded (mailbox for user is full)",
        Failed,
        Recipient,
    ),
    (
        Greeting,
        "421 4.2.1 Connection refused: too many connections from a single IP address OXSUS0001_110",
        Throttled,
        Throttle,
    ),
    (Greeting, "550 5.7.1 Connection refused OXSUS0001_101", SiteTrouble, Policy),
];

const OTHERS: &[Meaning] = &[
    // Comcast.
    (
        Rcpt,
        "452 4.1.1 <x@d.example> too many recent messages; Try again later",
        Deferred,
        Recipient,
    ),
    (Rcpt, "452 4.1.1 <x@d.example> user over quota", Deferred, Recipient),
    (
        Greeting,
        "554 mx.example comcast 192.0.2.1 Comcast block for spam. BL000000",
        SiteTrouble,
        Policy,
    ),
    (Greeting, "421 4.1.0 192.0.2.1 Throttled - try again later", Throttled, Throttle),
    // Postfix with postgrey, rspamd, postscreen; Exim.
    (
        Rcpt,
        "450 4.2.0 <x@d.example>: Recipient address rejected: Greylisted, see a page",
        Deferred,
        Greylist,
    ),
    (Rcpt, "451 4.7.1 Greylisting in action, please come back in 00:05:00", Deferred, Greylist),
    (Dot, "451 4.7.1 Try again later", Deferred, Greylist),
    (Rcpt, "421 4.7.1 greylisted, come back", Throttled, Greylist),
    (
        Rcpt,
        "450 4.1.1 <x@d.example>: Recipient address rejected: unverified address: Address verification in progress",
        Deferred,
        Recipient,
    ),
    (Rcpt, "450 4.1.8 <s@d.example>: Sender address rejected: Domain not found", Deferred, Content),
    (Rcpt, "550 5.1.8 <s@d.example>: Sender address rejected: Domain not found", Failed, Content),
    (Mail, "452 4.3.1 Insufficient system storage", Deferred, Site),
    (Dot, "451 4.3.0 Error: queue file write error", Deferred, Site),
    (Dot, "452 4.4.5 Insufficient disk space; try again later", Throttled, Throttle),
    (Dot, "451 Temporary local problem - please try later", Deferred, Site),
    (Rcpt, "450 User is receiving mail too quickly", Deferred, Recipient),
    (Rcpt, "452 4.5.3 rate limit exceeded", Throttled, Throttle),
    (Rcpt, "450 4.7.1 Error: too much mail from 192.0.2.1", Throttled, Throttle),
    (Mail, "450 4.7.1 Error: too much mail from 192.0.2.1", Throttled, Throttle),
    (
        Rcpt,
        "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using bl.spamcop.net",
        Failed,
        Policy,
    ),
    (Rcpt, "554 5.7.1 <x@d.example>: Relay access denied", Failed, Policy),
    (Rcpt, "550 5.7.1 No such user!", Failed, Recipient),
    (Dot, "554 5.7.1 Spam message rejected", Failed, Content),
    (Dot, "552 5.3.4 Error: message file too big", Failed, Content),
    (Dot, "554 5.6.0 Message contains invalid header", Failed, Content),
    (Data, "554 5.5.1 Error: no valid recipients", Failed, Site),
    (Dot, "550 virus detected", Failed, Content),
    (Rcpt, "550 unknown user", Failed, Recipient),
    (Mail, "550 we do not like you", Failed, Policy),
    (Greeting, "554 No SMTP service here", SiteTrouble, Site),
];
