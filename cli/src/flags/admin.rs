//! The flags of the commands that speak with a running engine.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use postrider_engine::model::admin::{LINES_MAX, Reach, Verb};
use postrider_engine::model::message::MessageId;

/// Where the engine is.
#[derive(Args, Debug)]
pub(crate) struct EngineFlags {
    #[command(flatten)]
    pub(crate) at: AtFlags,
    /// Print the answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct AtFlags {
    /// The settings file of the engine, which names its socket.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The socket itself: `admin.socket` of the settings.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ListFlags {
    /// How many lines at most.
    #[arg(long, value_name = "N", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=LINES_MAX as u64))]
    pub(crate) top: u64,
    #[command(flatten)]
    pub(crate) engine: EngineFlags,
}

#[derive(Args, Debug)]
pub(crate) struct SiteFlags {
    #[command(subcommand)]
    pub(crate) command: SiteCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SiteCommand {
    /// The sites with most mail, and what each waits for.
    List(ListFlags),
    /// One site from each source: its queue, the limit that binds and who set it, its last reply.
    Show(SiteShowFlags),
    /// Send it nothing until it is released. What is under way goes on; what waits may expire.
    Hold(SiteHoldFlags),
    /// End a hold, an operator's or a rule's.
    Release(SiteSteerFlags),
    /// Try now what waits for its next try, within the limits of the site.
    Flush(SiteSteerFlags),
}

#[derive(Args, Debug)]
pub(crate) struct SiteShowFlags {
    /// The name of the site as in `site list`, or a domain whose mail it takes.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) engine: EngineFlags,
}

#[derive(Args, Debug)]
pub(crate) struct SiteSteerFlags {
    /// The name of the site as in `site list`, or a domain whose mail it takes.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) how: HowFlags,
}

#[derive(Args, Debug)]
pub(crate) struct SiteHoldFlags {
    #[command(flatten)]
    pub(crate) site: SiteSteerFlags,
    #[command(flatten)]
    pub(crate) lasts: LastsFlags,
}

#[derive(Args, Debug)]
pub(crate) struct LastsFlags {
    /// How long, as in "90s", "30m", "1h" or "2d"; without, until it is released.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) lasts: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct QueueFlags {
    #[command(subcommand)]
    pub(crate) command: QueueCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// What waits, by class, tenant and campaign, and what is held.
    List(ListFlags),
    /// Send nothing of it until it is released, new mail included. What is under way goes on; what
    /// waits may expire.
    Hold(QueueHoldFlags),
    /// End a hold, an operator's or a rule's.
    Release(QueueSteerFlags),
    /// Try now what waits for its next try, within the limits of its sites.
    Flush(QueueSteerFlags),
    /// Never send what has been accepted so far, and report it to nobody. Cannot be undone.
    Cancel(QueueCancelFlags),
    /// Look up anew where it goes, after a change of routes or pools and a reload.
    Reroute(QueueSteerFlags),
}

#[derive(Args, Debug)]
pub(crate) struct QueueHoldFlags {
    #[command(flatten)]
    pub(crate) queue: QueueSteerFlags,
    #[command(flatten)]
    pub(crate) lasts: LastsFlags,
}

#[derive(Args, Debug)]
pub(crate) struct QueueCancelFlags {
    #[command(flatten)]
    pub(crate) queue: QueueSteerFlags,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Args, Debug)]
pub(crate) struct QueueSteerFlags {
    #[command(flatten)]
    pub(crate) reach: ReachFlags,
    /// Only this campaign of the tenant.
    #[arg(long, value_name = "NAME", requires = "tenant", conflicts_with_all = ["site", "source", "all"])]
    pub(crate) campaign: Option<String>,
    #[command(flatten)]
    pub(crate) how: HowFlags,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct ReachFlags {
    /// Mail of this tenant; "" for mail without one.
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// Mail for this site, or for the site of this domain.
    #[arg(long, value_name = "NAME")]
    pub(crate) site: Option<String>,
    /// Mail that may go out from this source.
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// All mail.
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Args, Debug)]
pub(crate) struct HowFlags {
    /// Only tell what it would concern.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Why, for the log and for whoever looks later.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) engine: EngineFlags,
}

#[derive(Args, Debug)]
pub(crate) struct MessageFlags {
    #[command(subcommand)]
    pub(crate) command: MessageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MessageCommand {
    /// Where the recipients of a message wait, what for, and when they are tried next.
    Show(MessageShowFlags),
}

#[derive(Args, Debug)]
pub(crate) struct MessageShowFlags {
    /// Its name, as in the 250 reply and the log.
    #[arg(value_name = "ID")]
    pub(crate) id: MessageId,
    #[command(flatten)]
    pub(crate) engine: EngineFlags,
}

/// What a command that steers asks for.
pub(crate) struct Order<'a> {
    pub(crate) verb: Verb,
    pub(crate) reach: Reach,
    pub(crate) lasts: Option<Duration>,
    /// Whether the user must say yes first.
    pub(crate) asks: bool,
    pub(crate) how: &'a HowFlags,
}

impl SiteSteerFlags {
    pub(crate) fn order(&self, verb: Verb, lasts: Option<Duration>) -> Order<'_> {
        let reach = Reach::Site(self.name.as_str().into());
        Order { verb, reach, lasts, asks: false, how: &self.how }
    }
}

impl QueueSteerFlags {
    pub(crate) fn order(&self, verb: Verb, lasts: Option<Duration>) -> Order<'_> {
        Order { verb, reach: self.reach(), lasts, asks: false, how: &self.how }
    }

    fn reach(&self) -> Reach {
        let name = |name: &String| name.as_str().into();
        match (&self.reach, &self.campaign) {
            (ReachFlags { tenant: Some(tenant), .. }, Some(campaign)) => {
                Reach::Campaign { tenant: name(tenant), campaign: name(campaign) }
            }
            (ReachFlags { tenant: Some(tenant), .. }, None) => Reach::Tenant(name(tenant)),
            (ReachFlags { site: Some(site), .. }, _) => Reach::Site(name(site)),
            (ReachFlags { source: Some(source), .. }, _) => Reach::Source(name(source)),
            _ => Reach::All,
        }
    }
}

/// A whole number and its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time like \"90s\", \"30m\", \"1h\" or \"2d\"".to_owned();
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let total = number.checked_mul(seconds).filter(|total| *total > 0).ok_or_else(wrong)?;
    Ok(Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2d"), Ok(Duration::from_secs(172_800)));
        for wrong in ["", "1", "h", "1w", "-1s", "0s", "99999999999999999999s", "1 h"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
