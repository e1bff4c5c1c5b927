//! How near is a delivery to what the kernel takes for it?
//!
//! The real server, on loopback, delivers to 1, 100 and 1,000 connections, one message at a time and in bursts of 50.
//! Beside it, in the same run, a bare loop writes as many bytes to as many sockets with plain `write` calls: one
//! for a message, or one for a whole burst. Both are read the same way, each socket in turn, and the ratio of their
//! times is printed at the end. Time is wall-clock: on two cores the reader runs beside the server.
//!
//! Left out: latency under load and memory, which `examples/load.rs` measures.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use chinwag::Server;
use chinwag::config::Config;
use clap::Parser as _;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const RECEIVERS: [usize; 3] = [1, 100, 1_000];
const BURSTS: [usize; 2] = [1, 50];
const CONTENT: &str = "a message of about the length that people write";

#[derive(clap::Parser)]
struct Flags {
    #[command(flatten)]
    config: Config,
}

/// Starts the server in a thread of its own, without limits, on a new database.
fn start_server(folder: &std::path::Path) -> SocketAddr {
    let db = folder.join("bench.db");
    start_ids_high(&db);
    let lifted = ["--message-rate", "0", "--auth-rate", "0", "--user-connections", "0", "--address-connections", "0"];
    let flags = ["bench", "--shards", "1", "--listen", "127.0.0.1:0"].into_iter().chain(lifted);
    let flags = flags.map(std::convert::AsRef::as_ref).chain(["--db".as_ref(), db.as_os_str()]);
    let config = Flags::parse_from(flags).config;
    let (bound, address) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let server = Server::bind(config).await.expect("the server starts");
            let url = server.addresses().remove(0);
            let address = url.trim_start_matches("http://").parse().expect("an address");
            bound.send(address).expect("the bench waits");
            server.run().await.expect("the server runs");
        });
    });
    address.recv().expect("the server starts")
}

/// Has ids begin at a million, so that all frames of a run are of one length.
fn start_ids_high(path: &std::path::Path) {
    let (db, threads) =
        chinwag::db::Db::open(path, chinwag::db::Options::default(), Box::new(|_| {})).expect("the database opens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(db.stop());
    threads.join().expect("the threads end");
    let connection = rusqlite::Connection::open(path).expect("the database opens");
    connection.execute("UPDATE meta SET value = 1000000 WHERE key = 'high_water'", []).expect("the table is there");
}

/// Posts JSON; the body of the answer.
fn post(address: SocketAddr, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    answer.split_once("\r\n\r\n").expect("an answer has a head").1.to_owned()
}

fn log_in(address: SocketAddr) -> String {
    let credentials = r#"{"username":"bench","password":"bench bench"}"#;
    post(address, "/register", credentials);
    let answer: serde_json::Value = serde_json::from_str(&post(address, "/login", credentials)).expect("JSON");
    answer["token"].as_str().expect("a token").to_owned()
}

/// A text frame. Its mask of zeros is no secret, as a browser's must be (RFC 6455 5.3); a server cannot tell.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    if let Ok(len @ 0..=125) = u8::try_from(text.len()) {
        frame.push(0x80 | len);
    } else {
        frame.push(0x80 | 0x7E);
        frame.extend(u16::try_from(text.len()).expect("a short text").to_be_bytes());
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

/// Reads one frame from the server; its text.
fn read_frame(stream: &mut TcpStream) -> String {
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("a frame");
    let mut len = usize::from(head[1]);
    if len == 126 {
        let mut long = [0; 2];
        stream.read_exact(&mut long).expect("a length");
        len = usize::from(u16::from_be_bytes(long));
    }
    let mut text = vec![0; len];
    stream.read_exact(&mut text).expect("a text");
    String::from_utf8(text).expect("UTF-8")
}

/// Opens a WebSocket and authenticates; the stream stands behind `auth_success`.
fn open_socket(address: SocketAddr, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let upgrade = "GET /ws HTTP/1.1\r\nhost: bench\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).expect("the server reads");
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    stream.write_all(&frame(&format!(r#"{{"type":"auth","token":"{token}"}}"#))).expect("the server reads");
    assert!(read_frame(&mut stream).contains("auth_success"), "the session is live");
    stream.set_nodelay(true).expect("a socket option");
    stream
}

/// Reads `bytes` from each socket in turn.
fn read_all(sockets: &mut [TcpStream], bytes: usize) {
    let mut buffer = vec![0; bytes];
    for socket in sockets {
        socket.read_exact(&mut buffer).expect("every byte is delivered");
    }
}

/// The server's connections, and what a message comes to on each.
struct Chat {
    sockets: Vec<TcpStream>,
    frame_bytes: usize,
}

impl Chat {
    fn open(address: SocketAddr, token: &str, receivers: usize) -> Self {
        let mut sockets: Vec<_> = (0..receivers).map(|_| open_socket(address, token)).collect();
        // The first connection is told that its user came, and one that is sent to once more is past all greetings.
        assert!(read_frame(&mut sockets[0]).contains("user_join"));
        let message = frame(&format!(r#"{{"type":"message","content":"{CONTENT}"}}"#));
        sockets[0].write_all(&message).expect("the server reads");
        let frame_bytes = sockets.iter_mut().map(|socket| read_frame(socket).len()).max().expect("a receiver");
        Self { sockets, frame_bytes: frame_bytes + if frame_bytes < 126 { 2 } else { 4 } }
    }

    fn deliver(&mut self, burst: usize, rounds: u64) -> Duration {
        let message = frame(&format!(r#"{{"type":"message","content":"{CONTENT}"}}"#)).repeat(burst);
        let started = Instant::now();
        for _ in 0..rounds {
            self.sockets[0].write_all(&message).expect("the server reads");
            read_all(&mut self.sockets, self.frame_bytes * burst);
        }
        started.elapsed()
    }
}

/// The bare loop: a thread that writes what it is told to, to every socket.
struct Bare {
    sockets: Vec<TcpStream>,
    write: mpsc::Sender<Vec<u8>>,
}

impl Bare {
    fn open(receivers: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (mut sockets, mut written_to) = (Vec::new(), Vec::new());
        for _ in 0..receivers {
            sockets.push(TcpStream::connect(address).expect("a connection"));
            let (stream, _) = listener.accept().expect("a connection");
            stream.set_nodelay(true).expect("a socket option");
            written_to.push(stream);
        }
        let (write, writes) = mpsc::channel::<Vec<u8>>();
        thread::spawn(move || {
            while let Ok(bytes) = writes.recv() {
                for stream in &mut written_to {
                    stream.write_all(&bytes).expect("the reader reads");
                }
            }
        });
        Self { sockets, write }
    }

    fn deliver(&mut self, bytes: usize, rounds: u64) -> Duration {
        let started = Instant::now();
        for _ in 0..rounds {
            self.write.send(vec![b'x'; bytes]).expect("the loop runs");
            read_all(&mut self.sockets, bytes);
        }
        started.elapsed()
    }
}

/// Seconds a delivery, by what was measured.
type Figures = BTreeMap<(usize, usize), [f64; 2]>;

fn fan_out(criterion: &mut Criterion) {
    let folder = tempfile::tempdir_in(".").expect("a folder on the disk of the project");
    let mut figures = Figures::new();
    for receivers in RECEIVERS {
        // A server for each number of receivers: the ids, and so the frames, are of one length then.
        let folder = tempfile::tempdir_in(folder.path()).expect("a folder");
        let address = start_server(folder.path());
        let mut chat = Chat::open(address, &log_in(address), receivers);
        let mut bare = Bare::open(receivers);
        let frame_bytes = chat.frame_bytes;
        let mut group = criterion.benchmark_group("fan_out");
        for burst in BURSTS {
            let deliveries = receivers * burst;
            group.throughput(Throughput::Elements(deliveries as u64));
            let mut measure = |of: usize, name: &str, deliver: &mut dyn FnMut(u64) -> Duration| {
                group.bench_function(BenchmarkId::new(name, format!("{receivers}x{burst}")), |bencher| {
                    bencher.iter_custom(|rounds| {
                        let took = deliver(rounds);
                        let figure = &mut figures.entry((receivers, burst)).or_insert([f64::MAX; 2])[of];
                        #[expect(clippy::cast_precision_loss, reason = "a count of deliveries in a figure for people")]
                        let each = took.as_secs_f64() / (rounds as f64 * deliveries as f64);
                        *figure = figure.min(each);
                        took
                    });
                });
            };
            measure(0, "chinwag", &mut |rounds| chat.deliver(burst, rounds));
            measure(1, "bare", &mut |rounds| bare.deliver(frame_bytes * burst, rounds));
        }
        group.finish();
    }
    print_ratios(&figures);
}

#[expect(clippy::print_stdout, reason = "the ratio is the bench's answer")]
fn print_ratios(figures: &Figures) {
    for ((receivers, burst), [chinwag, bare]) in figures {
        let (micros, ratio) = (chinwag * 1e6, chinwag / bare);
        println!("{receivers} receivers, {burst} at a time: {micros:.2} µs a delivery, {ratio:.2} × the bare loop");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = fan_out
}
criterion_main!(benches);
