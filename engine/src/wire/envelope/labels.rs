//! A message's flow as text: the form in which envelopes and indexes keep it.
//!
//! ```text
//! class LF expire LF tenant LF campaign
//! ```
//! The class by its name, the expiry in whole seconds or nothing, the names in printable ASCII. The
//! flow that says nothing is the empty text. A flow has one form only, so that equal texts are equal
//! flows.

use std::fmt::Write;
use std::time::Duration;

use crate::model::flow::{Flow, LABEL_MAX, MailClass};

/// The longest expiry that is kept, 136 years: more than anybody waits.
const SECONDS_MAX: u64 = u32::MAX as u64;

/// What a flow is made of, borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Labels<'a> {
    pub class: MailClass,
    /// Names are printable ASCII, at most [`LABEL_MAX`] bytes; empty: none.
    pub tenant: &'a str,
    pub campaign: &'a str,
    /// Whole seconds, at least one.
    pub expire: Option<Duration>,
}

impl<'a> Labels<'a> {
    /// Reads the stored form; `None`: it is none.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let mut lines = text.split('\n');
        let mut line = || lines.next();
        let class = MailClass::from_name(line()?)?;
        let expire = match line()? {
            "" => None,
            seconds => Some(expire(seconds)?),
        };
        let (tenant, campaign) = (line()?, line()?);
        let labels = Self { class, tenant, campaign, expire };
        let is_only_form = line().is_none() && labels != Self::default();
        (is_only_form && is_name(tenant) && is_name(campaign)).then_some(labels)
    }

    /// Appends the stored form.
    pub fn write(&self, out: &mut String) {
        if *self == Self::default() {
            return;
        }
        debug_assert!(is_name(self.tenant) && is_name(self.campaign), "names are checked");
        let seconds = self.expire.map(|expire| expire.as_secs().clamp(1, SECONDS_MAX));
        let written = match seconds {
            Some(seconds) => write!(out, "{}\n{seconds}\n", self.class),
            None => write!(out, "{}\n\n", self.class),
        };
        debug_assert!(written.is_ok(), "writing to memory cannot fail");
        out.push_str(self.tenant);
        out.push('\n');
        out.push_str(self.campaign);
    }

    #[must_use]
    pub fn to_flow(&self) -> Flow {
        let Self { class, tenant, campaign, expire } = *self;
        Flow { class, tenant: tenant.into(), campaign: campaign.into(), expire }
    }
}

impl<'a> From<&'a Flow> for Labels<'a> {
    fn from(flow: &'a Flow) -> Self {
        let Flow { class, tenant, campaign, expire } = flow;
        Self { class: *class, tenant, campaign, expire: *expire }
    }
}

/// Whether this may be a tenant's or campaign's name, or none.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.len() <= LABEL_MAX && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn expire(seconds: &str) -> Option<Duration> {
    let is_only_form =
        seconds.bytes().all(|byte| byte.is_ascii_digit()) && !seconds.starts_with('0');
    let seconds = seconds.parse().ok().filter(|seconds| *seconds <= SECONDS_MAX)?;
    is_only_form.then_some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(labels: Labels<'_>) -> String {
        let mut text = String::new();
        labels.write(&mut text);
        assert_eq!(Labels::parse(&text), Some(labels));
        assert_eq!(Labels::from(&labels.to_flow()), labels);
        text
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(written(Labels::default()), "");
        let none = Labels::default();
        assert_eq!(written(Labels { tenant: "acme", ..none }), "bulk\n\nacme\n");
        assert_eq!(written(Labels { campaign: "x y", ..none }), "bulk\n\n\nx y");
        let class = MailClass::Transactional;
        assert_eq!(written(Labels { class, ..none }), "transactional\n\n\n");
        let expire = Some(Duration::from_secs(600));
        assert_eq!(written(Labels { expire, ..none }), "bulk\n600\n\n");
        written(Labels { tenant: &"t".repeat(LABEL_MAX), ..none });
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("bulk\n\n{}\n", "t".repeat(LABEL_MAX + 1));
        for text in [
            "bulk",
            "bulk\n",
            "bulk\n\n\n",
            "Bulk\n\na\n",
            "\n\na\n",
            "bulk\n0\n\n",
            "bulk\n01\n\n",
            "bulk\n+1\n\n",
            "bulk\n4294967296\n\n",
            "bulk\n99999999999999999999\n\n",
            "bulk\n\na\nb\n",
            "bulk\n\n\u{e9}\n",
            "bulk\n\n\r\n",
            "bulk\n\n\0\n",
            "slow\n\na\nb",
            &long,
        ] {
            assert_eq!(Labels::parse(text), None, "{text:?}");
        }
    }
}
