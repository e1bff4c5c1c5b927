//! The server under test: starting it on a free port, and reading from `/proc` what it costs.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rusqlite::{Connection, params};
use rustix::process::{Pid, Signal};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::wire::Http;

/// `USER_HZ`, the unit of CPU time in `/proc`: 100 on every architecture Rust's std knows Linux on.
const TICKS_PER_SECOND: u64 = 100;
/// A password takes tens of milliseconds to hash, so more users than these are not registered but inserted.
const MANY_USERS: usize = 16;
const DATABASE: &str = "load.db";
const START_DEADLINE: Duration = Duration::from_secs(20);
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// A server to measure, and a few logged-in users of it. Dropping it ends what it started.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// A session's token for each user.
    pub(crate) tokens: Vec<String>,
    /// What each of them is called.
    names: Vec<String>,
    /// From starting the process to its first `200`; none if it was there already.
    pub(crate) start_time: Option<Duration>,
    /// RSS of the fresh process, before any connection.
    pub(crate) rss_at_rest: Option<u64>,
    pid: Option<u32>,
    child: Option<Child>,
    /// How it was started; none if it was there already.
    command: Option<String>,
    directory: Option<TempDir>,
}

impl Server {
    /// Starts `command` (words split at spaces, `{port}` and `{db}` filled in), makes `users`, and starts it once more:
    /// the memory and CPU of hashing passwords would otherwise be in every figure. Many users, and what they said before,
    /// are written into the database between the two.
    pub(crate) fn spawn(command: &str, database_directory: &Path, users: usize, messages: u32) -> Result<Self> {
        let directory = TempDir::with_prefix_in("load-", database_directory)
            .with_context(|| format!("cannot make a directory in {}", database_directory.display()))?;
        let database = directory.path().join(DATABASE);
        let mut server = Self {
            address: TcpListener::bind("127.0.0.1:0")?.local_addr()?,
            tokens: Vec::new(),
            names: Vec::new(),
            start_time: None,
            rss_at_rest: None,
            pid: None,
            child: None,
            command: Some(command.to_owned()),
            directory: Some(directory),
        };
        server.start()?;
        let made = make_users(server.address, users.min(MANY_USERS))?;
        server.stop()?;
        let inserted = insert_users(&database, users.saturating_sub(MANY_USERS))?;
        insert_messages(&database, messages)?;
        (server.names, server.tokens) = made.into_iter().chain(inserted).unzip();
        server.start()?;
        Ok(server)
    }

    /// A server that runs already; without `pid` its CPU and memory stay unknown.
    pub(crate) fn attach(address: SocketAddr, pid: Option<u32>, users: usize) -> Result<Self> {
        let (names, tokens) = make_users(address, users)?.into_iter().unzip();
        let (start_time, rss_at_rest, child, command, directory) = (None, None, None, None, None);
        Ok(Self { address, tokens, names, start_time, rss_at_rest, pid, child, command, directory })
    }

    /// Makes so many private rooms and shares the users out among them in turn: the one at `index` is in room `index %
    /// rooms`. Returns the rooms' ids.
    pub(crate) fn make_rooms(&self, rooms: usize) -> Result<Vec<u64>> {
        ensure!(rooms <= self.names.len(), "more rooms than users: see --users");
        let mut http = Http::connect(self.address)?;
        let make = |room: usize| {
            let members: Vec<&String> = self.names.iter().skip(room).step_by(rooms).collect();
            http.make_room(&self.tokens[room], &json!({ "name": "load", "kind": "private", "members": members }))
        };
        (0..rooms).map(make).collect()
    }

    /// Stops it as an update does, and starts it again.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    fn start(&mut self) -> Result<()> {
        let (command, directory) =
            self.command.as_ref().zip(self.directory.as_ref()).context("only a server of --spawn can be started")?;
        let (database, port) = (directory.path().join(DATABASE), self.address.port());
        let path = database.to_str().context("the database's path is not UTF-8")?;
        let mut words = command.split_whitespace().map(|word| word.replace("{port}", &port.to_string()));
        let program = words.next().context("the command to start is empty")?;
        let started = Instant::now();
        let log = database.with_file_name("server.log");
        let child = Command::new(&program)
            .args(words.map(|word| word.replace("{db}", path)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {program}; for chinwag: cargo build --release"))?;
        self.pid = Some(child.id());
        let child = self.child.insert(child);
        loop {
            if answers(self.address) {
                break;
            }
            if let Some(status) = child.try_wait()? {
                bail!("{program} ended before it answered: {status}\n{}", fs::read_to_string(log)?);
            }
            ensure!(started.elapsed() < START_DEADLINE, "{program} does not answer GET /healthz");
            thread::sleep(Duration::from_micros(200));
        }
        self.start_time = Some(started.elapsed());
        self.rss_at_rest = self.memory().map(|memory| memory.now);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let pid = Pid::from_child(&child);
        rustix::process::kill_process(pid, Signal::TERM)?;
        let asked = Instant::now();
        while child.try_wait()?.is_none() {
            if asked.elapsed() > STOP_DEADLINE {
                child.kill()?;
                child.wait()?;
                bail!("the server did not stop within {} s of SIGTERM", STOP_DEADLINE.as_secs());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// User and system time used so far, to 10 ms.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        cpu_of(&self.pid?.to_string())
    }

    pub(crate) fn memory(&self) -> Option<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid?)).ok()?;
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
        };
        Some(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
    }

    /// Lets the peak start again from what is used now. Where the kernel refuses, the peak is that of the whole run.
    pub(crate) fn forget_peak(&self) {
        if let Some(pid) = self.pid {
            fs::write(format!("/proc/{pid}/clear_refs"), "5").ok();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A drop cannot report; `stop` has killed what did not end by itself.
        self.stop().ok();
    }
}

/// Resident set size in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    pub(crate) peak: u64,
}

/// CPU time of this process.
pub(crate) fn own_cpu() -> Option<Duration> {
    cpu_of("self")
}

/// CPU time that the whole machine spent, on all its cores: user, nice, system, irq, softirq and steal.
pub(crate) fn machine_cpu() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).flat_map(str::parse).collect();
    let busy = [0, 1, 2, 5, 6, 7].into_iter().map(|field| fields.get(field).copied()).sum::<Option<u64>>()?;
    Some(Duration::from_millis(busy * 1000 / TICKS_PER_SECOND))
}

fn cpu_of(process: &str) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field, the program's name, may hold anything; what follows its last bracket does not.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn answers(address: SocketAddr) -> bool {
    Http::connect(address)
        .and_then(|mut http| http.request("GET", "/healthz", None, None))
        .is_ok_and(|(status, _)| status == 200)
}

/// New users for every run, so that neither nonces nor names of an earlier one are in the way: their names and tokens.
fn make_users(address: SocketAddr, users: usize) -> Result<Vec<(String, String)>> {
    let run: u32 = rand::random();
    let mut http = Http::connect(address)?;
    (0..users)
        .map(|user| {
            let (username, password) = (format!("load-{run:08x}-{user}"), format!("{:032x}", random()));
            http.register(&username, &password)?;
            let token = http.login(&username, &password)?;
            Ok((username, token))
        })
        .collect()
}

/// Users who need no password, since they have a session: by the schema, which chinwag and its peers share. A server
/// without a database takes any token.
fn insert_users(database: &Path, users: usize) -> Result<Vec<(String, String)>> {
    let seeded = |index| (format!("load-seeded-{index}"), format!("{:032x}{:032x}", random(), random()));
    let users: Vec<(String, String)> = (0..users).map(seeded).collect();
    if users.is_empty() || !database.exists() {
        return Ok(users);
    }
    let mut connection = Connection::open(database)?;
    let transaction = connection.transaction()?;
    {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
        let mut user =
            transaction.prepare("INSERT INTO users (name, password_hash, created_at) VALUES (?1, '', ?2)")?;
        let mut session = transaction
            .prepare("INSERT INTO sessions (digest, user_id, created_at, last_used_at) VALUES (?1, ?2, ?3, ?3)")?;
        for (name, token) in &users {
            let id = user.insert(params![name, now])?;
            session.execute(params![Sha256::digest(token).as_slice(), id, now])?;
        }
    }
    transaction.commit()?;
    Ok(users)
}

/// Messages of the first user in the lobby, of common length.
fn insert_messages(database: &Path, messages: u32) -> Result<()> {
    if messages > 0 {
        let say = "WITH RECURSIVE n (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM n WHERE id < ?1) \
             INSERT INTO messages (id, user_id, content, created_at) \
             SELECT id, 1, 'What was said as number ' || id || ' in a chat that has gone on for years', 1000 FROM n";
        Connection::open(database)?.execute(say, [messages])?;
    }
    Ok(())
}

fn random() -> u128 {
    rand::random()
}
