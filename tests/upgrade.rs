//! Databases of every version there ever was are opened by this one, and nothing in them is lost.

mod common;

use std::path::Path;

use common::{Client, Message, TestServer, chinwag, contents, ids, int, text};
use rusqlite::Connection;

/// What made each version, the first one's first. A new version of `schema.sql` adds the old one here.
const VERSIONS: [&str; 3] = [include_str!("schema/1.sql"), include_str!("schema/2.sql"), include_str!("schema/3.sql")];

/// The token of the one session in them.
const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn version_of(path: &Path) -> i64 {
    let database = Connection::open(path).expect("the database opens");
    database.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version")
}

/// Name and definition of everything in a database, without the comments and the spacing.
fn schema_of(database: &Connection) -> Vec<(String, String)> {
    let mut query = database
        .prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
        .expect("there is a schema");
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).expect("it is read");
    rows.map(|row| {
        let (name, sql) = row.expect("a row");
        let code: Vec<_> = sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
        let code = code.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        // A column that an upgrade added has other spaces around it.
        (name, code.replace(" ,", ",").replace(" )", ")"))
    })
    .collect()
}

/// A stopped server whose database was made by `version`.
async fn server_on(version: &str) -> TestServer {
    let mut server = TestServer::start();
    server.stop().await;
    std::fs::remove_file(server.database_path()).expect("the new database is not needed");
    server.database().execute_batch(version).expect("the old version is sound");
    server
}

#[tokio::test]
async fn a_database_of_any_earlier_version_is_upgraded_and_loses_nothing() {
    for version in VERSIONS {
        let mut server = server_on(version).await;
        server.restart();
        let ada = Client::known(&server, "Ada", TOKEN);
        let history = server.history(&ada).await;
        assert_eq!(ids(&history), [3, 7]);
        assert_eq!(contents(&history), ["the first that is left", "zwölf Boxkämpfer 🥊"]);
        let bobs = Message { username: "bob".into(), created_at: 1_700_000_000_004, ..history[1].clone() };
        assert_eq!(history[1], bobs);
        let mut connection = ada.connect().await;
        assert_eq!(text(&connection.welcome["epoch"]), "0123456789abcdef", "the history is the same one");
        assert_eq!(connection.store("new", "on we go").await, 10, "ids that were given are not given again");
    }
}

#[tokio::test]
async fn a_database_of_an_earlier_version_has_its_history_in_the_lobby_as_read_and_no_moderator_until_one_is_made() {
    // Rooms, and what one has read, came with version 3.
    for version in VERSIONS.into_iter().take(2) {
        let mut server = server_on(version).await;
        server.restart();
        let ada = Client::known(&server, "Ada", TOKEN);
        let shown = server.get("/rooms").by(&ada).send().await.json();
        let [lobby] = &shown["rooms"].as_array().expect("a list")[..] else { panic!("one room: {shown}") };
        let counts = ["id", "read", "unread", "mentioned"].map(|field| int(&lobby[field]));
        assert_eq!((counts, int(&lobby["last"]["id"])), ([1, 9, 0, 0], 7));
        // Nor is the first who comes.
        for client in [&ada, &Client::register(&server, "eve").await] {
            assert_eq!(client.connect().await.welcome["moderator"], false);
        }
        chinwag(&server.database_path(), &["user", "role", "Ada", "moderator"]).ok();
        assert_eq!(ada.connect().await.welcome["moderator"], true);
    }
}

#[test]
fn a_backup_of_any_earlier_version_is_restored() {
    for version in VERSIONS {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (backup, database) = (directory.path().join("old.db"), directory.path().join("chinwag.db"));
        Connection::open(&backup).and_then(|old| old.execute_batch(version)).expect("the old version is sound");
        chinwag(&database, &["restore", backup.to_str().expect("text")]).ok();
        assert!(version_of(&database) > version_of(&backup));
        assert!(chinwag(&database, &["export"]).ok().contains("the first that is left"));
    }
}

#[tokio::test]
async fn an_upgraded_database_has_the_schema_of_a_new_one() {
    let new = TestServer::start();
    let versions = i64::try_from(VERSIONS.len()).expect("there are few");
    assert_eq!(version_of(&new.database_path()), versions + 1, "each version before this one is kept");
    for version in VERSIONS {
        let mut server = server_on(version).await;
        server.restart();
        assert_eq!(schema_of(&server.database()), schema_of(&new.database()));
        assert_eq!(version_of(&server.database_path()), version_of(&new.database_path()));
    }
}

#[tokio::test]
async fn the_file_is_copied_aside_before_it_is_upgraded() {
    for (number, version) in (1..).zip(VERSIONS) {
        let mut server = server_on(version).await;
        server.restart();
        let copy = server.directory().join(format!("chinwag.db.version-{number}"));
        assert_eq!(version_of(&copy), number);
        let messages = Connection::open(&copy)
            .and_then(|copy| copy.query_row("SELECT count(*) FROM messages", [], |row| row.get::<_, i64>(0)));
        assert_eq!(messages, Ok(2));
    }
}

#[tokio::test]
async fn a_newer_or_a_foreign_database_is_refused_and_left_as_it_is() {
    let newer = VERSIONS[0].replace("user_version = 1", "user_version = 1000");
    let (not_ours, empty) = ("CREATE TABLE recipes (name TEXT)", "PRAGMA user_version = 3");
    for (sql, word) in
        [(newer.as_str(), "newer"), (not_ours, "not a chinwag database"), (empty, "not a chinwag database")]
    {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("chinwag.db");
        Connection::open(&path).and_then(|database| database.execute_batch(sql)).expect("a database");
        let before = std::fs::read(&path).expect("it is read");
        let line = chinwag(&path, &["serve", "--listen", "127.0.0.1:0"]).failed();
        assert!(line.contains(word), "{line}");
        assert_eq!(std::fs::read(&path).expect("it is read"), before);
    }
}
