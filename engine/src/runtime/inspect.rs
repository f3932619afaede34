//! A spool folder looked at without changing it: what is in it, and what a start would make of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::disk::identity::Identity;
use super::disk::{SpoolError, SpoolFolder, Survey};
use super::recovery::groups_of;
use crate::base::time::Wall;
use crate::model::delivery::Delivery;
use crate::model::message::{MessageId, SegmentSeq};
use crate::spool::files::FileId;
use crate::spool::plan::{RecoveredDelivery, plan};
use crate::spool::recovery::{self, Finding, ScanState, ScanSummary};

/// What was found in a spool folder.
#[derive(Debug)]
pub struct SpoolReport {
    /// In the order of their files.
    pub segments: Vec<SegmentReport>,
    /// Files that were not read, with the reason. A start is refused because of each.
    pub refused: Vec<RefusedFile>,
    /// Why a start is refused, beside files: the folder is a copy, or a file is missing.
    pub not_started: Vec<Box<str>>,
    /// Half-made segments, which the next start removes.
    pub unfinished: Vec<PathBuf>,
    pub findings: Vec<Finding>,
    /// What a start would schedule again.
    pub deliveries: usize,
    pub recipients: u64,
    /// What is kept beside the mail: holds, cancels, what was learned, what rules did.
    pub states: usize,
    pub messages: usize,
    /// Those deliveries one by one, in the order in which they would be scheduled.
    pub waiting: Vec<Waiting>,
    /// Whose those messages are, as far as anybody said; the most first.
    pub labelled: Vec<Labelled>,
}

/// The messages of one campaign, or of a tenant that are of none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// Empty: none.
    pub tenant: Box<str>,
    /// Empty: none.
    pub campaign: Box<str>,
    pub messages: usize,
}

/// A delivery as a start would take it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub message: MessageId,
    /// The first of its recipients.
    pub first: u16,
    pub attempts: u16,
    /// `None`: at once.
    pub next_try: Option<Wall>,
}

impl SpoolReport {
    /// Deliveries that were tried before and wait for their next try.
    #[must_use]
    pub fn deferred(&self) -> usize {
        self.waiting.iter().filter(|delivery| delivery.next_try.is_some()).count()
    }

    /// At most `count` of the deliveries, evenly spread over the spool.
    pub fn sample(&self, count: usize) -> impl Iterator<Item = &Waiting> {
        let step = self.waiting.len().div_ceil(count.max(1)).max(1);
        self.waiting.iter().step_by(step).take(count)
    }

    /// Whether there is nothing that somebody must look after. What a crash leaves behind is normal.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let unreadable = self.segments.iter().any(|segment| segment.unreadable_blocks > 0);
        let is_refused = !self.not_started.is_empty() || !self.refused.is_empty();
        !unreadable && !is_refused && !self.findings.iter().any(Finding::is_damage)
    }
}

/// One segment file.
#[derive(Debug)]
pub struct SegmentReport {
    pub file: FileId,
    pub summary: ScanSummary,
    /// Messages that are still to be delivered, to anybody.
    pub live: usize,
    /// Blocks of 4096 bytes that the disk would not give.
    pub unreadable_blocks: usize,
    pub then: Then,
}

/// What a start would do with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Use it for new mail.
    Reuse,
    /// Nothing in it is live: free it, once those are free that its outcomes speak of.
    Recycle,
    /// Keep it for what it tells beside mail, as of a hold, until that is written elsewhere.
    Keep,
    /// Deliver what is live in it.
    Deliver,
}

/// A file that is not a segment this program reads.
#[derive(Debug)]
pub struct RefusedFile {
    pub path: PathBuf,
    pub cause: Box<str>,
}

/// Why a folder cannot be looked at: one line that names the path and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InspectError(String);

/// Reads every record of the spool in `path`. Nothing in it is changed; an engine that would use it
/// is kept away meanwhile.
///
/// # Errors
/// There is no spool, it cannot be read, or an engine holds it.
pub fn inspect(path: &Path) -> Result<SpoolReport, InspectError> {
    let survey = SpoolFolder::survey(path).map_err(|error| InspectError(error.to_string()))?;
    let Survey { folder, foreign, unfinished, missing } = survey;
    let no_segment = |path| RefusedFile { path, cause: "no segment of a spool".into() };
    let mut refused: Vec<RefusedFile> = foreign.into_iter().map(no_segment).collect();
    let (mut segments, mut scans) = (Vec::new(), Vec::new());
    for file in folder.found() {
        match read(&folder, *file) {
            Ok((scan, unreadable_blocks)) => {
                let summary = scan.summary();
                let then = Then::Reuse;
                segments.push(SegmentReport {
                    file: *file,
                    summary,
                    live: 0,
                    unreadable_blocks,
                    then,
                });
                scans.push(scan);
            }
            Err(cause) => refused.push(RefusedFile { path: folder.path_of(*file), cause }),
        }
    }
    let recovered = plan(scans, 1);
    let deliveries = recovered.deliveries.iter().map(|found| &found.delivery);
    let recipients = deliveries.clone().map(|delivery| u64::from(delivery.count)).sum();
    let waiting = recovered.deliveries.iter().map(Waiting::of).collect();
    let mut live: BTreeMap<SegmentSeq, Vec<MessageId>> = BTreeMap::new();
    for delivery in deliveries {
        let messages = live.entry(delivery.place.segment).or_default();
        // Deliveries of one message follow each other.
        if messages.last() != Some(&delivery.message) {
            messages.push(delivery.message);
        }
    }
    for segment in &mut segments {
        segment.live = live.get(&segment.summary.segment).map_or(0, Vec::len);
        segment.then = match segment.summary.state {
            ScanState::Spare | ScanState::HalfFreed => Then::Reuse,
            _ if segment.live > 0 => Then::Deliver,
            _ if recovered.keeps_state_in(segment.summary.segment) => Then::Keep,
            ScanState::Open | ScanState::Sealed => Then::Recycle,
        };
    }
    let is_copy = folder.identity() == Identity::Copied;
    let copied = is_copy.then(|| SpoolError::Copied { path: path.into() });
    let not_started = copied.into_iter().chain(missing).map(|cause| cause.to_string().into());
    Ok(SpoolReport {
        segments,
        not_started: not_started.collect(),
        refused,
        unfinished,
        findings: recovered.findings,
        deliveries: recovered.deliveries.len(),
        recipients,
        states: recovered.states.len(),
        messages: live.values().map(Vec::len).sum(),
        waiting,
        labelled: labelled(&recovered.deliveries),
    })
}

fn labelled(deliveries: &[RecoveredDelivery]) -> Vec<Labelled> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    // Deliveries of one message follow each other.
    for message in deliveries.chunk_by(|one, next| one.delivery.message == next.delivery.message) {
        if let Some(flow) = &message[0].flow {
            *counts.entry((&flow.tenant, &flow.campaign)).or_default() += 1;
        }
    }
    counts.remove(&("", ""));
    let named = counts.into_iter().map(|((tenant, campaign), messages)| Labelled {
        tenant: tenant.into(),
        campaign: campaign.into(),
        messages,
    });
    let mut labelled: Vec<_> = named.collect();
    labelled.sort_by_key(|one| std::cmp::Reverse(one.messages));
    labelled
}

impl Waiting {
    fn of(found: &RecoveredDelivery) -> Self {
        let Delivery { message, first, attempts, .. } = found.delivery;
        Self { message, first, attempts, next_try: found.due }
    }
}

fn read(folder: &SpoolFolder, file: FileId) -> Result<(recovery::SegmentScan, usize), Box<str>> {
    let bytes = folder.read_segment(file).map_err(|error| error.to_string())?;
    let scan = recovery::scan_thoroughly(file, bytes.as_bytes(), groups_of);
    let scan = scan.map_err(|error| error.to_string())?;
    Ok((scan, bytes.unreadable_blocks.len()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::time::Wall;
    use crate::model::connection::ShardId;
    use crate::model::flow::Flow;
    use crate::model::message::Place;
    use crate::spool::segment::new_file_headers;

    const BYTES: u32 = 64 << 10;

    fn spare() -> Vec<u8> {
        let mut file = vec![0; BYTES as usize];
        for (offset, page) in new_file_headers(BYTES, ShardId(0), Wall(1)) {
            file[offset as usize..][..4096].copy_from_slice(page.bytes());
        }
        file
    }

    #[test]
    fn a_folder_is_told_of_and_left_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let segments = home.path().join("segments");
        std::fs::create_dir_all(&segments).unwrap();
        std::fs::write(segments.join("00000000.seg"), spare()).unwrap();
        std::fs::write(segments.join("00000001.new"), b"half").unwrap();
        std::fs::write(segments.join("notes.txt"), b"mine").unwrap();
        std::fs::write(segments.join("00000001.seg"), vec![7; BYTES as usize]).unwrap();
        let report = inspect(home.path()).unwrap();
        assert_eq!(report.segments.len(), 1);
        assert_eq!(report.segments[0].then, Then::Reuse);
        assert_eq!((report.refused.len(), report.unfinished.len()), (2, 1));
        assert!(!report.is_sound());
        assert_eq!(std::fs::read_dir(&segments).unwrap().count(), 4);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "no lock is made");
    }

    #[test]
    fn messages_are_counted_by_whose_they_are() {
        let of = |message: u32, tenant: &str, campaign: &str| {
            let flow = Flow { tenant: tenant.into(), campaign: campaign.into(), ..Flow::default() };
            RecoveredDelivery {
                domain: "a.example".into(),
                flow: (message > 0).then(|| Arc::new(flow)),
                delivery: Delivery {
                    message: MessageId::new(SegmentSeq(1), message),
                    home: ShardId(0),
                    place: Place { segment: SegmentSeq(1), offset: 64, bytes: 64 },
                    in_pieces: 0,
                    first: 0,
                    count: 1,
                    attempts: 0,
                    accepted: Wall(1),
                    record: None,
                },
                due: None,
            }
        };
        let deliveries = [
            of(0, "", ""),
            of(1, "", ""),
            of(2, "a", ""),
            of(3, "b", "x"),
            of(3, "b", "x"),
            of(4, "b", "y"),
            of(5, "b", "y"),
        ];
        let count = |tenant: &str, campaign: &str, messages| Labelled {
            tenant: tenant.into(),
            campaign: campaign.into(),
            messages,
        };
        let expected = [count("b", "y", 2), count("a", "", 1), count("b", "x", 1)];
        assert_eq!(labelled(&deliveries), expected);
    }

    #[test]
    fn a_damaged_header_is_a_finding_and_the_other_holds() {
        let home = tempfile::tempdir().unwrap();
        let segments = home.path().join("segments");
        std::fs::create_dir_all(&segments).unwrap();
        let mut file = spare();
        file[9] ^= 1;
        std::fs::write(segments.join("00000000.seg"), &file).unwrap();
        let report = inspect(home.path()).unwrap();
        assert!(matches!(report.findings[..], [Finding::HeaderDamaged { .. }]));
        assert!(report.findings[0].to_string().starts_with("00000000.seg: one of the two headers"));
        assert!(!report.is_sound());
    }

    #[test]
    fn an_engine_at_work_is_not_disturbed() {
        let home = tempfile::tempdir().unwrap();
        let held = SpoolFolder::open(home.path()).unwrap();
        let refused = inspect(home.path()).unwrap_err().to_string();
        assert!(refused.contains("in use by process"), "{refused}");
        drop(held);
        let report = inspect(home.path()).unwrap();
        assert!(report.is_sound() && report.segments.is_empty());
        assert!(inspect(&home.path().join("nowhere")).is_err());
    }
}
