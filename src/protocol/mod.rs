//! The protocol: the JSON of frames and bodies, and the WebSocket frame around it.
//!
//! The only part that knows the JSON of the contract, so that a change of the wire is a change of this folder. It knows
//! the model and nothing of connections: a frame is encoded here once, as finished bytes, however many sockets it goes
//! to.

mod account;
mod client;
mod found;
mod frame;
mod http;
mod server;

use serde::Deserialize;

pub(crate) use account::{
    BanBody, DeleteAccountBody, NewInviteBody, PasswordBody, invited_body, invites_body, push_export_line,
    sessions_body,
};
pub(crate) use client::{Attachments, Auth, ClientFrame};
pub(crate) use found::{image_body, search_body};
pub use frame::Encoder;
pub(crate) use frame::encode;
#[cfg(feature = "echo")]
pub(crate) use frame::{FIN_BINARY, FIN_TEXT, put_frame};
pub(crate) use http::{
    AboutBody, AboutLimits, CredentialsBody, DirectBody, EditBody, HistoryBody, InviteBody, MessageBody, NewRoomBody,
    NotifyBody, RoomChangeBody, WireUser, error_body, event_body, login_body, parse_body, registered_body, room_body,
    rooms_body, users_body,
};
#[cfg(feature = "push")]
pub(crate) use http::{EndpointBody, SubscriptionBody, push_key_body};
pub(crate) use server::Refusal;
pub use server::{AuthFailure, ErrorCode, ServerFrame, WireMessage, WireRoom};

/// Parses a JSON object; `None` for anything else. Serde alone would also accept an array for a struct.
fn parse_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    json.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Auth, ClientFrame};
    use crate::secret::Token;

    const DOCUMENT: &str = include_str!("../../docs/PROTOCOL.md");
    const PAGE: &str = include_str!("../../public/connection.js");
    /// The peer that the benches compare with.
    const PEER: &str = include_str!("../../benches/peers/bun.ts");

    /// The wire names of the frame types that are variants of `name` in `source`. They are read from the source, so
    /// that no list of them can become outdated.
    fn types_in(source: &str, name: &str) -> Vec<String> {
        let (_, body) = source.split_once(&format!("enum {name}")).unwrap();
        let (body, _) = body.split_once("\n}").unwrap();
        let variants = body.lines().filter_map(|line| line.strip_prefix("    "));
        let variants = variants.filter(|line| line.starts_with(|char: char| char.is_ascii_uppercase()));
        variants.map(|line| line.split([' ', '(', ',']).next().map(snake_case).unwrap()).collect()
    }

    fn snake_case(variant: &str) -> String {
        let mut name = String::new();
        for char in variant.chars() {
            if char.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(char.to_ascii_lowercase());
        }
        name
    }

    #[test]
    fn each_frame_of_the_server_is_in_the_contract_the_page_and_the_peer() {
        let types = types_in(include_str!("server.rs"), "ServerFrame");
        assert!(types.len() >= 11 && types.contains(&"auth_success".to_owned()), "{types:?}");
        for kind in types {
            assert!(DOCUMENT.contains(&format!("`{kind}`")), "docs/PROTOCOL.md does not mention {kind}");
            assert!(PAGE.contains(&format!("case \"{kind}\":")), "public/connection.js ignores {kind}");
            assert!(
                PEER.contains(&format!("\"{kind}\"")),
                "benches/peers/bun.ts neither sends {kind} nor says that it leaves it out"
            );
        }
    }

    #[test]
    fn each_frame_of_a_client_is_in_the_contract_the_page_and_the_peer() {
        let mut types = types_in(include_str!("client.rs"), "ClientFrame");
        assert!(types.len() >= 3 && types.contains(&"typing".to_owned()), "{types:?}");
        types.push("auth".into());
        for kind in types {
            assert!(DOCUMENT.contains(&format!("`{kind}`")), "docs/PROTOCOL.md does not mention {kind}");
            assert!(PAGE.contains(&format!("type: \"{kind}\"")), "public/connection.js never sends {kind}");
            assert!(
                PEER.contains(&format!("\"{kind}\"")),
                "benches/peers/bun.ts neither takes {kind} nor says that it leaves it out"
            );
        }
    }
    /// The frames in the document for other programs that begin with `prefix`, sorted, without it, and their schemas.
    fn documented(prefix: &str) -> Vec<(String, Value)> {
        let document: Value = serde_json::from_str(include_str!("../../docs/asyncapi.json")).unwrap();
        let Value::Object(messages) = document["components"]["messages"].clone() else { panic!("there are messages") };
        let listed = ["fromTheServer", "fromAClient"].map(|name| &document["operations"][name]["messages"]);
        for name in messages.keys() {
            let reference = json!({"$ref": format!("#/channels/socket/messages/{name}")});
            let lists = listed.iter().filter(|list| list.as_array().unwrap().contains(&reference));
            assert_eq!(lists.count(), 1, "{name} is of one of the two operations");
            let in_channel = &document["channels"]["socket"]["messages"][name]["$ref"];
            assert_eq!(*in_channel, format!("#/components/messages/{name}"));
        }
        let own = messages
            .into_iter()
            .filter_map(|(name, message)| Some((name.strip_prefix(prefix)?.to_owned(), message["payload"].clone())));
        own.collect()
    }

    fn is_parsed(kind: &str, frame: &Value) -> bool {
        let text = frame.to_string();
        if kind == "auth" { Auth::parse(&text).is_ok() } else { ClientFrame::parse(&text).is_ok() }
    }

    fn sample(name: &str, schema: &Value) -> Value {
        match name {
            "emoji" => json!("👍"),
            "token" => json!(Token::random().reveal()),
            _ if schema["$ref"].is_string() => json!(1),
            _ => match schema["type"].get(0).unwrap_or(&schema["type"]).as_str() {
                Some("string") => json!("x"),
                Some("integer") => json!(1),
                Some("boolean") => json!(true),
                _ => schema["const"].clone(),
            },
        }
    }

    #[test]
    fn the_document_for_other_programs_has_the_frames_and_codes_of_the_server() {
        let source = include_str!("server.rs");
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        let frames = documented("server.");
        let names = frames.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(sorted(names), sorted(types_in(source, "ServerFrame")));
        for (frame, name) in [("error", "ErrorCode"), ("auth_failed", "AuthFailure")] {
            let (_, schema) = frames.iter().find(|(known, _)| known == frame).unwrap();
            let codes = serde_json::from_value(schema["properties"]["code"]["enum"].clone()).unwrap();
            assert_eq!(sorted(codes), sorted(types_in(source, name)), "{frame}");
        }
    }

    #[test]
    fn the_document_for_other_programs_has_the_frames_of_a_client_with_the_fields_that_are_read() {
        let mut types = types_in(include_str!("client.rs"), "ClientFrame");
        types.push("auth".into());
        types.sort();
        let mut frames = documented("client.");
        frames.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(frames.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), types);
        for (kind, schema) in frames {
            let fields = schema["properties"].as_object().unwrap();
            let whole = fields.iter().map(|(name, schema)| (name.clone(), sample(name, schema))).collect();
            let whole = Value::Object(whole);
            assert!(is_parsed(&kind, &whole), "{whole}");
            for name in fields.keys() {
                let (mut without, mut wrong) = (whole.clone(), whole.clone());
                without.as_object_mut().unwrap().remove(name);
                let is_required = schema["required"].as_array().unwrap().contains(&json!(name));
                assert_eq!(is_parsed(&kind, &without), !is_required, "{kind} without {name}");
                wrong[name] = json!({});
                // Whatever else a ping says, it is a ping.
                assert_eq!(is_parsed(&kind, &wrong), name == "in_sight", "{kind}: {name} is read");
            }
        }
    }
}
