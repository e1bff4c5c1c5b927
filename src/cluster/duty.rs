//! Which node sends the pushes, and what it must know of the other nodes.
//!
//! Every node derives from the log which devices a message is to be pushed to, and keeps that list until the pushes are
//! sent. One node sends them: among those that push and are well, the one with the lowest id, which has run longest. It
//! asks the other nodes who looks at the page there, and tells them which pushes it has sent, so that a node that takes
//! its place goes on with the rest. A push that was sent but not yet told of is sent once more; none is left out.
//!
//! A node takes that place only after it has been the first for as long as it takes to count another node as gone: by
//! then it has heard of the nodes before it, and the last push of the other is long enough ago. It sends only what is
//! still due after it has passed the [barrier](super::barrier), so a node that is cut off sends nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::nats::{Connection, Error, Message};
use super::node::Node;
use crate::db::{Db, DeviceId, News};
use crate::limits::push::PUSH_QUEUE_MAX;
use crate::model::{MessageId, UserId};
use crate::room::RoomId;

/// Where the node that pushes tells the others what it has sent.
const TOLD_SUBJECT: &str = "chinwag.told";
/// Below it a node is asked, by its id, who looks at the page there.
const SIGHT_SUBJECT: &str = "chinwag.sight";
/// Time for a node's answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says when a page in sight of a user was last heard from.
pub(crate) type Eyes = Box<dyn Fn(UserId) -> Option<Instant> + Send + Sync>;

/// Up to which message of a room a device was pushed to, or need not be any more.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    /// The log that says what the device, the room and the message are.
    #[serde(default)]
    log: Option<String>,
    device: DeviceId,
    room: RoomId,
    up_to: MessageId,
}

/// The question whether a user looks at the page at a node that has shown the messages up to this one.
#[derive(Debug, Serialize, Deserialize)]
struct InSight {
    user: UserId,
    up_to: MessageId,
}

/// Milliseconds since a page in sight was heard from; none if there is no such page.
#[derive(Debug, Serialize, Deserialize)]
struct Heard {
    ago: Option<u64>,
}

/// A node's part in pushing.
#[derive(Debug, Default)]
pub(super) struct Pushing {
    takes_part: AtomicBool,
    is_ours: AtomicBool,
    /// Up to which message of a room each device was pushed to, by any node. At most [`PUSH_QUEUE_MAX`] are kept, as many
    /// as may wait; then the one that is furthest behind is dropped.
    told: Mutex<BTreeMap<(DeviceId, RoomId), MessageId>>,
}

impl Pushing {
    pub(super) fn take_part(&self) {
        self.takes_part.store(true, Ordering::Relaxed);
    }

    pub(super) fn takes_part(&self) -> bool {
        self.takes_part.load(Ordering::Relaxed)
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<(DeviceId, RoomId), MessageId>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, Told { device, room, up_to, .. }: &Told) {
        let mut told = self.told();
        let known = told.entry((*device, *room)).or_insert(*up_to);
        *known = (*known).max(*up_to);
        if told.len() > PUSH_QUEUE_MAX
            && let Some(oldest) = told.iter().min_by_key(|(_, up_to)| **up_to).map(|(key, _)| *key)
        {
            told.remove(&oldest);
        }
    }
}

/// Whether it is this node that pushes, as seen on one connection.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Since when this node has been the first.
    first_since: Option<Instant>,
}

impl Turn {
    /// Decides it; `settled` is how long this node must have been the first, and well.
    pub(super) fn look(&mut self, node: &Node, is_well: bool, settled: Duration) {
        let peers = node.peers();
        let is_behind_another = peers.iter().any(|(id, peer)| peer.pushes && peer.is_well && *id < node.id);
        drop(peers);
        let is_first = is_well && node.pushing.takes_part() && !is_behind_another;
        self.first_since = is_first.then(|| self.first_since.unwrap_or_else(Instant::now));
        let is_ours = self.first_since.is_some_and(|since| since.elapsed() >= settled);
        if node.pushing.is_ours.swap(is_ours, Ordering::Relaxed) != is_ours {
            let what = if is_ours { "this node pushes for all" } else { "this node does not push any more" };
            tracing::info!("{what}");
        }
    }
}

/// Answers the other nodes' questions about who looks at the page here, and notes what they have sent. Never returns.
pub(super) async fn keep(node: Arc<Node>, db: Db, eyes: Eyes) {
    loop {
        let connection = node.link.connected().await;
        drop(attend(&node, &connection, &db, &eyes).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Until the connection ends.
async fn attend(node: &Node, connection: &Connection, db: &Db, eyes: &Eyes) -> Result<(), Error> {
    let mut told = connection.subscribe(TOLD_SUBJECT)?;
    let mut questions = connection.subscribe(&format!("{SIGHT_SUBJECT}.{}", node.id))?;
    loop {
        tokio::select! {
            message = told.next() => match message {
                Some(message) => {
                    if let Ok(told) = serde_json::from_slice::<Told>(&message.payload)
                        && told.log.as_ref().is_none_or(|log| *log == node.followed.log)
                    {
                        node.pushing.note(&told);
                    }
                }
                None => return Ok(()),
            },
            question = questions.next() => match question {
                Some(question) => answer(connection, &question, db, eyes)?,
                None => return Ok(()),
            },
        }
    }
}

fn answer(connection: &Connection, question: &Message, db: &Db, eyes: &Eyes) -> Result<(), Error> {
    let (Some(reply), Ok(InSight { user, up_to })) = (&question.reply, serde_json::from_slice(&question.payload))
    else {
        return Ok(());
    };
    // A page that has not been sent the message does not show it.
    let heard_at = if db.last_id() < up_to { None } else { eyes(user) };
    let ago = heard_at.map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX));
    connection.publish(reply, &serde_json::to_vec(&Heard { ago }).expect("a number"))
}

/// The duty to push, which one node has at a time.
#[derive(Debug, Clone)]
pub(crate) struct Duty {
    node: Arc<Node>,
    db: Db,
}

impl Duty {
    pub(super) fn new(node: Arc<Node>, db: Db) -> Self {
        Self { node, db }
    }

    /// Whether this node has it, and has applied all that was written.
    pub(crate) async fn is_ours(&self) -> bool {
        let is_ours = || self.node.pushing.is_ours.load(Ordering::Relaxed);
        is_ours() && self.db.pass_barrier().await.is_ok() && is_ours()
    }

    /// The part of some news that no node has told the device yet.
    pub(crate) fn untold(&self, device: DeviceId, news: News) -> Option<News> {
        let told = self.node.pushing.told().get(&(device, news.room)).copied();
        let news = News { after: told.map_or(news.after, |told| told.max(news.after)), ..news };
        (news.after < news.up_to).then_some(news)
    }

    /// Tells the other nodes that the device was told of some news, or need not be.
    pub(crate) fn has_told(&self, device: DeviceId, News { room, up_to, .. }: News) {
        let told = Told { log: Some(self.node.followed.log.clone()), device, room, up_to };
        self.node.pushing.note(&told);
        if let Some(connection) = self.node.link.current() {
            // If this is lost, another node may tell the device once more.
            connection.publish(TOLD_SUBJECT, &serde_json::to_vec(&told).expect("numbers")).ok();
        }
    }

    /// When a page that the user looks at, and that has shown the messages up to this one, was last heard from at another
    /// node.
    ///
    /// # Errors
    /// If a node does not answer: it soon does, or is counted as gone.
    pub(crate) async fn heard_elsewhere(&self, user: UserId, up_to: MessageId) -> Result<Option<Instant>, Error> {
        let connection = self.node.link.current().ok_or(Error::Lost)?;
        let question = serde_json::to_vec(&InSight { user, up_to }).expect("numbers");
        let others: Vec<_> =
            self.node.peers().iter().filter(|(_, peer)| peer.pushes).map(|(id, _)| id.clone()).collect();
        let mut last = None;
        for id in others {
            let asked_at = Instant::now();
            let answer = connection.request(&format!("{SIGHT_SUBJECT}.{id}"), &question, PATIENCE).await?;
            let Ok(Heard { ago }) = serde_json::from_slice(&answer.payload) else { continue };
            last = last.max(ago.and_then(|ago| asked_at.checked_sub(Duration::from_millis(ago))));
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::node::{Peer, tests::lone};

    #[test]
    fn a_node_that_says_it_is_not_well_is_not_waited_for() {
        let (node, mut turn) = (lone(), Turn::default());
        turn.look(&node, true, Duration::ZERO);
        assert!(!node.pushing.is_ours.load(Ordering::Relaxed), "one that does not push");
        node.pushing.take_part();
        let mut look = |is_well, peer_is_well| {
            let peer = Peer { pushes: true, is_well: peer_is_well, ..Peer::heard_at(Instant::now()) };
            node.peers().insert("0".into(), peer);
            turn.look(&node, is_well, Duration::ZERO);
            (node.pushing.is_ours.load(Ordering::Relaxed), node.is_first())
        };
        assert_eq!(look(true, true), (false, false));
        assert_eq!(look(true, false), (true, true));
        assert_eq!(look(true, true), (false, false));
        // Who is not well itself passes no barrier; and later it starts to wait as one that has just come.
        assert!(!look(false, false).0);
    }

    #[test]
    fn of_too_much_that_was_told_the_oldest_is_forgotten() {
        let pushing = Pushing::default();
        let most = i64::try_from(PUSH_QUEUE_MAX).unwrap();
        for number in 1..=most + 3 {
            let (device, room, up_to) = (DeviceId(number), RoomId(1), MessageId::new(number));
            pushing.note(&Told { log: None, device, room, up_to });
        }
        let told = pushing.told();
        assert_eq!((told.len(), told.first_key_value().unwrap().1.get()), (PUSH_QUEUE_MAX, 4));
    }
}
