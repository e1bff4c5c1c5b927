//! A reader who keeps the contract's rules and holds the server to them.

use serde_json::json;

use super::{Client, Connection, Message, int, text};

/// Someone who reads the conversation over many connections, and panics at a repeat, at disorder, or at a resync that
/// is not about them. What they cannot see is a gap: compare [`history`](Self::history) with the store's.
pub(crate) struct Follower {
    client: Client,
    connection: Option<Connection>,
    epoch: String,
    last_id: i64,
    /// Every message since the first connection.
    pub(crate) history: Vec<Message>,
    /// How often the server sent us to `GET /messages`.
    pub(crate) resyncs: usize,
}

impl Follower {
    /// Connects for the first time: the history begins with the next message.
    pub(crate) async fn join(client: &Client) -> Follower {
        let connection = client.connect().await;
        Follower {
            client: client.clone(),
            epoch: text(&connection.welcome["epoch"]).to_owned(),
            last_id: int(&connection.welcome["last_id"]),
            connection: Some(connection),
            history: Vec::new(),
            resyncs: 0,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Is gone without a word.
    pub(crate) fn vanish(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.reset();
        }
    }

    /// Comes back where it left.
    pub(crate) async fn resume(&mut self) {
        assert!(self.connection.is_none(), "vanish first");
        let auth = json!({"last_id": self.last_id, "epoch": self.epoch});
        self.connection = Some(self.client.connect_with(auth).await);
    }

    /// Reads on until it has the message `id`, through as many resyncs as it takes.
    pub(crate) async fn read_to(&mut self, id: i64) {
        while self.last_id < id {
            self.read_one().await;
        }
    }

    /// Reads on until it has `count` messages more (or past that, when a resync brings many).
    pub(crate) async fn read_more(&mut self, count: usize) {
        let goal = self.history.len() + count;
        while self.history.len() < goal {
            self.read_one().await;
        }
    }

    /// Takes one frame and does as it says.
    async fn read_one(&mut self) {
        let frame = self.connection.as_mut().expect("resume first").next().await;
        match text(&frame["type"]) {
            "message" => self.take(Message::parse(&frame)),
            "resync" => {
                assert_eq!(int(&frame["after"]), self.last_id, "a resync starts where we are: {frame}");
                self.resyncs += 1;
                self.read_pages(int(&frame["last_id"])).await;
            }
            _ => {}
        }
    }

    /// Pages through what was missed, up to and with `last_id`; live messages wait in the socket meanwhile.
    async fn read_pages(&mut self, last_id: i64) {
        loop {
            let page = self.client.page(&format!("after={}&limit=200", self.last_id)).await;
            let messages = page["messages"].as_array().expect("a list").iter().map(Message::parse);
            let missed: Vec<Message> = messages.take_while(|message| message.id <= last_id).collect();
            let met = page["has_more"] == false || missed.len() < 200;
            for message in missed {
                self.take(message);
            }
            if met || self.last_id == last_id {
                self.last_id = last_id;
                return;
            }
        }
    }

    fn take(&mut self, message: Message) {
        assert!(message.id > self.last_id, "{message:?} after id {}", self.last_id);
        self.last_id = message.id;
        self.history.push(message);
    }
}
