//! The control socket: how an administrator's command reaches the server that owns the database.
//!
//! Only the server may write to its database, so a command asks it; that way a change of a user also takes effect on
//! their open sockets at once. The socket is a file beside the database that only its owner can open. A command is one
//! line of words, and so is the answer: no name, number or hash contains a space. Connections are served one after the
//! other, with one command each, so that the socket occupies the server with at most one command.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::app::App;
use crate::db::{AdminCommand, AdminError, AdminOutcome, sibling};
use crate::limits::{ACCEPT_BACKOFF, CONTROL_LINE_MAX_BYTES, CONTROL_TIMEOUT};
use crate::model::{MessageId, SessionId, UnixMillis, Username};
use crate::net::{SocketFile, remove_stale};
use crate::secret::Digest;

/// What a command did, as far as its caller needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Sessions that have ended.
    pub ended: usize,
    /// Messages that were removed.
    pub removed: usize,
    /// Where the next step begins; `None` when the work is done.
    pub next: Option<MessageId>,
}

impl From<&AdminOutcome> for Report {
    fn from(outcome: &AdminOutcome) -> Self {
        Self { ended: outcome.ended.len(), removed: outcome.removed, next: outcome.next }
    }
}

/// Makes the server of the database at `path` run a command. Blocks.
///
/// # Errors
/// If no server answers at its control socket; one that did not answer in time may run the command nevertheless.
pub fn send(path: &Path, command: &AdminCommand) -> io::Result<Result<Report, AdminError>> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket_path(path))?;
    stream.set_read_timeout(Some(CONTROL_TIMEOUT))?;
    stream.set_write_timeout(Some(CONTROL_TIMEOUT))?;
    stream.write_all(encode_command(command).as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(CONTROL_LINE_MAX_BYTES as u64)).read_line(&mut line)?;
    parse_answer(line.trim_end()).ok_or_else(|| io::Error::other("the server did not understand the command"))
}

/// Whether a server listens at the control socket of the database at `path`. Blocks.
#[must_use]
pub fn is_open(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket_path(path)).is_ok()
}

fn socket_path(path: &Path) -> PathBuf {
    sibling(path, ".sock")
}

/// A listening socket, and its file, which is removed with it.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    _file: SocketFile,
}

/// Listens beside the database at `path`, whose lock this process holds. `None` if that is impossible, on a file system
/// without sockets or at too long a path: the chat is served nevertheless.
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
    remove_stale(path)?;
    let listener = UnixListener::bind(path)?;
    // Until this is done, `is_trusted` keeps others out.
    let file = SocketFile::of(path, 0o600)?;
    Ok(Control { listener, _file: file })
}

/// Runs commands, forever.
pub(crate) async fn serve(app: Arc<App>, control: Control) -> Infallible {
    loop {
        match control.listener.accept().await {
            Ok((stream, _)) if is_trusted(&stream) => {
                if !matches!(tokio::time::timeout(CONTROL_TIMEOUT, answer(&app, stream)).await, Ok(Ok(()))) {
                    tracing::warn!("admin command failed or timed out");
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

/// Reads one command, runs it, and writes the result.
async fn answer(app: &App, mut stream: UnixStream) -> io::Result<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < CONTROL_LINE_MAX_BYTES {
        if stream.read_buf(&mut line).await? == 0 {
            // Somebody checked whether a server is here.
            return if line.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
    let command = std::str::from_utf8(&line).ok().and_then(|line| parse_command(line.trim_end()));
    let answer = match command {
        Some(command) => {
            let name = name_of(&command);
            let done = app.db.administer(command).await;
            tracing::info!(command = name, done = done.is_ok(), "admin command");
            let report = done.as_ref().map(Report::from).map_err(|refusal| *refusal);
            encode_answer(report)
        }
        None => "unknown command\n".into(),
    };
    stream.write_all(answer.as_bytes()).await
}

// --- The words -----------------------------------------------------------------------------------------------------

const fn name_of(command: &AdminCommand) -> &'static str {
    match command {
        AdminCommand::AddUser { .. } => "add-user",
        AdminCommand::SetPassword { .. } => "set-password",
        AdminCommand::DisableUser { .. } => "disable-user",
        AdminCommand::EnableUser { .. } => "enable-user",
        AdminCommand::DeleteUser { .. } => "delete-user",
        AdminCommand::EraseMessages { .. } => "erase-messages",
        AdminCommand::RevokeSession { .. } => "revoke-session",
        AdminCommand::RevokeSessions { .. } => "revoke-sessions",
        AdminCommand::CreateInvite { .. } => "create-invite",
        AdminCommand::Prune { .. } => "prune",
        AdminCommand::SetRole { .. } => "set-role",
        AdminCommand::AddBot { .. } => "add-bot",
        AdminCommand::RotateBot { .. } => "rotate-bot",
    }
}

fn encode_command(command: &AdminCommand) -> String {
    let mut line = name_of(command).to_owned();
    let written = match command {
        AdminCommand::AddUser { username, password_hash } | AdminCommand::SetPassword { username, password_hash } => {
            write!(line, " {username} {password_hash}")
        }
        AdminCommand::DisableUser { username }
        | AdminCommand::EnableUser { username }
        | AdminCommand::DeleteUser { username }
        | AdminCommand::RevokeSessions { username } => write!(line, " {username}"),
        AdminCommand::EraseMessages { username, after, by: _ } => write!(line, " {username} {}", after.get()),
        AdminCommand::RevokeSession { session } => write!(line, " {}", session.0),
        AdminCommand::CreateInvite { digest, uses, expires_at } => {
            write!(line, " {} {uses} {}", digest.to_hex(), expires_at.0)
        }
        AdminCommand::Prune { before, after } => write!(line, " {} {}", before.0, after.get()),
        AdminCommand::SetRole { username, is_moderator } => {
            write!(line, " {username} {}", if *is_moderator { "moderator" } else { "member" })
        }
        AdminCommand::AddBot { username, digest } | AdminCommand::RotateBot { username, digest } => {
            write!(line, " {username} {}", digest.to_hex())
        }
    };
    written.expect("writing to a string cannot fail");
    line.push('\n');
    line
}

fn parse_command(line: &str) -> Option<AdminCommand> {
    let words: Vec<_> = line.split(' ').collect();
    let username = |name| Username::parse(name);
    Some(match words[..] {
        ["add-user", name, hash] => AdminCommand::AddUser { username: username(name)?, password_hash: hash.into() },
        ["set-password", name, hash] => {
            AdminCommand::SetPassword { username: username(name)?, password_hash: hash.into() }
        }
        ["disable-user", name] => AdminCommand::DisableUser { username: username(name)? },
        ["enable-user", name] => AdminCommand::EnableUser { username: username(name)? },
        ["delete-user", name] => AdminCommand::DeleteUser { username: username(name)? },
        ["erase-messages", name, after] => {
            let after = MessageId::new(after.parse().ok()?);
            AdminCommand::EraseMessages { username: username(name)?, after, by: None }
        }
        ["revoke-session", session] => AdminCommand::RevokeSession { session: SessionId(session.parse().ok()?) },
        ["revoke-sessions", name] => AdminCommand::RevokeSessions { username: username(name)? },
        ["create-invite", digest, uses, expires_at] => AdminCommand::CreateInvite {
            digest: Digest::from_hex(digest)?,
            uses: uses.parse().ok()?,
            expires_at: UnixMillis(expires_at.parse().ok()?),
        },
        ["prune", before, after] => {
            AdminCommand::Prune { before: UnixMillis(before.parse().ok()?), after: MessageId::new(after.parse().ok()?) }
        }
        ["set-role", name, role @ ("moderator" | "member")] => {
            AdminCommand::SetRole { username: username(name)?, is_moderator: role == "moderator" }
        }
        ["add-bot", name, digest] => {
            AdminCommand::AddBot { username: username(name)?, digest: Digest::from_hex(digest)? }
        }
        ["rotate-bot", name, digest] => {
            AdminCommand::RotateBot { username: username(name)?, digest: Digest::from_hex(digest)? }
        }
        _ => return None,
    })
}

const REFUSALS: [(AdminError, &str); 7] = [
    (AdminError::UsernameTaken, "username-taken"),
    (AdminError::NoSuchUser, "no-such-user"),
    (AdminError::NoSuchSession, "no-such-session"),
    (AdminError::InviteExists, "invite-exists"),
    (AdminError::NotABot, "not-a-bot"),
    (AdminError::IsABot, "is-a-bot"),
    (AdminError::Unavailable, "unavailable"),
];

fn encode_answer(answer: Result<Report, AdminError>) -> String {
    match answer {
        Ok(Report { ended, removed, next: Some(next) }) => format!("more {ended} {removed} {}\n", next.get()),
        Ok(Report { ended, removed, next: None }) => format!("done {ended} {removed}\n"),
        Err(refusal) => {
            let word = REFUSALS.iter().find(|(known, _)| *known == refusal).map_or("unavailable", |(_, word)| word);
            format!("{word}\n")
        }
    }
}

fn parse_answer(line: &str) -> Option<Result<Report, AdminError>> {
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

    use crate::secret::InviteCode;

    #[test]
    fn every_command_is_parsed_as_it_was_encoded() {
        let username = Username::parse("ada").unwrap();
        let (name, hash) = (|| username.clone(), || "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA".to_owned());
        let commands = [
            AdminCommand::AddUser { username: name(), password_hash: hash() },
            AdminCommand::SetPassword { username: name(), password_hash: hash() },
            AdminCommand::DisableUser { username: name() },
            AdminCommand::EnableUser { username: name() },
            AdminCommand::DeleteUser { username: name() },
            AdminCommand::EraseMessages { username: name(), after: MessageId::new(7), by: None },
            AdminCommand::SetRole { username: name(), is_moderator: true },
            AdminCommand::SetRole { username: name(), is_moderator: false },
            AdminCommand::AddBot { username: name(), digest: InviteCode::random().digest() },
            AdminCommand::RotateBot { username: name(), digest: InviteCode::random().digest() },
            AdminCommand::RevokeSession { session: SessionId(3) },
            AdminCommand::RevokeSessions { username: name() },
            AdminCommand::CreateInvite {
                digest: InviteCode::random().digest(),
                uses: NonZeroU32::new(5).unwrap(),
                expires_at: UnixMillis(1),
            },
            AdminCommand::Prune { before: UnixMillis(99), after: MessageId::new(7) },
        ];
        for command in commands {
            let line = encode_command(&command);
            assert!(line.len() <= CONTROL_LINE_MAX_BYTES && line.ends_with('\n'));
            assert_eq!(parse_command(line.trim_end()), Some(command));
        }
        let no_uses = format!("create-invite {} 0 1", InviteCode::random().digest().to_hex());
        for bad in ["", "prune", "prune x", "prune 1 2 3", "disable-user ../x", "add-user ada", &no_uses, "drop"] {
            assert_eq!(parse_command(bad), None, "{bad}");
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
