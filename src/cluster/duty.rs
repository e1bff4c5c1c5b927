//! Which node pushes, and what it has to know of the others for that.
//!
//! Every node derives from the log whom a message is to be pushed to, and keeps that until it is done. One of them does
//! it: of the nodes that push the first by its id, which is the one that has been there longest. It asks the others
//! who looks at the page there, and tells them what is done; so a node that takes its place goes on with the rest. What
//! was done and not told is done once more, and nothing is left out.
//!
//! A node takes the place once it has been the first for as long as makes another one gone: by then it has heard of
//! those before it, and the other's last push is longer ago than two pushes must be apart. And it pushes only what it
//! finds still to be done after it has passed the [barrier](super::barrier): a node that is cut off pushes nothing.

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

/// Where the node that pushes tells what is done.
const TOLD_SUBJECT: &str = "chinwag.told";
/// Below it a node is asked, by its id, who looks at the page there.
const SIGHT_SUBJECT: &str = "chinwag.sight";
/// Time for a node's answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says when a page in sight of a user was last heard from.
pub(crate) type Eyes = Box<dyn Fn(UserId) -> Option<Instant> + Send + Sync>;

/// What a device was told of, or need not be told of any more: a room, up to a message.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    device: DeviceId,
    room: RoomId,
    up_to: MessageId,
}

/// Whether a user looks at the page at a node that has shown messages up to one.
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
    /// Up to where devices were told of rooms, by whichever node. Of [`PUSH_QUEUE_MAX`], as many as may wait, the one
    /// that is furthest behind makes room.
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

    fn note(&self, Told { device, room, up_to }: &Told) {
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

/// Whose turn it is to push, as it is seen on one connection.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Since when this node has been the first.
    first_since: Option<Instant>,
}

impl Turn {
    /// Looks whether it is this node's; `settled` is how long it must have been the first.
    pub(super) fn look(&mut self, node: &Node, settled: Duration) {
        let is_first = node.pushing.takes_part() && !node.peers().iter().any(|(id, peer)| peer.pushes && *id < node.id);
        self.first_since = is_first.then(|| self.first_since.unwrap_or_else(Instant::now));
        let is_ours = self.first_since.is_some_and(|since| since.elapsed() >= settled);
        if node.pushing.is_ours.swap(is_ours, Ordering::Relaxed) != is_ours {
            let what = if is_ours { "this node pushes for all" } else { "this node does not push any more" };
            tracing::info!("{what}");
        }
    }
}

/// Answers other nodes who looks at the page here, and takes in what they have told, for good.
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
                    if let Ok(told) = serde_json::from_slice(&message.payload) {
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
    // Who looks at a page that has not got the message has not seen it.
    let heard_at = if db.last_id() < up_to { None } else { eyes(user) };
    let ago = heard_at.map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX));
    connection.publish(reply, &serde_json::to_vec(&Heard { ago }).expect("a number"))
}

/// The duty to push, which is one node's at a time.
#[derive(Debug, Clone)]
pub(crate) struct Duty {
    node: Arc<Node>,
    db: Db,
}

impl Duty {
    pub(super) fn new(node: Arc<Node>, db: Db) -> Self {
        Self { node, db }
    }

    /// Whether it is this node's, and all that was written is applied here.
    pub(crate) async fn is_ours(&self) -> bool {
        let is_ours = || self.node.pushing.is_ours.load(Ordering::Relaxed);
        is_ours() && self.db.pass_barrier().await.is_ok() && is_ours()
    }

    /// What of some news a device has not been told of by any node.
    pub(crate) fn untold(&self, device: DeviceId, news: News) -> Option<News> {
        let told = self.node.pushing.told().get(&(device, news.room)).copied();
        let news = News { after: told.map_or(news.after, |told| told.max(news.after)), ..news };
        (news.after < news.up_to).then_some(news)
    }

    /// Tells the other nodes that a device was told of some news, or need not be.
    pub(crate) fn has_told(&self, device: DeviceId, News { room, up_to, .. }: News) {
        let told = Told { device, room, up_to };
        self.node.pushing.note(&told);
        if let Some(connection) = self.node.link.current() {
            // If it cannot be said, another node may tell the device once more.
            connection.publish(TOLD_SUBJECT, &serde_json::to_vec(&told).expect("numbers")).ok();
        }
    }

    /// When a page in sight of a user, which has shown messages up to one, was last heard from at another node.
    ///
    /// # Errors
    /// If a node does not say. It soon does, or is gone.
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

    #[test]
    fn of_too_much_that_was_told_the_oldest_is_forgotten() {
        let pushing = Pushing::default();
        let most = i64::try_from(PUSH_QUEUE_MAX).unwrap();
        for number in 1..=most + 3 {
            let (device, room, up_to) = (DeviceId(number), RoomId(1), MessageId::new(number));
            pushing.note(&Told { device, room, up_to });
        }
        let told = pushing.told();
        assert_eq!((told.len(), told.first_key_value().unwrap().1.get()), (PUSH_QUEUE_MAX, 4));
    }
}
