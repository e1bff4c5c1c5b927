//! The web client in a real browser: `tests/browser/run`, started from here when asked for, since it needs Node and Chromium
//! and some minutes.

use std::{
    env,
    io::{self, Write},
    process::Command,
};

#[test]
fn the_web_client_works_in_a_browser() {
    if env::var_os("CHINWAG_BROWSER").is_none_or(|value| value != "1") {
        // Not `eprintln!`, which the test harness keeps to itself when a test passes.
        writeln!(io::stderr(), "The browser tests were NOT run: CHINWAG_BROWSER=1 runs them.")
            .expect("stderr can be written to");
        return;
    }
    let status = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/run"))
        .env("CHINWAG_BIN", env!("CARGO_BIN_EXE_chinwag"))
        .status()
        .expect("tests/browser/run can be started");
    assert!(status.success(), "tests/browser/run failed");
}
