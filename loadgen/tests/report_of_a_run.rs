//! Pages and comparisons of whole runs on disk: what they show, and that no file can make them fail badly.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod runs;

use std::fs;
use std::path::Path;

use postrider_loadgen::report::compare::{Figure, Side, Standing, Verdict};
use postrider_loadgen::report::{self, Comparison, Measured};
use postrider_loadgen::run::manifest::LoadKind;
use postrider_loadgen::run::{INTERVALS_FILE, MANIFEST_FILE};
use proptest::prelude::*;
use runs::{HOSTILE, Made};

/// What a page may take, also after an hour.
const PAGE_BYTES_MAX: usize = 2 << 20;

/// The page and the picture of a run.
fn report(folder: &Path) -> (String, String) {
    let run = Measured::read(folder).unwrap();
    let page = folder.join("run.html");
    let picture = report::write_run(&run, &page).unwrap();
    (fs::read_to_string(page).unwrap(), fs::read_to_string(picture).unwrap())
}

#[test]
fn the_page_of_a_run_shows_everything_and_takes_nothing_from_outside() {
    let folder = tempfile::tempdir().unwrap();
    Made { sweep: true, ..Made::default() }.write(folder.path());
    let (page, picture) = report(folder.path());
    for id in ["spectrum", "over-time", "heat-map", "sweep", "breakdown"] {
        assert!(page.contains(&format!("<title id=\"{id}-title\">")), "{id} is missing");
    }
    for text in ["Valid.", "p99.9&lt;100ms", "held", "try again later", "knee: ", "6.1.0"] {
        assert!(page.contains(text) || page.contains(&text.replace("&lt;", "&#60;")), "{text}");
    }
    for text in [&page, &picture] {
        let links = ["src=", "href=", "url(", "@import", "<script", "<link", "<img", "<iframe"];
        let found: Vec<_> = links.iter().filter(|link| text.contains(**link)).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn a_hostile_reply_is_shown_and_not_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let mut manifest =
        Made { invalid: vec![HOSTILE.to_owned()], ..Made::default() }.write(folder.path());
    manifest.load.schedule = HOSTILE.to_owned();
    manifest.load.sizes = HOSTILE.to_owned();
    manifest.command = vec![HOSTILE.to_owned()];
    manifest.target = Some(HOSTILE.to_owned());
    manifest.machine.processor = HOSTILE.to_owned();
    manifest.requirements[0].text = format!("p99<5ms {HOSTILE}");
    let text = serde_json::to_string(&manifest).unwrap();
    fs::write(folder.path().join(MANIFEST_FILE), text).unwrap();
    let (page, picture) = report(folder.path());
    for text in [&page, &picture] {
        assert!(!text.contains("<script"), "a script came through");
        let is_wild = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(is_wild), "a control character came through");
    }
    assert!(page.matches("script").count() >= 6);
}

#[test]
fn an_invalid_run_and_saturation_say_so_first() {
    let folder = tempfile::tempdir().unwrap();
    let made = Made {
        invalid: vec!["slip p99 14 ms is above 1 ms".to_owned()],
        kind: LoadKind::Saturation,
        ..Made::default()
    };
    made.write(folder.path());
    let (page, picture) = report(folder.path());
    let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text}"));
    assert!(place("INVALID.") < place("slip p99 14 ms"));
    assert!(place("latencies are not comparable") < place("<svg"));
    assert!(picture.contains("INVALID"));
    let text = report::run_text(&Measured::read(folder.path()).unwrap());
    assert!(text.starts_with("INVALID"), "{text}");
    assert!(text.contains("saturation"), "{text}");
}

#[test]
fn the_page_of_an_hour_stays_small() {
    let folder = tempfile::tempdir().unwrap();
    Made { seconds: 3600, per_second: 60, only: Some("message"), ..Made::default() }
        .write(folder.path());
    let (page, picture) = report(folder.path());
    assert!(page.len() < PAGE_BYTES_MAX, "{} bytes", page.len());
    assert!(picture.len() < PAGE_BYTES_MAX / 4, "{} bytes", picture.len());
}

#[test]
fn a_run_in_which_nothing_was_answered_has_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = Made::default().write(folder.path());
    manifest.phases.clear();
    manifest.seconds.clear();
    manifest.steps.clear();
    let text = serde_json::to_string(&manifest).unwrap();
    fs::write(folder.path().join(MANIFEST_FILE), text).unwrap();
    fs::write(folder.path().join(INTERVALS_FILE), "#nothing\n").unwrap();
    let (page, picture) = report(folder.path());
    assert!(page.contains("nothing was measured") && picture.contains("</svg>"));
}

#[test]
fn broken_files_are_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let error = |name: &str, text: &[u8]| {
        Made { seconds: 2, ..Made::default() }.write(folder.path());
        fs::write(folder.path().join(name), text).unwrap();
        let error = Measured::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        error
    };
    assert!(error(INTERVALS_FILE, b"").contains("empty"));
    assert!(error(INTERVALS_FILE, b"Tag=dot,0.0,1.0").contains("cut off"));
    assert!(error(INTERVALS_FILE, b"#[Histogram log format version 2.0]\n").contains("2.0"));
    assert!(error(MANIFEST_FILE, b"").contains("not the manifest"));
    assert!(error(MANIFEST_FILE, b"{\"format\": 9}").contains("newer"));
    assert!(error(MANIFEST_FILE, b"\xff\xfe").contains("cannot read"));
    fs::remove_file(folder.path().join(MANIFEST_FILE)).unwrap();
    assert!(Measured::read(folder.path()).unwrap_err().to_string().contains("cannot read"));
}

/// Runs of both sides in turn, a minute apart.
fn sides(folder: &Path, slowness: (f64, f64)) -> (Side, Side) {
    for number in 0..5u32 {
        for (side, slowness, late) in [("a", slowness.0, 0.0), ("b", slowness.1, 60.0)] {
            let started = 1_795_390_000.0 + 120.0 * f64::from(number) + late;
            let seed = 3 * u64::from(number) + u64::from(late > 0.0) + 1;
            let made = Made { seconds: 10, started, slowness, seed, ..Made::default() };
            let mut manifest = made.write(&folder.join(side).join(number.to_string()));
            manifest.load.seed = u64::from(number);
            let text = serde_json::to_string(&manifest).unwrap();
            fs::write(folder.join(side).join(number.to_string()).join(MANIFEST_FILE), text)
                .unwrap();
        }
    }
    (Side::read(&folder.join("a")).unwrap(), Side::read(&folder.join("b")).unwrap())
}

#[test]
fn a_slower_build_is_found_out_and_an_equal_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = sides(folder.path(), (1.0, 1.4));
    let comparison = Comparison::new(a, b);
    assert_eq!(comparison.standing, Standing::Sound);
    assert_eq!(comparison.differences, []);
    for figure in [Figure::P50, Figure::P99] {
        assert_eq!(comparison.delta(figure).unwrap().verdict, Verdict::Worse, "{figure:?}");
    }
    let page = folder.path().join("compare.html");
    report::write_comparison(&comparison, &page).unwrap();
    let text = fs::read_to_string(page).unwrap();
    assert!(text.contains("worse") && text.contains("overlay-title"));
    let table = report::comparison_text(&comparison);
    assert!(table.contains("p99.9") && table.contains("no difference seen"), "{table}");

    let (a, b) = sides(folder.path(), (1.0, 1.0));
    let comparison = Comparison::new(a, b);
    assert_eq!(comparison.delta(Figure::P50).unwrap().verdict, Verdict::NoDifferenceSeen);
}

#[test]
fn invalid_runs_are_not_compared() {
    let folder = tempfile::tempdir().unwrap();
    let (_, b) = sides(folder.path(), (1.0, 1.4));
    let invalid = vec!["the generator was busy".to_owned()];
    Made { invalid, ..Made::default() }.write(&folder.path().join("a").join("0"));
    let a = Side::read(&folder.path().join("a")).unwrap();
    let comparison = Comparison::new(a, b);
    assert_eq!(comparison.standing, Standing::TooFew { before: 4, after: 5 });
    let told = report::comparison_text(&comparison);
    assert!(told.contains("left out") && told.contains("not enough runs"), "{told}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A changed digit of the manifest is another manifest; whatever it says is drawn or refused.
    #[test]
    fn a_damaged_manifest_is_an_error_or_a_page(
        at: prop::sample::Index, flip in 1u8.., digit in "[0-9e]{1,4}",
    ) {
        let folder = tempfile::tempdir().unwrap();
        Made { seconds: 3, per_second: 20, sweep: true, ..Made::default() }.write(folder.path());
        let file = folder.path().join(MANIFEST_FILE);
        let mut bytes = fs::read(&file).unwrap();
        let at = at.index(bytes.len());
        if bytes[at].is_ascii_digit() {
            bytes.splice(at..at, digit.bytes());
        } else {
            bytes[at] ^= flip;
        }
        fs::write(&file, bytes).unwrap();
        if let Ok(run) = Measured::read(folder.path()) {
            report::write_run(&run, &folder.path().join("run.html")).unwrap();
            report::run_text(&run);
        }
    }
}
