//! The limits of the server, each with its unit and its reason; limits of a type of value are with the type.
//!
//! These constants keep the server bounded, and nobody needs to set them; what an operator may want to set is a flag in
//! [`config`](crate::config). They are in one file so that relations between them can be asserted.

use std::time::Duration;

use crate::model::CONTENT_MAX_CHARS;

// --- HTTP ----------------------------------------------------------------------------------------------------------

/// Bytes of a request's head that hyper buffers; past it the answer is 431.
pub(crate) const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Headers of a request.
pub(crate) const HEADERS_MAX: usize = 64;
/// Bytes of a request's path and query.
pub(crate) const URI_MAX_BYTES: usize = 2 * 1024;
/// Bytes of a JSON body.
pub(crate) const BODY_MAX_BYTES: usize = 16 * 1024;
/// Time for a request's head, and for a kept-alive connection to send another request.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a trusted proxy's connection, and longer than nginx keeps one idle: if the server ended it first, a
/// request that the proxy sends at that moment would be lost. A proxy sends a head only when it has all of it.
pub(crate) const PROXY_IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Time for a request's body.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time within which a peer must accept some of an HTTP answer.
pub(crate) const ANSWER_STALL: Duration = Duration::from_secs(10);
/// Burst of log lines about refused requests above the level `debug`, so that such requests cannot fill the disk.
pub(crate) const REFUSAL_LOG_BURST: u32 = 100;
/// Log lines a second about refused requests above the level `debug`.
pub(crate) const REFUSAL_LOG_RATE: u32 = 5;
/// Characters of a request id from a trusted proxy: those of nginx and UUIDs have 32 and 36.
pub(crate) const REQUEST_ID_MAX_CHARS: usize = 64;
/// Time for one request for metrics.
pub(crate) const METRICS_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections for metrics that are served at once, so that a few without a request do not delay one with; more wait to
/// be accepted.
pub(crate) const METRICS_AT_ONCE: usize = 4;
/// Messages in a page of history.
pub(crate) const PAGE_MAX_MESSAGES: u32 = 200;
/// Messages in a page of history if the client does not say.
pub(crate) const PAGE_DEFAULT_MESSAGES: u32 = 50;
/// Bytes of text in a page that is answered at once; a longer page is read and sent in pieces, as fast as the client
/// accepts it.
pub(crate) const PAGE_HELD_BYTES: usize = 256 * 1024;

// --- Connections ---------------------------------------------------------------------------------------------------

/// File descriptors reserved for the database, the listener and the standard streams.
pub(crate) const RESERVED_DESCRIPTORS: u64 = 64;
/// Unauthenticated connections of one address that are always kept open between requests: those of five browsers.
pub(crate) const KEPT_OPEN_PER_IP: usize = 32;
/// The part of all places that strangers of one IPv6 network may have, however wide it is: half. Unlimited if
/// connections per address are.
pub(crate) const NETWORK_PLACES: u32 = 2;
/// The part of all places that authenticated connections of one address leave to others: a quarter. Unlimited if
/// connections per address are.
pub(crate) const ADDRESS_PLACES_KEPT: u32 = 4;
/// The part of all places that is kept for [addresses of users](USER_ADDRESSES_KNOWN): an eighth.
/// Unlimited if connections per address are.
pub(crate) const KNOWN_PLACES_KEPT: u32 = 8;
/// The last addresses of one user that are known: at home, at work, a phone's.
pub(crate) const USER_ADDRESSES_KNOWN: usize = 4;
/// Users whose addresses are known.
pub(crate) const USERS_KNOWN_MAX: usize = 4_096;
/// If the descriptors allow fewer connections than this, the log warns.
pub(crate) const FEW_CONNECTIONS: u32 = 100;
/// Connections that the kernel holds until they are accepted; it may allow fewer.
pub(crate) const LISTEN_BACKLOG: u32 = 1_024;
/// Permissions of a Unix socket created here: its peers are trusted proxies, so only the owner and the group may
/// connect, to which a proxy's user can be added.
pub(crate) const UNIX_SOCKET_MODE: u32 = 0o660;
/// The least time between two checks for a renewed TLS certificate, which are made when connections arrive.
#[cfg(feature = "tls")]
pub(crate) const TLS_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes that TLS encrypts ahead of a blocked socket: one full record (RFC 8446 5.1), so that a slow reader holds no
/// more than that.
#[cfg(feature = "tls")]
pub(crate) const TLS_AHEAD_BYTES: usize = 16 * 1024;
/// Bytes of TLS records that are read from one connection before others run. Less than [`READ_BUDGET_BYTES`], since
/// they may be many small records to decrypt, and new keys to derive for each.
#[cfg(feature = "tls")]
pub(crate) const TLS_READ_BUDGET_BYTES: usize = 32 * 1024;
/// Bytes of TLS records allowed for each byte of data: alone in a record it takes 23 (RFC 8446 5.2).
#[cfg(feature = "tls")]
pub(crate) const TLS_BYTES_PER_BYTE: u32 = 32;
/// Burst of bytes of TLS records beyond [those allowed for their data](TLS_BYTES_PER_BYTE): the handshake, an
/// incomplete record, padding. Endless empty records or key updates exceed it.
#[cfg(feature = "tls")]
pub(crate) const TLS_OVERHEAD_BURST: u32 = 64 * 1024;
/// Such bytes allowed per second: one record full of padding.
#[cfg(feature = "tls")]
pub(crate) const TLS_OVERHEAD_RATE: u32 = 16 * 1024;
/// TLS handshakes a second from one address, with a burst of [`HANDSHAKE_BURST`]; unlimited if connections per address
/// are. For each the server signs, which takes milliseconds on a small device.
pub(crate) const HANDSHAKE_RATE: u32 = 20;
/// Burst of TLS handshakes from one address: a household or a class that opens the page together.
pub(crate) const HANDSHAKE_BURST: u32 = 100;
/// Pause in accepting connections when the system is out of descriptors or memory.
pub(crate) const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Time for a client's first frame.
pub(crate) const AUTH_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a client's first frame, which says who it is: a stranger's message is not held for longer. Past it the
/// close code is 1009.
pub(crate) const AUTH_MAX_BYTES: usize = 4 * 1024;
/// Bytes of one WebSocket frame or message from a client; past it the close code is 1009.
pub(crate) const FRAME_MAX_BYTES: usize = 64 * 1024;
/// How long a message or a frame may take from its first byte to its last, as a body may.
pub(crate) const MESSAGE_TIMEOUT: Duration = BODY_TIMEOUT;
/// Bytes of a message that is not whole yet which count for nobody: one read's worth.
pub(crate) const UNFINISHED_FREE_BYTES: usize = READ_BUFFER_BYTES;
/// Bytes of messages that are not whole yet, of one user: four of the largest.
pub(crate) const USER_UNFINISHED_BYTES_MAX: usize = 4 * FRAME_MAX_BYTES;
/// Bytes of messages that are not whole yet, of all users. The parser takes up to three times that.
pub(crate) const UNFINISHED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that are read from a socket at once. Held only while a connection has something to read.
pub(crate) const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Bytes read from one connection before others run; an unauthenticated one may send no more at all.
pub(crate) const READ_BUDGET_BYTES: usize = 2 * FRAME_MAX_BYTES;
/// Frames of one connection that are answered together; an unauthenticated one may send as many pings.
pub(crate) const FRAMES_PER_READ: usize = 64;
/// Frames a second on one connection, with a burst of [`FRAME_BURST`]; unlimited if messages are.
pub(crate) const FRAME_RATE: u32 = 100;
/// Burst of frames on one connection: ten seconds' worth, for a network that holds them back and then delivers all at
/// once.
pub(crate) const FRAME_BURST: u32 = 1_000;
/// Bytes of text a second that one user may write: far more than anybody types.
pub(crate) const BYTE_RATE: u32 = 16 * 1024;
/// Bytes of text at once: a few of the longest messages.
pub(crate) const BYTE_BURST: u32 = 8 * BYTE_RATE;
/// Burst of messages from one user, in seconds at the allowed rate.
pub(crate) const MESSAGE_BURST_SECONDS: u32 = 3;
/// Frames allowed for each allowed message, if that is more than [`FRAME_RATE`]: for typing and pings.
pub(crate) const FRAMES_PER_MESSAGE: u32 = 2;
/// Connections a second that one user may authenticate, with a burst of [`CONNECT_BURST`]; unlimited if connections per
/// user are. Each may be announced to everyone.
pub(crate) const CONNECT_RATE: u32 = 5;
/// Burst of connections that one user may authenticate: every tab, again and again while the network is unstable.
pub(crate) const CONNECT_BURST: u32 = 256;
/// Burst of log lines above the level `debug` about users who come and go: a school's, at the start of a lesson.
pub(crate) const CONNECTION_LOG_BURST: u32 = 200;
/// Such log lines a second: coming and going without end cannot fill the disk.
pub(crate) const CONNECTION_LOG_RATE: u32 = 5;
/// Burst of refused frames before a connection is closed with 1008; those refused for no fault of the client's do not
/// count.
pub(crate) const REFUSED_BURST: u32 = 200;
/// Refused frames a second before a connection is closed with 1008.
pub(crate) const REFUSED_RATE: u32 = 5;
/// Bytes that the kernel takes for a TCP connection beyond what the peer has room for; by itself it takes up to 4 MB.
/// As much as a reader who pauses for a moment in a flood falls behind: a reader who is further behind catches up from
/// the database.
pub(crate) const UNSENT_MAX_BYTES: u32 = 256 * 1024;
/// How long a socket may accept nothing before its connection is given up.
pub(crate) const WRITE_STALL: Duration = Duration::from_secs(30);
/// How long the closing handshake may take: a peer that cooperates needs one round trip.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a socket is kept after the last answer, for the peer to close, too.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that are discarded meanwhile.
pub(crate) const LINGER_MAX_BYTES: usize = 256 * 1024;
/// Connections over the limit that are kept at the same time until they have read their response; more are sent it and
/// closed at once.
pub(crate) const REFUSALS_AT_ONCE: usize = 32;

// --- Fan-out -------------------------------------------------------------------------------------------------------

/// Entries that the broadcast channel holds for a busy shard; beyond that the shard's connections catch up.
pub(crate) const HUB_CAPACITY: usize = 1_024;
/// Messages of a commit encoded into one batch.
pub(crate) const BATCH_MAX_MESSAGES: usize = 1_024;
/// Bytes of frames of a commit encoded into one batch: several times what the readers of one room get of it, so that
/// what is said in many rooms at once does not come to each in small pieces.
pub(crate) const BATCH_MAX_BYTES: usize = 192 * 1024;
/// Bytes of a batch that are for the same readers.
pub(crate) const PART_MAX_BYTES: usize = 64 * 1024;
/// Entries of the channel that a shard may be behind before the next commit waits for it.
pub(crate) const RUN_AHEAD_ENTRIES: usize = 2;
/// The longest that a commit waits for the shards; with very many sockets on a small device the channel fills up
/// instead.
pub(crate) const RUN_AHEAD_PATIENCE: Duration = Duration::from_secs(1);
/// About how many bytes of joined batches a socket gets in one write.
pub(crate) const WRITE_MAX_BYTES: usize = 64 * 1024;
/// Bytes at which it joins no more batches, however small the part of each socket is.
pub(crate) const JOINED_MAX_BYTES: usize = 768 * 1024;
// Holds for somebody who reads all the rooms as soon as the shard has noticed them; until then a write may be larger.
const _: () = assert!(BATCH_MAX_BYTES + WRITE_MAX_BYTES <= UNSENT_MAX_BYTES as usize);
/// Parts of a batch that a shard keeps for other subscribers who get the same.
pub(crate) const PARTS_KEPT: usize = 64;
/// Bytes of those parts at which it forgets them.
pub(crate) const PARTS_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Sockets that a shard writes to before it yields to other tasks.
pub(crate) const SOCKETS_PER_YIELD: usize = 32;
/// How many times per ping interval a shard looks for connections to ping or close.
pub(crate) const HEARTBEAT_CHECKS: u32 = 8;
/// Cores per shard: the kernel's work for each write, and the writer thread, need the other.
pub(crate) const CORES_PER_SHARD: usize = 2;
/// Shards: each receives every event, so at some point more of them only cost more.
pub(crate) const SHARDS_MAX: u16 = 64;

// --- Presence ------------------------------------------------------------------------------------------------------

/// Names in one list of users.
pub(crate) const USERS_LISTED_MAX: usize = 200;
/// Users online above which a count is sent instead of names.
pub(crate) const COUNT_ABOVE: usize = 1_000;
/// Users online below which names are sent again.
pub(crate) const NAMES_BELOW: usize = 900;
const _: () = assert!(NAMES_BELOW < COUNT_ABOVE, "one user coming and going must not switch it back and forth");
/// The least time between two typing frames of one user.
pub(crate) const TYPING_INTERVAL: Duration = Duration::from_secs(1);

// --- Catch-up ------------------------------------------------------------------------------------------------------

/// Events that are replayed; a connection further behind gets a `resync`.
pub(crate) const REPLAY_MAX_MESSAGES: u32 = 1_000;
/// Events that a catch-up reads at a time.
pub(crate) const CHUNK_MAX_MESSAGES: u32 = 256;
/// Bytes of text that a catch-up reads at a time.
pub(crate) const CHUNK_MAX_BYTES: usize = 64 * 1024;
/// Catch-ups that hold a chunk in memory at once; the others wait in order.
pub(crate) const CATCH_UPS_AT_ONCE: usize = 16;

// --- Storage -------------------------------------------------------------------------------------------------------

/// Commands that wait for the writer thread; beyond that the answer is `unavailable`.
pub(crate) const WRITE_QUEUE: usize = 4_096;
/// Places in that queue that requests without a session cannot take: health checks and logouts.
pub(crate) const WRITE_QUEUE_SPARED: usize = WRITE_QUEUE / 2;
/// Bytes of messages that wait for the writer thread; beyond that the answer is `unavailable`. As many again may be on
/// their way to the shards.
pub(crate) const WRITE_QUEUE_BYTES: usize = 16 * 1024 * 1024;
const _: () =
    assert!(WRITE_QUEUE_BYTES > 16 * READ_BUDGET_BYTES, "the messages of one read always fit, and those of many do");
/// Commands in one transaction.
pub(crate) const COMMANDS_PER_COMMIT: usize = 1_024;
/// Writes of senders in one transaction, approximately: a command is not split.
pub(crate) const MESSAGES_PER_COMMIT: usize = 4_096;
/// Requests that wait for the reader thread.
pub(crate) const READ_QUEUE: usize = 4_096;
/// Pages of history that wait for the reader thread while it has other requests.
pub(crate) const PAGES_WAITING: usize = 1_024;
/// Sessions that are known to be live without asking the database.
pub(crate) const SESSIONS_KEPT: usize = 4_096;
/// If more sessions than this end at once, all are forgotten, and looked up again.
pub(crate) const SESSIONS_SOUGHT: usize = 64;
/// Pages that the reader thread keeps until the next commit that changes messages, and as many catch-ups.
pub(crate) const MEMO_ENTRIES: usize = 8;
/// Bytes of each, about: a page also counts encoded.
pub(crate) const MEMO_ENTRY_BYTES: usize = 128 * 1024;
/// Burst of log lines that the database fails: a command that fails by itself is one, and cannot fill the disk.
pub(crate) const FAILURE_LOG_BURST: u32 = 20;
/// Such log lines a second.
pub(crate) const FAILURE_LOG_RATE: u32 = 1;
/// Prepared statements that a connection to the database keeps: more than there are. The library keeps 16, fewer than
/// a reader uses in turn.
pub(crate) const STATEMENTS_KEPT: usize = 128;
/// Ids that are reserved on disk at a time, and skipped at most after an unclean end. Each time is one more write that
/// waits for the disk.
pub(crate) const IDS_RESERVED: i64 = 1_000;
/// How often to check whether the log can be moved into the database.
pub(crate) const SETTLE_INTERVAL: Duration = Duration::from_secs(5);
/// Time without a commit after which it is moved: a copy of the file alone has everything older.
pub(crate) const SETTLE_QUIET: Duration = Duration::from_secs(30);
/// Time after which it is moved in any case: with a few tries, no deleted text is in the log for longer than the five
/// minutes that the contract allows.
pub(crate) const SETTLE_AT_LAST: Duration = Duration::from_mins(4);
/// A clock further ahead than this counts as having jumped: more than a machine sleeps at lunch, and far less than the
/// life of anything that expires.
pub(crate) const CLOCK_JUMP: Duration = Duration::from_hours(1);
/// How long the clock has to stay ahead, while a server runs, until it is believed.
pub(crate) const CLOCK_JUMP_PROOF: Duration = Duration::from_hours(24);
/// How often it is written down what the clocks were.
pub(crate) const CLOCKS_KEPT: Duration = Duration::from_mins(30);
const _: () =
    assert!(2 * CLOCKS_KEPT.as_secs() <= CLOCK_JUMP.as_secs(), "a server that starts again soon sees no jump");
/// How long a request waits for an answer from the database.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long SQLite waits for a lock held by another process.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const _: () = assert!(
    2 * LOCK_TIMEOUT.as_secs() < STORE_TIMEOUT.as_secs(),
    "a locked database leads to an answer and not a timeout, even behind a commit that waits for the same lock"
);
/// The least time between two log lines about failing reads.
pub(crate) const FAULT_SAID_AGAIN: Duration = Duration::from_mins(1);
/// Bytes written to test whether the database works again: the longest message, at four bytes a character.
pub(crate) const PROOF_BYTES: u32 = 16_000;
const _: () = assert!(PROOF_BYTES as usize == 4 * CONTENT_MAX_CHARS, "a database with room for less is still full");
/// Sessions per user; beyond that the oldest ends.
pub(crate) const USER_SESSIONS_MAX: u32 = 256;
/// How long a session lives without use.
pub(crate) const SESSION_LIFETIME: Duration = Duration::from_hours(720);
/// Age of a session's recorded last use at which it is recorded again: a write for each request would wear out flash.
pub(crate) const SESSION_TOUCH: Duration = Duration::from_hours(1);
/// How long a nonce is remembered after its day is over, and so the least time it is remembered.
pub(crate) const NONCE_DAY: Duration = Duration::from_hours(24);
/// A commit of so many commands counts as one of many people: its nonces go to the small table.
pub(crate) const COMMANDS_OF_MANY: usize = if cfg!(test) { 2 } else { 128 };
/// Nonces in the small table before some are moved: about 1 MB, or 5 MB if all are as long as they may be. Unit tests use
/// a few, so that they see some moved.
pub(crate) const RECENT_NONCES: u32 = if cfg!(test) { 4 } else { 16_384 };
/// Nonces of a day that are read for its filter: some milliseconds of the writer's time, once for each
/// day and process.
pub(crate) const FILTERED_NONCES: u32 = if cfg!(test) { 8 } else { 16_384 };
/// Nonces that are moved at once: a few milliseconds.
pub(crate) const NONCES_MOVED_AT_ONCE: u32 = if cfg!(test) { 2 } else { 512 };
/// Rows removed by one round of cleaning, so that no commit waits noticeably.
pub(crate) const CLEAN_ROWS: u32 = 500;
/// The time between two rounds of cleaning while there is more to clean.
pub(crate) const CLEAN_PACE: Duration = Duration::from_secs(1);
/// The longest time between two rounds of cleaning.
pub(crate) const CLEAN_INTERVAL: Duration = Duration::from_mins(1);
/// Messages examined, and possibly removed, by one round of pruning, so that no commit waits noticeably.
pub(crate) const PRUNE_ROWS: u32 = 500;
/// The time between two rounds while there is more to prune: at most 20,000 messages a second are removed, more than
/// people write.
pub(crate) const PRUNE_PACE: Duration = Duration::from_millis(25);
/// How often pruning by age examines all messages instead of stopping at the first that is young enough: messages
/// stored while the clock was ahead hide older ones behind them. Retention is in days, so once a day is enough.
pub(crate) const PRUNE_ALL_INTERVAL: Duration = Duration::from_hours(24);
/// Messages examined by one round that removes the messages of a user.
pub(crate) const ERASE_ROWS: u32 = 2_000;
/// Pause before such a round is retried when the database is busy.
pub(crate) const ERASE_RETRY: Duration = Duration::from_secs(1);
/// How long a starting server, or a command that replaces the database, waits for the lock: both commands that read the
/// server's addresses and those that change something release it quickly.
pub(crate) const LOCK_FILE_PATIENCE: Duration = Duration::from_secs(1);
/// The time between two attempts to take the lock.
pub(crate) const LOCK_FILE_RETRY: Duration = Duration::from_millis(20);
/// Bytes of addresses read from a lock file: far more than any server needs.
pub(crate) const LOCK_FILE_MAX_BYTES: u64 = 64 * 1024;
/// Pages that a backup copies between two progress reports: 4 MiB.
pub(crate) const BACKUP_PAGES: i32 = 1_024;

// --- Administration ------------------------------------------------------------------------------------------------

/// Bytes of a line on the control socket: the longest contains a name and a password hash.
pub(crate) const CONTROL_LINE_MAX_BYTES: usize = 1_024;
/// Time for a command and its answer on the control socket.
pub(crate) const CONTROL_TIMEOUT: Duration = Duration::from_secs(10);
const _: () = assert!(
    STORE_TIMEOUT.as_secs() < CONTROL_TIMEOUT.as_secs(),
    "the database answers before the control socket times out"
);

// --- Rooms ---------------------------------------------------------------------------------------------------------

/// Time within which a message can be edited.
pub(crate) const EDIT_WITHIN: Duration = Duration::from_hours(24);
/// How long a picture waits for the message that names it.
pub(crate) const IMAGE_WAIT: Duration = Duration::from_hours(1);
/// Open rooms: every list of rooms contains all of them.
pub(crate) const OPEN_ROOMS_MAX: u32 = 500;
/// Private and direct rooms of one user.
pub(crate) const USER_ROOMS_MAX: u32 = 500;
/// Interval at which read positions are stored that no other commit has stored: a crash may lose 5 s of them.
pub(crate) const STORE_READS_INTERVAL: Duration = Duration::from_secs(3);
/// New direct rooms of one user per hour.
pub(crate) const DIRECT_ROOMS_AN_HOUR: u32 = 20;
/// Other rooms that one user may make at once: a class has one for each subject.
pub(crate) const ROOM_BURST: u32 = 100;
/// Rooms that one user may make in an hour after that. An empty one is removed within a day, a few in a minute.
pub(crate) const ROOMS_AN_HOUR: u32 = 30;
/// Changes of rooms and members that one user may make at once: everybody whom they concern reads the room again.
pub(crate) const ROOM_CHANGE_BURST: u32 = 200;
/// Those in a second after that.
pub(crate) const ROOM_CHANGE_RATE: u32 = 1;
/// Marks of typing and of reading that are taken from one user in a second, over all connections; more are ignored.
pub(crate) const ACTIVITY_RATE: u32 = 20;
/// Those that may come at once.
pub(crate) const ACTIVITY_BURST: u32 = 200;
/// Exports that one user may begin in an hour: each reads all messages.
pub(crate) const EXPORTS_AN_HOUR: u32 = 10;
/// Members that a room is created with; more are added one by one.
pub(crate) const NEW_MEMBERS_MAX: usize = 200;
/// Positions of readers that are kept in memory.
pub(crate) const READ_POSITIONS_MAX: usize = 16_384;
/// How long a room is kept after its last member has left.
pub(crate) const EMPTIED_ROOM_KEPT: Duration = Duration::from_hours(12);

// --- Passwords and rates -------------------------------------------------------------------------------------------

/// Passwords hashed at once: each takes 19 MiB and a core, or up to [`HASH_MEMORY_MAX_KIB`] if another program hashed
/// it.
pub(crate) const HASHES_AT_ONCE: usize = 2;
/// Bytes of memory below which passwords are hashed one after the other: two hashes take 38 MiB, and everything else
/// has to fit beside them.
pub(crate) const SMALL_MEMORY_BYTES: u64 = 64 * 1024 * 1024;
/// KiB that verifying a password may take. A stored hash says how much it needs, and the database may come from
/// anywhere: a hash that needs more than three times as much as ours matches no password.
pub(crate) const HASH_MEMORY_MAX_KIB: u32 = 64 * 1024;
/// Passes over that memory for verifying a password: five times as many as ours, about half a second.
pub(crate) const HASH_PASSES_MAX: u32 = 10;
/// Lanes of a stored hash; they are computed one after the other.
pub(crate) const HASH_LANES_MAX: u32 = 4;
/// Requests that wait for a hash; beyond that the answer is `unavailable`.
pub(crate) const HASHES_WAITING: usize = 64;
/// Addresses or users whose rates are remembered; beyond that new ones share one allowance.
pub(crate) const BUCKETS_MAX: usize = 16_384;

// --- Push ----------------------------------------------------------------------------------------------------------

/// Limits of notifications to closed browsers.
#[cfg(any(feature = "push", feature = "cluster"))]
#[cfg_attr(not(feature = "push"), allow(dead_code, reason = "a node that does not push has no use for most"))]
pub(crate) mod push {
    use std::time::Duration;

    /// Tests of the whole server run ten times as fast.
    const PACE: u64 = if cfg!(feature = "push-test") { 10 } else { 1 };

    /// Bytes of the text of a push, to which each is padded: a title, a line of a message, a room.
    pub(crate) const PUSH_TEXT_BYTES: usize = 1_024;
    /// Bytes of a push service's URL for a browser; those of today have 200 to 500.
    pub(crate) const PUSH_ENDPOINT_MAX_BYTES: usize = 2 * 1_024;
    /// How long a token for a push service is good: a day at most (RFC 8292 2), and clocks differ.
    pub(crate) const VAPID_TOKEN_LIFE: Duration = Duration::from_hours(12);
    /// How long a push service keeps a push for a device that is off, and how long a failing push is tried again.
    pub(crate) const PUSH_TTL: Duration = Duration::from_hours(24);
    /// Time between two pushes to one device.
    pub(crate) const PUSH_INTERVAL: Duration = Duration::from_millis(5_000 / PACE);
    /// Time before a push that failed is tried again; doubled with each failure.
    pub(crate) const PUSH_BACKOFF_MIN: Duration = PUSH_INTERVAL;
    /// The most that it is doubled to: a phone is notified within this time after the network is back.
    pub(crate) const PUSH_BACKOFF_MAX: Duration = Duration::from_mins(10);
    /// How old a message is when it is pushed: a person who reads it before that, on any device, is not disturbed.
    pub(crate) const PUSH_DELAY: Duration = Duration::from_millis(10_000 / PACE);
    /// Messages within this time count as equally old.
    pub(crate) const PUSH_MARK: Duration = Duration::from_millis(1_000 / PACE);
    /// Rooms with messages that are not pushed yet; beyond that the one that waits longest is forgotten.
    pub(crate) const PUSH_ROOMS_MAX: usize = 1_024;
    /// Characters of a message that a push shows: as many as a quote.
    pub(crate) const PUSH_LINE_MAX_CHARS: usize = 140;
    /// Pairs of a device and a room that wait for a push; beyond that the oldest are dropped.
    pub(crate) const PUSH_QUEUE_MAX: usize = 4_096;
    /// Pushes on their way at once.
    pub(crate) const PUSHES_AT_ONCE: usize = 16;
    /// Devices that the database names at once.
    pub(crate) const DEVICES_AT_ONCE: u32 = 1_000;
    /// Subscriptions of one user; those visited last stay.
    pub(crate) const USER_SUBSCRIPTIONS_MAX: u32 = 8;
    /// How long a subscription stays if its page is not opened.
    pub(crate) const SUBSCRIPTION_LIFETIME: Duration = Duration::from_hours(60 * 24);
    /// The most messages that a push counts.
    pub(crate) const PUSH_COUNTED_MAX: u32 = 1_000;
    /// Time for one push, from the look-up of the address to the answer.
    pub(crate) const PUSH_TIMEOUT: Duration = Duration::from_secs(10);
    /// Time in which an address has to answer before the next is tried.
    pub(crate) const PUSH_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
    /// Addresses of a push service that are tried.
    pub(crate) const PUSH_ADDRESSES_TRIED: usize = 3;
    /// Bytes of an answer that are read, interim heads (RFC 9110 15.2) included; if its own head does not end within
    /// them, the push has failed. The least that hyper accepts.
    pub(crate) const PUSH_ANSWER_MAX_BYTES: usize = 8 * 1_024;
    /// Headers of an answer.
    pub(crate) const PUSH_ANSWER_HEADERS_MAX: usize = 64;
    /// TLS sessions kept for resumption, which saves the push service and us the arithmetic of a handshake.
    pub(crate) const PUSH_TLS_SESSIONS: usize = 32;

    /// Bytes that are read of `/etc/hosts` and `/etc/resolv.conf`: far more than such files have.
    pub(crate) const DNS_FILE_MAX_BYTES: u64 = 64 * 1_024;
    /// Name servers that are asked: as many as the C library takes.
    pub(crate) const DNS_SERVERS_MAX: usize = 3;
    /// How often each of them is asked: as often as by the C library.
    pub(crate) const DNS_ATTEMPTS: usize = 2;
    /// Time for one answer: less than the C library's five seconds, since a push has ten in all.
    pub(crate) const DNS_TIMEOUT: Duration = Duration::from_secs(2);
    /// Bytes of an answer in a datagram (RFC 1035 4.2.1).
    pub(crate) const DNS_UDP_MAX_BYTES: usize = 512;
    /// Bytes of an answer over TCP: as many as its records can take.
    pub(crate) const DNS_TCP_MAX_BYTES: usize = 4 * 1_024;
    /// Records of an answer that are read: far more than a push service has addresses.
    pub(crate) const DNS_RECORDS_MAX: usize = 128;
    /// Aliases that are followed from a name to its addresses: names may point at each other without end.
    pub(crate) const DNS_ALIASES_MAX: usize = 8;
}

// --- Room on the disk -----------------------------------------------------------------------------------------------

/// Hundredths of the disk that stay free by default, but not more than [`MIN_FREE_BYTES`].
pub(crate) const MIN_FREE_PERCENT: u64 = 5;
/// The most bytes of the disk that stay free by default.
pub(crate) const MIN_FREE_BYTES: u64 = 256 * 1024 * 1024;
/// The least time between two looks at the disk.
pub(crate) const SPACE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

// --- Accounts ------------------------------------------------------------------------------------------------------

/// The limit of all names from one address, as a multiple of the limit of one name.
pub(crate) const AUTH_NAMES_PER_IP: u32 = 10;
/// Guesses at one name in any minute, from all addresses together.
pub(crate) const NAME_GUESSES_PER_MINUTE: u32 = 100;
/// How long a login waits while others guess at its name.
pub(crate) const LOGIN_PATIENCE: Duration = Duration::from_secs(5);
/// Logins that wait like this at once; the others are refused.
pub(crate) const LOGINS_WAITING: usize = 64;
/// Pairs of a name and an address with a successful login that are remembered.
pub(crate) const KNOWN_LOGINS_MAX: usize = 4_096;
/// Burst of accounts that one address may create without an invitation.
pub(crate) const REGISTRATION_BURST: u32 = 10;
/// Time until it may create one more.
pub(crate) const REGISTRATION_INTERVAL: Duration = Duration::from_mins(10);
/// The most invitations of one user that still work.
pub(crate) const USER_INVITES_MAX: u32 = 100;
/// Invitations in a list, and users listed for each of them.
pub(crate) const INVITES_LISTED_MAX: u32 = 200;
/// Messages that one step of an export looks at.
pub(crate) const EXPORT_ROWS: u32 = 500;
/// The most users of one invitation.
pub(crate) const INVITE_USES_MAX: u32 = 1_000;
/// How long an invitation works by default.
pub(crate) const INVITE_LIFETIME: Duration = Duration::from_hours(7 * 24);
/// How long an invitation works at most.
pub(crate) const INVITE_LIFETIME_MAX: Duration = Duration::from_hours(90 * 24);
/// Guesses of one's own password in a minute, by user.
pub(crate) const PASSWORD_RATE: u32 = 10;
/// Most characters of a server's name.
pub(crate) const NAME_MAX_CHARS: usize = 60;

// --- Pictures and search -------------------------------------------------------------------------------------------

/// Bytes of the largest picture that is accepted: the page shrinks pictures to less.
pub(crate) const IMAGE_MAX_BYTES: usize = 512 * 1024;
/// Most pixels on a side of a picture.
pub(crate) const IMAGE_MAX_PIXELS: u32 = 4_096;
/// Pictures that are received, or wait to be stored, at once: eight of the largest are 4 MiB.
pub(crate) const IMAGES_AT_ONCE: usize = 8;
/// Those of them that may be of one user.
pub(crate) const USER_IMAGES_AT_ONCE: usize = 2;
/// Most pictures of one user that are in no message yet.
pub(crate) const UNNAMED_IMAGES_MAX: u32 = 16;
/// Pictures that one user may send at once: those of a day out.
pub(crate) const IMAGE_BURST: u32 = 30;
/// Pictures that one user may send in an hour after that: of the largest 0.7 GB a day.
pub(crate) const IMAGES_AN_HOUR: u32 = 60;
/// The part of a picture that is held in memory while it is sent.
pub(crate) const IMAGE_PIECE_BYTES: u32 = 64 * 1024;
/// Pictures that one step of the cleaning removes.
pub(crate) const CLEAN_IMAGES: u32 = 8;
/// Bytes of pictures that it removes, unless the first has more: they are overwritten on the disk.
pub(crate) const CLEAN_IMAGE_BYTES: u32 = 256 * 1024;
/// Longest text to search for, in characters: a sentence.
pub(crate) const SEARCH_MAX_CHARS: usize = 100;
/// Messages that one search looks at: some milliseconds' worth. The client continues from there.
pub(crate) const SEARCH_ROWS: u32 = 10_000;
/// The longest that one search looks, if the disk is slow.
pub(crate) const SEARCH_TIME: Duration = Duration::from_millis(50);
/// Messages of a search by default.
pub(crate) const SEARCH_DEFAULT_MESSAGES: u32 = 20;
/// Most messages of a search.
pub(crate) const SEARCH_MAX_MESSAGES: u32 = 100;
/// Searches at once, each with a thread and a connection to the database; the others wait.
pub(crate) const SEARCHES_AT_ONCE: usize = 2;
/// Searches a second that one user may begin, with a burst of [`SEARCH_BURST`].
pub(crate) const SEARCH_RATE: u32 = 10;
/// Burst of searches of one user: a page may search as its user types.
pub(crate) const SEARCH_BURST: u32 = 100;

// --- Stopping ------------------------------------------------------------------------------------------------------

/// How long the server waits for its connections when it stops.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_millis(3_500);
const _: () = assert!(
    STORE_TIMEOUT.as_millis() < DRAIN_TIMEOUT.as_millis(),
    "clients waiting for a disk that hangs are still told that the server stops"
);
/// How often connections are told during that time, since an overrun shard may have missed it.
pub(crate) const DRAIN_RETRY: Duration = Duration::from_millis(100);
/// How long the server then waits for the database.
pub(crate) const DATABASE_TIMEOUT: Duration = Duration::from_secs(1);
const _: () = assert!(
    DRAIN_TIMEOUT.as_millis() + DATABASE_TIMEOUT.as_millis() < 5_000,
    "the contract allows five seconds for stopping"
);
