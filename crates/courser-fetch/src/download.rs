//! A job to its end: tries, what an earlier run left, and where the bytes go.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::io::AsyncWriteExt;
use url::Url;

use crate::body::{Meter, Payload, Pulse};
use crate::client::{Answer, Ask, Client};
use crate::coding::Content;
use crate::error::{Error, Outcome};
use crate::informational::Informational;
use crate::partial::{Note, Partial};
use crate::retry;
use crate::timing::Timing;
use crate::via::{Early, Protocol, Told};

/// Where the body goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Into a file, which appears when it is whole.
    File(PathBuf),
    /// To standard output, as it comes.
    Stdout,
    /// Nowhere; it is read all the same.
    Nothing,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Job {
    /// From where.
    pub url: Url,
    /// How.
    pub method: Method,
    /// Fields of the request.
    pub headers: HeaderMap,
    /// What goes along.
    pub payload: Payload,
    /// Where to.
    pub sink: Sink,
}

/// What became of a job.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// The last answer's header section.
    pub head: Option<Head>,
    /// What came after its body.
    pub trailers: Option<HeaderMap>,
    /// Bytes of the body as it is used, those of earlier runs included.
    pub size: u64,
    /// Bytes of it that were there before.
    pub resumed_from: u64,
    /// Tries, the first one included.
    pub tries: u32,
    /// How long the last exchange took, and the whole.
    pub timing: Timing,
    /// The file that has its name now.
    pub file: Option<PathBuf>,
    /// Why it was not done.
    pub failed: Option<Error>,
}

/// The header section of an answer, and where it came from.
#[derive(Clone, Debug)]
pub struct Head {
    /// After redirects.
    pub url: Url,
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// What carried it.
    pub protocol: Protocol,
    /// From where.
    pub remote: SocketAddr,
    /// Redirects on the way.
    pub redirects: u32,
    /// Whether the connection was there already.
    pub reused: bool,
    /// What became of its first sending, when that was before the handshake.
    pub early: Option<Early>,
    /// Who told of HTTP/3, where that carried it.
    pub told: Option<Told>,
    /// What the server said before it answered.
    pub informational: Vec<Informational>,
}

/// Does a job.
pub async fn run(client: &Client, job: &Job, meter: &Meter) -> Done {
    let start = Instant::now();
    let mut done = Done::default();
    let outcome = {
        let work = tries(client, job, meter, &mut done);
        match client.options().max_time {
            Some(limit) => match tokio::time::timeout(limit, work).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Error::TimeOut { after: limit }),
            },
            None => work.await,
        }
    };
    done.timing.total = Some(start.elapsed());
    done.failed = outcome.err();
    done
}

async fn tries(client: &Client, job: &Job, meter: &Meter, done: &mut Done) -> Outcome {
    let mut partial = match &job.sink {
        Sink::File(path) => Some(Partial::open(path, job.url.as_str(), client.options().resume).await?),
        _ => None,
    };
    let outcome = loop {
        done.tries += 1;
        let error = match attempt(client, job, meter, (&mut partial, done)).await {
            Ok(()) => break Ok(()),
            Err(error) => error,
        };
        // What went to standard output cannot be taken back.
        let told = job.sink == Sink::Stdout && done.size > 0;
        let rest = retry::rest(&error, &job.method, done.tries, client.options().retry_delay);
        match rest {
            Some(rest) if done.tries <= client.options().retries && !told => tokio::time::sleep(rest).await,
            _ => break Err(error),
        }
    };
    match (outcome, partial) {
        (Ok(()), Some(partial)) => {
            let name = partial.name().to_owned();
            partial.commit().await?;
            done.file = Some(name);
            Ok(())
        }
        (Err(e), Some(partial)) => {
            partial.abandon().await;
            Err(e)
        }
        (outcome, None) => outcome,
    }
}

/// One try; a beginning that turns out not to fit costs a second request.
async fn attempt(
    client: &Client,
    job: &Job,
    meter: &Meter,
    (partial, done): (&mut Option<Partial>, &mut Done),
) -> Outcome {
    let pulse = Pulse::default();
    let resumable = job.method == Method::GET && !client.options().compressed && !job.headers.contains_key(RANGE);
    let mut from = partial.as_ref().filter(|_| resumable).and_then(beginning);
    loop {
        let mut ask = Ask {
            url: job.url.clone(),
            method: job.method.clone(),
            headers: job.headers.clone(),
            payload: job.payload.clone(),
        };
        if let Some((have, validator)) = &from {
            ask.headers.insert(RANGE, HeaderValue::try_from(format!("bytes={have}-")).map_err(bad_field)?);
            ask.headers.insert(IF_RANGE, validator.clone());
        }
        let answer = client.send(ask, &pulse, meter).await?;
        done.note(&answer);
        let have = from.as_ref().map_or(0, |(have, _)| *have);
        match judge(&answer, from.as_ref()) {
            Verdict::Whole => {
                if let Some(partial) = partial.as_mut() {
                    let note = Note::of(job.url.as_str(), &answer.headers).filter(|_| resumable);
                    partial.start_over(note).await?;
                }
                done.resumed_from = 0;
                return take(client, job, answer, (partial, done, meter, &pulse)).await;
            }
            Verdict::Rest => {
                if let Some(partial) = partial.as_mut() {
                    partial.go_on().await?;
                }
                done.resumed_from = have;
                return take(client, job, answer, (partial, done, meter, &pulse)).await;
            }
            Verdict::Complete => {
                client.drain(answer).await;
                (done.size, done.resumed_from) = (have, have);
                return Ok(());
            }
            Verdict::StartOver => {
                client.drain(answer).await;
                from = None;
            }
            Verdict::Failed => {
                let status = answer.status.as_u16();
                let retry_after = retry::retry_after(&answer.headers, SystemTime::now());
                client.drain(answer).await;
                return Err(Error::Status { status, retry_after });
            }
        }
    }
}

fn bad_field(e: http::header::InvalidHeaderValue) -> Error {
    Error::Usage(e.to_string())
}

/// What there is, and the condition under which the rest is wanted.
fn beginning(partial: &Partial) -> Option<(u64, HeaderValue)> {
    Some((partial.have(), HeaderValue::from_str(partial.validator()?).ok()?))
}

/// What an answer means for what is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The body is everything.
    Whole,
    /// The body is what is missing.
    Rest,
    /// Nothing is missing.
    Complete,
    /// What is there fits to nothing that the server has.
    StartOver,
    /// It is a refusal.
    Failed,
}

fn judge(answer: &Answer, from: Option<&(u64, HeaderValue)>) -> Verdict {
    let range = answer.headers.get(CONTENT_RANGE).and_then(|v| Extent::parse(v.to_str().ok()?));
    match (answer.status.as_u16(), from, range) {
        (206, Some((have, validator)), range) => {
            let same =
                answer.headers.get(ETAG).is_none_or(|tag| tag == validator || !validator.as_bytes().starts_with(b"\""));
            let fits = matches!(range, Some(Extent { first: Some(first), .. }) if first == *have);
            let to_the_end = matches!(range, Some(Extent { last: Some(last), whole: Some(n), .. }) if last.checked_add(1) == Some(n))
                || matches!(range, Some(Extent { whole: None, .. }));
            if same && fits && to_the_end { Verdict::Rest } else { Verdict::StartOver }
        }
        (416, Some((have, _)), Some(Extent { first: None, whole: Some(n), .. })) if n == *have => Verdict::Complete,
        (416, Some(_), _) => Verdict::StartOver,
        (200..=299, ..) => Verdict::Whole,
        _ => Verdict::Failed,
    }
}

/// What `Content-Range` says (RFC 9110 section 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    first: Option<u64>,
    last: Option<u64>,
    whole: Option<u64>,
}

impl Extent {
    fn parse(text: &str) -> Option<Self> {
        let (range, whole) = text.strip_prefix("bytes ")?.trim().split_once('/')?;
        let whole = if whole == "*" { None } else { Some(whole.parse().ok()?) };
        if range == "*" {
            return Some(Self { first: None, last: None, whole });
        }
        let (first, last) = range.split_once('-')?;
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        let sound = first <= last && whole.is_none_or(|n| last < n);
        sound.then_some(Self { first: Some(first), last: Some(last), whole })
    }
}

impl Done {
    fn note(&mut self, answer: &Answer) {
        self.timing = answer.timing;
        self.head = Some(Head {
            url: answer.url.clone(),
            status: answer.status,
            headers: answer.headers.clone(),
            protocol: answer.protocol,
            remote: answer.remote,
            redirects: answer.redirects,
            reused: answer.reused,
            early: answer.early,
            told: answer.told,
            informational: answer.informational.clone(),
        });
    }
}

/// Takes a body to where it belongs.
async fn take(
    client: &Client,
    job: &Job,
    answer: Answer,
    (partial, done, meter, pulse): (&mut Option<Partial>, &mut Done, &Meter, &Pulse),
) -> Outcome {
    let options = client.options();
    let have = done.resumed_from;
    let size = answer.body.expected().map(|n| n.saturating_add(have));
    let too_large = |n: u64| match options.max_size {
        Some(limit) if n > limit => Err(Error::TooLarge { limit }),
        _ => Ok(()),
    };
    too_large(size.unwrap_or(0))?;
    done.size = have;
    if job.method == Method::HEAD {
        // Some servers send content all the same (RFC 9110 section 9.3.2 forbids it). Nobody asked for it, nobody reads it.
        client.give_back(answer.hold).await;
        return Ok(());
    }
    meter.begin(have, size);
    let mut content = Content::new(answer.body, &answer.headers, options.compressed)?;
    let mut stdout = tokio::io::stdout();
    while let Some(piece) = pulse.watch(options.stall_timeout, content.next()).await?? {
        too_large(done.size.saturating_add(piece.len() as u64))?;
        match (&job.sink, partial.as_mut()) {
            (Sink::File(_), Some(partial)) => partial.write(&piece).await?,
            (Sink::Stdout, _) => put(&mut stdout, &piece).await?,
            _ => {}
        }
        done.size += piece.len() as u64;
        // A slow disk is not a quiet server.
        pulse.beat();
    }
    if job.sink == Sink::Stdout {
        stdout.flush().await.map_err(|e| out(&e))?;
    }
    done.trailers = content.trailers();
    client.give_back(answer.hold).await;
    Ok(())
}

async fn put(stdout: &mut tokio::io::Stdout, piece: &Bytes) -> Outcome {
    stdout.write_all(piece).await.map_err(|e| out(&e))
}

fn out(e: &std::io::Error) -> Error {
    Error::Local { what: "writing to standard output".into(), why: e.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_read_and_nonsense_is_not() {
        let e = |first, last, whole| Some(Extent { first, last, whole });
        for (text, extent) in [
            ("bytes 0-9/10", e(Some(0), Some(9), Some(10))),
            ("bytes 5-9/*", e(Some(5), Some(9), None)),
            ("bytes */10", e(None, None, Some(10))),
            ("bytes 9-5/10", None),
            ("bytes 0-10/10", None),
            ("bytes 0-9", None),
            ("lines 0-9/10", None),
            ("bytes -1-9/10", None),
            ("bytes 0-18446744073709551615/*", e(Some(0), Some(u64::MAX), None)),
            ("bytes 0-99999999999999999999/*", None),
        ] {
            assert_eq!(Extent::parse(text), extent, "{text}");
        }
    }
}
