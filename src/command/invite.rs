//! `invite`: a link that lets somebody register.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chinwag::db::{AdminCommand, RECORD_TIME_MAX, server_addresses, server_public_url};
use chinwag::model::UnixMillis;
use chinwag::reachable;
use chinwag::secret::InviteCode;
use clap::Args;
use clap::builder::TypedValueParser as _;

use super::time::{ahead, parse_age, utc};
use super::{Hands, note, say};

/// The beginning of a link if the server's URL is unknown.
const FALLBACK_URL: &str = "http://127.0.0.1:8080";

#[derive(Debug, Args)]
pub(crate) struct Invite {
    /// How many people may register with it
    #[arg(long, value_name = "N", default_value_t = NonZeroU32::MIN, value_parser = clap::value_parser!(u32).range(1..=100_000).try_map(NonZeroU32::try_from))]
    uses: NonZeroU32,
    /// How long it works: 7d, 12h
    #[arg(long, value_name = "AGE", default_value = "7d", value_parser = parse_age)]
    expires: Duration,
    /// The address that people use [default: where it listens]
    #[arg(long, env = "CHINWAG_URL", value_name = "URL")]
    url: Option<String>,
}

impl Invite {
    pub(crate) fn run(self, path: &Path) -> anyhow::Result<()> {
        let (code, expires_at) = (InviteCode::random(), UnixMillis(ahead(self.expires).0.min(RECORD_TIME_MAX)));
        let order = AdminCommand::CreateInvite { digest: code.digest(), uses: self.uses, expires_at };
        let hands = Hands::on_or_new(path)?;
        let addresses = server_addresses(path);
        let listening = addresses.iter().find(|address| address.starts_with("http")).map(|address| reachable(address));
        let public = || std::env::var("CHINWAG_PUBLIC_URL").ok().filter(|url| !url.is_empty());
        let url = match self.url.or_else(|| server_public_url(path)).or_else(public).or(listening) {
            Some(url) => url,
            None if addresses.is_empty() => FALLBACK_URL.into(),
            None => bail!("the server listens for a proxy alone: say what people reach it at, with --url URL"),
        };
        hands.administer(order).context("cannot invite")?;
        say(&format!("{}/#invite={}", url.trim_end_matches('/'), code.reveal()))?;
        let people = if self.uses.get() == 1 { "one person".to_owned() } else { format!("{} people", self.uses) };
        note(&format!("it lets {people} register until {} UTC, with --registration invite", utc(expires_at)));
        Ok(())
    }
}
