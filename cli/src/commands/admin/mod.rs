//! `postrider site`, `queue` and `message`: what a running engine holds, and what is to become of it.

mod client;
mod show;

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::bail;
use postrider_engine::model::admin::{
    MessageReport, QueueReport, SiteList, SiteReport, SteerRequest, Steered, Verb,
};

use crate::flags::admin::{
    EngineFlags, ListFlags, MessageCommand, MessageFlags, Order, QueueCommand, QueueFlags,
    SiteCommand, SiteFlags,
};
use client::Client;

/// Runs a `site` command.
pub(crate) fn site(flags: &SiteFlags) -> anyhow::Result<ExitCode> {
    match &flags.command {
        SiteCommand::List(ListFlags { top, engine }) => {
            ask::<SiteList>(engine, &format!("/v1/sites?top={top}"), show::sites)
        }
        SiteCommand::Show(flags) => {
            let path = format!("/v1/sites/{}", client::in_path(&flags.name));
            ask::<Vec<SiteReport>>(&flags.engine, &path, |sites| show::site(sites))
        }
        SiteCommand::Hold(flags) => steer(&flags.site.order(Verb::Hold, flags.lasts.lasts)),
        SiteCommand::Release(flags) => steer(&flags.order(Verb::Release, None)),
        SiteCommand::Flush(flags) => steer(&flags.order(Verb::Flush, None)),
    }
}

/// Runs a `queue` command.
pub(crate) fn queue(flags: &QueueFlags) -> anyhow::Result<ExitCode> {
    match &flags.command {
        QueueCommand::List(ListFlags { top, engine }) => {
            ask::<QueueReport>(engine, &format!("/v1/queue?top={top}"), show::queue)
        }
        QueueCommand::Hold(flags) => steer(&flags.queue.order(Verb::Hold, flags.lasts.lasts)),
        QueueCommand::Release(flags) => steer(&flags.order(Verb::Release, None)),
        QueueCommand::Flush(flags) => steer(&flags.order(Verb::Flush, None)),
        QueueCommand::Reroute(flags) => steer(&flags.order(Verb::Reroute, None)),
        QueueCommand::Cancel(flags) => {
            let asks = !flags.yes && !flags.queue.how.dry_run;
            steer(&Order { asks, ..flags.queue.order(Verb::Cancel, None) })
        }
    }
}

/// Runs a `message` command.
pub(crate) fn message(flags: &MessageFlags) -> anyhow::Result<ExitCode> {
    let MessageCommand::Show(flags) = &flags.command;
    ask::<MessageReport>(&flags.engine, &format!("/v1/messages/{}", flags.id), show::message)
}

fn ask<T>(engine: &EngineFlags, path: &str, show: impl Fn(&T)) -> anyhow::Result<ExitCode>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let answer: T = Client::of(&engine.at)?.get(path)?;
    print(engine, &answer, show)
}

fn print<T>(engine: &EngineFlags, answer: &T, show: impl Fn(&T)) -> anyhow::Result<ExitCode>
where
    T: serde::Serialize,
{
    if engine.json {
        println!("{}", serde_json::to_string_pretty(answer)?);
    } else {
        show(answer);
    }
    Ok(ExitCode::SUCCESS)
}

fn steer(order: &Order<'_>) -> anyhow::Result<ExitCode> {
    let engine = &order.how.engine;
    let client = Client::of(&engine.at)?;
    let path = format!("/v1/{}", order.verb.name());
    let request = SteerRequest {
        scope: order.reach.clone(),
        dry_run: order.how.dry_run,
        for_seconds: order.lasts.map(|lasts| lasts.as_secs()),
        reason: order.how.reason.as_str().into(),
    };
    if order.asks {
        let would: Steered =
            client.post(&path, &SteerRequest { dry_run: true, ..request.clone() })?;
        agree(order, &would)?;
    }
    let steered: Steered = client.post(&path, &request)?;
    print(engine, &steered, |steered| show::steered(order, steered))?;
    match &steered.not_kept {
        Some(why) => bail!("{why}; give the order again once that is mended"),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Asks the user, if there is one.
fn agree(order: &Order<'_>, would: &Steered) -> anyhow::Result<()> {
    show::steered(order, would);
    if !io::stdin().is_terminal() {
        bail!("nothing is done: this cannot be undone, say --yes if it is meant");
    }
    print!("this cannot be undone; type yes to go on: ");
    io::stdout().flush()?;
    let mut said = String::new();
    io::stdin().lock().read_line(&mut said)?;
    if said.trim() != "yes" {
        bail!("nothing is done");
    }
    Ok(())
}
