//! Programs that talk: bots with their tokens, and the lines of the README that a stranger pastes into a shell.

mod common;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{Client, TestServer, binary, chinwag, int, skip, text, unix_millis, wait_while, within};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A bot with a new token, by `command`: `add` or `rotate`.
fn bot(server: &TestServer, command: &str, name: &str) -> Client {
    let said = chinwag(&server.database_path(), &["bot", command, name]).ok();
    assert_eq!(said.lines().count(), 1, "a script reads the token and nothing else: {said:?}");
    Client::known(server, name, said.trim_end())
}

#[tokio::test]
async fn another_token_of_a_bot_ends_the_one_before_and_its_connections() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    let before = bot(&server, "add", "builder");
    let mut open = before.connect().await;
    let after = bot(&server, "rotate", "builder");
    assert_eq!(open.close_code().await, 1008);
    assert_eq!(server.get("/messages").by(&before).send().await.error(), (401, "unauthorized".to_owned()));
    let id = after.connect().await.store("n", "The build is green").await;
    let page = after.page("limit=1").await;
    let message = &page["messages"][0];
    assert_eq!((int(&message["id"]), text(&message["username"])), (id, "builder"));
    assert_eq!(message["bot"], true);
}

#[tokio::test]
async fn a_person_has_no_bots_token_and_a_bot_no_account_to_look_after() {
    let server = TestServer::with(&["--invites", "everyone"]);
    let ada = Client::register(&server, "ada").await;
    let builder = bot(&server, "add", "builder");
    for (command, name) in [("rotate", "ada"), ("rotate", "nobody"), ("add", "builder"), ("add", "ADA")] {
        chinwag(&server.database_path(), &["bot", command, name]).failed();
    }
    ada.page("limit=1").await;
    for (method, path) in [
        ("POST", "/password"),
        ("GET", "/sessions"),
        ("DELETE", "/sessions"),
        ("DELETE", "/sessions/1"),
        ("DELETE", "/account"),
        ("GET", "/export"),
        ("GET", "/invites"),
        ("POST", "/invites"),
        ("DELETE", "/invites/1"),
        ("POST", "/users/ada/ban"),
        ("POST", "/users/ada/unban"),
    ] {
        let refused = server.request(method, path).by(&builder).send().await;
        assert_eq!(refused.error(), (403, "forbidden".to_owned()), "{method} {path}");
    }
}

#[tokio::test]
async fn a_bots_token_does_not_expire_when_a_persons_does() {
    let mut server = TestServer::start();
    // A session that is used, so that the clock does not seem to have jumped.
    Client::register(&server, "ada").await;
    let builder = bot(&server, "add", "builder");
    Client::login(&server, "ada").await;
    let make_old = |server: &TestServer| {
        let age = "UPDATE sessions SET last_used_at = ?1 - 60 * 86400000 WHERE id > 1";
        server.database().execute(age, [unix_millis()]).expect("it is written");
    };
    server.stop().await;
    make_old(&server);
    server.restart();
    wait_while("the person's to go", async || server.number("SELECT count(*) FROM sessions") > 2).await;
    builder.page("limit=1").await;
    let mut connection = builder.connect().await;
    // It was used.
    make_old(&server);
    connection.store("n", "The build is green").await;
}

#[tokio::test]
async fn a_bots_token_is_stored_as_its_digest_alone() {
    let mut server = TestServer::start();
    let tokens = ["add", "rotate"].map(|command| bot(&server, command, "builder").token);
    server.stop().await;
    for file in server.directory().read_dir().expect("a folder").map_while(Result::ok) {
        let bytes = std::fs::read(file.path()).expect("it is read");
        for token in &tokens {
            assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()), "{:?}", file.path());
        }
    }
    let stored: Vec<u8> =
        server.database().query_row("SELECT digest FROM sessions", [], |row| row.get(0)).expect("the second's");
    assert_eq!(stored, Sha256::digest(&tokens[1])[..]);
}

#[tokio::test]
async fn a_bot_that_hurries_is_told_to_wait_and_holds_up_nobody_else() {
    let server = TestServer::with(&["--message-rate", "1"]);
    let ada = Client::register(&server, "ada").await;
    let builder = bot(&server, "add", "builder");
    let post = |by: &Client| server.post("/messages").by(by).json(&json!({"content": "hello"})).send();
    let refused = within("a refusal", async {
        loop {
            let response = post(&builder).await;
            if response.status != 201 {
                return response;
            }
        }
    })
    .await;
    assert_eq!(refused.error(), (429, "rate_limited".to_owned()));
    assert!(refused.header("Retry-After").is_some_and(|wait| wait.parse::<u32>().is_ok()), "{refused:?}");
    assert_eq!(post(&ada).await.status, 201);
}

/// What is run of the documents: a document, and how the lines begin. `tests/documents` reads this, and has every other
/// block of lines for a shell say why it is not run.
const RUN: [(&str, &str); 4] = [
    ("README.md", "cargo run --release "),
    ("README.md", "TOKEN="),
    ("docs/OPERATING.md", "chinwag  "),
    ("docs/OPERATING.md", "chinwag backup"),
];

/// The lines of a document that begin so, for the program under test and no port that is taken.
fn block((document, start): (&str, &str)) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = std::fs::read_to_string(path).expect("the document is there");
    let blocks = text.split("```sh\n").skip(1).filter(|block| block.starts_with(start));
    let [found] = blocks.collect::<Vec<_>>()[..] else { panic!("{document} has no block {start:?}, or two") };
    let lines = found.split("\n```").next().unwrap_or_default();
    let lines = lines.replace("cargo run --release --", "chinwag").replace("cargo run --release", "chinwag");
    lines.replace("0.0.0.0:8080", "0.0.0.0:0").replace("chinwag ", "\"$CHINWAG\" ")
}

/// Runs `lines` in a directory of their own and passes on what they print, until told to stop.
async fn shell(lines: &str, directory: &Path, variables: &[(&str, String)]) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-euc", lines]).current_dir(directory).env("CHINWAG", binary()).env("no_proxy", "*");
    shell.envs(variables.iter().map(|(name, value)| (*name, value)));
    let ended = within("the shell", tokio::task::spawn_blocking(move || shell.output())).await;
    let ended = ended.expect("no panic").expect("the shell runs");
    assert!(ended.status.success(), "{ended:?}");
    ended
}

#[tokio::test]
async fn the_lines_that_start_a_server_start_one() {
    let lines = [block(RUN[0]), block(RUN[2])].join("\n");
    let mut starts = 0;
    for line in lines.lines() {
        if line.starts_with("cargo test") {
            assert!(include_str!("../.ci/run").contains("\ncargo test --locked --no-run\n"), "it is what .ci/run runs");
            continue;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        // Stopped as soon as it says where it is.
        let script = format!(
            "{} >said & until grep -q 'listening on' said; do kill -0 $!; sleep 0.05; done; kill $!; wait $!; cat said",
            line.split('#').next().unwrap_or_default().trim()
        );
        let said = shell(&script, directory.path(), &[("CHINWAG_LISTEN", "127.0.0.1:0".into())]).await;
        let said = String::from_utf8(said.stdout).expect("text");
        assert!(said.starts_with("chinwag is listening on http://"), "{said}");
        assert_eq!(said.contains("#invite="), line.contains("0.0.0.0"), "others need an invitation: {said}");
        starts += 1;
    }
    assert_eq!(starts, 3);
}

#[tokio::test]
async fn the_line_that_backs_up_copies_a_running_server() {
    let server = TestServer::start();
    let id = Client::register(&server, "ada").await.connect().await.store("n", "keep this").await;
    let here = server.directory().display().to_string();
    let lines = block(RUN[3]).replace("/var/lib/chinwag", &here).replace("/backup", &here);
    shell(&lines, server.directory(), &[]).await;
    let copies = server.directory().read_dir().expect("a folder").map_while(Result::ok).map(|entry| entry.path());
    let copy = copies.filter(|path| path.to_string_lossy().contains("chinwag-2")).collect::<Vec<_>>();
    let copy = rusqlite::Connection::open(&copy[0]).expect("it opens");
    let text: String =
        copy.query_row("SELECT content FROM messages WHERE id = ?1", [id], |row| row.get(0)).expect("it is there");
    assert_eq!(text, "keep this");
}

#[tokio::test]
async fn the_lines_of_the_readme_post_and_search() {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        return skip("there is no curl");
    }
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let script = block(RUN[1]).replace("http://127.0.0.1:8080", &format!("http://{}", server.address()));
    assert_eq!(script.matches("curl ").count(), 2, "one line posts, one searches: {script}");
    let ended = shell(&script, server.directory(), &[]).await;
    let said = serde_json::Deserializer::from_slice(&ended.stdout).into_iter::<Value>();
    let said: Vec<Value> = said.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let [posted, found] = &said[..] else { panic!("two answers: {said:?}") };
    let shown = ada.page("limit=1").await["messages"][0].clone();
    assert_eq!((&shown["id"], text(&shown["content"])), (&posted["id"], "The build is green"));
    assert_eq!(*found, json!({"messages": [shown], "before": null}));
}
