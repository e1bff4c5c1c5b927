//! Invitations: whom they let in, and how many.

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use common::{Client, PASSWORD, TestServer, binary, chinwag, int, text, wait_while};
use serde_json::{Value, json};

/// The code of a new invitation, from the link.
fn invite(server: &TestServer, flags: &[&str]) -> String {
    let arguments: Vec<_> = ["invite"].into_iter().chain(flags.iter().copied()).collect();
    let link = chinwag(&server.database_path(), &arguments).ok();
    let code = link.trim_end().strip_prefix(&format!("http://{}/#invite=", server.address()));
    code.unwrap_or_else(|| panic!("no link to this server: {link}")).to_owned()
}

/// Status and code of a registration as `username`; the code is empty if it was let in.
async fn register(server: &TestServer, username: &str, invite: Value) -> (u16, String) {
    let account = json!({"username": username, "password": PASSWORD, "invite": invite});
    let response = server.post("/register").json(&account).send().await;
    if response.status == 201 { (201, String::new()) } else { response.error() }
}

fn let_in() -> (u16, String) {
    (201, String::new())
}

fn invalid() -> (u16, String) {
    (403, "invalid_invite".into())
}

#[tokio::test]
async fn an_invitation_lets_one_person_in_where_registration_is_otherwise_closed() {
    let server = TestServer::with(&["--registration", "invite"]);
    assert_eq!(register(&server, "ada", Value::Null).await, (403, "registration_closed".into()));
    let code = invite(&server, &[]);
    assert_eq!(register(&server, "ada", code.clone().into()).await, let_in());
    Client::login(&server, "ada").await;
    assert_eq!(register(&server, "bob", code.into()).await, invalid());
}

#[tokio::test]
async fn what_is_no_code_is_an_invalid_invitation() {
    let server = TestServer::with(&["--registration", "invite"]);
    for bad in ["", "x", "00000000000000000000000000000000", "' OR 1 --", &"a".repeat(5_000)] {
        assert_eq!(register(&server, "ada", bad.into()).await, invalid(), "{bad}");
    }
}

#[tokio::test]
async fn an_invitation_lets_in_as_many_as_it_says_however_they_hurry() {
    let server = TestServer::with(&["--registration", "invite"]);
    let code = invite(&server, &["--uses", "3"]);
    let mut hurrying = tokio::task::JoinSet::new();
    for number in 0..8 {
        let account = json!({"username": format!("person-{number}"), "password": PASSWORD, "invite": code});
        let request = server.post("/register").json(&account);
        hurrying.spawn(async move { request.send().await.status });
    }
    let statuses = hurrying.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 3, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 403).count(), 5, "{statuses:?}");
    assert_eq!(server.number("SELECT count(*) FROM users"), 3);
}

#[tokio::test]
async fn a_registration_that_fails_uses_no_invitation_up() {
    let server = TestServer::with(&["--registration", "invite"]);
    assert_eq!(register(&server, "ada", invite(&server, &[]).into()).await, let_in());
    let code = invite(&server, &[]);
    assert_eq!(register(&server, "ADA", code.clone().into()).await, (409, "username_taken".into()));
    assert_eq!(register(&server, ".ada", code.clone().into()).await, (422, "invalid_username".into()));
    assert_eq!(register(&server, "bob", code.into()).await, let_in());
}

#[tokio::test]
async fn an_invitation_expires() {
    let server = TestServer::with(&["--registration", "invite"]);
    let code = invite(&server, &["--expires", "0m"]);
    assert_eq!(register(&server, "ada", code.into()).await, invalid());
}

#[tokio::test]
async fn closed_is_closed_to_the_invited_too() {
    let server = TestServer::with(&["--registration", "closed"]);
    let code = invite(&server, &[]);
    assert_eq!(register(&server, "ada", code.into()).await, (403, "registration_closed".into()));
}

#[tokio::test]
async fn where_registration_is_open_no_invitation_is_needed_or_used_up() {
    let mut server = TestServer::start();
    let code = invite(&server, &[]);
    assert_eq!(register(&server, "ada", "whatever".into()).await, let_in());
    assert_eq!(register(&server, "bob", code.clone().into()).await, let_in());
    server.stop().await;
    server.restart_with(&["--registration", "invite"]);
    assert_eq!(register(&server, "zoe", code.into()).await, let_in());
}

#[tokio::test]
async fn moderators_alone_invite_unless_everybody_may() {
    let mut server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let invite = |server: &TestServer, by: &Client| server.post("/invites").by(by).json(&json!({})).send();
    assert_eq!(invite(&server, &bob).await.error(), (403, "forbidden".to_owned()));
    let made = invite(&server, &ada).await;
    assert_eq!(made.status, 201);
    let one = format!("/invites/{}", made.json()["id"]);
    for (method, path) in [("GET", "/invites"), ("DELETE", &one)] {
        let refused = server.request(method, path).by(&bob).send().await;
        assert_eq!(refused.error(), (403, "forbidden".to_owned()), "{method} {path}");
    }
    server.stop().await;
    server.restart_with(&["--invites", "everyone", "--registration", "invite"]);
    let invited = invite(&server, &bob).await;
    assert_eq!(invited.status, 201);
    let code = text(&invited.json()["code"]).to_owned();
    assert_eq!(register(&server, "zoe", code.into()).await, let_in());
    let list = server.get("/invites").by(&bob).send().await.json();
    let [bobs] = &list["invites"].as_array().expect("a list")[..] else { panic!("his own alone: {list}") };
    assert_eq!((&bobs["created_by"], &bobs["users"], &bobs["left"]), (&json!("bob"), &json!(["zoe"]), &json!(0)));
}

#[tokio::test]
async fn a_user_has_a_hundred_open_invitations_and_another_once_one_of_them_ends() {
    let server = TestServer::with(&["--message-rate", "0"]);
    let ada = Client::register(&server, "ada").await;
    let invite = async || server.post("/invites").by(&ada).json(&json!({})).send().await;
    let first = invite().await.json();
    for _ in 1..100 {
        assert_eq!(invite().await.status, 201);
    }
    let refused = invite().await;
    assert_eq!(refused.error(), (429, "rate_limited".to_owned()));
    assert!(refused.header("Retry-After").is_some(), "{refused:?}");
    let id = &first["id"];
    assert_eq!(server.request("DELETE", &format!("/invites/{id}")).by(&ada).send().await.status, 204);
    assert_eq!(invite().await.status, 201);
}

#[tokio::test]
async fn an_invitation_is_taken_back_by_who_made_it_or_by_a_moderator() {
    let server = TestServer::with(&["--invites", "everyone"]);
    // The first account is the moderator.
    let ada = Client::register(&server, "ada").await;
    let (bob, eve) = (Client::register(&server, "bob").await, Client::register(&server, "eve").await);
    let made = async || int(&server.post("/invites").by(&bob).json(&json!({})).send().await.json()["id"]);
    let (one, other) = (made().await, made().await);
    for (by, id, status) in [(&eve, one, 404), (&bob, one, 204), (&ada, other, 204), (&ada, other, 404)] {
        let taken = server.request("DELETE", &format!("/invites/{id}")).by(by).send().await;
        assert_eq!(taken.status, status, "{id} by {}", by.username);
    }
}

#[tokio::test]
async fn a_clock_that_is_right_again_hides_no_invitation() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let invite = async |server: &TestServer| server.post("/invites").by(&ada).json(&json!({})).send().await;
    let code = invite(&server).await.json()["code"].clone();
    for _ in 1..100 {
        assert_eq!(invite(&server).await.status, 201);
    }
    server.stop().await;
    server.set_back_what_is_stored();
    server.restart_with(&["--registration", "invite"]);
    let list = server.get("/invites").by(&ada).send().await.json();
    assert_eq!(list["invites"].as_array().expect("a list").len(), 100);
    assert_eq!(invite(&server).await.status, 429, "they count, too");
    let account = json!({"username": "bob", "password": PASSWORD, "invite": code});
    assert_eq!(server.post("/register").json(&account).send().await.status, 201);
}

#[tokio::test]
async fn a_link_names_the_server_as_people_reach_it() {
    let server = TestServer::start();
    let link = chinwag(&server.database_path(), &["invite", "--url", "https://chat.example/"]).ok();
    assert!(link.starts_with("https://chat.example/#invite="), "{link}");
}

#[tokio::test]
async fn a_link_names_what_the_server_was_told_that_people_reach_it_at() {
    let server = TestServer::with(&["--public-url", "https://chat.example"]);
    let link = chinwag(&server.database_path(), &["invite"]).ok();
    assert!(link.starts_with("https://chat.example/#invite="), "{link}");
    let checked = chinwag(&server.database_path(), &["check"]).ok();
    assert!(!checked.contains("chat.example"), "{checked}");
    assert_eq!(chinwag(&server.database_path(), &["health"]).ok(), "ok\n");
}

#[tokio::test]
async fn a_link_of_a_moderators_leads_to_where_the_request_came_unless_the_server_was_told_better() {
    let here = TestServer::start();
    let named = TestServer::with(&["--public-url", "https://chat.example"]);
    for (server, base) in [(&here, format!("http://{}", here.address())), (&named, "https://chat.example".to_owned())] {
        let ada = Client::register(server, "ada").await;
        let invited = server.post("/invites").by(&ada).json(&json!({})).send().await.json();
        assert_eq!(text(&invited["url"]), format!("{base}/#invite={}", text(&invited["code"])));
    }
}

#[tokio::test]
async fn a_link_from_behind_a_proxy_leads_to_the_page_that_asked_for_it() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    // The last is of an app that shows the page, which is nowhere that others could go.
    for (scheme, of_the_link) in [("https", "https"), ("http", "http"), ("capacitor", "http")] {
        let origin = format!("{scheme}://{}", server.address());
        let invited = server.post("/invites").by(&ada).header("Origin", &origin).json(&json!({})).send().await.json();
        let base = format!("{of_the_link}://{}/#invite=", server.address());
        assert!(text(&invited["url"]).starts_with(&base), "{origin}: {invited}");
    }
}

#[test]
fn a_link_from_before_the_server_runs_leads_to_where_it_will_be() {
    let directory = tempfile::tempdir().expect("a directory");
    for (variable, base) in [("", "http://127.0.0.1:8080"), ("https://chat.example", "https://chat.example")] {
        let mut command = Command::new(binary());
        command.arg("invite").env("CHINWAG_DB", directory.path().join("chinwag.db"));
        let output = command.env("CHINWAG_PUBLIC_URL", variable).output().expect("the binary runs");
        let link = String::from_utf8(output.stdout).expect("text");
        assert!(link.starts_with(&format!("{base}/#invite=")), "{variable:?}: {link}");
    }
}

#[test]
fn where_a_server_that_listens_for_a_proxy_alone_is_reached_has_to_be_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = directory.path().join("chinwag.db");
    let mut command = Command::new(binary());
    command.arg("--listen").arg(format!("unix:{}", directory.path().join("socket").display()));
    command.env("CHINWAG_DB", &database).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = command.spawn().expect("the binary runs");
    let mut lines = BufReader::new(server.stdout.take().expect("the pipe was asked for")).lines().map_while(Result::ok);
    let first = lines.find(|line| line.contains("#invite="));
    let silent = chinwag(&database, &["invite"]);
    let told = chinwag(&database, &["invite", "--url", "https://a.example"]);
    server.kill().and_then(|()| server.wait()).expect("the server ends");
    assert!(first.as_ref().is_some_and(|line| line.contains("--public-url")), "{first:?}");
    assert!(silent.failed().contains("--url"));
    assert!(told.ok().starts_with("https://a.example/#invite="));
}

#[tokio::test]
async fn the_command_says_how_many_people_an_invitation_lets_in() {
    let server = TestServer::start();
    for (uses, people) in [("1", "one person"), ("2", "2 people")] {
        let said = chinwag(&server.database_path(), &["invite", "--uses", uses]).stderr;
        assert!(said.contains(&format!("it lets {people} register")), "{said}");
    }
}

#[tokio::test]
async fn the_code_itself_is_stored_nowhere() {
    let mut server = TestServer::start();
    let code = invite(&server, &[]);
    let holds = |path: &std::path::Path| {
        let bytes = std::fs::read(path).expect("the file is read");
        bytes.windows(code.len()).any(|window| window == code.as_bytes())
    };
    for suffix in ["", "-wal", ".lock"] {
        let mut path = server.database_path().into_os_string();
        path.push(suffix);
        assert!(!holds(path.as_ref()), "{path:?}");
    }
    server.stop().await;
    assert!(!server.log().contains(&code));
}

/// As if the operator had not said who may register.
const UNSAID: [(&str, &str); 1] = [("CHINWAG_REGISTRATION", "")];

#[tokio::test]
async fn people_who_come_by_a_socket_of_systemds_or_a_proxy_need_an_invitation() {
    let socket = std::net::TcpListener::bind("0.0.0.0:0").expect("a free port");
    let mut servers = vec![TestServer::with_socket(&[], socket)];
    for flag in ["--trusted-proxy=127.0.0.1", "--public-url=https://chat.example/", "--host=chat.example"] {
        servers.push(TestServer::with_environment(&[flag], &UNSAID));
    }
    for server in servers {
        assert_eq!(server.get("/about").send().await.json()["registration"], "invite");
        server.printed("#invite=").await;
    }
    let alone = TestServer::with_environment(&[], &UNSAID);
    assert_eq!(alone.get("/about").send().await.json()["registration"], "open");
}

#[tokio::test]
async fn where_others_can_connect_only_the_invited_register_and_the_first_start_prints_the_first_invitation() {
    let mut server = TestServer::with_environment(&["--listen", "0.0.0.0:0"], &UNSAID);
    let account = json!({"username": "ada", "password": PASSWORD});
    let refused = server.post("/register").json(&account).send().await;
    assert_eq!(refused.error(), (403, "registration_closed".into()));
    let link = server.printed("#invite=").await;
    assert!(!link.contains("0.0.0.0"), "somebody can open it: {link}");
    let code = link.rsplit_once('=').expect("a code").1;
    let account = json!({"username": "ada", "password": PASSWORD, "invite": code});
    assert_eq!(server.post("/register").json(&account).send().await.status, 201);
    assert_eq!(server.number("SELECT is_moderator FROM users WHERE name = 'ada'"), 1);
    server.stop().await;
    assert!(!server.log().contains(code), "it is no secret of the log's");
}

#[tokio::test]
async fn who_came_by_an_invitation_is_kept_when_it_has_expired_and_one_that_nobody_used_goes() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let invite = async |server: &TestServer| {
        let made = server.post("/invites").by(&ada).json(&json!({"uses": 2})).send().await.json();
        text(&made["code"]).to_owned()
    };
    let (used, _unused) = (invite(&server).await, invite(&server).await);
    server.stop().await;
    server.restart_with(&["--registration", "invite"]);
    assert_eq!(register(&server, "zoe", used.clone().into()).await, let_in());
    server.stop().await;
    server.database().execute("UPDATE invites SET expires_at = 1000", []).expect("they are changed");
    server.restart();
    wait_while("the unused one to go", async || server.number("SELECT count(*) FROM invites") > 1).await;
    let list = server.get("/invites").by(&ada.at(&server)).send().await.json();
    let [kept] = &list["invites"].as_array().expect("a list")[..] else { panic!("the used one alone: {list}") };
    assert_eq!((&kept["created_by"], &kept["users"]), (&json!("ada"), &json!(["zoe"])));
    assert_eq!(register(&server, "yan", used.into()).await, invalid(), "it has expired all the same");
}

#[tokio::test]
async fn the_newest_200_invitations_are_listed_with_the_first_200_who_came_by_each() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    server.stop().await;
    let many = "CREATE TEMP TABLE n AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 201)
            SELECT i FROM n;
        INSERT INTO invites (id, digest, uses, uses_left, created_by, created_at, expires_at)
            SELECT i, randomblob(32), 999, 99, 1, 5, 9000000000000 FROM n;
        INSERT INTO users (name, password_hash, created_at, invite_id) SELECT 'user' || i, '', 5, 201 FROM n";
    server.database().execute_batch(many).expect("the schema has all of it");
    server.restart();
    let list = server.get("/invites").by(&ada.at(&server)).send().await.json();
    let invites = list["invites"].as_array().expect("a list");
    assert_eq!((invites.len(), int(&invites[0]["id"])), (200, 201));
    let users = invites[0]["users"].as_array().expect("a list");
    assert_eq!((users.len(), &users[0]), (200, &json!("user1")));
}

#[tokio::test]
async fn an_invitation_of_somebody_who_is_banned_lets_nobody_in() {
    let server = TestServer::with(&["--invites", "everyone", "--registration", "invite"]);
    let first = invite(&server, &["--uses", "2"]);
    for name in ["ada", "bob"] {
        assert_eq!(register(&server, name, first.clone().into()).await, let_in());
    }
    let (ada, bob) = (Client::login(&server, "ada").await, Client::login(&server, "bob").await);
    let made = server.post("/invites").by(&bob).json(&json!({})).send().await.json();
    let code = text(&made["code"]);
    assert_eq!(server.post("/users/bob/ban").by(&ada).json(&json!({})).send().await.status, 204);
    assert_eq!(register(&server, "zoe", code.into()).await, invalid());
    assert_eq!(server.post("/users/bob/unban").by(&ada).send().await.status, 204);
    assert_eq!(register(&server, "zoe", code.into()).await, let_in());
}
