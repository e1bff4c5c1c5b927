//! The examples for other programs against the real server: the client in Rust, Python and JavaScript, the bot.

#[path = "../examples/client.rs"]
#[expect(dead_code, reason = "the example's `main`: the tests type and read in its place")]
mod client;
mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};

use client::Client as Example;
use common::{Client, PASSWORD, TestServer, chinwag, contents, skip, within};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What a client shows, a line at a time.
struct Shown(mpsc::UnboundedReceiver<String>);

impl Shown {
    async fn line(&mut self) -> String {
        within("a line", self.0.recv()).await.expect("the client runs")
    }

    /// The next line that somebody said; what the client says of itself is skipped.
    async fn said(&mut self) -> String {
        loop {
            let line = self.line().await;
            if !line.starts_with('*') {
                return line;
            }
        }
    }

    /// Waits until the client says this of itself.
    async fn notice(&mut self, words: &str) {
        loop {
            let line = self.line().await;
            if line.starts_with('*') && line.contains(words) {
                return;
            }
        }
    }
}

/// The example at work: what is typed, what it shows, and the client itself once it has ended.
struct Running {
    typed: mpsc::Sender<String>,
    shown: Shown,
    end: JoinHandle<anyhow::Result<Example>>,
}

impl Running {
    async fn log_in(server: &TestServer, user: &str) -> Running {
        let client =
            Example::log_in(&server.address().to_string(), user, PASSWORD).await.expect("the password is right");
        Running::start(client).await
    }

    /// Starts it, and waits until it is inside.
    async fn start(mut client: Example) -> Running {
        let ((typed, lines), (show, shown)) = (mpsc::channel(1), mpsc::unbounded_channel());
        let end = tokio::spawn(async move {
            // The test may have seen enough.
            let mut show = |line: String| drop(show.send(line));
            client.run(lines, &mut show).await.map(|()| client)
        });
        let mut running = Running { typed, shown: Shown(shown), end };
        running.shown.notice("online").await;
        running
    }

    async fn type_line(&self, line: &str) {
        within("the client to read", self.typed.send(line.to_owned())).await.expect("the client runs");
    }

    /// Ends the input; the client ends once all of it is stored.
    async fn finish(self) -> Example {
        drop(self.typed);
        within("the client to end", self.end).await.expect("it does not panic").expect("all is stored")
    }
}

#[tokio::test]
async fn what_is_typed_is_stored_and_what_others_say_is_shown() {
    let server = TestServer::start();
    let (_, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let mut ada = Running::log_in(&server, "ada").await;
    let mut connection = bob.connect().await;
    connection.store("1", "hello, ada").await;
    assert_eq!(ada.shown.said().await, "bob: hello, ada");
    ada.type_line("hello, bob").await;
    assert_eq!(ada.shown.said().await, "ada: hello, bob");
    ada.finish().await;
    assert_eq!(contents(&server.history(&bob).await), ["hello, ada", "hello, bob"]);
}

#[tokio::test]
async fn a_client_that_comes_back_shows_what_it_missed_once_and_in_order() {
    let server = TestServer::start();
    let (_, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let mut connection = bob.connect().await;
    let ada = Running::log_in(&server, "ada").await;
    ada.type_line("until later").await;
    let away = ada.finish().await;
    for text in ["one", "two", "three"] {
        connection.store(text, text).await;
    }
    let mut ada = Running::start(away).await;
    // Its own last words first, if it left before they came.
    let mut said = vec![ada.shown.said().await];
    while said.last().is_none_or(|line| line != "bob: three") {
        said.push(ada.shown.said().await);
    }
    said.retain(|line| line != "ada: until later");
    assert_eq!(said, ["bob: one", "bob: two", "bob: three"]);
    ada.finish().await;
}

#[tokio::test]
async fn after_too_much_to_replay_a_client_reads_the_history() {
    const MISSED: usize = 1_001;
    let server = TestServer::start();
    let (_, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let mut connection = bob.connect().await;
    // Without it the client would leave with a cursor of 0, which stands for a history it has nothing of.
    connection.store("first", "welcome").await;
    let ada = Running::log_in(&server, "ada").await;
    ada.type_line("until later").await;
    let away = ada.finish().await;
    let missed: Vec<_> = (1..=MISSED).map(|number| number.to_string()).collect();
    connection.store_all("missed", &missed).await;
    let mut ada = Running::start(away).await;
    ada.shown.notice("reading what was missed").await;
    for number in missed {
        let mut line = ada.shown.said().await;
        if line == "ada: until later" {
            line = ada.shown.said().await;
        }
        assert_eq!(line, format!("bob: {number}"));
    }
    connection.store("then", "and on").await;
    assert_eq!(ada.shown.said().await, "bob: and on");
    ada.finish().await;
}

#[tokio::test]
async fn a_line_typed_to_a_server_that_dies_is_stored_once_when_it_is_back() {
    let mut server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let mut running = Running::log_in(&server, "ada").await;
    server.pause().await;
    running.type_line("are you there?").await;
    server.kill().await;
    running.shown.notice("trying again").await;
    server.restart();
    assert_eq!(running.shown.said().await, "ada: are you there?");
    running.finish().await;
    assert_eq!(contents(&server.history(&ada).await), ["are you there?"]);
}

#[tokio::test]
async fn a_history_that_was_replaced_is_shown_from_its_newest_page() {
    let mut server = TestServer::start();
    let (_, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let mut ada = Running::log_in(&server, "ada").await;
    bob.connect().await.store("1", "before").await;
    assert_eq!(ada.shown.said().await, "bob: before");
    server.stop().await;
    let replaced = server.database().execute("UPDATE meta SET value = 'fedcba9876543210' WHERE key = 'epoch'", []);
    assert_eq!(replaced.expect("the database takes it"), 1);
    server.restart();
    ada.shown.notice("another history").await;
    assert_eq!(ada.shown.said().await, "bob: before");
    ada.finish().await;
}

#[tokio::test]
async fn a_session_that_has_ended_ends_the_client() {
    let server = TestServer::start();
    let ada = Client::register(&server, "ada").await;
    let running = Running::log_in(&server, "ada").await;
    let response = server.request("DELETE", "/sessions").by(&ada).send().await;
    assert_eq!(response.status, 204);
    let end = within("the client to end", running.end).await.expect("it does not panic");
    assert_eq!(
        end.err().map(|error| error.to_string()).as_deref(),
        Some("the server does not accept the session any more")
    );
}

/// A client of another language in a process of its own, which ends with the value.
struct Foreign {
    process: Child,
    typed: Option<ChildStdin>,
    shown: Shown,
}

impl Foreign {
    /// Starts it as ada, and waits until it is inside; none if this machine does not have its language.
    async fn log_in(server: &TestServer, program: &[&str]) -> Option<Foreign> {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]);
        if Command::new(program[0]).arg("--version").stdout(Stdio::null()).status().is_err() {
            skip(&format!("there is no {}", program[0]));
            return None;
        }
        command.args([&server.address().to_string(), "ada"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        command.env("PASSWORD", PASSWORD).env("no_proxy", "*").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("it runs");
        let stdout = BufReader::new(process.stdout.take().expect("the pipe was asked for"));
        let (show, shown) = mpsc::unbounded_channel();
        // It ends with the process.
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| show.send(line)));
        let mut client = Foreign { typed: process.stdin.take(), process, shown: Shown(shown) };
        client.shown.notice("online").await;
        Some(client)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("it runs");
    }

    fn type_line(&mut self, line: &str) {
        let typed = self.typed.as_mut().expect("the input has not ended");
        writeln!(typed, "{line}").and_then(|()| typed.flush()).expect("it reads");
    }

    /// Ends the input, and waits until the client has ended by itself: all is stored.
    async fn finish(mut self) {
        self.typed = None;
        let end = within("the end of its output", async { while self.shown.0.recv().await.is_some() {} });
        end.await;
        assert!(self.process.wait().expect("a child can be waited for").success());
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // Both fail only if the process has ended by itself, which is as good.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Logs in, sends, resumes, reads what is too much to be replayed, and sends once what was typed to a server that died.
async fn a_client_of_another_language(program: &[&str]) {
    const MISSED: usize = 1_001;
    let mut server = TestServer::start();
    let (ada, bob) = (Client::register(&server, "ada").await, Client::register(&server, "bob").await);
    let Some(mut client) = Foreign::log_in(&server, program).await else { return };
    client.type_line("hello, bob");
    assert_eq!(client.shown.said().await, "ada: hello, bob");
    // What is stored while it stands still, and its connection is gone, it has missed.
    for missed in [vec!["one".to_owned(), "zwölf 🦊".to_owned()], (1..=MISSED).map(|n| n.to_string()).collect()] {
        client.signal(Signal::STOP);
        server.stop().await;
        server.restart();
        bob.connect().await.store_all(&missed[0], &missed).await;
        client.signal(Signal::CONT);
        if missed.len() == MISSED {
            client.shown.notice("reading what was missed").await;
        }
        for text in missed {
            assert_eq!(client.shown.said().await, format!("bob: {text}"));
        }
    }
    server.pause().await;
    client.type_line("are you there?");
    server.kill().await;
    client.shown.notice("trying again").await;
    server.restart();
    assert_eq!(client.shown.said().await, "ada: are you there?");
    client.finish().await;
    let history = server.history(&ada).await;
    assert_eq!(history.len(), 1 + 2 + MISSED + 1, "all of it is stored, and once");
}

#[tokio::test]
async fn the_client_in_python_loses_nothing_and_sends_once() {
    a_client_of_another_language(&["python3", "examples/client.py"]).await;
}

#[tokio::test]
async fn the_client_in_javascript_loses_nothing_and_sends_once() {
    a_client_of_another_language(&["node", "--no-warnings", "--experimental-websocket", "examples/client.mjs"]).await;
}

/// The bot in a process of its own, which ends with the value.
struct Bot(Child);

impl Bot {
    /// Starts it, and waits until it says that it answers from now on.
    async fn start(server: &TestServer, token: String) -> Bot {
        let mut command = Command::new("python3");
        command.args(["examples/bot.py", &format!("http://{}", server.address())]);
        command.current_dir(env!("CARGO_MANIFEST_DIR")).env("TOKEN", token).env("no_proxy", "*");
        let mut bot = Bot(command.stdout(Stdio::piped()).spawn().expect("python3 runs"));
        let stdout = bot.0.stdout.take().expect("the pipe was asked for");
        let first = tokio::task::spawn_blocking(move || BufReader::new(stdout).lines().next());
        let line = within("the bot's first line", first).await.expect("it does not panic");
        assert!(line.expect("a line").expect("text").starts_with("answers"));
        bot
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        // Both fail only if the process has ended by itself, which is as good.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn the_bot_answers_what_it_is_asked_and_nothing_else() {
    if Command::new("python3").arg("--version").output().is_err() {
        return skip("there is no python3");
    }
    let server = TestServer::start();
    let path = server.database_path();
    let added = tokio::task::spawn_blocking(move || chinwag(&path, &["bot", "add", "parrot"]).ok());
    let token = added.await.expect("it does not panic").trim().to_owned();
    let _bot = Bot::start(&server, token).await;
    let mut ada = Client::register(&server, "ada").await.connect().await;
    for text in ["hello, all", "!echo and back", "!echo"] {
        ada.say(text).await;
    }
    let mut messages = ada.messages(4).await;
    let answer = messages.iter().position(|message| message.username == "parrot").expect("the bot answers");
    assert_eq!(messages.remove(answer).content, "and back");
    assert_eq!(contents(&messages), ["hello, all", "!echo and back", "!echo"]);
    // Its own answer asks for one, as another bot's would; it takes what is said in order, so that is settled before the next.
    ada.say("!echo !echo forever").await;
    assert_eq!(contents(&ada.messages(2).await), ["!echo !echo forever", "!echo forever"]);
    ada.say("!echo the end").await;
    assert_eq!(contents(&ada.messages(2).await), ["!echo the end", "the end"]);
}
