//! The page of a run in a real browser, and its log in the standard reader of such logs.
//!
//! Both are told where the programs are installed; the gate sets `POSTRIDER_NEED_PEERS`, so that none is
//! left out there.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![expect(clippy::print_stderr, reason = "what is not tested must be said")]

mod runs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use postrider_loadgen::report::{self, Measured};
use runs::{HOSTILE, Made};

/// Where distributions install the reader that the format comes from.
const HDRHISTOGRAM_JAR: &str = "/usr/share/java/hdrhistogram.jar";
/// An empty page of this size has a few thousand.
const SCREENSHOT_BYTES_MIN: u64 = 60_000;

/// A user's choice that no site may run scripts; the browser's own switch for it stops screenshots too.
const NO_SCRIPTS: &str = r#"{"profile":{"default_content_setting_values":{"javascript":2}}}"#;

fn may_be_left_out(what: &str, is_there: bool) -> bool {
    assert!(is_there || option_env("POSTRIDER_NEED_PEERS").is_none(), "{what} is not installed");
    if !is_there {
        eprintln!("{what} is not installed: this is not tested here");
    }
    !is_there
}

#[expect(clippy::disallowed_methods, reason = "the gate's word to the tests, not configuration")]
fn option_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn answers(program: &str, argument: &str) -> bool {
    Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success())
}

/// Makes a run and its page.
fn page(folder: &Path) -> PathBuf {
    let invalid = vec!["slip p99 14 ms is above 1 ms".to_owned()];
    Made { sweep: true, invalid, ..Made::default() }.write(folder);
    let run = Measured::read(folder).unwrap();
    let page = folder.join("run.html");
    report::write_run(&run, &page).unwrap();
    page
}

/// Runs Chromium on a page, in a profile that allows no page a script and goes with the folder.
fn chromium(folder: &Path, page: &Path, what: &[&str]) -> Vec<u8> {
    let settings = folder.join("profile/Default");
    fs::create_dir_all(&settings).unwrap();
    fs::write(settings.join("Preferences"), NO_SCRIPTS).unwrap();
    let profile = format!("--user-data-dir={}", folder.join("profile").display());
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        // No name resolves: what the page does not hold itself is not there.
        .args(["--host-resolver-rules=MAP * ~NOTFOUND"])
        .args(["--hide-scrollbars", "--force-device-scale-factor=1"])
        .arg(profile)
        .args(what)
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn the_page_shows_its_verdict_and_pictures_without_scripts() {
    if may_be_left_out("chromium", answers("chromium", "--version")) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let page = page(folder.path());
    let shot = folder.path().join("page.png");
    let to_file = format!("--screenshot={}", shot.display());
    chromium(folder.path(), &page, &[&to_file, "--window-size=1140,1600"]);
    let bytes = fs::metadata(&shot).unwrap().len();
    assert!(bytes > SCREENSHOT_BYTES_MIN, "the picture of the page has {bytes} bytes only");

    // As the browser understood it, pictures included.
    let text = String::from_utf8(chromium(folder.path(), &page, &["--dump-dom"])).unwrap();
    for words in ["INVALID.", "slip p99 14 ms", "Latency by percentile", "knee: "] {
        assert!(text.contains(words), "{words:?} is not on the page");
    }
    let shown = HOSTILE.split('\u{0}').next().unwrap();
    let shown = shown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    assert!(text.contains(&shown), "the hostile reply is not shown as it is");
    assert!(!text.contains("<script"), "the hostile reply became a script");
    assert_eq!(text.matches("<svg").count(), 5);
}

/// Else the test above would prove less than it says.
#[test]
fn the_browser_of_these_tests_runs_no_scripts() {
    if may_be_left_out("chromium", answers("chromium", "--version")) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    fs::write(&page, "<p id=a>before</p><script>a.textContent = 1 + 1</script>").unwrap();
    let text = String::from_utf8(chromium(folder.path(), &page, &["--dump-dom"])).unwrap();
    assert!(text.contains("<p id=\"a\">before</p>"), "{text}");
}

#[test]
fn the_standalone_picture_is_drawn() {
    if may_be_left_out("chromium", answers("chromium", "--version")) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let picture = page(folder.path()).with_extension("svg");
    let shot = folder.path().join("picture.png");
    let to_file = format!("--screenshot={}", shot.display());
    chromium(folder.path(), &picture, &[&to_file, "--window-size=1060,850"]);
    let bytes = fs::metadata(&shot).unwrap().len();
    assert!(bytes > SCREENSHOT_BYTES_MIN, "the picture has {bytes} bytes only");
}

/// `HistogramLogProcessor` of the Java library, from which the format comes, reads our log by its tags.
#[test]
fn the_standard_reader_reads_the_log() {
    let is_there = Path::new(HDRHISTOGRAM_JAR).exists() && answers("java", "-version");
    if may_be_left_out("java with libhdrhistogram-java", is_there) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let manifest = Made::default().write(folder.path());
    for phase in ["message", "dot", "connect", "e2e"] {
        let output = Command::new("java")
            .args(["-cp", HDRHISTOGRAM_JAR, "org.HdrHistogram.HistogramLogProcessor"])
            .args(["-tag", phase, "-outputValueUnitRatio", "1000000", "-i"])
            .arg(folder.path().join("run.hlog"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let seen = manifest.phases[phase];
        assert_eq!(
            figure(&text, "Total count"),
            Some(f64::from(u32::try_from(seen.count).unwrap()))
        );
        let max = figure(&text, "[Max").unwrap();
        // It prints three digits behind the point.
        assert!((max - seen.max_ms).abs() < 0.0006, "{phase}: {max} and {}", seen.max_ms);
    }
}

/// A number behind a name and an equals sign, or a colon.
fn figure(text: &str, name: &str) -> Option<f64> {
    let rest = &text[text.rfind(name)? + name.len()..];
    let digits = rest.trim_start_matches([' ', '=', ':']);
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    digits[..end].parse().ok()
}
