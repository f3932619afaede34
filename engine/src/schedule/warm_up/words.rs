//! What an operator is told of a warm-up: each day that begins and why, and where it stands.

use super::Standing;
use super::curve::{self, Verdict, cap_of};
use crate::base::cell::{DayCount, DayKey, Receiver, Tally};
use crate::base::time::Now;
use crate::model::admin::{Binding, WarmUpReport};
use crate::model::settings::WarmUp;
use crate::schedule::binding::{origin_of, plain};
use crate::schedule::path::Path;
use crate::schedule::site::Site;
use crate::schedule::{Action, Scheduler, answers};
use crate::shard::Fact;

impl Scheduler {
    /// A day begins, or the warm-up is over.
    pub(super) fn tell_turn(
        &mut self,
        curve: &WarmUp,
        key: &DayKey,
        before: (DayCount, Tally),
        day: DayCount,
    ) {
        self.tell_warm_up(key, turned(curve, before, day));
    }

    pub(super) fn tell_warm_up(&mut self, key: &DayKey, change: String) {
        self.actions.push_back(Action::Report(Fact::WarmUp {
            source: key.source.clone(),
            receiver: called(&key.receiver).into(),
            change: change.into(),
        }));
    }

    /// Why a path waits for tomorrow.
    pub(in crate::schedule) fn warm_up_binding(
        &self,
        now: Now,
        site: &Site,
        path: Option<&Path>,
    ) -> Binding {
        let Some((path, Standing { day, cap, .. })) =
            path.and_then(|path| Some((path, self.standing(now, path)?)))
        else {
            return plain("warm_up", "the warm-up day of its source is full".to_owned());
        };
        let source = self.roster.source_at(path.source);
        let receiver = match &site.provider {
            Some(provider) => format!("provider {provider}"),
            None => format!("site {}", site.key().name()),
        };
        let step = u32::from(day.step) + 1;
        let (name, sent) = (&source.name, day.sent);
        let origin = source.settings.as_ref().map(|settings| origin_of(&settings.origin));
        let text =
            format!("warm-up day {step} of source {name} at {receiver}: {sent} of {cap} messages");
        Binding {
            limit: Some(cap.into()),
            used: Some(sent.into()),
            origin,
            ..plain("warm_up", text)
        }
    }

    /// Where a path stands in its warm-up.
    pub(in crate::schedule) fn warm_up_report(
        &self,
        now: Now,
        path: &Path,
    ) -> Option<WarmUpReport> {
        let Standing { day, cap, until } = self.standing(now, path)?;
        let tally = path.day.as_ref()?.tally(day.date);
        Some(WarmUpReport {
            day: u32::from(day.step) + 1,
            days: self.curve_of(path.source)?.days.len() as u64,
            limit: cap,
            sent: day.sent,
            answers: tally.answers,
            bad_answers: tally.bad,
            until_seconds: answers::seconds(now, until),
        })
    }
}

/// A change of day, with its evidence.
fn turned(curve: &WarmUp, (before, tally): (DayCount, Tally), day: DayCount) -> String {
    let number = |day: DayCount| u32::from(day.step) + 1;
    let begins = match cap_of(curve, day.step) {
        Some(cap) => format!("day {} of {}, {cap} messages", number(day), curve.days.len()),
        None => format!("warm after {} days", curve.days.len()),
    };
    let Tally { answers, bad } = tally;
    let (sent, last) = (before.sent, number(before));
    let evidence = format!("{sent} sent, {bad} of {answers} answers throttled or refused");
    match curve::judge(curve, before, tally) {
        Verdict::Begins => begins,
        Verdict::Counts => format!("{begins}: day {last} counts ({evidence})"),
        Verdict::HardlyUsed => {
            format!("{begins}: again, less than half of it was sent ({evidence})")
        }
        Verdict::Frozen => {
            let most = curve.freeze_percent;
            format!("{begins}: again, more than {most} % went badly ({evidence})")
        }
    }
}

fn called(receiver: &Receiver) -> String {
    match receiver {
        Receiver::Provider(name) => format!("provider {name}"),
        Receiver::Site(name) => format!("site {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::Overflow;

    #[test]
    fn a_change_of_day_is_told_with_its_evidence() {
        let days = vec![50, 100];
        let curve =
            WarmUp { days, overflow: Overflow::Pool, freeze_percent: 10, freeze_sample: 50 };
        let told = |before: DayCount, tally: Tally| {
            let day = curve::standing(&curve, before, tally, before.date + 1);
            turned(&curve, (before, tally), day)
        };
        let day = |step, sent| DayCount { date: 20_000, step, sent };
        let good = Tally { answers: 50, bad: 1 };
        assert_eq!(told(DayCount::default(), Tally::default()), "day 1 of 2, 50 messages");
        let evidence = "sent, 1 of 50 answers throttled or refused";
        assert_eq!(
            told(day(0, 50), good),
            format!("day 2 of 2, 100 messages: day 1 counts (50 {evidence})")
        );
        assert_eq!(
            told(day(0, 3), good),
            format!("day 1 of 2, 50 messages: again, less than half of it was sent (3 {evidence})")
        );
        assert_eq!(
            told(day(1, 90), good),
            format!("warm after 2 days: day 2 counts (90 {evidence})")
        );
        assert_eq!(
            told(day(1, 90), Tally { answers: 80, bad: 20 }),
            "day 2 of 2, 100 messages: again, more than 10 % went badly \
             (90 sent, 20 of 80 answers throttled or refused)"
        );
    }
}
