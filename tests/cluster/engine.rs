//! The real nats-server, one or three of them, with the configuration that docs/CLUSTER.md tells operators to use.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::bare::Nats;
use crate::common::{PATIENCE, chinwag, reserved_port, skip, wait_while, within};

/// The servers that keep a log. They end with the value.
pub(crate) struct Engine {
    program: PathBuf,
    servers: Vec<NatsServer>,
    /// Theirs, also while one of them is started again.
    _ports: Vec<TcpSocket>,
    _directory: Option<TempDir>,
}

struct NatsServer {
    config: PathBuf,
    store: PathBuf,
    log: PathBuf,
    port: u16,
    monitor: u16,
    process: Option<Child>,
}

impl NatsServer {
    fn start(&mut self, program: &Path) {
        let log = std::fs::File::options().create(true).append(true).open(&self.log).expect("a log file");
        let process = Command::new(program)
            .arg("--config")
            .arg(&self.config)
            .env("GOMEMLIMIT", "128MiB")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server runs");
        self.process = Some(process);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).expect("the process takes the signal");
    }

    fn end(&mut self, signal: Signal) {
        self.signal(signal);
        self.process.take().expect("it runs").wait().expect("a child can be waited for");
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both fail only if it has ended by itself, which is as good.
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// Where nats-server is; none, and a word about it, if it is not here.
pub(crate) fn program() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/nats-server/bin/nats-server");
    let program = std::env::var_os("NATS_SERVER").map_or(here, PathBuf::from);
    if program.exists() {
        return Some(program);
    }
    skip("there is no nats-server: tests/cluster/get-nats-server gets it");
    None
}

impl Engine {
    /// One server, which waits for its disk.
    pub(crate) async fn one() -> Option<Engine> {
        Self::of(1, None, "always").await
    }

    /// Three servers, each of which waits for its disk.
    pub(crate) async fn three() -> Option<Engine> {
        Self::of(3, None, "always").await
    }

    /// One server, with more in its configuration.
    pub(crate) async fn configured(more: &str) -> Option<Engine> {
        Self::with(1, None, "always", more).await
    }

    /// Servers that keep their stores below directories of the caller's, and write to disk as `sync_interval` says.
    pub(crate) async fn of(count: usize, stores: Option<&[PathBuf]>, sync_interval: &str) -> Option<Engine> {
        Self::with(count, stores, sync_interval, "").await
    }

    async fn with(count: usize, stores: Option<&[PathBuf]>, sync_interval: &str, more: &str) -> Option<Engine> {
        let program = program()?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let reserved: Vec<_> = (0..3 * count).map(|_| reserved_port()).collect();
        let ports: Vec<_> = reserved.iter().map(|port| port.local_addr().expect("it is bound").port()).collect();
        let routes: Vec<_> = ports.iter().take(count).map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let mut servers = Vec::new();
        for number in 0..count {
            let home = stores.map_or_else(|| directory.path().to_owned(), |stores| stores[number].clone());
            let (route, port, monitor) = (ports[number], ports[count + number], ports[2 * count + number]);
            let store = home.join(format!("store-{number}"));
            let mut config = format!(
                "server_name: n{number}\nlisten: 127.0.0.1:{port}\nhttp: 127.0.0.1:{monitor}\n\
                 jetstream {{ store_dir: \"{}\", sync_interval: {sync_interval}, max_file: 2GB, max_mem: 64MB }}\n{more}\n",
                store.display()
            );
            if count > 1 {
                writeln!(config, "cluster {{ name: c, listen: 127.0.0.1:{route}, routes: {routes:?} }}").expect("text");
            }
            let path = directory.path().join(format!("nats-{number}.conf"));
            std::fs::write(&path, config).expect("a configuration");
            let log = directory.path().join(format!("nats-{number}.log"));
            let mut server = NatsServer { config: path, store, log, port, monitor, process: None };
            server.start(&program);
            servers.push(server);
        }
        let engine = Engine { program, servers, _ports: reserved, _directory: Some(directory) };
        engine.ready().await;
        Some(engine)
    }

    /// How many servers there are.
    pub(crate) fn len(&self) -> usize {
        self.servers.len()
    }

    /// The flags that a server or a command of chinwag reaches them by, beginning with server `first`.
    pub(crate) fn flags_from(&self, first: usize) -> Vec<String> {
        let servers = (0..self.len()).map(|number| &self.servers[(first + number) % self.len()]);
        servers.flat_map(|server| ["--log".to_owned(), format!("nats://127.0.0.1:{}", server.port)]).collect()
    }

    /// Where a server listens.
    pub(crate) fn port(&self, number: usize) -> u16 {
        self.servers[number].port
    }

    /// A connection to the first of them, to do what no node does.
    pub(crate) async fn nats(&self) -> Nats {
        Nats::connect(self.servers[0].port).await
    }

    /// Where a server keeps what it keeps.
    pub(crate) fn store(&self, number: usize) -> &Path {
        &self.servers[number].store
    }

    /// The address of a server's monitor.
    pub(crate) fn monitor(&self, number: usize) -> String {
        format!("http://127.0.0.1:{}", self.servers[number].monitor)
    }

    /// Waits until JetStream answers: all of its servers have found each other and chosen who leads.
    pub(crate) async fn ready(&self) {
        wait_while("JetStream", async || !self.is_ready().await).await;
    }

    async fn is_ready(&self) -> bool {
        let running = (0..self.len()).filter(|number| self.servers[*number].process.is_some());
        for number in running {
            let Some(jsz) = self.monitored(number, "/jsz").await else { return false };
            let has_leader = self.len() == 1 || jsz["meta_cluster"]["leader"].is_string();
            if jsz["disabled"] == true || !has_leader {
                return false;
            }
        }
        true
    }

    async fn monitored(&self, number: usize, target: &str) -> Option<serde_json::Value> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let port = self.servers[number].monitor;
        let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        stream.write_all(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.ok()?.ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// Which server leads the stream, if it is known.
    pub(crate) async fn leader(&self) -> Option<usize> {
        self.leader_as_known_to(0..self.len()).await
    }

    /// The same once it is another one than `number`, which is not asked.
    pub(crate) async fn leader_other_than(&self, number: usize) -> usize {
        within("another leader", async {
            loop {
                let others = (0..self.len()).filter(|other| *other != number);
                match self.leader_as_known_to(others).await {
                    Some(leader) if leader != number => return leader,
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        })
        .await
    }

    async fn leader_as_known_to(&self, numbers: impl Iterator<Item = usize>) -> Option<usize> {
        for number in numbers.filter(|number| self.servers[*number].process.is_some()) {
            let jsz = self.monitored(number, "/jsz?streams=1").await?;
            let streams = jsz["account_details"][0]["stream_detail"].as_array()?.clone();
            let leader = streams.iter().find_map(|stream| stream["cluster"]["leader"].as_str().map(ToOwned::to_owned));
            if let Some(number) = leader.and_then(|name| name.strip_prefix('n')?.parse().ok()) {
                return Some(number);
            }
        }
        None
    }

    /// Which server leads the servers themselves, if it is known.
    pub(crate) async fn meta_leader(&self) -> Option<usize> {
        for number in (0..self.len()).filter(|number| self.servers[*number].process.is_some()) {
            let jsz = self.monitored(number, "/jsz").await?;
            if let Some(name) = jsz["meta_cluster"]["leader"].as_str() {
                return name.strip_prefix('n')?.parse().ok();
            }
        }
        None
    }

    /// Whether every server has all entries, as far as the one that leads the stream knows.
    pub(crate) async fn is_in_step(&self) -> bool {
        let Some(leader) = self.leader().await else { return false };
        let Some(jsz) = self.monitored(leader, "/jsz?streams=1").await else { return false };
        let replicas = jsz["account_details"][0]["stream_detail"][0]["cluster"]["replicas"].as_array().cloned();
        replicas.is_some_and(|all| all.len() + 1 == self.len() && all.iter().all(|replica| replica["current"] == true))
    }

    /// Ends a server with a signal, and waits until it has ended.
    pub(crate) fn end(&mut self, number: usize, signal: Signal) {
        self.servers[number].end(signal);
    }

    /// Sends a signal to a server.
    pub(crate) fn signal(&self, number: usize, signal: Signal) {
        self.servers[number].signal(signal);
    }

    /// Starts a server again.
    pub(crate) fn restart(&mut self, number: usize) {
        let Engine { program, servers, .. } = self;
        servers[number].start(program);
    }

    /// Makes the log, with the database at `path` as the first that follows it.
    pub(crate) async fn init(&self, path: &Path, more: &[&str]) {
        let (flags, replicas) = (self.flags_from(0), self.len().to_string());
        let mut arguments = vec!["cluster", "init", "--replicas", &replicas];
        arguments.extend(flags.iter().map(String::as_str));
        arguments.extend(more);
        // Servers that have just found each other may not agree yet on where a stream goes.
        wait_while("the log", async || chinwag(path, &arguments).code != 0).await;
    }
}
