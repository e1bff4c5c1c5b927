//! The bodies of answers about pictures and of the search.

use serde::Serialize;

use super::http::to_json;
use super::server::WireMessage;
use crate::model::{Message, MessageId};
use crate::room::ImageId;

/// The body of `201` to `POST /images`.
pub(crate) fn image_body(id: ImageId, subtype: &str, width: u32, height: u32) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body {
        id: i64,
        r#type: String,
        width: u32,
        height: u32,
    }
    to_json(&Body { id: id.0, r#type: format!("image/{subtype}"), width, height })
}

/// The body of `200` to `GET /search`.
pub(crate) fn search_body(messages: &[Message], before: Option<MessageId>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        messages: Vec<WireMessage<'a>>,
        before: Option<i64>,
    }
    to_json(&Body { messages: messages.iter().map(WireMessage::from).collect(), before: before.map(MessageId::get) })
}
