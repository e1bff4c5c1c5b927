//! The text of a push, as the service worker reads it.

use serde::Serialize;

use crate::limits::push::{PUSH_LINE_MAX_CHARS, PUSH_TEXT_BYTES};

/// What a push says about a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PushText {
    pub(crate) room: i64,
    /// The newest message of the push.
    pub(crate) message: i64,
    /// The room's name; `None` for a direct room, which is shown by the other user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    pub(crate) from: String,
    /// The newest message's text; `None` if the user wants it hidden.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    /// The number of messages, the newest included.
    pub(crate) count: u32,
}

impl PushText {
    /// As JSON of at most [`PUSH_TEXT_BYTES`]: the text is cut to what is left for it.
    pub(super) fn into_json(mut self) -> serde_json::Result<String> {
        if let Some(text) = &mut self.text {
            cut(text, PUSH_LINE_MAX_CHARS);
        }
        loop {
            let json = serde_json::to_string(&self)?;
            match &mut self.text {
                Some(text) if json.len() > PUSH_TEXT_BYTES && !text.is_empty() => cut(text, text.chars().count() / 2),
                _ => return Ok(json),
            }
        }
    }
}

/// Cuts a text to `chars` characters, with an ellipsis as the last.
fn cut(text: &mut String, chars: usize) {
    if let Some((at, _)) = text.char_indices().nth(chars) {
        text.truncate(at);
        text.pop();
        if chars > 0 {
            text.push('…');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(name: Option<&str>, text: Option<String>) -> String {
        let from = "a".repeat(32);
        PushText { room: 7, message: 9, name: name.map(Into::into), from, text, count: 1 }.into_json().unwrap()
    }

    #[test]
    fn a_push_names_the_room_the_author_and_a_line() {
        let text = PushText {
            room: 7,
            message: 9,
            name: Some("Lobby".into()),
            from: "ada".into(),
            text: Some("hello".into()),
            count: 3,
        };
        let said = r#"{"room":7,"message":9,"name":"Lobby","from":"ada","text":"hello","count":3}"#;
        assert_eq!(text.into_json().unwrap(), said);
        assert_eq!(json(None, None), format!(r#"{{"room":7,"message":9,"from":"{}","count":1}}"#, "a".repeat(32)));
    }

    #[test]
    fn whatever_is_written_a_push_is_not_longer_than_its_padding() {
        for char in ['a', '"', '\\', '\n', '\t', '\u{2028}', '🦀'] {
            let (name, text) = (char.to_string().repeat(60), char.to_string().repeat(4_000));
            let json = json(Some(&name), Some(text));
            assert!(json.len() <= PUSH_TEXT_BYTES, "{char:?}: {}", json.len());
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            let shown = value["text"].as_str().unwrap();
            assert!(shown.ends_with('…') && shown.chars().count() > 50, "{shown}");
        }
    }
}
