//! What nodes tell each other beside the log: who is online where, who types, how far each is.
//!
//! It travels core NATS, which loses what it cannot deliver, and nothing here is a promise. A node numbers its
//! words about people, and tells its last number every [`BEAT`]: a node that missed one asks for the whole list. A node
//! that has been silent for [`GONE_AFTER`] is gone, and its people with it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::entry::VERSION;
use super::nats::{Connection, Message, Subscription};
use super::node::{Failure, Node, Peer};
use crate::db::{Db, Position, Reads};
use crate::fan_out::{Local, Presence};
use crate::model::{MessageId, UserId, Username};
use crate::room::{Audience, RoomId};

/// Where nodes tell all others.
const SUBJECT: &str = "chinwag.presence";
/// Where nodes tell how far people have read.
const READ_SUBJECT: &str = "chinwag.read";
/// Where operators ask all nodes how they are.
pub(super) const STATUS_SUBJECT: &str = "chinwag.status";
/// Time between two words of a node that has nothing to tell.
const BEAT: Duration = Duration::from_secs(2);
/// Silence after which a node is gone: three beats.
const GONE_AFTER: Duration = Duration::from_secs(6);
/// Beats in a row at which more nodes must differ from this one than agree with it before it is this one that is wrong.
const DOUBTS: u32 = 2;
/// Beats in a row at which nothing was applied, though the log had more, before a node says that it is not well.
const STILL: u32 = 3;
/// Names in one answer about who is connected to a node.
const NAMES: usize = 1_000;
/// Answers that all of a node's people may take: a million of them.
const PAGES: usize = 1_000;
/// What waits to be told. Past it something is missed, and asked for.
const QUEUE: usize = 1_024;
/// Time for a node's answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Nodes that are listened to.
const NODES_MAX: usize = 64;

/// What a node says.
#[derive(Debug, Serialize, Deserialize)]
struct Word {
    /// Who says it.
    node: String,
    /// The log that it follows. One of another does not belong here; an older node does not say.
    #[serde(default)]
    log: Option<String>,
    /// How many of its people had come or gone by then, this one included.
    seq: u64,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Came(Username),
    Went(Username),
    Types {
        user: UserId,
        name: Username,
        room: RoomId,
    },
    Read {
        name: Username,
        room: RoomId,
        id: MessageId,
    },
    Beat(Beat),
    /// It stops.
    Bye,
}

/// How a node is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Beat {
    /// People who are connected to it.
    pub(super) users: usize,
    pub(super) applied: u64,
    pub(super) chain: String,
    /// The newest of the entries that it reads and writes.
    pub(super) version: u32,
    /// The flags that must be the same everywhere.
    pub(super) rules: String,
    /// Whether it pushes when it is its duty.
    #[serde(default)]
    pub(super) pushes: bool,
    /// Why it applies nothing, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failure: Option<String>,
}

/// A question for the people who are connected to a node: those after a name.
#[derive(Debug, Serialize, Deserialize)]
struct WhoIs {
    after: Option<Username>,
}

/// Some of them.
#[derive(Debug, Serialize, Deserialize)]
struct TheyAre {
    seq: u64,
    names: Vec<Username>,
    more: bool,
}

/// How far a user has read in a room.
#[derive(Debug, Serialize, Deserialize)]
struct ReadUpTo {
    node: String,
    /// The log that says what the room and the message are.
    #[serde(default)]
    log: Option<String>,
    user: UserId,
    room: RoomId,
    id: MessageId,
}

/// What was said to the tasks that say it.
enum Said {
    Came(u64, Username),
    Went(u64, Username),
    Types(UserId, Username, RoomId),
    Read(Username, RoomId, MessageId),
}

/// Another node, as this task knows it.
struct Known {
    id: Arc<str>,
    seq: u64,
    /// Whether something was missed, and who is there is not known.
    is_stale: bool,
    /// Whether it has said how it is.
    is_met: bool,
}

/// Tells other nodes of ours and listens to theirs, for good.
pub(super) async fn keep(node: Arc<Node>, presence: Arc<Presence>, rules: String, db: Db, reads: Reads) {
    let (sender, said) = mpsc::channel(QUEUE);
    let seq = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&seq);
    presence.tell_others(Box::new(move |local| {
        // Called under the lock of who is online, so that the numbers are in order.
        let next = || counted.fetch_add(1, Ordering::Relaxed) + 1;
        let said = match local {
            Local::Came(name) => Said::Came(next(), name.clone()),
            Local::Went(name) => Said::Went(next(), name.clone()),
            Local::Types(user, name, room) => Said::Types(user, name.clone(), room),
            Local::Read(name, room, id) => Said::Read(name.clone(), room, id),
        };
        // What does not fit is missing in the numbers, and asked for.
        drop(sender.try_send(said));
    }));
    let mut watch =
        Watch { node, presence, rules, seq, known: HashMap::new(), doubts: 0, applied: 0, still: 0, said, db, reads };
    loop {
        let connection = tokio::select! {
            connection = watch.node.link.connected() => connection,
            () = tokio::time::sleep(BEAT) => {
                watch.forget_the_silent();
                continue;
            }
        };
        drop(watch.attend(&connection).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

struct Watch {
    node: Arc<Node>,
    presence: Arc<Presence>,
    rules: String,
    /// How many of our people have come or gone.
    seq: Arc<AtomicU64>,
    known: HashMap<Box<str>, Known>,
    doubts: u32,
    /// What was applied at the last beat.
    applied: u64,
    /// Beats in a row at which it was no more, though the log had more.
    still: u32,
    said: mpsc::Receiver<Said>,
    db: Db,
    /// How far people have read here.
    reads: Reads,
}

impl Watch {
    /// Listens and tells until the connection ends.
    async fn attend(&mut self, connection: &Connection) -> Result<(), super::nats::Error> {
        let questions = connection.subscribe(&format!("{SUBJECT}.{}", self.node.id))?;
        // At the same time: two nodes may ask each other, and both wait.
        let answering = answer(connection, questions, Arc::clone(&self.presence), Arc::clone(&self.seq));
        tokio::select! {
            ended = self.listen(connection) => ended,
            ended = answering => ended,
        }
    }

    async fn listen(&mut self, connection: &Connection) -> Result<(), super::nats::Error> {
        let mut words = connection.subscribe(SUBJECT)?;
        let mut operators = connection.subscribe(STATUS_SUBJECT)?;
        let mut positions = connection.subscribe(READ_SUBJECT)?;
        let mut beats = tokio::time::interval(BEAT);
        let since = Instant::now();
        #[cfg(feature = "push")]
        let mut turn = super::duty::Turn::default();
        let mut stopping = self.node.stopping.subscribe();
        loop {
            tokio::select! {
                _ = beats.tick() => {
                    self.look_at_progress();
                    self.say(connection, What::Beat(self.beat()))?;
                    self.forget_the_silent();
                    self.judge();
                    if since.elapsed() > GONE_AFTER {
                        self.node.speak_as_all();
                    }
                    if !self.node.takes_entries.load(Ordering::Relaxed) {
                        // Where nobody writes, nothing else would show that the log takes entries again.
                        tokio::spawn(probe(self.db.clone()));
                    }
                    #[cfg(feature = "push")]
                    turn.look(&self.node, self.failure().is_none(), GONE_AFTER);
                    self.ask_the_unknown(connection).await;
                }
                Some((user, room, id)) = self.reads.recv() => {
                    let (node, log) = (self.node.id.to_string(), Some(self.node.followed.log.clone()));
                    let read = ReadUpTo { node, log, user, room, id };
                    connection.publish(READ_SUBJECT, &serde_json::to_vec(&read).expect("numbers"))?;
                }
                position = positions.next() => match position {
                    Some(message) => self.take_position(&message),
                    None => return Ok(()),
                },
                Some(said) = self.said.recv() => self.pass_on(connection, said)?,
                word = words.next() => match word {
                    Some(message) => self.hear(&message.payload),
                    None => return Ok(()),
                },
                question = operators.next() => match question {
                    Some(message) => self.report(connection, &message)?,
                    None => return Ok(()),
                },
                // The reference that it resolves to must not be held meanwhile.
                () = async { drop(stopping.wait_for(|stopping| *stopping).await) } => {
                    self.say(connection, What::Bye)?;
                    return std::future::pending().await;
                }
            }
        }
    }

    fn say(&self, connection: &Connection, what: What) -> Result<(), super::nats::Error> {
        self.say_at(connection, self.seq.load(Ordering::Relaxed), what)
    }

    fn say_at(&self, connection: &Connection, seq: u64, what: What) -> Result<(), super::nats::Error> {
        let log = Some(self.node.followed.log.clone());
        let word = Word { node: self.node.id.to_string(), log, seq, what };
        connection.publish(SUBJECT, &serde_json::to_vec(&word).expect("names and numbers"))
    }

    fn pass_on(&self, connection: &Connection, said: Said) -> Result<(), super::nats::Error> {
        match said {
            Said::Came(seq, name) => self.say_at(connection, seq, What::Came(name)),
            Said::Went(seq, name) => self.say_at(connection, seq, What::Went(name)),
            Said::Types(user, name, room) => self.say(connection, What::Types { user, name, room }),
            Said::Read(name, room, id) => self.say(connection, What::Read { name, room, id }),
        }
    }

    /// Sees whether what the log has is applied here: a disk may be full, or hang.
    fn look_at_progress(&mut self) {
        let applied = self.node.progress.position().applied;
        let is_still = applied == std::mem::replace(&mut self.applied, applied) && self.node.behind() > 0;
        self.still = if is_still { self.still.saturating_add(1) } else { 0 };
    }

    /// Why nothing is applied here, if so.
    fn failure(&self) -> Option<String> {
        let failure = self.node.failure.borrow().as_ref().map(|failure| failure.reason().to_owned());
        failure.or_else(|| (self.still >= STILL).then(|| "it applies nothing, though the log has more".into()))
    }

    fn beat(&self) -> Beat {
        let Position { applied, chain } = self.node.progress.position();
        let failure = self.failure();
        let users = self.presence.count_here();
        #[cfg(feature = "push")]
        let pushes = self.node.pushing.takes_part();
        #[cfg(not(feature = "push"))]
        let pushes = false;
        let (chain, rules) = (format!("{chain:016x}"), self.rules.clone());
        Beat { users, applied, chain, version: VERSION, rules, pushes, failure }
    }

    /// Takes in what another node says.
    fn hear(&mut self, word: &[u8]) {
        let Ok(Word { node: id, log, seq, what }) = serde_json::from_slice(word) else {
            tracing::debug!("a node says something that is not understood");
            return;
        };
        let is_of_another_log = log.is_some_and(|log| log != self.node.followed.log);
        if is_of_another_log
            || *id == *self.node.id
            || (!self.known.contains_key(&*id) && self.known.len() >= NODES_MAX)
        {
            return;
        }
        if matches!(what, What::Bye) {
            return self.forget(&id);
        }
        let known = self.known.entry(id.clone().into()).or_insert_with(|| Known {
            id: id.as_str().into(),
            seq: 0,
            is_stale: true,
            is_met: false,
        });
        let now = Instant::now();
        let mut peers = self.node.peers();
        peers.entry(id.clone().into()).or_insert(Peer::heard_at(now)).heard_at = now;
        drop(peers);
        match what {
            What::Came(name) | What::Went(name) if known.is_stale || seq != known.seq + 1 => {
                // Some are missing before it, or it is one of those that were asked for already.
                known.is_stale |= seq > known.seq;
                drop(name);
            }
            What::Came(name) => {
                known.seq = seq;
                self.presence.came_elsewhere(&known.id, &name);
            }
            What::Went(name) => {
                known.seq = seq;
                self.presence.went_elsewhere(&id, &name);
            }
            What::Types { user, name, room } => {
                self.presence.types_elsewhere((user, &name), (room, audience_of(&self.db, room)));
            }
            What::Read { name, room, id } => {
                self.presence.read_elsewhere(&name, (room, audience_of(&self.db, room)), id);
            }
            What::Beat(beat) => {
                known.is_stale |= seq != known.seq || beat.users != self.presence.count_elsewhere(&id);
                if let Some(peer) = self.node.peers().get_mut(&*id) {
                    peer.is_well = beat.failure.is_none();
                    (peer.applied, peer.version) = (beat.applied, beat.version);
                    #[cfg(feature = "push")]
                    {
                        peer.pushes = beat.pushes;
                    }
                }
                let Ok(chain) = u64::from_str_radix(&beat.chain, 16) else { return };
                self.node.compare(&id, Position { applied: beat.applied, chain });
                if !std::mem::replace(&mut known.is_met, true) {
                    self.greet(&id, &beat);
                }
            }
            What::Bye => {}
        }
    }

    /// Says that a node is here, and what of it is not as ours.
    fn greet(&self, id: &str, Beat { applied, version, rules, .. }: &Beat) {
        tracing::info!(node = id, applied, "another node is here");
        if *rules != self.rules {
            tracing::warn!(node = id, theirs = rules, ours = self.rules, "its flags are not as ours");
        }
        if *version != VERSION {
            tracing::warn!(
                node = id,
                theirs = version,
                ours = VERSION,
                "it reads other entries: what the older nodes do not know is refused until they are upgraded"
            );
        }
    }

    /// Takes in how far somebody has read at another node.
    fn take_position(&self, message: &Message) {
        if let Ok(ReadUpTo { node, log, user, room, id }) = serde_json::from_slice(&message.payload)
            && *node != *self.node.id
            && log.is_none_or(|log| log == self.node.followed.log)
        {
            self.db.note_read_elsewhere(user, room, id);
        }
    }

    /// Asks the nodes of which something was missed who is connected to them: all at once, and for a beat at most, since
    /// this node must not seem to be gone meanwhile.
    async fn ask_the_unknown(&mut self, connection: &Connection) {
        let mut asked = JoinSet::new();
        for id in self.known.values().filter(|known| known.is_stale).map(|known| Arc::clone(&known.id)) {
            let connection = connection.clone();
            asked.spawn(async move { who_is_at(&connection, &id).await.map(|(names, seq)| (id, names, seq)) });
        }
        let until = tokio::time::Instant::now() + BEAT;
        while let Ok(Some(answered)) = tokio::time::timeout_at(until, asked.join_next()).await {
            let Ok(Some((id, names, seq))) = answered else { continue };
            self.presence.all_elsewhere(&id, &names);
            if let Some(known) = self.known.get_mut(&*id) {
                (known.seq, known.is_stale) = (seq, false);
            }
        }
    }

    fn report(&self, connection: &Connection, question: &Message) -> Result<(), super::nats::Error> {
        let Some(reply) = &question.reply else { return Ok(()) };
        let word = Word {
            node: self.node.id.to_string(),
            log: Some(self.node.followed.log.clone()),
            seq: self.seq.load(Ordering::Relaxed),
            what: What::Beat(self.beat()),
        };
        connection.publish(reply, &serde_json::to_vec(&word).expect("names and numbers"))
    }

    fn forget(&mut self, id: &str) {
        if self.known.remove(id).is_some() {
            tracing::info!(node = id, "another node is gone");
            self.node.peers().remove(id);
            self.presence.all_elsewhere(&id.into(), &BTreeSet::new());
        }
    }

    fn forget_the_silent(&mut self) {
        let is_silent = |peer: &Peer| peer.heard_at.elapsed() > GONE_AFTER;
        let silent: Vec<_> =
            self.node.peers().iter().filter(|(_, peer)| is_silent(peer)).map(|(id, _)| id.clone()).collect();
        for id in silent {
            self.forget(&id);
        }
    }

    /// Sees whether this database is the one that differs from the others. One of two cannot tell, and neither goes on.
    fn judge(&mut self) {
        let peers = self.node.peers();
        let differing = peers.values().filter(|peer| !peer.agrees).count();
        // It agrees with itself.
        let agreeing = peers.len() - differing + 1;
        drop(peers);
        self.doubts = if differing >= agreeing { self.doubts + 1 } else { 0 };
        if differing > 0 {
            tracing::error!(differing, agreeing, "databases of nodes differ, though they applied the same log");
        }
        if self.doubts >= DOUBTS {
            self.node.fail(Failure::Node(
                "its database differs from those of the other nodes: start from a backup of one of them".into(),
            ));
        }
    }
}

/// Has an entry published.
async fn probe(db: Db) {
    // What comes of it the publisher notes.
    db.barrier().await.ok();
}

/// Who is told of what happens in a room, as far as it is applied here.
fn audience_of(db: &Db, room: RoomId) -> Audience {
    if db.is_open(room) { Audience::Everyone } else { Audience::Members(room) }
}

/// Answers other nodes who is connected to this one.
async fn answer(
    connection: &Connection,
    mut questions: Subscription,
    presence: Arc<Presence>,
    seq: Arc<AtomicU64>,
) -> Result<(), super::nats::Error> {
    while let Some(question) = questions.next().await {
        let (Some(reply), Ok(WhoIs { after })) = (&question.reply, serde_json::from_slice(&question.payload)) else {
            continue;
        };
        // Before the names: what changes meanwhile is told again, and not left out.
        let seq = seq.load(Ordering::Relaxed);
        let (names, more) = presence.connected_here(after.as_ref(), NAMES);
        let answer = TheyAre { seq, names, more };
        connection.publish(reply, &serde_json::to_vec(&answer).expect("names and numbers"))?;
    }
    Ok(())
}

/// Everybody who is connected to a node, and how many had come or gone there by then.
async fn who_is_at(connection: &Connection, id: &str) -> Option<(BTreeSet<Username>, u64)> {
    let (mut all, mut first_seq, mut after) = (BTreeSet::new(), None, None);
    for _ in 0..PAGES {
        let question = serde_json::to_vec(&WhoIs { after }).expect("a name");
        let answer = connection.request(&format!("{SUBJECT}.{id}"), &question, PATIENCE).await.ok()?;
        let TheyAre { seq, names, more } = serde_json::from_slice(&answer.payload).ok()?;
        let first_seq = *first_seq.get_or_insert(seq);
        after = names.last().cloned();
        all.extend(names);
        if !more {
            return Some((all, first_seq));
        }
    }
    None
}

/// How each node of a log is that answers in time.
pub(super) async fn ask_all(
    connection: &Connection,
    log: Option<&str>,
) -> Result<Vec<(String, Beat)>, super::nats::Error> {
    let inbox = super::nats::new_inbox();
    let mut answers = connection.subscribe(&inbox)?;
    connection.publish_asking(STATUS_SUBJECT, &inbox)?;
    let mut nodes = Vec::new();
    let collected = async {
        while let Some(answer) = answers.next().await {
            if let Ok(Word { node, log: theirs, what: What::Beat(beat), .. }) = serde_json::from_slice(&answer.payload)
                && theirs.is_none_or(|theirs| log.is_none_or(|log| theirs == log))
            {
                nodes.push((node, beat));
            }
        }
    };
    drop(tokio::time::timeout(PATIENCE, collected).await);
    nodes.sort_by(|one, two| one.0.cmp(&two.0));
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::node::tests::lone_with_database;
    use crate::fan_out::Hub;

    fn watch() -> Watch {
        let (node, db, reads) = lone_with_database();
        Watch {
            node: Arc::new(node),
            presence: Arc::new(Presence::new(Hub::new(), 0)),
            rules: String::new(),
            seq: Arc::default(),
            known: HashMap::new(),
            doubts: 0,
            applied: 0,
            still: 0,
            said: mpsc::channel(1).1,
            db,
            reads,
        }
    }

    fn hear(watch: &mut Watch, seq: u64, what: What) {
        let log = watch.node.followed.log.clone();
        hear_from(watch, "b", log, seq, what);
    }

    fn hear_from(watch: &mut Watch, node: &str, log: String, seq: u64, what: What) {
        let word = Word { node: node.into(), log: Some(log), seq, what };
        watch.hear(&serde_json::to_vec(&word).unwrap());
    }

    fn beat(users: usize) -> What {
        let chain = "0".repeat(16);
        What::Beat(Beat { users, applied: 0, chain, version: 1, rules: String::new(), pushes: false, failure: None })
    }

    #[test]
    fn a_word_counts_if_it_is_the_next_and_after_a_gap_the_node_is_asked() {
        let (mut watch, ada) = (watch(), Username::parse("ada").unwrap());
        let came = || What::Came(ada.clone());
        let went = || What::Went(ada.clone());
        // Whether ada is there; the last word that counted, and whether the node is to be asked.
        let seen = |watch: &Watch| {
            let known = &watch.known["b"];
            (watch.presence.is_online(&ada), known.seq, known.is_stale)
        };
        hear(&mut watch, 1, came());
        assert_eq!(seen(&watch), (false, 0, true), "who else is there is not known yet");
        let answered = |watch: &mut Watch| watch.known.get_mut("b").unwrap().is_stale = false;
        answered(&mut watch);
        hear(&mut watch, 1, came());
        assert_eq!(seen(&watch), (true, 1, false));
        hear(&mut watch, 1, went());
        assert_eq!(seen(&watch), (true, 1, false), "an old word");
        hear(&mut watch, 3, went());
        assert_eq!(seen(&watch), (true, 1, true), "one is missing");
        answered(&mut watch);
        hear(&mut watch, 2, went());
        assert_eq!(seen(&watch), (false, 2, false));
        for (seq, users, is_stale) in [(2, 0, false), (2, 1, true), (3, 0, true)] {
            answered(&mut watch);
            hear(&mut watch, seq, beat(users));
            assert_eq!(seen(&watch), (false, 2, is_stale), "{seq} {users}");
        }
        hear(&mut watch, 2, What::Bye);
        assert!(watch.known.is_empty() && watch.node.peers().is_empty());
    }

    #[test]
    fn what_this_node_says_and_what_is_said_of_another_log_is_passed_over() {
        let mut watch = watch();
        let (id, log) = (watch.node.id.to_string(), watch.node.followed.log.clone());
        for (node, log, count) in [(&id[..], log.clone(), 0), ("b", "another".into(), 0), ("b", log, 1)] {
            hear_from(&mut watch, node, log, 0, beat(0));
            assert_eq!(watch.known.len(), count);
        }
    }

    #[test]
    fn only_so_many_nodes_are_listened_to() {
        let mut watch = watch();
        let log = watch.node.followed.log.clone();
        let mut hear = |node: usize| {
            hear_from(&mut watch, &node.to_string(), log.clone(), 0, beat(0));
            watch.known.len()
        };
        let counts: Vec<_> = (1..=NODES_MAX + 2).map(&mut hear).collect();
        assert_eq!(counts[NODES_MAX - 2..], [NODES_MAX - 1, NODES_MAX, NODES_MAX, NODES_MAX]);
        watch.known.get_mut("1").unwrap().is_met = false;
        hear_from(&mut watch, "1", log, 0, beat(0));
        assert!(watch.known["1"].is_met, "one that is known is heard");
    }

    #[test]
    fn a_node_that_applies_nothing_though_the_log_has_more_says_so() {
        let mut watch = watch();
        let peer = Peer { applied: 9, ..Peer::heard_at(Instant::now()) };
        watch.node.peers().insert("b".into(), peer);
        for _ in 0..STILL {
            assert_eq!(watch.failure(), None);
            watch.look_at_progress();
        }
        assert!(watch.failure().is_some_and(|failure| failure.contains("applies nothing")));
        watch.node.peers().clear();
        watch.look_at_progress();
        assert_eq!(watch.failure(), None);
        watch.node.fail(Failure::Node("the disk".into()));
        assert_eq!(watch.failure().as_deref(), Some("the disk"));
    }

    #[test]
    fn a_node_whose_database_differs_from_as_many_as_it_is_like_stops() {
        let mut watch = watch();
        let peer = |agrees| Peer { agrees, ..Peer::heard_at(Instant::now()) };
        for (id, agrees) in [("a", true), ("b", false)] {
            watch.node.peers().insert(id.into(), peer(agrees));
        }
        for _ in 0..=DOUBTS {
            watch.judge();
            assert!(watch.node.is_sound(), "two agree");
        }
        watch.node.peers().insert("c".into(), peer(false));
        watch.judge();
        assert!(watch.node.is_sound(), "once may be a mistake");
        watch.judge();
        assert!(!watch.node.is_sound());
    }
}
