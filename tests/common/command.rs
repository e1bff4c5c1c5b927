//! Commands beside a server, as an administrator runs them.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, binary};

/// What a command that ended has said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Its standard output, given that it went well.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// Its one line on standard error, given that it failed as what cannot be done does.
    pub(crate) fn failed(self) -> String {
        assert_eq!(self.code, 1, "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "one clear line, not: {self:?}");
        self.stderr
    }
}

/// Runs `chinwag` with `arguments` on the database at `path`.
pub(crate) fn chinwag(path: &Path, arguments: &[&str]) -> Ended {
    chinwag_reading(path, arguments, "")
}

/// The same with `input` on standard input.
pub(crate) fn chinwag_reading(path: &Path, arguments: &[&str], input: &str) -> Ended {
    chinwag_in(Path::new("."), path, arguments, input)
}

/// The same in a directory of the test's own.
pub(crate) fn chinwag_in(directory: &Path, path: &Path, arguments: &[&str], input: &str) -> Ended {
    let mut process = Command::new(binary())
        .args(arguments)
        .current_dir(directory)
        .env("CHINWAG_DB", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let (mut stdin, input) = (process.stdin.take().expect("the pipe was asked for"), input.to_owned());
    // A command that refuses at once does not read, and one that hangs does not either.
    std::thread::spawn(move || stdin.write_all(input.as_bytes()).ok());
    let output = end_of(process, &format!("chinwag {arguments:?}"));
    Ended {
        code: output.status.code().expect("it ends by itself"),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// What `process` has said when it has ended by itself, as it must.
pub(super) fn end_of(process: Child, what: &str) -> Output {
    let pid = Pid::from_child(&process);
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(process.wait_with_output()));
    let Ok(output) = end.recv_timeout(PATIENCE) else {
        kill_process(pid, Signal::KILL).expect("the process takes the signal");
        panic!("{what} runs on");
    };
    output.expect("a child can be waited for")
}
