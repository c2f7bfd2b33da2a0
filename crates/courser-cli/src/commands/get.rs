//! `courser get`: URLs become jobs, jobs become files, and what became of each is told.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use courser_fetch::alt_svc::cache;
use courser_fetch::body::{Meter, Payload};
use courser_fetch::{Client, Done, Error, Http, Job, Options, Sink, Trust, batch, client, name};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use url::Url;

use crate::args::get::{GetArgs, RequestArgs};
use crate::failure::{Failure, Moved, Outcome};
use crate::operate::signals;
use crate::output::{Ink, Ui};
use crate::progress::{INTERVAL, Progress};
use crate::report::get::{Fetched, GetReport};

/// Bars on a terminal; beyond, one stands for all.
const BARS_MAX: usize = 16;
/// How long the last words on connections may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// Fields that this client has to make itself.
const RESERVED: [HeaderName; 4] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE];
/// Fields that are of connections, which later versions of HTTP do not have.
const OF_CONNECTIONS: [&str; 3] = ["connection", "keep-alive", "proxy-connection"];

/// Fetches, and tells. The value is the exit code.
///
/// # Errors
/// The command line means nothing, or it was interrupted.
pub fn run(args: &GetArgs, ui: &Ui) -> Outcome<u8> {
    let jobs = jobs(args, ui)?;
    let client = Arc::new(Client::new(options(args)?)?);
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::local("starting threads for the downloads", &e))?;
    let (stop, stopped) = oneshot::channel();
    signals::first(move || {
        // Nobody listens any more when the downloads have ended.
        let _ = stop.send(());
    })?;
    let start = Instant::now();
    let meters: Vec<Meter> = jobs.iter().map(|_| Meter::default()).collect();
    let all = runtime.block_on(async {
        let done = tokio::select! {
            done = fetch(&client, &jobs, &meters, args, ui) => Some(done),
            Ok(()) = stopped => None,
        };
        if let Ok(Err(e)) = tokio::time::timeout(GOODBYE, client.close()).await {
            ui.warn(format_args!("what servers said about HTTP/3 is not remembered: {e}"));
        }
        drop(client);
        settle().await;
        done
    });
    runtime.shutdown_background();
    let Some(all) = all else {
        let bytes = meters.iter().map(Meter::got).sum();
        let seconds = start.elapsed().as_secs_f64();
        return Err(Failure::Interrupted(Moved { bytes, streams: 0, seconds }));
    };
    Ok(tell(args, &all, start.elapsed(), ui))
}

/// Tasks that end by themselves are let: the last words on connections are theirs.
async fn settle() {
    let metrics = Handle::current().metrics();
    let quiet = async {
        while metrics.num_alive_tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // Who is not ready then is cut off.
    let _ = tokio::time::timeout(GOODBYE, quiet).await;
}

/// Does the jobs, with a word about each that fails and bars where somebody watches.
async fn fetch(client: &Arc<Client>, jobs: &[Job], meters: &[Meter], args: &GetArgs, ui: &Ui) -> Vec<Done> {
    let names: Vec<String> = jobs.iter().map(shown).collect();
    let together = jobs.len() > BARS_MAX;
    let parts: Vec<(&str, u64)> =
        if together { vec![("all", 0)] } else { names.iter().map(|n| (n.as_str(), 0)).collect() };
    let progress = Progress::new(ui, &parts);
    let show = || {
        if together {
            let size = meters.iter().map(Meter::size).try_fold(0u64, |sum, n| Some(sum.saturating_add(n?)));
            progress.show(0, meters.iter().map(Meter::got).sum(), size);
        } else {
            meters.iter().enumerate().for_each(|(n, m)| progress.show(n, m.got(), m.size()));
        }
    };
    let ticks = async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            show();
        }
    };
    let work = jobs.iter().cloned().zip(meters.iter().cloned()).collect();
    let done = tokio::select! {
        done = batch::run(client, work, usize::from(args.parallel), |_, _| show()) => done,
        () = ticks => Vec::new(),
    };
    progress.clear();
    done
}

/// A job's name beside its bar.
fn shown(job: &Job) -> String {
    let file = match &job.sink {
        Sink::File(path) => path.file_name().map(|n| n.to_string_lossy().into_owned()),
        _ => None,
    };
    let name = file.unwrap_or_else(|| name::for_url(&job.url));
    let mut short: String = name::safe(&name).chars().take(16).collect();
    if short.len() < name.len() {
        short.pop();
        short.push('…');
    }
    short
}

/// Prints what became of the jobs.
fn tell(args: &GetArgs, all: &[Done], took: Duration, ui: &Ui) -> u8 {
    let results: Vec<Fetched> = args.urls.iter().zip(all).map(|(url, done)| Fetched::new(url, done)).collect();
    for fetched in &results {
        if fetched.status.is_some() {
            match args.request.head {
                true => ui.say(fetched.head()),
                false => ui.detail(fetched.head()),
            }
        }
        if let Some(error) = &fetched.error {
            let url = if results.len() > 1 { format!("{}: ", fetched.url) } else { String::new() };
            ui.complain(format_args!("{url}{error}"));
        } else {
            ui.note(fetched.summary());
        }
        ui.note(ui.err.paint(Ink::Dim, fetched.parts()));
    }
    let failed: Vec<u8> = results.iter().map(|f| f.exit_code).filter(|c| *c != 0).collect();
    let exit_code = match failed.as_slice() {
        [] => 0,
        [first, rest @ ..] if rest.iter().all(|c| c == first) => *first,
        _ => 1,
    };
    if failed.len() > 1 {
        ui.note(format_args!("{} of {} failed", failed.len(), results.len()));
    }
    ui.object(&GetReport { ok: exit_code == 0, exit_code, seconds: took.as_secs_f64(), results });
    exit_code
}

fn options(args: &GetArgs) -> Outcome<Options> {
    let (request, patience, way) = (&args.request, &args.patience, &args.way);
    let trust = match &way.cacert {
        Some(path) => Trust::Pem(std::fs::read(path).map_err(|e| Failure::reading(path, &e))?),
        None => Trust::Platform,
    };
    let http = match (way.http3, way.http3_only, way.no_http3) {
        (true, ..) => Http::Prefer3,
        (_, true, _) => Http::Only3,
        (.., true) => Http::Never3,
        _ => Http::Auto,
    };
    let remembered = || way.alt_svc.clone().or_else(cache::default_file);
    Ok(Options {
        http,
        trust,
        resolve: way.resolve.iter().cloned().collect(),
        name_servers: way.dns_servers.clone(),
        records: !way.no_https_records,
        connect_timeout: patience.connect_timeout,
        stall_timeout: patience.stall_timeout,
        max_time: patience.max_time,
        redirects: request.location.then_some(request.max_redirs),
        retries: patience.retry,
        retry_delay: patience.retry_delay,
        compressed: request.compressed,
        resume: !args.no_resume,
        max_size: patience.max_filesize,
        early_data: !way.no_early_data,
        alt_svc: if way.no_alt_svc { None } else { remembered() },
        ..Options::default()
    })
}

fn jobs(args: &GetArgs, ui: &Ui) -> Outcome<Vec<Job>> {
    if args.output.len() > args.urls.len() {
        return Err(Failure::Usage("there are more files (-o) than URLs".into()));
    }
    let payload = payload(&args.request)?;
    let headers = headers(&args.request, &payload)?;
    let method = method(&args.request, &payload)?;
    let mut jobs = Vec::new();
    for (n, text) in args.urls.iter().enumerate() {
        let url = url(text, args.request.upload_file.as_deref())?;
        let sink = sink(args, args.output.get(n), &url, &payload);
        if sink == Sink::Stdout && ui.is_json() {
            let why = "with --json nothing but its object goes to standard output: name a file with -o";
            return Err(Failure::Usage(why.into()));
        }
        jobs.push(Job { url, method: method.clone(), headers: headers.clone(), payload: payload.clone(), sink });
    }
    batch::check(&jobs)?;
    Ok(jobs)
}

fn url(text: &str, upload: Option<&Path>) -> Outcome<Url> {
    let bad = |why: String| Error::BadUrl { url: text.to_owned(), why };
    let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let mut url = Url::parse(&whole).map_err(|e| bad(e.to_string()))?;
    client::checked(&url)?;
    // As people expect it of uploads into a folder.
    if let (true, Some(name)) = (url.path().ends_with('/'), upload.and_then(Path::file_name)) {
        let path = &mut url.path_segments_mut().map_err(|()| bad("it has no path".into()))?;
        path.pop_if_empty().push(&name.to_string_lossy());
    }
    Ok(url)
}

fn sink(args: &GetArgs, output: Option<&String>, url: &Url, payload: &Payload) -> Sink {
    match output.map(String::as_str) {
        _ if args.request.head => Sink::Nothing,
        Some("-") => Sink::Stdout,
        Some(file) => Sink::File(file.into()),
        // Who sends something wants to see what the server says about it.
        None if !payload.is_empty() => Sink::Stdout,
        None => Sink::File(args.output_dir.join(name::for_url(url))),
    }
}

fn payload(args: &RequestArgs) -> Outcome<Payload> {
    if let Some(file) = &args.upload_file {
        return Ok(Payload::File(file.clone()));
    }
    match args.data.as_slice() {
        [] => Ok(Payload::Empty),
        [one] if one.starts_with('@') => Ok(Payload::File(one[1..].into())),
        several if several.iter().any(|d| d.starts_with('@')) => {
            Err(Failure::Usage("a file is sent alone: give one -d @FILE, and no other -d".into()))
        }
        several => Ok(Payload::Bytes(Bytes::from(several.join("&")))),
    }
}

fn method(args: &RequestArgs, payload: &Payload) -> Outcome<Method> {
    match &args.request {
        Some(name) => match Method::from_bytes(name.as_bytes()) {
            Ok(method) if method != Method::CONNECT => Ok(method),
            _ => Err(Failure::Usage(format!("`{}` is no method that can be sent", name.escape_default()))),
        },
        None if args.head => Ok(Method::HEAD),
        None if args.upload_file.is_some() => Ok(Method::PUT),
        None if !payload.is_empty() => Ok(Method::POST),
        None => Ok(Method::GET),
    }
}

fn headers(args: &RequestArgs, payload: &Payload) -> Outcome<HeaderMap> {
    let mut headers = HeaderMap::new();
    for text in &args.header {
        let wrong = || Failure::Usage(format!("`{}` is no field: write NAME: VALUE", text.escape_default()));
        let (name, value) = text.split_once(':').ok_or_else(wrong)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| wrong())?;
        if RESERVED.contains(&name) || OF_CONNECTIONS.contains(&name.as_str()) {
            let hint = if name == HOST { "; --resolve says where a host is" } else { "" };
            return Err(Failure::Usage(format!("the field `{name}` is made by the client itself{hint}")));
        }
        let value = HeaderValue::try_from(value.trim()).map_err(|_| wrong())?;
        headers.append(name, value);
    }
    if !args.data.is_empty() && !payload.is_empty() {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.entry(CONTENT_TYPE).or_insert(form);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn parsed(args: &[&str]) -> Outcome<Vec<Job>> {
        let cli = Cli::try_parse_from(["courser", "get"].iter().chain(args)).unwrap();
        let Command::Get(get) = &cli.command else { panic!() };
        jobs(get, &Ui::new(&cli.global))
    }

    #[test]
    fn urls_become_jobs_with_names() {
        let jobs = parsed(&["example.org/a.bin", "https://h:8443/", "-o", "x"]).unwrap();
        assert_eq!(jobs[0].url.as_str(), "https://example.org/a.bin");
        assert_eq!((&jobs[0].sink, &jobs[1].sink), (&Sink::File("x".into()), &Sink::File("./index.html".into())));
        assert_eq!(jobs[0].method, Method::GET);
        assert_eq!(parsed(&["https://h/x", "-o", "-"]).unwrap()[0].sink, Sink::Stdout);
        assert_eq!(parsed(&["https://h/x", "-I"]).unwrap()[0].sink, Sink::Nothing);
    }

    #[test]
    fn what_is_sent_decides_method_and_type() {
        let job = &parsed(&["h", "-d", "a=1", "-d", "b=2"]).unwrap()[0];
        assert_eq!((&job.method, &job.payload), (&Method::POST, &Payload::Bytes("a=1&b=2".into())));
        assert_eq!(
            (job.headers[CONTENT_TYPE].as_bytes(), &job.sink),
            (&b"application/x-www-form-urlencoded"[..], &Sink::Stdout)
        );
        let job = &parsed(&["h", "-d", "@f.json", "-H", "content-type: application/json", "-X", "PATCH"]).unwrap()[0];
        assert_eq!((job.method.as_str(), &job.payload), ("PATCH", &Payload::File("f.json".into())));
        assert_eq!((job.headers.len(), job.headers[CONTENT_TYPE].as_bytes()), (1, &b"application/json"[..]));
        let job = &parsed(&["https://h/in/?q", "-T", "some/f 1.bin"]).unwrap()[0];
        assert_eq!((job.method.as_str(), job.url.as_str()), ("PUT", "https://h/in/f%201.bin?q"));
    }

    #[test]
    fn what_means_nothing_is_told() {
        for (args, code, words) in [
            (&["http://h/"][..], 3, "only https"),
            (&["https://u:p@h/"], 3, "-H"),
            (&["https://"], 3, "cannot be fetched"),
            (&["h", "-H", "nonsense"], 2, "NAME: VALUE"),
            (&["h", "-H", "Host: x"], 2, "--resolve"),
            (&["h", "-H", "Connection: close"], 2, "client itself"),
            (&["h", "-X", "G ET"], 2, "no method"),
            (&["h", "-X", "CONNECT"], 2, "no method"),
            (&["h", "-d", "@a", "-d", "b"], 2, "alone"),
            (&["h", "-o", "a", "-o", "b"], 2, "more files"),
            (&["https://a/x", "https://b/x"], 2, "two answers"),
            (&["h", "-o", "-", "--json"], 2, "--json"),
        ] {
            let e = parsed(args).unwrap_err();
            assert!(e.code() == code && e.to_string().contains(words), "{args:?}: {} {e}", e.code());
        }
    }
}
