//! The stream that holds the log: how it is made, what must be true of it, and how it is read.
//!
//! JetStream takes requests in JSON, of which a log needs few. A stream keeps entries on a majority of its servers'
//! disks before it acknowledges them, if the servers are told so (`sync_interval: always`, which a client cannot see:
//! `chinwag cluster check` asks a server's monitor for it).

use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::BASE64;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::MAX_PAYLOAD_NEEDED;
use super::nats::{self, Connection, Error, Message, Subscription};
use crate::secret::random_name;

/// The stream, of which there is one in an account.
pub(crate) const STREAM: &str = "chinwag";
/// The subject of its entries.
pub(crate) const LOG_SUBJECT: &str = "chinwag.log";
/// The keys of the log's id and of the history's epoch in the stream's metadata.
const LOG_KEY: &str = "chinwag-log";
const EPOCH_KEY: &str = "chinwag-epoch";
/// How long an entry stays: a node that was away for longer starts from a backup.
const MAX_AGE: Duration = Duration::from_hours(7 * 24);
/// The most bytes of entries that stay.
const MAX_BYTES: i64 = 1 << 30;
/// An operator may have chosen less of both, down to these: with still less, a node that restarts needs a backup.
const MIN_AGE: Duration = Duration::from_hours(1);
const MIN_BYTES: i64 = 16 << 20;
/// Time for an answer about the stream: an election takes up to ten seconds, and requests are repeated meanwhile.
const API_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for a consumer to be made. A consumer placed on a server that just died is never created; asking again places
/// it elsewhere.
const CREATE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two notices of a consumer that has nothing else to send.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long a consumer is kept for a reader that is gone.
const CONSUMER_KEPT: Duration = Duration::from_secs(5);

/// Why a request about the stream failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request or the answer was lost.
    #[error(transparent)]
    Nats(#[from] Error),
    /// JetStream refuses.
    #[error("JetStream says: {description}")]
    Refused {
        /// Its number for it.
        code: u32,
        /// In words.
        description: String,
    },
    /// The answer is not one.
    #[error("JetStream's answer is not understood")]
    Malformed,
}

impl ApiError {
    /// Whether there is no such stream.
    pub(crate) fn is_no_stream(&self) -> bool {
        const STREAM_NOT_FOUND: u32 = 10_059;
        matches!(self, Self::Refused { code: STREAM_NOT_FOUND, .. })
    }
}

#[derive(Deserialize)]
struct Answer<T> {
    error: Option<Refused>,
    #[serde(flatten)]
    value: Option<T>,
}

#[derive(Deserialize)]
struct Refused {
    err_code: Option<u32>,
    description: Option<String>,
}

fn understand<T: DeserializeOwned>(message: &Message) -> Result<T, ApiError> {
    let answer: Answer<T> = serde_json::from_slice(&message.payload).map_err(|_| ApiError::Malformed)?;
    match answer {
        Answer { error: Some(Refused { err_code, description }), .. } => Err(ApiError::Refused {
            code: err_code.unwrap_or(0),
            description: description.unwrap_or_else(|| "no".into()),
        }),
        Answer { value: Some(value), .. } => Ok(value),
        Answer { .. } => Err(ApiError::Malformed),
    }
}

/// The stream as it is.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct StreamInfo {
    config: Config,
    pub(crate) state: State,
    #[serde(default)]
    pub(crate) cluster: Servers,
}

/// What it holds.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct State {
    pub(crate) bytes: u64,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
}

/// Who keeps it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Servers {
    pub(crate) leader: Option<String>,
    pub(crate) replicas: Vec<Replica>,
}

/// One of them that follows the leader.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) current: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "JetStream's, not ours")]
struct Config {
    subjects: Vec<String>,
    retention: String,
    storage: String,
    discard: String,
    num_replicas: u32,
    deny_delete: bool,
    deny_purge: bool,
    sealed: bool,
    no_ack: bool,
    /// In nanoseconds; 0 is for ever.
    max_age: u64,
    /// Of all entries, and of one; -1 is any number.
    max_bytes: i64,
    max_msg_size: i64,
    persist_mode: Option<String>,
    metadata: BTreeMap<String, String>,
}

/// The identity of a log, in the stream's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Drawn when the stream was made.
    pub(crate) log: String,
    /// The epoch of the history that its entries continue.
    pub(crate) epoch: String,
}

impl StreamInfo {
    /// The stream's identity; `None` if chinwag did not make it.
    pub(crate) fn identity(&self) -> Option<Identity> {
        let value = |key| self.config.metadata.get(key).cloned();
        Some(Identity { log: value(LOG_KEY)?, epoch: value(EPOCH_KEY)? })
    }

    /// How many servers keep each entry.
    pub(crate) fn replicas(&self) -> u32 {
        self.config.num_replicas
    }

    /// The first fault of its configuration as that of a log.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let config = &self.config;
        [
            (config.subjects != [LOG_SUBJECT], "its subject is not chinwag.log"),
            (config.storage != "file", "it is not kept in files"),
            (config.retention != "limits", "its entries are deleted once read"),
            (config.discard != "old", "it refuses entries when it is full"),
            (!config.deny_delete || !config.deny_purge, "its entries can be deleted"),
            (config.sealed, "it is sealed"),
            (config.no_ack, "it acknowledges nothing"),
            ((1..nanos(MIN_AGE)).contains(&config.max_age), "it keeps entries for less than an hour"),
            ((1..MIN_BYTES).contains(&config.max_bytes), "it keeps less than 16 MiB of entries"),
            (
                usize::try_from(config.max_msg_size).is_ok_and(|most| (1..MAX_PAYLOAD_NEEDED).contains(&most)),
                "it refuses entries as long as a picture",
            ),
            (config.persist_mode.as_deref() == Some("async"), "it acknowledges what is not on disk"),
        ]
        .into_iter()
        .find_map(|(is_wrong, fault)| is_wrong.then_some(fault))
    }
}

/// Requests the state of the stream.
pub(crate) async fn stream_info(connection: &Connection) -> Result<StreamInfo, ApiError> {
    let subject = format!("$JS.API.STREAM.INFO.{STREAM}");
    understand(&connection.request(&subject, b"", API_TIMEOUT).await?)
}

/// Makes the stream; fails if there is one.
pub(crate) async fn create_stream(
    connection: &Connection,
    identity: &Identity,
    replicas: u32,
) -> Result<StreamInfo, ApiError> {
    let config = json!({
        "name": STREAM,
        "subjects": [LOG_SUBJECT],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "num_replicas": replicas,
        "max_age": nanos(MAX_AGE),
        "max_bytes": MAX_BYTES,
        "deny_delete": true,
        "deny_purge": true,
        // Entries are never published twice on purpose, so JetStream need not remember them to refuse repeats.
        "duplicate_window": nanos(Duration::from_millis(100)),
        "metadata": {LOG_KEY: identity.log, EPOCH_KEY: identity.epoch},
    });
    let subject = format!("$JS.API.STREAM.CREATE.{STREAM}");
    understand(&connection.request(&subject, config.to_string().as_bytes(), API_TIMEOUT).await?)
}

/// Removes the stream, with all its entries.
pub(crate) async fn delete_stream(connection: &Connection) -> Result<(), ApiError> {
    let subject = format!("$JS.API.STREAM.DELETE.{STREAM}");
    understand::<serde_json::Value>(&connection.request(&subject, b"", API_TIMEOUT).await?).map(drop)
}

/// The stream's acknowledgement of an entry.
#[derive(Debug, Deserialize)]
pub(crate) struct PubAck {
    pub(crate) seq: u64,
}

/// Publishes an entry and waits until a majority of the servers has it on disk.
pub(crate) async fn append(connection: &Connection, entry: &[u8], timeout: Duration) -> Result<PubAck, ApiError> {
    understand(&connection.request(LOG_SUBJECT, entry, timeout).await?)
}

/// Requests one entry by its place; `None` if the log does not have it, or not yet. This needs only the stream's own
/// leader, while a consumer cannot be made until the servers have elected a leader of them all.
pub(crate) async fn entry_at(connection: &Connection, seq: u64) -> Result<Option<(i64, Vec<u8>)>, ApiError> {
    #[derive(Deserialize)]
    struct Answered {
        message: Stored,
    }
    #[derive(Deserialize)]
    struct Stored {
        seq: u64,
        time: Box<str>,
        #[serde(default)]
        data: Box<str>,
    }
    const NO_MESSAGE: u32 = 10_037;
    let subject = format!("$JS.API.STREAM.MSG.GET.{STREAM}");
    let question = json!({"seq": seq}).to_string();
    match understand(&connection.request(&subject, question.as_bytes(), CREATE_TIMEOUT).await?) {
        Ok(Answered { message: Stored { seq: found, time, data } }) if found == seq => {
            let payload = BASE64.decode(data.as_bytes()).map_err(|_| ApiError::Malformed)?;
            Ok(Some((millis_of(&time).ok_or(ApiError::Malformed)?, payload)))
        }
        Ok(_) => Err(ApiError::Malformed),
        Err(ApiError::Refused { code: NO_MESSAGE, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a consumer sends.
#[derive(Debug)]
pub(crate) enum Delivered {
    /// An entry.
    Entry {
        /// Its place in the log.
        seq: u64,
        /// When the log took it, in Unix milliseconds.
        at: i64,
        /// What it says.
        payload: bytes::Bytes,
    },
    /// The consumer lives, and has sent everything up to this entry.
    Heartbeat {
        /// Of the stream.
        last: u64,
    },
}

/// Reads the log from one entry on: a push consumer. Its server sends a notice when it has nothing else to send, and
/// waits until earlier entries are taken.
///
/// There are gaps when servers die, which the reader looks for.
pub(crate) struct Consumer {
    messages: Subscription,
    connection: Connection,
}

impl Consumer {
    /// Silence after which a consumer is gone.
    pub(crate) const SILENCE: Duration = Duration::from_millis(1_500);

    pub(crate) async fn from(connection: &Connection, first: u64) -> Result<Self, ApiError> {
        let inbox = nats::new_inbox();
        // Before the consumer is made, or its first entries are lost.
        let messages = connection.subscribe(&inbox)?;
        let name = random_name();
        let config = json!({
            "stream_name": STREAM,
            "config": {
                "name": name,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": first,
                "ack_policy": "none",
                "replay_policy": "instant",
                "deliver_subject": inbox,
                "idle_heartbeat": nanos(HEARTBEAT),
                "flow_control": true,
                "mem_storage": true,
                "num_replicas": 1,
                "inactive_threshold": nanos(CONSUMER_KEPT),
            },
        });
        let subject = format!("$JS.API.CONSUMER.CREATE.{STREAM}.{name}");
        let answer = connection.request(&subject, config.to_string().as_bytes(), CREATE_TIMEOUT).await?;
        understand::<serde_json::Value>(&answer)?;
        Ok(Self { messages, connection: connection.clone() })
    }

    /// The next entry or notice; `None` when the consumer is gone, as its [silence](Self::SILENCE) shows. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Delivered> {
        const NOTICE: u16 = 100;
        loop {
            let message = tokio::time::timeout(Self::SILENCE, self.messages.next()).await.ok()??;
            if message.status() != Some(NOTICE) {
                let (seq, at) = place_of(message.reply.as_deref()?)?;
                return Some(Delivered::Entry { seq, at, payload: message.payload });
            }
            // Flow control wants an answer once everything before it is taken: at the reply subject, or, when a
            // consumer stalls, at a subject in a header.
            let stalled = message.header("Nats-Consumer-Stalled").map(ToOwned::to_owned);
            if let Some(answer) = message.reply.as_deref().or(stalled.as_deref()) {
                drop(self.connection.publish(answer, b""));
            }
            if let Some(last) = message.header("Nats-Last-Stream").and_then(|last| last.parse().ok()) {
                return Some(Delivered::Heartbeat { last });
            }
        }
    }
}

/// The place of a message in the stream, and its time in Unix milliseconds. JetStream writes both into the subject for
/// its acknowledgement, `$JS.ACK.STREAM.CONSUMER.DELIVERIES.SEQUENCE.CONSUMER-SEQUENCE.NANOSECONDS.PENDING`, possibly
/// with a domain and an account before the stream.
fn place_of(subject: &str) -> Option<(u64, i64)> {
    let tokens: Vec<_> = subject.split('.').collect();
    if tokens.first() != Some(&"$JS") || tokens.get(1) != Some(&"ACK") {
        return None;
    }
    let first = match tokens.len() {
        9 => 2,
        11.. => 4,
        _ => return None,
    };
    let at: i64 = tokens.get(first + 5)?.parse().ok()?;
    Some((tokens.get(first + 3)?.parse().ok()?, at / 1_000_000))
}

/// A time as Go writes it, `2026-11-29T00:42:01.32466Z`, in Unix milliseconds like those of a consumer.
fn millis_of(time: &str) -> Option<i64> {
    let (date, clock) = time.strip_suffix('Z')?.split_once('T')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let numbers = |text: &str, by| text.split(by).map(str::parse).collect::<Result<Vec<i64>, _>>().ok();
    let (date, clock) = (numbers(date, '-')?, numbers(clock, ':')?);
    let (&[year @ 1970..=9999, month @ 1..=12, day], &[hours, minutes, seconds]) = (&date[..], &clock[..]) else {
        return None;
    };
    // Years that begin in March, so that the day that some have more is their last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469;
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000 + millis)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entrys_place_and_time_are_in_its_acknowledgements_subject() {
        let expected = Some((22, 1_700_000_000_123));
        assert_eq!(place_of("$JS.ACK.chinwag.c.1.22.3.1700000000123456789.0"), expected);
        assert_eq!(place_of("$JS.ACK.hub.hash.chinwag.c.1.22.3.1700000000123456789.0"), expected);
        assert_eq!(place_of("$JS.ACK.hub.hash.chinwag.c.1.22.3.1700000000123456789.0.random"), expected);
        for bad in [
            "",
            "$JS.ACK",
            "$JS.ACK.a.b.c.d.e.f.g",
            "_INBOX.a.b.c.d.e.f.g.h",
            "$JS.NAK.a.c.1.22.3.4.0",
            "a.ACK.a.c.1.22.3.4.0",
        ] {
            assert_eq!(place_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_moment_of_an_entry_is_the_same_however_it_is_read() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59.9999Z", 951_868_799_999),
            ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123),
            ("2024-03-01T00:00:00.05Z", 1_709_251_200_050),
            ("2100-12-31T12:00:00.5Z", 4_133_937_600_500),
        ] {
            assert_eq!(millis_of(text), Some(millis), "{text}");
        }
        for bad in ["", "Z", "2024-03-01", "2024-13-01T00:00:00Z", "2024-03-01T00:00Z", "2024-03-01T00:00:00.ö5Z"] {
            assert_eq!(millis_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_stream_that_could_lose_entries_is_faulty() {
        let good = json!({
            "config": {
                "subjects": [LOG_SUBJECT], "storage": "file", "retention": "limits", "discard": "old", "num_replicas": 3,
                "deny_delete": true, "deny_purge": true, "max_age": nanos(MAX_AGE), "max_bytes": MAX_BYTES,
                "max_msg_size": -1, "metadata": {LOG_KEY: "a", EPOCH_KEY: "b"},
            },
            "state": {"bytes": 0, "first_seq": 1, "last_seq": 0},
        });
        let info = |config: &serde_json::Value| serde_json::from_value::<StreamInfo>(config.clone()).unwrap();
        assert_eq!(info(&good).fault(), None);
        assert_eq!(info(&good).identity(), Some(Identity { log: "a".into(), epoch: "b".into() }));
        for (key, value) in [
            ("subjects", json!(["chinwag.>"])),
            ("storage", json!("memory")),
            ("retention", json!("workqueue")),
            ("deny_purge", json!(false)),
            ("persist_mode", json!("async")),
            ("max_age", json!(59 * 60 * 1_000_000_000_u64)),
            ("max_bytes", json!(1 << 20)),
            ("max_msg_size", json!(65_536)),
        ] {
            let mut bad = good.clone();
            bad["config"][key] = value;
            assert!(info(&bad).fault().is_some(), "{key}");
        }
    }
}
