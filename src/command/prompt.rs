//! Passwords: typed unseen at a terminal, or read from standard input. Never an argument, which everybody on the
//! machine can read.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

/// Bytes of a line that may be a password: 256 characters of four bytes, and the end of the line.
const LINE_MAX_BYTES: u64 = 1_026;
/// Control-C.
const INTERRUPT: char = '\u{3}';

/// A password as it was entered: twice at a terminal, or as the first line of what is not one.
pub(super) fn new_password() -> anyhow::Result<String> {
    if !io::stdin().is_terminal() {
        return read_line();
    }
    let unseen = Unseen::begin()?;
    let password = ask("New password: ")?;
    let again = ask("The same again: ")?;
    drop(unseen);
    if password != again {
        bail!("these were two different passwords");
    }
    Ok(password)
}

fn ask(prompt: &str) -> anyhow::Result<String> {
    let mut terminal = io::stderr();
    write!(terminal, "{prompt}").context("cannot ask")?;
    let line = read_line();
    // The end of the line was not shown either.
    writeln!(terminal).context("cannot ask")?;
    let line = line?;
    if line.ends_with(INTERRUPT) {
        bail!("interrupted");
    }
    Ok(line)
}

fn read_line() -> anyhow::Result<String> {
    let mut line = String::new();
    io::stdin().lock().take(LINE_MAX_BYTES).read_line(&mut line).context("cannot read the password")?;
    let end = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(end);
    Ok(line)
}

/// A terminal that does not show what is typed, until this is dropped.
///
/// Control-C does not end the program meanwhile, which would leave the terminal so, but the line.
struct Unseen {
    before: Termios,
}

impl Unseen {
    fn begin() -> anyhow::Result<Self> {
        let before = tcgetattr(io::stdin()).context("cannot ask the terminal")?;
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        unseen.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT as u8;
        tcsetattr(io::stdin(), OptionalActions::Flush, &unseen).context("cannot silence the terminal")?;
        Ok(Self { before })
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        tcsetattr(io::stdin(), OptionalActions::Flush, &self.before).ok();
    }
}
