//! What leaves the server in a state in which other rows would fail.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::suite::check::{Check, expect, not_offered};
use crate::suite::http::Call;
use crate::suite::world::World;
use crate::suite::{Row, table};

/// More logins than any address has a use for.
const ATTEMPTS: usize = 300;

pub(crate) const LAST: &[Row] = table! {
    "rate-limited", "too many logins are 429 rate_limited with Retry-After" => rate_limited;
    "shutdown", "a server that stops closes with 1001" => shutdown;
};

async fn rate_limited(w: World) -> Check {
    let account = json!({"username": w.unique("nobody"), "password": "not the password"});
    for _ in 0..ATTEMPTS {
        let answer = w.ask(Call::new("POST", "/login").json(&account).once()).await?;
        if answer.status == 401 {
            continue;
        }
        answer.refused(429, "rate_limited")?;
        let wait = answer.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
        return expect(wait.is_some_and(|wait| wait > 0), "Retry-After in seconds", format!("{wait:?}"));
    }
    not_offered("no limit on logins")
}

async fn shutdown(w: World) -> Check {
    let Some(pid) = w.options().stop.and_then(Pid::from_raw) else {
        return not_offered("needs --stop PID");
    };
    let mut socket = w.connect(&w.cast("ada").await?).await?;
    w.step("SIGTERM".into());
    if kill_process(pid, Signal::TERM).is_err() {
        return not_offered("no such process");
    }
    socket.closes_with(1001).await
}
