//! What others do to the files: two names for one, names that mean something else to SQLite, links, copies without the
//! log, and a log on standard error that nobody reads.

mod common;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Client, PASSWORD, Request, TestServer, chinwag, chinwag_in, chinwag_reading, skip, wait_while, within};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

/// Lines of more than 80 bytes: half as much again as the 512 KiB of the queue that they wait in.
const MANY: usize = 10_000;

/// Two users who are not root.
const ONE: u32 = 4_321;
const OTHER: u32 = 4_322;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn users_in(path: &Path) -> i64 {
    let database = Connection::open(path).expect("the database opens");
    database.query_row("SELECT count(*) FROM users", [], |row| row.get(0)).expect("a number")
}

// --- Two names -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_database_with_two_names_has_one_server() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let second = server.directory().join("b");
    std::fs::create_dir(&second).expect("a directory");
    let other = second.join("other.db");
    std::fs::hard_link(server.database_path(), &other).expect("a second name");
    let line = chinwag(&other, &["serve", "--listen", "127.0.0.1:0"]).failed();
    assert!(line.contains("the same file open under another name"), "{line}");
    let line = chinwag_reading(&other, &["user", "add", "bob"], PASSWORD).failed();
    assert!(line.contains("another chinwag has the database"), "{line}");
    ada.connect().await.store("n", "still here").await;
}

// --- A path is a path ----------------------------------------------------------------------------------------------

#[test]
fn a_name_that_means_something_to_sqlite_is_the_name_of_a_file() {
    let names = [
        ":memory:",
        "file:chat.db",
        "file:chat.db?mode=memory",
        "file:chat.db?mode=ro",
        "chat.db?mode=ro",
        "file::memory:",
    ];
    for name in names {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let run = |arguments: &[&str], input| chinwag_in(directory.path(), Path::new(name), arguments, input);
        run(&["user", "add", "ada"], PASSWORD).ok();
        assert!(run(&["user", "list"], "").ok().contains("ada"), "{name}");
        run(&["backup", "file:copy?mode=memory"], "").ok();
        assert_eq!(users_in(&directory.path().join("file:copy?mode=memory")), 1, "{name}");
        run(&["restore", "file:copy?mode=memory"], "").ok();
        assert_eq!(users_in(&directory.path().join(name)), 1, "{name}");
        assert!(!directory.path().join("chat.db").exists() || name == "chat.db", "{name}");
    }
}

#[test]
fn an_empty_path_is_refused() {
    let nowhere = Path::new("unused.db");
    let ended = chinwag_reading(nowhere, &["user", "add", "ada", "--db", ""], PASSWORD);
    assert_ne!(ended.code, 0, "{ended:?}");
    assert!(!nowhere.exists());
}

#[test]
fn a_link_that_leads_to_no_file_yet_leads_to_the_new_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (link, file) = (directory.path().join("link.db"), directory.path().join("real.db"));
    symlink("real.db", &link).expect("a link");
    chinwag_reading(&link, &["user", "add", "ada"], PASSWORD).ok();
    assert_eq!(users_in(&file), 1);
    assert!(link.is_symlink());
}

// --- Copies --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_copy_of_the_file_of_a_new_server_has_the_schema() {
    let server = TestServer::start();
    let copy = server.directory().join("copy.db");
    std::fs::copy(server.database_path(), &copy).expect("a copy");
    assert_eq!(users_in(&copy), 0);
}

#[test]
fn a_file_that_is_not_new_and_has_no_tables_is_refused_in_words() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("chinwag.db");
    // What was left of a database in WAL mode when only its file was copied.
    let database = Connection::open(&path).expect("the database opens");
    database.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).expect("WAL mode");
    drop(database);
    let before = std::fs::read(&path).expect("it is read");
    assert!(!before.is_empty());
    for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["user", "list"], &["user", "add", "ada"]] {
        let line = chinwag_reading(&path, arguments, PASSWORD).failed();
        assert!(line.contains("it has no tables, though it is not new"), "{arguments:?}: {line}");
    }
    assert_eq!(std::fs::read(&path).expect("it is read"), before);
}

#[test]
fn an_empty_file_is_not_taken_for_a_copy_that_has_lost_its_log() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("chinwag.db");
    std::fs::write(&path, "").expect("a file");
    let line = chinwag(&path, &["user", "list"]).failed();
    assert!(line.contains("not a chinwag database"), "{line}");
}

// --- Root and links ------------------------------------------------------------------------------------------------

#[test]
fn root_follows_no_link_to_what_its_owner_does_not_own() {
    if !rustix::process::geteuid().is_root() {
        return skip("this needs root");
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (victim, mine) = (directory.path().join("victim"), directory.path().join("mine"));
    for (place, owner) in [(&victim, ONE), (&mine, OTHER)] {
        std::fs::create_dir(place).expect("a directory");
        chown(place, Some(owner), Some(owner)).expect("root gives things away");
    }
    let (database, link) = (victim.join("chinwag.db"), mine.join("chinwag.db"));
    chinwag_reading(&database, &["user", "add", "ada"], PASSWORD).ok();
    symlink(&database, &link).expect("a link");
    std::os::unix::fs::lchown(&link, Some(OTHER), Some(OTHER)).expect("root gives things away");
    let refused = chinwag(&link, &["user", "disable", "ada"]).failed();
    assert!(refused.contains("its owner does not own the file"), "{refused}");
    assert!(chinwag(&database, &["user", "list"]).ok().contains("active"));
    // Its owner's own file is another matter, and so is a link that root made.
    std::fs::remove_file(&link).expect("it is there");
    symlink(&database, &link).expect("a link");
    chinwag(&link, &["user", "disable", "ada"]).ok();
}

#[tokio::test]
async fn what_is_at_the_place_of_the_control_socket_is_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("chinwag.db.sock");
    let _others = UnixListener::bind(&socket).expect("a socket of somebody else");
    let inode = std::fs::symlink_metadata(&socket).expect("it is there").ino();
    let server = TestServer::in_directory(directory, &[]);
    server.logged("no control socket").await;
    assert_eq!(std::fs::symlink_metadata(&socket).expect("it is left").ino(), inode);
}

#[test]
fn what_a_restore_finds_in_its_way_is_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (database, backup) = (directory.path().join("chinwag.db"), directory.path().join("backup.db"));
    chinwag_reading(&database, &["user", "add", "ada"], PASSWORD).ok();
    chinwag(&database, &["backup", text(&backup)]).ok();
    let in_the_way = directory.path().join("chinwag.db.restored");
    symlink(&backup, &in_the_way).expect("a link");
    let line = chinwag(&database, &["restore", text(&backup)]).failed();
    assert!(line.contains("chinwag.db.restored exists and is not ours"), "{line}");
    assert!(in_the_way.is_symlink());
}

#[test]
fn what_an_interrupted_restore_left_is_replaced_unless_it_has_another_name_too() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (database, backup) = (directory.path().join("chinwag.db"), directory.path().join("backup.db"));
    chinwag_reading(&database, &["user", "add", "ada"], PASSWORD).ok();
    chinwag(&database, &["backup", text(&backup)]).ok();
    let (restored, left) = (directory.path().join("new.db"), directory.path().join("new.db.restored"));
    std::fs::hard_link(&backup, &left).expect("a second name");
    let line = chinwag(&restored, &["restore", text(&backup)]).failed();
    assert!(line.contains("new.db.restored exists and is not ours"), "{line}");
    std::fs::remove_file(&left).expect("it was left alone");
    std::fs::write(&left, "half a database").expect("it is written");
    chinwag(&restored, &["restore", text(&backup)]).ok();
    assert!(!left.exists());
    assert!(chinwag(&restored, &["user", "list"]).ok().contains("ada"));
}

// --- Standard error and output -------------------------------------------------------------------------------------

/// A pipe that takes nothing any more, and the end of it that could be read.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&writer, true).expect("a pipe may be non-blocking");
    while writer.write(&[b'-'; 4_096]).is_ok() {}
    while writer.write(b"-").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).expect("a pipe may be blocking");
    (reader, writer)
}

/// Where the server of `database` listens: written down once a signal stops it as it should.
async fn noted_address(database: &Path) -> SocketAddr {
    let lock = database.with_extension("db.lock");
    within("the address in the lock file", async {
        loop {
            let noted = std::fs::read_to_string(&lock).unwrap_or_default();
            if let Some(address) = noted.strip_prefix("http://").and_then(|address| address.trim().parse().ok()) {
                return address;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_server_whose_log_and_output_nobody_reads_serves_and_stops() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = directory.path().join("chinwag.db");
    let ((_output, stdout), (mut log, stderr)) = (full_pipe(), full_pipe());
    let mut server = Command::new(common::binary())
        .args(["--listen", "127.0.0.1:0", "--db", text(&database)])
        .env("RUST_LOG", "debug")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .expect("the binary runs");
    let address = noted_address(&database).await;
    for _ in 0..MANY {
        assert_eq!(Request::new(address, "GET", "/healthz").send().await.status, 200);
    }
    let read = Arc::new(Mutex::new(String::new()));
    let reader = std::thread::spawn({
        let read = Arc::clone(&read);
        move || {
            let mut piece = vec![0; 64 << 10];
            while let Ok(length @ 1..) = log.read(&mut piece) {
                read.lock().expect("no panic").push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        }
    });
    let dropped = || read.lock().expect("no panic").matches("lines were dropped").count();
    wait_while("the count of what was dropped", async || dropped() == 0).await;
    assert_eq!(Request::new(address, "GET", "/healthz").send().await.status, 200);
    kill_process(Pid::from_child(&server), Signal::TERM).expect("the process takes the signal");
    let ended = tokio::task::spawn_blocking(move || server.wait());
    assert!(within("the end", ended).await.expect("no panic").expect("a child").success());
    reader.join().expect("no panic");
    assert_eq!(dropped(), 1, "what is dropped is counted together");
}

#[tokio::test]
async fn a_server_whose_log_and_output_nobody_ever_reads_stops() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = directory.path().join("chinwag.db");
    let ((_output, stdout), (_log, stderr)) = (full_pipe(), full_pipe());
    let mut server = Command::new(common::binary())
        .args(["--listen", "127.0.0.1:0", "--db", text(&database)])
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .expect("the binary runs");
    let address = noted_address(&database).await;
    assert_eq!(Request::new(address, "GET", "/healthz").send().await.status, 200);
    kill_process(Pid::from_child(&server), Signal::TERM).expect("the process takes the signal");
    let ended = tokio::task::spawn_blocking(move || server.wait());
    assert!(within("the end", ended).await.expect("no panic").expect("a child").success());
}

// --- The log of the database ---------------------------------------------------------------------------------------

#[tokio::test]
async fn half_a_minute_after_the_last_commit_the_file_alone_has_all_of_it() {
    let server = TestServer::start();
    let mut ada = Client::register(&server, "ada").await.connect().await;
    let id = ada.store("n", "the last word").await;
    let copy = server.directory().join("copy.db");
    let log = server.directory().join("chinwag.db-wal");
    let is_whole = || {
        std::fs::copy(server.database_path(), &copy).expect("a copy");
        let database = Connection::open(&copy).expect("the copy opens");
        database.query_row("SELECT max(id) FROM messages", [], |row| row.get::<_, Option<i64>>(0)) == Ok(Some(id))
    };
    // First the file has the message, and then the log is empty.
    let deadline = std::time::Instant::now() + Duration::from_mins(2);
    while std::fs::metadata(&log).map_or(0, |log| log.len()) > 0 || !is_whole() {
        assert!(std::time::Instant::now() < deadline, "the message never came out of the log");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    ada.store("next", "on we go").await;
}
