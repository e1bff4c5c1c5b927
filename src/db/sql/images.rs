//! The queries about pictures: the writer stores and removes them, the reader sends them in pieces to those who may
//! read their message.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::db::data::{ImageInfo, NewImage};
use crate::limits::CLEAN_IMAGE_BYTES;
use crate::model::{UnixMillis, UserId};
use crate::room::ImageId;

const INSERT_IMAGE: &str = "INSERT INTO images (user_id, subtype, width, height, created_at, bytes) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING id";

/// By `images_unnamed`.
const COUNT_UNNAMED: &str = "SELECT count(*) FROM images WHERE message_id IS NULL AND user_id = ?1";

/// Stores a picture that is in no message yet; `None` if its owner has `at_most` of those.
pub(in crate::db) fn insert_image(
    connection: &Connection,
    owner: UserId,
    image: &NewImage,
    at_most: u32,
    now: UnixMillis,
) -> rusqlite::Result<Option<ImageId>> {
    let unnamed: u32 = connection.prepare_cached(COUNT_UNNAMED)?.query_row([owner.0], |row| row.get(0))?;
    if unnamed >= at_most {
        return Ok(None);
    }
    let values = params![owner.0, image.subtype, image.width, image.height, now.0, &image.bytes[..]];
    let id = connection.prepare_cached(INSERT_IMAGE)?.query_row(values, |row| row.get(0))?;
    Ok(Some(ImageId(id)))
}

/// By rowid, and the keys of `readable` for the room of its message. A picture without a message is its owner's.
const READABLE_IMAGE: &str = "SELECT i.subtype, length(i.bytes) FROM images i LEFT JOIN messages m ON m.id = i.message_id \
     WHERE i.id = ?1 AND (CASE WHEN i.message_id IS NULL THEN i.user_id = ?2 \
     ELSE EXISTS (SELECT 1 FROM readable a WHERE a.user_id = ?2 AND a.room_id = m.room_id) END)";

/// A picture that this user may see, without its bytes.
pub(in crate::db) fn readable_image(
    connection: &Connection,
    reader: UserId,
    image: ImageId,
) -> rusqlite::Result<Option<ImageInfo>> {
    let read = |row: &Row<'_>| Ok(ImageInfo { subtype: row.get(0)?, bytes: row.get(1)? });
    connection.prepare_cached(READABLE_IMAGE)?.query_row(params![image.0, reader.0], read).optional()
}

/// By rowid. SQLite counts from 1.
const PIECE: &str = "SELECT substr(bytes, ?2 + 1, ?3) FROM images WHERE id = ?1";

/// A part of a picture, from byte `from`; `None` if the user may not see it, or no longer.
pub(in crate::db) fn image_piece(
    connection: &Connection,
    reader: UserId,
    image: ImageId,
    from: u32,
    length: u32,
) -> rusqlite::Result<Option<Vec<u8>>> {
    if readable_image(connection, reader, image)?.is_none() {
        return Ok(None);
    }
    connection.prepare_cached(PIECE)?.query_row(params![image.0, from, length], |row| row.get(0)).optional()
}

/// By `images_unnamed`, from its old end. The length does not read the picture.
const UNNAMED_IMAGES: &str = "SELECT id, message_id, length(bytes) FROM images \
     WHERE message_id IS NULL AND created_at <= ?1 ORDER BY created_at, id LIMIT ?2";

/// By `images_by_age`, from its old end.
const OLD_IMAGES: &str = "SELECT id, message_id, length(bytes) FROM images \
     WHERE message_id IS NOT NULL AND created_at <= ?1 ORDER BY created_at, id LIMIT ?2";

/// By rowid.
const FORGET_IMAGE: &str = "UPDATE messages SET image_id = NULL WHERE id = ?1";

/// By rowid.
const DELETE_IMAGE: &str = "DELETE FROM images WHERE id = ?1";

/// Removes some of the pictures that no message named in time, and of those that are not kept any longer, one or a few
/// small ones; how many.
pub(in crate::db) fn delete_images(
    connection: &Connection,
    unnamed_until: UnixMillis,
    kept_from: Option<UnixMillis>,
    at_most: u32,
) -> rusqlite::Result<usize> {
    let (mut deleted, mut bytes) = (0, 0);
    let old = kept_from.map(|kept_from| (OLD_IMAGES, kept_from));
    for (query, until) in [(UNNAMED_IMAGES, unnamed_until)].into_iter().chain(old) {
        let mut found = connection.prepare_cached(query)?;
        let found = found.query_map(params![until.0, at_most], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        for (image, message, length) in found.collect::<rusqlite::Result<Vec<(i64, Option<i64>, u32)>>>()? {
            bytes += length;
            if deleted > 0 && bytes > CLEAN_IMAGE_BYTES {
                return Ok(deleted);
            }
            if let Some(message) = message {
                connection.prepare_cached(FORGET_IMAGE)?.execute([message])?;
            }
            deleted += connection.prepare_cached(DELETE_IMAGE)?.execute([image])?;
        }
    }
    Ok(deleted)
}
