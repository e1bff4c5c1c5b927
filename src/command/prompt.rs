//! Passwords: typed unseen at a terminal, or read from standard input. Never an argument, which everybody on the
//! machine can read.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

/// Bytes of a line that may be a password: 256 characters of four bytes, and the end of the line.
const LINE_MAX_BYTES: usize = 1_026;
/// Control-C.
const INTERRUPT: u8 = 3;

/// A password: typed twice at a terminal, or the first line of any other standard input.
///
/// The page composes characters (NFC), and this program cannot: a password that the page might compose is refused,
/// since nobody could log in there with it.
pub(super) fn new_password() -> anyhow::Result<String> {
    let password = entered()?;
    if password.chars().any(may_be_composed) {
        bail!(
            "this password has a letter and its accent as two characters, which the page joins: type it as one (NFC)"
        );
    }
    Ok(password)
}

/// Whether a character may become one with those before it: the accents of the alphabets, the sound marks of Japanese
/// and the letters that Korean syllables are made of.
fn may_be_composed(char: char) -> bool {
    matches!(char, '\u{300}'..='\u{36f}' | '\u{3099}' | '\u{309a}' | '\u{1160}'..='\u{11ff}')
}

fn entered() -> anyhow::Result<String> {
    if !io::stdin().is_terminal() {
        return read_line();
    }
    let unseen = Unseen::begin()?;
    let password = ask("New password: ")?;
    let again = ask("Repeat it: ")?;
    drop(unseen);
    if password != again {
        bail!("the passwords do not match");
    }
    Ok(password)
}

fn ask(prompt: &str) -> anyhow::Result<String> {
    let mut terminal = io::stderr();
    write!(terminal, "{prompt}").context("cannot ask")?;
    let line = read_line();
    // The end of the line was not shown either.
    writeln!(terminal).context("cannot ask")?;
    line
}

/// A line, without its end.
fn read_line() -> anyhow::Result<String> {
    let mut line = Vec::new();
    for byte in io::stdin().lock().bytes().take(LINE_MAX_BYTES) {
        match byte.context("cannot read the password")? {
            b'\n' => break,
            INTERRUPT => bail!("interrupted"),
            byte => line.push(byte),
        }
    }
    let line = String::from_utf8(line).context("the password is not UTF-8")?;
    // Some editors begin a file with a byte order mark, which nobody types.
    Ok(line.trim_start_matches('\u{feff}').trim_end_matches('\r').to_owned())
}

/// A terminal that does not show what is typed, until this is dropped.
///
/// Control-C meanwhile ends the line and not the program, which would leave the terminal like this.
struct Unseen {
    before: Termios,
}

impl Unseen {
    fn begin() -> anyhow::Result<Self> {
        let before = tcgetattr(io::stdin()).context("cannot ask the terminal")?;
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        unseen.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
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
