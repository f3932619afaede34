//! The flags that say what a source shall send, and their plan.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use postrider_loadgen::quantity::{parse_rate, parse_span};
use postrider_loadgen::source::{
    Credentials, Domains, Recipients, Schedule, Shape, Sizes, SourcePlan, Spacing,
};

#[derive(Args)]
pub(crate) struct LoadFlags {
    /// Where to submit, address and port; the loopback only.
    #[arg(long, value_name = "ADDR")]
    to: SocketAddr,
    /// Messages to offer.
    #[arg(long, required_unless_present_any = ["seconds", "sweep", "ramp"])]
    messages: Option<u64>,
    /// Seconds during which messages are offered.
    #[arg(long)]
    seconds: Option<f64>,
    /// Messages per second, `2000/s` or `20k/s`: an open loop, in which latency counts from the intended
    /// start. Without a rate, sessions send as fast as they are answered (saturation), and
    /// latencies are not comparable.
    #[arg(long, value_parser = parse_rate, conflicts_with_all = ["burst", "ramp", "sweep"])]
    rate: Option<f64>,
    /// How the messages of a rate, a ramp or a sweep are spaced.
    #[arg(long, value_enum, default_value = "constant")]
    schedule: SpacingFlag,
    /// So many messages at once, every `--every`.
    #[arg(long, value_name = "N", requires = "every", conflicts_with_all = ["ramp", "sweep"])]
    burst: Option<u32>,
    #[arg(long, value_name = "SPAN", value_parser = parse_span, requires = "burst")]
    every: Option<Duration>,
    /// From one rate to another in the time of `--over`: `100..5000`.
    #[arg(long, value_name = "FROM..TO", requires = "over", conflicts_with = "sweep")]
    ramp: Option<String>,
    #[arg(long, value_name = "SPAN", value_parser = parse_span, requires = "ramp")]
    over: Option<Duration>,
    /// Rates at even distances, each for the time of `--step`, until one gives way: `1000..20000x10`.
    #[arg(long, value_name = "FROM..TOxLEVELS")]
    sweep: Option<String>,
    #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "5s")]
    step: Duration,
    /// A level of a sweep gives way when the reply to its messages takes longer at p99.
    #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "1s")]
    pub(crate) knee_p99: Duration,
    /// Connections, over all threads.
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Connect from so many addresses of the loopback in turn.
    #[arg(long, value_name = "N", default_value_t = 0)]
    source_addresses: usize,
    /// Bytes per message, header block and body: `4096`, `lognormal(8192, 1.2)` (median, sigma) or
    /// `corpus(FOLDER)` (a message each file).
    #[arg(long, default_value = "4096")]
    size: Sizes,
    /// A recipient domain, or `name=weight`; may be given again.
    #[arg(long = "domain", value_name = "NAME[=WEIGHT]", conflicts_with = "domains")]
    named: Vec<String>,
    /// Recipient domains d0.test, d1.test and so on: `1000`, `zipf(1000, 1.1)`, or `provider 60% of 1000`.
    #[arg(long, default_value = "1")]
    domains: String,
    /// Recipients per message, at most 100: `3`, or numbers with weights: `1=90,5=8,100=2`.
    #[arg(long, default_value = "1")]
    recipients: Recipients,
    /// Send the text of a message and the next envelope in one flight, where it is offered.
    #[arg(long)]
    pipelining: bool,
    /// Send texts by BDAT where it is offered; with `--pipelining`, a message in one flight.
    #[arg(long)]
    chunking: bool,
    /// Begin with STARTTLS; certificates are not looked at, since all is loopback.
    #[arg(long)]
    tls: bool,
    /// Log in with AUTH PLAIN.
    #[arg(long, value_name = "USER:PASSWORD")]
    auth: Option<Credentials>,
    /// Messages after which a session says QUIT and another is opened.
    #[arg(long)]
    messages_per_session: Option<u64>,
    /// Connect again after a loss, and send what was in doubt under a new sequence.
    #[arg(long)]
    reconnect: bool,
    /// The sender's address.
    #[arg(long, default_value = "sender@source.test")]
    sender: String,
    /// The number of the run, written into every message.
    #[arg(long, default_value_t = 1)]
    pub(crate) run: u64,
    /// The sequence of the first message.
    #[arg(long, default_value_t = 0)]
    first_sequence: u64,
    /// Decides schedule, sizes, recipients, domains and bodies.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SpacingFlag {
    /// Even gaps.
    Constant,
    /// Exponential gaps: arrivals that know nothing of each other.
    Poisson,
}

impl LoadFlags {
    pub(crate) fn plan(&self) -> anyhow::Result<SourcePlan> {
        Ok(SourcePlan {
            run: self.run,
            first_sequence: self.first_sequence,
            messages: self.messages,
            duration: self.seconds.map(Duration::try_from_secs_f64).transpose()?,
            schedule: self.schedule()?,
            sessions: self.sessions,
            threads: self.threads,
            source_addresses: self.source_addresses,
            sizes: Some(self.size.clone()),
            recipients: Some(self.recipients.clone()),
            sender: self.sender.clone(),
            pipelining: self.pipelining,
            chunking: self.chunking,
            tls: self.tls,
            auth: self.auth.clone(),
            messages_per_session: self.messages_per_session,
            reconnect: self.reconnect,
            seed: self.seed,
            ..SourcePlan::new(self.to, self.recipient_domains()?)
        })
    }

    /// The open loop that the flags ask for; `None` is saturation.
    fn schedule(&self) -> anyhow::Result<Option<Schedule>> {
        let shape = if let Some(text) = &self.sweep {
            let (range, levels) = text
                .rsplit_once('x')
                .ok_or_else(|| anyhow::anyhow!("--sweep {text}: FROM..TOxLEVELS is wanted"))?;
            let (from, to) = parse_range(range)?;
            Shape::Sweep { from, to, levels: levels.parse()?, step: self.step }
        } else if let (Some(text), Some(over)) = (&self.ramp, self.over) {
            let (from, to) = parse_range(text)?;
            Shape::Ramp { from, to, over }
        } else if let (Some(messages), Some(every)) = (self.burst, self.every) {
            Shape::Burst { messages: f64::from(messages), every }
        } else if let Some(rate) = self.rate {
            Shape::Constant { rate }
        } else if self.schedule == SpacingFlag::Poisson {
            anyhow::bail!("--schedule poisson needs a --rate, a --ramp or a --sweep");
        } else {
            return Ok(None);
        };
        let spacing = match self.schedule {
            SpacingFlag::Constant => Spacing::Even,
            SpacingFlag::Poisson => Spacing::Poisson,
        };
        let schedule = Schedule { shape, spacing };
        schedule.check().map_err(|wrong| anyhow::anyhow!(wrong))?;
        Ok(Some(schedule))
    }

    fn recipient_domains(&self) -> anyhow::Result<Domains> {
        if self.named.is_empty() {
            return Ok(Domains::parse(&self.domains, "test")?);
        }
        let mut list = Vec::new();
        for text in &self.named {
            let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
            list.push((name.to_owned(), weight.parse()?));
        }
        Ok(Domains::weighted(list)?)
    }
}

/// Reads `100..5000`; a ramp may begin at 0.
fn parse_range(text: &str) -> anyhow::Result<(f64, f64)> {
    let wrong = || anyhow::anyhow!("{text:?}: two rates are wanted, 100..5000");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let from = if from.trim() == "0" { Ok(0.0) } else { parse_rate(from) };
    Ok((from.map_err(|_| wrong())?, parse_rate(to).map_err(|_| wrong())?))
}
