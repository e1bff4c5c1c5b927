//! Applies what people do to their own accounts, and what moderators do to those of others. Each command comes with a
//! session, which is checked again here: it may have ended while the command was in the queue.

use std::num::NonZeroU32;

use super::apply::Execution;
use super::error::AccountError;
use super::sql;
use crate::model::{SessionId, UnixMillis, UserId, Username};
use crate::secret::Digest;

/// A command about an account. One that requires the password comes with the hash that it was verified against, and
/// does nothing if the user has another hash by now.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "cluster", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub enum AccountCommand {
    /// Changes one's own password, and ends one's other sessions.
    SetPassword {
        /// What the old password was verified against.
        verified: String,
        /// The PHC string of the new one.
        password_hash: String,
    },
    /// Ends a session of one's own.
    EndSession {
        /// Its number.
        ended: SessionId,
    },
    /// Ends all of one's own sessions except this one.
    EndOtherSessions,
    /// Deletes one's own account: name, password and sessions go, rooms are left.
    Delete {
        /// What the password was verified against.
        verified: String,
        /// Whether what was written goes too: that it is still to be erased is noted until it is.
        messages: bool,
    },
    /// Creates an invitation.
    CreateInvite {
        /// The digest of its code.
        digest: Digest,
        /// How many users may register with it.
        uses: NonZeroU32,
        /// When it stops working.
        expires_at: UnixMillis,
        /// How many invitations that still work a user may have made.
        at_most: u32,
        /// Whether only moderators may invite.
        by_moderators: bool,
    },
    /// Takes back one's own invitation; as a moderator, anybody's.
    DeleteInvite {
        /// Its number.
        invite: i64,
    },
    /// Keeps somebody out, and ends their sessions.
    Ban {
        /// The user.
        username: Username,
    },
    /// Lets somebody in again.
    Unban {
        /// The user.
        username: Username,
    },
}

/// What was done to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountOutcome {
    /// It was done, and there is nothing to add.
    Done,
    /// The new invitation.
    Invited(i64),
    /// The user whose account it was.
    User(UserId),
}

type Judged<T> = rusqlite::Result<Result<T, AccountError>>;

impl Execution<'_> {
    /// Applies what `by` does in a session of theirs.
    pub(super) fn change_account(
        &mut self,
        session: SessionId,
        by: UserId,
        command: &AccountCommand,
    ) -> Judged<AccountOutcome> {
        let connection = self.connection;
        if !sql::user_lives(connection, session, by, self.moment.expired_at)? {
            return Ok(Err(AccountError::SessionEnded));
        }
        let (is_moderator, is_bot) = sql::role(connection, by)?;
        if is_bot {
            return Ok(Err(AccountError::Forbidden));
        }
        match command {
            AccountCommand::SetPassword { verified, password_hash } => {
                if !sql::replace_password(connection, by, verified, password_hash)? {
                    return Ok(Err(AccountError::WrongPassword));
                }
                self.effects.ended.extend(sql::delete_other_sessions(connection, by, session)?);
            }
            AccountCommand::EndSession { ended } => {
                if !sql::delete_session_of(connection, by, *ended)? {
                    return Ok(Err(AccountError::NotFound));
                }
                self.effects.ended.push(*ended);
            }
            AccountCommand::EndOtherSessions => {
                self.effects.ended.extend(sql::delete_other_sessions(connection, by, session)?);
            }
            AccountCommand::Delete { verified, messages } => {
                return self.delete_account(by, is_moderator, verified, *messages);
            }
            AccountCommand::CreateInvite { .. } => return self.create_invite(by, is_moderator, command),
            AccountCommand::DeleteInvite { invite } => {
                if !sql::delete_invite(connection, *invite, (!is_moderator).then_some(by))? {
                    return Ok(Err(AccountError::NotFound));
                }
            }
            AccountCommand::Ban { username } => return self.ban(is_moderator, username),
            AccountCommand::Unban { username } => {
                if !is_moderator {
                    return Ok(Err(AccountError::Forbidden));
                }
                let Some(user) = sql::find_user(connection, username)? else {
                    return Ok(Err(AccountError::NotFound));
                };
                sql::enable_user(connection, user)?;
            }
        }
        Ok(Ok(AccountOutcome::Done))
    }

    fn delete_account(
        &mut self,
        user: UserId,
        is_moderator: bool,
        verified: &str,
        messages: bool,
    ) -> Judged<AccountOutcome> {
        if !sql::has_password(self.connection, user, verified)? {
            return Ok(Err(AccountError::WrongPassword));
        }
        if is_moderator && sql::count_moderators(self.connection)? == 1 {
            return Ok(Err(AccountError::Forbidden));
        }
        self.delete_user(user)?;
        if messages {
            sql::note_erasure(self.connection, user)?;
        }
        Ok(Ok(AccountOutcome::User(user)))
    }

    /// Deletes a user's name, password, sessions and memberships; their messages stay, under a neutral name.
    pub(super) fn delete_user(&mut self, user: UserId) -> rusqlite::Result<Vec<SessionId>> {
        self.leave_all_rooms(user)?;
        sql::anonymize_user(self.connection, user, self.moment.now)?;
        let ended = sql::delete_sessions_of(self.connection, user)?;
        self.effects.ended.extend(&ended);
        Ok(ended)
    }

    fn create_invite(&mut self, by: UserId, is_moderator: bool, command: &AccountCommand) -> Judged<AccountOutcome> {
        let AccountCommand::CreateInvite { digest, uses, expires_at, at_most, by_moderators } = command else {
            unreachable!("the caller matched it")
        };
        let now = self.moment.now;
        if *by_moderators && !is_moderator {
            return Ok(Err(AccountError::Forbidden));
        }
        if sql::count_invites_of(self.connection, by, self.moment.expiry)? >= *at_most {
            return Ok(Err(AccountError::TooMany));
        }
        let invite = sql::insert_invite(self.connection, digest, *uses, Some(by), now, *expires_at)?;
        Ok(invite.map(AccountOutcome::Invited).ok_or(AccountError::Unavailable))
    }

    fn ban(&mut self, is_moderator: bool, username: &Username) -> Judged<AccountOutcome> {
        if !is_moderator {
            return Ok(Err(AccountError::Forbidden));
        }
        let Some(user) = sql::find_user(self.connection, username)? else { return Ok(Err(AccountError::NotFound)) };
        if sql::role(self.connection, user)?.0 {
            return Ok(Err(AccountError::Forbidden));
        }
        sql::disable_user(self.connection, user, self.moment.now)?;
        self.effects.ended.extend(sql::delete_sessions_of(self.connection, user)?);
        Ok(Ok(AccountOutcome::User(user)))
    }
}
