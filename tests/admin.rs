//! What an administrator does to people and their sessions, with a server running and without.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;

use common::{Client, PASSWORD, PATIENCE, TestServer, chinwag, chinwag_reading, contents, ids, int, skip};
use rustix::process::Signal;
use serde_json::json;

/// The status of a login as `username` with `password`.
async fn login_status(server: &TestServer, username: &str, password: &str) -> u16 {
    server.post("/login").json(&json!({"username": username, "password": password})).send().await.status
}

/// A user of the system who is not root.
const SOMEBODY: u32 = 54_321;

fn mode_of(path: &Path) -> u32 {
    std::fs::metadata(path).expect("the file is there").permissions().mode() & 0o777
}

// Users

#[tokio::test]
async fn a_user_who_is_added_while_the_server_runs_can_log_in() {
    let server = TestServer::with(&["--registration", "closed"]);
    chinwag_reading(&server.database_path(), &["user", "add", "ada"], PASSWORD).ok();
    Client::login(&server, "ada").await.connect().await;
}

#[tokio::test]
async fn a_user_who_is_added_before_the_server_runs_can_log_in() {
    let mut server = TestServer::start();
    server.stop().await;
    chinwag_reading(&server.database_path(), &["user", "add", "ada"], PASSWORD).ok();
    server.restart();
    Client::login(&server, "ada").await.connect().await;
}

#[test]
fn the_first_user_may_be_there_before_the_first_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = directory.path().join("chinwag.db");
    chinwag_reading(&database, &["user", "add", "ada"], PASSWORD).ok();
    assert!(chinwag(&database, &["user", "list"]).ok().lines().any(|line| line.starts_with("ada ")));
    assert_eq!(mode_of(&database), 0o600);
}

#[tokio::test]
async fn a_name_that_is_taken_or_none_and_a_bad_password_are_refused() {
    let server = TestServer::start();
    let database = server.database_path();
    Client::register(&server, "ada").await;
    assert!(chinwag_reading(&database, &["user", "add", "ADA"], PASSWORD).failed().contains("taken"));
    assert!(chinwag_reading(&database, &["user", "add", ".ada"], PASSWORD).failed().contains("username"));
    assert!(chinwag_reading(&database, &["user", "add", "bob"], "short\n").failed().contains("password"));
    assert_eq!(server.number("SELECT count(*) FROM users"), 1);
}

#[tokio::test]
async fn a_password_that_the_page_would_send_in_other_characters_is_refused() {
    let server = TestServer::start();
    let database = server.database_path();
    for changed in [
        "x\u{308}",
        "a\u{308}\u{323}",
        "\u{327}\u{326}",
        "x\u{309}\u{308}o",
        "\u{11ab}\u{1161}",
        "\u{915}\u{93c}",
        "\u{9c7}\u{9be}",
        "\u{1025}\u{102e}",
        "\u{2126}",
        "\u{212b}",
        "\u{37e}",
        "\u{f900}",
    ] {
        let refused = chinwag_reading(&database, &["user", "add", "ada"], &format!("{changed}12345678\n"));
        assert!(refused.failed().contains("NFC"), "{changed:?}");
    }
    let kept = "p\u{e4}ssw\u{f6}rd \u{3a9}\u{44f}\u{5d0}\u{d55c}\u{6f22} \u{1f469}\u{200d}\u{1f680}\u{2764}\u{fe0f}";
    chinwag_reading(&database, &["user", "add", "ada"], &format!("{kept}\n")).ok();
    assert_eq!(login_status(&server, "ada", kept).await, 200);
}

#[tokio::test]
async fn a_password_is_the_same_letters_however_they_are_composed_in_a_command_too() {
    let server = TestServer::start();
    let database = server.database_path();
    let apart = "pa\u{308}sswo\u{308}rd \u{438}\u{306} \u{3c5}\u{308}\u{301} e\u{323}\u{302} \u{304b}\u{3099} \u{1112}\u{1161}\u{11ab} \u{1100}\u{1161}";
    chinwag_reading(&database, &["user", "add", "ada"], &format!("{apart}\n")).ok();
    let composed = "p\u{e4}ssw\u{f6}rd \u{439} \u{3b0} \u{1ec7} \u{304c} \u{d55c} \u{ac00}";
    assert_eq!(login_status(&server, "ada", composed).await, 200);
    chinwag_reading(&database, &["user", "passwd", "ada"], &format!("{apart}!\n")).ok();
    assert_eq!(login_status(&server, "ada", &format!("{composed}!")).await, 200);
    // A syllable that is whole takes no further letter.
    let refused = chinwag_reading(&database, &["user", "passwd", "ada"], "\u{1100}\u{1161}\u{11ab}\u{11a8} 12345678\n");
    assert!(refused.failed().contains("NFC"));
}

#[tokio::test]
async fn what_an_editor_puts_in_front_of_a_file_is_no_part_of_the_password() {
    let server = TestServer::start();
    chinwag_reading(&server.database_path(), &["user", "add", "ada"], &format!("\u{feff}{PASSWORD}\n")).ok();
    assert_eq!(login_status(&server, "ada", PASSWORD).await, 200);
    assert_ne!(login_status(&server, "ada", &format!("\u{feff}{PASSWORD}")).await, 200, "it was not stored with it");
}

#[test]
fn a_password_is_never_an_argument() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = directory.path().join("chinwag.db");
    for arguments in [["user", "add", "ada", PASSWORD], ["user", "passwd", "ada", PASSWORD]] {
        assert_eq!(chinwag(&database, &arguments).code, 2);
    }
}

#[tokio::test]
async fn a_disabled_user_is_out_at_once_and_comes_back_when_enabled() {
    let mut server = TestServer::start();
    let database = server.database_path();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    chinwag(&database, &["user", "disable", "ada"]).ok();
    assert_eq!(connection.close_code().await, 1008);
    assert_eq!(login_status(&server, "ada", PASSWORD).await, 401);
    assert_eq!(server.get("/messages").by(&ada).send().await.status, 401);
    chinwag(&database, &["user", "enable", "ada"]).ok();
    assert_eq!(server.get("/messages").by(&ada).send().await.status, 401, "what was ended stays so");
    Client::login(&server, "ada").await.connect().await;
    // The log is whole once the process has ended.
    server.stop().await;
    assert!(!server.log().contains("admin command failed"), "{}", server.log());
}

#[tokio::test]
async fn who_disables_a_user_is_told_how_many_sessions_that_ended() {
    let server = TestServer::start();
    let database = server.database_path();
    Client::register(&server, "ada").await;
    Client::register(&server, "bob").await;
    Client::login(&server, "bob").await;
    for (name, sessions) in [("ada", "1 session"), ("bob", "2 sessions")] {
        let said = chinwag(&database, &["user", "disable", name]).ok();
        assert_eq!(said.trim_end(), format!("{name} is disabled; {sessions} ended"));
    }
}

#[tokio::test]
async fn nothing_of_a_disabled_user_is_stored_once_the_administrator_has_been_told() {
    let server = TestServer::start();
    let mut connection = Client::register(&server, "ada").await.connect().await;
    connection.store("first", "before").await;
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        while connection.try_send(&json!({"type": "message", "content": "on and on"}).to_string()).await {
            sent += 1;
        }
        sent
    });
    let database = server.database_path();
    let disabled = tokio::task::spawn_blocking(move || chinwag(&database, &["user", "disable", "ada"]));
    disabled.await.expect("no panic").ok();
    let stored = server.number("SELECT count(*) FROM messages");
    assert!(sending.await.expect("no panic") > 0, "messages were on their way");
    server.healthy(200).await;
    assert_eq!(server.number("SELECT count(*) FROM messages"), stored);
}

#[tokio::test]
async fn a_new_password_ends_the_sessions_and_the_old_one() {
    let server = TestServer::start();
    let mut connection = Client::register(&server, "ada").await.connect().await;
    chinwag_reading(&server.database_path(), &["user", "passwd", "ada"], "another one entirely\n").ok();
    assert_eq!(connection.close_code().await, 1008);
    assert_eq!(login_status(&server, "ada", PASSWORD).await, 401);
    assert_eq!(login_status(&server, "ada", "another one entirely").await, 200);
}

#[tokio::test]
async fn the_messages_of_a_deleted_user_stay_under_a_name_that_nobody_can_have() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    connection.store("n", "I was here").await;
    chinwag(&server.database_path(), &["user", "delete", "ada"]).ok();
    assert_eq!(connection.close_code().await, 1008);
    let again = Client::register(&server, "ada").await;
    let history = server.history(&again).await;
    assert_eq!(contents(&history), ["I was here"]);
    let name = &history[0].username;
    assert_ne!(name, "ada");
    let account = json!({"username": name, "password": PASSWORD});
    assert_eq!(server.post("/register").json(&account).send().await.error(), (422, "invalid_username".into()));
}

#[tokio::test]
async fn the_messages_of_a_deleted_user_go_when_told() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let (mut adas, mut bobs) = (ada.connect().await, bob.connect().await);
    let mut kept = Vec::new();
    for number in 0..20 {
        kept.push(bobs.store(&format!("bob {number}"), "to stay").await);
        adas.store(&format!("ada {number}"), "to go").await;
    }
    let said = chinwag(&server.database_path(), &["user", "delete", "--messages", "ada"]).ok();
    assert!(said.contains("20 messages"), "{said}");
    assert_eq!(ids(&server.history(&bob).await), kept);
    let next = bobs.store("next", "on we go").await;
    assert!(next > kept[19] + 1, "{next}: the last id was given and is not given again");
}

#[tokio::test]
async fn each_message_that_goes_with_its_author_is_told_live_and_to_those_who_come_back() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let (mut adas, mut bobs) = (ada.connect().await, bob.connect().await);
    let said = [adas.store("1", "one").await, adas.store("2", "two").await, adas.store("3", "three").await];
    chinwag(&server.database_path(), &["user", "delete", "--messages", "ada"]).ok();
    let mut back = bob.connect_with(json!({"last_id": said[2]})).await;
    bobs.say("that is all").await;
    for connection in [&mut bobs, &mut back] {
        let mut deletes = Vec::new();
        loop {
            let frame = connection.next().await;
            if frame["type"] == "delete" {
                deletes.push((int(&frame["id"]), int(&frame["message"])));
            } else if frame["content"] == "that is all" {
                break;
            }
        }
        assert_eq!(deletes, [(said[2] + 1, said[0]), (said[2] + 2, said[1]), (said[2] + 3, said[2])]);
    }
}

#[tokio::test]
async fn the_list_tells_who_is_active_disabled_and_deleted() {
    let server = TestServer::start();
    let database = server.database_path();
    for name in ["ada", "bob", "zoe"] {
        Client::register(&server, name).await;
    }
    chinwag(&database, &["user", "disable", "bob"]).ok();
    chinwag(&database, &["user", "delete", "zoe"]).ok();
    let list = chinwag(&database, &["user", "list"]).ok();
    let state = |name: &str| {
        let line = list.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}:\n{list}"));
        line[34..].split_whitespace().next().expect("a state").to_owned()
    };
    assert_eq!(["ada", "bob", "(deleted 3)"].map(state), ["active", "disabled", "deleted"]);
}

#[tokio::test]
async fn the_list_counts_the_sessions_of_each() {
    let server = TestServer::start();
    for name in ["ada", "bob"] {
        Client::register(&server, name).await;
    }
    Client::login(&server, "ada").await;
    let list = chinwag(&server.database_path(), &["user", "list"]).ok();
    let sessions = |name| {
        let line = list.lines().find(|line| line.starts_with(name)).expect("a line for each");
        line.split_whitespace().next_back().expect("a number").to_owned()
    };
    assert_eq!(["ada", "bob"].map(sessions), ["2", "1"]);
}

#[tokio::test]
async fn a_user_or_session_that_does_not_exist_cannot_be_administered() {
    let server = TestServer::start();
    let database = server.database_path();
    for arguments in [
        &["user", "disable", "nobody"][..],
        &["user", "enable", "nobody"],
        &["user", "delete", "nobody"],
        &["user", "delete", "--messages", "nobody"],
        &["session", "revoke", "--user", "nobody"],
        &["session", "revoke", "12"],
    ] {
        assert!(chinwag(&database, arguments).failed().contains("there is no such"), "{arguments:?}");
    }
}

// Sessions

#[tokio::test]
async fn a_revoked_session_is_closed_and_the_others_stay() {
    let server = TestServer::start();
    let database = server.database_path();
    let first = Client::register(&server, "ada").await;
    let (mut one, mut two) = (first.connect().await, Client::login(&server, "ada").await.connect().await);
    let list = chinwag(&database, &["session", "list", "--user", "ADA"]).ok();
    let numbers: Vec<_> = list.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(numbers.len(), 2, "{list}");
    chinwag(&database, &["session", "revoke", numbers[0]]).ok();
    assert_eq!(one.close_code().await, 1008);
    two.store("n", "still here").await;
    chinwag(&database, &["session", "revoke", "--user", "ada"]).ok();
    assert_eq!(two.close_code().await, 1008);
}

// One writer

#[tokio::test]
async fn a_second_server_on_a_database_is_refused() {
    let server = TestServer::start();
    let second = chinwag(&server.database_path(), &["serve", "--listen", "127.0.0.1:0"]);
    assert!(second.failed().contains("another chinwag"));
}

#[tokio::test]
async fn a_server_that_starts_waits_for_a_command_that_only_looks_at_the_lock() {
    use rustix::fs::inotify;
    let mut server = TestServer::start();
    server.stop().await;
    let looking = std::fs::File::open(server.directory().join("chinwag.db.lock")).expect("the server made it");
    looking.lock_shared().expect("nobody has it");
    let watch = inotify::init(inotify::CreateFlags::empty()).expect("the kernel can watch");
    inotify::add_watch(&watch, server.directory(), inotify::WatchFlags::OPEN).expect("the kernel can watch");
    let (done, seen) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4_096];
        let mut events = inotify::Reader::new(&watch, &mut buffer);
        let mut tries = 0;
        // Who opens it a second time has found it locked the first time.
        while tries < 2 {
            let event = events.next().expect("the kernel watches");
            tries += usize::from(event.file_name().is_some_and(|name| name == c"chinwag.db.lock"));
        }
        drop(looking);
        done.send(()).ok();
    });
    server.restart();
    seen.recv_timeout(PATIENCE).expect("the server tried again");
}

#[test]
fn a_password_is_asked_for_before_the_database_is_taken() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (database, lock) = (directory.path().join("chinwag.db"), directory.path().join("chinwag.db.lock"));
    chinwag_reading(&database, &["user", "add", "ada"], PASSWORD).ok();
    std::fs::remove_file(&lock).expect("it is there");
    for command in ["add", "passwd"] {
        assert!(chinwag_reading(&database, &["user", command, "ada"], "short\n").failed().contains("password"));
        assert!(!lock.exists(), "{command}");
    }
}

#[tokio::test]
async fn a_link_to_a_database_is_the_same_database() {
    let server = TestServer::start();
    let link = server.directory().join("link.db");
    std::os::unix::fs::symlink(server.database_path(), &link).expect("a link");
    assert!(chinwag(&link, &["serve", "--listen", "127.0.0.1:0"]).failed().contains("another chinwag"));
    chinwag_reading(&link, &["user", "add", "ada"], PASSWORD).ok();
    Client::login(&server, "ada").await;
}

#[tokio::test]
async fn all_files_of_a_database_are_for_their_owner_only() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    for entry in std::fs::read_dir(server.directory()).expect("the directory is there") {
        let path = entry.expect("an entry").path();
        assert_eq!(mode_of(&path), 0o600, "{}", path.display());
    }
    assert!(server.directory().join("chinwag.db.sock").exists());
}

#[test]
fn what_root_makes_belongs_to_the_owner_of_the_directory() {
    use std::os::unix::fs::{MetadataExt, chown};
    if !rustix::process::geteuid().is_root() {
        return skip("this needs root");
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    chown(directory.path(), Some(SOMEBODY), Some(SOMEBODY)).expect("root gives things away");
    let (database, copy) = (directory.path().join("chinwag.db"), directory.path().join("copy.db"));
    chinwag_reading(&database, &["user", "add", "ada"], PASSWORD).ok();
    chinwag(&database, &["backup", copy.to_str().expect("text")]).ok();
    chinwag(&database, &["restore", copy.to_str().expect("text")]).ok();
    chinwag(&database, &["user", "disable", "ada"]).ok();
    for entry in std::fs::read_dir(directory.path()).expect("the directory is there") {
        let entry = entry.expect("an entry");
        assert_eq!(entry.metadata().expect("it is there").uid(), SOMEBODY, "{}", entry.path().display());
    }
}

#[test]
fn what_stands_in_for_the_lock_file_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (database, victim) = (directory.path().join("chinwag.db"), directory.path().join("victim"));
    let lock = directory.path().join("chinwag.db.lock");
    chinwag_reading(&database, &["user", "add", "ada"], PASSWORD).ok();
    std::fs::remove_file(&lock).expect("it is there");
    std::fs::write(&victim, "precious").expect("a file");
    let links: [fn(&Path, &Path) -> std::io::Result<()>; 2] =
        [|of, at| std::os::unix::fs::symlink(of, at), |of, at| std::fs::hard_link(of, at)];
    for link in links {
        link(&victim, &lock).expect("a link");
        let line = chinwag(&database, &["user", "disable", "ada"]).failed();
        assert!(line.contains("chinwag.db.lock is a link"), "{line}");
        assert_eq!(std::fs::read_to_string(&victim).expect("it is there"), "precious");
        std::fs::remove_file(&lock).expect("it is there");
    }
    std::fs::create_dir(&lock).expect("a directory");
    let line = chinwag(&database, &["user", "disable", "ada"]).failed();
    assert!(line.contains("s a directory"), "what is the matter is said: {line}");
}

#[tokio::test]
async fn the_control_socket_goes_with_the_server_and_a_stale_one_is_replaced() {
    let mut server = TestServer::start();
    let socket = server.directory().join("chinwag.db.sock");
    server.kill().await;
    assert!(socket.exists(), "nobody was left to remove it");
    server.restart();
    chinwag_reading(&server.database_path(), &["user", "add", "ada"], PASSWORD).ok();
    server.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn nonsense_at_the_control_socket_changes_nothing() {
    use std::io::{ErrorKind, Read, Write};
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    for nonsense in [&b"\n"[..], b"drop users\n", b"disable-user ada now\n", b"\xff\xfe\n", &[b'x'; 4096]] {
        let socket = server.directory().join("chinwag.db.sock");
        let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        // It may have hung up before it was sent all.
        stream.write_all(nonsense).ok();
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer).map_err(|error| error.kind());
        assert!(matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)), "{end:?} after {nonsense:?}");
        assert!(!answer.starts_with(b"done"), "{nonsense:?}");
    }
    ada.connect().await;
    chinwag(&server.database_path(), &["user", "disable", "ada"]).ok();
}

#[tokio::test]
async fn a_command_that_gets_no_answer_says_that_it_may_still_be_done() {
    let server = TestServer::start();
    let mut connection = Client::register(&server, "ada").await.connect().await;
    let blocker = server.database();
    blocker.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let line = chinwag(&server.database_path(), &["user", "enable", "ada"]).failed();
    assert!(line.contains("unavailable") && line.contains("may still be"), "{line}");
    blocker.execute_batch("ROLLBACK").expect("the lock is given up");

    server.pause().await;
    let line = chinwag(&server.database_path(), &["user", "disable", "ada"]).failed();
    assert!(line.contains("does not answer") && line.contains("may still be"), "{line}");
    server.signal(Signal::CONT);
    assert_eq!(connection.close_code().await, 1008, "it was");
}

// The command line

#[tokio::test]
async fn the_database_may_be_named_before_or_behind_a_command() {
    let server = TestServer::start();
    let path = server.database_path();
    let path = path.to_str().expect("text");
    let elsewhere = Path::new("/nowhere/chinwag.db");
    chinwag_reading(elsewhere, &["--db", path, "user", "add", "ada"], PASSWORD).ok();
    chinwag_reading(elsewhere, &["user", "add", "bob", "--db", path], PASSWORD).ok();
    assert_eq!(server.number("SELECT count(*) FROM users"), 2);
}

#[test]
fn a_flag_of_the_server_before_another_command_is_refused() {
    let ended = chinwag(Path::new("chinwag.db"), &["--listen", "127.0.0.1:0", "user", "list"]);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("--listen"), "{ended:?}");
}

#[test]
fn a_missing_database_is_not_made_by_a_command_that_only_looks() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let missing = directory.path().join("missing.db");
    for arguments in [
        &["user", "list"][..],
        &["user", "disable", "ada"],
        &["session", "list"],
        &["check"],
        &["health"],
        &["export"],
        &["backup", "copy.db"],
        &["prune", "--older-than", "1d"],
    ] {
        let line = chinwag(&missing, arguments).failed();
        assert!(line.contains("missing.db"), "{arguments:?}: {line}");
        assert_eq!(std::fs::read_dir(directory.path()).expect("it is there").count(), 0, "{arguments:?}");
    }
}

#[tokio::test]
async fn health_is_the_servers() {
    let mut server = TestServer::start();
    assert_eq!(chinwag(&server.database_path(), &["health"]).ok(), "ok\n");
    server.stop().await;
    chinwag(&server.database_path(), &["health"]).failed();
}

#[tokio::test]
async fn a_full_server_is_well() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    // No request before hers, whose place would be free only a moment after its answer.
    server.stop().await;
    server.restart_with(&["--max-connections", "1"]);
    let _inside = ada.connect().await;
    assert_eq!(chinwag(&server.database_path(), &["health"]).ok(), "full\n");
}

#[tokio::test]
async fn the_first_start_says_what_to_do_next_and_where() {
    let mut server = TestServer::start();
    let hint = server.logged("nobody has an account yet").await;
    assert!(hint.contains(&format!("http://{}", server.address())), "{hint}");
    Client::register(&server, "ada").await;
    server.stop().await;
    let before = server.log().matches("nobody has an account yet").count();
    server.restart();
    server.stop().await;
    assert_eq!(server.log().matches("nobody has an account yet").count(), before);
}
