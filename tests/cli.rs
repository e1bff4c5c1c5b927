//! The command line: flags, environment, exit codes, and the few words the process says.

mod common;

use common::{Client, Connection, PASSWORD, TestServer, run_to_end, wait_while, within};
use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpListener;

/// Every flag of the contract, and a value it must refuse.
const FLAGS_AND_BAD_VALUES: &[(&str, &str)] = &[
    ("--listen", "nowhere"),
    ("--listen", "127.0.0.1:65536"),
    ("--listen", "unix:"),
    ("--trusted-proxy", "10.0.0.0/33"),
    ("--trusted-proxy", "10.0.0.1/8"),
    ("--metrics-listen", "somewhere"),
    ("--log-format", "xml"),
    ("--name", " "),
    ("--name", "two\nlines"),
    ("--name", "one that has sixty-one characters, which is one more than fit"),
    ("--public-url", "https://ada@chat.example"),
    ("--public-url", "https://chat.example/?room=1"),
    ("--public-url", "https://chat.example/#room"),
    ("--registration", "ajar"),
    ("--durability", "some"),
    ("--keep-messages", "0"),
    ("--keep-days", "soon"),
    ("--message-rate", "-1"),
    ("--message-rate", "many"),
    ("--auth-rate", "1.5.1"),
    ("--max-connections", "some"),
    ("--user-connections", "-1"),
    ("--address-connections", "0x10"),
    ("--shards", "0"),
    ("--shards", "65"),
    ("--shards", "all"),
    ("--ping-interval", "soon"),
    ("--ping-interval", "0"),
    ("--host", "https://chat.example"),
    ("--host", "chat.example:8080"),
    ("--allow-origin", "not an origin"),
    ("--allow-origin", "https://example.com/path"),
];

/// What the process that ended said and returned: its exit code, and its one line on standard error.
fn complaint(flags: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let output = run_to_end(flags, environment);
    let code = output.status.code().expect("it ends by itself");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(stderr.trim_end().lines().count(), 1, "one clear line, not: {stderr}");
    assert!(output.stdout.is_empty(), "a failure is not announced as a server");
    (code, stderr)
}

fn variable(flag: &str) -> String {
    format!("CHINWAG_{}", flag.trim_start_matches('-').replace('-', "_").to_uppercase())
}

#[tokio::test]
async fn standard_output_is_one_line_with_the_bound_address() {
    let mut server = TestServer::start();
    Client::register(&server, "ada").await.connect().await;
    server.stop().await;
    let line = format!("chinwag is listening on http://{}", server.address());
    assert_eq!(server.stdout(), [line]);
}

#[tokio::test]
async fn serve_is_what_it_does_when_not_told() {
    let server = TestServer::with(&["serve"]);
    assert_eq!(server.get("/healthz").send().await.status, 200);
}

#[test]
fn help_explains_every_flag_and_its_variable() {
    let output = run_to_end(&["--help"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).expect("text");
    for flag in FLAGS_AND_BAD_VALUES.iter().map(|(flag, _)| *flag).chain(["--db"]) {
        assert!(help.contains(flag), "{flag} is missing from:\n{help}");
        assert!(help.contains(&variable(flag)), "{} is missing from:\n{help}", variable(flag));
    }
}

#[test]
fn help_tells_the_defaults() {
    let output = run_to_end(&["--help"], &[]);
    let help = String::from_utf8(output.stdout).expect("text");
    for (flag, default) in [
        ("--listen", "127.0.0.1:8080"),
        ("--db", "chinwag.db"),
        ("--registration", "open if only this machine can connect, else invite"),
        ("--durability", "full"),
        ("--log-format", "text"),
        ("--message-rate", "10"),
        ("--auth-rate", "20"),
        ("--user-connections", "64"),
        ("--address-connections", "64"),
        ("--ping-interval", "30"),
    ] {
        let (_, rest) = help.split_once(&format!("{flag} ")).expect("the flag is explained");
        let explanation = rest.split("\n      --").next().expect("a split yields at least one part");
        let explanation = explanation.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(explanation.contains(&format!("[default: {default}]")), "{flag}: {explanation}");
    }
}

#[test]
fn version_is_the_packages() {
    let output = run_to_end(&["--version"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let version = String::from_utf8(output.stdout).expect("text");
    assert_eq!(version.trim_end(), concat!("chinwag ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_bad_flag_is_one_line_and_exit_code_2() {
    for flags in [&["--lisen", "127.0.0.1:0"][..], &["dance"], &["--listen"], &["serve", "twice"]] {
        let (code, line) = complaint(flags, &[]);
        assert_eq!(code, 2, "{flags:?}: {line}");
        // What to do next is said once, and not as Clap would.
        assert!(line.contains("(see chinwag --help)") && !line.contains("For more information"), "{line}");
    }
}

#[test]
fn a_bad_value_is_one_line_that_names_the_flag_and_exit_code_2() {
    for (flag, value) in FLAGS_AND_BAD_VALUES {
        let (code, line) = complaint(&[&format!("{flag}={value}")], &[]);
        assert_eq!(code, 2, "{flag} {value}: {line}");
        assert!(line.contains(flag), "{flag} {value}: {line}");
    }
}

#[test]
fn a_bad_variable_is_a_bad_value() {
    for (flag, value) in FLAGS_AND_BAD_VALUES {
        let (code, line) = complaint(&[], &[(&variable(flag), value)]);
        assert_eq!(code, 2, "{} {value}: {line}", variable(flag));
        assert!(line.contains(flag), "{} {value}: {line}", variable(flag));
    }
}

#[test]
fn a_variable_sets_what_its_flag_would() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let (code, line) = complaint(&[], &[("CHINWAG_LISTEN", &address)]);
    assert_eq!(code, 1);
    assert!(line.contains(&address), "CHINWAG_LISTEN was not heard: {line}");

    let (code, line) = complaint(&["--listen", "127.0.0.1:0"], &[("CHINWAG_DB", "missing/there.db")]);
    assert_eq!(code, 1);
    assert!(line.contains("missing/there.db"), "CHINWAG_DB was not heard: {line}");
}

#[tokio::test]
async fn a_variable_that_is_empty_is_one_that_is_not_set() {
    let variables = ["CHINWAG_KEEP_DAYS", "CHINWAG_LISTEN", "CHINWAG_MIN_FREE", "CHINWAG_ALLOW_ORIGIN", "CHINWAG_NAME"];
    let server = TestServer::with_environment(&[], &variables.map(|name| (name, "")));
    assert_eq!(server.get("/healthz").send().await.status, 200);
}

#[test]
fn an_origin_that_no_browser_sends_is_refused_in_words() {
    for origin in ["https://bücher.example", "http://localhost:*", "https://", "https://a.example/", "ftp://a.example"]
    {
        let (code, line) = complaint(&["--allow-origin", origin], &[]);
        assert_eq!(code, 2, "{line}");
        assert!(line.contains("--allow-origin"), "{line}");
    }
}

#[tokio::test]
async fn variables_are_heard_by_a_server_that_runs() {
    let server = TestServer::with_environment(
        &[],
        &[
            ("CHINWAG_REGISTRATION", "closed"),
            ("CHINWAG_AUTH_RATE", "1"),
            ("CHINWAG_ALLOW_ORIGIN", "https://friend.example"),
            ("CHINWAG_MAX_CONNECTIONS", "1"),
        ],
    );
    let account = json!({"username": "ada", "password": PASSWORD});
    let of_friend = server.post("/register").header("Origin", "https://friend.example").json(&account);
    assert_eq!(of_friend.send().await.error().1, "registration_closed");
    // Each of these waits for the place of the one before.
    let codes = within("two answers", async {
        let mut codes = Vec::new();
        while codes.len() < 2 {
            let response = server.post("/login").json(&account).send().await;
            if response.status != 503 {
                codes.push(response.error().1);
            }
        }
        codes
    });
    assert_eq!(codes.await, ["invalid_credentials", "rate_limited"]);
    let _only = within("the one place", async {
        loop {
            if let Some(connection) = Connection::try_open(&server).await {
                return connection;
            }
        }
    })
    .await;
    assert_eq!(server.get("/healthz").send().await.status, 503, "a second connection");
}

#[tokio::test]
async fn each_shard_has_a_thread() {
    let [two, four] = ["2", "4"].map(|shards| TestServer::with(&["--shards", shards]));
    // The one that prints the greeting has not ended yet, perhaps, in one of them.
    wait_while("two threads more", async || four.threads() != two.threads() + 2).await;
}

#[test]
fn a_flag_wins_over_its_variable() {
    let (code, line) = complaint(&["--db", "missing/flag.db"], &[("CHINWAG_DB", "missing/variable.db")]);
    assert_eq!(code, 1);
    assert!(line.contains("missing/flag.db"), "{line}");
}

#[tokio::test]
async fn a_taken_port_is_one_line_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let (code, line) = complaint(&["--listen", &address], &[]);
    assert_eq!(code, 1);
    assert!(line.contains(&address), "{line}");
}

#[test]
fn an_unreadable_database_is_one_line_that_names_it_and_exit_code_1() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let garbage = directory.path().join("garbage.db");
    std::fs::write(&garbage, "a shopping list, long enough to be taken for a header: ".repeat(100)).expect("a file");
    let newer = directory.path().join("newer.db");
    let database = rusqlite::Connection::open(&newer).expect("a database");
    database.pragma_update(None, "user_version", 1_000_000).expect("a version");
    drop(database);
    let missing = directory.path().join("missing/chinwag.db");
    for path in [directory.path(), &garbage, &newer, &missing] {
        let path = path.to_str().expect("text");
        let (code, line) = complaint(&["--listen", "127.0.0.1:0", "--db", path], &[]);
        assert_eq!(code, 1, "{path}: {line}");
        assert!(line.contains(path), "{path}: {line}");
        assert!(!line.contains("Error code"), "it is said once, and in words: {line}");
    }
}

#[test]
fn a_complaint_does_not_control_the_terminal() {
    let (_, line) = complaint(&["--listen", "127.0.0.1:0", "--db", "missing/a\nb\u{1b}[31m\u{7}.db"], &[]);
    assert!(line.contains("missing/a b\u{fffd}[31m\u{fffd}.db"), "{line:?}");
}

#[tokio::test]
async fn the_database_is_made_if_missing_and_found_again() {
    let mut server = TestServer::start();
    assert!(server.database_path().exists());
    Client::register(&server, "ada").await;
    server.stop().await;
    server.restart();
    Client::login(&server, "ada").await;
}

#[tokio::test]
async fn sigterm_sigint_and_sighup_are_a_clean_stop() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut server = TestServer::start();
        server.signal(signal);
        assert_eq!(server.ended().await.code(), Some(0), "{signal:?}");
    }
}
