//! `user` and `session`: who may come in, and who is in.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use chinwag::db::{ArchiveError, Order, StoredUser};
use chinwag::model::{
    MessageId, PASSWORD_MAX_CHARS, PASSWORD_MIN_CHARS, Password, SessionId, USERNAME_MAX_CHARS, Username,
};
use chinwag::password;
use clap::Subcommand;

use super::time::utc;
use super::{Hands, count, look, prompt, say};

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Create a user; the password is asked for, or is the first line of standard input
    Add { name: String },
    /// List all users
    List,
    /// Set a user's password, asked for or from standard input, and end their sessions
    Passwd { name: String },
    /// Keep a user out: no login, and open connections are closed
    Disable { name: String },
    /// Let a disabled user in again
    Enable { name: String },
    /// Delete a user; their messages stay, under a neutral name
    Delete {
        name: String,
        /// Remove their messages too, for good
        #[arg(long)]
        messages: bool,
    },
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
            let username = parse_name(&name)?;
            let password_hash = ask_for_password()?;
            let added = Hands::on_or_new(path)?.carry_out(Order::AddUser { username, password_hash });
            added.with_context(|| format!("cannot add {name}"))?;
            say(&format!("added {name}"))
        }
        UserCommand::List => list_users(path),
        UserCommand::Passwd { name } => {
            let username = parse_name(&name)?;
            // Nobody waits for the database while a person types.
            let password_hash = ask_for_password()?;
            let set = Hands::on(path)?.carry_out(Order::SetPassword { username, password_hash });
            let report = set.with_context(|| format!("cannot set the password of {name}"))?;
            say(&format!("{name} has a new password; {}", sessions_ended(report.ended)))
        }
        UserCommand::Disable { name } => {
            let username = parse_name(&name)?;
            let disabled = Hands::on(path)?.carry_out(Order::DisableUser { username });
            let report = disabled.with_context(|| format!("cannot disable {name}"))?;
            say(&format!("{name} is disabled; {}", sessions_ended(report.ended)))
        }
        UserCommand::Enable { name } => {
            let username = parse_name(&name)?;
            let enabled = Hands::on(path)?.carry_out(Order::EnableUser { username });
            enabled.with_context(|| format!("cannot enable {name}"))?;
            say(&format!("{name} is enabled"))
        }
        UserCommand::Delete { name, messages } => delete(path, &name, messages),
    }
}

/// With the messages, in this order: nothing new comes once the user is disabled, and the name, by which an
/// interrupted removal is taken up again, goes last.
fn delete(path: &Path, name: &str, messages: bool) -> anyhow::Result<()> {
    let username = parse_name(name)?;
    let hands = Hands::on(path)?;
    let order = |order| hands.carry_out(order).with_context(|| format!("cannot delete {name}"));
    if !messages {
        order(Order::DeleteUser { username })?;
        return say(&format!("deleted {name}; the messages stay, under a neutral name"));
    }
    order(Order::DisableUser { username: username.clone() })?;
    let (mut after, mut removed) = (Some(MessageId::default()), 0);
    while let Some(from) = after {
        let report = order(Order::EraseMessages { username: username.clone(), after: from })?;
        removed += report.removed;
        after = report.next;
    }
    order(Order::DeleteUser { username })?;
    say(&format!("deleted {name} and {}", count(removed as u64, "message")))
}

fn list_users(path: &Path) -> anyhow::Result<()> {
    let archive = look(path)?;
    let mut sessions = HashMap::<String, usize>::new();
    archive.sessions(|session| {
        *sessions.entry(session.username.to_string()).or_default() += 1;
        Ok::<_, ArchiveError>(())
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
                (Some(session), _) => Order::RevokeSession { session: SessionId(session) },
                (None, user) => Order::RevokeSessions { username: parse_name(&user.unwrap_or_default())? },
            };
            let report = Hands::on(path)?.carry_out(order).context("cannot end it")?;
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
            "{name:?} is no username: 1 to {USERNAME_MAX_CHARS} of A-Z a-z 0-9 . _ -, starting with a letter or digit"
        )
    })
}

/// The hash of a password that a person types, or a program writes to standard input.
fn ask_for_password() -> anyhow::Result<String> {
    let password = Password::parse(prompt::new_password()?);
    let password =
        password.ok_or_else(|| anyhow!("a password has {PASSWORD_MIN_CHARS} to {PASSWORD_MAX_CHARS} characters"))?;
    Ok(password::hash(&password))
}
