//! Applies changes, inside the writer's transaction.
//!
//! An error from here fails the whole transaction, so only SQLite's own failures (a full disk, a damaged page) are
//! errors: a change that breaks a rule gets its refusal in [`Done`] and leaves the others alone.

use rusqlite::{Connection, ErrorCode};

use super::change::{Change, Done, Moment, Sweep, Swept, Written};
use super::data::{NewImage, Sender, Write, WriteRules};
use super::error::{Error, ImageError};
use super::nonces::Nonces;
use super::sql::{self, StoreMessage};
use crate::model::{ID_MAX, MessageId, SessionId, UserId, Username};
use crate::room::{Event, ImageId};
use crate::secret::Digest;

/// What a transaction stored and ended, to be published once it is committed.
#[derive(Default)]
pub(super) struct Effects {
    /// In `id` order.
    pub(super) events: Vec<Event>,
    pub(super) ended: Vec<SessionId>,
    /// The last event that is not a message; 0 if there was none.
    pub(super) high_water: MessageId,
    /// Whether stored messages may have changed, or anything that is shown with them.
    pub(super) messages_changed: bool,
    /// Whether something about sessions that have not ended may have changed.
    pub(super) sessions_changed: bool,
}

/// The transaction, and what the writer knows of the database and looks up again if the transaction fails.
pub(super) struct Transaction<'a> {
    pub(super) connection: &'a Connection,
    /// The last id given to an event.
    pub(super) last_id: &'a mut MessageId,
    pub(super) nonces: &'a mut Nonces,
    pub(super) effects: &'a mut Effects,
}

impl Transaction<'_> {
    /// The view of a change that is made at `moment`.
    pub(super) fn at(&mut self, moment: Moment) -> Execution<'_> {
        let Self { connection, last_id, nonces, effects } = self;
        Execution { connection, moment, last_id, nonces, effects }
    }
}

/// A change's view of the transaction.
pub(super) struct Execution<'a> {
    pub(super) connection: &'a Connection,
    pub(super) moment: Moment,
    /// The last id given to an event.
    pub(super) last_id: &'a mut MessageId,
    pub(super) nonces: &'a mut Nonces,
    pub(super) effects: &'a mut Effects,
}

impl Execution<'_> {
    /// Applies one change. If another change of its transaction fails by itself, it is applied once more without that one:
    /// so whatever it does has to be in the transaction or in this view of it, which a failure undoes.
    pub(super) fn run(&mut self, change: &Change) -> rusqlite::Result<Done> {
        let (connection, now) = (self.connection, self.moment.now);
        self.effects.messages_changed |= change.may_change_messages();
        self.effects.sessions_changed |= change.may_change_sessions();
        Ok(match change {
            Change::RegisterUser { username, password_hash, invite } => {
                Done::Registered(self.register_user(username, password_hash, invite.as_ref())?)
            }
            Change::LoginUser { user, password_hash, digest, client, keep } => {
                Done::LoggedIn(self.login_user(*user, password_hash, digest, client, *keep)?)
            }
            Change::TouchSession { session } => {
                sql::touch_session(connection, *session, now)?;
                Done::Applied
            }
            Change::EndSession { digest } => {
                let ended = sql::delete_session(connection, digest, now)?;
                self.effects.ended.extend(ended);
                Done::LoggedOut(ended.is_some())
            }
            Change::Write { sender, writes, rules } => Done::Written(self.write_all(sender, writes, *rules)?),
            Change::Room { session, by, command } => Done::Room(self.change_room(*session, *by, command)?),
            Change::Account { session, by, command } => Done::Account(self.change_account(*session, *by, command)?),
            Change::StoreImage { session, owner, image, at_most } => {
                Done::ImageStored(self.store_image(*session, *owner, image, *at_most)?)
            }
            Change::Administer { command, rows } => {
                let outcome = self.administer(command, *rows)?;
                self.effects.ended.extend(outcome.iter().flat_map(|outcome| &outcome.ended));
                Done::Administered(outcome)
            }
            #[cfg(any(feature = "push", feature = "cluster"))]
            Change::Push(change) => self.push(change)?,
            Change::Sweep(sweep) => Done::Swept(self.sweep(*sweep)?),
            Change::KeepClocks { nonce_day, belief } => {
                sql::keep_clocks(connection, *nonce_day, *belief)?;
                Done::Applied
            }
            Change::Check => Done::Applied,
        })
    }

    /// The use of an invitation is counted in the same transaction: it admits as many users as it says, and a failed
    /// registration does not use it up.
    fn register_user(
        &self,
        username: &Username,
        password_hash: &str,
        invite: Option<&Digest>,
    ) -> rusqlite::Result<Result<(), Error>> {
        let now = self.moment.now;
        let found =
            invite.map(|invite| sql::find_invite(self.connection, invite, self.moment.expiry)).transpose()?.flatten();
        if invite.is_some() && found.is_none() {
            return Ok(Err(Error::InvalidInvite));
        }
        let user = match sql::insert_user(self.connection, username, password_hash, now, *self.last_id) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                return Ok(Err(Error::UsernameTaken));
            }
            inserted => inserted?,
        };
        if let Some(invite) = found {
            sql::use_invite(self.connection, invite, user)?;
        }
        Ok(Ok(()))
    }

    fn login_user(
        &mut self,
        user: UserId,
        password_hash: &str,
        digest: &Digest,
        client: &str,
        keep: u32,
    ) -> rusqlite::Result<Option<SessionId>> {
        let session = sql::insert_session(self.connection, digest, (user, password_hash), client, self.moment.now)?;
        if session.is_some() {
            sql::see_user(self.connection, user, self.moment.now)?;
        }
        self.effects.ended.extend(sql::delete_surplus_sessions(self.connection, user, keep)?);
        Ok(session)
    }

    fn write_all(&mut self, sender: &Sender, writes: &[Write], rules: WriteRules) -> rusqlite::Result<Written> {
        // The session may have been logged out, expired or disabled since: what its sockets still send does not count.
        if !sql::sender_lives(self.connection, sender, self.moment.expired_at)? {
            return Ok(Err(Error::SessionEnded));
        }
        let ids_left = ID_MAX.saturating_sub(self.last_id.get());
        if ids_left < i64::try_from(writes.len()).unwrap_or(i64::MAX) {
            return Ok(Err(Error::Unavailable));
        }
        let mut store = StoreMessage::prepare(self.connection)?;
        let written = writes.iter().map(|write| self.write(&mut store, sender, write, rules));
        written.collect::<rusqlite::Result<_>>().map(Ok)
    }

    fn store_image(
        &self,
        session: SessionId,
        owner: UserId,
        image: &NewImage,
        at_most: u32,
    ) -> rusqlite::Result<Result<ImageId, ImageError>> {
        if !sql::user_lives(self.connection, session, owner, self.moment.expired_at)? {
            return Ok(Err(ImageError::SessionEnded));
        }
        let stored = sql::insert_image(self.connection, owner, image, at_most, self.moment.now)?;
        Ok(stored.ok_or(ImageError::TooMany))
    }

    /// Removes some of what has expired.
    fn sweep(&mut self, sweep: Sweep) -> rusqlite::Result<Swept> {
        let Sweep { rows, emptied_until, unnamed_until, images_until, images, prune } = sweep;
        let (connection, Moment { expiry, expired_at, nonce_days, .. }) = (self.connection, self.moment);
        let expired = sql::delete_expired(connection, expired_at, rows)?;
        let nonces = self.nonces.sweep(connection, &nonce_days, rows)?;
        sql::delete_expired_invites(connection, expiry)?;
        let pruned = prune.map(|prune| sql::prune_messages(connection, prune)).transpose()?;
        let more_rooms = sql::remove_emptied(connection, emptied_until, rows)?;
        let images = sql::delete_images(connection, unnamed_until, images_until, images)?;
        let more_expired = more_rooms || images > 0 || expired.len() == rows as usize || nonces == rows as usize;
        self.effects.ended.extend(expired);
        Ok(Swept { more_expired, oldest_use: sql::oldest_use(connection)?, pruned })
    }
}
