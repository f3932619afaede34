//! Answers of an engine as people read them.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use postrider_engine::model::admin::{
    Amounts, Binding, Door, MessageReport, PartReport, PartState, PathReport, QueueReport,
    SiteList, SiteReport, Steered, Verb, WarmUpReport,
};

use crate::flags::admin::Order;

/// What does not fit a line of a list; `site show` tells all of it.
const NAME_CHARS: usize = 48;

pub(super) fn sites(list: &SiteList) {
    if list.sites.is_empty() {
        return println!("no site holds mail");
    }
    let header = ["SITE", "READY", "DEFERRED", "IN FLIGHT", "CONNECTIONS", "WAITS FOR"];
    let mut table = table(&header, 1..5);
    for line in &list.sites {
        let [ready, deferred, in_flight] = figures(&line.amounts);
        let connections = format!("{} of {}", line.connections, line.connections_max);
        let why = line.waits_for.as_ref().map(brief).unwrap_or_default();
        table.add_row([short(&line.site), ready, deferred, in_flight, connections, why]);
    }
    println!("{table}");
    println!("{}", sum(&list.total));
    left_out(list.left_out, "sites");
}

pub(super) fn site(sites: &[SiteReport]) {
    for report in sites {
        println!("site        {}", report.site);
        println!("queue       {}", sum(&report.amounts));
        let SiteReport { connections, connections_max, origin, .. } = report;
        println!("connections {connections} of {connections_max}, set by {origin}");
        say("provider", report.provider.as_deref());
        say("waits for", report.waits_for.as_ref().map(whole).as_deref());
        let next = report.next_try_seconds.map(|seconds| format!("in {}", time(seconds)));
        say("next try", next.as_deref());
        say("last reply", report.last_reply.as_deref());
        println!("owner       shard {}", report.shard);
        paths(&report.paths);
        println!();
    }
}

fn paths(paths: &[PathReport]) {
    if paths.is_empty() {
        return;
    }
    let header =
        ["FROM", "CONNECTIONS", "WINDOW", "IN FLIGHT", "RATE LEARNED", "DOOR", "WAITS FOR"];
    let mut table = table(&header, 1..5);
    for path in paths {
        let rate = path.learned_rate.map(|rate| format!("{rate:.3}/s")).unwrap_or_default();
        table.add_row([
            source(path).to_owned(),
            path.connections.to_string(),
            path.window.to_string(),
            path.in_flight.to_string(),
            rate,
            door(path),
            path.waits_for.as_ref().map(brief).unwrap_or_default(),
        ]);
    }
    println!("{table}");
    paths.iter().for_each(session_limit);
    paths.iter().for_each(warm_up);
}

fn session_limit(path: &PathReport) {
    if let Some(count) = path.messages_per_connection {
        println!("{}: it ends each connection after {count} messages", source(path));
    }
}

fn source(path: &PathReport) -> &str {
    if path.source.is_empty() { "(kernel's choice)" } else { &path.source }
}

fn warm_up(path: &PathReport) {
    let Some(WarmUpReport { day, days, limit, sent, answers, bad_answers, until_seconds }) =
        path.warm_up
    else {
        return;
    };
    let (source, left) = (&path.source, time(until_seconds));
    println!(
        "{source} warms up: day {day} of {days}, {sent} of {limit} messages, \
         {bad_answers} of {answers} answers throttled or refused, {left} left"
    );
}

fn door(path: &PathReport) -> String {
    match (path.door, path.door_until_seconds) {
        (Door::Open, _) => "open".to_owned(),
        (Door::Probing, _) => "probing".to_owned(),
        (Door::Closed, Some(seconds)) => format!("closed for {}", time(seconds)),
        (Door::Closed, None) => "closed".to_owned(),
    }
}

pub(super) fn queue(report: &QueueReport) {
    if report.flows.is_empty() {
        println!("the queue is empty");
    } else {
        let header = ["CLASS", "TENANT", "CAMPAIGN", "READY", "DEFERRED", "IN FLIGHT"];
        let mut table = table(&header, 3..6);
        for line in &report.flows {
            let [ready, deferred, in_flight] = figures(&line.amounts);
            let (tenant, campaign) = (short(&line.tenant), short(&line.campaign));
            table.add_row([line.class.clone(), tenant, campaign, ready, deferred, in_flight]);
        }
        println!("{table}");
        println!("{}", sum(&report.total));
        flows_left_out(report);
    }
    for hold in &report.holds {
        let until = hold.until_seconds.map(|seconds| format!(" for {} more", time(seconds)));
        println!("{} is held by {}{}", hold.scope, hold.by, until.unwrap_or_default());
    }
}

pub(super) fn message(report: &MessageReport) {
    println!("message  {}", report.message);
    println!("class    {}", report.class);
    if !report.tenant.is_empty() || !report.campaign.is_empty() {
        println!("tenant   {:?}, campaign {:?}", report.tenant, report.campaign);
    }
    println!("accepted {} ago, {} bytes", time(report.age_seconds), report.bytes);
    report.parts.iter().for_each(part);
}

fn part(part: &PartReport) {
    let PartReport { domain, recipients, attempts, .. } = part;
    println!("\n{recipients} to {domain}: {}, {attempts} attempts failed", state(part.state));
    let next = part.next_try_seconds.filter(|seconds| *seconds > 0);
    say("  next try", next.map(|seconds| format!("in {}", time(seconds))).as_deref());
    say("  site", part.site.as_deref());
    say("  waits for", part.waits_for.as_ref().map(whole).as_deref());
    say("  site said", part.site_last_reply.as_deref());
}

fn state(state: PartState) -> &'static str {
    match state {
        PartState::Routing => "its site is being looked up",
        PartState::Ready => "ready",
        PartState::Deferred => "deferred",
        PartState::InFlight => "on a connection",
    }
}

/// What was done, or would be.
pub(super) fn steered(order: &Order<'_>, steered: &Steered) {
    let Steered { amounts, sites, dry_run, .. } = steered;
    let verb = match (order.verb, dry_run) {
        (verb, true) => format!("would {}", verb.name()),
        (Verb::Hold, false) => "held".to_owned(),
        (Verb::Release, false) => "released".to_owned(),
        (Verb::Flush, false) => "flushed".to_owned(),
        (Verb::Cancel, false) => "cancelled".to_owned(),
        (Verb::Reroute, false) => "rerouted".to_owned(),
    };
    let Amounts { ready, deferred, in_flight } = amounts;
    println!(
        "{verb} {}: {} deliveries at {sites} sites ({ready} ready, {deferred} deferred)",
        order.reach,
        amounts.waiting()
    );
    if *in_flight > 0 && matches!(order.verb, Verb::Hold | Verb::Cancel) {
        println!("{in_flight} are under way and go on");
    }
}

fn table(header: &[&str], numbers: std::ops::Range<usize>) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn figures(amounts: &Amounts) -> [String; 3] {
    [amounts.ready, amounts.deferred, amounts.in_flight].map(|figure| figure.to_string())
}

fn sum(amounts: &Amounts) -> String {
    let Amounts { ready, deferred, in_flight } = amounts;
    format!("{ready} ready, {deferred} deferred, {in_flight} in flight")
}

fn left_out(count: u64, what: &str) {
    if count > 0 {
        println!("and {count} more {what}: see --top");
    }
}

fn flows_left_out(report: &QueueReport) {
    if report.at_least {
        println!(
            "and up to {} more flows; more of the mail may be of the flows above than they say, for a \
             shard tells of no more than a thousand",
            report.left_out
        );
    } else {
        left_out(report.left_out, "flows");
    }
}

fn say(what: &str, text: Option<&str>) {
    if let Some(text) = text {
        println!("{what:<11} {text}");
    }
}

/// A limit in a few words.
fn brief(binding: &Binding) -> String {
    let used = match (binding.used, binding.limit) {
        (Some(used), Some(limit)) => format!(" {used} of {limit}"),
        _ => String::new(),
    };
    let until = binding.until_seconds.map(|seconds| format!(", {}", time(seconds)));
    format!("{}{used}{}", binding.what.replace('_', " "), until.unwrap_or_default())
}

/// All about a limit.
fn whole(binding: &Binding) -> String {
    let used = match (binding.used, binding.limit) {
        (Some(used), Some(limit)) => format!("; {used} of {limit} in use"),
        _ => String::new(),
    };
    let until = binding.until_seconds.map(|seconds| format!("; for {} more", time(seconds)));
    format!("{}{used}{}", binding.text, until.unwrap_or_default())
}

fn short(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS {
        return name.to_owned();
    }
    let cut: String = name.chars().take(NAME_CHARS - 3).collect();
    format!("{cut}...")
}

/// Seconds as people count them.
fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
