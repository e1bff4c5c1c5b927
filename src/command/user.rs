//! `user`, `bot` and `session`: accounts and logins.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use chinwag::db::{AdminCommand, SnapshotError, StoredUser};
use chinwag::model::{MessageId, SessionId, USERNAME_MAX_CHARS, Username};
use chinwag::password;
use chinwag::secret::{PASSWORD_MAX_CHARS, PASSWORD_MIN_CHARS, Password, Token};
use clap::{Subcommand, ValueEnum};

use super::time::utc;
use super::{Hands, count, look, note, prompt, say};

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Create a user; the password is asked for, or is the first line of standard input
    Add { name: String },
    /// List all users
    List,
    /// Set a user's password, asked for or from standard input, and end their sessions
    Passwd { name: String },
    /// Lock a user out: no login, and open connections are closed
    Disable { name: String },
    /// Let a disabled user in again
    Enable { name: String },
    /// Make a user a moderator, or a member again
    Role {
        name: String,
        #[arg(value_name = "moderator|member", hide_possible_values = true)]
        role: Role,
    },
    /// Delete a user; their messages stay, under a neutral name
    Delete {
        name: String,
        /// Delete their messages too, for good
        #[arg(long)]
        messages: bool,
    },
}

/// What a user may do besides chatting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Looks after open rooms, members and invitations.
    Moderator,
    /// Nothing.
    Member,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BotCommand {
    /// Create a bot and print its token, which is shown only once
    Add { name: String },
    /// Give a bot a new token and print it; the old one stops working
    Rotate { name: String },
}

pub(crate) fn run_bot(command: BotCommand, path: &Path) -> anyhow::Result<()> {
    let token = Token::random();
    let digest = token.digest();
    let (hands, order, name) = match command {
        BotCommand::Add { name } => {
            let username = parse_new_name(&name)?;
            (Hands::on_or_new(path)?, AdminCommand::AddBot { username, digest }, name)
        }
        BotCommand::Rotate { name } => {
            let username = parse_name(&name)?;
            (Hands::on(path)?, AdminCommand::RotateBot { username, digest }, name)
        }
    };
    hands.administer(order).with_context(|| format!("cannot give {name} a token"))?;
    say(token.reveal())?;
    note("this is the token of the bot; it is stored as a digest only, and not shown again");
    Ok(())
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List the sessions
    List {
        /// Of this user only
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// End a session, or all of a user; open connections are closed
    Revoke {
        /// The session's number, as listed
        #[arg(required_unless_present = "user", conflicts_with = "user")]
        session: Option<i64>,
        /// All sessions of this user
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
}

pub(crate) fn run_user(command: UserCommand, path: &Path) -> anyhow::Result<()> {
    match command {
        UserCommand::Add { name } => {
            let username = parse_new_name(&name)?;
            let password_hash = ask_for_password()?;
            let added = Hands::on_or_new(path)?.administer(AdminCommand::AddUser { username, password_hash });
            added.with_context(|| format!("cannot add {name}"))?;
            say(&format!("added {name}"))
        }
        UserCommand::List => list_users(path),
        UserCommand::Passwd { name } => {
            let username = parse_name(&name)?;
            // Before the database is opened, so that nobody waits for it while a person types.
            let password_hash = ask_for_password()?;
            let set = Hands::on(path)?.administer(AdminCommand::SetPassword { username, password_hash });
            let report = set.with_context(|| format!("cannot set the password of {name}"))?;
            say(&format!("{name} has a new password; {}", sessions_ended(report.ended)))
        }
        UserCommand::Disable { name } => {
            let username = parse_name(&name)?;
            let disabled = Hands::on(path)?.administer(AdminCommand::DisableUser { username });
            let report = disabled.with_context(|| format!("cannot disable {name}"))?;
            say(&format!("{name} is disabled; {}", sessions_ended(report.ended)))
        }
        UserCommand::Enable { name } => {
            let username = parse_name(&name)?;
            let enabled = Hands::on(path)?.administer(AdminCommand::EnableUser { username });
            enabled.with_context(|| format!("cannot enable {name}"))?;
            say(&format!("{name} is enabled"))
        }
        UserCommand::Role { name, role } => {
            let (username, is_moderator) = (parse_name(&name)?, role == Role::Moderator);
            let set = Hands::on(path)?.administer(AdminCommand::SetRole { username, is_moderator });
            set.with_context(|| format!("cannot set the role of {name}"))?;
            say(&format!("{name} is a {}", if is_moderator { "moderator" } else { "member" }))
        }
        UserCommand::Delete { name, messages } => delete(path, &name, messages),
    }
}

/// With messages, in this order: a disabled user writes nothing new, and the name goes last, since an interrupted
/// removal is resumed by it.
fn delete(path: &Path, name: &str, messages: bool) -> anyhow::Result<()> {
    let username = parse_name(name)?;
    let hands = Hands::on(path)?;
    let order = |order| hands.administer(order).with_context(|| format!("cannot delete {name}"));
    if !messages {
        order(AdminCommand::DeleteUser { username })?;
        return say(&format!("deleted {name}; the messages stay, under a neutral name"));
    }
    order(AdminCommand::DisableUser { username: username.clone() })?;
    let (mut after, mut removed) = (Some(MessageId::default()), 0);
    while let Some(from) = after {
        let step = std::time::Instant::now();
        let erase = AdminCommand::EraseMessages { username: username.clone(), after: from, by: None };
        let report = hands.step(&erase).with_context(|| format!("cannot remove all that {name} wrote"))?;
        removed += report.removed;
        after = report.next;
        if after.is_some() {
            // If the disk took long, everybody else gets as long.
            std::thread::sleep(step.elapsed());
        }
    }
    order(AdminCommand::DeleteUser { username })?;
    say(&format!("deleted {name} and {}", count(removed as u64, "message")))
}

fn list_users(path: &Path) -> anyhow::Result<()> {
    let archive = look(path)?;
    let mut sessions = HashMap::<String, usize>::new();
    archive.sessions(|session| {
        *sessions.entry(session.username.to_string()).or_default() += 1;
        Ok::<_, SnapshotError>(())
    })?;
    say(&format!("{:<USERNAME_MAX_CHARS$}  {:<8}  {:<16}  SESSIONS", "NAME", "STATE", "SINCE"))?;
    archive.users(|user| {
        let sessions = sessions.get(user.username.as_str()).copied().unwrap_or(0);
        let since = utc(user.created_at);
        say(&format!("{:<USERNAME_MAX_CHARS$}  {:<8}  {since:<16}  {sessions}", user.username.as_str(), state(&user)))
    })
}

fn state(user: &StoredUser) -> &'static str {
    match user.disabled_at {
        None => "active",
        Some(_) if user.username == Username::deleted(user.id) => "deleted",
        Some(_) => "disabled",
    }
}

pub(crate) fn run_session(command: SessionCommand, path: &Path) -> anyhow::Result<()> {
    match command {
        SessionCommand::List { user } => {
            let of = user.as_deref().map(parse_name).transpose()?;
            say(&format!("{:<8}  {:<USERNAME_MAX_CHARS$}  {:<16}  LAST USED", "SESSION", "USER", "SINCE"))?;
            look(path)?.sessions(|session| {
                let name = session.username.as_str();
                if of.as_ref().is_some_and(|of| !of.as_str().eq_ignore_ascii_case(name)) {
                    return Ok(());
                }
                let (since, used) = (utc(session.created_at), utc(session.last_used_at));
                say(&format!("{:<8}  {name:<USERNAME_MAX_CHARS$}  {since:<16}  {used}", session.id.0))
            })
        }
        SessionCommand::Revoke { session, user } => {
            let order = match (session, user) {
                (Some(session), _) => AdminCommand::RevokeSession { session: SessionId(session) },
                (None, user) => AdminCommand::RevokeSessions { username: parse_name(&user.unwrap_or_default())? },
            };
            let report = Hands::on(path)?.administer(order).context("cannot end it")?;
            say(&sessions_ended(report.ended))
        }
    }
}

fn sessions_ended(ended: usize) -> String {
    format!("{} ended", count(ended as u64, "session"))
}

fn parse_name(name: &str) -> anyhow::Result<Username> {
    Username::parse(name).ok_or_else(|| {
        anyhow!(
            "{name:?} is not a username: 1 to {USERNAME_MAX_CHARS} of A-Z a-z 0-9 . _ -, starting with a letter or digit"
        )
    })
}

/// The name of a new user.
fn parse_new_name(name: &str) -> anyhow::Result<Username> {
    let username = parse_name(name)?;
    if username.is_reserved() { Err(anyhow!("{name:?} is reserved for mentioning everybody")) } else { Ok(username) }
}

/// The hash of a password that a person types, or a program writes to standard input.
fn ask_for_password() -> anyhow::Result<String> {
    let password = Password::parse(prompt::new_password()?);
    let password = password
        .ok_or_else(|| anyhow!("a password must have {PASSWORD_MIN_CHARS} to {PASSWORD_MAX_CHARS} characters"))?;
    Ok(password::hash(&password)?)
}
