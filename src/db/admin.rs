//! What an administrator can have done to the data, applied by the writer thread like any other change.
//!
//! A command is the same whether it reaches a running server through its control socket or is applied by a process that
//! has the database to itself. What may take long is cut into steps: each is a command of its own that says where it
//! begins, so that other people's messages never wait long for it.

use std::num::NonZeroU32;

use rusqlite::ErrorCode;

use super::apply::Execution;
use super::data::{Prune, Pruned};
use super::sql;
use crate::limits::{ERASE_ROWS, PRUNE_ROWS};
use crate::model::{MessageId, SessionId, UnixMillis, UserId, Username};
use crate::secret::Digest;

/// A command of an administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub enum AdminCommand {
    /// Creates a user.
    AddUser {
        /// The new name.
        username: Username,
        /// The PHC string of the password.
        password_hash: String,
    },
    /// Gives a user another password and ends their sessions.
    SetPassword {
        /// Whose.
        username: Username,
        /// The PHC string of the password.
        password_hash: String,
    },
    /// Prevents a user from logging in and ends their sessions.
    DisableUser {
        /// Whose account.
        username: Username,
    },
    /// Lets a disabled user log in again.
    EnableUser {
        /// Whose account.
        username: Username,
    },
    /// Takes a user's name, password and sessions away; the messages stay, under a neutral name.
    DeleteUser {
        /// Whose account.
        username: Username,
    },
    /// Removes some of a user's messages.
    EraseMessages {
        /// Whose.
        username: Username,
        /// The step begins after this message.
        after: MessageId,
        /// Who has them removed, if it is not the user.
        by: Option<(UserId, Username)>,
    },
    /// Ends one session.
    RevokeSession {
        /// Its number.
        session: SessionId,
    },
    /// Ends all sessions of a user.
    RevokeSessions {
        /// Whose.
        username: Username,
    },
    /// Creates an invitation.
    CreateInvite {
        /// The digest of its code.
        digest: Digest,
        /// How many users may register with it.
        uses: NonZeroU32,
        /// When it stops working.
        expires_at: UnixMillis,
    },
    /// Makes somebody a moderator, or takes that back.
    SetRole {
        /// Whose role.
        username: Username,
        /// Whether they are to look after the server.
        is_moderator: bool,
    },
    /// Creates a bot: a user without a password, with one session that does not expire.
    AddBot {
        /// The new name.
        username: Username,
        /// The digest of its token.
        digest: Digest,
    },
    /// Gives a bot another token; the old one ends.
    RotateBot {
        /// Which.
        username: Username,
        /// The digest of the new token.
        digest: Digest,
    },
    /// Removes some of the messages stored before a moment.
    Prune {
        /// That moment.
        before: UnixMillis,
        /// The step begins after this message.
        after: MessageId,
    },
}

/// What a command did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AdminOutcome {
    /// Sessions that were ended.
    pub ended: Vec<SessionId>,
    /// How many messages were removed.
    pub removed: usize,
    /// Where the next step begins; `None` when all is done.
    pub next: Option<MessageId>,
}

/// Why a command was refused. Nothing was changed, unless it is [`Unavailable`](Self::Unavailable).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// Another user has this name; upper and lower case are the same.
    #[error("the username is taken")]
    UsernameTaken,
    /// No user has this name.
    #[error("there is no such user")]
    NoSuchUser,
    /// There is no session with this number.
    #[error("there is no such session")]
    NoSuchSession,
    /// There is an invitation with this code already.
    #[error("this invitation exists already")]
    InviteExists,
    /// The user is a person.
    #[error("this is a person, not a bot")]
    NotABot,
    /// The user is a program.
    #[error("this is a bot, not a person")]
    IsABot,
    /// The database fails or does not answer in time. A queued command is still carried out later, and one whose commit
    /// failed may be on disk.
    #[error("the database is unavailable; the command may still be carried out")]
    Unavailable,
}

impl AdminCommand {
    /// How many messages a step of it looks at.
    pub(super) fn rows(&self) -> u32 {
        match self {
            Self::EraseMessages { .. } => ERASE_ROWS,
            Self::Prune { .. } => PRUNE_ROWS,
            _ => 0,
        }
    }
}

/// Carries out a command, inside the writer's transaction; one that removes messages looks at so many `rows`.
pub(super) fn apply(
    execution: &mut Execution<'_>,
    command: &AdminCommand,
    rows: u32,
) -> rusqlite::Result<Result<AdminOutcome, AdminError>> {
    let (connection, now) = (execution.connection, execution.moment.now);
    let done = match command {
        AdminCommand::AddUser { username, password_hash } => {
            match sql::insert_user(connection, username, password_hash, now, *execution.last_id) {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    return Ok(Err(AdminError::UsernameTaken));
                }
                inserted => drop(inserted?),
            }
            AdminOutcome::default()
        }
        AdminCommand::SetPassword { username, password_hash } => {
            let Some(user) = sql::find_user(connection, username)? else { return Ok(Err(AdminError::NoSuchUser)) };
            if sql::role(connection, user)?.1 {
                return Ok(Err(AdminError::IsABot));
            }
            sql::set_password(connection, user, password_hash)?;
            AdminOutcome { ended: sql::delete_sessions_of(connection, user)?, ..AdminOutcome::default() }
        }
        AdminCommand::DisableUser { username } => {
            let Some(user) = sql::find_user(connection, username)? else { return Ok(Err(AdminError::NoSuchUser)) };
            sql::disable_user(connection, user, now)?;
            AdminOutcome { ended: sql::delete_sessions_of(connection, user)?, ..AdminOutcome::default() }
        }
        AdminCommand::EnableUser { username } => {
            let Some(user) = sql::find_user(connection, username)? else { return Ok(Err(AdminError::NoSuchUser)) };
            sql::enable_user(connection, user)?;
            AdminOutcome::default()
        }
        AdminCommand::DeleteUser { username } => {
            let Some(user) = sql::find_user(connection, username)? else { return Ok(Err(AdminError::NoSuchUser)) };
            // Its sessions are among the effects already.
            execution.delete_user(user)?;
            AdminOutcome::default()
        }
        AdminCommand::EraseMessages { username, after, by } => {
            let Some(user) = sql::find_user(connection, username)? else { return Ok(Err(AdminError::NoSuchUser)) };
            let by = by.as_ref().map_or((user, username), |(by, name)| (*by, name));
            let erased = execution.erase(user, *after, rows, by)?;
            if erased.next.is_none() {
                sql::end_erasure(connection, user)?;
            }
            erased.into()
        }
        AdminCommand::RevokeSession { session } => {
            if !sql::delete_session_by_id(connection, *session)? {
                return Ok(Err(AdminError::NoSuchSession));
            }
            AdminOutcome { ended: vec![*session], ..AdminOutcome::default() }
        }
        AdminCommand::RevokeSessions { username } => {
            let Some(user) = sql::find_user(connection, username)? else { return Ok(Err(AdminError::NoSuchUser)) };
            AdminOutcome { ended: sql::delete_sessions_of(connection, user)?, ..AdminOutcome::default() }
        }
        AdminCommand::CreateInvite { digest, uses, expires_at } => {
            if sql::insert_invite(connection, digest, *uses, None, now, *expires_at)?.is_none() {
                return Ok(Err(AdminError::InviteExists));
            }
            AdminOutcome::default()
        }
        AdminCommand::SetRole { username, is_moderator } => {
            let Some(user) = sql::find_user(connection, username)? else { return Ok(Err(AdminError::NoSuchUser)) };
            if sql::role(connection, user)?.1 {
                return Ok(Err(AdminError::IsABot));
            }
            sql::set_moderator(connection, user, *is_moderator)?;
            AdminOutcome::default()
        }
        AdminCommand::AddBot { username, digest } => {
            if !sql::insert_bot(connection, username, now, *execution.last_id)? {
                return Ok(Err(AdminError::UsernameTaken));
            }
            sql::insert_bot_session(connection, digest, username, now)?;
            AdminOutcome::default()
        }
        AdminCommand::RotateBot { username, digest } => {
            let Some(user) = sql::find_user(connection, username)? else { return Ok(Err(AdminError::NoSuchUser)) };
            if !sql::role(connection, user)?.1 {
                return Ok(Err(AdminError::NotABot));
            }
            let ended = sql::delete_sessions_of(connection, user)?;
            sql::insert_bot_session(connection, digest, username, now)?;
            AdminOutcome { ended, ..AdminOutcome::default() }
        }
        AdminCommand::Prune { before, after } => {
            let prune = Prune { after: *after, until: MessageId::default(), before: *before, rows };
            sql::prune_messages(connection, prune)?.into()
        }
    };
    Ok(Ok(done))
}

impl From<Pruned> for AdminOutcome {
    fn from(Pruned { removed, next }: Pruned) -> Self {
        Self { removed, next, ..Self::default() }
    }
}
