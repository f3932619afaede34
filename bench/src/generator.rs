//! The question of the generator: what source and sink cost, beside smtp-source and smtp-sink of Postfix.
//!
//! Nothing stands between them: this is what every other run pays besides what it measures.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use postrider_loadgen::clock;

use crate::cpu;
use crate::figures::Figures;
use crate::run::{Direct, Scenario, Stand, number, pause};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Runs of each.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Messages of a run.
    #[arg(long, default_value_t = 50_000)]
    messages: u64,
    /// Connections.
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// Fail unless the generator costs at most half of Postfix's.
    #[arg(long)]
    require: bool,
}

/// The longest wait for a sink to listen.
const LISTEN_WAIT_MAX: Duration = Duration::from_secs(10);
/// Connections that smtp-sink lets wait.
const BACKLOG: &str = "1000";

/// What one pair of source and sink does, and takes.
struct Cost {
    rate: f64,
    cpu_us: f64,
}

#[derive(Default)]
struct Costs {
    rates: Figures,
    cpu_us: Figures,
}

impl Costs {
    fn add(&mut self, cost: &Cost) {
        self.rates.push(cost.rate);
        self.cpu_us.push(cost.cpu_us);
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let (mut theirs, mut ours, mut ratios) =
        (Costs::default(), Costs::default(), Figures::default());
    for round in 1..=options.rounds {
        let (their, our) = pair(options, round)?;
        println!("round {round}: postfix {:.1} us, loadgen {:.1} us", their.cpu_us, our.cpu_us);
        ratios.push(our.cpu_us / their.cpu_us);
        theirs.add(&their);
        ours.add(&our);
    }
    print(options, [("smtp-source, smtp-sink", &theirs), ("loadgen", &ours)]);
    let by_medians = ours.cpu_us.median() / theirs.cpu_us.median();
    println!("CPU per message, ours by theirs, pair by pair: {}", ratios.show(3));
    println!("median by median: {by_medians:.3}");
    if options.require && by_medians > 0.5 {
        bail!("the generator costs more than half of smtp-source and smtp-sink");
    }
    Ok(())
}

/// Who is first changes from round to round.
fn pair(options: &Options, round: usize) -> Result<(Cost, Cost)> {
    if round % 2 == 1 {
        let theirs = run_theirs(options)?;
        return Ok((theirs, run_ours(options)?));
    }
    let ours = run_ours(options)?;
    Ok((run_theirs(options)?, ours))
}

fn run_ours(options: &Options) -> Result<Cost> {
    let scenario = Scenario::relay(options.messages, options.sessions, options.size);
    let before = cpu_seconds()?;
    let stand = Stand::new(&scenario, |hosts| Ok(Direct::to(hosts)))?;
    let sent = stand.send()?;
    let rate = stand.finish(sent)?.rate;
    cost(options, rate, before)
}

fn run_theirs(options: &Options) -> Result<Cost> {
    let address = free_address()?;
    let before = cpu_seconds()?;
    let sink = Tool::start("smtp-sink", &["-u", "root", &address.to_string(), BACKLOG])?;
    wait_for(address)?;
    let started = clock::now_ns();
    let Options { sessions, size, messages, .. } = options;
    let counts = [sessions.to_string(), size.to_string(), messages.to_string()];
    let [sessions, size, messages] = counts.each_ref().map(String::as_str);
    let envelope = ["-f", "a@source.test", "-t", "b@example.test"];
    let load = ["-d", "-s", sessions, "-l", size, "-m", messages];
    let to = address.to_string();
    let source = Tool::start("smtp-source", &[&load[..], &envelope, &[&to]].concat())?;
    source.wait()?;
    let seconds = clock::seconds(clock::now_ns() - started);
    drop(sink);
    cost(options, number(options.messages) / seconds, before)
}

/// Of this process, which is source and sink of ours, with all that it started and has waited for.
fn cpu_seconds() -> Result<f64> {
    cpu::seconds_of_tree(std::process::id())
}

fn cost(options: &Options, rate: f64, before: f64) -> Result<Cost> {
    let cpu_us = (cpu_seconds()? - before) * 1e6 / number(options.messages);
    Ok(Cost { rate, cpu_us })
}

fn print(options: &Options, costs: [(&str, &Costs); 2]) {
    let Options { messages, sessions, size, .. } = options;
    println!(
        "\ngenerator: {messages} messages of {size} bytes, {sessions} sessions, no pipelining"
    );
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "min / median / max",
        "messages/s",
        "CPU us per message",
    ]);
    for (name, costs) in costs {
        table.add_row([name.to_owned(), costs.rates.show(0), costs.cpu_us.show(1)]);
    }
    println!("{table}");
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn wait_for(address: SocketAddr) -> Result<()> {
    let started = clock::now_ns();
    while TcpStream::connect(address).is_err() {
        if clock::now_ns() - started > clock::nanos(LISTEN_WAIT_MAX) {
            bail!("smtp-sink does not listen on {address}");
        }
        pause(Duration::from_millis(10));
    }
    Ok(())
}

/// A program of Postfix's package; ended when dropped.
struct Tool(Child);

impl Tool {
    fn start(name: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(name);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let missing = || format!("cannot start {name}: apt-get install postfix");
        command.spawn().map(Self).with_context(missing)
    }

    fn wait(mut self) -> Result<()> {
        let status = self.0.wait()?;
        if !status.success() {
            bail!("smtp-source ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // It may have ended by itself, and its time counts once it has been waited for.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
