//! What an administrator can have done to the data: one enum, carried out by the writer thread like any other command.
//!
//! An order is the same whether it reaches a running server through its control socket or is carried out by a command
//! that has the database to itself. What may take long is cut into steps, each an order of its own that says where the
//! next begins, so that the messages of everybody else never wait for it.

use std::num::NonZeroU32;

use rusqlite::{Connection, ErrorCode};

use super::sql;
use crate::model::{Digest, MessageId, SessionId, UnixMillis, Username};

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
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
    /// Keeps a user out and ends their sessions.
    DisableUser {
        /// Whom.
        username: Username,
    },
    /// Lets a disabled user in again.
    EnableUser {
        /// Whom.
        username: Username,
    },
    /// Takes a user's name, password and sessions away; the messages stay, under a neutral name.
    DeleteUser {
        /// Whom.
        username: Username,
    },
    /// Removes some of a user's messages.
    EraseMessages {
        /// Whose.
        username: Username,
        /// Where the step begins: behind this message.
        after: MessageId,
    },
    /// Ends one session.
    RevokeSession {
        /// Which.
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
        /// How many may register with it.
        uses: NonZeroU32,
        /// When it stops working.
        expires_at: UnixMillis,
    },
    /// Removes some of the messages stored before a moment.
    Prune {
        /// That moment.
        before: UnixMillis,
        /// Where the step begins: behind this message.
        after: MessageId,
    },
}

/// What an order did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Sessions that are over.
    pub ended: Vec<SessionId>,
    /// Messages that are gone.
    pub removed: usize,
    /// Where the next step begins; none when all is done.
    pub next: Option<MessageId>,
}

/// Why an order was not carried out. Nothing was changed, but for what [`Unavailable`](Self::Unavailable) says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody has this name, in whatever case.
    #[error("the username is taken")]
    UsernameTaken,
    /// Nobody has this name.
    #[error("there is no such user")]
    NoSuchUser,
    /// There is no session of this number.
    #[error("there is no such session")]
    NoSuchSession,
    /// The database fails or does not answer in time. An order that waits is still carried out when its turn comes, and
    /// one whose commit failed may be on disk.
    #[error("the database is unavailable; the order may be carried out all the same")]
    Unavailable,
}

/// Does what was ordered, inside the writer's transaction.
pub(super) fn carry_out(
    connection: &Connection,
    order: Order,
    now: UnixMillis,
) -> rusqlite::Result<Result<Outcome, Refusal>> {
    let done = match order {
        Order::AddUser { username, password_hash } => {
            match sql::insert_user(connection, &username, &password_hash, now) {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    return Ok(Err(Refusal::UsernameTaken));
                }
                inserted => inserted?,
            }
            Outcome::default()
        }
        Order::SetPassword { username, password_hash } => {
            let Some(user) = sql::find_user(connection, &username)? else { return Ok(Err(Refusal::NoSuchUser)) };
            sql::set_password(connection, user, &password_hash)?;
            Outcome { ended: sql::delete_sessions_of(connection, user)?, ..Outcome::default() }
        }
        Order::DisableUser { username } => {
            let Some(user) = sql::find_user(connection, &username)? else { return Ok(Err(Refusal::NoSuchUser)) };
            sql::disable_user(connection, user, now)?;
            Outcome { ended: sql::delete_sessions_of(connection, user)?, ..Outcome::default() }
        }
        Order::EnableUser { username } => {
            let Some(user) = sql::find_user(connection, &username)? else { return Ok(Err(Refusal::NoSuchUser)) };
            sql::enable_user(connection, user)?;
            Outcome::default()
        }
        Order::DeleteUser { username } => {
            let Some(user) = sql::find_user(connection, &username)? else { return Ok(Err(Refusal::NoSuchUser)) };
            sql::bury_user(connection, user, now)?;
            Outcome { ended: sql::delete_sessions_of(connection, user)?, ..Outcome::default() }
        }
        Order::EraseMessages { username, after } => {
            let Some(user) = sql::find_user(connection, &username)? else { return Ok(Err(Refusal::NoSuchUser)) };
            let (removed, next) = sql::erase_messages(connection, user, after)?;
            Outcome { removed, next, ..Outcome::default() }
        }
        Order::RevokeSession { session } => {
            if !sql::delete_session_by_id(connection, session)? {
                return Ok(Err(Refusal::NoSuchSession));
            }
            Outcome { ended: vec![session], ..Outcome::default() }
        }
        Order::RevokeSessions { username } => {
            let Some(user) = sql::find_user(connection, &username)? else { return Ok(Err(Refusal::NoSuchUser)) };
            Outcome { ended: sql::delete_sessions_of(connection, user)?, ..Outcome::default() }
        }
        Order::CreateInvite { digest, uses, expires_at } => {
            sql::insert_invite(connection, &digest, uses, expires_at)?;
            Outcome::default()
        }
        Order::Prune { before, after } => {
            let (removed, next) = sql::prune_messages(connection, after, MessageId::default(), before)?;
            Outcome { removed, next, ..Outcome::default() }
        }
    };
    Ok(Ok(done))
}
