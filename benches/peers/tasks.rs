//! The same contract with a task and a `broadcast` receiver for each connection, as tutorials serve a chat: what the
//! shards of chinwag are to be compared with.
//!
//! Only the fan-out differs. The storage is one thread with one transaction for all that waits, `synchronous=FULL`, and
//! acks and deliveries after the commit; a frame is encoded once. Left out, since no measurement here needs it: what
//! `bun.ts` leaves out, and presence and `GET /messages`.
//!
//! `cargo run --release --example tasks -- PORT DATABASE`

use std::env;
use std::iter;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use argon2::Argon2;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// What each receiver may be behind, as in chinwag's ring.
const RING: usize = 1_024;
const QUEUE: usize = 1_024;
const COMMIT: usize = 500;
const SALT_BYTES: usize = 16;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE UNIQUE, password_hash BLOB,
        created_at INTEGER);
    CREATE TABLE IF NOT EXISTS sessions (id INTEGER PRIMARY KEY, digest BLOB UNIQUE, user_id INTEGER,
        created_at INTEGER, last_used_at INTEGER);
    CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER, content TEXT,
        created_at INTEGER);
    CREATE TABLE IF NOT EXISTS nonces (user_id INTEGER, nonce TEXT, id INTEGER, PRIMARY KEY (user_id, nonce))
        WITHOUT ROWID;";

/// Runs on the storage thread; what it returns runs after the commit.
type Work = Box<dyn FnOnce(&Connection) -> rusqlite::Result<Afterwards> + Send>;
type Afterwards = Box<dyn FnOnce() + Send>;

struct Chat {
    storage: mpsc::Sender<Work>,
    frames: broadcast::Sender<(i64, Utf8Bytes)>,
}

struct User {
    id: i64,
    name: String,
}

#[derive(Deserialize)]
struct Frame<'a> {
    r#type: &'a str,
    content: Option<String>,
    nonce: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = env::args().skip(1);
    let port = words.next().context("name a port")?.parse()?;
    let connection = Connection::open(words.next().context("name a database")?)?;
    connection.execute_batch(SCHEMA)?;
    let (storage, work) = mpsc::channel(QUEUE);
    thread::spawn(move || store(connection, work));
    let chat = Arc::new(Chat { storage, frames: broadcast::channel(RING).0 });
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = terminate.recv() => return Ok(()),
        };
        stream.set_nodelay(true)?;
        let chat = Arc::clone(&chat);
        let service = service_fn(move |request| answer(Arc::clone(&chat), request));
        let mut http = hyper::server::conn::http1::Builder::new();
        let serving = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).with_upgrades();
        tokio::spawn(serving);
    }
}

/// One transaction for all that waits.
fn store(mut connection: Connection, mut work: mpsc::Receiver<Work>) -> rusqlite::Result<()> {
    while let Some(first) = work.blocking_recv() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let batch = iter::once(first).chain(iter::from_fn(|| work.try_recv().ok())).take(COMMIT);
        let done = batch.map(|work| work(&transaction)).collect::<rusqlite::Result<Vec<_>>>()?;
        transaction.commit()?;
        for afterwards in done {
            afterwards();
        }
    }
    Ok(())
}

impl Chat {
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (answer, answered) = oneshot::channel();
        let work = move |connection: &Connection| {
            let result = work(connection)?;
            Ok(Box::new(move || drop(answer.send(result))) as Afterwards)
        };
        self.storage.send(Box::new(work)).await.ok().context("the storage thread has ended")?;
        answered.await.context("the storage thread has ended")
    }
}

async fn answer(chat: Arc<Chat>, mut request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
    let reply = |status, body: Value| {
        Response::builder().status(status).header(CONTENT_TYPE, "application/json").body(body.to_string().into())
    };
    let (status, body) = match (request.method().as_str(), request.uri().path()) {
        ("GET", "/healthz") => (StatusCode::OK, json!({"status": "ok"})),
        ("POST", "/register") => register(&chat, request).await?,
        ("POST", "/login") => log_in(&chat, request).await?,
        ("GET", "/ws") => {
            let key = request.headers().get(SEC_WEBSOCKET_KEY).context("no key")?;
            let accept = derive_accept_key(key.as_bytes());
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgrade.await?), Role::Server, None).await;
                talk(&chat, socket).await
            });
            let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
            let response = response.header(CONNECTION, "Upgrade").header(UPGRADE, "websocket");
            return Ok(response.header(SEC_WEBSOCKET_ACCEPT, accept).body(Full::default())?);
        }
        _ => (StatusCode::NOT_FOUND, json!({"error": {"code": "not_found", "message": "there is nothing here"}})),
    };
    Ok(reply(status, body)?)
}

#[derive(Deserialize)]
struct Credentials {
    username: String,
    password: String,
}

async fn credentials(request: Request<Incoming>) -> anyhow::Result<Credentials> {
    Ok(serde_json::from_slice(&request.into_body().collect().await?.to_bytes())?)
}

async fn hash(password: String, salt: [u8; SALT_BYTES]) -> anyhow::Result<Vec<u8>> {
    tokio::task::spawn_blocking(move || {
        let mut stored = vec![0; SALT_BYTES + 32];
        stored[..SALT_BYTES].copy_from_slice(&salt);
        let hashed = Argon2::default().hash_password_into(password.as_bytes(), &salt, &mut stored[SALT_BYTES..]);
        hashed.map(|()| stored).map_err(|error| anyhow::anyhow!("cannot hash: {error}"))
    })
    .await?
}

async fn register(chat: &Chat, request: Request<Incoming>) -> anyhow::Result<(StatusCode, Value)> {
    let Credentials { username, password } = credentials(request).await?;
    let stored = hash(password, rand::random()).await?;
    let name = username.clone();
    let added = chat.ask(move |connection| {
        let add = "INSERT OR IGNORE INTO users (name, password_hash, created_at) VALUES (?1, ?2, ?3)";
        connection.execute(add, params![name, stored, now()])
    });
    let status = if added.await? == 1 { StatusCode::CREATED } else { StatusCode::CONFLICT };
    Ok((status, json!({"username": username})))
}

async fn log_in(chat: &Chat, request: Request<Incoming>) -> anyhow::Result<(StatusCode, Value)> {
    let Credentials { username, password } = credentials(request).await?;
    let find = "SELECT id, password_hash FROM users WHERE name = ?1";
    let found: Option<(i64, Vec<u8>)> = chat
        .ask(move |connection| connection.query_row(find, [username], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .await?;
    let Some((user, stored)) = found.filter(|(_, stored)| stored.len() > SALT_BYTES) else {
        return Ok((StatusCode::UNAUTHORIZED, json!({})));
    };
    if hash(password, stored[..SALT_BYTES].try_into()?).await? != stored {
        return Ok((StatusCode::UNAUTHORIZED, json!({})));
    }
    let token = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
    let digest = Sha256::digest(&token);
    chat.ask(move |connection| {
        let add = "INSERT INTO sessions (digest, user_id, created_at, last_used_at) VALUES (?1, ?2, ?3, ?3)";
        connection.execute(add, params![digest.as_slice(), user, now()])
    })
    .await?;
    Ok((StatusCode::OK, json!({"token": token})))
}

/// The life of a connection: one task, which waits for its client and for everybody's frames.
async fn talk(chat: &Arc<Chat>, mut socket: WebSocketStream<TokioIo<Upgraded>>) -> anyhow::Result<()> {
    let first = socket.next().await.context("gone before a word")??.into_text()?;
    let auth: Value = serde_json::from_str(&first)?;
    let digest = Sha256::digest(auth["token"].as_str().unwrap_or_default());
    let mut frames = chat.frames.subscribe();
    let (user, last_id) = chat
        .ask(move |connection| {
            let find = "SELECT u.id, u.name FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.digest = ?1";
            let read = |row: &rusqlite::Row<'_>| Ok(User { id: row.get(0)?, name: row.get(1)? });
            let user = connection.prepare_cached(find)?.query_row([digest.as_slice()], read).optional()?;
            let last = "SELECT coalesce(max(id), 0) FROM messages";
            Ok((user, connection.prepare_cached(last)?.query_row([], |row| row.get::<_, i64>(0))?))
        })
        .await?;
    let Some(user) = user.map(Arc::new) else { return Ok(socket.close(None).await?) };
    let welcome = json!({"type": "auth_success", "username": user.name, "last_id": last_id, "epoch": "of one run"});
    socket.send(Message::text(welcome.to_string())).await?;
    let mut sent = auth["last_id"].as_i64().unwrap_or(last_id);
    replay(chat, &mut socket, &mut sent).await?;
    let (answers, mut answered) = mpsc::unbounded_channel();
    loop {
        tokio::select! {
            frame = frames.recv() => match frame {
                Ok((id, frame)) if id > sent => {
                    socket.send(Message::Text(frame)).await?;
                    sent = id;
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => replay(chat, &mut socket, &mut sent).await?,
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            Some(answer) = answered.recv() => socket.send(Message::text(answer)).await?,
            incoming = socket.next() => match incoming.context("gone")?? {
                Message::Text(text) => receive(chat, &user, &answers, &text).await?,
                Message::Close(_) => return Ok(()),
                _ => {}
            },
        }
    }
}

/// What was stored after `sent`: a connection that was behind the ring, or comes back.
async fn replay(chat: &Chat, socket: &mut WebSocketStream<TokioIo<Upgraded>>, sent: &mut i64) -> anyhow::Result<()> {
    loop {
        let after = *sent;
        let missed = chat.ask(move |connection| {
            let find = "SELECT m.id, u.name, m.content, m.created_at FROM messages m JOIN users u ON u.id = m.user_id \
                        WHERE m.id > ?1 ORDER BY m.id LIMIT 1000";
            let read = |row: &rusqlite::Row<'_>| {
                let (id, name, content): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok((id, message(id, &name, &content, row.get(3)?)))
            };
            connection.prepare_cached(find)?.query_map([after], read)?.collect::<rusqlite::Result<Vec<_>>>()
        });
        let missed = missed.await?;
        let Some(last) = missed.last().map(|(id, _)| *id) else { return Ok(()) };
        for (_, frame) in missed {
            socket.feed(Message::Text(frame)).await?;
        }
        socket.flush().await?;
        *sent = last;
    }
}

async fn receive(
    chat: &Arc<Chat>,
    user: &Arc<User>,
    answers: &mpsc::UnboundedSender<String>,
    text: &str,
) -> anyhow::Result<()> {
    let Frame { r#type, content, nonce } = serde_json::from_str(text)?;
    match r#type {
        "message" => {
            let (chat, user, answers) = (Arc::clone(chat), Arc::clone(user), answers.clone());
            let content = content.context("no content")?;
            let storage = chat.storage.clone();
            let work = move |connection: &Connection| write(connection, chat, &user, answers, &content, nonce);
            storage.send(Box::new(work)).await.ok().context("the storage thread has ended")
        }
        "ping" => answers.send(json!({"type": "pong"}).to_string()).context("gone"),
        _ => Ok(()),
    }
}

/// Stores a message; after the commit it is acknowledged and delivered.
fn write(
    connection: &Connection,
    chat: Arc<Chat>,
    user: &User,
    answers: mpsc::UnboundedSender<String>,
    content: &str,
    nonce: Option<String>,
) -> rusqlite::Result<Afterwards> {
    let known: Option<i64> = match &nonce {
        Some(nonce) => {
            let find = "SELECT id FROM nonces WHERE user_id = ?1 AND nonce = ?2";
            connection.prepare_cached(find)?.query_row(params![user.id, nonce], |row| row.get(0)).optional()?
        }
        None => None,
    };
    let (id, frame) = if let Some(id) = known {
        (id, None)
    } else {
        let now = now();
        let add = "INSERT INTO messages (user_id, content, created_at) VALUES (?1, ?2, ?3)";
        let id = connection.prepare_cached(add)?.insert(params![user.id, content, now])?;
        if let Some(nonce) = &nonce {
            let keep = "INSERT INTO nonces VALUES (?1, ?2, ?3)";
            connection.prepare_cached(keep)?.execute(params![user.id, nonce, id])?;
        }
        (id, Some(message(id, &user.name, content, now)))
    };
    Ok(Box::new(move || {
        // Who has gone needs no ack, and there may be nobody to hear.
        if let Some(nonce) = nonce {
            answers.send(json!({"type": "ack", "nonce": nonce, "id": id}).to_string()).ok();
        }
        if let Some(frame) = frame {
            chat.frames.send((id, frame)).ok();
        }
    }))
}

fn message(id: i64, username: &str, content: &str, created_at: i64) -> Utf8Bytes {
    #[derive(serde::Serialize)]
    struct Message<'a> {
        r#type: &'a str,
        id: i64,
        username: &'a str,
        content: &'a str,
        created_at: i64,
    }
    let message = Message { r#type: "message", id, username, content, created_at };
    serde_json::to_string(&message).expect("strings and numbers are JSON").into()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or_default()
}
