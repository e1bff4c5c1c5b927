//! The runs: what load is put on a server, and which figures come of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;

use crate::clients::{Crew, Fleet, Window, heavy_ping};
use crate::report::{Column, Histogram, micros};
use crate::server::{Memory, Server};
use crate::wire::{Http, enter};

/// The load runs this long before anything is measured: caches, rings and socket buffers find their size.
const WARM_UP: Duration = Duration::from_secs(2);
/// A server that used no CPU, to 10 ms, for so long is at rest.
const REST: Duration = Duration::from_millis(1500);
const RESTS_MAX: usize = 40;
/// So many requests go first and do not count: a server that compiles while it runs has done so by then.
const UNCOUNTED: usize = 1000;
/// A generator busier than this share of a core measures itself.
const SATURATED_PERCENT: f64 = 90.0;
/// What else runs on a machine that is left alone.
const CALM_PERCENT: f64 = 10.0;
/// Of a flood's deliveries every so many-th message is timed; a clock for each would cost more than the delivery.
const FLOOD_SAMPLE: u64 = 16;
/// Just under the contract's largest frame, 64 KiB, with its JSON and masking key.
const HEAVY_FRAME: usize = 64 * 1024 - 64;
const PAGE: &str = "/messages?limit=50";
/// Slow enough that nobody falls behind before the restart.
const RATE_OF_THE_MISSED: f64 = 20.0;
const MESSAGES_FOR_HISTORY: u64 = 1_000;

const MEGABYTE: f64 = 1e6;

/// Many clients read, a few of them send at a fixed rate together.
pub(crate) fn paced(server: &Server, crew: Crew, rate: f64, duration: Duration) -> Result<Column> {
    let mut fleet = Fleet::connect(server, crew)?;
    fleet.send_paced(rate);
    measured(fleet, duration)
}

/// Each sender keeps so many messages under way: as fast as the server settles them.
pub(crate) fn flood(server: &Server, crew: Crew, outstanding: usize, duration: Duration) -> Result<Column> {
    let mut fleet = Fleet::connect(server, Crew { sample: FLOOD_SAMPLE, ..crew })?;
    fleet.send_flood(outstanding)?;
    measured(fleet, duration)
}

fn measured(mut fleet: Fleet, duration: Duration) -> Result<Column> {
    fleet.run_for(WARM_UP)?;
    let window = fleet.measure(duration)?;
    let mut column = Column::default();
    let seconds = window.elapsed.as_secs_f64();
    column.put_compared("stored/s", window.stored as f64 / seconds);
    column.put("deliveries/s", window.deliveries as f64 / seconds);
    column.put_latency(["delivery p50, ms", "delivery p99, ms", "delivery max, ms"], &window.latency);
    column.put_latency(["ack p50, ms", "ack p99, ms", "ack max, ms"], &window.acks);
    let cpu = window.cpu.map_or(f64::NAN, micros);
    column.put_compared("CPU µs a delivery", cpu / window.deliveries as f64);
    column.put_compared("CPU µs a message", cpu / window.stored as f64);
    column.put("CPU, % of a core", cpu / micros(window.elapsed) * 100.0);
    put_memory(&mut column, &window);
    put_outcome(&mut column, &mut fleet)?;
    put_neighbours(&mut column, &window);
    Ok(column)
}

/// Connections that do nothing: what each costs in memory, and all of them in CPU, heartbeats included.
pub(crate) fn idle(server: &Server, crew: Crew, heavy: usize, duration: Duration) -> Result<Column> {
    let before = server.memory();
    let mut fleet = Fleet::connect(server, crew)?;
    fleet.run_for(WARM_UP)?;
    let window = fleet.measure(duration)?;
    let mut column = Column::default();
    column.put("start to first answer, ms", server.start_time.map_or(f64::NAN, |time| micros(time) / 1e3));
    column.put("RSS at rest, MB", server.rss_at_rest.map_or(f64::NAN, |bytes| bytes as f64 / MEGABYTE));
    put_memory(&mut column, &window);
    let before = before.map_or(f64::NAN, |memory| memory.now as f64);
    let grown = |memory: Option<Memory>| memory.map_or(f64::NAN, |memory| memory.now as f64 - before);
    column.put("RSS bytes a connection", grown(server.memory()) / crew.clients as f64);
    column.put("CPU, % of a core", window.cpu.map_or(f64::NAN, micros) / micros(window.elapsed) * 100.0);
    if heavy > 0 {
        let light = server.memory();
        fleet.send_from(heavy.min(crew.clients), &heavy_ping(HEAVY_FRAME))?;
        fleet.run_for(WARM_UP)?;
        ensure!(fleet.counters().pongs >= heavy.min(crew.clients) as u64, "not every large frame was answered");
        let kept = grown(server.memory()) - grown(light);
        column.put("kept after a 64 KiB frame, bytes", kept / heavy.min(crew.clients) as f64);
    }
    put_neighbours(&mut column, &window);
    Ok(column)
}

/// Some clients stop reading, and later go on: what that costs the server, the others, and them.
pub(crate) fn stall(server: &Server, crew: Crew, rate: f64, pause: Duration) -> Result<Column> {
    let mut fleet = Fleet::connect(server, crew)?;
    fleet.send_paced(rate);
    fleet.run_for(WARM_UP)?;
    let calm = fleet.measure(pause / 2)?;
    fleet.stall()?;
    let stalled = fleet.measure(pause)?;
    fleet.go_on()?;
    let after = fleet.measure(pause / 2)?;

    let mut column = Column::default();
    column.put("stored/s", stalled.stored as f64 / stalled.elapsed.as_secs_f64());
    column.put("others' p99 before, ms", calm.latency.quantile_ms(0.99));
    column.put("others' p99 during, ms", stalled.latency.quantile_ms(0.99));
    column.put("others' p99 after, ms", after.latency.quantile_ms(0.99));
    column.put("ack p99 before, ms", calm.acks.quantile_ms(0.99));
    column.put("ack p99 during, ms", stalled.acks.quantile_ms(0.99));
    column.put("ack p99 after, ms", after.acks.quantile_ms(0.99));
    let megabytes = |bytes: Option<u64>| bytes.map_or(f64::NAN, |bytes| bytes as f64 / MEGABYTE);
    let peak = stalled.peak_rss.max(after.peak_rss);
    column.put("RSS before, MB", megabytes(calm.rss));
    column.put("peak RSS during and after, MB", megabytes(peak));
    column.put("growth, MB", megabytes(peak) - megabytes(calm.rss));
    put_outcome(&mut column, &mut fleet)?;
    put_neighbours(&mut column, &stalled);
    Ok(column)
}

/// Many users come in, and leave all at once: everybody is told of everybody, if the server knows no better.
pub(crate) fn join(server: &Server, crew: Crew) -> Result<Column> {
    let (before, begun) = (server.cpu(), Instant::now());
    let mut fleet = Fleet::connect(server, crew)?;
    let joining = begun.elapsed();
    until_at_rest(server, &mut fleet)?;
    let joined = server.cpu();
    let told = fleet.counters().notices;
    drop(fleet);
    let mut witness = Fleet::connect(server, Crew { clients: 1, ..crew })?;
    until_at_rest(server, &mut witness)?;
    let left = server.cpu();

    let people = crew.clients as f64;
    let mut column = Column::default();
    column.put("all in after, s", joining.as_secs_f64());
    column.put("CPU µs a join", cpu_micros(before, joined) / people);
    column.put("joins and leaves told, a person", told as f64 / people);
    column.put("CPU µs a leave", cpu_micros(joined, left) / people);
    column.put("peak RSS, MB", server.memory().map_or(f64::NAN, |memory| memory.peak as f64 / MEGABYTE));
    Ok(column)
}

/// The server is restarted while many users are inside, who all come back at once and have missed a little.
pub(crate) fn restart(server: &mut Server, crew: Crew, at_once: usize, missed: u64) -> Result<Column> {
    ensure!(crew.rooms == 0 || missed == 0, "with --rooms nobody misses all messages: say --missed 0");
    let mut fleet = Fleet::storm(server, crew, at_once, None, 0)?;
    let (last_read, epoch) = fleet.last_read()?;
    fleet.send_paced(RATE_OF_THE_MISSED);
    while fleet.counters().acks < missed {
        fleet.run_for(Duration::from_millis(1))?;
    }
    ensure!(fleet.settle()? == 0, "not everything arrived");
    let (last_id, _) = fleet.last_read()?;
    drop(fleet);
    server.restart()?;
    let (before, begun) = (server.cpu(), Instant::now());
    let mut fleet = Fleet::storm(server, crew, at_once, Some((last_read, &epoch)), last_id)?;
    let elapsed = begun.elapsed();
    until_at_rest(server, &mut fleet)?;

    let people = crew.clients as f64;
    let mut column = Column::default();
    column.put("all back after, s", elapsed.as_secs_f64());
    column.put("CPU µs each", cpu_micros(before, server.cpu()) / people);
    column.put("missed by each", (last_id - last_read) as f64);
    column.put("read again, each", fleet.counters().deliveries as f64 / people);
    column.put("joins and leaves told, a person", fleet.counters().notices as f64 / people);
    column.put("resyncs", fleet.counters().resyncs as f64);
    column.put("peak RSS, MB", server.memory().map_or(f64::NAN, |memory| memory.peak as f64 / MEGABYTE));
    Ok(column)
}

/// Reads on until the server has nothing more to do.
fn until_at_rest(server: &Server, fleet: &mut Fleet) -> Result<()> {
    for _ in 0..RESTS_MAX {
        let before = server.cpu();
        fleet.run_for(REST)?;
        if server.cpu() == before {
            return Ok(());
        }
    }
    bail!("the server does not come to rest")
}

/// One connection after another: upgrade and `auth`.
pub(crate) fn connect(server: &Server, connections: usize) -> Result<Column> {
    let token = server.tokens.first().context("there is no user")?;
    // Someone of the same user stays, so that no connection is news to the others.
    let _resident = enter(server.address, token, false, None)?;
    let mut inside = Vec::with_capacity(UNCOUNTED + connections);
    for _ in 0..UNCOUNTED {
        inside.push(enter(server.address, token, false, None)?.0);
    }
    let (cpu, begun) = (server.cpu(), Instant::now());
    let mut latency = Histogram::default();
    for _ in 0..connections {
        let asked = Instant::now();
        inside.push(enter(server.address, token, false, None)?.0);
        latency.record(asked.elapsed().as_micros() as u64);
    }
    let cpu = cpu_micros(cpu, server.cpu());
    let mut column = Column::default();
    column.put("connections", connections as f64);
    column.put("connections/s", connections as f64 / begun.elapsed().as_secs_f64());
    column.put_latency(["connect p50, ms", "connect p99, ms", "connect max, ms"], &latency);
    column.put("CPU µs a connect", cpu / connections as f64);
    Ok(column)
}

/// One page of 50 after another, on one connection.
pub(crate) fn history(server: &Server, crew: Crew, requests: usize) -> Result<Column> {
    let mut fleet = Fleet::connect(server, Crew { clients: 1, senders: 1, stalling: 0, ..crew })?;
    fleet.send_flood(32)?;
    while fleet.counters().acks < MESSAGES_FOR_HISTORY {
        ensure!(fleet.counters().refused == 0, "refused: {}", fleet.first_refusal().unwrap_or_default());
        fleet.run_for(Duration::from_millis(10))?;
    }
    fleet.settle()?;

    asked(server, PAGE, requests, "CPU µs a page of 50")
}

/// One search through all that was said, and pages of 50 while others search it over and over.
pub(crate) fn search(server: &Server, searchers: usize, requests: usize) -> Result<Column> {
    let token = server.tokens.first().context("there is no user")?;
    let alone = ask(server, PAGE, requests)?;
    let mut http = Http::connect(server.address)?;
    let (cpu, begun) = (server.cpu(), Instant::now());
    let mut latency = Histogram::default();
    look_through(&mut http, token, |step| latency.record(step.as_micros() as u64))?;
    let (elapsed, cpu) = (begun.elapsed(), cpu_micros(cpu, server.cpu()));
    let is_over = AtomicBool::new(false);
    let meanwhile = thread::scope(|scope| {
        let searching: Vec<_> = server.tokens.iter().cycle().take(searchers).collect();
        let searching = searching.into_iter().map(|token| {
            scope.spawn(|| -> Result<()> {
                let mut http = Http::connect(server.address)?;
                while !is_over.load(Ordering::Relaxed) {
                    look_through(&mut http, token, |_| ())?;
                }
                Ok(())
            })
        });
        let searching: Vec<_> = searching.collect();
        let meanwhile = ask(server, PAGE, requests);
        is_over.store(true, Ordering::Relaxed);
        for searcher in searching {
            searcher.join().map_err(|_| anyhow!("a searcher panicked"))??;
        }
        meanwhile
    })?;
    let mut column = Column::default();
    column.put("CPU ms a search of all", cpu / 1e3);
    column.put("a search of all, s", elapsed.as_secs_f64());
    column.put("its steps", latency.count() as f64);
    column.put_latency(["step p50, ms", "step p99, ms", "step max, ms"], &latency);
    column.put_latency(["page alone p50, ms", "page alone p99, ms", "page alone max, ms"], &alone.latency);
    column.put_latency(
        ["page meanwhile p50, ms", "page meanwhile p99, ms", "page meanwhile max, ms"],
        &meanwhile.latency,
    );
    Ok(column)
}

/// Searches all messages for a word that is in none, and says how long each step took.
fn look_through(http: &mut Http, token: &str, mut took: impl FnMut(Duration)) -> Result<()> {
    let mut before = None;
    loop {
        let asked = Instant::now();
        before = http.search(token, "not+there", before)?;
        took(asked.elapsed());
        if before.is_none() {
            return Ok(());
        }
    }
}

/// Text at a fixed rate, first alone, then while pictures are stored: does an `ack` wait for them?
pub(crate) fn pictures(
    server: &Server,
    crew: Crew,
    rate: f64,
    (at_once, bytes): (usize, usize),
    duration: Duration,
) -> Result<Column> {
    let mut fleet = Fleet::connect(server, crew)?;
    fleet.send_paced(rate);
    fleet.run_for(WARM_UP)?;
    let alone = fleet.measure(duration)?;
    let (picture, is_over) = (png(bytes), AtomicBool::new(false));
    let (meanwhile, stored) = thread::scope(|scope| -> Result<(Window, u64)> {
        let sending = server.tokens.iter().cycle().take(at_once).map(|token| {
            scope.spawn(|| -> Result<u64> {
                let mut http = Http::connect(server.address)?;
                let room = http.make_room(token, &json!({ "name": "pictures", "kind": "private" }))?;
                let mut stored = 0;
                while !is_over.load(Ordering::Relaxed) {
                    http.show_picture(token, room, &picture)?;
                    stored += 1;
                }
                Ok(stored)
            })
        });
        let sending: Vec<_> = sending.collect();
        let meanwhile = fleet.measure(duration);
        is_over.store(true, Ordering::Relaxed);
        let mut stored = 0;
        for sender in sending {
            stored += sender.join().map_err(|_| anyhow!("a sender panicked"))??;
        }
        Ok((meanwhile?, stored))
    })?;
    let mut column = Column::default();
    column.put("messages/s", meanwhile.stored as f64 / meanwhile.elapsed.as_secs_f64());
    column.put("pictures/s", stored as f64 / meanwhile.elapsed.as_secs_f64());
    column.put_latency(["ack alone p50, ms", "ack alone p99, ms", "ack alone max, ms"], &alone.acks);
    column.put_latency(["ack meanwhile p50, ms", "ack meanwhile p99, ms", "ack meanwhile max, ms"], &meanwhile.acks);
    put_memory(&mut column, &meanwhile);
    put_outcome(&mut column, &mut fleet)?;
    put_neighbours(&mut column, &meanwhile);
    Ok(column)
}

/// A picture as far as anybody looks who does not decode it, of about so many bytes.
fn png(bytes: usize) -> Vec<u8> {
    let chunk = |kind: &[u8], data: &[u8]| [&(data.len() as u32).to_be_bytes(), kind, data, b"\0\0\0\0"].concat();
    let header = chunk(b"IHDR", b"\0\0\x04\0\0\0\x03\0\x08\x06\0\0\0");
    [b"\x89PNG\r\n\x1a\n", &header[..], &chunk(b"IDAT", &vec![7; bytes]), &chunk(b"IEND", b"")].concat()
}

/// One list of so many rooms after another, on one connection.
pub(crate) fn list(server: &Server, rooms: usize, requests: usize) -> Result<Column> {
    let token = server.tokens.first().context("there is no user")?;
    let mut http = Http::connect(server.address)?;
    let run: u32 = rand::random();
    // The lobby is one of them.
    for number in 1..rooms {
        let name = format!("load {run:08x} {number}");
        let room = http.make_room(token, &json!({ "name": name, "kind": "open" }))?;
        let message = json!({ "room": room, "content": "the last thing that was said here" });
        let (status, _) = http.request("POST", "/messages", Some(token), Some(&message))?;
        ensure!(status == 201, "POST /messages: {status}");
    }
    asked(server, "/rooms", requests, "CPU µs a list of rooms")
}

/// One `GET` of `target` after another; `cost` is what a request's CPU is called.
fn asked(server: &Server, target: &str, requests: usize, cost: &'static str) -> Result<Column> {
    let Asked { latency, bytes, elapsed, cpu } = ask(server, target, requests)?;
    let mut column = Column::default();
    column.put("requests/s", requests as f64 / elapsed.as_secs_f64());
    column.put("bytes an answer", bytes as f64);
    column.put_latency(["answer p50, ms", "answer p99, ms", "answer max, ms"], &latency);
    column.put(cost, cpu / requests as f64);
    Ok(column)
}

/// What requests came to.
struct Asked {
    latency: Histogram,
    /// Of the last answer.
    bytes: usize,
    elapsed: Duration,
    cpu: f64,
}

/// One `GET` of `target` after another, on one connection.
fn ask(server: &Server, target: &str, requests: usize) -> Result<Asked> {
    let token = server.tokens.first().context("there is no user")?;
    let mut http = Http::connect(server.address)?;
    let mut latency = Histogram::default();
    let mut ask = || -> Result<usize> {
        let (status, answer) = http.request("GET", target, Some(token), None)?;
        ensure!(status == 200, "GET {target}: {status}");
        Ok(answer.len())
    };
    let mut bytes = 0;
    for _ in 0..UNCOUNTED {
        bytes = ask()?;
    }
    let (cpu, begun) = (server.cpu(), Instant::now());
    for _ in 0..requests {
        let asked = Instant::now();
        ask()?;
        latency.record(asked.elapsed().as_micros() as u64);
    }
    Ok(Asked { latency, bytes, elapsed: begun.elapsed(), cpu: cpu_micros(cpu, server.cpu()) })
}

/// CPU time between two readings; not a number if the process is not known.
fn cpu_micros(before: Option<Duration>, after: Option<Duration>) -> f64 {
    before.zip(after).map_or(f64::NAN, |(before, after)| micros(after.saturating_sub(before)))
}

fn put_memory(column: &mut Column, window: &Window) {
    column.put("RSS, MB", window.rss.map_or(f64::NAN, |bytes| bytes as f64 / MEGABYTE));
    column.put("peak RSS, MB", window.peak_rss.map_or(f64::NAN, |bytes| bytes as f64 / MEGABYTE));
}

/// Waits for the last delivery, then says what never came or came wrongly.
fn put_outcome(column: &mut Column, fleet: &mut Fleet) -> Result<()> {
    let lost = fleet.settle()?;
    let counters = fleet.counters();
    column.put("lost deliveries", lost as f64);
    column.put("repeated", counters.repeats as f64);
    column.put("out of order", counters.disorder as f64);
    column.put("refused", counters.refused as f64);
    column.put("never settled", fleet.unsettled() as f64);
    column.put("resyncs", counters.resyncs as f64);
    column.put("caught up by GET", counters.caught_up as f64);
    column.put("connections closed on us", counters.reconnects as f64);
    if let Some(refusal) = fleet.first_refusal() {
        eprintln!("the server refused: {refusal}");
    }
    Ok(())
}

/// What else ran: figures are the server's own only as long as neither the generator nor anybody else was in its way.
fn put_neighbours(column: &mut Column, window: &Window) {
    let percent = |cpu: Option<Duration>| cpu.map_or(f64::NAN, micros) / micros(window.elapsed) * 100.0;
    let (generator, others) = (percent(window.own_cpu), percent(window.others_cpu));
    column.put("generator's CPU, % of a core", generator);
    column.put("others' CPU, % of a core", others);
    if generator > SATURATED_PERCENT {
        eprintln!("the generator used {generator:.0} % of a core: latencies and rates may be its own");
    }
    if others > CALM_PERCENT {
        eprintln!("the machine was not calm: other processes used {others:.0} % of a core");
    }
}
