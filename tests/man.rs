//! The manual page, `packaging/chinwag.1`, says what `--help` says, so that it cannot be out of date.
//!
//! It is made from the help of every command: `CHINWAG_WRITE_MAN=1 cargo test --features push --test man` writes it
//! again. It is the page of the Debian package, and so has the flags of the feature `push`; other builds compare what
//! they have.

mod common;
#[path = "man/completions.rs"]
mod completions;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;

const PAGE: &str = "packaging/chinwag.1";
/// What only builds with the feature `push` or `tls` have.
const OF_FEATURES: [&str; 4] = ["--tls-cert", "--tls-key", "--push-contact", "--push-host"];
/// Of the feature `cluster`, which the package is built without; docs/CLUSTER.md explains them.
const LEFT_OUT: [&str; 4] = ["--log", "--log-nkey", "--log-ca", "cluster"];
/// In the help of every command; explained once.
const EVERYWHERE: [&str; 3] = ["--help", "--version", "--db"];

/// Commands that do what no command does, or explain the others.
const NOT_EXPLAINED: [&str; 2] = ["help", "serve"];

/// A flag, an argument or a command, and what the help says of it.
struct Item {
    name: String,
    text: String,
}

impl Item {
    /// `--listen`, of `--listen <ADDR:PORT>` or `-h, --help`; else the first word.
    fn key(&self) -> &str {
        let words = || self.name.split([' ', ',']).filter(|word| !word.is_empty());
        words().find(|word| word.starts_with("--")).or_else(|| words().next()).unwrap_or_default()
    }

    fn page(&self) -> String {
        format!(".TP\n\\fB{}\\fR\n{}\n", escape(&self.name), escape(&self.text))
    }
}

/// What `--help` prints, taken apart.
#[derive(Default)]
struct Help {
    about: String,
    usage: String,
    commands: Vec<Item>,
    arguments: Vec<Item>,
    options: Vec<Item>,
    /// What follows the options.
    rest: Vec<String>,
}

impl Help {
    fn of(command: &[&str]) -> Help {
        let output = Command::new(common::binary())
            .args(command)
            .arg("--help")
            // A variable that is set is printed with its value.
            .env_clear()
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "{command:?}");
        let mut help = Help::parse(&String::from_utf8(output.stdout).expect("text"));
        help.options.retain(|item| !LEFT_OUT.contains(&item.key()));
        help.commands.retain(|item| !LEFT_OUT.contains(&item.key()));
        help
    }

    fn parse(text: &str) -> Help {
        let mut help = Help::default();
        let mut section = "";
        for line in text.lines() {
            let is_heading = matches!(line, "Commands:" | "Arguments:" | "Options:");
            if is_heading {
                section = line;
            } else if let Some(usage) = line.strip_prefix("Usage: ") {
                usage.clone_into(&mut help.usage);
            } else if section.is_empty() {
                help.about = joined(&help.about, line);
            } else if section == "Options:" && !line.starts_with(' ') && !line.is_empty() {
                section = "rest";
            }
            match section {
                _ if is_heading => {}
                "Commands:" => add(&mut help.commands, line),
                "Arguments:" => add(&mut help.arguments, line),
                "Options:" => add(&mut help.options, line),
                "rest" => help.rest.push(line.to_owned()),
                _ => {}
            }
        }
        help
    }

    /// The arguments and the flags that there is something to say of, and that are not explained elsewhere.
    fn own_items(&self) -> impl Iterator<Item = &Item> {
        let items = self.arguments.iter().chain(&self.options);
        items.filter(|item| !item.text.is_empty() && !EVERYWHERE.contains(&item.key()))
    }
}

fn joined(text: &str, more: &str) -> String {
    format!("{text} {}", more.trim()).trim().to_owned()
}

/// Reads one line of a list: a new item, or more of the last one's text, which is set further in.
fn add(items: &mut Vec<Item>, line: &str) {
    let (content, indent) = (line.trim(), line.len() - line.trim_start().len());
    match items.last_mut() {
        Some(item) if indent > 6 => item.text = joined(&item.text, content),
        _ if content.is_empty() => {}
        _ => {
            let (name, text) = content.split_once("  ").unwrap_or((content, ""));
            items.push(Item { name: name.to_owned(), text: text.trim().to_owned() });
        }
    }
}

/// Text as roff: no escapes or requests in it, hyphens that can be searched for, and variables without a value.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace("=]", "]").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// Every command that is no group of others, by its words.
fn commands(group: &[&str], help: &Help) -> Vec<(Vec<String>, Help)> {
    let mut all = Vec::new();
    for item in help.commands.iter().filter(|item| !NOT_EXPLAINED.contains(&item.key())) {
        let words: Vec<_> = group.iter().copied().chain([item.name.as_str()]).collect();
        let help = Help::of(&words);
        if help.commands.is_empty() {
            all.push((words.iter().map(|word| (*word).to_owned()).collect(), help));
        } else {
            all.extend(commands(&words, &help));
        }
    }
    all
}

fn command_page(words: &[String], help: &Help) -> String {
    let usage = help.usage.replace(" [OPTIONS]", "");
    assert!(usage.starts_with(&format!("chinwag {}", words.join(" "))), "{usage}");
    let mut page = format!(".SS {}\n{}\n", escape(&usage), escape(&help.about));
    page.extend(help.own_items().map(Item::page));
    page
}

/// The whole page as this build would have it.
fn page(help: &Help, commands: &[(Vec<String>, Help)]) -> String {
    let mut page = format!(
        ".\\\" Made from `chinwag --help` by tests/man.rs, which checks it.\n\
         .TH CHINWAG 1 \"\" \"chinwag {}\" \"User Commands\"\n.nh\n.ad l\n\
         .SH NAME\nchinwag \\- {}\n\
         .SH SYNOPSIS\n\\fBchinwag\\fR [\\fIoptions\\fR] [\\fIcommand\\fR]\n\
         .SH DESCRIPTION\nOne program with an embedded database and a web client inside. Without a command it serves;\n\
         the commands look after the database, most of them also while a server runs. Some flags and commands are there\n\
         only if the program was built with the feature they belong to; \\fBchinwag \\-\\-help\\fR has those of this one.\n",
        env!("CARGO_PKG_VERSION"),
        escape(&help.about.replacen("A ", "a ", 1)),
    );
    page.push_str(".SH OPTIONS\n");
    page.extend(help.options.iter().map(Item::page));
    page.push_str(".SH COMMANDS\n");
    page.extend(commands.iter().map(|(words, help)| command_page(words, help)));
    page.push_str(".SH NOTES\n");
    let mut lines = help.rest.iter().peekable();
    for line in lines.by_ref().take_while(|line| *line != "Examples:").filter(|line| !line.is_empty()) {
        writeln!(page, "{}", escape(line)).expect("a string takes all");
    }
    page.push_str(".SH EXAMPLES\n");
    let mut examples = Vec::new();
    for line in lines {
        if line.starts_with("  chinwag") {
            add(&mut examples, line);
        } else if let Some(Item { text, .. }) = examples.last_mut() {
            *text = joined(text, line);
        }
    }
    page.extend(examples.iter().map(Item::page));
    page.push_str(
        ".SH EXIT STATUS\n0 if all went well, 1 if something failed, 2 if a flag or its value is wrong.\n\
         .SH SEE ALSO\n\\fI/usr/share/doc/chinwag/\\fR, \\fI/etc/default/chinwag\\fR\n",
    );
    page
}

/// What the page explains: the names behind each `.TP`, and the words of each `.SS`.
fn explained(page: &str) -> BTreeSet<String> {
    let plain = page.replace("\\-", "-");
    let flags = plain.lines().filter_map(|line| line.strip_prefix("\\fB--")?.split([' ', '\\']).next());
    let commands = plain.lines().filter_map(|line| line.strip_prefix(".SS chinwag ")?.split(' ').next());
    flags.map(|flag| format!("--{flag}")).chain(commands.map(str::to_owned)).collect()
}

#[test]
fn the_manual_page_says_what_help_says() {
    let help = Help::of(&[]);
    let commands = commands(&[], &help);
    let made = page(&help, &commands);
    let path = format!("{}/{PAGE}", env!("CARGO_MANIFEST_DIR"));
    if cfg!(feature = "push") && std::env::var_os("CHINWAG_WRITE_MAN").is_some() {
        std::fs::write(&path, &made).expect("the page can be written");
    }
    let page = std::fs::read_to_string(path).expect("there is a page");
    if cfg!(feature = "push") {
        assert_eq!(page, made);
        return;
    }
    // Without the feature: what this build has is there, word for word, and nothing else but what the feature has.
    let own: Vec<_> = help.options.iter().map(Item::page).collect();
    let of_commands: Vec<_> = commands.iter().map(|(words, help)| command_page(words, help)).collect();
    let (head, notes) = (made.split(".SH OPTIONS").next(), made.split(".SH NOTES").nth(1));
    let around = [head, notes].map(|part| part.expect("the page has these sections").to_owned());
    for part in own.iter().chain(&of_commands).chain(&around) {
        assert!(page.contains(part), "{PAGE} lacks this, or has it in other words:\n{part}");
    }
    let known: BTreeSet<_> = explained(&made).into_iter().chain(OF_FEATURES.map(str::to_owned)).collect();
    let unknown: Vec<_> = explained(&page).difference(&known).cloned().collect();
    assert!(unknown.is_empty(), "{PAGE} explains what --help does not have: {unknown:?}");
}
