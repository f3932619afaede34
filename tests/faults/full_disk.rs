//! x
use crate::{Common, End};
#[derive(clap::Args)]
pub(crate) struct Flags {}
pub(crate) fn run(_: &Common, _: &Flags) -> End { End::Skipped("not yet".into()) }
