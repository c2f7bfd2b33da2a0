//! The access log: one line for each request, written by a thread of its own.
//!
//! Whoever answers never waits for a disk: lines go through a queue of limited length, and what does not fit is counted and
//! left out. Whatever a client sent is escaped, so that nobody can forge a line or command a terminal.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode, Version};
use serde::Serialize;

use crate::config::{self, Format};
use crate::error::WebError;

/// Lines that wait to be written.
const QUEUE: usize = 8192;
/// How long the end of a server waits for what nobody takes, a full pipe say.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of an answer when it is over.
#[derive(Clone, Debug)]
pub struct Record {
    /// When the request came.
    pub at: SystemTime,
    /// Whose it was.
    pub remote: IpAddr,
    /// Its method.
    pub method: Method,
    /// The name that was asked.
    pub host: String,
    /// Path and query.
    pub target: String,
    /// Its version.
    pub version: Version,
    /// `Referer`.
    pub referrer: Option<String>,
    /// `User-Agent`.
    pub agent: Option<String>,
    /// The answer's status.
    pub status: StatusCode,
    /// Bytes of its body.
    pub bytes: u64,
    /// From the request's fields to the last byte.
    pub took: Duration,
    /// Whether the last byte was sent.
    pub complete: bool,
}

/// A record as JSON.
#[derive(Serialize)]
struct Object<'a> {
    time: String,
    remote: IpAddr,
    method: &'a str,
    host: &'a str,
    target: &'a str,
    version: &'a str,
    status: u16,
    bytes: u64,
    seconds: f64,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    referrer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_3 => "HTTP/3",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// A date in pieces: `Sun, 06 Nov 1994 08:49:37 GMT` → (06, Nov, 1994, 08:49:37).
fn pieces(date: &str) -> (&str, &str, &str, &str) {
    let mut words = date.split(' ').skip(1);
    let mut next = || words.next().unwrap_or("");
    (next(), next(), next(), next())
}

/// Text in quotes of the common format.
fn quoted(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => _ = write!(out, "\\x{:02x}", u32::from(c)),
            c => out.push(c),
        }
    }
}

impl Record {
    /// As a line, without its end.
    #[must_use]
    pub fn line(&self, format: Format) -> String {
        let date = httpdate::fmt_http_date(self.at);
        let (day, month, year, time) = pieces(&date);
        if format == Format::Json {
            const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let month = MONTHS.find(month).map_or(0, |at| at / 3 + 1);
            let millis = self.at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.subsec_millis());
            let object = Object {
                time: format!("{year}-{month:02}-{day}T{time}.{millis:03}Z"),
                remote: self.remote,
                method: self.method.as_str(),
                host: &self.host,
                target: &self.target,
                version: version(self.version),
                status: self.status.as_u16(),
                bytes: self.bytes,
                seconds: self.took.as_secs_f64(),
                complete: self.complete,
                referrer: self.referrer.as_deref(),
                agent: self.agent.as_deref(),
            };
            return serde_json::to_string(&object).unwrap_or_default();
        }
        let mut line = format!("{} - - [{day}/{month}/{year}:{time} +0000] \"{} ", self.remote, self.method);
        quoted(&mut line, &self.target);
        let _ = write!(line, " {}\" {} {}", version(self.version), self.status.as_u16(), self.bytes);
        if format == Format::Combined {
            for text in [&self.referrer, &self.agent] {
                line.push_str(" \"");
                quoted(&mut line, text.as_deref().unwrap_or("-"));
                line.push('"');
            }
        }
        line
    }
}

/// Where lines go.
#[derive(Debug)]
enum Message {
    Line(Box<Record>),
    Reopen(Target, Format),
    /// Everything before it is written; the sender is told.
    Flush(SyncSender<()>),
}

/// A place for lines.
#[derive(Debug)]
enum Target {
    Nowhere,
    Output,
    File(File),
}

impl Target {
    fn open(config: &config::Log) -> Result<Self, WebError> {
        match config.access.as_str() {
            "off" => Ok(Self::Nowhere),
            "-" => Ok(Self::Output),
            path => {
                let path = PathBuf::from(path);
                let file = OpenOptions::new().append(true).create(true).open(&path);
                file.map(Self::File).map_err(|e| WebError::file(&path, e))
            }
        }
    }

    fn writer(self) -> Option<BufWriter<Box<dyn Write + Send>>> {
        let inner: Box<dyn Write + Send> = match self {
            Self::Nowhere => return None,
            Self::Output => Box::new(io::stdout()),
            Self::File(file) => Box::new(file),
        };
        Some(BufWriter::new(inner))
    }
}

/// The access log. When it goes, what was given to it is written first.
#[derive(Debug)]
pub struct AccessLog {
    /// Whether lines go anywhere; otherwise nobody is woken for them.
    is_on: AtomicBool,
    sender: Option<SyncSender<Message>>,
    /// Tells that the thread has ended.
    ended: Mutex<Receiver<()>>,
}

impl AccessLog {
    /// Opens it and starts its thread.
    ///
    /// # Errors
    /// The file cannot be opened, or there is no thread.
    pub fn open(config: &config::Log) -> Result<Self, WebError> {
        let (target, format) = (Target::open(config)?, config.format);
        let is_on = AtomicBool::new(!matches!(target, Target::Nowhere));
        let (sender, receiver) = mpsc::sync_channel(QUEUE);
        let (alive, ended) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name("courser-access".into())
            .spawn(move || {
                write_all(&receiver, target, format);
                drop(alive);
            })
            .map_err(|e| WebError::System { what: "a thread for the access log", why: e.to_string() })?;
        Ok(Self { is_on, sender: Some(sender), ended: Mutex::new(ended) })
    }

    /// Writes it down some time soon; whether there was room.
    pub fn write(&self, record: Record) -> bool {
        if !self.is_on.load(Ordering::Relaxed) {
            return true;
        }
        let Some(sender) = &self.sender else { return false };
        !matches!(sender.try_send(Message::Line(Box::new(record))), Err(TrySendError::Full(_)))
    }

    /// Opens the file anew, also the same one: it may have been moved away.
    ///
    /// # Errors
    /// It cannot be opened; lines go on to the old one.
    pub fn reopen(&self, config: &config::Log) -> Result<(), WebError> {
        let target = Target::open(config)?;
        let is_on = !matches!(target, Target::Nowhere);
        if let Some(sender) = &self.sender {
            // Never waits: a log that nobody takes holds nobody up.
            if sender.try_send(Message::Reopen(target, config.format)).is_err() {
                let why = "too much waits to be written to the old one".into();
                return Err(WebError::System { what: "opening the access log anew", why });
            }
        }
        self.is_on.store(is_on, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until everything is written that was given to it before, unless nobody takes it.
    pub fn flush(&self) {
        let (done, wait) = mpsc::sync_channel(1);
        if self.sender.as_ref().is_some_and(|sender| sender.try_send(Message::Flush(done)).is_ok()) {
            let _ = wait.recv_timeout(PATIENCE);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.sender = None;
        // Nothing is ever sent: the other end goes, or it is too slow.
        let _ = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner).recv_timeout(PATIENCE);
    }
}

fn write_all(receiver: &Receiver<Message>, target: Target, mut format: Format) {
    let (mut writer, mut failing) = (target.writer(), false);
    let mut waiting = receiver.recv().ok();
    while let Some(message) = waiting.take() {
        let mut result = Ok(());
        match message {
            Message::Line(record) => {
                if let Some(writer) = &mut writer {
                    result = writeln!(writer, "{}", record.line(format));
                }
            }
            Message::Reopen(target, new) => {
                result = writer.as_mut().map_or(Ok(()), Write::flush);
                (writer, format) = (target.writer(), new);
            }
            Message::Flush(done) => {
                result = writer.as_mut().map_or(Ok(()), Write::flush);
                let _ = done.send(());
            }
        }
        waiting = receiver.try_recv().ok();
        if waiting.is_none() {
            // Nothing to do: what was written becomes visible before the thread sleeps.
            result = result.and(writer.as_mut().map_or(Ok(()), Write::flush));
            waiting = receiver.recv().ok();
        }
        match &result {
            Err(e) if !failing => tracing::warn!("the access log cannot be written: {e}"),
            _ => {}
        }
        failing = result.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_250),
            remote: [192, 0, 2, 1].into(),
            method: Method::GET,
            host: "example.org".into(),
            target: "/a\"b\\c\u{1b}[31m?x".into(),
            version: Version::HTTP_3,
            referrer: None,
            agent: Some("agent \"7\"\n".into()),
            status: StatusCode::NOT_FOUND,
            bytes: 12,
            took: Duration::from_millis(1500),
            complete: true,
        }
    }

    #[test]
    fn lines_have_the_usual_forms_and_cannot_be_forged() {
        let common =
            "192.0.2.1 - - [06/Nov/1994:08:49:37 +0000] \"GET /a\\\"b\\\\c\\x1b[31m?x HTTP/3\" 404 12".to_owned();
        assert_eq!(record().line(Format::Common), common);
        assert_eq!(record().line(Format::Combined), common + " \"-\" \"agent \\\"7\\\"\\x0a\"");
        let line = record().line(Format::Json);
        assert!(!line.contains(['\n', '\u{1b}']), "{line}");
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["time"], "1994-11-06T08:49:37.250Z");
        assert_eq!(json["target"], record().target.as_str());
        assert_eq!((&json["status"], &json["seconds"], &json["complete"]), (&404.into(), &1.5.into(), &true.into()));
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let config = config::Log { access: path.to_str().unwrap().into(), format: Format::Common };
        let log = AccessLog::open(&config).unwrap();
        assert!(log.write(record()));
        log.flush();
        std::fs::rename(&path, &moved).unwrap();
        log.write(record());
        log.reopen(&config::Log { format: Format::Json, ..config.clone() }).unwrap();
        log.write(record());
        let bad = config::Log { access: "/nowhere/at/all".into(), ..config };
        assert!(log.reopen(&bad).is_err());
        log.write(record());
        drop(log);
        let lines = |path| std::fs::read_to_string(path).unwrap().lines().count();
        assert_eq!((lines(&moved), lines(&path)), (2, 2));
        assert!(std::fs::read_to_string(&path).unwrap().starts_with('{'));
    }

    #[test]
    fn nothing_is_written_when_nothing_is_wanted() {
        let log = AccessLog::open(&config::Log { access: "off".into(), ..config::Log::default() }).unwrap();
        assert!(log.write(record()));
        log.flush();
    }
}
