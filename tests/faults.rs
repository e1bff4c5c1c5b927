//! What may go wrong below the server: whatever it is, nothing is acknowledged that is not stored, people are told
//! `unavailable`, readers go on where they can, and it recovers by itself.
//!
//! Some faults need root (to mount a small disk) or a tool (`strace`, `faketime`); where these are missing the test
//! says so and passes, unless `CHINWAG_NO_SKIP` is set, as in `.ci/run`.

mod common;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{
    Client, Connection, PASSWORD, RawClient, STOP, TestServer, chinwag, ids, int, skip, text, unix_millis, wait_while,
    within,
};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::json;

/// Sends a message and waits for its fate: the id, or none if it is `unavailable`.
async fn try_store(connection: &mut Connection, nonce: &str, content: &str) -> Option<i64> {
    connection.say_once(nonce, content).await;
    loop {
        let frame = connection.next().await;
        if frame["nonce"] != nonce {
            continue;
        }
        match text(&frame["type"]) {
            "ack" => return Some(int(&frame["id"])),
            "error" => {
                assert_eq!(frame["code"], "unavailable");
                return None;
            }
            other => panic!("{other} has no nonce"),
        }
    }
}

/// Waits until what was sent under `nonce` is stored, sending it again as long as it is refused.
async fn settle(connection: &mut Connection, nonce: &str, content: &str) -> i64 {
    within("the database to work again", async {
        loop {
            if let Some(id) = try_store(connection, nonce, content).await {
                return id;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// A disk of one mebibyte, or whatever else is mounted while the value lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<SmallDisk> {
        let mounted = run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", at.to_str().expect("a plain path")]);
        mounted.then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The server may still have its files open: the mount goes when it has closed them.
        run("umount", &["--lazy", self.0.to_str().expect("a plain path")]);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_messages_until_there_is_room() {
    let mut server = TestServer::start();
    server.stop().await;
    let Some(_disk) = SmallDisk::mount(server.directory()) else { return skip("this needs the right to mount") };
    server.restart();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    connection.store("before", "before").await;

    let filler = server.directory().join("filler");
    let mut file = fs::File::create(&filler).expect("a file");
    while file.write_all(&[0; 1024]).is_ok() {}
    drop(file);
    let content = "x".repeat(4_000);
    let mut refused = None;
    let mut acknowledged = Vec::new();
    for number in 0..500 {
        let nonce = number.to_string();
        let Some(id) = try_store(&mut connection, &nonce, &content).await else {
            refused = Some(nonce);
            break;
        };
        acknowledged.push(id);
    }
    let refused = refused.expect("a full disk refuses what it cannot hold");
    assert_eq!(server.get("/healthz").send().await.status, 503);
    server.logged("the database fails").await;
    let history = server.history(&ada).await;
    assert_eq!(history.len(), acknowledged.len() + 1, "readers go on, and what was acknowledged is there");

    fs::remove_file(&filler).expect("room");
    server.healthy(200).await;
    settle(&mut connection, &refused, &content).await;
    server.logged("the database works again").await;
    server.kill().await;
    server.restart();
    assert_eq!(server.history(&ada).await.len(), acknowledged.len() + 2);
    server.kill().await;
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_is_one_clear_line_at_the_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(disk) = SmallDisk::mount(directory.path()) else { return skip("this needs the right to mount") };
    assert!(run("mount", &["-o", "remount,ro", disk.0.to_str().expect("a plain path")]));
    let path = directory.path().join("chat.db");
    let output = common::run_to_end(&["--listen", "127.0.0.1:0", "--db", path.to_str().expect("a plain path")], &[]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("chat.db") && stderr.contains("Read-only"), "{stderr}");
}

#[tokio::test]
async fn a_database_on_a_medium_that_cannot_be_written_can_be_looked_at() {
    let mut server = TestServer::start();
    server.stop().await;
    let Some(disk) = SmallDisk::mount(server.directory()) else { return skip("this needs the right to mount") };
    server.restart();
    Client::register(&server, "ada").await.connect().await.store("n", "hello").await;
    server.stop().await;
    assert!(run("mount", &["-o", "remount,ro", disk.0.to_str().expect("a plain path")]));
    let said = chinwag(&server.database_path(), &["check"]).ok();
    assert!(said.contains("integrity  ok") && said.contains("messages   1"), "{said}");
    assert!(chinwag(&server.database_path(), &["user", "list"]).ok().contains("ada"));
}

#[tokio::test]
async fn a_database_that_is_itself_a_mount_point_is_warned_about() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (inside, outside) = (directory.path().join("chinwag.db"), directory.path().join("outside.db"));
    for file in [&inside, &outside] {
        fs::write(file, "").expect("a file");
    }
    let mounted = run("mount", &["--bind", outside.to_str().expect("text"), inside.to_str().expect("text")]);
    if !mounted {
        return skip("this needs the right to mount");
    }
    let disk = SmallDisk(inside);
    let (server, _disk) = (TestServer::in_directory(directory, &[]), disk);
    server.logged("is itself a mount point").await;
}

#[tokio::test]
async fn a_database_that_another_process_holds_is_unavailable_in_bounded_time() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut senders = Vec::new();
    for _ in 0..20 {
        senders.push(ada.connect().await);
    }
    let blocker = server.database();
    blocker.execute_batch("BEGIN EXCLUSIVE").expect("the lock");
    let before = server.resident_bytes();
    let sending = senders.into_iter().enumerate().map(|(number, mut sender)| {
        tokio::spawn(async move {
            let started = Instant::now();
            for round in 0..3 {
                let stored = try_store(&mut sender, &format!("{number} {round}"), "hello").await;
                assert_eq!(stored, None, "nothing can be stored");
            }
            // A second of waiting for the lock, behind a commit that waits as long; three times.
            assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
        })
    });
    for sender in sending.collect::<Vec<_>>() {
        sender.await.expect("no panic");
    }
    assert_eq!(server.get("/healthz").send().await.status, 503);
    assert!(server.history(&ada).await.is_empty());
    assert!(server.resident_bytes() < before + (16 << 20), "what is refused is not kept");
    server.logged("the database fails").await;
    assert_eq!(server.log().matches("the database fails").count(), 1, "{}", server.log());

    blocker.execute_batch("ROLLBACK").expect("the end of the lock");
    server.healthy(200).await;
    ada.connect().await.store("after", "after").await;
}

#[tokio::test]
async fn an_account_that_is_deleted_with_its_messages_leaves_none_though_the_database_is_held_meanwhile() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    bob.connect().await.store("n", "to be forgotten").await;
    // Each removal is refused until the trigger goes, long after the account has gone.
    let database = server.database();
    let refuse = "CREATE TRIGGER held BEFORE DELETE ON messages BEGIN SELECT raise(ABORT, 'held'); END";
    database.execute_batch(refuse).expect("a trigger");
    let body = json!({"password": PASSWORD, "messages": true});
    let deleting = tokio::spawn(server.request("DELETE", "/account").by(&bob).json(&body).send());
    wait_while("the end of the account", async || server.number("SELECT count(*) FROM users WHERE name = 'bob'") > 0)
        .await;
    assert_eq!(server.history(&ada).await.len(), 1);
    database.execute_batch("DROP TRIGGER held").expect("no trigger");
    assert_eq!(deleting.await.expect("no panic").status, 204);
    assert!(server.history(&ada).await.is_empty());
}

#[tokio::test]
async fn what_an_administrator_removes_in_steps_goes_on_after_one_that_the_database_had_no_time_for() {
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    for (nonce, command) in
        [("n", &["user", "delete", "bob", "--messages"][..]), ("m", &["prune", "--older-than", "0m"])]
    {
        let author = if nonce == "n" { &bob } else { &ada };
        author.connect().await.store(nonce, "to be forgotten").await;
        let database = server.database();
        let refuse = "CREATE TRIGGER held BEFORE DELETE ON messages BEGIN SELECT raise(ABORT, 'held'); END";
        database.execute_batch(refuse).expect("a trigger");
        let path = server.database_path();
        let removing = tokio::task::spawn_blocking(move || common::chinwag(&path, command));
        let failures = if nonce == "n" { 1 } else { 2 };
        wait_while("a step that fails", async || server.log().matches("the database fails").count() < failures).await;
        database.execute_batch("DROP TRIGGER held").expect("no trigger");
        let removed = removing.await.expect("no panic");
        assert!(removed.stderr.contains("trying again"), "{removed:?}");
        removed.ok();
        assert!(server.history(&ada).await.is_empty(), "{command:?}");
    }
}

#[tokio::test]
async fn a_directory_that_goes_and_comes_back_is_a_fault_that_ends() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    connection.store("before", "before").await;
    let away = server.directory().with_extension("away");
    fs::rename(server.directory(), &away).expect("the directory goes");

    assert_eq!(try_store(&mut connection, "during", "during").await, None);
    assert_eq!(server.get("/healthz").send().await.status, 503);
    assert_eq!(server.history(&ada).await.len(), 1, "readers go on");
    server.logged("gone or was replaced").await;

    fs::rename(&away, server.directory()).expect("the directory comes back");
    server.healthy(200).await;
    settle(&mut connection, "during", "during").await;
    assert_eq!(server.number("SELECT count(*) FROM messages"), 2);
}

/// As by a copy that is put in its place: what went into the file that is no longer there would be lost at the end.
#[tokio::test]
async fn a_database_that_was_replaced_takes_no_message() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    connection.store("before", "before").await;
    let copy = server.directory().join("copy");
    fs::copy(server.database_path(), &copy).expect("a copy");
    fs::rename(&copy, server.database_path()).expect("it is put in the place of the database");

    assert_eq!(try_store(&mut connection, "after", "after").await, None);
    server.logged("gone or was replaced").await;
}

#[tokio::test]
async fn a_database_that_fails_is_not_held_against_those_who_write() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    let away = server.directory().with_extension("away");
    fs::rename(server.directory(), &away).expect("the directory goes");
    // More than a client is let to send that is refused for its own sake.
    for number in 0..300 {
        assert_eq!(try_store(&mut connection, &number.to_string(), "again").await, None);
    }
    fs::rename(&away, server.directory()).expect("the directory comes back");
    settle(&mut connection, "0", "again").await;
}

#[tokio::test]
async fn a_corrupted_page_is_unavailable_and_the_rest_goes_on() {
    const NEEDLE: &str = "a needle in the haystack";
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    let hay = "x".repeat(3_000);
    let mut long = vec![hay.clone(); 50];
    long[20] = format!("{NEEDLE} {hay}");
    connection.store_all("n", &long).await;
    server.stop().await;
    server.database().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("all in one file");
    let mut bytes = fs::read(server.database_path()).expect("the file");
    for page in bytes.chunks_mut(4096) {
        if page.windows(NEEDLE.len()).any(|window| window == NEEDLE.as_bytes()) {
            page.fill(0xA5);
        }
    }
    fs::write(server.database_path(), bytes).expect("a worse file");
    server.restart();

    for _ in 0..3 {
        let response = server.get("/messages?after=0").by(&ada).send().await;
        assert_eq!(response.error(), (503, "unavailable".to_owned()));
    }
    server.logged("reading from the database fails").await;
    assert_eq!(server.log().matches("reading from the database fails").count(), 1, "{}", server.log());
    Client::register(&server, "bob").await;
    assert_eq!(server.get("/").send().await.status, 200);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_left_alone() {
    let mut server = TestServer::start();
    server.stop().await;
    server.database().pragma_update(None, "user_version", 1_000).expect("a version");
    let before = fs::read(server.database_path()).expect("the file");
    let path = server.database_path();
    let output = common::run_to_end(&["--listen", "127.0.0.1:0", "--db", path.to_str().expect("a plain path")], &[]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert!(stderr.contains("version 1000") && stderr.lines().count() == 1, "{stderr}");
    assert_eq!(fs::read(path).expect("the file"), before);
}

#[tokio::test]
async fn without_a_descriptor_left_it_neither_spins_nor_forgets_those_inside() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    // No request before her connection, whose descriptor would be free only a moment after its answer.
    server.stop().await;
    server.restart();
    let mut inside = ada.connect().await;
    let before = prlimit(Some(server.pid()), Resource::Nofile, soft(Resource::Nofile, server.lowest_free_descriptor()));
    let before = before.expect("the limit of a child may be lowered");
    let mut crowd = Vec::new();
    for _ in 0..20 {
        // The kernel accepts for the server, whether the server can or not.
        crowd.push(RawClient::connect(&server).await);
    }
    let (cpu, begun) = (server.cpu_time(), Instant::now());
    for number in 0..20 {
        inside.store(&number.to_string(), "still here").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let used = server.cpu_time().saturating_sub(cpu);
    // A loop that spins takes all of a core, however slow the machine.
    assert!(used * 10 < begun.elapsed() * 7, "it spins: {used:?} of {:?}", begun.elapsed());
    server.logged("cannot accept connections").await;
    // Once for each time: the server itself may open a file and close it again, which leaves a place for one.
    let log = server.log();
    let times = |words| log.matches(words).count();
    assert!(times("cannot accept connections") <= times("accepting connections again") + 1, "{log}");
    prlimit(Some(server.pid()), Resource::Nofile, before).expect("the limit may be raised again");
    drop(crowd);
    server.healthy(200).await;
    server.logged("accepting connections again").await;
}

/// A limit that can be raised again.
fn soft(resource: Resource, current: u64) -> Rlimit {
    Rlimit { current: Some(current), maximum: rustix::process::getrlimit(resource).maximum }
}

/// A control group that may have so much memory; it goes with the value, for which its processes must have ended.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn of(bytes: u64) -> Option<MemoryGroup> {
        // The first version of control groups has a hierarchy for each resource.
        let versions = [("memory", "memory.limit_in_bytes"), ("", "memory.max")];
        versions.into_iter().find_map(|(hierarchy, limit)| {
            let name = format!("chinwag-test-{}", std::process::id());
            let path = Path::new("/sys/fs/cgroup").join(hierarchy).join(name);
            fs::create_dir(&path).ok()?;
            let group = MemoryGroup(path);
            fs::write(group.0.join(limit), bytes.to_string()).ok()?;
            Some(group)
        })
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Where no such file can be made, the directory was none of a control group.
        fs::remove_dir(&self.0).ok();
    }
}

#[tokio::test]
async fn thirty_two_megabytes_are_enough_for_many_who_log_in_at_once() {
    let Some(group) = MemoryGroup::of(32 << 20) else { return skip("this needs the right to make a control group") };
    let server = TestServer::after(&format!("echo $$ >{}/cgroup.procs", group.0.display()));
    Client::register(&server, "ada").await;
    let account = json!({"username": "ada", "password": PASSWORD});
    let logins: Vec<_> = (0..12).map(|_| tokio::spawn(server.post("/login").json(&account).send())).collect();
    for login in logins {
        assert_eq!(login.await.expect("no panic").status, 200);
    }
}

#[tokio::test]
async fn a_login_that_there_is_no_memory_for_is_refused_and_ends_nothing() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    let little = server.allocated_bytes() + (16 << 20);
    let before = prlimit(Some(server.pid()), Resource::Data, soft(Resource::Data, little));
    let before = before.expect("the limit of a child may be lowered");
    let account = json!({"username": "ada", "password": PASSWORD});
    let answer = server.post("/login").json(&account).send().await;
    assert_eq!(answer.error(), (503, "unavailable".to_owned()));
    server.logged("not enough memory").await;
    connection.store("n", "those inside go on").await;
    prlimit(Some(server.pid()), Resource::Data, before).expect("the limit may be raised again");
    Client::login(&server, "ada").await;
}

/// `strace` on the server, changing what some system calls do while the value lives.
struct Tracer(Child);

impl Tracer {
    /// Attaches to every thread of the server, and does `fault` to `calls`; none where that cannot be done.
    async fn attach(server: &TestServer, calls: &str, fault: &str) -> Option<Tracer> {
        let pid = server.pid().as_raw_nonzero().to_string();
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{fault}"));
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject, "-p", &pid])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut tracer = Tracer(child.ok()?);
        let is_traced = |task: fs::DirEntry| {
            fs::read_to_string(task.path().join("status")).is_ok_and(|status| !status.contains("TracerPid:\t0\n"))
        };
        let is_attached = within("strace to attach", async {
            while tracer.0.try_wait().expect("a child can be asked").is_none() {
                let mut tasks =
                    fs::read_dir(format!("/proc/{pid}/task")).expect("the server runs").map_while(Result::ok);
                if tasks.all(is_traced) {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            false
        });
        is_attached.await.then_some(tracer)
    }

    /// Ends at once: strace does not even let a thread die that it holds up.
    fn kill(mut self) {
        self.0.kill().expect("strace runs");
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Asked to end, it detaches and leaves the server running; a test that failed does not wait until it can. It
        // may have ended by itself.
        let signal = if std::thread::panicking() { Signal::KILL } else { Signal::INT };
        kill_process(Pid::from_child(&self.0), signal).ok();
        self.0.wait().ok();
    }
}

const SYNCS: &str = "fsync,fdatasync";

#[tokio::test]
async fn a_sync_that_fails_acknowledges_nothing_and_shows_nothing() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    let mut reader = Client::register(&server, "bob").await.connect().await;
    connection.store("before", "before").await;
    let Some(tracer) = Tracer::attach(&server, SYNCS, "error=EIO").await else {
        return skip("this needs strace, and the right to trace");
    };

    for number in 0..5 {
        assert_eq!(try_store(&mut connection, &format!("during {number}"), "during").await, None);
    }
    assert_eq!(server.get("/healthz").send().await.status, 503);
    server.logged("the database fails").await;
    drop(tracer);
    server.healthy(200).await;

    // What failed may or may not have reached the disk: the nonce settles it either way, once.
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(settle(&mut connection, &format!("during {number}"), "during").await);
    }
    let last = connection.store("after", "after").await;
    assert!(ids.is_sorted_by(|a, b| a < b) && ids.iter().all(|id| *id < last));
    assert_eq!(server.number("SELECT count(*) FROM messages WHERE content = 'during'"), 5);
    let mut heard = vec![reader.message().await];
    while heard.last().expect("it is not empty").id < last {
        heard.push(reader.message().await);
    }
    server.kill().await;
    server.restart();
    assert_eq!(server.history(&ada).await, heard, "what was heard live is what is stored");
}

#[tokio::test]
async fn a_disk_that_turns_read_only_is_a_fault_that_ends() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    let mut reader = Client::register(&server, "bob").await.connect().await;
    connection.store("before", "before").await;
    let Some(tracer) = Tracer::attach(&server, "pwrite64", "error=EROFS").await else {
        return skip("this needs strace, and the right to trace");
    };

    for _ in 0..3 {
        assert_eq!(try_store(&mut connection, "during", "during").await, None);
    }
    let account = json!({"username": "carol", "password": PASSWORD});
    assert_eq!(server.post("/register").json(&account).send().await.error(), (503, "unavailable".to_owned()));
    assert_eq!(server.get("/healthz").send().await.status, 503);
    assert_eq!(server.history(&ada).await.len(), 1, "readers go on");
    server.logged("the database fails").await;
    assert_eq!(server.log().matches("the database fails").count(), 1, "{}", server.log());

    drop(tracer);
    server.healthy(200).await;
    let during = settle(&mut connection, "during", "during").await;
    let after = connection.store("after", "after").await;
    let heard = reader.messages(3).await;
    assert_eq!(ids(&heard)[1..], [during, after], "live, what was refused is shown once");
    assert_eq!(server.history(&ada).await, heard);
    server.logged("the database works again").await;
}

/// Has `command` begin to remove 8 MB of bob's on a disk that takes 4 MB/s, while ada writes. All of it in one step would
/// take longer than a message may wait.
async fn remove_on_a_slow_disk(command: &'static [&'static str]) {
    const LONG: &str = "SELECT count(*) FROM messages WHERE octet_length(content) > 1000";
    let server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    bob.connect().await.store_all("n", &vec!["\u{1f642}".repeat(4_000); 500]).await;
    let mut connection = ada.connect().await;
    // A page of the log is two writes.
    let Some(tracer) = Tracer::attach(&server, "pwrite64", "delay_exit=500").await else {
        return skip("this needs strace, and the right to trace");
    };
    let path = server.database_path();
    let removing = tokio::task::spawn_blocking(move || common::chinwag(&path, command));
    let mut stored = 0;
    while server.number(LONG) > 400 {
        let id = try_store(&mut connection, &stored.to_string(), "hello").await;
        assert!(id.is_some(), "message {stored} is unavailable");
        stored += 1;
    }
    drop(tracer);
    removing.await.expect("no panic").ok();
    assert_eq!(server.number(LONG), 0);
}

#[tokio::test]
async fn on_a_slow_disk_messages_are_stored_while_those_of_a_user_are_removed() {
    remove_on_a_slow_disk(&["user", "delete", "bob", "--messages"]).await;
}

#[tokio::test]
async fn on_a_slow_disk_messages_are_stored_while_old_ones_are_removed() {
    remove_on_a_slow_disk(&["prune", "--older-than", "0m"]).await;
}

#[tokio::test]
async fn a_disk_that_hangs_is_unavailable_in_bounded_time() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut senders = Vec::new();
    for _ in 0..10 {
        senders.push(ada.connect().await);
    }
    let before = server.resident_bytes();
    let Some(tracer) = Tracer::attach(&server, SYNCS, "delay_enter=8s").await else {
        return skip("this needs strace, and the right to trace");
    };
    let sending = senders.into_iter().enumerate().map(|(number, mut sender)| {
        tokio::spawn(async move {
            let started = Instant::now();
            assert_eq!(try_store(&mut sender, &number.to_string(), "hello").await, None);
            // Three seconds are what a request waits for the store.
            assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
            sender
        })
    });
    let mut senders_left = Vec::new();
    for sender in sending.collect::<Vec<_>>() {
        senders_left.push(sender.await.expect("no panic"));
    }
    assert!(server.resident_bytes() < before + (16 << 20), "what is refused is not kept");
    drop(tracer);
    for (number, sender) in senders_left.iter_mut().enumerate() {
        settle(sender, &number.to_string(), "hello").await;
    }
    assert_eq!(server.number("SELECT count(*) FROM messages"), 10, "each is there once");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_disk_that_hangs() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let bob = Client::register(&server, "bob").await;
    let (mut sender, reader) = (ada.connect().await, bob.connect().await);
    sender.store("before", "before").await;
    let Some(tracer) = Tracer::attach(&server, SYNCS, "delay_enter=60s").await else {
        return skip("this needs strace, and the right to trace");
    };
    sender.say_once("during", "during").await;
    sender.heard().await;
    let [sender, reader] = [sender, reader].map(|mut connection| {
        tokio::spawn(async move {
            let mut heard = Vec::new();
            loop {
                match connection.receive().await {
                    Ok(frame) => heard.push(frame),
                    Err(code) => return (heard, code),
                }
            }
        })
    });
    let started = Instant::now();
    server.signal(Signal::TERM);
    server.logged("stopped").await;
    assert!(started.elapsed() < STOP, "{:?}", started.elapsed());
    tracer.kill();
    assert_eq!(server.ended().await.code(), Some(0));
    let (heard_by_reader, code) = reader.await.expect("no panic");
    assert_eq!(code, Some(1001));
    let (heard_by_sender, code) = sender.await.expect("no panic");
    assert_eq!(code, Some(1001), "who waits for an answer is told too");
    for frame in heard_by_reader.into_iter().chain(heard_by_sender) {
        let of_during = frame["content"] == "during" || (frame["type"] == "ack" && frame["nonce"] == "during");
        assert!(!of_during, "what is not on disk is neither acknowledged nor shown: {frame}");
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_database_that_another_process_holds() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    let blocker = server.database();
    blocker.execute_batch("BEGIN EXCLUSIVE").expect("the lock");
    for number in 0..20 {
        connection.say_once(&number.to_string(), "during").await;
    }
    let codes = tokio::spawn(async move { connection.close_code().await });
    let started = Instant::now();
    assert_eq!(server.stop().await.code(), Some(0));
    assert!(started.elapsed() < STOP, "{:?}", started.elapsed());
    assert_eq!(codes.await.expect("no panic"), 1001);
}

/// A server whose wall clock reads what a file says.
struct Clock(PathBuf);

impl Clock {
    /// Where Debian has the library.
    fn library() -> String {
        format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH)
    }

    fn set(&self, offset: &str) {
        fs::write(&self.0, format!("{offset}\n")).expect("the file is written");
    }
}

#[tokio::test]
async fn a_clock_that_jumps_breaks_neither_order_nor_sessions_nor_rates() {
    let library = Clock::library();
    if !Path::new(&library).exists() {
        return skip("this needs libfaketime");
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let clock = Clock(directory.path().join("clock"));
    clock.set("+0");
    let server = TestServer::with_environment(
        &["--message-rate", "20"],
        &[
            ("LD_PRELOAD", &library),
            ("FAKETIME_TIMESTAMP_FILE", clock.0.to_str().expect("a plain path")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ],
    );
    let ada = Client::register(&server, "ada").await;
    let mut connection = ada.connect().await;
    let first = connection.store("first", "first").await;
    let mut last = first;
    let now = unix_millis();
    for (offset, days) in [("-10d", -10), ("+10d", 10), ("-12h", 0), ("+0", 0)] {
        clock.set(offset);
        let id = connection.store(offset, offset).await;
        assert_eq!(id, last + 1, "{offset}: the order is that of ids");
        last = id;
        let written = server.history(&ada).await.last().expect("a message").created_at;
        let shift = (written - now) / 86_400_000;
        assert!((days - 1..=days + 1).contains(&shift), "{offset}: the clock was changed, by {shift} days");
        let mut again = Client::login(&server, "ada").await.connect().await;
        assert_eq!(again.store(offset, offset).await, id, "{offset}: sent again, it is the same message");
        assert_eq!(again.store("first", "first").await, first, "{offset}: so is one that was sent before the jump");
        connection.send(&json!({"type": "ping"})).await;
        connection.next_of("pong").await;
    }
    connection.store_all("rate", &vec!["still within the burst".to_owned(); 30]).await;
}

#[tokio::test]
async fn a_clock_set_back_past_midnight_remembers_nonces() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let id = ada.connect().await.store("n", "hello").await;
    server.stop().await;
    // As if it had been sent tomorrow, by the clock there was then.
    server.database().execute_batch("UPDATE nonces SET day = day + 1").expect("the change");
    server.restart();
    assert_eq!(ada.connect().await.store("n", "hello").await, id);
}
