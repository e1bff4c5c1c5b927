//! TLS, of a binary that is built with it: `cargo test --features tls --test tls`. Certificates are made by the
//! `openssl` command.

mod common;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Client, PATIENCE, RawClient, Request, TestServer, run_to_end, text, wait_while, within};
use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{
    AeadKey, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundOpaqueMessage, OutboundPlainMessage,
    Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, RootCertStore, SupportedCipherSuite,
    Tls13CipherSuite,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A certificate for 127.0.0.1 and its key, in files that can be replaced.
struct Identity {
    directory: tempfile::TempDir,
}

impl Identity {
    fn new() -> Identity {
        let identity = Identity { directory: tempfile::tempdir().expect("a directory") };
        identity.renew();
        identity
    }

    /// Puts another key and certificate in the place of those there are.
    fn renew(&self) {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=chinwag", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(self.key())
            .arg("-out")
            .arg(self.chain())
            .output()
            .expect("openssl is installed");
        assert!(made.status.success(), "{made:?}");
    }

    fn chain(&self) -> PathBuf {
        self.directory.path().join("chain.pem")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    fn flags(&self) -> Vec<String> {
        let path = |path: &Path| path.to_str().expect("text").to_owned();
        vec!["--tls-cert".into(), path(&self.chain()), "--tls-key".into(), path(&self.key())]
    }

    fn server(&self) -> TestServer {
        self.server_with(&[])
    }

    fn server_with(&self, more: &[&str]) -> TestServer {
        let flags = self.flags();
        TestServer::with(&flags.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>())
    }

    /// Makes clients' sides of TLS, which trust the certificate of now and no other.
    fn clients(&self) -> impl Fn() -> ClientConnection + use<> {
        self.clients_by(default_provider())
    }

    fn clients_by(&self, provider: CryptoProvider) -> impl Fn() -> ClientConnection + use<> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.chain()).expect("a certificate")).expect("a root");
        let config = ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
        let config = Arc::new(config.expect("versions").with_root_certificates(roots).with_no_client_auth());
        move || {
            let name = "127.0.0.1".try_into().expect("an address is a name");
            ClientConnection::new(Arc::clone(&config), name).expect("a client")
        }
    }

    /// Whether a client who trusts the certificate of now is served.
    async fn is_served(&self, server: &TestServer) -> bool {
        shake_hands(self.clients()(), server).await.is_ok()
    }

    /// What the server says to a client's first words, until it hangs up.
    async fn answer_to_hello(&self, server: &TestServer) -> Vec<u8> {
        let (mut client, mut hello) = (self.clients()(), Vec::new());
        client.write_tls(&mut hello).expect("a vector takes all");
        let mut connection = RawClient::connect(server).await;
        connection.try_send(&hello).await;
        connection.end().await
    }
}

/// A connection past its handshake.
async fn shake_hands(
    mut client: ClientConnection,
    server: &TestServer,
) -> io::Result<(ClientConnection, std::net::TcpStream)> {
    let address = server.address();
    let handshake = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        client.complete_io(&mut stream)?;
        Ok((client, stream))
    });
    handshake.await.expect("no panic")
}

/// A client's cipher that makes a record of one byte a record of none, which rustls itself does not send.
struct Hollow(&'static dyn Tls13AeadAlgorithm);

struct HollowEncrypter(Box<dyn MessageEncrypter>);

impl Hollow {
    fn provider() -> CryptoProvider {
        let suite = cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().expect("it is of TLS 1.3");
        let common = rustls::crypto::CipherSuiteCommon { ..suite.common };
        let aead_alg: &'static Hollow = Box::leak(Box::new(Hollow(suite.aead_alg)));
        let hollow = Tls13CipherSuite { common, aead_alg, hkdf_provider: suite.hkdf_provider, quic: None };
        let cipher_suites = vec![SupportedCipherSuite::Tls13(Box::leak(Box::new(hollow)))];
        CryptoProvider { cipher_suites, ..default_provider() }
    }
}

impl Tls13AeadAlgorithm for Hollow {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(HollowEncrypter(self.0.encrypter(key, iv)))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(&self, key: AeadKey, iv: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv)
    }
}

impl MessageEncrypter for HollowEncrypter {
    fn encrypt(
        &mut self,
        mut message: OutboundPlainMessage<'_>,
        sequence: u64,
    ) -> Result<OutboundOpaqueMessage, rustls::Error> {
        if message.typ == ContentType::ApplicationData && message.payload.len() == 1 {
            message.payload = OutboundChunks::new_empty();
        }
        self.0.encrypt(message, sequence)
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        self.0.encrypted_payload_len(payload_len)
    }
}

/// A plain address that leads to the server over TLS. What its clients do not read soon waits in the server.
fn bridge(identity: &Identity, server: &TestServer) -> SocketAddr {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_send_buffer_size(4 << 10).expect("a small buffer");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let listener = socket.listen(64).expect("a listener");
    let (address, there) = (listener.local_addr().expect("it is bound"), server.address());
    let client = identity.clients();
    tokio::spawn(async move {
        while let Ok((here, _)) = listener.accept().await {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
            let there = socket.connect(there).await.expect("the server listens");
            // Either end may break off.
            let session = client();
            tokio::spawn(async move { carry(here, there, session).await.ok() });
        }
    });
    address
}

/// Carries plain bytes from `here` and encrypted ones from `there`, until one of them ends.
async fn carry(mut here: TcpStream, mut there: TcpStream, mut session: ClientConnection) -> io::Result<()> {
    let (mut plain, mut encrypted) = (vec![0; 8 << 10], vec![0; 8 << 10]);
    loop {
        let mut out = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut out)?;
        }
        there.write_all(&out).await?;
        tokio::select! {
            read = here.read(&mut plain) => match read? {
                0 => return Ok(()),
                read => session.writer().write_all(&plain[..read])?,
            },
            read = there.read(&mut encrypted) => {
                let mut unread = &encrypted[..read?];
                if unread.is_empty() {
                    return Ok(());
                }
                while !unread.is_empty() {
                    session.read_tls(&mut unread)?;
                    let state = session.process_new_packets().map_err(io::Error::other)?;
                    let mut decrypted = vec![0; state.plaintext_bytes_to_read()];
                    session.reader().read_exact(&mut decrypted)?;
                    here.write_all(&decrypted).await?;
                }
            }
        }
    }
}

/// An account and a session for it, asked for over `address`.
async fn person(server: &TestServer, address: SocketAddr, username: &str) -> Client {
    let account = json!({"username": username, "password": common::PASSWORD});
    let created = Request::new(address, "POST", "/register").json(&account).send().await;
    assert_eq!(created.status, 201);
    let login = Request::new(address, "POST", "/login").json(&account).send().await;
    Client::known(server, username, text(&login.json()["token"]))
}

#[tokio::test]
async fn people_talk_over_tls() {
    let identity = Identity::new();
    let mut server = identity.server();
    let address = bridge(&identity, &server);
    let ada = person(&server, address, "ada").await;
    let mut here = RawClient::connect_to(address).await;
    here.authenticate(&ada).await;
    let mut there = RawClient::connect_to(address).await;
    there.authenticate(&ada).await;
    for number in 0..100 {
        here.send_text(&json!({"type": "message", "content": number.to_string()}).to_string()).await;
        assert_eq!(there.next_of("message").await["content"], number.to_string());
    }
    assert_eq!(server.stop().await.code(), Some(0));
    assert_eq!(there.close_code().await, 1001);
    assert_eq!(server.stdout(), [format!("chinwag is listening on https://{}", server.address())]);
}

#[tokio::test]
async fn a_slow_reader_over_tls_loses_nothing() {
    let identity = Identity::new();
    let server = identity.server();
    let address = bridge(&identity, &server);
    let ada = person(&server, address, "ada").await;
    let mut slow = RawClient::connect_to(address).await;
    slow.authenticate(&ada).await;
    let mut fast = RawClient::connect_to(address).await;
    fast.authenticate(&ada).await;
    let content = |number: usize| format!("{number}{}", "🦀".repeat(3_900));
    for number in 0..400 {
        fast.send_text(&json!({"type": "message", "content": content(number)}).to_string()).await;
        if number % 20 == 19 {
            while text(&fast.next_of("message").await["content"]) != content(number) {}
        }
    }
    for number in 0..400 {
        assert_eq!(text(&slow.next_of("message").await["content"]), content(number));
    }
    // What was left encrypted when the last write blocked is sent without another write behind it.
    slow.send_text(&json!({"type": "ping"}).to_string()).await;
    slow.next_of("pong").await;
}

#[tokio::test]
async fn what_the_kernel_holds_for_those_who_have_stopped_is_bounded_over_tls_too() {
    let identity = Identity::new();
    let server = identity.server();
    let address = bridge(&identity, &server);
    let ada = person(&server, address, "ada").await;
    let mut stopped = Vec::new();
    for _ in 0..10 {
        let mut reader = RawClient::connect_to(address).await;
        reader.authenticate(&ada).await;
        stopped.push(reader);
    }
    let mut sender = RawClient::connect_to(address).await;
    sender.authenticate(&ada).await;
    // 2.8 MB for each, all of which the kernel takes by itself.
    for round in 0..4 {
        for number in 0..50 {
            let nonce = format!("{round}-{number}");
            let message = json!({"type": "message", "content": "\u{1f642}".repeat(3_500), "nonce": nonce});
            sender.send_text(&message.to_string()).await;
        }
        for _ in 0..50 {
            sender.next_of("ack").await;
        }
    }
    let queued = server.queued_bytes();
    assert!(queued.len() > 10 && queued.iter().all(|bytes| *bytes < 512 << 10), "{queued:?}");
    drop(stopped);
}

#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let identity = Identity::new();
    let server = identity.server();
    let address = bridge(&identity, &server);
    let ada = person(&server, address, "ada").await;
    let mut connection = RawClient::connect_to(address).await;
    connection.authenticate(&ada).await;
    let content = "🦀".repeat(4_000);
    for number in 0..200 {
        let message = json!({"type": "message", "content": content, "nonce": number.to_string()});
        connection.send_text(&message.to_string()).await;
        connection.next_of("ack").await;
    }
    let page = Request::new(address, "GET", "/messages?limit=200").by(&ada).send().await;
    let messages = page.json()["messages"].as_array().expect("a list").clone();
    assert_eq!(messages.len(), 200);
    assert!(messages.iter().all(|message| message["content"] == *content));
}

#[tokio::test]
async fn a_body_that_fills_a_record_is_read() {
    let identity = Identity::new();
    let server = identity.server();
    let address = bridge(&identity, &server);
    let ada = person(&server, address, "ada").await;
    let message = json!({"content": "🦀".repeat(4_000)});
    let posted = Request::new(address, "POST", "/messages").by(&ada).json(&message).send().await;
    assert_eq!(posted.status, 201);
}

#[tokio::test]
async fn answers_over_tls_say_that_it_is_to_be_used_from_now_on() {
    let identity = Identity::new();
    let server = identity.server();
    let address = bridge(&identity, &server);
    for path in ["/", "/healthz", "/nowhere"] {
        let answer = Request::new(address, "GET", path).send().await;
        assert_eq!(answer.header("Strict-Transport-Security"), Some("max-age=31536000"), "{path}");
    }
    // What is refused before there is a request, too.
    for head in ["no HTTP\r\n\r\n".to_owned(), format!("GET / HTTP/1.1\r\nX-Large: {}\r\n\r\n", "x".repeat(32 << 10))] {
        let mut raw = RawClient::connect_to(address).await;
        raw.try_send(head.as_bytes()).await;
        let answer = raw.response().await;
        assert_eq!(answer.header("Strict-Transport-Security"), Some("max-age=31536000"), "{answer:?}");
    }
    let plain = TestServer::start().get("/").send().await;
    assert_eq!(plain.header("Strict-Transport-Security"), None, "it is not ours to promise");
}

#[tokio::test]
async fn an_invitation_made_over_tls_is_a_link_over_tls() {
    let identity = Identity::new();
    let server = identity.server();
    let address = bridge(&identity, &server);
    let ada = person(&server, address, "ada").await;
    let invited = Request::new(address, "POST", "/invites").by(&ada).json(&json!({})).send().await.json();
    let link = text(&invited["url"]);
    assert!(link.starts_with("https://") && link.ends_with(text(&invited["code"])), "{link}");
}

#[tokio::test]
async fn a_renewed_certificate_is_in_use_without_a_restart_and_a_broken_one_is_not() {
    let identity = Identity::new();
    let server = identity.server();
    assert!(identity.is_served(&server).await);
    identity.renew();
    wait_while("the new certificate", async || !identity.is_served(&server).await).await;
    // A key that was looked at before its certificate was there is complained of, too.
    let complaints = || server.log().matches("keeping the old one").count();
    let before = complaints();
    std::fs::write(identity.key(), "no key").expect("a file");
    within("the complaint", async {
        while complaints() == before {
            assert!(identity.is_served(&server).await, "the old one stays");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(identity.is_served(&server).await);
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_or_does_not_speak_at_all_is_let_go() {
    let identity = Identity::new();
    let server = identity.server();
    let mut plain = RawClient::connect(&server).await;
    plain.send(b"GET /healthz HTTP/1.1\r\nHost: chat\r\n\r\n").await;
    let answer = plain.end().await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    RawClient::connect(&server).await.end().await;
}

#[tokio::test]
async fn a_client_that_ends_tls_and_leaves_the_connection_open_is_answered_at_once() {
    let identity = Identity::new();
    let server = identity.server();
    let (mut session, mut stream) = shake_hands(identity.clients()(), &server).await.expect("a handshake");
    let half = server.post("/login").header("Content-Type", "application/json").header("Content-Length", "100");
    let answer = tokio::task::spawn_blocking(move || {
        session.writer().write_all(&half.bytes()).expect("room");
        session.send_close_notify();
        // In one write, so that the end is read together with what comes before it.
        let mut records = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut records).expect("a vector takes all");
        }
        stream.write_all(&records).expect("the server listens");
        let mut answer = Vec::new();
        rustls::Stream::new(&mut session, &mut stream).read_to_end(&mut answer).expect("an end");
        String::from_utf8(answer).expect("text")
    });
    let answer = within("the answer", answer).await.expect("no panic");
    assert!(answer.starts_with("HTTP/1.1 400"), "a body that ends too soon is not one that takes too long: {answer}");
}

#[tokio::test]
async fn a_flood_of_records_that_carry_nothing_holds_nobody_up_and_is_ended() {
    let identity = Identity::new();
    let server = identity.server();
    let others = bridge(&identity, &server);
    let begun = Instant::now();
    let (mut session, mut stream) =
        shake_hands(identity.clients_by(Hollow::provider())(), &server).await.expect("a handshake");
    // Either kind alone is soon refused by rustls; each makes it forget the other. More than the sockets hold.
    let mut records = Vec::new();
    while records.len() < 16 << 20 {
        session.refresh_traffic_keys().expect("the handshake is done");
        session.writer().write_all(b"-").expect("room");
        while session.wants_write() {
            session.write_tls(&mut records).expect("a vector takes all");
        }
    }
    let mut flood = tokio::task::spawn_blocking(move || stream.write_all(&records));
    tokio::select! {
        biased;
        flooded = &mut flood => assert!(flooded.expect("no panic").is_err(), "all of it was read"),
        answer = Request::new(others, "GET", "/healthz").send() => {
            assert_eq!(answer.status, 200);
            let flooded = within("the end of the flood", flood).await.expect("no panic");
            assert!(flooded.is_err(), "all of it was read");
        }
    }
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it may have ended as any connection does that asks for nothing"
    );
    assert_eq!(Request::new(others, "GET", "/healthz").send().await.status, 200);
}

#[tokio::test]
async fn a_client_that_connects_again_and_again_is_not_answered_for_a_while() {
    let identity = Identity::new();
    let server = identity.server_with(&["--address-connections", "10000"]);
    assert!(identity.is_served(&server).await);
    let mut is_silent = false;
    for _ in 0..3 {
        for _ in 0..1_000 {
            drop(RawClient::connect(&server).await);
        }
        is_silent = identity.answer_to_hello(&server).await.is_empty();
        // Their turn may have come round just then.
        if is_silent {
            break;
        }
    }
    assert!(is_silent, "no word, and so no signature");
    within("another turn", async { while !identity.is_served(&server).await {} }).await;

    let trusted = ["--address-connections", "10000", "--trusted-proxy", "127.0.0.1"];
    for lifted in [&["--address-connections", "0"][..], &trusted] {
        let server = identity.server_with(lifted);
        for _ in 0..1_000 {
            drop(RawClient::connect(&server).await);
        }
        assert!(identity.is_served(&server).await, "{lifted:?}");
    }
}

#[tokio::test]
async fn a_connection_that_there_is_no_place_for_costs_no_handshake() {
    let identity = Identity::new();
    let server = identity.server_with(&["--address-connections", "1"]);
    let _first = shake_hands(identity.clients()(), &server).await.expect("a handshake");
    assert!(identity.answer_to_hello(&server).await.is_empty(), "no word, and so no signature");
}

#[test]
fn a_key_without_its_certificate_or_of_another_is_refused_at_the_start() {
    let (identity, other) = (Identity::new(), Identity::new());
    let path = |path: &Path| path.to_str().expect("text").to_owned();
    let key_only = run_to_end(&["--tls-key", &path(&identity.key())], &[]);
    assert_eq!(key_only.status.code(), Some(2), "{key_only:?}");
    let (chain, key) = (path(&identity.chain()), path(&other.key()));
    let mixed = run_to_end(&["--listen", "127.0.0.1:0", "--tls-cert", &chain, "--tls-key", &key], &[]);
    assert_eq!(mixed.status.code(), Some(1), "{mixed:?}");
    let line = String::from_utf8(mixed.stderr).expect("text");
    assert!(line.trim_end().lines().count() == 1 && line.contains(&chain), "{line}");
}
