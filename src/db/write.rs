//! Applies what people write: messages, edits, deletes, reactions.
//!
//! Permission depends on the room that the message is in, whatever the request says. Refusals come in the contract's
//! order, so that no answer tells a message in a room that one may not read from one that never existed.

use super::apply::Execution;
use super::data::{NewMessage, Pruned, Sender, Write, WriteOutcome, WriteRules};
use super::error::WriteError;
use super::sql::{self, Access, Attached, StoreMessage, Target};
use crate::model::{Content, Message, MessageId, Nonce, UserId, Username};
use crate::room::{
    Audience, Delete, EVERYBODY, Edit, Emoji, Event, Extras, MENTIONS_MAX, React, RoomId, RoomKind, mention_candidates,
};

/// Names that are looked up for one message at most, whether or not they exist.
const MENTION_LOOKUPS_MAX: usize = 4 * MENTIONS_MAX;

/// Whom the events of a room reach.
pub(super) fn audience_of(access: &Access) -> Audience {
    if access.kind == RoomKind::Open { Audience::Everyone } else { Audience::Members(access.room) }
}

/// The lobby as everybody finds it: most messages are for it, and it need not be looked up.
const LOBBY: Access = Access {
    room: RoomId::LOBBY,
    kind: RoomKind::Open,
    is_archived: false,
    since: MessageId::new(0),
    changed: MessageId::new(0),
};

/// The mentions of a text: the names that are stored with it, and the users whose unread mentions it counts among.
#[derive(Default)]
struct Mentions {
    names: Vec<Username>,
    users: Vec<UserId>,
}

/// The user id of everybody in the table of mentions.
const NOBODY: UserId = UserId(0);

impl Execution<'_> {
    /// Applies one of a sender's writes.
    pub(super) fn write(
        &mut self,
        store: &mut StoreMessage<'_>,
        sender: &Sender,
        write: &Write,
        rules: WriteRules,
    ) -> rusqlite::Result<Result<WriteOutcome, WriteError>> {
        // A plain message into the lobby cannot be refused, so its nonce is looked up and claimed in one step.
        if let Write::Message(message) = write
            && message.is_plain()
        {
            return self.store_plain(store, sender, message).map(Ok);
        }
        if let Some(nonce) = write.nonce()
            && let Some(first) = self.find_nonce(store, sender, nonce)?
        {
            return Ok(Ok(WriteOutcome { event: first, is_repeat: true }));
        }
        let written = match write {
            Write::Message(message) => self.store_message(sender, message, rules)?,
            Write::Edit { message, content, .. } => self.edit(sender, *message, content, rules)?,
            Write::Delete { message, .. } => self.delete(sender, *message)?,
            Write::React { message, emoji, on, .. } => self.react(sender, *message, *emoji, *on)?,
        };
        if let (Ok(event), Some(nonce)) = (&written, write.nonce()) {
            self.claim_nonce(store, sender, nonce, *event)?;
        }
        Ok(written.map(|event| WriteOutcome { event, is_repeat: false }))
    }

    fn find_nonce(
        &mut self,
        store: &mut StoreMessage<'_>,
        sender: &Sender,
        nonce: &Nonce,
    ) -> rusqlite::Result<Option<MessageId>> {
        self.nonces.find(&mut store.nonces, (sender.user, nonce), &self.moment.nonce_days)
    }

    /// Keeps the nonce of an event, unless it is remembered already: then its first event is returned.
    fn claim_nonce(
        &mut self,
        store: &mut StoreMessage<'_>,
        sender: &Sender,
        nonce: &Nonce,
        event: MessageId,
    ) -> rusqlite::Result<Option<MessageId>> {
        self.nonces.claim(&mut store.nonces, (sender.user, nonce), event, &self.moment.nonce_days)
    }

    fn store_plain(
        &mut self,
        store: &mut StoreMessage<'_>,
        sender: &Sender,
        message: &NewMessage,
    ) -> rusqlite::Result<WriteOutcome> {
        let id = self.last_id.next();
        if let Some(nonce) = &message.nonce
            && let Some(first) = self.claim_nonce(store, sender, nonce, id)?
        {
            return Ok(WriteOutcome { event: first, is_repeat: true });
        }
        store.insert(id, sender.user, &message.content, self.moment.now)?;
        self.push_message(id, &LOBBY, sender, message.content.clone(), None);
        Ok(WriteOutcome { event: id, is_repeat: false })
    }

    fn store_message(
        &mut self,
        sender: &Sender,
        message: &NewMessage,
        rules: WriteRules,
    ) -> rusqlite::Result<Result<MessageId, WriteError>> {
        let connection = self.connection;
        let Some(access) = sql::access(connection, sender.user, message.room)? else {
            return Ok(Err(WriteError::NotFound));
        };
        if let Some(reply_to) = message.reply_to {
            match self.target(sender.user, reply_to)? {
                Err(error) => return Ok(Err(error)),
                Ok((target, _)) if target.room != message.room => return Ok(Err(WriteError::NotFound)),
                Ok(_) => {}
            }
        }
        if access.is_archived {
            return Ok(Err(WriteError::Archived));
        }
        let (id, now) = (self.last_id.next(), self.moment.now);
        if let Some((image, alt)) = &message.image {
            let sent_after = self.moment.expiry.plus(-rules.image_wait_ms);
            if !sql::claim_image(connection, *image, sender.user, id, alt.as_str(), sent_after)? {
                return Ok(Err(WriteError::NotFound));
            }
        }
        let mentions = self.mentions(sender, &access, message.content.as_str())?;
        let names = (!mentions.names.is_empty())
            .then(|| mentions.names.iter().map(Username::as_str).collect::<Vec<_>>().join(" "));
        let image = message.image.as_ref().map(|(image, _)| *image);
        let attached = Attached { reply_to: message.reply_to, mentions: names.as_deref(), image };
        sql::insert_attached(connection, id, (access.room, sender.user), &message.content, &attached, now)?;
        for user in mentions.users {
            sql::insert_mention(connection, access.room, user, id)?;
        }
        let extras = Extras {
            reply_to: message.reply_to.map(|id| sql::quote(connection, access.room, id)).transpose()?,
            mentions: mentions.names,
            image: image.map(|image| sql::image_of(connection, image)).transpose()?.flatten(),
            ..Extras::default()
        };
        let extras = (extras != Extras::default()).then(|| Box::new(extras));
        self.push_message(id, &access, sender, message.content.clone(), extras);
        Ok(Ok(id))
    }

    fn push_message(
        &mut self,
        id: MessageId,
        access: &Access,
        sender: &Sender,
        content: Content,
        extras: Option<Box<Extras>>,
    ) {
        *self.last_id = id;
        let Sender { username, is_bot, .. } = sender.clone();
        let message = Message { id, room: access.room, username, is_bot, content, created_at: self.moment.now, extras };
        self.effects.events.push(Event::Message(message, audience_of(access)));
    }

    /// The message that a write is about, and its room as the user finds it; or why they cannot reach it.
    fn target(&self, user: UserId, message: MessageId) -> rusqlite::Result<Result<(Target, Access), WriteError>> {
        let Some(target) = sql::target(self.connection, message)? else {
            let was_readable = match sql::deleted_from(self.connection, message)? {
                Some(room) => sql::access(self.connection, user, room)?.is_some(),
                None => false,
            };
            return Ok(Err(if was_readable { WriteError::Gone } else { WriteError::NotFound }));
        };
        let access = sql::access(self.connection, user, target.room)?;
        Ok(access.map(|access| (target, access)).ok_or(WriteError::NotFound))
    }

    fn edit(
        &mut self,
        sender: &Sender,
        message: MessageId,
        content: &Content,
        rules: WriteRules,
    ) -> rusqlite::Result<Result<MessageId, WriteError>> {
        let (target, access) = match self.target(sender.user, message)? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let now = self.moment.now;
        if target.author != sender.user {
            return Ok(Err(WriteError::Forbidden));
        }
        if access.is_archived {
            return Ok(Err(WriteError::Archived));
        }
        if target.created_at.plus(rules.edit_within_ms) < self.moment.expiry {
            return Ok(Err(WriteError::TooOld));
        }
        let id = self.next_event();
        sql::edit_message(self.connection, message, content, id, now)?;
        let mentions = sql::read_names(target.mentions.as_deref());
        let edit = Edit { id, room: target.room, message, content: content.clone(), edited_at: now, mentions };
        self.effects.events.push(Event::Edit(edit, audience_of(&access)));
        Ok(Ok(id))
    }

    fn delete(&mut self, sender: &Sender, message: MessageId) -> rusqlite::Result<Result<MessageId, WriteError>> {
        let (target, access) = match self.target(sender.user, message)? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let moderates = access.kind == RoomKind::Open && sql::role(self.connection, sender.user)?.0;
        if target.author != sender.user && !moderates {
            return Ok(Err(WriteError::Forbidden));
        }
        let by = (sender.user, &sender.username);
        self.take_away(message, target.room, audience_of(&access), by).map(Ok)
    }

    /// Deletes a message, and notes the event. The caller checks permission.
    pub(super) fn take_away(
        &mut self,
        message: MessageId,
        room: RoomId,
        audience: Audience,
        (user, username): (UserId, &Username),
    ) -> rusqlite::Result<MessageId> {
        let id = self.next_event();
        sql::delete_message(self.connection, message, room, id, user)?;
        self.effects.events.push(Event::Delete(Delete { id, room, message, by: username.clone() }, audience));
        Ok(id)
    }

    /// Deletes a user's messages among the next `rows` messages after `after`, with an event for each.
    pub(super) fn erase(
        &mut self,
        user: UserId,
        after: MessageId,
        rows: u32,
        by: (UserId, &Username),
    ) -> rusqlite::Result<Pruned> {
        let Some(last) = sql::step(self.connection, after, rows)? else { return Ok(Pruned { removed: 0, next: None }) };
        let messages = sql::messages_of(self.connection, user, after, last)?;
        for (message, room, kind) in &messages {
            let audience = if *kind == RoomKind::Open { Audience::Everyone } else { Audience::Members(*room) };
            self.take_away(*message, *room, audience, by)?;
        }
        Ok(Pruned { removed: messages.len(), next: Some(last) })
    }

    fn react(
        &mut self,
        sender: &Sender,
        message: MessageId,
        emoji: Emoji,
        on: bool,
    ) -> rusqlite::Result<Result<MessageId, WriteError>> {
        let (target, access) = match self.target(sender.user, message)? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        if access.is_archived {
            return Ok(Err(WriteError::Archived));
        }
        // No change: answer with the event that made it so, or with the message if there never was a reaction.
        match sql::reaction(self.connection, message, sender.user, emoji)? {
            Some((event, is_on)) if is_on == on => return Ok(Ok(event)),
            None if !on => return Ok(Ok(message)),
            _ => {}
        }
        let id = self.next_event();
        sql::set_reaction(self.connection, (message, target.room), sender.user, emoji, id, on)?;
        let react = React { id, room: target.room, message, username: sender.username.clone(), emoji, on };
        self.effects.events.push(Event::React(react, audience_of(&access)));
        Ok(Ok(id))
    }

    /// Gives an id to an event that is not a message. It is in no row of `messages`, so `high_water` is raised to it:
    /// after a restart ids go on above both.
    pub(super) fn next_event(&mut self) -> MessageId {
        *self.last_id = self.last_id.next();
        self.effects.high_water = *self.last_id;
        *self.last_id
    }

    /// Mentioned users who may read the room, without duplicates, up to [`MENTIONS_MAX`].
    fn mentions(&self, sender: &Sender, access: &Access, text: &str) -> rusqlite::Result<Mentions> {
        let mut found = Mentions::default();
        let mut lookups = 0;
        for candidate in mention_candidates(text) {
            let mut name = candidate;
            loop {
                if lookups == MENTION_LOOKUPS_MAX || found.names.len() == MENTIONS_MAX {
                    return Ok(found);
                }
                lookups += 1;
                if let Some((user, username)) = self.named(sender, access, name)? {
                    if !found.users.contains(&user) {
                        found.users.push(user);
                        found.names.push(username);
                    }
                    break;
                }
                match name.strip_suffix(['.', '_', '-']) {
                    Some(shorter) if !shorter.is_empty() => name = shorter,
                    _ => break,
                }
            }
        }
        Ok(found)
    }

    fn named(&self, sender: &Sender, access: &Access, name: &str) -> rusqlite::Result<Option<(UserId, Username)>> {
        if name.eq_ignore_ascii_case(EVERYBODY) {
            let counts = access.kind != RoomKind::Open || sql::role(self.connection, sender.user)?.0;
            return Ok(counts.then(|| (NOBODY, Username::from_database(EVERYBODY))));
        }
        if Username::parse(name).is_none() {
            return Ok(None);
        }
        sql::find_reader(self.connection, name, access.room)
    }
}

impl NewMessage {
    /// Whether it is only a text, in the lobby.
    fn is_plain(&self) -> bool {
        self.room == RoomId::LOBBY
            && self.reply_to.is_none()
            && self.image.is_none()
            && !self.content.as_str().contains('@')
    }
}
