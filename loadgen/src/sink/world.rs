//! Which host and which recipient domain has which personality: read from a file, or one for all.
//!
//! ```toml
//! seed = 7                                  # decides every chance; 1 without it
//! default = "calm"                          # of hosts that nothing below fits; takes everything without it
//!
//! [personality.calm]
//! latency = { rcpt = "uniform(5ms, 20ms)", dot = "lognormal(80ms, 0.6)" }
//!
//! [personality.strict]
//! offers = { pipelining = false, chunking = false }
//! tls = { kind = "valid", required = true }
//! limits = [{ at = "mail", rate = "10/s burst 20", per = "client" }]
//! refusals = [{ at = "rcpt", odds = 0.02, reply = "no-such-user" },
//!             { at = "dot", odds = 0.05, reply = "451 4.3.2 come back" }]
//! cap = { connections = 5, messages = "10/s burst 20" }
//!
//! [[host]]                                  # the first that fits is taken
//! names = ["mx0", "mx1*"]
//! personality = "strict"
//! together = true                           # their limits and caps count over all of them
//!
//! [[host]]
//! share = 0.1                               # of all hosts, chosen by the seed
//! personality = "calm"
//!
//! [[domain]]                                # decides from RCPT on
//! names = ["big.test", "*.corp.test"]
//! personality = "calm"
//! ```

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::chance::{draw, hash, share};
use super::personality::Personality;

/// A file of more bytes is none that a person wrote, nor a program that means it.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Sets apart the choice of hosts from all other chances.
const SHARES: u64 = 4 << 32;

/// The personalities of a sink, and who has them.
#[derive(Debug, Clone)]
pub struct World {
    /// Decides every chance.
    pub seed: u64,
    default: Arc<Personality>,
    hosts: Vec<HostRule>,
    domains: Vec<(String, Arc<Personality>)>,
}

#[derive(Debug, Clone)]
struct HostRule {
    fits: Fits,
    personality: Arc<Personality>,
    is_together: bool,
    name: String,
}

#[derive(Debug, Clone)]
enum Fits {
    Names(Vec<Pattern>),
    Share(f64),
}

/// A name in which one `*` stands for any letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    Exact(Vec<u8>),
    Around { start: Vec<u8>, end: Vec<u8> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    seed: Option<u64>,
    default: Option<Spanned<String>>,
    #[serde(default)]
    personality: BTreeMap<String, Spanned<Personality>>,
    #[serde(default)]
    host: Vec<HostEntry>,
    #[serde(default)]
    domain: Vec<DomainEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostEntry {
    names: Option<Vec<Spanned<String>>>,
    share: Option<Spanned<f64>>,
    personality: Spanned<String>,
    #[serde(default)]
    together: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DomainEntry {
    names: Vec<Spanned<String>>,
    personality: Spanned<String>,
}

/// What is wrong, and where.
type Problem = (Option<Range<usize>>, String);

impl Default for World {
    fn default() -> Self {
        Self::of(Personality::default())
    }
}

impl World {
    /// The same personality for every host.
    pub fn of(personality: Personality) -> Self {
        Self { seed: 1, default: Arc::new(personality), hosts: Vec::new(), domains: Vec::new() }
    }

    pub fn read(path: &Path) -> Result<Self, String> {
        let name = path.display().to_string();
        let failed = |error: std::io::Error| format!("cannot read {name}: {error}");
        if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
            return Err(format!("{name} has more than {FILE_BYTES_MAX} bytes"));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(failed)?, &name)
    }

    /// Reads the text of a file; what is wrong is told as `file:line:column: what`.
    pub fn parse(text: &str, file: &str) -> Result<Self, String> {
        let parsed = toml::from_str::<File>(text)
            .map_err(|error| (error.span(), error.message().to_owned()));
        parsed.and_then(File::build).map_err(|(span, what)| {
            let (line, column) = place(text, span.map_or(0, |span| span.start));
            format!("{file}:{line}:{column}: {what}")
        })
    }

    /// The personality of a host; with the group whose memory it shares, and the group's name.
    pub(super) fn of_host(
        &self,
        index: usize,
        name: &str,
    ) -> (Arc<Personality>, Option<(usize, String)>) {
        let fits = |rule: &&HostRule| match &rule.fits {
            Fits::Names(patterns) => patterns.iter().any(|pattern| pattern.fits(name.as_bytes())),
            Fits::Share(part) => {
                share(draw(self.seed, &[SHARES, index as u64, hash(name.as_bytes())])) < *part
            }
        };
        let Some(place) = self.hosts.iter().position(|rule| fits(&rule)) else {
            return (Arc::clone(&self.default), None);
        };
        let rule = &self.hosts[place];
        let group = rule.is_together.then(|| (place, rule.name.clone()));
        (Arc::clone(&rule.personality), group)
    }

    /// Names or patterns of recipient domains, the first that fits first.
    pub(super) fn domains(&self) -> impl Iterator<Item = (&str, &Arc<Personality>)> {
        self.domains.iter().map(|(name, personality)| (name.as_str(), personality))
    }
}

impl File {
    fn build(self) -> Result<World, Problem> {
        let mut known = BTreeMap::new();
        for (name, personality) in self.personality {
            let span = personality.span();
            personality
                .get_ref()
                .check()
                .map_err(|what| (Some(span), format!("{name}: {what}")))?;
            known.insert(name, Arc::new(personality.into_inner()));
        }
        let mut world = World { seed: self.seed.unwrap_or(1), ..World::default() };
        if let Some(name) = &self.default {
            world.default = find(&known, name)?;
        }
        for entry in self.host {
            world.hosts.push(entry.build(&known)?);
        }
        for entry in self.domain {
            let personality = find(&known, &entry.personality)?;
            let span = entry.personality.span();
            personality.check_for_domain().map_err(|what| (Some(span), what))?;
            for name in entry.names {
                check_pattern(&name)?;
                world.domains.push((name.into_inner(), Arc::clone(&personality)));
            }
        }
        Ok(world)
    }
}

impl HostEntry {
    fn build(self, known: &BTreeMap<String, Arc<Personality>>) -> Result<HostRule, Problem> {
        let span = Some(self.personality.span());
        let (fits, name) = match (self.names, self.share) {
            (Some(names), None) => {
                names.iter().try_for_each(check_pattern)?;
                let names: Vec<_> = names.into_iter().map(Spanned::into_inner).collect();
                let patterns = names.iter().map(|name| Pattern::new(name)).collect();
                (Fits::Names(patterns), names.join(" "))
            }
            (None, Some(part)) if (0.0..=1.0).contains(part.get_ref()) => {
                (Fits::Share(*part.get_ref()), format!("{} of all hosts", part.get_ref()))
            }
            (None, Some(part)) => {
                let what = format!("a share of {}: it lies between 0 and 1", part.get_ref());
                return Err((Some(part.span()), what));
            }
            _ => return Err((span, "a host entry has either `names` or a `share`".to_owned())),
        };
        let personality = find(known, &self.personality)?;
        Ok(HostRule { fits, personality, is_together: self.together, name })
    }
}

fn find(
    known: &BTreeMap<String, Arc<Personality>>,
    name: &Spanned<String>,
) -> Result<Arc<Personality>, Problem> {
    let missing =
        || (Some(name.span()), format!("no [personality.{}] stands here", name.get_ref()));
    known.get(name.get_ref()).cloned().ok_or_else(missing)
}

fn check_pattern(name: &Spanned<String>) -> Result<(), Problem> {
    let text = name.get_ref();
    if text.is_empty() || text.matches('*').count() > 1 {
        return Err((Some(name.span()), format!("{text:?} is no name with at most one `*`")));
    }
    Ok(())
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        let lower = |part: &str| part.to_ascii_lowercase().into_bytes();
        match text.split_once('*') {
            Some((start, end)) => Self::Around { start: lower(start), end: lower(end) },
            None => Self::Exact(lower(text)),
        }
    }

    /// Whether a name fits, in any case of its letters.
    pub(super) fn fits(&self, name: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.eq_ignore_ascii_case(name),
            Self::Around { start, end } => {
                name.len() >= start.len() + end.len()
                    && name[..start.len()].eq_ignore_ascii_case(start)
                    && name[name.len() - end.len()..].eq_ignore_ascii_case(end)
            }
        }
    }
}

/// Line and column of a byte, both from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_at = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_at..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::personality::TlsKind;

    #[test]
    fn the_example_in_the_head_of_this_file_reads() {
        let source = include_str!("world.rs");
        let inside = source.split("```").nth(1).unwrap().lines().skip(1);
        let lines: Vec<_> = inside.map(|line| line.trim_start_matches("//!")).collect();
        let world = World::parse(&lines.join("\n"), "world.toml").unwrap();
        assert_eq!(world.seed, 7);
        let kind = |index: usize, name: &str| world.of_host(index, name).0.tls.kind;
        assert_eq!([kind(0, "mx0"), kind(1, "MX17")], [TlsKind::Valid, TlsKind::Valid]);
        assert_eq!(kind(2, "mx2"), TlsKind::None);
        assert_eq!(world.of_host(0, "mx0").1, Some((0, "mx0 mx1*".to_owned())));
        assert_eq!(world.domains().count(), 2);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let check = |text: &str, told: &str| {
            let said = World::parse(text, "w.toml").unwrap_err();
            assert!(said.starts_with(told), "{said}");
        };
        check("seed = 1\nsead = 2\n", "w.toml:2:1: unknown field `sead`");
        check(
            "[personality.a]\nlatency = { dot = \"fast\" }\n",
            "w.toml:2:19: \"fast\" is no span",
        );
        check("[personality.a]\nrefusal = []\n", "w.toml:2:1: unknown field `refusal`");
        check(
            "[personality.a]\nrefusals = [{ at = \"mail\", reply = \"451 5.3.0 no\" }]\n",
            "w.toml:2:36: \"5.3.0\" is no enhanced code",
        );
        check(
            "[[host]]\nnames = [\"mx0\"]\npersonality = \"b\"\n",
            "w.toml:3:15: no [personality.b]",
        );
        check("[personality.a]\n[[host]]\npersonality = \"a\"\n", "w.toml:3:15: a host entry has");
        check(
            "[personality.a]\n[[host]]\nshare = 2.0\npersonality = \"a\"\n",
            "w.toml:3:9: a share of 2",
        );
        check(
            "[personality.a]\n[[domain]]\nnames = [\"*.*\"]\npersonality = \"a\"\n",
            "w.toml:3:10: \"*.*\"",
        );
        check(
            "[personality.a]\nrefuses_connects = true\n[[domain]]\nnames = [\"d\"]\npersonality = \"a\"\n",
            "w.toml:5:15: refuses_connects is a matter of hosts",
        );
        check(
            "\n[personality.a]\ncuts = [{ at = \"text\", odds = 2.0 }]\n",
            "w.toml:2:1: a: odds of 2",
        );
    }

    #[test]
    fn a_share_of_the_hosts_is_the_same_for_the_same_seed() {
        let chosen = |seed: u64| -> Vec<usize> {
            let text = format!(
                "seed = {seed}\n[personality.a]\nrefuses_connects = true\n\
                 [[host]]\nshare = 0.2\npersonality = \"a\"\n"
            );
            let world = World::parse(&text, "w.toml").unwrap();
            let is_chosen =
                |index: &usize| world.of_host(*index, &format!("mx{index}")).0.refuses_connects;
            (0..1000).filter(is_chosen).collect()
        };
        assert_eq!(chosen(1), chosen(1));
        assert_ne!(chosen(1), chosen(2));
        assert!((150..250).contains(&chosen(1).len()), "{}", chosen(1).len());
    }

    #[test]
    fn a_star_stands_for_any_letters() {
        let fits = |pattern: &str, name: &str| Pattern::new(pattern).fits(name.as_bytes());
        assert!(fits("*.corp.test", "A.Corp.test") && !fits("*.corp.test", "corp.test"));
        assert!(fits("mx*", "mx") && fits("*", "anything") && !fits("mx0*0", "mx0"));
    }
}
