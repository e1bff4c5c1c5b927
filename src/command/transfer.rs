//! `export` and `import`: the chat as JSON Lines, for other programs, and for another chinwag.
//!
//! A line is an object with a `type`. The first is the header; users and rooms come before messages, which name their
//! author both ways: `user` is the row, for the way back, and `username` is for people. The last line counts what came
//! before, so that an export which was cut short is not taken for a whole one. Neither direction holds more than a line
//! in memory. What belongs to the server and not to the chat is not exported: sessions (a bot gets a new token),
//! invitations, push subscriptions, keys.
//!
//! Format 1 had users and messages, all in one room; both formats are read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use chinwag::db::{
    DeleteRecord, ImageRecord, Import, MemberRecord, MentionRecord, MessageRecord, NotifyRecord, RECORD_MAX_BYTES,
    ReactionRecord, ReadRecord, RoomRecord, TempFile, UserRecord,
};
use serde::{Deserialize, Serialize};

use super::{count, look, note, say};

/// The version of the format.
const FORMAT: u32 = 2;
/// The version before rooms.
const FORMAT_OF_ONE_ROOM: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    Chinwag {
        format: u32,
        /// The largest id ever given to an event.
        last_id: i64,
    },
    User(UserRecord),
    Room(RoomRecord),
    Member(MemberRecord),
    Message(MessageRecord),
    Delete(DeleteRecord),
    Reaction(ReactionRecord),
    Mention(MentionRecord),
    Read(ReadRecord),
    Notify(NotifyRecord),
    Image(ImageRecord),
    End {
        users: u64,
        messages: u64,
        /// All lines between the first and this one; format 1 did not count the others, since there were none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lines: Option<u64>,
    },
}

pub(super) fn export(path: &Path, file: Option<&Path>) -> anyhow::Result<()> {
    let Some(file) = file else { return write_all(path, &mut io::stdout().lock()).map(drop) };
    let cannot_make = || format!("cannot make {}", file.display());
    if file.exists() {
        bail!("{} exists already", file.display());
    }
    // For its owner only: it has everybody's messages, and the hashes of their passwords.
    let partial = TempFile::of(file).with_context(cannot_make)?;
    let (users, messages) = write_all(path, &mut partial.file())?;
    partial.put_new(file).with_context(cannot_make)?;
    say(&format!("exported {} and {} to {}", count(users, "user"), count(messages, "message"), file.display()))
}

/// Writes the whole export. Returns how many users and messages it has.
fn write_all(path: &Path, output: &mut impl Write) -> anyhow::Result<(u64, u64)> {
    let archive = look(path)?;
    let mut output = BufWriter::new(output);
    let mut write = |line: &Line| -> anyhow::Result<()> {
        serde_json::to_writer(&mut output, line).context("cannot write the export")?;
        output.write_all(b"\n").context("cannot write the export")
    };
    write(&Line::Chinwag { format: FORMAT, last_id: archive.contents()?.last_id.get() })?;
    let (mut users, mut messages, mut lines) = (0, 0, 0);
    let mut each = |line: Line| {
        lines += 1;
        match line {
            Line::User(_) => users += 1,
            Line::Message(_) => messages += 1,
            _ => {}
        }
        write(&line)
    };
    archive.records(|user| each(Line::User(user)))?;
    archive.records(|room| each(Line::Room(room)))?;
    archive.records(|member| each(Line::Member(member)))?;
    archive.records(|message| each(Line::Message(message)))?;
    archive.records(|delete| each(Line::Delete(delete)))?;
    archive.records(|reaction| each(Line::Reaction(reaction)))?;
    archive.records(|mention| each(Line::Mention(mention)))?;
    archive.records(|read| each(Line::Read(read)))?;
    archive.records(|notify| each(Line::Notify(notify)))?;
    archive.records(|image| each(Line::Image(image)))?;
    write(&Line::End { users, messages, lines: Some(lines) })?;
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

/// Imports a whole export. Returns how many users and messages it had.
fn read_all(path: &Path, input: &mut impl BufRead) -> anyhow::Result<(u64, u64)> {
    let Some(Line::Chinwag { format, last_id }) = read_line(input).context("line 1")? else {
        bail!("line 1: this is not a chinwag export");
    };
    if ![FORMAT_OF_ONE_ROOM, FORMAT].contains(&format) {
        bail!("this export has format {format}, and this chinwag reads format {FORMAT_OF_ONE_ROOM} and {FORMAT}");
    }
    let mut import = Import::into(path).with_context(|| format!("into {}", path.display()))?;
    let (mut users, mut messages) = (0, 0);
    for number in 2_u64.. {
        let line = read_line(input).with_context(|| format!("line {number}"))?;
        let taken = match line {
            None => bail!("line {number}: the export was cut short"),
            Some(Line::Chinwag { .. }) => bail!("line {number}: a second export begins"),
            Some(Line::User(user)) => {
                users += 1;
                import.add(&user)
            }
            Some(Line::Message(message)) => {
                messages += 1;
                import.message(&message)
            }
            Some(Line::Room(room)) => import.room(&room),
            Some(Line::Member(member)) => import.add(&member),
            Some(Line::Delete(delete)) => import.add(&delete),
            Some(Line::Reaction(reaction)) => import.add(&reaction),
            Some(Line::Mention(mention)) => import.add(&mention),
            Some(Line::Read(read)) => import.add(&read),
            Some(Line::Notify(notify)) => import.add(&notify),
            Some(Line::Image(image)) => import.add(&image),
            Some(Line::End { users: of_users, messages: of_messages, lines }) => {
                if (users, messages) != (of_users, of_messages) {
                    bail!("line {number}: the export had {of_users} users and {of_messages} messages");
                }
                if lines.is_some_and(|lines| lines != number - 2) {
                    bail!("line {number}: some lines of the export are missing");
                }
                if format == FORMAT_OF_ONE_ROOM {
                    import.read_by_all(last_id)?;
                }
                import.finish(last_id)?;
                break;
            }
        };
        taken.with_context(|| format!("line {number}"))?;
    }
    Ok((users, messages))
}

/// The next line; `None` at the end.
fn read_line(input: &mut impl BufRead) -> anyhow::Result<Option<Line>> {
    let mut line = Vec::new();
    input.take(RECORD_MAX_BYTES).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
