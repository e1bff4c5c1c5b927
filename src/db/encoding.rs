//! How the parts of a change are written into the entries of a log. What is read from an entry is parsed like anything
//! from outside: a name in an entry is trusted no more than one in a request.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::push::DeviceId;
use crate::model::{Content, MessageId, Nonce, SessionId, UnixMillis, UserId, Username};
use crate::room::{AltText, Emoji, ImageId, RoomEmoji, RoomId, RoomName, Topic};
use crate::secret::Digest;

/// For types that are text: how one is shown, and how it is parsed.
macro_rules! text {
    ($($type:ty: $show:expr, $parse:expr;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let show: fn(&Self) -> Cow<'_, str> = $show;
                serializer.serialize_str(&show(self))
            }
        }

        parsed! { $type: $parse }
    )*};
}

/// For types that are parsed from text.
macro_rules! parsed {
    ($type:ty: $parse:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                let parse: fn(&str) -> Option<Self> = $parse;
                parse(&text).ok_or_else(|| D::Error::custom(concat!("invalid ", stringify!($type))))
            }
        }
    };
}

text! {
    Nonce: |nonce| nonce.as_str().into(), Nonce::parse;
    Content: |content| content.as_str().into(), parse_content;
    Emoji: |emoji| emoji.as_str().into(), Emoji::parse;
    RoomName: |name| name.as_str().into(), RoomName::parse;
    RoomEmoji: |emoji| emoji.as_str().into(), RoomEmoji::parse;
    Topic: |topic| topic.as_str().into(), Topic::parse;
    AltText: |alt| alt.as_str().into(), AltText::parse;
    Digest: |digest| digest.to_hex().into(), Digest::from_hex;
}

/// For types that are numbers: which number, and back.
macro_rules! number {
    ($($type:ty: $get:expr, $new:expr;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let get: fn(&Self) -> i64 = $get;
                serializer.serialize_i64(get(self))
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                i64::deserialize(deserializer).map($new)
            }
        }
    )*};
}

number! {
    MessageId: |id| id.get(), MessageId::new;
    UserId: |id| id.0, UserId;
    SessionId: |id| id.0, SessionId;
    UnixMillis: |at| at.0, UnixMillis;
    RoomId: |id| id.0, RoomId;
    ImageId: |id| id.0, ImageId;
    DeviceId: |id| id.0, DeviceId;
}

/// A picture's file, in base64.
pub(super) mod base64 {
    use std::borrow::Cow;

    use data_encoding::BASE64;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map_err(|_| D::Error::custom("invalid base64"))
    }
}

/// A message with a picture may have an empty text.
fn parse_content(text: &str) -> Option<Content> {
    if text.is_empty() { Some(Content::from_database("")) } else { Content::parse(text).ok() }
}

/// For a field that a change leaves, removes or sets: nothing, `[]`, `[value]`.
pub(super) mod double_option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, clippy::option_option, reason = "as serde asks for it")]
    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<Option<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(|value| value.iter().collect::<Vec<_>>()).serialize(serializer)
    }

    #[expect(clippy::option_option, reason = "as serde asks for it")]
    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<T>>, D::Error> {
        Ok(Option::<Vec<T>>::deserialize(deserializer)?.map(|mut value| value.pop()))
    }
}

// The wire writes names, too.
parsed! { Username: parse_username }

/// The user of a deleted account has a name that nobody can register.
fn parse_username(name: &str) -> Option<Username> {
    let of_deleted = || {
        let user = name.strip_prefix("(deleted ")?.strip_suffix(')')?.parse().ok()?;
        Some(Username::deleted(UserId(user))).filter(|deleted| deleted.as_str() == name)
    };
    Username::parse(name).or_else(of_deleted)
}
