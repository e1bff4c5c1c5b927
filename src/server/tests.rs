//! What can only be provoked inside the process: an overrun shard, and a loop that ends.

use std::ffi::OsStr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use clap::Parser as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;

use super::*;
use crate::db::{NewMessage, Sender, Write};
use crate::fan_out::{FrameKind, Reach};
use crate::limits::{CATCH_UPS_AT_ONCE, HUB_CAPACITY};
use crate::model::{Content, UnixMillis, Username};
use crate::protocol::ServerFrame;
use crate::secret::Token;

/// How long any one wait may take; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(clap::Parser)]
struct Flags {
    #[command(flatten)]
    config: Config,
}

/// The defaults, with one shard, on a free port and a database in `directory`.
fn config(directory: &Path) -> Config {
    let db = directory.join("chinwag.db");
    let flags = ["chinwag", "--shards", "1", "--listen", "127.0.0.1:0", "--db"].map(OsStr::new);
    Flags::parse_from(flags.into_iter().chain([db.as_os_str()])).config
}

fn name(name: &str) -> Username {
    Username::parse(name).unwrap()
}

/// A server on the test's own thread: its shard runs only while the test waits, and so is overrun on purpose and not by
/// luck.
struct Served {
    app: Arc<App>,
    address: String,
    ada: Sender,
    token: Token,
    directory: TempDir,
}

impl Served {
    /// Starts a server where ada has an account and a session.
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::bind(config(directory.path())).await.unwrap();
        let app = Arc::clone(&server.app);
        let address = server.listeners[0].tcp_address().unwrap().to_string();
        tokio::spawn(server.run());
        app.db.register_user(name("ada"), String::new(), None).await.unwrap();
        let ada = app.db.credentials(name("ada")).await.unwrap().unwrap().user;
        let token = Token::random();
        let session = app.db.login_user(ada, String::new(), token.digest(), String::new()).await.unwrap().unwrap();
        let ada = Sender { session, user: ada, username: name("ada"), is_bot: false };
        Self { app, address, ada, token, directory }
    }

    /// Connects as ada. The first frames have been read.
    async fn connect(&self) -> Reader {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let url = format!("ws://{}/ws", self.address);
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        let mut reader = Reader(socket);
        reader
            .0
            .send(WsMessage::text(json!({"type": "auth", "token": self.token.reveal()}).to_string()))
            .await
            .unwrap();
        assert_eq!(reader.next().await.unwrap()["type"], "auth_success");
        reader
    }

    /// Stores messages from ada.
    async fn store(&self, contents: &[&str]) {
        let message = |content: &&str| Write::Message(NewMessage::plain(Content::parse(content).unwrap(), None));
        self.app.db.write(self.ada.clone(), contents.iter().map(message).collect()).await.unwrap();
    }

    /// Makes the writer thread publish the event that `command` causes, followed by as many as the channel holds,
    /// before the shard takes any of them: the first is lost to it.
    fn overrun(&self, command: impl Future + Send) {
        let mut events = self.app.hub.subscribe();
        let published = async {
            command.await;
            events.recv().await.unwrap();
        };
        thread::scope(|scope| {
            let elsewhere = scope.spawn(|| {
                tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(published);
            });
            elsewhere.join().unwrap();
        });
        for _ in 0..HUB_CAPACITY {
            let typing = ServerFrame::Typing { username: "nobody", room: 1 };
            self.app.hub.publish_frame(&typing, FrameKind::Unordered, Reach::ALL);
        }
    }
}

struct Reader(WebSocketStream<TcpStream>);

impl Reader {
    /// The next text frame, or the code of the close frame.
    async fn next(&mut self) -> Result<Value, u16> {
        loop {
            match within(self.0.next()).await.unwrap().unwrap() {
                WsMessage::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
                WsMessage::Close(close) => return Err(close.unwrap().code.into()),
                _ => {}
            }
        }
    }

    /// The code of the close frame, whatever precedes it.
    async fn close_code(&mut self) -> u16 {
        loop {
            if let Err(code) = self.next().await {
                return code;
            }
        }
    }

    /// The next text frame of type `kind`.
    async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await.unwrap();
            if frame["type"] == kind {
                return frame;
            }
        }
    }
}

async fn within<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.expect("it comes within PATIENCE")
}

#[tokio::test]
async fn every_connection_of_an_overrun_shard_gets_every_message_once() {
    let served = Served::start().await;
    let mut readers = [served.connect().await, served.connect().await, served.connect().await];
    served.store(&["1", "2"]).await;
    for reader in &mut readers {
        assert_eq!(reader.next_of("message").await["content"], "1");
        assert_eq!(reader.next_of("message").await["content"], "2");
    }
    served.overrun(served.store(&["3", "4"]));
    // No later message shows that these are missing.
    for reader in &mut readers {
        assert_eq!(reader.next_of("message").await["content"], "3");
        assert_eq!(reader.next_of("message").await["content"], "4");
    }
    served.store(&["5"]).await;
    for reader in &mut readers {
        assert_eq!(reader.next_of("message").await["content"], "5");
    }
}

#[tokio::test]
async fn every_connection_of_an_overrun_shard_learns_who_is_there() {
    let served = Served::start().await;
    let mut readers = [served.connect().await, served.connect().await];
    let mut joined = None;
    served.overrun(async { joined = served.app.presence.enter(&name("bob"), false).ok() });
    for reader in &mut readers {
        let presence = reader.next_of("presence").await;
        assert_eq!(presence, json!({"type": "presence", "online": 2, "users": ["ada", "bob"]}));
    }
}

#[tokio::test]
async fn a_connection_that_waits_to_catch_up_hears_of_a_logout_and_of_a_stop() {
    for (is_stop, code) in [(false, 1008), (true, 1001)] {
        let served = Served::start().await;
        let mut reader = served.connect().await;
        let all = u32::try_from(CATCH_UPS_AT_ONCE).unwrap();
        let _permits = served.app.catch_ups.acquire_many(all).await.unwrap();
        served.overrun(served.store(&["1"]));
        // The shard runs, then the connection, which from here on waits for a permit.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        if is_stop {
            served.app.stopping.send_replace(true);
        } else {
            served.app.db.end_session(served.token.digest()).await.unwrap();
        }
        assert_eq!(reader.close_code().await, code);
    }
}

#[tokio::test]
async fn a_session_that_ends_while_its_shard_is_overrun_is_closed() {
    let served = Served::start().await;
    let mut reader = served.connect().await;
    served.overrun(served.app.db.end_session(served.token.digest()));
    assert_eq!(reader.close_code().await, 1008);
}

#[tokio::test]
async fn a_session_that_expires_is_closed() {
    let served = Served::start().await;
    let mut reader = served.connect().await;
    let database = rusqlite::Connection::open(served.directory.path().join("chinwag.db")).unwrap();
    let days_31 = 31 * 24 * 60 * 60 * 1000;
    let changed = database.execute("UPDATE sessions SET last_used_at = ?1", [UnixMillis::now().plus(-days_31).0]);
    assert_eq!(changed, Ok(1));
    served.app.db.clean().await.unwrap();
    assert_eq!(reader.close_code().await, 1008);
}

#[tokio::test]
async fn a_shard_that_panics_stops_the_server_with_an_error() {
    let directory = tempfile::tempdir().unwrap();
    // No flag can do this: a shard's loop cannot start with a timer that has no period.
    let config = Config { ping_interval: 0, ..config(directory.path()) };
    let server = Server::bind(config).await.unwrap();
    let stopped = within(server.run()).await;
    assert!(matches!(stopped, Err(RunError::Loop)), "{stopped:?}");
}

#[tokio::test]
async fn a_loop_that_panics_stops_the_server_with_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::bind(config(directory.path())).await.unwrap();
    for with_bug in 0..3 {
        let mut loops = [(); 3].map(|()| JoinSet::new());
        for set in &mut loops {
            set.spawn(std::future::pending());
        }
        loops[with_bug].spawn(async { panic!("as a loop with a bug would") });
        let over = within(until_over(&server.app, loops.each_mut())).await;
        assert!(matches!(over, Err(RunError::Loop)), "{over:?}");
    }
}
