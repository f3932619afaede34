//! `postrider demo`: a whole mail world on the loopback, and the proof that nothing was lost.

mod report;
mod show;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use report::Report;
use show::Show;
use world::{Plan, World};

use crate::flags::DemoFlags;

/// How often the live lines are drawn and the end is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs the demo. The exit code is 0 only if nothing was lost and no limit was passed.
pub(crate) fn run(flags: &DemoFlags) -> Result<ExitCode> {
    let (json, messages) = (flags.json, flags.messages);
    let plan = Plan::new(messages);
    let mut world = World::start(&plan)?;
    let show = Show::new(json, messages);
    while !world.is_at_rest() {
        world.play();
        show.draw(&world.glance());
        world.wait(LOOK_EVERY);
    }
    show.finish();
    let report = Report::new(&plan, world.end()?);
    report.print(json)?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
