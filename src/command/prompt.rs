//! Passwords: typed unseen at a terminal, or read from standard input. Never an argument, which everybody on the
//! machine can read.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

/// Bytes of a line that may be a password: 256 characters of four bytes, and the end of the line.
const LINE_MAX_BYTES: usize = 1_026;
/// Control-C.
const INTERRUPT: u8 = 3;

/// Marks, each before the letters that it goes on and what both are composed to: those of the languages of Europe,
/// Vietnamese and Japanese. Korean is composed by arithmetic.
const COMPOSED: &str = "\
    \u{300}AÀEÈIÌOÒUÙaàeèiìoòuùÂẦâầĂẰăằÊỀêềÔỒôồƠỜơờƯỪưừYỲyỳЕЀИЍеѐиѝ\
    \u{301}AÁEÉIÍOÓUÚYÝaáeéiíoóuúyýCĆcćLĹlĺNŃnńRŔrŕSŚsśZŹzźÂẤâấĂẮăắÊẾêếÔỐôốƠỚơớƯỨưứΑΆΕΈΗΉΙΊΟΌΥΎΩΏϊΐαάεέηήιί\
    ϋΰοόυύωώГЃКЌгѓкќ\
    \u{302}AÂEÊIÎOÔUÛaâeêiîoôuûCĈcĉGĜgĝHĤhĥJĴjĵSŜsŝWŴwŵYŶyŷẠẬạậẸỆẹệỌỘọộ\
    \u{303}AÃNÑOÕaãnñoõIĨiĩUŨuũÂẪâẫĂẴăẵEẼeẽÊỄêễÔỖôỗƠỠơỡƯỮưữYỸyỹ\
    \u{304}AĀaāEĒeēIĪiīOŌoōUŪuū\
    \u{306}AĂaăEĔeĕGĞgğIĬiĭOŎoŏUŬuŭẠẶạặУЎИЙийуў\
    \u{307}CĊcċEĖeėGĠgġIİZŻzż\
    \u{308}AÄEËIÏOÖUÜaäeëiïoöuüyÿYŸΙΪΥΫιϊυϋЕЁІЇеёії\
    \u{309}AẢaảÂẨâẩĂẲăẳEẺeẻÊỂêểIỈiỉOỎoỏÔỔôổƠỞơởUỦuủƯỬưửYỶyỷ\
    \u{30a}AÅaåUŮuů\
    \u{30b}OŐoőUŰuű\
    \u{30c}CČcčDĎdďEĚeěLĽlľNŇnňRŘrřSŠsšTŤtťZŽzž\
    \u{31b}OƠoơUƯuư\
    \u{323}AẠaạEẸeẹIỊiịOỌoọƠỢơợUỤuụƯỰưựYỴyỵ\
    \u{326}SȘsșTȚtț\
    \u{327}CÇcçGĢgģKĶkķLĻlļNŅnņRŖrŗSŞsşTŢtţ\
    \u{328}AĄaąEĘeęIĮiįUŲuų\
    \u{3099}かがきぎくぐけげこごさざしじすずせぜそぞただちぢつづてでとどはばひびふぶへべほぼうゔゝゞカガキギ\
    クグケゲコゴサザシジスズセゼソゾタダチヂツヅテデトドハバヒビフブヘベホボウヴワヷヰヸヱヹヲヺヽヾ\
    \u{309a}はぱひぴふぷへぺほぽハパヒピフプヘペホポ";

/// A password: typed twice at a terminal, or the first line of any other standard input.
///
/// The page composes what is typed (NFC). Here that is done for the languages of Europe, Vietnamese, Japanese and Korean:
/// the tables of all others are larger than this program's limit allows. What else the page may send in other characters
/// is refused, since nobody could log in there by it, and with it some that it would not.
pub(super) fn new_password() -> anyhow::Result<String> {
    let password = composed(&entered()?);
    if !password.chars().all(stays_as_it_is) {
        bail!(
            "this password has a character that the page may join with others or replace (NFC): type a letter and its \
             accent as one, or take another"
        );
    }
    Ok(password)
}

/// The text with each letter and the mark behind it as one, as far as [`COMPOSED`] knows them. If no mark is left, that is
/// NFC.
fn composed(text: &str) -> String {
    let mut composed = String::new();
    for char in text.chars() {
        let joined = composed.chars().next_back().and_then(|letter| join(letter, char));
        if joined.is_some() {
            composed.pop();
        }
        composed.push(joined.unwrap_or(char));
    }
    composed
}

fn join(letter: char, mark: char) -> Option<char> {
    let is_mark = |char| matches!(char, '\u{300}'..='\u{328}' | '\u{3099}' | '\u{309a}');
    let Some((_, pairs)) = COMPOSED.split_once(mark).filter(|_| is_mark(mark)) else { return syllable(letter, mark) };
    let mut chars = pairs.chars();
    loop {
        match (chars.next()?, chars.next()) {
            // The next row. It comes first, since the letter may itself be a mark that joined nothing.
            (base, _) if is_mark(base) => return None,
            (base, joined) if base == letter => return joined,
            _ => {}
        }
    }
}

/// A Korean syllable of its first two letters, or of those and the last (Unicode 3.12).
fn syllable(before: char, letter: char) -> Option<char> {
    const VOWELS: u32 = 21;
    const LAST_LETTERS: u32 = 28;
    let (first, syllables) = (0x1100, 0xac00);
    let (before_at, letter_at) = (u32::from(before), u32::from(letter));
    char::from_u32(match (before, letter) {
        ('\u{1100}'..='\u{1112}', '\u{1161}'..='\u{1175}') => {
            syllables + ((before_at - first) * VOWELS + letter_at - 0x1161) * LAST_LETTERS
        }
        ('\u{ac00}'..='\u{d7a3}', '\u{11a8}'..='\u{11c2}') if (before_at - syllables).is_multiple_of(LAST_LETTERS) => {
            before_at + letter_at - 0x11a7
        }
        _ => return None,
    })
}

/// Whether NFC leaves a character as it is, whatever stands beside it: that is known of those of whole blocks, most of
/// what Latin, Greek, Cyrillic, Armenian, Hebrew, Arabic, Georgian, Korean, Japanese and Chinese are typed in, and of
/// symbols.
fn stays_as_it_is(char: char) -> bool {
    matches!(char,
        '\0'..='\u{2ff}' | '\u{388}'..='\u{482}' | '\u{48a}'..='\u{590}' | '\u{5d0}'..='\u{60f}' | '\u{620}'..='\u{64a}'
        | '\u{671}'..='\u{6d5}' | '\u{10a0}'..='\u{1112}' | '\u{1e00}'..='\u{1eff}' | '\u{200d}'
        | '\u{2010}'..='\u{20cf}' | '\u{2100}'..='\u{2125}' | '\u{2190}'..='\u{2328}' | '\u{2400}'..='\u{2ad0}'
        | '\u{3000}'..='\u{3020}' | '\u{3041}'..='\u{3096}' | '\u{309b}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}' | '\u{fe0f}' | '\u{ff01}'..='\u{ffef}' | '\u{1f000}'..='\u{1faff}'
        | '\u{20000}'..='\u{2f7ff}')
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
