//! NATS by hand, as an operator of its servers may speak to them: to do to a log what no node does.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::common::within;

/// A connection to one server.
pub(crate) struct Nats {
    stream: BufReader<TcpStream>,
    /// Messages that came while something else was waited for: where an answer is to go, and what they say.
    waiting: VecDeque<(Option<String>, Vec<u8>)>,
}

impl Nats {
    pub(crate) async fn connect(port: u16) -> Nats {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("the server listens");
        let mut nats = Nats { stream: BufReader::new(stream), waiting: VecDeque::new() };
        nats.write(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n").await;
        nats
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).await.expect("the server reads");
    }

    /// Reads one operation; whether it is the answer to a ping.
    async fn read(&mut self) -> bool {
        let mut line = String::new();
        within("the NATS server", self.stream.read_line(&mut line)).await.expect("the server speaks");
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["PING"] => self.write(b"PONG\r\n").await,
            ["MSG", _, _, .., length] => {
                let mut payload = vec![0; length.parse::<usize>().expect("a length") + 2];
                self.stream.read_exact(&mut payload).await.expect("the server speaks");
                payload.truncate(payload.len() - 2);
                let reply = (words.len() == 5).then(|| words[3].to_owned());
                self.waiting.push_back((reply, payload));
            }
            ["-ERR", ..] => panic!("{line}"),
            _ => {}
        }
        words == ["PONG"]
    }

    /// Listens at a subject, from the moment at which it returns.
    pub(crate) async fn subscribe(&mut self, subject: &str) {
        self.write(format!("SUB {subject} 1\r\nPING\r\n").as_bytes()).await;
        while !self.read().await {}
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Vec<u8> {
        self.next_question().await.1
    }

    /// The same, and where an answer is to go, if one is expected.
    pub(crate) async fn next_question(&mut self) -> (Option<String>, Vec<u8>) {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return message;
            }
            self.read().await;
        }
    }

    /// Publishes to all that listen, and returns once the server has it.
    pub(crate) async fn publish(&mut self, subject: &str, payload: &[u8]) {
        let head = format!("PUB {subject} {}\r\n", payload.len());
        self.write(&[head.as_bytes(), payload, b"\r\nPING\r\n"].concat()).await;
        while !self.read().await {}
    }

    /// Asks, on a connection with no other subscription.
    pub(crate) async fn ask(&mut self, subject: &str, payload: &[u8]) -> Value {
        self.subscribe("answers").await;
        self.write(&[format!("PUB {subject} answers {}\r\n", payload.len()).as_bytes(), payload, b"\r\n"].concat())
            .await;
        let answer: Value = serde_json::from_slice(&self.next().await).expect("JetStream answers in JSON");
        self.write(b"UNSUB 1\r\n").await;
        assert_eq!(answer["error"], Value::Null, "{subject}");
        answer
    }
}
