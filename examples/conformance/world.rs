//! Who takes part: accounts, rooms and messages for the rows, and a record of every step.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use super::Options;
use super::check::{Check, broken, expect, int, list, not_offered, text};
use super::http::{Answer, Call, Wire};
use super::socket::Socket;

/// Everybody's password.
pub(crate) const PASSWORD: &str = "correct horse battery";
/// So many steps of a row are told, the last ones.
const STEPS_MAX: usize = 60;
/// The longest wait that a rate may ask for.
const RATE_WAIT_MAX_SECONDS: u64 = 120;
/// The moderator's own invitation for the others, where the server asks for one.
const INVITATION_USES: u32 = 500;
const INVITATION_MILLIS: u32 = 24 * 3_600_000;
/// The name under which the cast knows the moderator.
const MODERATOR: &str = "mod";

/// An account with a session.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) password: String,
    pub(crate) token: String,
}

/// What all rows share.
#[derive(Debug)]
struct Run {
    options: Options,
    /// Distinguishes the names of this run from those of others on the same server.
    prefix: String,
    counter: AtomicU32,
    /// Those who take part in many rows. Hashing a password is slow on purpose, so nobody is made for a single row who
    /// need not be.
    cast: tokio::sync::Mutex<BTreeMap<&'static str, Person>>,
    /// What everybody but the moderator registers with.
    invite: tokio::sync::Mutex<Option<String>>,
    wire: tokio::sync::Mutex<Option<Wire>>,
    /// Whether the server knows the first edition of the contract only, which has one room and posts over WebSocket.
    is_first_edition: AtomicBool,
}

/// A row's view of the run.
#[derive(Debug, Clone)]
pub(crate) struct World {
    run: Arc<Run>,
    steps: Arc<Mutex<Vec<String>>>,
}

impl World {
    pub(crate) fn new(options: Options) -> World {
        let prefix = format!("{:06x}", rand::random::<u32>() & 0xff_ffff);
        let run = Run {
            prefix,
            counter: AtomicU32::new(0),
            cast: tokio::sync::Mutex::default(),
            invite: tokio::sync::Mutex::new(options.invite.clone()),
            wire: tokio::sync::Mutex::default(),
            is_first_edition: AtomicBool::new(false),
            options,
        };
        World { run: Arc::new(run), steps: Arc::default() }
    }

    /// The same run with a record of its own.
    pub(crate) fn for_row(&self) -> World {
        World { run: Arc::clone(&self.run), steps: Arc::default() }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.run.options
    }

    pub(crate) fn host(&self) -> String {
        self.run.options.address.to_string()
    }

    pub(crate) fn step(&self, step: String) {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }

    /// The last steps, and how many were before them.
    pub(crate) fn steps(&self) -> Vec<String> {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(more @ 1..) = steps.len().checked_sub(STEPS_MAX) {
            steps.drain(..more);
            steps.insert(0, format!("({more} steps before)"));
        }
        steps
    }

    /// A text that nothing else of any run has.
    pub(crate) fn unique(&self, what: &str) -> String {
        let number = self.run.counter.fetch_add(1, Ordering::Relaxed);
        format!("{what}-{}-{number}", self.run.prefix)
    }

    /// Makes sure that there is a moderator: the account given, or else the first one of the server.
    pub(crate) async fn prepare(&self) -> anyhow::Result<()> {
        let about = self.ask(Call::new("GET", "/about")).await;
        let about = about.map_err(|failure| anyhow::anyhow!("the server does not answer: {failure:?}"))?;
        self.run.is_first_edition.store(about.status == 404, Ordering::Relaxed);
        let made = if let Some((name, password)) = &self.options().moderator {
            self.login(name, password).await
        } else {
            self.account(MODERATOR).await
        };
        let moderator = made.map_err(|failure| anyhow::anyhow!("no moderator: {failure:?}"))?;
        if about.json().is_ok_and(|about| about["new"] == false) {
            let welcome = self.connect(&moderator).await.map(|socket| socket.welcome);
            let is_moderator = welcome.is_ok_and(|welcome| welcome["moderator"] == true);
            ensure!(is_moderator, "the server has accounts already: name a moderator by --moderator NAME:PASSWORD");
        }
        let invite = self.invitation(&moderator).await;
        *self.run.invite.lock().await = invite.map_err(|failure| anyhow::anyhow!("no invitation: {failure:?}"))?;
        self.run.cast.lock().await.insert(MODERATOR, moderator);
        Ok(())
    }

    /// The invitation that everybody else comes by: the one given, or the moderator's where the server asks for one.
    async fn invitation(&self, moderator: &Person) -> Check<Option<String>> {
        let is_needed =
            self.ask(Call::new("GET", "/about")).await?.json().is_ok_and(|about| about["registration"] == "invite");
        if !is_needed || self.options().invite.is_some() {
            return Ok(self.options().invite.clone());
        }
        let body = json!({"uses": INVITATION_USES, "expires_in": INVITATION_MILLIS});
        let made = self.post(moderator, "/invites", &body).await?.ok(201)?;
        Ok(Some(text(&made, "code")?.to_owned()))
    }

    // --- people ---

    /// One of those who take part in many rows.
    pub(crate) async fn cast(&self, role: &'static str) -> Check<Person> {
        let mut cast = self.run.cast.lock().await;
        if let Some(person) = cast.get(role) {
            return Ok(person.clone());
        }
        let person = self.account(role).await?;
        cast.insert(role, person.clone());
        Ok(person)
    }

    pub(crate) async fn moderator(&self) -> Check<Person> {
        self.cast(MODERATOR).await
    }

    pub(crate) async fn pair(&self) -> Check<(Person, Person)> {
        Ok((self.cast("ada").await?, self.cast("ben").await?))
    }

    pub(crate) async fn trio(&self) -> Check<(Person, Person, Person)> {
        Ok((self.cast("ada").await?, self.cast("ben").await?, self.cast("cy").await?))
    }

    /// A new account with a session, for a row that changes it.
    pub(crate) async fn account(&self, what: &str) -> Check<Person> {
        let name = self.unique(what);
        self.register(&name).await?.ok(201)?;
        self.login(&name, PASSWORD).await
    }

    pub(crate) async fn register(&self, name: &str) -> Check<Answer> {
        self.register_as(json!({"username": name, "password": PASSWORD})).await
    }

    /// Registers with this body, and an invitation if one is needed.
    pub(crate) async fn register_as(&self, mut account: Value) -> Check<Answer> {
        if let Some(invite) = &*self.run.invite.lock().await {
            account["invite"] = json!(invite);
        }
        self.ask(Call::new("POST", "/register").json(&account)).await
    }

    pub(crate) async fn login(&self, name: &str, password: &str) -> Check<Person> {
        let account = json!({"username": name, "password": password});
        let answer = self.ask(Call::new("POST", "/login").json(&account)).await?.ok(200)?;
        let token = text(&answer, "token")?.to_owned();
        Ok(Person { name: name.to_owned(), password: password.to_owned(), token })
    }

    // --- HTTP ---

    /// Sends a request and reads its answer. A rate is waited out as `Retry-After` says, except of a call made `once`.
    pub(crate) async fn ask(&self, call: Call) -> Check<Answer> {
        loop {
            self.step(call.to_string());
            let answer = self.exchange(&call.bytes(&self.host())).await?;
            self.step(format!("-> {answer}"));
            let wait = answer.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
            match wait {
                Some(seconds @ 0..=RATE_WAIT_MAX_SECONDS) if answer.status == 429 && !call.once => {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
                _ => return Ok(answer),
            }
        }
    }

    /// On the connection that is kept open, or on another one if that has ended meanwhile.
    async fn exchange(&self, bytes: &[u8]) -> Check<Answer> {
        let mut kept = self.run.wire.lock().await;
        if let Some(mut wire) = kept.take()
            && wire.write(bytes).await.is_ok()
            && let Ok(answer) = wire.answer().await
        {
            *kept = stays_open(&answer).then_some(wire);
            return Ok(answer);
        }
        let mut wire = self.wire().await?;
        wire.write(bytes).await?;
        let answer = wire.answer().await?;
        *kept = stays_open(&answer).then_some(wire);
        Ok(answer)
    }

    /// A connection of its own.
    pub(crate) async fn wire(&self) -> Check<Wire> {
        self.patient_wire(self.options().patience).await
    }

    /// The same for an answer that comes at a deadline of the contract.
    pub(crate) async fn patient_wire(&self, patience: Duration) -> Check<Wire> {
        Wire::connect(self.options().address, patience, None).await
    }

    pub(crate) async fn get(&self, person: &Person, target: &str) -> Check<Answer> {
        self.ask(Call::new("GET", target).by(person)).await
    }

    pub(crate) async fn post(&self, person: &Person, target: &str, body: &Value) -> Check<Answer> {
        self.ask(Call::new("POST", target).by(person).json(body)).await
    }

    pub(crate) async fn patch(&self, person: &Person, target: &str, body: &Value) -> Check<Answer> {
        self.ask(Call::new("PATCH", target).by(person).json(body)).await
    }

    pub(crate) async fn put(&self, person: &Person, target: &str) -> Check<Answer> {
        self.ask(Call::new("PUT", target).by(person)).await
    }

    pub(crate) async fn delete(&self, person: &Person, target: &str) -> Check<Answer> {
        self.ask(Call::new("DELETE", target).by(person)).await
    }

    // --- rooms and messages ---

    /// A new private room of `maker` and `members`.
    pub(crate) async fn private(&self, maker: &Person, members: &[&Person]) -> Check<i64> {
        let names: Vec<_> = members.iter().map(|member| &member.name).collect();
        let room = json!({"name": self.unique("room"), "kind": "private", "members": names});
        int(&self.post(maker, "/rooms", &room).await?.ok(201)?, "id")
    }

    /// A new open room, made by the moderator.
    pub(crate) async fn open_room(&self) -> Check<i64> {
        let room = json!({"name": self.unique("room"), "kind": "open"});
        int(&self.post(&self.moderator().await?, "/rooms", &room).await?.ok(201)?, "id")
    }

    /// ROOM as `person` sees it, or null if they do not.
    pub(crate) async fn room(&self, person: &Person, id: i64) -> Check<Value> {
        let rooms = self.get(person, "/rooms").await?.ok(200)?;
        Ok(list(&rooms, "rooms")?.iter().find(|room| room["id"] == id).cloned().unwrap_or_default())
    }

    /// Stores a message and returns its id.
    pub(crate) async fn say(&self, person: &Person, room: i64, content: &str) -> Check<i64> {
        if room == 1 && self.run.is_first_edition.load(Ordering::Relaxed) {
            let message = json!({"type": "message", "content": content});
            return self.connect(person).await?.store(&message).await;
        }
        self.say_with(person, &json!({"room": room, "content": content})).await
    }

    pub(crate) async fn say_with(&self, person: &Person, message: &Value) -> Check<i64> {
        int(&self.post(person, "/messages", message).await?.ok(201)?, "id")
    }

    /// A page of a room: `query` without the room.
    pub(crate) async fn page(&self, person: &Person, room: i64, query: &str) -> Check<Vec<Value>> {
        let page = self.get(person, &format!("/messages?room={room}&{query}")).await?.ok(200)?;
        Ok(list(&page, "messages")?.to_vec())
    }

    /// The message `id` as `person` finds it in its room, or null.
    pub(crate) async fn message(&self, person: &Person, room: i64, id: i64) -> Check<Value> {
        let page = self.page(person, room, &format!("after={}&limit=1", id - 1)).await?;
        Ok(page.into_iter().find(|message| message["id"] == id).unwrap_or_default())
    }

    /// Edits a message and returns the event's id.
    pub(crate) async fn edit(&self, person: &Person, message: i64, content: &str) -> Check<i64> {
        let body = json!({"content": content});
        int(&self.patch(person, &format!("/messages/{message}"), &body).await?.ok(200)?, "id")
    }

    /// Deletes a message and returns the event's id.
    pub(crate) async fn take_back(&self, person: &Person, message: i64) -> Check<i64> {
        int(&self.delete(person, &format!("/messages/{message}")).await?.ok(200)?, "id")
    }

    // --- sockets ---

    /// Opens a connection that takes everything this person may read.
    pub(crate) async fn connect(&self, person: &Person) -> Check<Socket> {
        self.connect_with(person, &json!({"rooms": true})).await
    }

    pub(crate) async fn connect_with(&self, person: &Person, more: &Value) -> Check<Socket> {
        let mut socket = self.connect_at_once(person, more).await?;
        socket.take_place().await?;
        Ok(socket)
    }

    /// The same without waiting for more than the `auth_success`: no event may be lost from then on.
    pub(crate) async fn connect_at_once(&self, person: &Person, more: &Value) -> Check<Socket> {
        let mut socket = Socket::open(self, None).await?;
        socket.authenticate(person, more).await?;
        Ok(socket)
    }

    /// What a client that was last at `after` gets when it comes back.
    pub(crate) async fn replay(&self, person: &Person, after: i64) -> Check<Vec<Value>> {
        let mut socket = self.connect_with(person, &json!({"rooms": true, "last_id": after})).await?;
        let last = int(&socket.welcome, "last_id")?;
        socket.until(last).await
    }

    /// Holds where an invitation is needed: where it is not, a server need not look at one.
    pub(crate) async fn needs_invitations(&self) -> Check {
        let about = self.ask(Call::new("GET", "/about")).await?;
        if about.json()?["registration"] == "invite" {
            Ok(())
        } else {
            not_offered("registration without an invitation")
        }
    }

    /// The server's `limits` and all else that `GET /about` says.
    pub(crate) async fn about(&self) -> Check<Value> {
        self.ask(Call::new("GET", "/about")).await?.ok(200)
    }

    /// One of the set of reactions.
    pub(crate) async fn reaction(&self, number: usize) -> Check<String> {
        let about = self.about().await?;
        let reaction = list(&about, "reactions")?.get(number).and_then(Value::as_str);
        reaction.map(ToOwned::to_owned).ok_or_else(|| broken("reactions in GET /about", &about))
    }

    /// That the server refuses `call` by every one of `people`, with the same words as for something that never was.
    pub(crate) async fn hidden(&self, call: Call, never: Call) -> Check {
        let (hidden, never) = (self.ask(call).await?, self.ask(never).await?);
        hidden.refused(404, "not_found")?;
        never.refused(404, "not_found")?;
        expect(hidden.body == never.body, format!("the same answer as for what never was: {never}"), &hidden)
    }
}

fn stays_open(answer: &Answer) -> bool {
    answer.header("connection").is_none_or(|connection| !connection.eq_ignore_ascii_case("close"))
}
