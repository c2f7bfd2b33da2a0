//! Reading a configuration: text becomes values, or a mistake with its line and what was probably meant.

use serde::Deserialize;
use toml::Spanned;

use super::{Config, Connect, Limits, Log, Server, Site, Stack};
use crate::error::Mistake;

/// Words are called alike up to this share of equal letters.
const ALIKE: f64 = 0.5;

/// As it stands in the file.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[derive(Default)]
struct Raw {
    server: Server,
    log: Log,
    limits: Limits,
    connect: Connect,
    site: Vec<Spanned<Site>>,
    stack: Stack,
}

pub(super) fn parse(text: &str) -> Result<Config, Mistake> {
    let mut raw: Raw = toml::from_str(text).map_err(|e| mistake(text, &e))?;
    let sites = std::mem::take(&mut raw.site).into_iter().map(|site| {
        let line = place(text, site.span().start).0;
        Site { line, ..site.into_inner() }
    });
    let (sites, Raw { server, log, limits, connect, stack, .. }) = (sites.collect(), raw);
    Ok(Config { server, log, limits, sites, connect, stack })
}

/// Line and column, counted from one.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit_once('\n').map_or(before, |(_, line)| line);
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

fn mistake(text: &str, e: &toml::de::Error) -> Mistake {
    let message = e.message().trim();
    let place = e.span().map(|span| place(text, span.start));
    let mut words = message.split('`').skip(1).step_by(2);
    let (what, help) = match (message, words.next()) {
        (m, Some(word)) if m.starts_with("unknown field") => (format!("nobody knows the key `{word}`"), true),
        (m, Some(word)) if m.starts_with("unknown variant") => (format!("`{word}` is none of the choices"), true),
        (m, word) => {
            let plain = m.lines().collect::<Vec<_>>().join(", ");
            return Mistake { file: None, place, what: plain, help: word.and(None) };
        }
    };
    let help = help.then(|| suggestion(message, &words.collect::<Vec<_>>())).flatten();
    Mistake { file: None, place, what, help }
}

/// The most alike of the words that would do, or all of them when there are few.
fn suggestion(message: &str, choices: &[&str]) -> Option<String> {
    let word = message.split('`').nth(1)?;
    let rated = choices.iter().map(|choice| (strsim::normalized_damerau_levenshtein(word, choice), *choice));
    let best = rated.max_by(|a, b| a.0.total_cmp(&b.0))?;
    if best.0 >= ALIKE {
        Some(format!("did you mean `{}`?", best.1))
    } else {
        Some(format!("possible are {}", choices.join(", ")))
    }
}
