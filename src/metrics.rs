//! The metrics, as text for Prometheus (text exposition format 0.0.4).
//!
//! Counters are relaxed atomics: each only counts, and none orders anything. No label has values that grow with the
//! number of users.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many values fell under each of `N` bounds.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    bounds: [u64; N],
    /// One for each bound; `over` counts the rest.
    counts: [AtomicU64; N],
    over: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: [u64; N]) -> Self {
        Self {
            bounds,
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            over: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    pub(crate) fn observe(&self, value: u64) {
        let at = self.bounds.partition_point(|&bound| bound < value);
        self.counts.get(at).unwrap_or(&self.over).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }
}

/// Why a request, frame or connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The client was too fast.
    Rate,
    /// The database failed, its queue was full, or the disk has no space for more text.
    Unavailable,
    /// The server, the user or the address has as many connections as allowed.
    Connections,
    /// The input violates the contract.
    Invalid,
    /// There is no session, or it does not allow this.
    Unauthorized,
}

const REFUSALS: [(Refused, &str); 5] = [
    (Refused::Rate, "rate"),
    (Refused::Unavailable, "unavailable"),
    (Refused::Connections, "connections"),
    (Refused::Invalid, "invalid"),
    (Refused::Unauthorized, "unauthorized"),
];

/// The outcomes of pushes.
#[cfg(feature = "push")]
#[derive(Debug, Default)]
pub(crate) struct Pushes {
    /// Accepted by a push service.
    pub(crate) sent: Counter,
    /// Ended a subscription.
    pub(crate) ended: Counter,
    /// Rejected for good.
    pub(crate) refused: Counter,
    /// Rejected for now.
    pub(crate) deferred: Counter,
    /// Never sent, since the queue was full or the wait too long.
    pub(crate) dropped: Counter,
}

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) connections_opened: Counter,
    pub(crate) messages: Counter,
    pub(crate) deliveries: Counter,
    pub(crate) catch_ups: Counter,
    pub(crate) resyncs: Counter,
    pub(crate) batch_messages: Histogram<8>,
    pub(crate) commit_micros: Histogram<10>,
    pub(crate) queue_commands: Histogram<8>,
    #[cfg(feature = "push")]
    pub(crate) pushes: Pushes,
    refusals: [Counter; REFUSALS.len()],
    started_at: SystemTime,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            connections_opened: Counter::default(),
            messages: Counter::default(),
            deliveries: Counter::default(),
            catch_ups: Counter::default(),
            resyncs: Counter::default(),
            batch_messages: Histogram::new([1, 2, 5, 10, 50, 100, 500, 2_000]),
            commit_micros: Histogram::new([100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000]),
            queue_commands: Histogram::new([0, 1, 5, 10, 50, 100, 500, 2_000]),
            #[cfg(feature = "push")]
            pushes: Pushes::default(),
            refusals: Default::default(),
            started_at: SystemTime::now(),
        }
    }

    pub(crate) fn refuse(&self, reason: Refused) {
        let at = REFUSALS.iter().position(|(known, _)| *known == reason).expect("every reason is listed");
        self.refusals[at].add(1);
    }

    /// The exposition. Users online and the process's own figures are read on request.
    pub(crate) fn render(&self, (users, connections): (usize, usize)) -> String {
        let mut text = Exposition(String::with_capacity(8 * 1024));
        text.head("chinwag_build_info", "The version, as a label.", "gauge");
        text.line(format_args!("chinwag_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
        text.gauge("chinwag_connections", "Authenticated WebSocket connections.", connections);
        text.gauge("chinwag_users_online", "Users with at least one connection.", users);
        text.counter(
            "chinwag_connections_total",
            "Connections that ever authenticated.",
            self.connections_opened.get(),
        );
        text.counter("chinwag_messages_total", "Messages stored.", self.messages.get());
        text.counter("chinwag_deliveries_total", "Frames written by the fan-out.", self.deliveries.get());
        text.counter(
            "chinwag_catch_ups_total",
            "Times a connection caught up from the database.",
            self.catch_ups.get(),
        );
        text.counter("chinwag_resyncs_total", "Times a connection was told to resync.", self.resyncs.get());
        text.head("chinwag_refusals_total", "Requests, frames and connections refused.", "counter");
        for (counter, (_, reason)) in self.refusals.iter().zip(REFUSALS) {
            text.line(format_args!("chinwag_refusals_total{{reason=\"{reason}\"}} {}", counter.get()));
        }
        text.histogram("chinwag_batch_messages", "Messages stored by one transaction.", &self.batch_messages, 1.0);
        text.histogram("chinwag_commit_seconds", "Time of one transaction.", &self.commit_micros, 1e6);
        text.histogram(
            "chinwag_queue_commands",
            "Commands waiting when a transaction had finished.",
            &self.queue_commands,
            1.0,
        );
        #[cfg(feature = "push")]
        {
            text.head("chinwag_pushes_total", "Pushes, by the answer of the push service.", "counter");
            let Pushes { sent, ended, refused, deferred, dropped } = &self.pushes;
            for (outcome, counter) in [("sent", sent), ("ended", ended), ("refused", refused), ("deferred", deferred)] {
                text.line(format_args!("chinwag_pushes_total{{outcome=\"{outcome}\"}} {}", counter.get()));
            }
            text.counter("chinwag_pushes_dropped_total", "Pushes given up before they were sent.", dropped.get());
        }
        if let Some(process) = Process::read() {
            text.gauge("process_resident_memory_bytes", "Resident memory.", process.resident_bytes);
            text.counter("process_cpu_seconds_total", "User and system CPU time.", process.cpu.as_secs_f64());
            text.gauge("process_open_fds", "Open file descriptors.", process.descriptors);
            let most = getrlimit(Resource::Nofile).current.map_or_else(|| "+Inf".into(), |most| most.to_string());
            text.gauge("process_max_fds", "Maximum number of open file descriptors.", most);
            let started = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
            text.gauge("process_start_time_seconds", "Start, in Unix seconds.", started.as_secs_f64());
        }
        text.0
    }
}

/// The exposition of a node's place in the log of its cluster.
#[cfg(feature = "cluster")]
pub(crate) fn render_log(figures: &crate::cluster::LogFigures) -> String {
    let mut text = Exposition(String::with_capacity(1_024));
    text.gauge("chinwag_log_applied", "Last log entry applied.", figures.applied);
    text.gauge("chinwag_log_behind", "Log entries not yet applied.", figures.behind);
    // The upper half, which a float holds exactly.
    text.gauge(
        "chinwag_log_chain",
        "Digest of all applied entries; equal on nodes with equal chinwag_log_applied.",
        figures.chain >> 32,
    );
    text.gauge("chinwag_log_nodes", "Live nodes, including this one.", figures.nodes);
    text.gauge("chinwag_log_up", "Whether entries are applied and published.", u8::from(figures.is_up));
    let ahead = Duration::from_millis(figures.clock_ahead.unsigned_abs()).as_secs_f64();
    let ahead = if figures.clock_ahead < 0 { -ahead } else { ahead };
    text.gauge("chinwag_log_clock_ahead_seconds", "Seconds that this clock is ahead of the log's.", ahead);
    text.0
}

struct Exposition(String);

impl Exposition {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("writing to a string cannot fail");
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl fmt::Display) {
        self.head(name, help, "gauge");
        self.line(format_args!("{name} {value}"));
    }

    fn counter(&mut self, name: &str, help: &str, value: impl fmt::Display) {
        self.head(name, help, "counter");
        self.line(format_args!("{name} {value}"));
    }

    #[expect(clippy::cast_precision_loss, reason = "a bound or a sum as Prometheus reads it: a float")]
    fn histogram<const N: usize>(&mut self, name: &str, help: &str, histogram: &Histogram<N>, units_in_one: f64) {
        self.head(name, help, "histogram");
        let mut count = 0;
        for (bound, under) in histogram.bounds.iter().zip(&histogram.counts) {
            count += under.load(Ordering::Relaxed);
            self.line(format_args!("{name}_bucket{{le=\"{}\"}} {count}", *bound as f64 / units_in_one));
        }
        count += histogram.over.load(Ordering::Relaxed);
        self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}"));
        self.line(format_args!("{name}_sum {}", histogram.sum.load(Ordering::Relaxed) as f64 / units_in_one));
        self.line(format_args!("{name}_count {count}"));
    }
}

/// The process as the kernel accounts for it.
struct Process {
    resident_bytes: u64,
    cpu: Duration,
    descriptors: usize,
}

impl Process {
    /// Reads `/proc/self`; `None` if it is not there.
    fn read() -> Option<Self> {
        let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Some(Self {
            resident_bytes: pages * rustix::param::page_size() as u64,
            cpu: Duration::try_from(cpu).ok()?,
            descriptors: std::fs::read_dir("/proc/self/fd").ok()?.count(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_of_a_histogram_has_what_is_under_its_bound_and_the_last_has_all() {
        let histogram = Histogram::new([1, 10]);
        for value in [0, 1, 2, 10, 11, 1_000] {
            histogram.observe(value);
        }
        let mut text = Exposition(String::new());
        text.histogram("x", "What it is.", &histogram, 1.0);
        for line in ["x_bucket{le=\"1\"} 2\n", "x_bucket{le=\"10\"} 4\n", "x_bucket{le=\"+Inf\"} 6\n", "x_sum 1024\n"] {
            assert!(text.0.contains(line), "{line} in {}", text.0);
        }
        assert!(text.0.ends_with("x_count 6\n"), "{}", text.0);
    }
}
