//! The completions for bash, zsh and fish in `packaging/completions`, made from the same help as the manual page, and
//! written again with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::{Command, Stdio};

use super::common::skip;
use super::{EVERYWHERE, Help, Item, NOT_EXPLAINED, commands};

/// Writes the completions of a shell.
type Make = fn(&Words) -> String;

const FILES: [(&str, Make); 3] = [("chinwag.bash", bash), ("_chinwag", zsh), ("chinwag.fish", fish)];
const HEAD: &str = "# Made from `chinwag --help` by tests/man.rs, which checks it.\n";

/// What may follow each command, by its words: `chinwag`, `chinwag bot`, `chinwag bot add`.
type Words = BTreeMap<String, Help>;

fn words() -> Words {
    let root = Help::of(&[]);
    let mut all = Words::new();
    for (words, help) in commands(&[], &root) {
        // The groups above it.
        for length in 1..words.len() {
            let group: Vec<_> = words[..length].iter().map(String::as_str).collect();
            all.entry(name(&group)).or_insert_with(|| Help::of(&group));
        }
        all.insert(name(&words), help);
    }
    all.insert("chinwag".into(), root);
    all
}

fn name(words: &[impl AsRef<str>]) -> String {
    words.iter().fold("chinwag".to_owned(), |name, word| name + " " + word.as_ref())
}

/// What a flag takes.
enum Value<'a> {
    Nothing,
    OneOf(Vec<&'a str>),
    File,
    Any(&'a str),
}

impl Item {
    fn value(&self) -> Value<'_> {
        let Some((_, value)) = self.name.split_once('<') else { return Value::Nothing };
        let value = value.split('>').next().unwrap_or_default();
        let is_choice = value.contains('|') && value.chars().all(|char| char == '|' || char.is_ascii_lowercase());
        match value {
            "PATH" | "FILE" => Value::File,
            _ if is_choice => Value::OneOf(value.split('|').collect()),
            _ => Value::Any(value),
        }
    }

    /// Its first words, without what a shell or a completion would take for something else.
    fn short(&self) -> String {
        let end = self.text.find([':', ';', '(', '[', ',']).unwrap_or(self.text.len());
        self.text[..end].trim_end().to_owned()
    }
}

impl Help {
    fn flags(&self) -> impl Iterator<Item = &Item> {
        self.options.iter().filter(|item| item.key().starts_with("--"))
    }

    fn subcommands(&self) -> impl Iterator<Item = &Item> {
        self.commands.iter().filter(|item| !NOT_EXPLAINED.contains(&item.key()))
    }
}

/// The names of all commands but the program's own, each quoted, with `between` between them.
fn quoted(words: &Words, between: &str) -> String {
    let names: Vec<_> = words.keys().skip(1).map(|name| format!("'{name}'")).collect();
    names.join(between)
}

fn bash(words: &Words) -> String {
    let mut text = format!(
        "{HEAD}_chinwag() {{\n    local command=chinwag word=${{COMP_WORDS[COMP_CWORD]}} at words\n    \
         for ((at = 1; at < COMP_CWORD; at++)); do\n        case \"$command ${{COMP_WORDS[at]}}\" in\n            {})\n\
         {:16}command+=\" ${{COMP_WORDS[at]}}\" ;;\n        esac\n    done\n    case $command in\n",
        quoted(words, " | \\\n                "),
        ""
    );
    let (mut choices, mut others) = (BTreeMap::<_, String>::new(), BTreeSet::new());
    for (name, help) in words {
        let all: Vec<_> = help.flags().chain(help.subcommands()).map(Item::key).collect();
        writeln!(text, "        '{name}') words='{}' ;;", all.join(" ")).expect("a string takes all");
        for flag in help.flags() {
            match flag.value() {
                Value::Nothing => {}
                Value::OneOf(values) => choices.extend([(flag.key(), values.join(" "))]),
                Value::File | Value::Any(_) => others.extend([flag.key()]),
            }
        }
    }
    text.push_str("    esac\n    case ${COMP_WORDS[COMP_CWORD - 1]} in\n");
    for (flag, values) in choices {
        writeln!(text, "        {flag}) words='{values}' ;;").expect("a string takes all");
    }
    let others: Vec<_> = others.into_iter().collect();
    write!(
        text,
        "        {}) words='' ;;\n    esac\n    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n}}\n\
         # Where there is no word to offer, the name of a file.\ncomplete -o default -F _chinwag chinwag\n",
        others.join(" | \\\n            ")
    )
    .expect("a string takes all");
    text
}

fn zsh(words: &Words) -> String {
    let quote = |text: &str| text.replace('\'', "'\\''");
    let mut text = format!(
        "#compdef chinwag\n{HEAD}_chinwag() {{\n    local command=chinwag word\n    local -a flags commands\n    \
         for word in ${{words[2,CURRENT-1]}}; do\n        case \"$command $word\" in\n            ({})\n{:16}command+=\" \
         $word\" ;;\n        esac\n    done\n    case $command in\n",
        quoted(words, "|\\\n            "),
        ""
    );
    for (name, help) in words {
        writeln!(text, "        ('{name}')\n            flags=(").expect("a string takes all");
        for flag in help.flags() {
            let value = match flag.value() {
                Value::Nothing => String::new(),
                Value::OneOf(values) => format!(":value:({})", values.join(" ")),
                Value::File => ":file:_files".into(),
                Value::Any(value) => format!(":{}: ", value.replace(':', "\\:")),
            };
            writeln!(text, "                '{}[{}]{value}'", flag.key(), quote(&flag.short()))
                .expect("a string takes all");
        }
        text.push_str("            )\n            commands=(\n");
        for command in help.subcommands() {
            writeln!(text, "                '{}:{}'", command.key(), quote(&command.short()))
                .expect("a string takes all");
        }
        text.push_str("            ) ;;\n");
    }
    text.push_str(
        "    esac\n    (( $#commands )) && _describe -t commands command commands\n    \
         _arguments $flags '*:file:_files'\n}\n_chinwag \"$@\"\n",
    );
    text
}

fn fish(words: &Words) -> String {
    let quote = |text: &str| text.replace('\'', "\\'");
    let mut text = format!(
        "{HEAD}function __chinwag_command\n    set -l command chinwag\n    set -l words (commandline -opc)\n    \
         set -e words[1]\n    for word in $words\n        switch \"$command $word\"\n            case {}\n{:16}set command \
         \"$command $word\"\n        end\n    end\n    test \"$command\" = \"$argv\"\nend\n",
        quoted(words, " \\\n                "),
        ""
    );
    for (name, help) in words {
        for flag in help.flags() {
            let value = match flag.value() {
                Value::Nothing => String::new(),
                Value::OneOf(values) => format!(" -x -a '{}'", values.join(" ")),
                Value::File => " -r".into(),
                Value::Any(_) => " -x".into(),
            };
            let (long, short) = (&flag.key()[2..], quote(&flag.short()));
            writeln!(text, "complete -c chinwag -n '__chinwag_command {name}' -l {long}{value} -d '{short}'")
                .expect("a string takes all");
        }
        for command in help.subcommands() {
            let (key, short) = (command.key(), quote(&command.short()));
            writeln!(text, "complete -c chinwag -n '__chinwag_command {name}' -f -a {key} -d '{short}'")
                .expect("a string takes all");
        }
    }
    text
}

fn path(file: &str) -> String {
    format!("{}/packaging/completions/{file}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_completions_have_the_commands_and_flags_of_help() {
    let words = words();
    for (file, make) in FILES {
        let made = make(&words);
        if cfg!(feature = "push") && std::env::var_os("CHINWAG_WRITE_MAN").is_some() {
            std::fs::write(path(file), &made).expect("it can be written");
        }
        let found = std::fs::read_to_string(path(file)).expect("there is one");
        if cfg!(feature = "push") {
            assert_eq!(found, made, "{file}");
        }
        // Other builds have fewer flags than the package's.
        let plain = found.replace(" -l ", " --");
        for item in words.values().flat_map(|help| help.flags().chain(help.subcommands())) {
            assert!(plain.contains(item.key()), "{file} does not have {}", item.key());
        }
    }
}

/// Standard output of a shell that runs `script`; none if there is no such shell.
fn shell(name: &str, arguments: &[&str], script: &str) -> Option<String> {
    if Command::new(name).arg("--version").stdout(Stdio::null()).status().is_err() {
        skip(&format!("there is no {name}"));
        return None;
    }
    let output = Command::new(name).args(arguments).args(["-c", script]).output().expect("the shell runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
    Some(String::from_utf8(output.stdout).expect("text"))
}

/// What is typed, and what is offered at its end.
const TYPED: [(&str, &[&str]); 5] = [
    ("chinwag --registration ", &["closed", "invite", "open"]),
    ("chinwag --max-c", &["--max-connections"]),
    ("chinwag bot ", &["add", "rotate"]),
    ("chinwag user ro", &["role"]),
    ("chinwag prune --old", &["--older-than"]),
];

fn offered(said: &str) -> Vec<&str> {
    // fish explains behind a tab.
    let mut words: Vec<_> = said.lines().filter_map(|line| line.split('\t').next()).map(str::trim).collect();
    words.retain(|word| !word.is_empty() && !EVERYWHERE.iter().any(|flag| word.starts_with(flag)));
    words.sort_unstable();
    words
}

#[test]
fn bash_offers_what_may_follow() {
    let file = path("chinwag.bash");
    for (typed, expected) in TYPED {
        let script = format!(
            "source '{file}'; read -ra COMP_WORDS <<<'{typed}'; [[ '{typed}' != *' ' ]] || COMP_WORDS+=(''); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _chinwag; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let Some(said) = shell("bash", &["--norc"], &script) else { return };
        assert_eq!(offered(&said), expected, "{typed}");
    }
}

#[test]
fn fish_offers_what_may_follow() {
    let file = path("chinwag.fish");
    for (typed, expected) in TYPED {
        let script = format!("source '{file}'; complete -C '{typed}'");
        let Some(said) = shell("fish", &["--no-config"], &script) else { return };
        assert_eq!(offered(&said), expected, "{typed}");
    }
}

#[test]
fn zsh_reads_its_completion() {
    shell("zsh", &["-f"], &format!("zsh -fn '{}'", path("_chinwag")));
}
