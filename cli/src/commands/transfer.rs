//! `postrider spool export`, `import` and `adopt`: mail from one spool to another, never in both.

use std::process::ExitCode;

use postrider_engine::config::Size;
use postrider_engine::runtime::transfer;
use postrider_engine::runtime::transfer::{
    After, Doubt, ExportOrder, ExportReport, ImportOrder, ImportReport, LeftBehind, Which,
};
use serde_json::{Value, json};

use crate::flags::{SpoolAdoptFlags, SpoolExportFlags, SpoolImportFlags};

/// Damaged messages were left behind.
const LEFT_SOME_BEHIND: u8 = 1;

pub(crate) fn export(flags: &SpoolExportFlags) -> anyhow::Result<ExitCode> {
    let which = match &*flags.messages {
        [] => Which::All,
        these => Which::These(these.to_vec()),
    };
    let after = if flags.give_up { After::GiveUp } else { After::Keep };
    let order = ExportOrder { spool: flags.path.clone(), to: flags.to.clone(), which, after };
    let report = transfer::export(&order)?;
    if flags.json {
        println!("{}", export_json(&report));
    } else {
        print!("{}", export_text(&report, &order));
    }
    Ok(exit_code(&report.left_behind))
}

pub(crate) fn import(flags: &SpoolImportFlags) -> anyhow::Result<ExitCode> {
    let doubt = if flags.accept_duplicates { Doubt::Accept } else { Doubt::Refuse };
    let order = ImportOrder { spool: flags.path.clone(), from: flags.from.clone(), doubt };
    let report = transfer::import(&order)?;
    if flags.json {
        println!("{}", import_json(&report));
    } else {
        print!("{}", import_text(&report, &order));
    }
    Ok(exit_code(&report.left_behind))
}

pub(crate) fn adopt(flags: &SpoolAdoptFlags) -> anyhow::Result<ExitCode> {
    transfer::adopt(&flags.path)?;
    println!(
        "{} is a spool of its own now; never start what it was copied from",
        flags.path.display()
    );
    Ok(ExitCode::SUCCESS)
}

fn exit_code(left_behind: &[LeftBehind]) -> ExitCode {
    if left_behind.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(LEFT_SOME_BEHIND) }
}

fn export_text(report: &ExportReport, order: &ExportOrder) -> String {
    let (to, spool) = (order.to.display(), order.spool.display());
    let mut text = match &report.archive {
        None => "there is nothing to export: no archive was written\n".to_owned(),
        Some(archive) => format!(
            "{to}: archive {archive}, {} messages to {} recipients, {}\n",
            report.messages,
            report.recipients,
            Size(report.bytes)
        ),
    };
    text += match (&report.archive, order.after, report.was_ended) {
        (None, ..) => "",
        (_, After::Keep, _) => "a backup: the spool goes on sending what is in it\n",
        (_, After::GiveUp, true) => "an earlier export, cut short, is ended now; ",
        (_, After::GiveUp, false) => "",
    };
    if report.archive.is_some() && order.after == After::GiveUp {
        text +=
            &format!("{spool} never sends these again; import the archive where they are to go\n");
    }
    text + &left_behind_text(&report.left_behind)
}

fn import_text(report: &ImportReport, order: &ImportOrder) -> String {
    format!(
        "{}: {} messages to {} recipients from archive {}; the next start delivers them\n{}",
        order.spool.display(),
        report.names.len(),
        report.recipients,
        report.archive,
        left_behind_text(&report.left_behind)
    )
}

fn left_behind_text(left_behind: &[LeftBehind]) -> String {
    left_behind.iter().map(|left| format!("left behind: {}\n", left.cause)).collect()
}

fn export_json(report: &ExportReport) -> Value {
    json!({
        "archive": report.archive,
        "messages": report.messages,
        "recipients": report.recipients,
        "bytes": report.bytes,
        "ended_earlier_export": report.was_ended,
        "left_behind": left_behind_json(&report.left_behind),
    })
}

fn import_json(report: &ImportReport) -> Value {
    let names: Vec<Value> = report
        .names
        .iter()
        .map(|(before, now)| json!({ "before": before.to_string(), "now": now.to_string() }))
        .collect();
    json!({
        "archive": report.archive,
        "messages": report.names.len(),
        "recipients": report.recipients,
        "names": names,
        "left_behind": left_behind_json(&report.left_behind),
    })
}

fn left_behind_json(left_behind: &[LeftBehind]) -> Vec<Value> {
    left_behind
        .iter()
        .map(|left| {
            let message = left.message.map(|id| id.to_string());
            json!({ "message": message, "cause": left.cause })
        })
        .collect()
}
