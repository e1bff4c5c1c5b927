//! The conformance suite itself: a small server of the whole contract passes it, and fails each row when it is broken
//! there.
//!
//! The suite is `examples/conformance`, the server `tests/conformance/server.mjs`, which needs Node.js: without it a
//! test says so and passes, unless `CHINWAG_NO_SKIP` is set. That a row fails against a server that breaks its promise
//! is what its passing against another server is worth.

mod common;
#[path = "../examples/conformance/suite.rs"]
mod suite;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{TestServer, chinwag, skip};
use futures_util::stream::{self, StreamExt as _};
use suite::{Only, Options, Outcome, Report};

/// Rows that no small server can be tried by: a user among a thousand, a message a day old.
const OUT_OF_REACH: [&str; 2] = ["presence", "edit-old"];
/// Rows about what is not compiled in everywhere.
const PUSH: [&str; 4] = ["push-key", "push-put", "push-invalid", "notify"];
/// Rows that need a server to refuse what comes too fast. One that takes a hundred a second, as the other rows need, may
/// be sent no more than that while the machine is busy.
const TOO_FAST: [&str; 2] = ["rate", "rate-nonce"];
/// For what never comes from a broken server, which is how many of the rows fail.
const BROKEN_PATIENCE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_mins(1);
/// Instead of 30 s, so that a dead peer is found in ten.
const PING_INTERVAL: Duration = Duration::from_secs(4);
/// Most of a broken run is waiting.
const AT_ONCE: usize = 6;

/// A small server in a process of its own, which ends with the value.
struct Small {
    process: Child,
    address: SocketAddr,
    bot: String,
}

impl Small {
    fn start(flags: &[&str]) -> Small {
        let mut process = Command::new("node")
            .args(["tests/conformance/server.mjs", "--public", "public", "--bot", "beep", "--rate", "100"])
            // With invitations, since those are asked for only where they are needed.
            .args(["--registration", "invite", "--auth-rate", "250", "--ping", &PING_INTERVAL.as_secs().to_string()])
            .args(flags)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("node runs");
        let stdout = process.stdout.take().expect("the pipe was asked for");
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let mut after = |prefix: &str| {
            let line = lines.next().unwrap_or_else(|| panic!("the small server says {prefix:?}, {flags:?}"));
            line.strip_prefix(prefix).unwrap_or_else(|| panic!("{line:?} begins with {prefix:?}")).to_owned()
        };
        let bot = after("bot beep ");
        let address = after("listening on http://").parse().expect("an address");
        Small { process, address, bot }
    }

    fn options(&self, only: Only, patience: Duration) -> Options {
        Options {
            address: self.address,
            moderator: None,
            invite: None,
            bot: Some(self.bot.clone()),
            ping_interval: PING_INTERVAL,
            stop: i32::try_from(self.process.id()).ok(),
            only,
            patience,
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Both fail only if the process has ended by itself, which is as good.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Whether Node.js is here; if not, says that a test passes without having tested anything.
fn node_is_here() -> bool {
    let is_here = Command::new("node").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !is_here {
        skip("there is no node");
    }
    is_here
}

fn rows() -> Vec<&'static str> {
    suite::names().map(|(name, _)| name).collect()
}

#[test]
fn no_two_rows_have_one_name() {
    let mut names = rows();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[tokio::test]
async fn the_small_server_passes_every_row() {
    if !node_is_here() {
        return;
    }
    let server = Small::start(&[]);
    let everything = server.options(Only::Containing(String::new()), PATIENCE);
    let reports = suite::run(everything, |_| {}).await.expect("the suite runs");
    assert_eq!(reports.len(), rows().len());
    all_pass(&reports, |row| OUT_OF_REACH.contains(&row) || TOO_FAST.contains(&row));
}

#[tokio::test]
async fn the_small_server_refuses_what_comes_too_fast() {
    if !node_is_here() {
        return;
    }
    for row in TOO_FAST {
        let server = Small::start(&["--rate", "1"]);
        let reports = suite::run(server.options(Only::Named(row), PATIENCE), |_| {}).await.expect("the suite runs");
        all_pass(&reports, |_| false);
    }
}

/// Fails with every row that did not pass, other than those that need not be offered.
fn all_pass(reports: &[Report], may_be_missing: impl Fn(&str) -> bool) {
    let failed = reports.iter().filter(|report| match report.outcome {
        Outcome::Passed => false,
        Outcome::NotOffered(_) => !may_be_missing(report.name),
        Outcome::Failed { .. } => true,
    });
    let failed: Vec<_> = failed.map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{}", failed.concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_row_fails_against_a_server_that_breaks_it() {
    if !node_is_here() {
        return;
    }
    let breakable = rows().into_iter().filter(|row| !OUT_OF_REACH.contains(row));
    let graded: Vec<Report> = stream::iter(breakable).map(grade_broken).buffer_unordered(AT_ONCE).collect().await;
    let undetected = graded.iter().filter(|report| !matches!(report.outcome, Outcome::Failed { .. }));
    let undetected: Vec<_> = undetected.map(|report| format!("{report}{}", report.told_steps())).collect();
    assert!(undetected.is_empty(), "broken, and not found to be:\n{}", undetected.concat());
}

/// The row `name`, tried by a server that does not keep it.
async fn grade_broken(name: &'static str) -> Report {
    let rate = if TOO_FAST.contains(&name) { "1" } else { "100" };
    let server = tokio::task::block_in_place(|| Small::start(&["--broken", name, "--rate", rate]));
    let reports = suite::run(server.options(Only::Named(name), BROKEN_PATIENCE), |_| {}).await;
    let mut reports = reports.unwrap_or_else(|error| panic!("{name} cannot be tried: {error:#}"));
    assert_eq!(reports.len(), 1, "one row of the name {name}");
    reports.remove(0)
}

#[tokio::test]
async fn chinwag_passes_every_row() {
    let ping = PING_INTERVAL.as_secs().to_string();
    let mut flags = vec!["--registration", "invite", "--message-rate", "100", "--ping-interval", &ping];
    let pushes = cfg!(feature = "push");
    if pushes {
        flags.extend(["--push-contact", "mailto:ada@chat.example"]);
    }
    let server = TestServer::with(&flags);
    let invited = chinwag(&server.database_path(), &["invite", "--uses", "500"]).ok();
    let (_, code) = invited.trim().rsplit_once("invite=").expect("a link with the code");
    let bot = chinwag(&server.database_path(), &["bot", "add", "beep"]).ok();
    let options = Options {
        address: server.address(),
        moderator: None,
        invite: Some(code.to_owned()),
        bot: Some(bot.trim().to_owned()),
        ping_interval: PING_INTERVAL,
        stop: Some(server.pid().as_raw_nonzero().get()),
        only: Only::Containing(String::new()),
        patience: PATIENCE,
    };
    let reports = suite::run(options, |_| {}).await.expect("the suite runs");
    assert_eq!(reports.len(), rows().len());
    // The limits on logins and messages are lifted here, and have a server of their own below.
    let has_its_own = |row: &str| row == "rate-limited" || TOO_FAST.contains(&row);
    all_pass(&reports, |row| OUT_OF_REACH.contains(&row) || (!pushes && PUSH.contains(&row)) || has_its_own(row));
}

#[tokio::test]
async fn chinwag_limits_logins_and_messages_as_the_suite_asks() {
    for (row, flags) in [
        ("rate-limited", ["--auth-rate", "6"]),
        (TOO_FAST[0], ["--message-rate", "1"]),
        (TOO_FAST[1], ["--message-rate", "1"]),
    ] {
        let server = TestServer::with(&flags);
        let options = Options {
            address: server.address(),
            moderator: None,
            invite: None,
            bot: None,
            ping_interval: PING_INTERVAL,
            stop: None,
            only: Only::Named(row),
            patience: PATIENCE,
        };
        all_pass(&suite::run(options, |_| {}).await.expect("the suite runs"), |_| false);
    }
}
