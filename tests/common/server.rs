//! The server under test: the real binary, started, stopped, killed and started again.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::command::end_of;
use super::http::Request;
use super::{Client, Message, PATIENCE, binary, metric, text, unix_millis, wait_while, within};

/// The first line of standard output begins with this; the scheme and the address follow.
const GREETING: &str = "chinwag is listening on ";

/// Without limits, and open to everybody. Given by the environment, so that a test's flags win.
const LIFTED_LIMITS: [(&str, &str); 5] = [
    ("CHINWAG_REGISTRATION", "open"),
    ("CHINWAG_MESSAGE_RATE", "0"),
    ("CHINWAG_AUTH_RATE", "0"),
    ("CHINWAG_ADDRESS_CONNECTIONS", "0"),
    ("CHINWAG_USER_CONNECTIONS", "0"),
];

/// A running chinwag on a database of its own; the process ends with the value.
pub(crate) struct TestServer {
    process: Option<Child>,
    address: SocketAddr,
    /// Has the server's port, so that nobody else gets it while the server is started again.
    _port: TcpSocket,
    flags: Vec<String>,
    stdout: Lines,
    stderr: Lines,
    /// Who reads the two.
    collectors: Vec<JoinHandle<()>>,
    directory: TempDir,
}

/// What a pipe of the process has said so far.
type Lines = Arc<Mutex<Vec<String>>>;

impl TestServer {
    /// A server without limits on rates and connections: most tests are one address that hurries.
    pub(crate) fn start() -> TestServer {
        TestServer::with(&[])
    }

    /// The same with `flags`, which win over the lifted limits.
    pub(crate) fn with(flags: &[&str]) -> TestServer {
        TestServer::with_environment(flags, &[])
    }

    /// The same with `variables`, which win over the lifted limits, too.
    pub(crate) fn with_environment(flags: &[&str], variables: &[(&str, &str)]) -> TestServer {
        let mut command = program();
        command.envs(variables.iter().copied());
        TestServer::launch(flags, command)
    }

    /// A server as it is when nobody says how it should be.
    pub(crate) fn with_defaults() -> TestServer {
        let mut command = Command::new(binary());
        command.stdin(Stdio::null());
        TestServer::launch(&[], command)
    }

    /// A server that is given `socket` as systemd gives a service the socket it was activated by. Only the standard
    /// streams can be handed to a child without `unsafe`: a shell moves it from there to where systemd puts it.
    pub(crate) fn with_socket(flags: &[&str], socket: impl Into<OwnedFd>) -> TestServer {
        let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, binary()]).stdin(Stdio::from(socket.into()));
        TestServer::launch(flags, shell)
    }

    /// The same without flags, after `preparation`: what a shell does to itself, and what it then runs as inherits.
    pub(crate) fn after(preparation: &str) -> TestServer {
        let mut shell = Command::new("sh");
        shell.stdin(Stdio::null());
        let program = binary();
        shell.args(["-c", &format!("{preparation} && exec {program} \"$@\""), "sh"]).envs(LIFTED_LIMITS);
        TestServer::launch(&[], shell)
    }

    /// The same in a directory that may have a database already.
    pub(crate) fn in_directory(directory: TempDir, flags: &[&str]) -> TestServer {
        TestServer::in_directory_with(directory, flags, &[])
    }

    /// The same with `variables`.
    pub(crate) fn in_directory_with(directory: TempDir, flags: &[&str], variables: &[(&str, &str)]) -> TestServer {
        let mut command = program();
        command.envs(variables.iter().copied());
        TestServer::launch_in(directory, flags, command)
    }

    fn launch(flags: &[&str], command: Command) -> TestServer {
        TestServer::launch_in(tempfile::tempdir().expect("a temporary directory"), flags, command)
    }

    fn launch_in(directory: TempDir, flags: &[&str], command: Command) -> TestServer {
        let port = reserved_port();
        let mut server = TestServer {
            process: None,
            address: port.local_addr().expect("it is bound"),
            _port: port,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            stdout: Lines::default(),
            stderr: Lines::default(),
            collectors: Vec::new(),
            directory,
        };
        server.spawn(command);
        server
    }

    /// Starts the process and waits for its greeting.
    fn spawn(&mut self, mut command: Command) {
        let mut process = command
            .args(&self.flags)
            .arg("--listen")
            .arg(self.address.to_string())
            .arg("--db")
            .arg(self.database_path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let (greeted, greeting) = mpsc::channel();
        self.collectors = vec![
            collect(process.stdout.take(), &self.stdout, Some(greeted)),
            collect(process.stderr.take(), &self.stderr, None),
        ];
        self.process = Some(process);
        let Ok(line) = greeting.recv_timeout(PATIENCE) else {
            panic!("the server did not start; its log:\n{}", self.log());
        };
        let address = line.strip_prefix(GREETING).and_then(|url| url.split_once("://")?.1.parse().ok());
        self.address = address.unwrap_or_else(|| panic!("no greeting: {line:?}"));
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The database file.
    pub(crate) fn database_path(&self) -> PathBuf {
        self.directory.path().join("chinwag.db")
    }

    /// The directory of the database file, which is the test's own.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// A connection of our own to the database file, past the server.
    pub(crate) fn database(&self) -> rusqlite::Connection {
        let database = rusqlite::Connection::open(self.database_path()).expect("the database opens");
        database.busy_timeout(PATIENCE).expect("a busy timeout");
        database
    }

    /// The one number that `query` yields.
    pub(crate) fn number(&self, query: &str) -> i64 {
        self.database().query_row(query, [], |row| row.get(0)).expect("the query yields a number")
    }

    /// Standard error so far.
    pub(crate) fn log(&self) -> String {
        self.stderr.lock().expect("no reader panicked").join("\n")
    }

    /// The first line of the log with `needle` in it, once there is one.
    pub(crate) async fn logged(&self, needle: &str) -> String {
        self.line("a line in the log", &self.stderr, needle).await
    }

    /// The first line of standard output with `needle` in it, once there is one.
    pub(crate) async fn printed(&self, needle: &str) -> String {
        self.line("a line on standard output", &self.stdout, needle).await
    }

    async fn line(&self, what: &str, lines: &Mutex<Vec<String>>, needle: &str) -> String {
        within(what, async {
            loop {
                let found =
                    lines.lock().expect("no reader panicked").iter().find(|line| line.contains(needle)).cloned();
                if let Some(line) = found {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// Standard output so far, line by line.
    pub(crate) fn stdout(&self) -> Vec<String> {
        self.stdout.lock().expect("no reader panicked").clone()
    }

    /// SIGTERM, and how the process ended.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// SIGKILL, as a crash or the end of the power would do it (except for the disk's own cache).
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    /// Sends `signal` and does not wait.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process takes the signal");
    }

    /// Has the process stand still until it gets `SIGCONT`. The signal is sent before its threads have heard of it.
    pub(crate) async fn pause(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.pid().as_raw_nonzero());
        let is_still = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.expect("a thread").path().join("stat"));
            // One that has ended meanwhile cannot be asked.
            stat.is_err()
                || stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T')))
        };
        wait_while("every thread to stand still", async || {
            !std::fs::read_dir(&tasks).expect("a running process is in /proc").all(is_still)
        })
        .await;
    }

    /// Whether the process has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        let process = self.process.as_mut().expect("it was not waited for");
        process.try_wait().expect("a child can be asked").is_none()
    }

    /// How the process ended, once it has and all that it said is there to be read.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let pid = self.pid();
        let mut process = self.process.take().expect("the server runs");
        let collectors = std::mem::take(&mut self.collectors);
        let end = tokio::task::spawn_blocking(move || {
            let status = process.wait();
            for collector in collectors {
                collector.join().expect("no reader panicked");
            }
            status
        });
        let Ok(status) = tokio::time::timeout(PATIENCE, end).await else {
            kill_process(pid, Signal::KILL).expect("the process takes the signal");
            panic!("the server did not end");
        };
        status.expect("the wait does not panic").expect("a child can be waited for")
    }

    /// Has all that is stored look, while the server is stopped, as if its clock had been 61 days behind.
    pub(crate) fn set_back_what_is_stored(&self) {
        let columns = [
            ("sessions", "created_at"),
            ("sessions", "last_used_at"),
            ("messages", "created_at"),
            ("images", "created_at"),
            ("invites", "created_at"),
            ("invites", "expires_at"),
            ("push_subscriptions", "visited_at"),
        ];
        let database = self.database();
        for (table, column) in columns {
            let set_back = format!("UPDATE {table} SET {column} = {column} - 61 * 86400000");
            database.execute(&set_back, []).expect("the change");
        }
        let believed = "UPDATE meta SET value = value - 61 * 86400000 WHERE key = 'believed'";
        database.execute(believed, []).expect("the change");
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill): same database, same port, same flags.
    pub(crate) fn restart(&mut self) {
        assert!(self.process.is_none(), "stop or kill it first");
        self.spawn(program());
    }

    /// The same with other flags.
    pub(crate) fn restart_with(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.restart();
    }

    /// The same with `variables`.
    pub(crate) fn restart_with_environment(&mut self, variables: &[(&str, &str)]) {
        assert!(self.process.is_none(), "stop or kill it first");
        let mut command = program();
        command.envs(variables.iter().copied());
        self.spawn(command);
    }

    /// The id of the running process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().expect("the server runs"))
    }

    /// A file of `/proc` about the process.
    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.pid().as_raw_nonzero());
        std::fs::read_to_string(path).expect("a running process is in /proc")
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.bytes_of("VmRSS:")
    }

    /// Memory that was asked for, whether it was ever touched or not, in bytes.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        self.bytes_of("VmData:")
    }

    fn bytes_of(&self, name: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells");
        let kibibytes = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB");
        kibibytes * 1024
    }

    /// Bytes that the kernel holds for each connection: written, and not taken by the peer.
    pub(crate) fn queued_bytes(&self) -> Vec<u64> {
        let here = format!(":{:04X}", self.address.port());
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel tells");
        let ours = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours = ours.filter(|fields| fields.get(1).is_some_and(|local| local.ends_with(&here)));
        ours.filter_map(|fields| u64::from_str_radix(fields.get(4)?.split(':').next()?, 16).ok()).collect()
    }

    /// CPU time used so far, user and system, all threads; counted by the kernel in steps of 10 ms.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = self.proc("stat");
        let (_, fields) = stat.rsplit_once(") ").expect("the name is in brackets");
        let ticks = |index: usize| -> u64 {
            let field = fields.split(' ').nth(index).expect("stat has 52 fields");
            field.parse().expect("a number of ticks")
        };
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    /// How many sockets the process holds. Not how many files: some are open for a moment only.
    pub(crate) fn sockets(&self) -> usize {
        let path = format!("/proc/{}/fd", self.pid().as_raw_nonzero());
        let open = std::fs::read_dir(path).expect("a running process is in /proc").map_while(Result::ok);
        let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    }

    /// The lowest number that no file descriptor of the process has: as a limit it leaves none to be opened.
    pub(crate) fn lowest_free_descriptor(&self) -> u64 {
        let path = format!("/proc/{}/fd", self.pid().as_raw_nonzero());
        let mut taken = Vec::new();
        for entry in std::fs::read_dir(path).expect("a running process is in /proc").map_while(Result::ok) {
            taken.push(entry.file_name().to_string_lossy().parse::<u64>().expect("a number"));
        }
        (0..=taken.len() as u64).find(|number| !taken.contains(number)).expect("one more than are taken")
    }

    /// How many threads the process has.
    pub(crate) fn threads(&self) -> usize {
        let path = format!("/proc/{}/task", self.pid().as_raw_nonzero());
        std::fs::read_dir(path).expect("a running process is in /proc").count()
    }

    /// Where metrics are served, as the log says; for a server with `--metrics-listen`.
    pub(crate) async fn metrics_address(&self) -> SocketAddr {
        let line = self.logged("serving metrics").await;
        line.rsplit('=').next().and_then(|address| address.trim().parse().ok()).expect("an address")
    }

    /// How often a connection caught up from the database; for a server with `--metrics-listen`.
    pub(crate) async fn catch_ups(&self) -> f64 {
        let response = Request::new(self.metrics_address().await, "GET", "/metrics").send().await;
        metric(response.text(), "chinwag_catch_ups_total")
    }

    pub(crate) fn get(&self, target: &str) -> Request {
        self.request("GET", target)
    }

    pub(crate) fn post(&self, target: &str) -> Request {
        self.request("POST", target)
    }

    pub(crate) fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.address, method, target)
    }

    /// Every message there is, read page by page as `reader`.
    pub(crate) async fn history(&self, reader: &Client) -> Vec<Message> {
        self.history_after(reader, 0).await
    }

    /// Every message past `after`.
    pub(crate) async fn history_after(&self, reader: &Client, mut after: i64) -> Vec<Message> {
        let mut history = Vec::new();
        loop {
            let page = reader.page(&format!("after={after}&limit=200")).await;
            let messages = page["messages"].as_array().expect("a list");
            history.extend(messages.iter().map(Message::parse));
            if page["has_more"] == false {
                return history;
            }
            after = history.last().expect("a page with more after it is not empty").id;
        }
    }

    /// `count` people with a session each, put straight into the database: hashing their passwords would take minutes.
    pub(crate) async fn seed_people(&self, count: usize) -> Vec<Client> {
        let pattern = Client::register(self, "pattern").await;
        let mut database = self.database();
        let transaction = database.transaction().expect("a transaction");
        let mut people = Vec::with_capacity(count);
        for number in 0..count {
            // A token of the server's own making with a few characters changed is one it would accept.
            let token = format!("{number:08}{}", &pattern.token[8..]);
            let name = format!("person-{number:05}");
            let now = unix_millis();
            transaction
                .execute("INSERT INTO users (name, password_hash, created_at) VALUES (?1, '', ?2)", (&name, now))
                .expect("a new user");
            let user = transaction.last_insert_rowid();
            transaction
                .execute(
                    "INSERT INTO sessions (digest, user_id, created_at, last_used_at) VALUES (?1, ?2, ?3, ?3)",
                    (&Sha256::digest(&token)[..], user, now),
                )
                .expect("a new session");
            people.push(Client::known(self, &name, &token));
        }
        transaction.commit().expect("the commit");
        people
    }

    /// Waits until `/healthz` answers with `status`: the one thing about the server that can only be asked again.
    pub(crate) async fn healthy(&self, status: u16) {
        wait_while("the health asked for", async || self.get("/healthz").send().await.status != status).await;
    }
}

/// A free port of this machine's, which the system gives to nobody who asks for any free one while the value lives. A
/// server can listen there: bound, and not listening, two sockets may have one port that both are willing to share.
pub(crate) fn reserved_port() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("the port may be shared");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    socket
}

/// The binary under test, without limits.
fn program() -> Command {
    let mut command = Command::new(binary());
    command.stdin(Stdio::null()).envs(LIFTED_LIMITS);
    command
}

impl Drop for TestServer {
    #[expect(clippy::print_stderr, reason = "the log belongs below the panic of the test that it explains")]
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both fail only if the process has ended by itself, which is as good.
            process.kill().ok();
            process.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}\n------------------------", self.log());
        }
    }
}

/// Gathers a pipe's lines, so that the process never waits for us; the first one is also sent to `first`.
fn collect(
    pipe: Option<impl Read + Send + 'static>,
    lines: &Lines,
    first: Option<mpsc::Sender<String>>,
) -> JoinHandle<()> {
    let pipe = pipe.expect("the pipe was asked for");
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        let mut first = first;
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if let Some(first) = first.take() {
                // Nobody listens any more when the start has timed out.
                first.send(line.clone()).ok();
            }
            lines.lock().expect("no reader panicked").push(line);
        }
    })
}

/// Runs the binary with `flags` and `environment` until it ends by itself: for starts that must fail.
pub(crate) fn run_to_end(flags: &[&str], environment: &[(&str, &str)]) -> Output {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let process = Command::new(binary())
        .args(flags)
        .envs(environment.iter().copied())
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    end_of(process, &format!("chinwag {flags:?} with {environment:?}"))
}

/// A thousand sockets here and a thousand in the server, which inherits the limit.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may be raised to the hard one");
}
