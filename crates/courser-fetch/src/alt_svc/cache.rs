//! What is known of alternatives, in memory and in a file of the user's cache folder.
//!
//! Several programs may use the file at once: each writes a new file beside it and puts it in its place, and before that
//! takes over what others learned about origins that it did not touch itself. A file that cannot be read is as good as
//! none: everything in it is advice.
//!
//! An alternative that did not answer is left alone for a while, which doubles each time that happens again. Unless the
//! server said that it holds everywhere, it is believed in the network only where it was learned; the network is known
//! by this machine's address in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Origin;
use super::parse::{Advice, Alternative};

/// Origins that are remembered; beyond, those that end first go.
const ORIGINS_MAX: usize = 1_000;
/// Alternatives of an origin that are remembered.
const PER_ORIGIN_MAX: usize = 4;
/// Most bytes of a file that is read.
const FILE_MAX: u64 = 4 << 20;
/// How long an alternative is left alone after its first failure.
const BROKEN_FIRST: u64 = 300;
/// How long at most.
const BROKEN_MOST: u64 = 86_400;
/// What the file begins with.
const FORMAT: u32 = 1;

/// A remembered alternative.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Another host; none: the origin's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The UDP port.
    pub port: u16,
    /// Until when it may be used, in seconds since 1970.
    pub until: u64,
    /// The address of this machine where it was learned; none: it holds in every network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<IpAddr>,
    /// Until when it is left alone, because it did not answer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub broken_until: u64,
    /// How often in a row it did not answer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u64,
}

impl Known {
    fn is_at(&self, host: Option<&str>, port: u16) -> bool {
        self.host.as_deref() == host && self.port == port
    }

    fn is_of(&self, network: Option<IpAddr>) -> bool {
        self.network.is_none() || network.is_none() || self.network == network
    }

    /// Until when there is anything to remember.
    fn ends(&self) -> u64 {
        self.until.max(self.broken_until)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    format: u32,
    origins: BTreeMap<String, Vec<Known>>,
}

/// The memory.
#[derive(Debug, Default)]
pub struct Cache {
    origins: BTreeMap<String, Vec<Known>>,
    /// Origins about which something was learned since the file was read.
    touched: BTreeSet<String>,
    file: Option<PathBuf>,
}

/// Seconds since 1970.
#[must_use]
pub fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl Cache {
    /// From a file, where there is one.
    #[must_use]
    pub fn open(file: Option<PathBuf>) -> Self {
        let origins = file.as_deref().map(read).unwrap_or_default();
        Self { origins, touched: BTreeSet::new(), file }
    }

    /// Whether something was learned that the file does not say.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        !self.touched.is_empty()
    }

    /// The alternatives to try for an origin, in the server's order: those that are fresh, not broken, and of this
    /// network.
    pub fn usable<'a>(
        &'a self,
        origin: &Origin,
        network: Option<IpAddr>,
        now: SystemTime,
    ) -> impl Iterator<Item = &'a Known> + use<'a> {
        let now = seconds(now);
        let known = self.origins.get(&origin.to_string()).into_iter().flatten();
        known.filter(move |k| k.is_of(network) && k.until > now && k.broken_until <= now)
    }

    /// Whether a place is left alone at present, whoever named it.
    #[must_use]
    pub fn is_broken(
        &self,
        origin: &Origin,
        (host, port): (Option<&str>, u16),
        network: Option<IpAddr>,
        now: SystemTime,
    ) -> bool {
        let now = seconds(now);
        let mut known = self.origins.get(&origin.to_string()).into_iter().flatten();
        known.any(|k| k.is_at(host, port) && k.is_of(network) && k.broken_until > now)
    }

    /// Takes a server's advice. What is known of failures stays: the advice does not say that they are over.
    pub fn learn(&mut self, origin: &Origin, advice: Advice, network: Option<IpAddr>, now: SystemTime) {
        let name = origin.to_string();
        let old = self.origins.remove(&name).unwrap_or_default();
        let now = seconds(now);
        if let Advice::Use(alternatives) = advice {
            let fresh = alternatives.into_iter().filter(|a| !a.max_age.is_zero()).take(PER_ORIGIN_MAX);
            let known: Vec<Known> = fresh.map(|a| known(a, &old, network, now)).collect();
            if !known.is_empty() {
                self.make_room(now);
                self.origins.insert(name.clone(), known);
            }
        }
        self.touched.insert(name);
    }

    /// Forgets everything about an origin.
    pub fn forget(&mut self, origin: &Origin) {
        let name = origin.to_string();
        self.origins.remove(&name);
        self.touched.insert(name);
    }

    /// It did not answer.
    pub fn broke(&mut self, origin: &Origin, host: Option<&str>, port: u16, now: SystemTime) {
        let now = seconds(now);
        self.change(origin, host, port, |k| {
            k.failures = k.failures.saturating_add(1);
            let doublings = u32::try_from(k.failures - 1).unwrap_or(u32::MAX).min(16);
            k.broken_until = now + BROKEN_FIRST.saturating_mul(1 << doublings).min(BROKEN_MOST);
        });
    }

    /// A place of which no server told did not answer in this network: it is left alone like one of which one told.
    pub fn broke_here(
        &mut self,
        origin: &Origin,
        (host, port): (Option<&str>, u16),
        network: Option<IpAddr>,
        now: SystemTime,
    ) {
        let name = origin.to_string();
        if !self.origins.contains_key(&name) {
            self.make_room(seconds(now));
        }
        let known = self.origins.entry(name).or_default();
        if !known.iter().any(|k| k.is_at(host, port)) && known.len() < PER_ORIGIN_MAX {
            let host = host.map(str::to_owned);
            known.push(Known { host, port, until: 0, network, broken_until: 0, failures: 0 });
        }
        self.broke(origin, host, port, now);
    }

    /// It answered.
    pub fn works(&mut self, origin: &Origin, host: Option<&str>, port: u16) {
        let name = origin.to_string();
        let known = self.origins.get(&name).into_iter().flatten();
        if known.into_iter().any(|k| k.failures > 0 && k.is_at(host, port)) {
            self.change(origin, host, port, |k| (k.failures, k.broken_until) = (0, 0));
        }
    }

    fn change(&mut self, origin: &Origin, host: Option<&str>, port: u16, mut with: impl FnMut(&mut Known)) {
        let name = origin.to_string();
        let Some(known) = self.origins.get_mut(&name) else { return };
        for k in known.iter_mut().filter(|k| k.is_at(host, port)) {
            with(k);
            self.touched.insert(name.clone());
        }
    }

    fn make_room(&mut self, now: u64) {
        self.origins.retain(|_, known| known.iter().any(|k| k.ends() > now));
        while self.origins.len() >= ORIGINS_MAX {
            let ends = |known: &Vec<Known>| known.iter().map(Known::ends).max().unwrap_or(0);
            let Some(first) = self.origins.iter().min_by_key(|(_, k)| ends(k)).map(|(n, _)| n.clone()) else { return };
            self.origins.remove(&first);
        }
    }

    /// Writes what was learned. Others' entries stay.
    ///
    /// # Errors
    /// The file or its folder cannot be written.
    pub fn save(&mut self, now: SystemTime) -> std::io::Result<()> {
        let Some(path) = self.file.clone().filter(|_| self.is_changed()) else { return Ok(()) };
        let mut merged = Self { origins: read(&path), ..Self::default() };
        for name in &self.touched {
            merged.origins.remove(name);
            if let Some(known) = self.origins.get(name) {
                merged.make_room(seconds(now));
                merged.origins.insert(name.clone(), known.clone());
            }
        }
        write(&path, &File { format: FORMAT, origins: merged.origins.clone() })?;
        self.origins = merged.origins;
        self.touched.clear();
        Ok(())
    }
}

fn known(a: Alternative, old: &[Known], network: Option<IpAddr>, now: u64) -> Known {
    let before = old.iter().find(|k| k.host == a.host && k.port == a.port);
    Known {
        until: now.saturating_add(a.max_age.as_secs()),
        network: network.filter(|_| !a.persist),
        broken_until: before.map_or(0, |k| k.broken_until),
        failures: before.map_or(0, |k| k.failures),
        host: a.host,
        port: a.port,
    }
}

fn read(path: &Path) -> BTreeMap<String, Vec<Known>> {
    let mut text = Vec::new();
    let Ok(file) = std::fs::File::open(path) else { return BTreeMap::new() };
    if file.take(FILE_MAX).read_to_end(&mut text).is_err() {
        return BTreeMap::new();
    }
    match serde_json::from_slice::<File>(&text) {
        Ok(file) if file.format == FORMAT => {
            let bounded = |(name, mut known): (String, Vec<Known>)| {
                known.truncate(PER_ORIGIN_MAX);
                (name, known)
            };
            file.origins.into_iter().take(ORIGINS_MAX).map(bounded).collect()
        }
        _ => BTreeMap::new(),
    }
}

/// A whole file, or the old one.
fn write(path: &Path, file: &File) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    // Which servers a user visits is nobody else's business.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let put = || {
        let mut out = options.open(&beside)?;
        out.write_all(&serde_json::to_vec(file)?)?;
        out.flush()?;
        std::fs::rename(&beside, path)
    };
    put().inspect_err(|_| drop(std::fs::remove_file(&beside)))
}

/// The file of this user: in the cache folder as the platform has it.
#[must_use]
pub fn default_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CACHE_HOME")
        .filter(|p| p.is_absolute())
        .or_else(|| if cfg!(windows) { set("LOCALAPPDATA") } else { set("HOME").map(|home| home.join(".cache")) })?;
    Some(folder.join("courser").join("alt-svc.json"))
}

/// A moment so many seconds later.
#[must_use]
pub fn later(now: SystemTime, seconds: u64) -> SystemTime {
    now.checked_add(Duration::from_secs(seconds)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::super::parse::advice;
    use super::*;

    fn origin(host: &str) -> Origin {
        Origin { host: host.into(), port: 443 }
    }

    fn find<'a>(c: &'a Cache, origin: &Origin, network: Option<IpAddr>, now: SystemTime) -> Option<&'a Known> {
        c.usable(origin, network, now).next()
    }

    fn says(line: &str) -> Advice {
        advice([line], 0).unwrap()
    }

    fn start() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000)
    }

    #[test]
    fn advice_is_believed_until_it_ends() {
        let (mut c, t, o) = (Cache::default(), start(), origin("a"));
        c.learn(&o, says(r#"h3=":44"; ma=60"#), None, t);
        assert_eq!(find(&c, &o, None, later(t, 59)).map(|k| k.port), Some(44));
        assert_eq!(find(&c, &o, None, later(t, 60)), None);
        assert_eq!(find(&c, &origin("b"), None, t), None);
        assert_eq!(find(&c, &Origin { port: 444, ..o }, None, t), None);
    }

    #[test]
    fn clear_and_new_advice_replace_the_old() {
        let (mut c, t, o) = (Cache::default(), start(), origin("a"));
        c.learn(&o, says(r#"h3=":1""#), None, t);
        c.learn(&o, says(r#"h3=":2""#), None, t);
        assert_eq!(find(&c, &o, None, t).map(|k| k.port), Some(2));
        c.learn(&o, Advice::Clear, None, t);
        assert_eq!(find(&c, &o, None, t), None);
        c.learn(&o, says(r#"h3=":3"; ma=0"#), None, t);
        assert_eq!(find(&c, &o, None, t), None);
    }

    #[test]
    fn another_network_ends_what_does_not_persist() {
        let (mut c, t) = (Cache::default(), start());
        let (here, there) = (Some("192.0.2.1".parse().unwrap()), Some("198.51.100.1".parse().unwrap()));
        c.learn(&origin("a"), says(r#"h3=":1""#), here, t);
        c.learn(&origin("b"), says(r#"h3=":1"; persist=1"#), here, t);
        assert!(find(&c, &origin("a"), here, t).is_some() && find(&c, &origin("b"), here, t).is_some());
        assert!(find(&c, &origin("a"), there, t).is_none() && find(&c, &origin("b"), there, t).is_some());
    }

    #[test]
    fn what_does_not_answer_is_left_alone_for_longer_each_time() {
        let (mut c, mut t, o) = (Cache::default(), start(), origin("a"));
        c.learn(&o, says(r#"h3=":1"; ma=2000000, h3="x:2"; ma=2000000"#), None, t);
        for rest in [300, 600, 1200] {
            c.broke(&o, None, 1, t);
            assert_eq!(find(&c, &o, None, later(t, rest - 1)).map(|k| k.port), Some(2), "the next one");
            t = later(t, rest);
            assert_eq!(find(&c, &o, None, t).map(|k| k.port), Some(1));
        }
        c.learn(&o, says(r#"h3=":1""#), None, t);
        c.broke(&o, None, 1, t);
        assert!(find(&c, &o, None, later(t, 2399)).is_none(), "new advice does not end it");
        c.works(&o, None, 1);
        assert!(find(&c, &o, None, t).is_some());
        for _ in 0..100 {
            c.broke(&o, None, 1, t);
        }
        assert!(c.origins["a:443"][0].broken_until <= seconds(t) + BROKEN_MOST);
    }

    #[test]
    fn places_of_which_no_server_told_are_left_alone_too() {
        let (mut c, t, o) = (Cache::default(), start(), origin("a"));
        let (here, there) = (Some("192.0.2.1".parse().unwrap()), Some("198.51.100.1".parse().unwrap()));
        c.broke_here(&o, (None, 443), here, t);
        assert!(
            c.is_broken(&o, (None, 443), here, later(t, 299)) && !c.is_broken(&o, (None, 443), here, later(t, 300))
        );
        assert!(!c.is_broken(&o, (None, 443), there, t) && !c.is_broken(&o, (None, 444), here, t));
        assert_eq!(find(&c, &o, here, later(t, 300)), None, "it is no advice");
        // The server's own word keeps what is known of failures.
        c.learn(&o, says(r#"h3=":443""#), None, t);
        assert_eq!(find(&c, &o, here, later(t, 299)), None);
        assert_eq!(find(&c, &o, here, later(t, 300)).map(|k| k.port), Some(443));
        for port in 1..100 {
            c.broke_here(&o, (None, port), here, t);
        }
        assert_eq!(c.origins["a:443"].len(), PER_ORIGIN_MAX);
        for n in 0..ORIGINS_MAX + 10 {
            c.broke_here(&origin(&format!("h{n}")), (None, 443), here, t);
        }
        assert_eq!(c.origins.len(), ORIGINS_MAX);
    }

    #[test]
    fn the_memory_is_bounded_and_the_first_to_end_goes() {
        let (mut c, t) = (Cache::default(), start());
        for n in 0..ORIGINS_MAX + 10 {
            let many: Vec<_> = (1..20).map(|p| format!("h3=\":{p}\"; ma={}", 1000 + n)).collect();
            c.learn(&origin(&format!("h{n}")), says(&many.join(",")), None, t);
        }
        assert_eq!(c.origins.len(), ORIGINS_MAX);
        assert!(c.origins.values().all(|k| k.len() == PER_ORIGIN_MAX));
        assert!(find(&c, &origin("h0"), None, t).is_none() && find(&c, &origin("h1009"), None, t).is_some());
    }

    #[test]
    fn programs_share_a_file_and_what_is_no_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/alt.json");
        let t = start();
        let (mut one, mut two) = (Cache::open(Some(path.clone())), Cache::open(Some(path.clone())));
        one.learn(&origin("a"), says(r#"h3=":1""#), None, t);
        two.learn(&origin("b"), says(r#"h3=":2""#), None, t);
        one.save(t).unwrap();
        two.save(t).unwrap();
        assert!(!one.is_changed());
        let mut both = Cache::open(Some(path.clone()));
        assert!(find(&both, &origin("a"), None, t).is_some() && find(&both, &origin("b"), None, t).is_some());
        both.learn(&origin("a"), Advice::Clear, None, t);
        both.save(t).unwrap();
        assert!(find(&Cache::open(Some(path.clone())), &origin("a"), None, t).is_none());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        for junk in ["", "{", "[]", r#"{"format":2,"origins":{}}"#, "\0\0"] {
            std::fs::write(&path, junk).unwrap();
            assert!(Cache::open(Some(path.clone())).origins.is_empty(), "{junk}");
        }
    }
}
