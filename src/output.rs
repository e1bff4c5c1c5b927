//! Standard error and standard output of the server, written to by threads of their own.
//!
//! Their reader may have stopped: a full pipe, a terminal under Ctrl-S. A task that waited for it would hold up a loop
//! with all its connections, or the writer, so the server writes to both only through this module. A log line that does
//! not fit into the queue is dropped and counted, and the count is logged once there is room again.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes of log lines that wait to be written: some thousand lines.
const QUEUE_BYTES: usize = 512 * 1024;
/// Bytes of the longest line; the rest of a longer one is left out.
const LINE_BYTES: usize = 8 * 1024;
/// How long the end of the process, or its greeting, waits for its output to be read.
const PATIENCE: Duration = Duration::from_millis(500);

/// The writing end of the log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Log(Arc<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// Something was put into the queue, or taken out of it.
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether a line is being written.
    writing: bool,
    dropped: u64,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: &[u8]) {
        let mut waiting = self.lock();
        let room = QUEUE_BYTES - waiting.bytes;
        // A count that could not be logged any more is worth less than the lines that come before it.
        if line.len().min(LINE_BYTES) > room || waiting.dropped > 0 && room < QUEUE_BYTES / 2 {
            waiting.dropped += 1;
            return;
        }
        let line = if line.len() > LINE_BYTES { [&line[..LINE_BYTES - 1], b"\n"].concat() } else { line.to_vec() };
        waiting.bytes += line.len();
        waiting.lines.push_back(line);
        self.changed.notify_all();
    }

    /// Writes lines as they come, forever.
    fn write_all(&self, mut output: impl Write) {
        loop {
            let mut waiting = self.lock();
            waiting.writing = false;
            self.changed.notify_all();
            let line = loop {
                if let Some(line) = waiting.lines.pop_front() {
                    break line;
                }
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            };
            waiting.bytes -= line.len();
            waiting.writing = true;
            let has_room = waiting.bytes <= QUEUE_BYTES / 2;
            let dropped = if has_room { std::mem::take(&mut waiting.dropped) } else { 0 };
            drop(waiting);
            // Without a standard error there is nowhere to report to.
            drop(output.write_all(&line));
            if dropped > 0 {
                tracing::warn!(lines = dropped, "the log was not read fast enough: lines were dropped");
            }
        }
    }
}

static LOG: OnceLock<Log> = OnceLock::new();

impl Log {
    /// Starts the thread that writes to standard error.
    pub(crate) fn start() -> io::Result<Self> {
        let log = Self(Arc::default());
        let queue = Arc::clone(&log.0);
        thread::Builder::new().name("log".into()).spawn(move || queue.write_all(io::stderr()))?;
        // Otherwise the thread that panics would write the message itself.
        std::panic::set_hook(Box::new(|panic| tracing::error!("{}", panic.to_string().replace('\n', " "))));
        drop(LOG.set(log.clone()));
        Ok(log)
    }

    /// Waits a moment until everything is written.
    fn flush(&self) {
        let waiting = self.0.lock();
        let is_busy = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        drop(self.0.changed.wait_timeout_while(waiting, PATIENCE, is_busy));
    }
}

/// Ends the log at the end of the process, after an optional last line: waits a moment until it is written.
pub(crate) fn end_log(last: Option<&str>) {
    match (LOG.get(), last) {
        (Some(log), last) => {
            if let Some(line) = last {
                log.0.put(format!("{line}\n").as_bytes());
            }
            log.flush();
        }
        // Without a standard error there is nowhere to report to.
        (None, Some(line)) => drop(writeln!(io::stderr(), "{line}")),
        (None, None) => {}
    }
}

/// Puts events into the queue. Each is written in one piece.
pub(crate) struct LineWriter<'a>(&'a Queue);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter(&self.0)
    }
}

/// Prints lines to standard output, and waits a moment for that: if nobody reads them now, they are printed when
/// somebody does.
///
/// # Errors
/// If there is no standard output.
pub(crate) fn print(lines: &str) -> io::Result<()> {
    let (printed, done) = mpsc::channel();
    let lines = lines.to_owned();
    thread::Builder::new().name("greeting".into()).spawn(move || {
        let mut stdout = io::stdout();
        // Nobody waits any longer if it took too long.
        drop(printed.send(stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush())));
    })?;
    done.recv_timeout(PATIENCE).unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let queue = Queue::default();
        let line = [b'x'; 1_000];
        for _ in 0..QUEUE_BYTES / line.len() + 5 {
            queue.put(&line);
        }
        let waiting = queue.lock();
        assert_eq!(waiting.dropped, 5);
        assert!(waiting.bytes <= QUEUE_BYTES);
    }

    #[test]
    fn after_a_line_was_dropped_none_is_taken_until_half_of_the_queue_is_free() {
        let queue = Queue::default();
        let line = [b'x'; 1_024];
        let all = QUEUE_BYTES / line.len();
        (0..=all).for_each(|_| queue.put(&line));
        let take = |lines| {
            let mut waiting = queue.lock();
            waiting.bytes -= waiting.lines.drain(..lines).map(|line| line.len()).sum::<usize>();
        };
        take(all / 2 - 1);
        queue.put(&line);
        assert_eq!(queue.lock().dropped, 2);
        take(1);
        queue.put(&line);
        let waiting = queue.lock();
        assert_eq!((waiting.dropped, waiting.lines.len()), (2, all / 2 + 1));
    }

    #[test]
    fn that_lines_were_dropped_is_said_once_half_of_the_queue_is_free() {
        /// Tells of each line what waits behind it, in bytes, and how many dropped lines are still to be told of.
        struct Watch(Arc<Queue>, mpsc::Sender<(usize, u64)>);

        impl Write for Watch {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                let waiting = self.0.lock();
                self.1.send((waiting.bytes, waiting.dropped)).map_err(io::Error::other)?;
                Ok(line.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let queue = Arc::new(Queue::default());
        let line = [b'x'; 1_024];
        let all = QUEUE_BYTES / line.len();
        (0..all + 5).for_each(|_| queue.put(&line));
        let (sender, watched) = mpsc::channel();
        let watch = Watch(Arc::clone(&queue), sender);
        thread::spawn(move || queue.write_all(watch));
        for left in (0..all).rev() {
            let untold = if left > all / 2 { 5 } else { 0 };
            assert_eq!(watched.recv().unwrap(), (left * line.len(), untold));
        }
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let queue = Queue::default();
        queue.put(&vec![b'x'; QUEUE_BYTES * 2]);
        let line = queue.lock().lines.pop_front().unwrap();
        assert_eq!((line.len(), line.last()), (LINE_BYTES, Some(&b'\n')));
    }
}
