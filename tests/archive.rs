//! The database as a whole: backed up, restored, exported, imported, pruned, checked.

mod common;

use std::path::{Path, PathBuf};

use common::{Client, TestServer, chinwag, chinwag_reading, contents, ids, int, text, within};
use rusqlite::Connection;
use serde_json::{Value, json};

fn path_text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Runs a command that takes a file, beside the database.
fn with_file(server: &TestServer, command: &str, file: &Path) -> common::Ended {
    chinwag(&server.database_path(), &[command, path_text(file)])
}

/// The one number that `query` yields in the database at `path`.
fn number_in(path: &Path, query: &str) -> i64 {
    let database = Connection::open(path).expect("the database opens");
    database.query_row(query, [], |row| row.get(0)).expect("the query yields a number")
}

/// A stopped server with a user, `ada`, and `count` messages of hers.
async fn stopped_with(count: usize) -> TestServer {
    let mut server = TestServer::start();
    let mut ada = Client::register(&server, "ada").await.connect().await;
    let texts: Vec<_> = (0..count).map(|number| format!("number {number}")).collect();
    ada.store_all("n", &texts).await;
    server.stop().await;
    server
}

/// Waits until the server has `count` messages left: it prunes when it likes.
async fn left(server: &TestServer, count: i64) {
    within("the rest to be removed", async {
        while server.number("SELECT count(*) FROM messages") > count {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(server.number("SELECT count(*) FROM messages"), count);
}

// Backup and restore

#[tokio::test]
async fn a_backup_while_messages_arrive_has_all_that_was_acknowledged_before_it_began() {
    let server = TestServer::start();
    let mut ada = Client::register(&server, "ada").await.connect().await;
    let long = "x".repeat(3_000);
    let texts: Vec<_> = (0..500).map(|_| long.clone()).collect();
    let before = ada.store_all("before", &texts).await;
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        // Aborted in the end; meanwhile there is always a commit on its way.
        loop {
            ada.store(&format!("during {sent}"), &long).await;
            sent += 1;
        }
    });
    let (database, copy) = (server.database_path(), server.directory().join("copy.db"));
    let said = {
        let copy = copy.clone();
        let backup = tokio::task::spawn_blocking(move || chinwag(&database, &["backup", path_text(&copy)]));
        backup.await.expect("no panic").ok()
    };
    assert!(!sending.is_finished(), "nobody was cut off");
    sending.abort();
    assert!(said.contains("verified"), "{said}");
    let last = before.last().expect("there are messages");
    let arrived = number_in(&copy, &format!("SELECT count(*) FROM messages WHERE id <= {last}"));
    assert_eq!(arrived, 500);
    assert_eq!(number_in(&copy, "SELECT max(id) - min(id) + 1 - count(*) FROM messages"), 0, "it is of one moment");
}

#[tokio::test]
async fn a_backup_is_one_file_of_its_owner_and_replaces_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let server = stopped_with(3).await;
    let copy = server.directory().join("copy.db");
    with_file(&server, "backup", &copy).ok();
    assert_eq!(std::fs::metadata(&copy).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert_eq!(files_of(&server, "copy.db"), ["copy.db"]);
    assert!(with_file(&server, "backup", &copy).failed().contains("exists"));
    assert!(with_file(&server, "backup", &server.database_path()).failed().contains("exists"));
}

/// The names of the files in the server's directory that begin with `start`, in order.
fn files_of(server: &TestServer, start: &str) -> Vec<String> {
    let names =
        std::fs::read_dir(server.directory()).expect("it is there").map(|entry| entry.expect("one").file_name());
    let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| name.starts_with(start));
    names.sort();
    names
}

#[tokio::test]
async fn of_many_backups_to_one_file_at_once_one_is_made_and_the_others_are_told() {
    let server = stopped_with(300).await;
    let copy = server.directory().join("copy.db");
    // What another one has in the making.
    let others = server.directory().join("copy.db.partial");
    std::fs::write(&others, "of somebody else").expect("a file");
    let ended = std::thread::scope(|scope| {
        let backups: Vec<_> = (0..4).map(|_| scope.spawn(|| with_file(&server, "backup", &copy))).collect();
        backups.into_iter().map(|backup| backup.join().expect("no panic")).collect::<Vec<_>>()
    });
    let (made, told): (Vec<_>, Vec<_>) = ended.into_iter().partition(|ended| ended.code == 0);
    assert_eq!(made.len(), 1, "{made:?}");
    assert!(told.into_iter().all(|ended| ended.failed().contains("copy.db exists already")));
    assert_eq!(number_in(&copy, "SELECT count(*) FROM messages"), 300);
    assert_eq!(files_of(&server, "copy.db"), ["copy.db", "copy.db.partial"]);
    assert_eq!(std::fs::read_to_string(&others).expect("it is there"), "of somebody else");
}

#[tokio::test]
async fn a_backup_or_an_export_that_fails_leaves_nothing_in_the_way_of_the_next() {
    let server = stopped_with(300).await;
    let sound = std::fs::read(server.database_path()).expect("it is there");
    let mut damaged = sound.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 4_096].fill(0xA5);
    for command in ["backup", "export"] {
        let file = server.directory().join("file");
        std::fs::write(server.database_path(), &damaged).expect("it is written");
        with_file(&server, command, &file).failed();
        assert!(files_of(&server, "file").is_empty(), "{command}");
        std::fs::write(server.database_path(), &sound).expect("it is written");
        with_file(&server, command, &file).ok();
        assert!(with_file(&server, command, &file).failed().contains("exists"), "{command}");
        std::fs::remove_file(&file).expect("it was made");
    }
}

#[tokio::test]
async fn a_restore_brings_the_backup_back_under_a_new_epoch_and_keeps_the_old_file() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    let epoch = text(&connection.welcome["epoch"]).to_owned();
    connection.store("1", "before").await;
    let copy = server.directory().join("copy.db");
    with_file(&server, "backup", &copy).ok();
    let lost = connection.store("2", "after").await;
    server.stop().await;
    let ended = with_file(&server, "restore", &copy);
    let kept = ended.stderr.split_whitespace().last().map(PathBuf::from).expect("it says where");
    ended.ok();
    assert_eq!(number_in(&kept, "SELECT count(*) FROM messages"), 2);
    server.restart();
    assert_eq!(contents(&server.history(&ada).await), ["before"]);
    let mut connection = ada.connect_with(json!({"last_id": lost, "epoch": epoch})).await;
    assert_ne!(connection.welcome["epoch"], Value::from(epoch));
    assert_eq!(int(&connection.next_of("resync").await["after"]), 0, "the client starts afresh");
}

#[tokio::test]
async fn a_backup_is_restored_where_there_is_no_database() {
    let server = stopped_with(3).await;
    let (copy, elsewhere) = (server.directory().join("copy.db"), server.directory().join("elsewhere.db"));
    with_file(&server, "backup", &copy).ok();
    chinwag(&elsewhere, &["restore", path_text(&copy)]).ok();
    assert_eq!(number_in(&elsewhere, "SELECT count(*) FROM messages"), 3);
}

/// What a process that was killed leaves beside the database at `path`, of which `backup` is a copy: a log with an
/// update that was committed, or a journal that would undo one. In each case a stale text would appear.
fn leave_behind(suffix: &str, backup: &Path, path: &Path) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let victim = directory.path().join("victim.db");
    std::fs::copy(backup, &victim).expect("a copy");
    let database = Connection::open(&victim).expect("the database opens");
    let (stale, open) = ("UPDATE messages SET content = 'stale'", "BEGIN; UPDATE messages SET content = 'newer'");
    match suffix {
        "-wal" => database.execute_batch(&format!("PRAGMA journal_mode = wal; {stale}")),
        _ => database.execute_batch(&format!("{stale}; PRAGMA synchronous = off; {open}")),
    }
    .expect("an update");
    let of = |path: &Path| PathBuf::from(format!("{}{suffix}", path_text(path)));
    std::fs::copy(of(&victim), of(path)).expect("the process has not ended");
}

#[tokio::test]
async fn what_is_left_beside_a_missing_database_or_of_another_restore_does_not_get_into_this_one() {
    let server = stopped_with(3).await;
    let backup = server.directory().join("copy.db");
    with_file(&server, "backup", &backup).ok();
    for left in ["chinwag.db-wal", "chinwag.db-journal", "chinwag.db.restored-wal", "chinwag.db.restored-journal"] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (beside, suffix) = left.split_at(left.rfind('-').expect("a suffix"));
        leave_behind(suffix, &backup, &directory.path().join(beside));
        let database = directory.path().join("chinwag.db");
        chinwag(&database, &["restore", path_text(&backup)]).ok();
        assert!(!directory.path().join(left).exists(), "{left}");
        assert_eq!(number_in(&database, "SELECT count(*) FROM messages WHERE content = 'stale'"), 0, "{left}");
    }
}

#[tokio::test]
async fn there_is_a_database_at_every_moment_of_a_restore() {
    use rustix::fs::inotify;
    let server = stopped_with(3).await;
    let backup = server.directory().join("copy.db");
    with_file(&server, "backup", &backup).ok();
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).expect("the kernel can watch");
    let gone = inotify::WatchFlags::MOVED_FROM | inotify::WatchFlags::DELETE;
    inotify::add_watch(&watch, server.directory(), gone).expect("the kernel can watch");
    with_file(&server, "restore", &backup).ok();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4_096];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    let mut moved = Vec::new();
    while let Ok(event) = events.next() {
        moved.push(event.file_name().expect("the watch is on a directory").to_string_lossy().into_owned());
    }
    assert!(moved.contains(&"chinwag.db.restored".to_owned()), "{moved:?}");
    assert!(!moved.contains(&"chinwag.db".to_owned()), "{moved:?}");
}

#[tokio::test]
async fn what_is_no_sound_backup_is_refused_and_changes_nothing() {
    let server = stopped_with(300).await;
    let before = std::fs::read(server.database_path()).expect("the database is read");
    let sound = server.directory().join("copy.db");
    with_file(&server, "backup", &sound).ok();
    let bad = server.directory().join("bad.db");

    let mut damaged = std::fs::read(&sound).expect("the copy is read");
    let middle = damaged.len() / 2;
    damaged[middle..middle + 4_096].fill(0xA5);
    std::fs::write(&bad, &damaged).expect("a file");
    with_file(&server, "restore", &bad).failed();

    std::fs::write(&bad, &damaged[..middle]).expect("a file");
    with_file(&server, "restore", &bad).failed();

    std::fs::write(&bad, "a shopping list").expect("a file");
    with_file(&server, "restore", &bad).failed();

    std::fs::remove_file(&bad).expect("it is there");
    with_file(&server, "restore", &bad).failed();

    let other = Connection::open(&bad).expect("a database");
    other.execute_batch("CREATE TABLE recipes (name TEXT)").expect("a table");
    with_file(&server, "restore", &bad).failed();

    assert_eq!(std::fs::read(server.database_path()).expect("it is there"), before);
}

#[tokio::test]
async fn nothing_replaces_a_database_while_a_server_runs() {
    let server = TestServer::start();
    Client::register(&server, "ada").await;
    let (copy, export) = (server.directory().join("copy.db"), server.directory().join("export.jsonl"));
    with_file(&server, "backup", &copy).ok();
    with_file(&server, "export", &export).ok();
    assert!(with_file(&server, "restore", &copy).failed().contains("another chinwag"));
    assert!(with_file(&server, "import", &export).failed().contains("another chinwag"));
    Client::login(&server, "ada").await;
}

#[tokio::test]
async fn a_backup_with_anything_in_it_that_is_not_ours_is_refused() {
    let server = stopped_with(3).await;
    let before = std::fs::read(server.database_path()).expect("the database is read");
    let (sound, bad) = (server.directory().join("copy.db"), server.directory().join("bad.db"));
    with_file(&server, "backup", &sound).ok();
    let trigger = "CREATE TRIGGER trap AFTER UPDATE ON meta BEGIN DELETE FROM messages; END";
    let hidden = "DROP TRIGGER messages_high_water; CREATE TRIGGER messages_high_water AFTER DELETE ON messages
        WHEN old.id > (SELECT value FROM meta WHERE key = 'high_water--
        ') BEGIN UPDATE meta SET value = old.id WHERE key = 'high_water'; END";
    for (change, finding) in [
        (trigger, "not one of chinwag"),
        (hidden, "not one of chinwag"),
        ("CREATE VIEW everything AS SELECT * FROM messages", "not one of chinwag"),
        ("DROP INDEX sessions_by_use", "not one of chinwag"),
        ("UPDATE meta SET value = 9223372036854775807 WHERE key = 'high_water'", "no message"),
    ] {
        std::fs::copy(&sound, &bad).expect("a copy");
        Connection::open(&bad).and_then(|database| database.execute_batch(change)).expect("the change is made");
        let line = with_file(&server, "restore", &bad).failed();
        assert!(line.contains(finding), "{change}: {line}");
        assert_eq!(std::fs::read(server.database_path()).expect("it is there"), before, "{change}");
    }
}

// Export and import

#[tokio::test]
async fn an_import_of_an_export_exports_the_same() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "Ada").await;
    let mut connection = ada.connect().await;
    Client::register(&server, "bob").await;
    for (number, content) in ["plain", "zwölf \"Boxkämpfer\" 🥊\n\tand a \\", "gone"].iter().enumerate() {
        connection.store(&number.to_string(), content).await;
    }
    server.number("DELETE FROM messages WHERE content = 'gone' RETURNING 1");
    chinwag(&server.database_path(), &["user", "delete", "bob"]).ok();
    let exported = chinwag(&server.database_path(), &["export"]).ok();
    assert!(exported.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{exported}");
    server.stop().await;

    std::fs::remove_file(server.database_path()).expect("it is there");
    chinwag_reading(&server.database_path(), &["import"], &exported).ok();
    assert_eq!(chinwag(&server.database_path(), &["export"]).ok(), exported);

    server.restart();
    let again = Client::login(&server, "ada").await;
    assert_eq!(server.history(&again).await.len(), 2);
    assert_eq!(again.connect().await.store("next", "on we go").await, 4, "an id that was given is not given again");
}

#[tokio::test]
async fn an_export_that_is_not_whole_and_sound_imports_nothing() {
    let server = stopped_with(3).await;
    let exported = chinwag(&server.database_path(), &["export"]).ok();
    let lines: Vec<_> = exported.lines().collect();
    let without = |at: usize| [&lines[..at], &lines[at + 1..]].concat().join("\n");
    let elsewhere = server.directory().join("elsewhere.db");
    let changed = [
        (without(0), "line 1"),
        (without(1), "line 2"),
        (without(3), "line 5"),
        (lines[..4].join("\n"), "cut short"),
        (exported.replacen("number 1", "number\\u0000", 1), "line 4"),
        (exported.replacen("ada", "a da", 1), "line 2"),
        (exported.replacen("\"id\":2", "\"id\":1", 1), "line 4"),
        (exported.replacen("\"id\":1", "\"id\":0", 1), "line 2"),
        (exported.replacen("\"id\":3", "\"id\":9007199254740992", 1), "line 5"),
        (exported.replacen("\"last_id\":3", "\"last_id\":9223372036854775807", 1), "no id"),
        (exported.replacen("m=19456", "m=4294967295", 1), "line 2"),
        (exported.replacen("\"format\":1", "\"format\":2", 1), "format 2"),
        (String::new(), "line 1"),
    ];
    for (changed, finding) in changed {
        let line = chinwag_reading(&elsewhere, &["import"], &changed).failed();
        assert!(line.contains(finding), "{finding}: {line}\n{changed}");
    }
    chinwag_reading(&elsewhere, &["import"], &exported).ok();
    assert_eq!(number_in(&elsewhere, "SELECT count(*) FROM messages"), 3, "none of them left anything behind");
}

#[tokio::test]
async fn an_import_needs_an_empty_database() {
    let server = stopped_with(1).await;
    let exported = chinwag(&server.database_path(), &["export"]).ok();
    assert!(chinwag_reading(&server.database_path(), &["import"], &exported).failed().contains("empty"));
}

#[tokio::test]
async fn a_hash_that_asks_for_all_the_memory_there_is_lets_nobody_in_and_ends_no_server() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let changed = server
        .database()
        .execute("UPDATE users SET password_hash = replace(password_hash, 'm=19456', 'm=4294967295')", []);
    assert_eq!(changed, Ok(1));
    let login = server.post("/login").json(&json!({"username": "ada", "password": common::PASSWORD}));
    assert_eq!(login.send().await.status, 401);
    assert_eq!(server.history(&ada).await, []);
}

// Pruning

/// Has the first `count` messages be of long ago.
fn age(server: &TestServer, count: u32) {
    let aged = server.database().execute("UPDATE messages SET created_at = 1000 WHERE id <= ?1", [count]);
    assert_eq!(aged, Ok(count as usize));
}

#[tokio::test]
async fn prune_removes_what_is_older_and_nothing_else() {
    let mut server = stopped_with(1_300).await;
    age(&server, 1_200);
    server.restart();
    let said = chinwag(&server.database_path(), &["prune", "--older-than", "90d"]).ok();
    assert!(said.contains("1200 messages"), "{said}");
    let ada = Client::login(&server, "ada").await;
    assert_eq!(ids(&server.history(&ada).await), (1_201..=1_300).collect::<Vec<_>>());
}

/// Has the first `count` messages be of a time that has not come.
fn advance(server: &TestServer, count: u32) {
    let advanced = server.database().execute("UPDATE messages SET created_at = 32503680000000 WHERE id <= ?1", [count]);
    assert_eq!(advanced, Ok(count as usize));
}

#[tokio::test]
async fn prune_goes_past_messages_that_came_while_the_clock_was_ahead() {
    for (of_then, removed) in [(1, 1_199), (700, 500)] {
        let server = stopped_with(1_300).await;
        age(&server, 1_200);
        advance(&server, of_then);
        let said = chinwag(&server.database_path(), &["prune", "--older-than", "90d"]).ok();
        assert!(said.contains(&format!("{removed} messages")), "{said}");
    }
}

#[tokio::test]
async fn keep_days_goes_past_messages_that_came_while_the_clock_was_ahead() {
    let mut server = stopped_with(1_300).await;
    age(&server, 1_200);
    advance(&server, 700);
    server.restart_with(&["--keep-days", "7", "--keep-messages", "1000"]);
    left(&server, 500).await;
    assert_eq!(server.number("SELECT min(id) FROM messages"), 301, "of the oldest only what is too many went");
}

#[tokio::test]
async fn ids_are_not_used_again_when_everything_was_pruned() {
    let mut server = stopped_with(5).await;
    age(&server, 5);
    chinwag(&server.database_path(), &["prune", "--older-than", "1d"]).ok();
    server.restart();
    let mut ada = Client::login(&server, "ada").await.connect().await;
    assert_eq!(int(&ada.welcome["last_id"]), 5);
    assert_eq!(ada.store("next", "on we go").await, 6);
}

#[tokio::test]
async fn keep_messages_keeps_the_newest() {
    let mut server = stopped_with(1_300).await;
    server.restart_with(&["--keep-messages", "40"]);
    left(&server, 40).await;
    let ada = Client::login(&server, "ada").await;
    assert_eq!(ids(&server.history(&ada).await), (1_261..=1_300).collect::<Vec<_>>());
}

#[tokio::test]
async fn keep_days_keeps_what_is_not_older() {
    let mut server = stopped_with(50).await;
    age(&server, 30);
    server.restart_with(&["--keep-days", "7"]);
    left(&server, 20).await;
}

#[tokio::test]
async fn without_being_told_nothing_is_removed() {
    let mut server = stopped_with(50).await;
    age(&server, 30);
    server.restart();
    server.healthy(200).await;
    Client::login(&server, "ada").await.connect().await.store("n", "a commit later").await;
    assert_eq!(server.number("SELECT count(*) FROM messages"), 51);
}

#[tokio::test]
async fn nothing_of_a_text_that_was_removed_is_left_in_the_file() {
    let mut server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let (mut adas, mut bobs) = (ada.connect().await, bob.connect().await);
    for round in 0..40 {
        // Some fill pages of their own, and some share a page with others.
        let texts = |word: &str| -> Vec<_> {
            (0..10_usize).map(|number| format!("{word} ").repeat(1 + number.pow(3) * (round % 2) / 2)).collect()
        };
        adas.store_all(&format!("ada {round}"), &texts("secret")).await;
        bobs.store_all(&format!("bob {round}"), &texts("known")).await;
    }
    server.stop().await;
    let occurs = |word: &str| {
        let bytes = std::fs::read(server.database_path()).expect("the database is read");
        bytes.windows(word.len()).any(|window| window == word.as_bytes())
    };
    assert!(occurs("secret") && occurs("known"));
    // The command is alone with the database: when it ends, the log is in the file, and gone.
    chinwag(&server.database_path(), &["user", "delete", "--messages", "ada"]).ok();
    assert!(!server.directory().join("chinwag.db-wal").exists());
    assert!(!occurs("secret") && occurs("known"));
}

// Check

#[tokio::test]
async fn check_tells_what_is_inside() {
    let server = TestServer::start();
    Client::register(&server, "ada").await.connect().await.store("n", "hello").await;
    let said = chinwag(&server.database_path(), &["check"]).ok();
    let value = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name}:\n{said}")).trim().to_owned()
    };
    assert_eq!(["integrity", "users", "sessions"].map(value), ["ok", "1", "1"]);
    assert_eq!(value("messages"), "1, last id 1");
    assert_eq!(value("server"), format!("http://{}", server.address()));
    assert_eq!(value("version").parse(), Ok(server.number("SELECT user_version FROM pragma_user_version")));
}

#[tokio::test]
async fn check_finds_damage() {
    let server = stopped_with(300).await;
    let mut bytes = std::fs::read(server.database_path()).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4_096].fill(0xA5);
    std::fs::write(server.database_path(), bytes).expect("it is written");
    chinwag(&server.database_path(), &["check"]).failed();
}

// Durability

#[tokio::test]
async fn normal_durability_serves_as_full_does_and_survives_a_kill() {
    let mut server = TestServer::with(&["--durability", "normal"]);
    let ada = Client::register(&server, "ada").await;
    ada.connect().await.store("n", "kept").await;
    server.kill().await;
    server.restart();
    assert_eq!(contents(&server.history(&ada).await), ["kept"]);
}
