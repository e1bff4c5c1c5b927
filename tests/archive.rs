//! The database as a whole: backed up, restored, exported, imported, pruned, checked.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Client, TestServer, chinwag, chinwag_reading, contents, ids, int, text, wait_while};
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
    wait_while("the rest to be removed", async || server.number("SELECT count(*) FROM messages") > count).await;
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
    // A page that an export reads: one with messages.
    let page = damaged.chunks_mut(4_096).find(|page| page.windows(10).any(|bytes| bytes == b"number 150"));
    page.expect("the message is in the file").fill(0xA5);
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
async fn files_left_beside_a_missing_database_or_by_another_restore_do_not_get_into_this_one() {
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
        (trigger, "its schema is not"),
        (hidden, "its schema is not"),
        ("CREATE VIEW everything AS SELECT * FROM messages", "its schema is not"),
        ("DROP INDEX sessions_by_use", "its schema is not"),
        ("UPDATE meta SET value = 9223372036854775807 WHERE key = 'high_water'", "invalid high_water"),
    ] {
        std::fs::copy(&sound, &bad).expect("a copy");
        Connection::open(&bad).and_then(|database| database.execute_batch(change)).expect("the change is made");
        let line = with_file(&server, "restore", &bad).failed();
        assert!(line.contains(finding), "{change}: {line}");
        assert_eq!(std::fs::read(server.database_path()).expect("it is there"), before, "{change}");
    }
}

// Export and import

/// A GIF of one pixel, as the server keeps it.
const PIXEL: &str = "474946383961010001008000000000000000002c00000000010001000002024401003b";

/// One of everything that a chat may have, beside the messages 1 to 3 of ada, user 1.
const EVERYTHING: &str = "
    INSERT INTO users (id, name, password_hash, created_at, read_from, is_bot, is_moderator, last_seen)
        VALUES (2, 'eve', '', 5, 3, 1, 0, 6), (3, 'mo', '', 5, 3, 0, 1, 6);
    UPDATE rooms SET topic = 'all of it', changed = 4 WHERE id = 1;
    INSERT INTO rooms (id, kind, name, folded, emoji, topic, archived_at, created_at, changed)
        VALUES (2, 1, 'Straße', 'straße', '🚧', '', 9, 7, 5);
    INSERT INTO rooms (id, kind, name, emptied_at, created_at, changed) VALUES (3, 2, 'Plans', 9, 7, 6);
    INSERT INTO rooms (id, kind, created_at, changed, pair) VALUES (4, 3, 7, 7, '1-3');
    INSERT INTO members VALUES (3, 1, 8, 1), (3, 2, 9, 0), (4, 1, 7, 1), (4, 3, 7, 1), (99, 1, 2, 0);
    INSERT INTO messages (id, user_id, content, created_at, room_id, edit, edited_at, reply_to, mentions, reacted)
        VALUES (10, 1, '@eve a plan', 11, 3, 11, 12, NULL, 'eve', 1);
    INSERT INTO messages (id, user_id, content, created_at, room_id, image_id) VALUES (12, 3, '', 13, 4, 1);
    INSERT INTO messages (id, user_id, content, created_at, room_id, reply_to) VALUES (14, 3, '', 13, 4, 12);
    INSERT INTO mentions VALUES (3, 2, 10);
    INSERT INTO reactions VALUES (10, 1, '👍', 14, 3, 1), (10, 3, '🎉', 15, 3, 0);
    INSERT INTO deletes VALUES (16, 13, 3, 1);
    INSERT INTO reads VALUES (1, 3, 10);
    INSERT INTO room_notify VALUES (1, 3, 2);
    UPDATE meta SET value = 16 WHERE key = 'high_water';
    INSERT INTO images (id, user_id, message_id, subtype, width, height, alt, created_at, bytes)
        VALUES (1, 3, 12, 'gif', 1, 1, 'a dot', 13, x'PIXEL');";

/// A stopped server with one of everything.
async fn stopped_with_everything() -> TestServer {
    let server = stopped_with(3).await;
    server.database().execute_batch(&EVERYTHING.replace("PIXEL", PIXEL)).expect("the schema has all of it");
    server
}

#[tokio::test]
async fn an_import_of_an_export_exports_the_same() {
    let mut server = stopped_with_everything().await;
    chinwag(&server.database_path(), &["user", "delete", "mo"]).ok();
    let exported = chinwag(&server.database_path(), &["export"]).ok();
    assert!(exported.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{exported}");
    for kind in ["user", "room", "member", "message", "delete", "reaction", "mention", "read", "notify", "image"] {
        assert!(exported.contains(&format!("{{\"type\":\"{kind}\",")), "{kind}");
    }
    std::fs::remove_file(server.database_path()).expect("it is there");
    chinwag_reading(&server.database_path(), &["import"], &exported).ok();
    assert_eq!(chinwag(&server.database_path(), &["export"]).ok(), exported);
    chinwag(&server.database_path(), &["check"]).ok();

    server.restart();
    let again = Client::login(&server, "ada").await;
    assert_eq!(server.history(&again).await.len(), 3);
    let next = again.connect().await.store("next", "on we go").await;
    assert!(next > 16, "{next}: an id that was given is not given again");
}

#[tokio::test]
async fn what_is_of_the_server_and_not_of_the_chat_is_not_exported() {
    let server = stopped_with_everything().await;
    let secret = "INSERT INTO meta VALUES ('vapid', x'0badc0de');
        INSERT INTO push_subscriptions VALUES (1, 'https://push.example/secret', 1, 1, x'0badc0de', 1, 0, 5);
        INSERT INTO invites VALUES (1, randomblob(32), 5, 5, 1, 5, 6)";
    server.database().execute_batch(secret).expect("the schema has all of it");
    let exported = chinwag(&server.database_path(), &["export"]).ok();
    for secret in ["0badc0de", "push.example", "vapid", "invite", "session"] {
        assert!(!exported.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_line_of_an_export_has_no_field_for_what_its_record_has_not() {
    let server = stopped_with(1).await;
    let export = chinwag(&server.database_path(), &["export"]).ok();
    for line in export.lines() {
        let record: Value = serde_json::from_str(line).expect("JSON");
        let mut fields = record.as_object().expect("an object").values();
        assert!(fields.all(|field| ![Value::Null, json!(""), json!(false)].contains(field)), "{line}");
    }
}

#[tokio::test]
async fn an_export_of_the_first_format_is_taken_in() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("chinwag.db");
    let exported = r#"{"type":"chinwag","format":1,"last_id":9}
{"type":"user","id":1,"username":"Ada","password_hash":"$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA","created_at":1700000000000}
{"type":"user","id":2,"username":"(deleted 2)","password_hash":"","created_at":1700000000000,"disabled_at":1700000000001}
{"type":"message","id":7,"user":2,"username":"(deleted 2)","content":"hello","created_at":1700000000002}
{"type":"end","users":2,"messages":1}
"#;
    chinwag_reading(&path, &["import"], exported).ok();
    assert_eq!(number_in(&path, "SELECT room_id FROM messages WHERE id = 7"), 1);
    assert_eq!(number_in(&path, "SELECT min(read_from) FROM users"), 9, "nothing of it is new to anybody");
    assert_eq!(number_in(&path, "SELECT value FROM meta WHERE key = 'high_water'"), 9);
}

#[tokio::test]
async fn an_export_that_is_not_whole_and_sound_imports_nothing() {
    let server = stopped_with_everything().await;
    let exported = chinwag(&server.database_path(), &["export"]).ok();
    let lines: Vec<_> = exported.lines().collect();
    let without = |at: usize| [&lines[..at], &lines[at + 1..]].concat().join("\n");
    let elsewhere = server.directory().join("elsewhere.db");
    let first = lines.iter().position(|line| line.contains("number 0")).expect("a message");
    let changed = [
        (without(0), "line 1"),
        (without(1), "line"),
        (without(first), "messages"),
        (without(lines.len() - 2), "lines of the export are missing"),
        (lines[..4].join("\n"), "cut short"),
        (exported.replacen("number 1", "number\\u0000", 1), "control"),
        (exported.replacen("number 1", &"x".repeat(4_001), 1), "4000"),
        (exported.replacen("\"ada\"", "\"a da\"", 1), "invalid username"),
        (exported.replacen("\"ada\"", "\"\\u001b[2J\"", 1), "invalid username"),
        (exported.replacen("\"id\":2,\"user\"", "\"id\":1,\"user\"", 1), "out of order"),
        (exported.replacen("\"id\":1,\"user\"", "\"id\":0,\"user\"", 1), "invalid id"),
        (exported.replacen("\"id\":12,\"user\"", "\"id\":9007199254740991,\"user\"", 1), "invalid id"),
        (exported.replacen("\"last_id\":16", "\"last_id\":9223372036854775807", 1), "invalid id"),
        (exported.replacen("\"created_at\":11,", "\"created_at\":1764339000000000000,", 1), "invalid time"),
        (exported.replacen("\"created_at\":5,", "\"created_at\":-9223372036854775808,", 1), "invalid time"),
        (exported.replacen("\"room\":3,\"edit\"", "\"room\":77,\"edit\"", 1), "a room that does not exist"),
        (exported.replacen("Straße", "Stra\\u001bße", 1), "invalid name of a room"),
        (exported.replacen("\"id\":1,\"kind\":1", "\"id\":1,\"kind\":2", 1), "invalid kind of room"),
        (exported.replacen("all of it", "all\\u0007of it", 1), "invalid topic"),
        (exported.replacen("1-3", "3-1", 1), "invalid pair"),
        (exported.replacen("{\"type\":\"read\",\"user\":1,", "{\"type\":\"read\",\"user\":0,", 1), "invalid id"),
        (exported.replacen("{\"type\":\"member\",\"room\":", "{\"type\":\"member\",\"room\":-", 1), "invalid id"),
        (exported.replacen("{\"type\":\"delete\",\"id\":", "{\"type\":\"delete\",\"id\":-", 1), "invalid id"),
        (exported.replacen("🎉", "🤯", 1), "invalid reaction"),
        (exported.replacen("\"bytes\":\"47", "\"bytes\":\"3c", 1), "invalid picture"),
        (exported.replacen("\"subtype\":\"gif\"", "\"subtype\":\"svg+xml\"", 1), "invalid picture"),
        (exported.replacen("m=19456", "m=4294967295", 1), "line 2"),
        (exported.replacen("\"format\":2", "\"format\":3", 1), "format 3"),
        (String::new(), "line 1"),
    ];
    for (changed, finding) in changed {
        assert_ne!(changed, exported, "{finding}");
        let line = chinwag_reading(&elsewhere, &["import"], &changed).failed();
        assert!(line.contains(finding), "{finding}: {line}");
    }
    chinwag_reading(&elsewhere, &["import"], &exported).ok();
    assert_eq!(number_in(&elsewhere, "SELECT count(*) FROM messages"), 6, "none of them left anything behind");
}

#[tokio::test]
async fn a_backup_with_a_row_that_the_server_would_not_have_stored_is_refused() {
    let server = stopped_with_everything().await;
    let backup = server.directory().join("backup.db");
    with_file(&server, "backup", &backup).ok();
    let sound = std::fs::read(&backup).expect("it is there");
    let elsewhere = server.directory().join("elsewhere.db");
    let restore = || chinwag(&elsewhere, &["restore", path_text(&backup)]);
    for (change, finding) in [
        ("UPDATE messages SET created_at = 1764339000000000000 WHERE id = 1", "invalid time"),
        ("UPDATE users SET created_at = -9223372036854775808", "invalid time"),
        ("UPDATE sqlite_sequence SET seq = 9223372036854775807", "invalid sqlite_sequence row"),
        ("UPDATE messages SET content = replace(hex(zeroblob(1000000)), '00', 'x') WHERE id = 1", "4000"),
        ("UPDATE users SET name = char(27) || '[2J' WHERE id = 1", "invalid username"),
        ("UPDATE messages SET id = 9007199254740991 WHERE id = 3", "invalid id"),
        ("UPDATE meta SET value = 9007199254740991 WHERE key = 'high_water'", "invalid high_water"),
        ("UPDATE meta SET value = substr(value, 2) WHERE key = 'epoch'", "invalid epoch"),
        ("UPDATE meta SET value = 'x' || substr(value, 2) WHERE key = 'epoch'", "invalid epoch"),
        ("UPDATE sessions SET last_used_at = -1", "invalid session row"),
        ("UPDATE sessions SET client = char(27)", "invalid session row"),
        ("UPDATE rooms SET name = char(7) WHERE id = 3", "invalid name of a room"),
        ("UPDATE mentions SET user_id = -1", "invalid id"),
        ("UPDATE images SET subtype = 'svg+xml'", "invalid picture"),
        ("DELETE FROM rooms WHERE id = 1", "there is no lobby"),
        ("UPDATE reactions SET id = 99 WHERE user_id = 1", "above high_water"),
        ("INSERT INTO meta VALUES ('gap', 'x')", "invalid high_water"),
        ("INSERT INTO meta VALUES ('gap', -9223372036854775808), ('gap_ends', 5)", "invalid high_water"),
        ("INSERT INTO meta VALUES ('reserved', 9223372036854775807)", "invalid high_water"),
        ("UPDATE messages SET reply_to = 12 WHERE id = 1", "replies to one of another room"),
        (
            "UPDATE images SET bytes = x'3c737667', message_id = NULL; UPDATE messages SET image_id = NULL",
            "invalid picture",
        ),
        ("UPDATE deletes SET by_user = 77", "deleted by nobody"),
    ] {
        std::fs::write(&backup, &sound).expect("it is written");
        Connection::open(&backup).and_then(|database| database.execute_batch(change)).expect("the change");
        let line = restore().failed();
        assert!(line.contains(finding), "{change}: {line}");
        assert!(!elsewhere.exists(), "{change}");
        assert!(chinwag(&backup, &["check"]).failed().contains(finding), "{change}");
    }
    std::fs::write(&backup, &sound).expect("it is written");
    restore().ok();
}

#[tokio::test]
async fn what_a_file_says_is_no_command_to_a_terminal() {
    let server = stopped_with(1).await;
    server.database().execute_batch("UPDATE users SET name = char(27) || '[31m' || char(155) || 'x'").expect("a name");
    for command in [&["user", "list"][..], &["session", "list"], &["check"]] {
        let said = chinwag(&server.database_path(), command);
        let is_plain = |text: &str| !text.chars().any(|char| char.is_control() && char != '\n');
        assert!(is_plain(&said.stdout) && is_plain(&said.stderr), "{said:?}");
    }
    let said = chinwag(&server.database_path(), &["user", "disable", "\u{1b}[31m"]);
    assert!(!said.stderr.contains('\u{1b}'), "{said:?}");
}

#[tokio::test]
async fn a_server_starts_on_no_other_schema_than_its_own() {
    let server = stopped_with(1).await;
    let trigger = "CREATE TRIGGER trap AFTER INSERT ON messages BEGIN DELETE FROM sessions; END";
    server.database().execute_batch(trigger).expect("a trigger");
    let line = chinwag(&server.database_path(), &["serve", "--listen", "127.0.0.1:0"]).failed();
    assert!(line.contains("its schema is not that of a chinwag database"), "{line}");
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
async fn what_is_pruned_makes_no_event_and_is_in_no_page_and_no_replay_after_it() {
    let mut server = stopped_with(10).await;
    age(&server, 7);
    server.restart();
    let ada = Client::login(&server, "ada").await;
    let mut open = ada.connect_with(json!({"rooms": true})).await.settled().await;
    let said = chinwag(&server.database_path(), &["prune", "--older-than", "90d"]).ok();
    assert!(said.contains("7 messages"), "{said}");
    open.say("after it").await;
    let first = loop {
        let frame = open.next().await;
        if !frame["id"].is_null() {
            break frame;
        }
    };
    assert_eq!((text(&first["type"]), int(&first["id"])), ("message", 11), "the next event is what was said");
    assert_eq!(ids(&server.history(&ada).await), [8, 9, 10, 11]);
    let mut back = ada.connect_with(json!({"rooms": true, "last_id": 0})).await;
    for id in 8..=11 {
        assert_eq!(int(&back.next_of("message").await["id"]), id);
    }
    back.send(&json!({"type": "ping"})).await;
    loop {
        let frame = back.next().await;
        if frame["type"] == "pong" {
            break;
        }
        assert!(frame["id"].is_null(), "nothing says that the others went: {frame}");
    }
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
    let two_days = "UPDATE messages SET created_at = created_at - 2 * 86400000 WHERE id > 30";
    assert_eq!(server.database().execute(two_days, []), Ok(20));
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
async fn a_command_whose_output_nothing_takes_has_failed() {
    let server = stopped_with(1).await;
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let mut list = Command::new(common::binary());
    list.args(["user", "list", "--db"]).arg(server.database_path()).stdout(full);
    let output = list.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("No space left"), "{output:?}");
}

#[tokio::test]
async fn check_ends_well_when_its_reader_has_read_enough() {
    let server = stopped_with(1).await;
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut check = Command::new(common::binary());
    check.arg("check").arg("--db").arg(server.database_path()).stdout(writer);
    let output = check.output().expect("the binary runs");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

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
async fn what_only_looks_leaves_nothing_behind() {
    let server = stopped_with(3).await;
    let files = || {
        let entries = std::fs::read_dir(server.directory()).expect("it is there").map_while(Result::ok);
        let contents = |path: PathBuf| (path.clone(), std::fs::read(path).expect("a file"));
        entries.map(|entry| contents(entry.path())).collect::<BTreeMap<_, _>>()
    };
    let before = files();
    for command in [&["check"][..], &["user", "list"], &["session", "list"], &["export"]] {
        chinwag(&server.database_path(), command).ok();
        assert!(files() == before, "{command:?}: {:?}", files().keys());
    }
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
