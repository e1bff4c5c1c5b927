//! The bodies of the routes about accounts, sessions and invitations. A password leaves here only as a `Password`,
//! which no log shows.

use serde::{Deserialize, Serialize};

use super::http::to_json;
use crate::db::{InviteRow, LoginRow};
use crate::model::{Message, SessionId, UnixMillis, Username};
use crate::secret::Password;

/// The body of `POST /password`.
#[derive(Deserialize)]
pub(crate) struct PasswordBody {
    password: String,
    new_password: String,
}

impl PasswordBody {
    /// The password that the client claims is theirs, and the new one if its length is acceptable.
    pub(crate) fn passwords(self) -> (Password, Option<Password>) {
        (Password::claimed(self.password), Password::parse(self.new_password))
    }
}

/// The body of `DELETE /account`.
#[derive(Deserialize)]
pub(crate) struct DeleteAccountBody {
    password: String,
    /// Whether the user's messages are deleted, too.
    #[serde(default)]
    pub(crate) messages: bool,
}

impl DeleteAccountBody {
    /// The password as it is claimed to be.
    pub(crate) fn claimed_password(self) -> Password {
        Password::claimed(self.password)
    }
}

/// The body of `POST /invites`.
#[derive(Deserialize)]
pub(crate) struct NewInviteBody {
    pub(crate) uses: Option<u32>,
    /// In milliseconds.
    pub(crate) expires_in: Option<i64>,
}

/// The body of `POST /users/NAME/ban`.
#[derive(Deserialize)]
pub(crate) struct BanBody {
    /// Whether the user's messages are deleted, too.
    #[serde(default)]
    pub(crate) messages: bool,
}

/// The body of `200` to `GET /sessions`.
pub(crate) fn sessions_body(sessions: &[LoginRow], current: SessionId) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        sessions: Vec<Entry<'a>>,
    }
    #[derive(Serialize)]
    struct Entry<'a> {
        id: i64,
        created_at: i64,
        last_used_at: i64,
        current: bool,
        client: &'a str,
    }
    let sessions = sessions
        .iter()
        .map(|row| Entry {
            id: row.id.0,
            created_at: row.created_at.0,
            last_used_at: row.last_used_at.0,
            current: row.id == current,
            client: &row.client,
        })
        .collect();
    to_json(&Body { sessions })
}

/// The body of `201` to `POST /invites`.
pub(crate) fn invited_body(id: i64, code: &str, url: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        id: i64,
        code: &'a str,
        url: &'a str,
    }
    to_json(&Body { id, code, url })
}

/// The body of `200` to `GET /invites`.
pub(crate) fn invites_body(invites: &[InviteRow]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        invites: Vec<Entry<'a>>,
    }
    #[derive(Serialize)]
    struct Entry<'a> {
        id: i64,
        uses: u32,
        left: u32,
        created_by: Option<&'a Username>,
        created_at: i64,
        expires_at: i64,
        users: &'a [Username],
    }
    let invites = invites
        .iter()
        .map(|row| Entry {
            id: row.id,
            uses: row.uses,
            left: row.left,
            created_by: row.created_by.as_ref(),
            created_at: row.created_at.0,
            expires_at: row.expires_at.0,
            users: &row.users,
        })
        .collect();
    to_json(&Body { invites })
}

/// Appends a line of `GET /export`.
pub(crate) fn push_export_line(message: &Message, body: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Line<'a> {
        id: i64,
        room: i64,
        content: &'a str,
        created_at: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        edited_at: Option<i64>,
    }
    let edited_at = message.extras.as_ref().and_then(|extras| extras.edited_at).map(|UnixMillis(at)| at);
    let (id, room, content) = (message.id.get(), message.room.0, message.content.as_str());
    body.extend(to_json(&Line { id, room, content, created_at: message.created_at.0, edited_at }));
    body.push(b'\n');
}
