//! `loadgen nameserver`: a zone from flags or a file, answers until a signal.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use postrider_loadgen::nameserver::{Nameserver, Zone};
use postrider_loadgen::sink::SinkHost;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to answer, by UDP and TCP; the loopback only.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5353")]
    listen: SocketAddr,
    /// A zone as text: `NAME mx PREFERENCE HOST`, `NAME a ADDRESS`, or a name with one of null-mx,
    /// address-only, nxdomain, servfail, no-answer; a name a line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["domains", "addresses"])]
    zone: Option<PathBuf>,
    /// So many domains, d0.test, d1.test and so on, dealt out to the addresses.
    #[arg(long, default_value_t = 1)]
    domains: usize,
    /// Addresses of the mail hosts, with commas between them.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1")]
    addresses: Vec<IpAddr>,
    /// The domain of the mail hosts' names.
    #[arg(long, default_value = "hosts.test")]
    mx_base: String,
    /// Seconds that answers may be kept; a zone file has 300 unless this is given.
    #[arg(long)]
    ttl: Option<u32>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let nameserver = Nameserver::start(arguments.listen, arguments.zone()?)?;
    println!("{}", nameserver.address());
    // Whoever started this waits for the line.
    std::io::stdout().flush()?;
    super::wait_until(|| false)?;
    let counts = nameserver.stop()?;
    println!("questions        {:>12}", counts.total());
    println!("  MX             {:>12}", counts.mx);
    println!("  A              {:>12}", counts.a);
    println!("  AAAA           {:>12}", counts.aaaa);
    println!("  other          {:>12}", counts.other);
    println!("left unanswered  {:>12}", counts.unanswered);
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn zone(&self) -> anyhow::Result<Zone> {
        let mut zone = match &self.zone {
            Some(path) => {
                let name = path.display();
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
                Zone::parse(&text).map_err(|error| anyhow::anyhow!("{name}: {error}"))?
            }
            None => self.numbered_zone(),
        };
        if let Some(ttl) = self.ttl {
            zone.ttl = ttl;
            zone.negative_ttl = ttl;
        }
        Ok(zone)
    }

    fn numbered_zone(&self) -> Zone {
        let host = |(index, address): (usize, &IpAddr)| SinkHost {
            name: format!("mx{index}"),
            address: SocketAddr::new(*address, 25),
        };
        let hosts: Vec<_> = self.addresses.iter().enumerate().map(host).collect();
        let domains: Vec<_> = (0..self.domains).map(|index| format!("d{index}.test")).collect();
        Zone::for_hosts(domains.iter().map(String::as_str), &hosts, &self.mx_base)
    }
}
