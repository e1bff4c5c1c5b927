//! Fills an empty database from an export, in one transaction: a file that is refused at its last line leaves the
//! database empty. The caller reads the file and knows its format; here each row is checked.

use std::path::Path;

use rusqlite::Connection;

use super::error::{ImportError, OpenError};
use super::files::create_private;
use super::lock::Lock;
use super::open::open_writer;
use super::records::{self, MessageRecord, RECORD_ID_MAX, Record, RoomRecord};
use super::sql;
use crate::config::Durability;
use crate::model::MessageId;
use crate::room::RoomId;

/// A database that is being filled from an export: completely, or not at all.
#[derive(Debug)]
pub struct Import {
    connection: Connection,
    last_message: i64,
    last_event: i64,
    _lock: Lock,
}

/// By rowid.
const IS_EMPTY: &str = "SELECT NOT EXISTS (SELECT 1 FROM users) AND NOT EXISTS (SELECT 1 FROM messages)";

impl Import {
    /// Opens the database at `path`, creating it if it is missing; it must be empty.
    pub fn into(path: &Path) -> Result<Self, ImportError> {
        create_private(path).map_err(OpenError::from)?;
        let lock = Lock::wait(path).map_err(OpenError::from)?;
        let connection = open_writer(path, Durability::Full)?;
        if sql::follows_log(&connection)? {
            return Err(OpenError::Clustered.into());
        }
        connection.execute_batch("BEGIN IMMEDIATE")?;
        if !connection.query_row(IS_EMPTY, [], |row| row.get(0))? {
            return Err(ImportError::NotEmpty);
        }
        Ok(Self { connection, last_message: 0, last_event: 0, _lock: lock })
    }

    /// Adds a row. Rows that it refers to come first where the schema requires it.
    pub fn add<R: Record>(&mut self, record: &R) -> Result<(), ImportError> {
        record.check().map_err(ImportError::Record)?;
        self.last_event = self.last_event.max(record.event());
        Ok(record.insert(&self.connection)?)
    }

    /// Adds a message. Messages come in order.
    pub fn message(&mut self, message: &MessageRecord) -> Result<(), ImportError> {
        if (1..=self.last_message).contains(&message.id) {
            return Err(ImportError::OutOfOrder(message.id));
        }
        self.add(message)?;
        self.last_message = message.id;
        Ok(())
    }

    /// Adds a room, or replaces the lobby, which exists already.
    pub fn room(&mut self, room: &RoomRecord) -> Result<(), ImportError> {
        if room.id == RoomId::LOBBY.0 {
            self.connection.execute("DELETE FROM rooms WHERE id = ?1", [room.id])?;
        }
        self.add(room)
    }

    /// Marks everything as read, for an export by a version that did not note how far people had read.
    pub fn read_by_all(&self, last_id: i64) -> Result<(), ImportError> {
        self.connection.execute("UPDATE users SET read_from = ?1", [last_id])?;
        Ok(())
    }

    /// Commits everything that was added, if it is sound as a whole. Ids up to `last_id` will not be given again.
    pub fn finish(self, last_id: i64) -> Result<(), ImportError> {
        // 0 if there has been no message yet.
        if !(0..=RECORD_ID_MAX).contains(&last_id) {
            return Err(ImportError::Record(format!("invalid id {last_id}: ids are from 1 to {RECORD_ID_MAX}")));
        }
        sql::raise_high_water(&self.connection, MessageId::new(last_id.max(self.last_event)))?;
        records::audit(&self.connection).map_err(|error| ImportError::Record(error.to_string()))?;
        self.connection.execute_batch("COMMIT")?;
        Ok(())
    }
}
