//! Web Push: only what can be seen without a push service.

use serde_json::json;

use crate::suite::check::{Check, expect, not_offered, text};
use crate::suite::http::{Answer, Call};
use crate::suite::world::{Person, World};
use crate::suite::{Row, table};

/// 65 bytes of an uncompressed point, in base64url without padding.
const KEY_CHARS: usize = 87;
/// The keys that RFC 8291 has in its example.
const P256DH: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

/// What an endpoint begins with. A server may know only the services that there are.
const SERVICE: &str = "https://updates.push.services.mozilla.com/wpush/v2/";

pub(crate) const ROWS: &[Row] = table! {
    "push-key", "GET /push is the server's key" => push_key;
    "push-put", "PUT /push and DELETE /push are 204" => push_put;
    "push-invalid", "what is asked for must be all or mentions" => push_invalid;
    "notify", "PUT /rooms/ID/notify is 204, and the room must be one's own" => notify;
};

async fn offered(w: &World) -> Check<Person> {
    let ada = w.cast("ada").await?;
    if w.get(&ada, "/push").await?.status == 404 {
        return not_offered("no push");
    }
    Ok(ada)
}

async fn push_key(w: World) -> Check {
    let ada = offered(&w).await?;
    let key = w.get(&ada, "/push").await?.ok(200)?;
    let is_base64url = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let is_key = text(&key, "key")?.len() == KEY_CHARS && is_base64url(text(&key, "key")?);
    expect(is_key, "65 bytes in base64url", &key)?;
    let about = w.about().await?;
    expect(about["push"] == true, "\"push\":true in GET /about", &about)
}

fn put(who: &Person, endpoint: &str, what: &str) -> Call {
    let body = json!({"endpoint": endpoint, "keys": {"p256dh": P256DH, "auth": AUTH}, "what": what});
    Call::new("PUT", "/push").by(who).json(&body)
}

async fn push_put(w: World) -> Check {
    let ada = offered(&w).await?;
    let endpoint = format!("{SERVICE}{}", w.unique("endpoint"));
    for what in ["all", "mentions"] {
        w.ask(put(&ada, &endpoint, what)).await?.ok(204)?;
    }
    let call = Call::new("DELETE", "/push").by(&ada).json(&json!({"endpoint": endpoint}));
    w.ask(call).await?.ok(204).map(|_| ())
}

async fn push_invalid(w: World) -> Check {
    let ada = offered(&w).await?;
    let call = put(&ada, &format!("{SERVICE}x"), "everything");
    no_such_value(&w.ask(call).await?)
}

/// A value that the contract does not know makes it another object than the one asked for, or an invalid request: it
/// does not say which.
fn no_such_value(answer: &Answer) -> Check {
    answer.refused(400, "invalid_json").or_else(|_| answer.refused(400, "invalid_request"))
}

async fn notify(w: World) -> Check {
    let ada = offered(&w).await?;
    let room = w.private(&ada, &[]).await?;
    let call = |who: &Person, room: i64, what: &str| {
        Call::new("PUT", format!("/rooms/{room}/notify")).by(who).json(&json!({"what": what}))
    };
    for what in ["all", "mentions", "nothing"] {
        w.ask(call(&ada, room, what)).await?.ok(204)?;
    }
    no_such_value(&w.ask(call(&ada, room, "sometimes")).await?)?;
    let ben = w.cast("ben").await?;
    w.hidden(call(&ben, room, "all"), call(&ben, 1 << 52, "all")).await
}
