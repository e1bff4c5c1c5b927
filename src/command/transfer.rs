//! `export` and `import`: users and messages as JSON Lines, to be read by other programs, or taken in again.
//!
//! A line is an object with a `type`. The first is the header; users come before messages, which name their author
//! both ways: `user` is the row, for the way back, and `username` is for people. The last line counts what came before,
//! so that an export which was cut short is not taken for a whole one. Neither direction holds more than a line in
//! memory. Sessions and invitations are not exported: they are of the server and not of the chat.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use chinwag::db::{ArchiveError, Import, Partial, StoredMessage, StoredUser};
use chinwag::password;
use serde::{Deserialize, Serialize};

use super::{count, look, note, say};

/// The version of the format.
const FORMAT: u32 = 1;
/// Bytes of a line: a message of the longest text, all of it escaped, and what is around it.
const LINE_MAX_BYTES: u64 = 64 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    Chinwag {
        format: u32,
        /// The largest id ever given to a message.
        last_id: i64,
    },
    User {
        id: i64,
        username: String,
        password_hash: String,
        created_at: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disabled_at: Option<i64>,
    },
    Message {
        id: i64,
        user: i64,
        username: String,
        content: String,
        created_at: i64,
    },
    End {
        users: u64,
        messages: u64,
    },
}

impl From<StoredUser> for Line {
    fn from(user: StoredUser) -> Self {
        Self::User {
            id: user.id.0,
            username: user.username.to_string(),
            password_hash: user.password_hash,
            created_at: user.created_at.0,
            disabled_at: user.disabled_at.map(|at| at.0),
        }
    }
}

impl From<StoredMessage> for Line {
    fn from(StoredMessage { message, user }: StoredMessage) -> Self {
        Self::Message {
            id: message.id.get(),
            user: user.0,
            username: message.username.to_string(),
            content: message.content.as_str().to_owned(),
            created_at: message.created_at.0,
        }
    }
}

pub(super) fn export(path: &Path, file: Option<&Path>) -> anyhow::Result<()> {
    let Some(file) = file else { return write_all(path, &mut io::stdout().lock()).map(drop) };
    let cannot_make = || format!("cannot make {}", file.display());
    if file.exists() {
        return Err(ArchiveError::Exists(file.into())).with_context(cannot_make);
    }
    // For its owner only: it holds what everybody said, and the hashes of their passwords.
    let partial = Partial::of(file).with_context(cannot_make)?;
    let (users, messages) = write_all(path, &mut partial.file())?;
    partial.put_new(file).with_context(cannot_make)?;
    say(&format!("exported {} and {} to {}", count(users, "user"), count(messages, "message"), file.display()))
}

/// Writes the whole export; how many users and messages it has.
fn write_all(path: &Path, output: &mut impl Write) -> anyhow::Result<(u64, u64)> {
    let archive = look(path)?;
    let mut output = BufWriter::new(output);
    let mut write = |line: &Line| -> anyhow::Result<()> {
        serde_json::to_writer(&mut output, line).context("cannot write the export")?;
        output.write_all(b"\n").context("cannot write the export")
    };
    write(&Line::Chinwag { format: FORMAT, last_id: archive.contents()?.last_id.get() })?;
    let (mut users, mut messages) = (0, 0);
    archive.users(|user| {
        users += 1;
        write(&user.into())
    })?;
    archive.messages(|message| {
        messages += 1;
        write(&message.into())
    })?;
    write(&Line::End { users, messages })?;
    output.flush().context("cannot write the export")?;
    Ok((users, messages))
}

pub(super) fn import(path: &Path, file: Option<&Path>) -> anyhow::Result<()> {
    let mut input: Box<dyn BufRead> = match file {
        Some(file) => {
            let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
            Box::new(BufReader::new(opened))
        }
        None => Box::new(io::stdin().lock()),
    };
    let (users, messages) = read_all(path, &mut input).context("nothing was imported")?;
    note("everybody's password is the same as before");
    say(&format!("imported {} and {} into {}", count(users, "user"), count(messages, "message"), path.display()))
}

/// Takes in a whole export; how many users and messages it had.
fn read_all(path: &Path, input: &mut impl BufRead) -> anyhow::Result<(u64, u64)> {
    let Some(Line::Chinwag { format, last_id }) = read_line(input).context("line 1")? else {
        bail!("line 1: this is no export of chinwag");
    };
    if format != FORMAT {
        bail!("this export has format {format}, and this chinwag reads format {FORMAT}");
    }
    let mut import = Import::into(path).with_context(|| format!("into {}", path.display()))?;
    let (mut users, mut messages) = (0, 0);
    for number in 2_u64.. {
        let taken = match read_line(input).with_context(|| format!("line {number}"))? {
            None => bail!("line {number}: the export was cut short"),
            Some(Line::Chinwag { .. }) => bail!("line {number}: a second export begins"),
            Some(Line::User { id, username, password_hash, created_at, disabled_at }) => {
                users += 1;
                if password::is_excessive(&password_hash) {
                    bail!("line {number}: the password of {username} would take more to verify than a server gives");
                }
                import.user(id, &username, &password_hash, created_at, disabled_at)
            }
            Some(Line::Message { id, user, content, created_at, .. }) => {
                messages += 1;
                import.message(id, user, &content, created_at)
            }
            Some(Line::End { users: of_users, messages: of_messages }) => {
                if (users, messages) != (of_users, of_messages) {
                    bail!("line {number}: the export had {of_users} users and {of_messages} messages");
                }
                import.finish(last_id)?;
                break;
            }
        };
        taken.with_context(|| format!("line {number}"))?;
    }
    Ok((users, messages))
}

/// The next line; none at the end.
fn read_line(input: &mut impl BufRead) -> anyhow::Result<Option<Line>> {
    let mut line = Vec::new();
    input.take(LINE_MAX_BYTES).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
