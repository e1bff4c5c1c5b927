//! What an administrator can do to the data, applied by the writer thread like any other change.
//!
//! A command is the same whether it reaches a running server through its control socket or is applied by a process that
//! has the database to itself. Long work is cut into steps, each a command of its own that says where it begins, so
//! that people's messages never wait long for it.

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
    /// Changes a user's password and ends their sessions.
    SetPassword {
        /// The user.
        username: Username,
        /// The PHC string of the password.
        password_hash: String,
    },
    /// Prevents a user from logging in and ends their sessions.
    DisableUser {
        /// The user.
        username: Username,
    },
    /// Lets a disabled user log in again.
    EnableUser {
        /// The user.
        username: Username,
    },
    /// Deletes a user's name, password and sessions; the messages stay, under a neutral name.
    DeleteUser {
        /// The user.
        username: Username,
    },
    /// Removes some of a user's messages.
    EraseMessages {
        /// The user.
        username: Username,
        /// The step begins after this message.
        after: MessageId,
        /// The moderator who removes them, if it is not the user.
        by: Option<(UserId, Username)>,
    },
    /// Ends one session.
    RevokeSession {
        /// Its number.
        session: SessionId,
    },
    /// Ends all sessions of a user.
    RevokeSessions {
        /// The user.
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
        /// The user.
        username: Username,
        /// Whether they become one.
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
        /// The bot.
        username: Username,
        /// The digest of the new token.
        digest: Digest,
    },
    /// Removes some of the messages stored before a moment.
    Prune {
        /// The moment.
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
    /// Where the next step begins; `None` when the work is done.
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

type Judged = rusqlite::Result<Result<AdminOutcome, AdminError>>;

/// The user of this name, disabled or not.
macro_rules! find_user {
    ($self:ident, $username:expr) => {
        match sql::find_user($self.connection, $username)? {
            Some(user) => user,
            None => return Ok(Err(AdminError::NoSuchUser)),
        }
    };
}

impl Execution<'_> {
    /// Applies a command. One that removes messages looks at so many `rows`.
    pub(super) fn administer(&mut self, command: &AdminCommand, rows: u32) -> Judged {
        let (connection, now) = (self.connection, self.moment.now);
        Ok(Ok(match command {
            AdminCommand::AddUser { username, password_hash } => return self.add_user(username, password_hash),
            AdminCommand::SetPassword { username, password_hash } => return self.set_password(username, password_hash),
            AdminCommand::DisableUser { username } => {
                let user = find_user!(self, username);
                sql::disable_user(connection, user, now)?;
                sql::delete_sessions_of(connection, user)?.into()
            }
            AdminCommand::EnableUser { username } => {
                sql::enable_user(connection, find_user!(self, username))?;
                AdminOutcome::default()
            }
            AdminCommand::DeleteUser { username } => {
                let user = find_user!(self, username);
                // Its sessions are among the effects already.
                self.delete_user(user)?;
                AdminOutcome::default()
            }
            AdminCommand::EraseMessages { username, after, by } => {
                let user = find_user!(self, username);
                let by = by.as_ref().map_or((user, username), |(by, name)| (*by, name));
                let erased = self.erase(user, *after, rows, by)?;
                if erased.next.is_none() {
                    sql::end_erasure(connection, user)?;
                }
                erased.into()
            }
            AdminCommand::RevokeSession { session } => {
                if !sql::delete_session_by_id(connection, *session)? {
                    return Ok(Err(AdminError::NoSuchSession));
                }
                vec![*session].into()
            }
            AdminCommand::RevokeSessions { username } => {
                sql::delete_sessions_of(connection, find_user!(self, username))?.into()
            }
            AdminCommand::CreateInvite { digest, uses, expires_at } => {
                if sql::insert_invite(connection, digest, *uses, None, now, *expires_at)?.is_none() {
                    return Ok(Err(AdminError::InviteExists));
                }
                AdminOutcome::default()
            }
            AdminCommand::SetRole { username, is_moderator } => return self.set_role(username, *is_moderator),
            AdminCommand::AddBot { username, digest } => {
                if !sql::insert_bot(connection, username, now, *self.last_id)? {
                    return Ok(Err(AdminError::UsernameTaken));
                }
                sql::insert_bot_session(connection, digest, username, now)?;
                AdminOutcome::default()
            }
            AdminCommand::RotateBot { username, digest } => return self.rotate_bot(username, digest),
            AdminCommand::Prune { before, after } => {
                let prune = Prune { after: *after, until: MessageId::default(), before: *before, rows };
                sql::prune_messages(connection, prune)?.into()
            }
        }))
    }

    fn add_user(&self, username: &Username, password_hash: &str) -> Judged {
        match sql::insert_user(self.connection, username, password_hash, self.moment.now, *self.last_id) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                Ok(Err(AdminError::UsernameTaken))
            }
            inserted => inserted.map(|_| Ok(AdminOutcome::default())),
        }
    }

    fn set_password(&self, username: &Username, password_hash: &str) -> Judged {
        let user = find_user!(self, username);
        if sql::role(self.connection, user)?.1 {
            return Ok(Err(AdminError::IsABot));
        }
        sql::set_password(self.connection, user, password_hash)?;
        Ok(Ok(sql::delete_sessions_of(self.connection, user)?.into()))
    }

    fn set_role(&self, username: &Username, is_moderator: bool) -> Judged {
        let user = find_user!(self, username);
        if sql::role(self.connection, user)?.1 {
            return Ok(Err(AdminError::IsABot));
        }
        sql::set_moderator(self.connection, user, is_moderator)?;
        Ok(Ok(AdminOutcome::default()))
    }

    fn rotate_bot(&self, username: &Username, digest: &Digest) -> Judged {
        let user = find_user!(self, username);
        if !sql::role(self.connection, user)?.1 {
            return Ok(Err(AdminError::NotABot));
        }
        let ended = sql::delete_sessions_of(self.connection, user)?;
        sql::insert_bot_session(self.connection, digest, username, self.moment.now)?;
        Ok(Ok(ended.into()))
    }
}

impl From<Vec<SessionId>> for AdminOutcome {
    fn from(ended: Vec<SessionId>) -> Self {
        Self { ended, ..Self::default() }
    }
}

impl From<Pruned> for AdminOutcome {
    fn from(Pruned { removed, next }: Pruned) -> Self {
        Self { removed, next, ..Self::default() }
    }
}
