//! `loadgen sink`: flags to a plan, a run until a signal or silence, a report.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use postrider_loadgen::loopback;
use postrider_loadgen::sink::{Behaviour, Capabilities, Sink, SinkHost, SinkPlan, SinkReport};

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
    #[arg(long, default_value = "accept")]
    behaviour: Behaviour,
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
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
        Ok(SinkPlan { hosts, threads, capabilities, run })
    }

    /// Tells the hosts what to do.
    pub(crate) fn prepare(&self, sink: &Sink) -> io::Result<()> {
        if self.behaviour != Behaviour::Accept {
            for host in 0..sink.hosts().len() {
                sink.set_behaviour(host, self.behaviour)?;
            }
        }
        Ok(())
    }

    fn listed_hosts(&self) -> Vec<SinkHost> {
        let host = |(index, address): (usize, &SocketAddr)| SinkHost {
            name: format!("mx{index}"),
            address: *address,
        };
        self.listen.iter().enumerate().map(host).collect()
    }
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
}
