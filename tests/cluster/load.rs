//! Load that keeps an account of itself: what was acknowledged, and with which id, is held against what is there in the
//! end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::common::{Client, Connection, int, text, within};
use crate::nodes::Cluster;

/// Messages of one sender that are on the way at once.
const ON_THE_WAY: usize = 8;

/// Senders and observers at every node.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    /// What the observers are to see, once it is known.
    last: Arc<AtomicI64>,
    senders: JoinSet<Sent>,
    observers: JoinSet<Seen>,
    people: Vec<Client>,
}

/// What one sender was told.
#[derive(Default)]
struct Sent {
    /// The id of each nonce that was acknowledged.
    acked: BTreeMap<String, i64>,
    /// The longest time without an acknowledgement.
    longest: Duration,
}

/// What one observer saw, in its order.
type Seen = Vec<(i64, String)>;

/// What came of a load.
pub(crate) struct Account {
    /// Messages that were acknowledged.
    pub(crate) acked: usize,
    /// The longest time that a sender waited.
    pub(crate) longest: Duration,
}

impl Load {
    /// `senders` at each node, and an observer.
    pub(crate) async fn start(cluster: &Cluster, senders: usize) -> Load {
        let mut load = Load {
            stop: Arc::new(AtomicBool::new(false)),
            last: Arc::new(AtomicI64::new(i64::MAX)),
            senders: JoinSet::new(),
            observers: JoinSet::new(),
            people: Vec::new(),
        };
        let addresses: Vec<_> = cluster.nodes.iter().collect();
        for (at, node) in cluster.nodes.iter().enumerate() {
            for number in 0..senders {
                let person = Client::register(node, &format!("sender-{at}-{number}")).await;
                // A client that loses its node goes to the next, as behind a proxy.
                let homes = (0..addresses.len()).map(|next| person.at(addresses[(at + next) % addresses.len()]));
                load.senders.spawn(send(homes.collect(), Arc::clone(&load.stop)));
                load.people.push(person);
            }
            let observer = Client::register(node, &format!("observer-{at}")).await;
            let homes = (0..addresses.len()).map(|next| observer.at(addresses[(at + next) % addresses.len()]));
            let homes: Vec<_> = homes.collect();
            let connection = homes[0].connect().await;
            load.observers.spawn(observe(homes, connection, Arc::clone(&load.last)));
        }
        load
    }

    /// Ends it, and holds what was promised against what there is: nothing that was acknowledged is lost, doubled, or has
    /// another id, no observer has seen less or in another order, and all databases are equal.
    pub(crate) async fn settle(self, cluster: &Cluster) -> Account {
        let Load { stop, last, mut senders, mut observers, people } = self;
        stop.store(true, Ordering::Relaxed);
        let mut acked: HashMap<String, i64> = HashMap::new();
        let mut longest = Duration::ZERO;
        while let Some(sent) = senders.join_next().await {
            let sent = sent.expect("a sender that kept the rules");
            acked.extend(sent.acked);
            longest = longest.max(sent.longest);
        }
        let node = &cluster.nodes[0];
        let reader = people[0].at(node);
        let history = node.history(&reader).await;
        let by_id: HashMap<i64, &str> = history.iter().map(|message| (message.id, message.content.as_str())).collect();
        let mut times: HashMap<&str, usize> = HashMap::new();
        for message in &history {
            *times.entry(&message.content).or_default() += 1;
        }
        for (nonce, id) in &acked {
            assert_eq!(by_id.get(id).copied(), Some(nonce.as_str()), "an acknowledged message is there, with its id");
            assert_eq!(times[nonce.as_str()], 1, "and once");
        }
        assert!(times.values().all(|count| *count == 1), "no message is there twice");
        let ids: Vec<_> = history.iter().map(|message| message.id).collect();
        last.store(ids.last().copied().unwrap_or(0), Ordering::Relaxed);
        while let Some(seen) = within("the observers", observers.join_next()).await {
            let seen = seen.expect("an observer that was told in order");
            let seen: Vec<_> = seen.iter().map(|(id, _)| *id).collect();
            let first = seen.first().copied().unwrap_or(0);
            let expected: Vec<_> = ids.iter().copied().filter(|id| *id >= first).collect();
            assert_eq!(seen, expected, "an observer sees all, in order");
        }
        cluster.are_equal().await;
        Account { acked: acked.len(), longest }
    }
}

/// Sends messages whose text is their nonce, and sends again what was not acknowledged, for as long as it takes.
async fn send(homes: Vec<Client>, stop: Arc<AtomicBool>) -> Sent {
    let mut sent = Sent::default();
    let (mut number, mut home) = (0, 0);
    let mut open: Vec<String> = Vec::new();
    let mut last_ack = Instant::now();
    loop {
        let person = &homes[home % homes.len()];
        home += 1;
        let Some(mut socket) = person.try_connect(json!({})).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // What was under way is settled by its nonce.
        for nonce in &open {
            socket.try_send(&message(nonce)).await;
        }
        loop {
            let stopping = stop.load(Ordering::Relaxed);
            if stopping && open.is_empty() {
                return sent;
            }
            while !stopping && open.len() < ON_THE_WAY {
                let nonce = format!("{}-{number}", person.username);
                number += 1;
                open.push(nonce.clone());
                if !socket.try_send(&message(&nonce)).await {
                    break;
                }
            }
            let frame = tokio::time::timeout(Duration::from_secs(8), socket.receive()).await;
            let Ok(Ok(frame)) = frame else { break };
            match text(&frame["type"]) {
                "ack" => {
                    let nonce = text(&frame["nonce"]).to_owned();
                    open.retain(|known| *known != nonce);
                    let before = sent.acked.insert(nonce.clone(), int(&frame["id"]));
                    assert!(before.is_none_or(|before| before == int(&frame["id"])), "{nonce} has one id");
                    sent.longest = sent.longest.max(last_ack.elapsed());
                    last_ack = Instant::now();
                }
                "error" if frame["code"] == "unavailable" => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    let Some(nonce) = frame["nonce"].as_str() else { break };
                    socket.try_send(&message(nonce)).await;
                }
                "error" => panic!("{frame}"),
                _ => {}
            }
        }
    }
}

fn message(nonce: &str) -> String {
    json!({"type": "message", "content": nonce, "nonce": nonce}).to_string()
}

/// Reads on, over as many connections as it takes, and panics at a repeat or at disorder.
async fn observe(homes: Vec<Client>, connection: Connection, target: Arc<AtomicI64>) -> Seen {
    let epoch = text(&connection.welcome["epoch"]).to_owned();
    let mut last = int(&connection.welcome["last_id"]);
    let (mut seen, mut home, mut current) = (Seen::new(), 0, Some(connection));
    while last < target.load(Ordering::Relaxed) {
        let Some(mut socket) = current.take() else {
            home += 1;
            let person = &homes[home % homes.len()];
            current = person.try_connect(json!({"last_id": last, "epoch": epoch})).await;
            if current.is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            continue;
        };
        while last < target.load(Ordering::Relaxed) {
            // A node that stands still sends nothing, and is left.
            let Ok(Ok(frame)) = tokio::time::timeout(Duration::from_secs(4), socket.receive()).await else { break };
            match text(&frame["type"]) {
                "message" => {
                    let id = int(&frame["id"]);
                    assert!(id > last, "{id} after {last}");
                    last = id;
                    seen.push((id, text(&frame["content"]).to_owned()));
                }
                "resync" => {
                    assert_ne!(int(&frame["after"]), 0, "nobody is told to forget what they have: {frame}");
                    let until = int(&frame["last_id"]);
                    if !page_to(&homes[home % homes.len()], &mut last, until, &mut seen).await {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    seen
}

/// Reads what a resync says is to be read; false if the node could not be asked.
async fn page_to(person: &Client, last: &mut i64, until: i64, seen: &mut Seen) -> bool {
    while *last < until {
        let Some(page) = person.try_page(&format!("after={last}&limit=200")).await else { return false };
        let messages = page["messages"].as_array().expect("a list");
        for message in messages {
            let id = int(&message["id"]);
            if id <= until {
                *last = id;
                seen.push((id, text(&message["content"]).to_owned()));
            }
        }
        if page["has_more"] == false {
            *last = until.max(*last);
        }
    }
    true
}
