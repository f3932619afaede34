//! `loadgen source`: flags to a plan, a run, a report.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use postrider_loadgen::source::{Domains, Phase, Source, SourcePlan, SourceReport};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to submit, address and port; the loopback only.
    #[arg(long, value_name = "ADDR")]
    to: SocketAddr,
    /// Messages to offer.
    #[arg(long, required_unless_present = "seconds")]
    messages: Option<u64>,
    /// Seconds during which messages are offered.
    #[arg(long)]
    seconds: Option<f64>,
    /// Messages per second on a fixed schedule; latency counts from the intended start. Without
    /// it, sessions send as fast as they are answered, and latencies are not comparable.
    #[arg(long)]
    rate: Option<f64>,
    /// Connections, over all threads.
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Bytes per message, header block and body.
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// A recipient domain, or `name=weight`; may be given again.
    #[arg(long = "domain", value_name = "NAME[=WEIGHT]", conflicts_with = "domains")]
    named: Vec<String>,
    /// So many recipient domains, d0.test, d1.test and so on.
    #[arg(long, default_value_t = 1)]
    domains: usize,
    /// Recipients per message, at most 100.
    #[arg(long, default_value_t = 1)]
    recipients: usize,
    /// Send the text of a message and the next envelope in one flight, where it is offered.
    #[arg(long)]
    pipelining: bool,
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
    run: u64,
    /// The sequence of the first message.
    #[arg(long, default_value_t = 0)]
    first_sequence: u64,
    /// Decides recipient domains and bodies.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write what became of each recipient to this file, for `loadgen compare`.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let source = Source::start(arguments.plan()?)?;
    if super::wait_until(|| source.is_finished())? {
        source.stop();
    }
    let report = source.join();
    if let Some(path) = &arguments.ledger {
        report.acknowledged.write_to(&mut super::create(path)?)?;
    }
    if arguments.json {
        println!("{:#}", report.to_json());
    } else {
        print_report(&report, arguments.rate.is_none());
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn plan(&self) -> anyhow::Result<SourcePlan> {
        Ok(SourcePlan {
            to: self.to,
            run: self.run,
            first_sequence: self.first_sequence,
            messages: self.messages,
            duration: self.seconds.map(Duration::try_from_secs_f64).transpose()?,
            rate: self.rate,
            sessions: self.sessions,
            threads: self.threads,
            size: self.size,
            domains: self.recipient_domains()?,
            recipients_per_message: self.recipients,
            sender: self.sender.clone(),
            pipelining: self.pipelining,
            messages_per_session: self.messages_per_session,
            reconnect: self.reconnect,
            helo: "source.test".to_owned(),
            seed: self.seed,
        })
    }

    fn recipient_domains(&self) -> anyhow::Result<Domains> {
        if self.named.is_empty() {
            return Ok(Domains::numbered(self.domains, "test")?);
        }
        let mut list = Vec::new();
        for text in &self.named {
            let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
            list.push((name.to_owned(), weight.parse()?));
        }
        Ok(Domains::weighted(list)?)
    }
}

fn print_report(report: &SourceReport, saturation: bool) {
    let sent = &report.sent;
    println!("offered          {:>12}", sent.offered);
    println!("acknowledged     {:>12}", sent.acknowledged);
    println!("tempfailed       {:>12}", sent.tempfailed);
    println!("refused          {:>12}", sent.refused);
    println!("unacknowledged   {:>12}", sent.unacknowledged);
    println!("connections      {:>12}", sent.connections);
    println!("  lost           {:>12}", sent.connection_losses);
    println!("  failed         {:>12}", sent.connect_failures);
    println!("elapsed s        {:>12.3}", report.elapsed.as_secs_f64());
    println!("rate per s       {:>12.1}", report.rate);
    println!("processor s      {:>12.3}", report.cpu_seconds);
    println!();
    println!("{}", super::latency_heading());
    for (phase, values) in report.phases.iter().filter(|(_, values)| !values.is_empty()) {
        println!("{}", super::latency_row(phase.name(), values));
    }
    if saturation {
        println!("(saturation: latencies are not comparable)");
    } else if report.phase(Phase::Slip).value_at_quantile(0.99) > 1_000_000 {
        println!(
            "(the schedule slipped by more than 1 ms: too few sessions, or too little processor)"
        );
    }
    for (text, count) in &report.errors {
        println!("{count:>10} × {text}");
    }
}
