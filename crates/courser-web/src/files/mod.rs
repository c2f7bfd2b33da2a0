//! A folder, served: each request finds a file, a page of what is there, or a sentence why not.
//!
//! ```text
//! resolve    path → open file, never outside     condition  which version the client has
//! range      parts of it                         coding     files that were compressed before
//! listing    what is in a folder                 body       bytes, when somebody takes them
//! ```
//!
//! Nothing is remembered between requests: a file that is replaced is served from the next request on, whole, because an
//! answer keeps the file that it began with.

pub mod body;
pub mod coding;
pub mod condition;
pub mod listing;
pub mod range;
pub mod resolve;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use rustix::fs::FileType;

use crate::body::{Body, sentence};
use crate::config;
use crate::error::WebError;

use body::FileBody;
use coding::Coding;
use condition::{Verdict, Version};
use listing::Listing;
use range::Asked;
use resolve::{Refused, Root, Wanted};

/// A folder that is served.
#[derive(Debug)]
pub struct Folder {
    root: Root,
    config: config::Files,
}

/// A file that was opened to be served.
struct Found {
    file: Arc<File>,
    size: u64,
    version: Version,
    kind: HeaderValue,
    coding: Option<Coding>,
}

/// What stands at a path.
enum Thing {
    File(OwnedFd, rustix::fs::Stat),
    Folder(OwnedFd),
    Other,
}

impl Folder {
    /// Opens the folder.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(config: &config::Files) -> Result<Self, WebError> {
        let root = Root::open(&config.root, config.symlinks).map_err(|e| WebError::file(&config.root, e))?;
        Ok(Self { root, config: config.clone() })
    }

    /// Whether an answer may need more of the disk than one file: a list of what is there.
    #[must_use]
    pub fn takes_long(&self, request: &Parts) -> bool {
        self.config.listing && request.uri.path().ends_with('/')
    }

    /// Answers a request. May wait for a disk; files in memory do not.
    #[must_use]
    pub fn answer(&self, request: &Parts) -> Response<Body> {
        match request.method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return allowing(StatusCode::NO_CONTENT.into_response()),
            _ => {
                let text = "This is a file server: GET and HEAD are all it knows.";
                return allowing(sentence(StatusCode::METHOD_NOT_ALLOWED, text));
            }
        }
        let wanted = match Wanted::read(request.uri.path(), self.config.hidden) {
            Ok(wanted) => wanted,
            Err(Refused::Malformed) => return sentence(StatusCode::BAD_REQUEST, "The path is not one of a file."),
            Err(Refused::TooLong) => return sentence(StatusCode::URI_TOO_LONG, "The path is too long for any file."),
            Err(Refused::Hidden) => return self.missing(request),
        };
        match self.look(&wanted) {
            Ok(Thing::File(fd, stat)) if !wanted.is_folder => self.send(request, &wanted, fd, &stat),
            Ok(Thing::Folder(fd)) if wanted.is_folder => self.folder(request, &wanted, &fd),
            Ok(Thing::Folder(_)) => moved(&wanted, request),
            Ok(Thing::File(..) | Thing::Other) => self.missing(request),
            Err(e) => self.failed(request, &e),
        }
    }

    fn look(&self, wanted: &Wanted) -> io::Result<Thing> {
        let fd = self.root.open_beneath(&wanted.path())?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Thing::File(fd, stat),
            FileType::Directory => Thing::Folder(fd),
            _ => Thing::Other,
        })
    }

    fn failed(&self, request: &Parts, e: &io::Error) -> Response<Body> {
        match e.kind() {
            io::ErrorKind::NotFound => self.missing(request),
            io::ErrorKind::PermissionDenied => sentence(StatusCode::FORBIDDEN, "This may not be read."),
            _ => {
                tracing::warn!(path = %request.uri.path(), "a file cannot be opened: {e}");
                // Descriptors, most likely; they come back.
                let mut busy = sentence(StatusCode::SERVICE_UNAVAILABLE, "The file cannot be opened now.");
                busy.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                busy
            }
        }
    }

    /// Nothing is there: the page of an application, or a sentence.
    fn missing(&self, request: &Parts) -> Response<Body> {
        let page = self.config.fallback.as_ref().filter(|_| wants_a_page(request));
        if let Some(wanted) = page.and_then(|page| Wanted::read(page, true).ok()) {
            if let Ok(Thing::File(fd, stat)) = self.look(&wanted) {
                return self.send(request, &wanted, fd, &stat);
            }
            tracing::warn!("the fallback {:?} is not there", wanted.path());
        }
        sentence(StatusCode::NOT_FOUND, "There is nothing at this address.")
    }

    fn folder(&self, request: &Parts, wanted: &Wanted, fd: &OwnedFd) -> Response<Body> {
        for name in &self.config.index {
            let index = wanted.child(name);
            match self.look(&index) {
                Ok(Thing::File(fd, stat)) => return self.send(request, &index, fd, &stat),
                Err(e) if e.kind() != io::ErrorKind::NotFound => return self.failed(request, &e),
                _ => {}
            }
        }
        if !self.config.listing {
            return self.missing(request);
        }
        let listing = match Listing::read(&self.root, fd, wanted, self.config.hidden) {
            Ok(listing) => listing,
            Err(e) => return self.failed(request, &e),
        };
        let json = wants_json(request);
        let (kind, text) =
            if json { ("application/json", listing.json()) } else { ("text/html; charset=utf-8", listing.html()) };
        let mut response = Response::new(Body::from(text));
        let headers = response.headers_mut();
        let set = |(name, value)| drop(headers.insert(name, HeaderValue::from_static(value)));
        [
            (header::CONTENT_TYPE, kind),
            (header::VARY, "accept"),
            (header::CACHE_CONTROL, "no-cache"),
            (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
        ]
        .into_iter()
        .for_each(set);
        response
    }

    fn send(&self, request: &Parts, wanted: &Wanted, fd: OwnedFd, stat: &rustix::fs::Stat) -> Response<Body> {
        let found = self.choose(request, wanted, fd, stat);
        let mut response = Response::new(Body::Empty);
        found.version.describe(response.headers_mut());
        if self.config.precompressed {
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        match found.version.judge(&request.headers, true) {
            Verdict::Send => {}
            Verdict::NotModified => {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return response;
            }
            Verdict::PreconditionFailed => {
                return sentence(StatusCode::PRECONDITION_FAILED, "The file is another version by now.");
            }
        }
        found.fill(request, response)
    }

    /// The file itself, or one that was compressed before.
    fn choose(&self, request: &Parts, wanted: &Wanted, fd: OwnedFd, stat: &rustix::fs::Stat) -> Found {
        let kind = self.kind(wanted);
        let now = SystemTime::now();
        let found = |fd: OwnedFd, stat: &rustix::fs::Stat, coding| Found {
            file: Arc::new(File::from(fd)),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            version: Version::of(u64::try_from(stat.st_size).unwrap_or(0), stat.st_ino, changed(stat), now),
            kind: kind.clone(),
            coding,
        };
        let accepted = self.config.precompressed.then(|| Coding::accepted(&request.headers)).into_iter().flatten();
        for coding in accepted {
            if let Ok(Thing::File(fd, other)) = self.look(&wanted.with_ending(coding.ending())) {
                // One that is older was made from something else.
                if changed(&other) >= changed(stat) {
                    return found(fd, &other, Some(coding));
                }
            }
        }
        found(fd, stat, None)
    }

    fn kind(&self, wanted: &Wanted) -> HeaderValue {
        let name = wanted.name().to_string_lossy();
        let end = name.rsplit_once('.').map_or("", |(_, end)| end);
        if let Some(own) = self.config.types.get(end).and_then(|kind| kind.parse().ok()) {
            return own;
        }
        let guess = mime_guess::from_ext(end).first_or_octet_stream();
        let text = guess.type_() == "text"
            || matches!(guess.subtype().as_str(), "javascript" | "json" | "xml")
            || guess.suffix().is_some_and(|suffix| suffix == "xml");
        let named = if text { format!("{guess}; charset=utf-8") } else { guess.to_string() };
        named.parse().unwrap_or(HeaderValue::from_static("application/octet-stream"))
    }
}

impl Found {
    /// The file, or the parts of it that are asked for.
    fn fill(self, request: &Parts, mut response: Response<Body>) -> Response<Body> {
        let headers = response.headers_mut();
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::CONTENT_TYPE, self.kind.clone());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(coding) = self.coding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        }
        let asked = match request.headers.get(header::RANGE).and_then(|range| range.to_str().ok()) {
            Some(range) if request.method == Method::GET && self.version.permits_range(&request.headers) => {
                Asked::read(range, self.size)
            }
            _ => Asked::Whole,
        };
        let size = self.size;
        match asked {
            Asked::Whole => {
                headers.insert(header::CONTENT_LENGTH, size.into());
                if request.method == Method::GET {
                    *response.body_mut() = Body::File(FileBody::range(self.file, 0, size));
                }
            }
            Asked::Nothing => {
                let text = format!("The file has {size} bytes; none of them was asked for.");
                let mut refused = sentence(StatusCode::RANGE_NOT_SATISFIABLE, &text);
                set(refused.headers_mut(), header::CONTENT_RANGE, format!("bytes */{size}"));
                return refused;
            }
            Asked::Parts(parts) => {
                let body = if let [(start, end)] = parts[..] {
                    set(headers, header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1));
                    FileBody::range(self.file, start, end)
                } else {
                    self.several(&parts, headers)
                };
                headers.insert(header::CONTENT_LENGTH, body.remaining().into());
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                *response.body_mut() = Body::File(body);
            }
        }
        response
    }

    /// Several parts, each with its place.
    fn several(self, parts: &[(u64, u64)], headers: &mut HeaderMap) -> FileBody {
        let boundary = range::boundary();
        let kind = self.kind.to_str().unwrap_or("application/octet-stream");
        set(headers, header::CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"));
        let mut body = FileBody::range(self.file, 0, 0);
        for (start, end) in parts {
            let last = end - 1;
            body.push_text(format!(
                "\r\n--{boundary}\r\ncontent-type: {kind}\r\ncontent-range: bytes {start}-{last}/{}\r\n\r\n",
                self.size
            ));
            body.push_range(*start, *end);
        }
        body.push_text(format!("\r\n--{boundary}--\r\n"));
        body
    }
}

/// A status as an answer without a body.
trait IntoResponse {
    fn into_response(self) -> Response<Body>;
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = self;
        response
    }
}

fn allowing(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    response
}

/// A folder's address ends in a slash, so that what its page names is found in it.
fn moved(wanted: &Wanted, request: &Parts) -> Response<Body> {
    let query = request.uri.query().map_or(String::new(), |query| format!("?{query}"));
    let mut response = sentence(StatusCode::PERMANENT_REDIRECT, "The address of a folder ends in a slash.");
    set(response.headers_mut(), header::LOCATION, format!("{}{query}", wanted.uri(true)));
    response
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(value)) {
        headers.insert(name, value);
    }
}

fn changed(stat: &rustix::fs::Stat) -> SystemTime {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0).min(999_999_999);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
}

/// Whether somebody reads what comes: a browser says so when it opens a page, and a name without an end is no picture.
fn wants_a_page(request: &Parts) -> bool {
    let accepts = request.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let name = request.uri.path().rsplit('/').next().unwrap_or("");
    accepts.is_some_and(|accept| accept.contains("text/html")) || !name.contains('.')
}

/// Whether a program reads the list.
fn wants_json(request: &Parts) -> bool {
    let accept = request.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    accept.contains("application/json") && !accept.contains("text/html")
}

#[cfg(test)]
mod tests;
