//! The control socket: how an administrator's command reaches the server that has the database.
//!
//! There is one writer, so a command asks it; and what is done to a user takes effect on their open sockets at once.
//! The socket is a file beside the database that only its owner can open. An order is one line of words, and so is the
//! answer: no name, number or hash has a space in it. One connection is served after the other, an order each, so
//! that the socket takes no more of the server than one order's worth.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::config::{ACCEPT_BACKOFF, CONTROL_LINE_MAX_BYTES, CONTROL_TIMEOUT};
use crate::db::{Order, Outcome, Refusal, beside};
use crate::handler::App;
use crate::listen::SocketFile;
use crate::model::{Digest, MessageId, SessionId, UnixMillis, Username};

/// What an order did, as far as who ordered it needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Sessions that are over.
    pub ended: usize,
    /// Messages that are gone.
    pub removed: usize,
    /// Where the next step begins; none when all is done.
    pub next: Option<MessageId>,
}

impl From<&Outcome> for Report {
    fn from(outcome: &Outcome) -> Self {
        Self { ended: outcome.ended.len(), removed: outcome.removed, next: outcome.next }
    }
}

/// Has the server of the database at `path` carry out an order. Blocks.
///
/// # Errors
/// If no server answers at its control socket; one that did not in time may carry the order out all the same.
pub fn send(path: &Path, order: &Order) -> io::Result<Result<Report, Refusal>> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket_path(path))?;
    stream.set_read_timeout(Some(CONTROL_TIMEOUT))?;
    stream.set_write_timeout(Some(CONTROL_TIMEOUT))?;
    stream.write_all(encode_order(order).as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(CONTROL_LINE_MAX_BYTES as u64)).read_line(&mut line)?;
    parse_answer(line.trim_end()).ok_or_else(|| io::Error::other("the server did not understand"))
}

/// Whether a server listens at the control socket of the database at `path`. Blocks.
#[must_use]
pub fn is_open(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket_path(path)).is_ok()
}

fn socket_path(path: &Path) -> PathBuf {
    beside(path, ".sock")
}

/// A socket that listens, and its file, which goes with it.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    _file: SocketFile,
}

/// Listens beside the database at `path`, whose lock this process holds. None if that cannot be done, on a file system
/// without sockets or at too long a path: the chat is served all the same.
pub(crate) fn listen(path: &Path) -> Option<Control> {
    let path = socket_path(path);
    match bind(&path) {
        Ok(control) => Some(control),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "no control socket: commands need the server stopped");
            None
        }
    }
}

fn bind(path: &Path) -> io::Result<Control> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let file = SocketFile::of(path)?;
    // Until this is done, `is_trusted` keeps others out.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Control { listener, _file: file })
}

/// Carries out orders, for good.
pub(crate) async fn serve(app: Arc<App>, control: Control) -> Infallible {
    loop {
        match control.listener.accept().await {
            Ok((stream, _)) if is_trusted(&stream) => {
                if !matches!(tokio::time::timeout(CONTROL_TIMEOUT, answer(&app, stream)).await, Ok(Ok(()))) {
                    tracing::warn!("an order on the control socket did not come through");
                }
            }
            Ok(_) => tracing::warn!("another user of this machine tried the control socket"),
            Err(_) => tokio::time::sleep(ACCEPT_BACKOFF).await,
        }
    }
}

/// Whether the peer runs as the user that this server runs as, or as root.
fn is_trusted(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw())
}

/// Reads one order, carries it out, and says what came of it.
async fn answer(app: &App, mut stream: UnixStream) -> io::Result<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < CONTROL_LINE_MAX_BYTES {
        if stream.read_buf(&mut line).await? == 0 {
            // Somebody looked whether a server is here.
            return if line.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
    let order = std::str::from_utf8(&line).ok().and_then(|line| parse_order(line.trim_end()));
    let answer = match order {
        Some(order) => {
            let name = name_of(&order);
            let done = app.db.carry_out(order).await;
            tracing::info!(order = name, done = done.is_ok(), "an administrator's order");
            let report = done.as_ref().map(Report::from).map_err(|refusal| *refusal);
            encode_answer(report)
        }
        None => "what?\n".into(),
    };
    stream.write_all(answer.as_bytes()).await
}

// --- The words -----------------------------------------------------------------------------------------------------

const fn name_of(order: &Order) -> &'static str {
    match order {
        Order::AddUser { .. } => "add-user",
        Order::SetPassword { .. } => "set-password",
        Order::DisableUser { .. } => "disable-user",
        Order::EnableUser { .. } => "enable-user",
        Order::DeleteUser { .. } => "delete-user",
        Order::EraseMessages { .. } => "erase-messages",
        Order::RevokeSession { .. } => "revoke-session",
        Order::RevokeSessions { .. } => "revoke-sessions",
        Order::CreateInvite { .. } => "create-invite",
        Order::Prune { .. } => "prune",
    }
}

fn encode_order(order: &Order) -> String {
    let mut line = name_of(order).to_owned();
    let written = match order {
        Order::AddUser { username, password_hash } | Order::SetPassword { username, password_hash } => {
            write!(line, " {username} {password_hash}")
        }
        Order::DisableUser { username }
        | Order::EnableUser { username }
        | Order::DeleteUser { username }
        | Order::RevokeSessions { username } => write!(line, " {username}"),
        Order::EraseMessages { username, after } => write!(line, " {username} {}", after.get()),
        Order::RevokeSession { session } => write!(line, " {}", session.0),
        Order::CreateInvite { digest, uses, expires_at } => {
            write!(line, " {} {uses} {}", digest.to_hex(), expires_at.0)
        }
        Order::Prune { before, after } => write!(line, " {} {}", before.0, after.get()),
    };
    written.expect("a string takes all");
    line.push('\n');
    line
}

fn parse_order(line: &str) -> Option<Order> {
    let words: Vec<_> = line.split(' ').collect();
    let username = |name| Username::parse(name);
    Some(match words[..] {
        ["add-user", name, hash] => Order::AddUser { username: username(name)?, password_hash: hash.into() },
        ["set-password", name, hash] => Order::SetPassword { username: username(name)?, password_hash: hash.into() },
        ["disable-user", name] => Order::DisableUser { username: username(name)? },
        ["enable-user", name] => Order::EnableUser { username: username(name)? },
        ["delete-user", name] => Order::DeleteUser { username: username(name)? },
        ["erase-messages", name, after] => {
            Order::EraseMessages { username: username(name)?, after: MessageId::new(after.parse().ok()?) }
        }
        ["revoke-session", session] => Order::RevokeSession { session: SessionId(session.parse().ok()?) },
        ["revoke-sessions", name] => Order::RevokeSessions { username: username(name)? },
        ["create-invite", digest, uses, expires_at] => Order::CreateInvite {
            digest: Digest::from_hex(digest)?,
            uses: uses.parse().ok()?,
            expires_at: UnixMillis(expires_at.parse().ok()?),
        },
        ["prune", before, after] => {
            Order::Prune { before: UnixMillis(before.parse().ok()?), after: MessageId::new(after.parse().ok()?) }
        }
        _ => return None,
    })
}

const REFUSALS: [(Refusal, &str); 4] = [
    (Refusal::UsernameTaken, "username-taken"),
    (Refusal::NoSuchUser, "no-such-user"),
    (Refusal::NoSuchSession, "no-such-session"),
    (Refusal::Unavailable, "unavailable"),
];

fn encode_answer(answer: Result<Report, Refusal>) -> String {
    match answer {
        Ok(Report { ended, removed, next: Some(next) }) => format!("more {ended} {removed} {}\n", next.get()),
        Ok(Report { ended, removed, next: None }) => format!("done {ended} {removed}\n"),
        Err(refusal) => {
            let word = REFUSALS.iter().find(|(known, _)| *known == refusal).map_or("unavailable", |(_, word)| word);
            format!("{word}\n")
        }
    }
}

fn parse_answer(line: &str) -> Option<Result<Report, Refusal>> {
    let words: Vec<_> = line.split(' ').collect();
    Some(match words[..] {
        ["more", ended, removed, next] => {
            let next = Some(MessageId::new(next.parse().ok()?));
            Ok(Report { ended: ended.parse().ok()?, removed: removed.parse().ok()?, next })
        }
        ["done", ended, removed] => {
            Ok(Report { ended: ended.parse().ok()?, removed: removed.parse().ok()?, next: None })
        }
        [word] => Err(REFUSALS.iter().find(|(_, known)| *known == word)?.0),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    use crate::model::InviteCode;

    #[test]
    fn every_order_is_understood_as_it_was_meant() {
        let username = Username::parse("ada").unwrap();
        let (name, hash) = (|| username.clone(), || "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA".to_owned());
        let orders = [
            Order::AddUser { username: name(), password_hash: hash() },
            Order::SetPassword { username: name(), password_hash: hash() },
            Order::DisableUser { username: name() },
            Order::EnableUser { username: name() },
            Order::DeleteUser { username: name() },
            Order::EraseMessages { username: name(), after: MessageId::new(7) },
            Order::RevokeSession { session: SessionId(3) },
            Order::RevokeSessions { username: name() },
            Order::CreateInvite {
                digest: InviteCode::random().digest(),
                uses: NonZeroU32::new(5).unwrap(),
                expires_at: UnixMillis(1),
            },
            Order::Prune { before: UnixMillis(99), after: MessageId::new(7) },
        ];
        for order in orders {
            let line = encode_order(&order);
            assert!(line.len() <= CONTROL_LINE_MAX_BYTES && line.ends_with('\n'));
            assert_eq!(parse_order(line.trim_end()), Some(order));
        }
        let no_uses = format!("create-invite {} 0 1", InviteCode::random().digest().to_hex());
        for bad in ["", "prune", "prune x", "prune 1 2 3", "disable-user ../x", "add-user ada", &no_uses, "drop"] {
            assert_eq!(parse_order(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_answer_is_understood_as_it_was_meant() {
        let report = |next| Ok(Report { ended: 1, removed: 2, next });
        let refusals = REFUSALS.map(|(refusal, _)| Err(refusal));
        for answer in [report(None), report(Some(MessageId::new(9)))].into_iter().chain(refusals) {
            assert_eq!(parse_answer(encode_answer(answer).trim_end()), Some(answer));
        }
        assert_eq!(parse_answer("what?"), None);
    }
}
