//! `loadgen sink`: flags to a plan, a run until a signal or silence, a report.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use postrider_loadgen::loopback;
use postrider_loadgen::sink::{
    Behaviour, Capabilities, Delay, Latencies, Limit, LimitKey, Personality, Rate, Refusal, Sink,
    SinkHost, SinkPlan, SinkReport, Stage, TlsKind, World,
};
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as NameError, StrDeserializer};

/// Hosts shown in a report: the busiest first.
const HOSTS_SHOWN_MAX: usize = 40;

/// The hosts of a sink, and what they do.
#[derive(Args)]
pub(crate) struct HostFlags {
    /// Addresses to listen on, with commas between them; the loopback only.
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',', required_unless_present = "hosts")]
    listen: Vec<SocketAddr>,
    /// So many hosts, from 127.0.0.1 upwards.
    #[arg(long, conflicts_with = "listen")]
    hosts: Option<usize>,
    /// The port of all hosts; 0 finds one that is free, on addresses of this process's own.
    #[arg(long, default_value_t = 2525)]
    port: u16,
    /// What all hosts do: accept, throttle, throttle-mail, refuse, tempfail-rcpt, reject-rcpt, tempfail-data,
    /// reject-data, greylist, close-after-dot, silent, slow=MILLISECONDS, cap=CONNECTIONS.
    #[arg(long, default_value = "accept", conflicts_with = "personalities")]
    behaviour: Behaviour,
    /// Who behaves how, in a TOML file, for worlds of many hosts and recipient domains.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["latency", "refuse", "limit", "host_tls", "caps"])]
    personalities: Option<PathBuf>,
    /// Hold replies back: `dot=lognormal(80ms, 0.6)`, for banner, ehlo, mail, rcpt, data, dot, other
    /// or all; may be given again.
    #[arg(long, value_name = "STAGE=DELAY", value_parser = latency)]
    latency: Vec<(String, Delay)>,
    /// Refuse a share: `rcpt:0.02:no-such-user` or `dot:0.05:451 4.3.2 come back`; may be given again.
    #[arg(long, value_name = "STAGE:ODDS:REPLY", value_parser = refusal)]
    refuse: Vec<Refusal>,
    /// Say 421 beyond a rate: `mail=10/s burst 20`, `banner=5/s`, `client:mail=600/min` for each
    /// client apart; may be given again.
    #[arg(long, value_name = "[client:]STAGE=RATE", value_parser = limit)]
    limit: Vec<Limit>,
    /// How STARTTLS goes at the hosts: none, valid, self-signed, expired, wrong-name, tls12, unavailable,
    /// cut, injected.
    #[arg(long, value_name = "KIND", value_parser = named::<TlsKind>)]
    host_tls: Option<TlsKind>,
    /// Write the certificate that signs those of the hosts to this file.
    #[arg(long, value_name = "FILE")]
    host_tls_authority: Option<PathBuf>,
    /// What the client shall keep without being told; ends with 1 if it does not: `connections=5`,
    /// `connects=2/s`, `messages=10/s burst 20`, `messages-per-connection=20`; may be given again.
    #[arg(long = "cap", value_name = "WHAT=BOUND")]
    caps: Vec<String>,
    /// Decides every chance at the hosts; overrides the one of the file.
    #[arg(long)]
    host_seed: Option<u64>,
    #[arg(long)]
    no_pipelining: bool,
    #[arg(long)]
    no_chunking: bool,
}

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    hosts: HostFlags,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Count messages of this run only; without it, of the first run seen.
    #[arg(long)]
    run: Option<u64>,
    /// End after so many seconds without a message (once one has come).
    #[arg(long, value_name = "SECONDS")]
    until_idle: Option<f64>,
    /// Write what arrived to this file, for `loadgen compare`.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let idle_max = arguments.until_idle.map(Duration::try_from_secs_f64).transpose()?;
    let sink = Sink::start(arguments.hosts.plan(arguments.threads, arguments.run)?)?;
    arguments.hosts.prepare(&sink)?;
    let addresses: Vec<_> = sink.hosts().iter().map(|host| host.address.to_string()).collect();
    println!("{}", addresses.join(","));
    // Whoever started this waits for the line.
    io::stdout().flush()?;
    super::wait_until(|| {
        idle_max.is_some_and(|max| sink.progress().idle_for.is_some_and(|idle| idle >= max))
    })?;
    let report = sink.stop();
    if let Some(path) = &arguments.ledger {
        report.arrivals.write_to(&mut super::create(path)?)?;
    }
    if arguments.json {
        println!("{:#}", report.to_json());
    } else {
        print_report(&report);
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl HostFlags {
    pub(crate) fn plan(&self, threads: usize, run: Option<u64>) -> anyhow::Result<SinkPlan> {
        let hosts = match self.hosts {
            Some(count) if self.port == 0 => loopback::loopback_hosts(count)?,
            Some(count) => loopback::hosts_at_port(count, self.port),
            None => self.listed_hosts(),
        };
        let capabilities = Capabilities {
            pipelining: !self.no_pipelining,
            chunking: !self.no_chunking,
            ..Capabilities::default()
        };
        let world = self.world()?;
        Ok(SinkPlan { hosts, threads, capabilities, world, run })
    }

    /// Tells whoever asks whom to trust.
    pub(crate) fn prepare(&self, sink: &Sink) -> io::Result<()> {
        match &self.host_tls_authority {
            Some(path) => std::fs::write(path, sink.authority_pem()),
            None => Ok(()),
        }
    }

    fn world(&self) -> anyhow::Result<World> {
        let mut world = match &self.personalities {
            Some(path) => World::read(path).map_err(anyhow::Error::msg)?,
            None => World::of(self.personality()?),
        };
        world.seed = self.host_seed.unwrap_or(world.seed);
        Ok(world)
    }

    /// The behaviour, with what the flags add.
    fn personality(&self) -> anyhow::Result<Personality> {
        let mut traits = Personality::from(self.behaviour);
        for (stage, delay) in &self.latency {
            set_latency(&mut traits, stage, *delay);
        }
        traits.refusals.extend(self.refuse.iter().cloned());
        traits.limits.extend(self.limit.iter().cloned());
        traits.tls.kind = self.host_tls.unwrap_or_default();
        for text in &self.caps {
            set_cap(&mut traits, text).map_err(anyhow::Error::msg)?;
        }
        traits.check().map_err(anyhow::Error::msg)?;
        Ok(traits)
    }

    fn listed_hosts(&self) -> Vec<SinkHost> {
        let host = |(index, address): (usize, &SocketAddr)| SinkHost {
            name: format!("mx{index}"),
            address: *address,
        };
        self.listen.iter().enumerate().map(host).collect()
    }
}

/// A name as the file of personalities writes it.
fn named<T: for<'de> serde::Deserialize<'de>>(name: &str) -> Result<T, NameError> {
    let name: StrDeserializer<'_, NameError> = name.into_deserializer();
    T::deserialize(name)
}

fn latency(text: &str) -> Result<(String, Delay), String> {
    let (stage, delay) = text.split_once('=').ok_or("STAGE=DELAY: dot=80ms")?;
    if !["all", "other"].contains(&stage) {
        named::<Stage>(stage).map_err(|error| error.to_string())?;
    }
    Ok((stage.to_owned(), delay.parse()?))
}

fn set_latency(traits: &mut Personality, stage: &str, delay: Delay) {
    let latency = &mut traits.latency;
    match stage {
        "all" => *latency = Latencies::all(delay),
        "banner" => latency.banner = delay,
        "ehlo" => latency.ehlo = delay,
        "mail" => latency.mail = delay,
        "rcpt" => latency.rcpt = delay,
        "data" => latency.data = delay,
        "dot" => latency.dot = delay,
        _ => latency.other = delay,
    }
}

fn refusal(text: &str) -> Result<Refusal, String> {
    let mut parts = text.splitn(3, ':');
    let (Some(stage), Some(odds), Some(reply)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("STAGE:ODDS:REPLY: rcpt:0.02:no-such-user".to_owned());
    };
    let at = named(stage).map_err(|error: NameError| error.to_string())?;
    let odds = odds.parse().map_err(|_| format!("{odds:?} are no odds: 0.02"))?;
    Ok(Refusal { at, odds, reply: reply.parse()? })
}

fn limit(text: &str) -> Result<Limit, String> {
    let (per, rest) = match text.strip_prefix("client:") {
        Some(rest) => (LimitKey::Client, rest),
        None => (LimitKey::Host, text),
    };
    let (stage, rate) = rest.split_once('=').ok_or("STAGE=RATE: mail=10/s")?;
    let at = named(stage).map_err(|error: NameError| error.to_string())?;
    Ok(Limit { at, rate: rate.parse()?, per, reply: "throttle".parse()? })
}

fn set_cap(traits: &mut Personality, text: &str) -> Result<(), String> {
    let (what, bound) = text.split_once('=').ok_or("WHAT=BOUND: connections=5")?;
    let number = || bound.parse::<u64>().map_err(|_| format!("{bound:?} is no number"));
    let rate = || bound.parse::<Rate>();
    match what {
        "connections" => traits.cap.connections = Some(number()?),
        "connects" => traits.cap.connects = Some(rate()?),
        "messages" => traits.cap.messages = Some(rate()?),
        "messages-per-connection" => traits.cap.messages_per_connection = Some(number()?),
        _ => return Err(format!("{what:?} has no cap")),
    }
    Ok(())
}

fn print_report(report: &SinkReport) {
    let mut hosts: Vec<_> = report.hosts.iter().collect();
    hosts.sort_by_key(|host| std::cmp::Reverse((host.messages, host.connections)));
    let titles = ["connections", "at once", "messages", "recipients", "4xx", "5xx"];
    let columns: String = titles.iter().map(|title| format!("{title:>12}")).collect();
    println!("{:<10}{:<24}{columns}", "host", "address");
    for host in hosts.iter().take(HOSTS_SHOWN_MAX) {
        let figures = [
            host.connections,
            host.concurrent_max,
            host.messages,
            host.recipients,
            host.replies_4xx,
            host.replies_5xx,
        ];
        let columns: String = figures.iter().map(|figure| format!("{figure:>12}")).collect();
        println!("{:<10}{:<24}{columns}", host.name, host.address);
    }
    if hosts.len() > HOSTS_SHOWN_MAX {
        println!("(and {} hosts more)", hosts.len() - HOSTS_SHOWN_MAX);
    }
    println!();
    println!("messages         {:>12}", report.totals.messages);
    println!("recipients       {:>12}", report.totals.recipients);
    println!("corrupted        {:>12}", report.arrivals.corrupted);
    println!("unmarked         {:>12}", report.arrivals.unmarked);
    println!("of other runs    {:>12}", report.arrivals.foreign);
    println!("smuggled bytes   {:>12}", report.arrivals.smuggled);
    println!("processor s      {:>12.3}", report.cpu_seconds);
    println!();
    println!("{}", super::latency_heading());
    println!("{}", super::latency_row("end to end", &report.end_to_end));
    for text in report.arrivals.explanations.iter().chain(&report.failures) {
        println!("{text}");
    }
    for text in &report.caps_broken {
        println!("cap broken: {text}");
    }
}
