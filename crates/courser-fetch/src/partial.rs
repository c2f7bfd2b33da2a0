//! Files that are not complete yet. While bytes come, they are in `NAME.part`, and `NAME.part.json` says of what they are
//! the beginning; when all are there, the file gets its name in one step. So no program ever sees half a file under its
//! name, and a later run can go on where this one stopped, as long as the server says that the file is still the same.
//!
//! Only a strong validator is trusted with that (RFC 9110 section 13.1.5): an entity tag without `W/`, or a date of
//! change that was at least a second old when the server told it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::{DATE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use crate::error::{Error, Outcome};

/// Bytes that are gathered before they go to the file.
const PIECE: usize = 256 << 10;
/// Most bytes of a side file that is read.
const SIDE_MAX: u64 = 64 << 10;

/// What the bytes are the beginning of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What was asked for.
    pub url: String,
    /// A strong validator, as `If-Range` wants it.
    pub validator: String,
}

impl Note {
    /// Of an answer; none when it has no strong validator.
    #[must_use]
    pub fn of(url: &str, headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        let date = |text: &str| httpdate::parse_http_date(text).ok();
        let validator = match (text(ETAG), text(LAST_MODIFIED)) {
            (Some(tag), _) => tag.starts_with('"').then(|| tag.to_owned())?,
            (None, Some(changed)) => {
                let old_enough = date(changed)? + Duration::from_secs(1) <= date(text(DATE)?)?;
                old_enough.then(|| changed.to_owned())?
            }
            (None, None) => return None,
        };
        Some(Self { url: url.to_owned(), validator })
    }
}

/// A file on its way.
#[derive(Debug)]
pub struct Partial {
    name: PathBuf,
    part: PathBuf,
    side: PathBuf,
    file: File,
    /// Bytes in the file, those that are gathered included.
    have: u64,
    note: Option<Note>,
    gathered: Vec<u8>,
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Partial {
    /// Opens what there is, or begins. What an earlier run left of another URL, or without a note, does not count.
    ///
    /// # Errors
    /// The file cannot be written, or another program is writing it.
    pub async fn open(name: &Path, url: &str, resume: bool) -> Outcome<Self> {
        let (part, side) = (with_suffix(name, ".part"), with_suffix(name, ".part.json"));
        if name.is_dir() {
            return Err(Error::Unwritable { path: name.to_owned(), why: "it is a folder".into() });
        }
        let failed = |e| Error::writing(&part, &e);
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(&part).await.map_err(failed)?;
        lock(&file, &part)?;
        let note = if resume { read_note(&side).await.filter(|n| n.url == url) } else { None };
        let have = if note.is_some() { file.metadata().await.map_err(failed)?.len() } else { 0 };
        Ok(Self { name: name.to_owned(), part, side, file, have, note, gathered: Vec::new() })
    }

    /// Where the file will be.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Bytes that are there.
    #[must_use]
    pub const fn have(&self) -> u64 {
        self.have
    }

    /// What the rest has to belong to, when there is a beginning.
    #[must_use]
    pub fn validator(&self) -> Option<&str> {
        self.note.as_ref().filter(|_| self.have > 0).map(|n| n.validator.as_str())
    }

    /// Throws away what there is; the bytes that follow belong to `note`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub async fn start_over(&mut self, note: Option<Note>) -> Outcome {
        // The note goes first and comes last: it never speaks of bytes that belong to another.
        match tokio::fs::remove_file(&self.side).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::writing(&self.side, &e)),
            _ => {}
        }
        self.gathered.clear();
        self.file.set_len(0).await.map_err(|e| Error::writing(&self.part, &e))?;
        self.file.rewind().await.map_err(|e| Error::writing(&self.part, &e))?;
        (self.have, self.note) = (0, note);
        if let Some(note) = &self.note {
            let text = serde_json::to_vec(note)
                .map_err(|e| Error::Local { what: "a note beside the file".into(), why: e.to_string() })?;
            tokio::fs::write(&self.side, text).await.map_err(|e| Error::writing(&self.side, &e))?;
        }
        Ok(())
    }

    /// The bytes that follow go behind those that are there.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn go_on(&mut self) -> Outcome {
        self.flush().await?;
        self.file.seek(std::io::SeekFrom::End(0)).await.map(drop).map_err(|e| Error::writing(&self.part, &e))
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// They cannot be written.
    pub async fn write(&mut self, bytes: &[u8]) -> Outcome {
        self.gathered.extend_from_slice(bytes);
        self.have += bytes.len() as u64;
        if self.gathered.len() >= PIECE { self.flush().await } else { Ok(()) }
    }

    /// Everything that was taken is with the system.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn flush(&mut self) -> Outcome {
        let failed = |e| Error::writing(&self.part, &e);
        self.file.write_all(&self.gathered).await.map_err(failed)?;
        self.gathered.clear();
        self.file.flush().await.map_err(failed)
    }

    /// All bytes are there: the file gets its name.
    ///
    /// # Errors
    /// It cannot be written or renamed.
    pub async fn commit(mut self) -> Outcome {
        self.flush().await?;
        // A file that has its name is whole, also after the power failed.
        self.file.sync_data().await.map_err(|e| Error::writing(&self.part, &e))?;
        tokio::fs::rename(&self.part, &self.name).await.map_err(|e| Error::writing(&self.name, &e))?;
        // Without its part a note means nothing.
        let _ = tokio::fs::remove_file(&self.side).await;
        Ok(())
    }

    /// Nothing will come of it: an empty beginning is taken away, and one that can be continued stays.
    pub async fn abandon(mut self) {
        let _ = self.flush().await;
        if self.have == 0 || self.note.is_none() {
            let _ = tokio::fs::remove_file(&self.side).await;
            let _ = tokio::fs::remove_file(&self.part).await;
        }
    }
}

async fn read_note(side: &Path) -> Option<Note> {
    if tokio::fs::metadata(side).await.ok()?.len() > SIDE_MAX {
        return None;
    }
    serde_json::from_slice(&tokio::fs::read(side).await.ok()?).ok()
}

/// Two programs that write the same file would mix it up.
fn lock(file: &File, path: &Path) -> Outcome {
    #[cfg(unix)]
    {
        use rustix::fs::{FlockOperation, flock};

        if let Err(rustix::io::Errno::WOULDBLOCK) = flock(file, FlockOperation::NonBlockingLockExclusive) {
            return Err(Error::Unwritable { path: path.to_owned(), why: "another program is writing it".into() });
        }
    }
    let _ = (file, path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(n, v)| (n.parse::<http::HeaderName>().unwrap(), HeaderValue::from_static(v))).collect()
    }

    fn note(validator: &str) -> Note {
        Note { url: "https://h/f".into(), validator: validator.into() }
    }

    #[test]
    fn only_strong_validators_count() {
        let changed = ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (list, validator) in [
            (vec![("etag", "\"a\"")], Some("\"a\"")),
            (vec![("etag", "\"a\""), changed], Some("\"a\"")),
            (vec![("etag", "W/\"a\""), changed, ("date", "Sun, 06 Nov 1994 09:00:00 GMT")], None),
            (vec![changed, ("date", "Sun, 06 Nov 1994 08:49:38 GMT")], Some(changed.1)),
            (vec![changed, ("date", "Sun, 06 Nov 1994 08:49:37 GMT")], None),
            (vec![changed], None),
            (vec![], None),
        ] {
            assert_eq!(Note::of("u", &headers(&list)).map(|n| n.validator), validator.map(str::to_owned), "{list:?}");
        }
    }

    #[tokio::test]
    async fn a_file_has_its_name_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("f");
        let mut p = Partial::open(&name, "https://h/f", true).await.unwrap();
        p.start_over(Some(note("\"1\""))).await.unwrap();
        p.write(b"half").await.unwrap();
        assert!(!name.exists());
        p.abandon().await;
        let mut p = Partial::open(&name, "https://h/f", true).await.unwrap();
        assert_eq!((p.have(), p.validator()), (4, Some("\"1\"")));
        p.go_on().await.unwrap();
        p.write(b" and half").await.unwrap();
        p.commit().await.unwrap();
        assert_eq!(std::fs::read(&name).unwrap(), b"half and half");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_belongs_to_another_url_or_has_no_note_is_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("f");
        let mut p = Partial::open(&name, "https://h/f", true).await.unwrap();
        p.start_over(Some(note("\"1\""))).await.unwrap();
        p.write(b"bytes").await.unwrap();
        p.abandon().await;
        for (url, resume) in [("https://h/g", true), ("https://h/f", false)] {
            let p = Partial::open(&name, url, resume).await.unwrap();
            assert_eq!((p.have(), p.validator()), (0, None));
        }
        std::fs::write(folder.path().join("f.part.json"), "{}").unwrap();
        assert_eq!(Partial::open(&name, "https://h/f", true).await.unwrap().have(), 0);
        let mut p = Partial::open(&name, "https://h/f", true).await.unwrap();
        p.start_over(None).await.unwrap();
        p.write(b"x").await.unwrap();
        p.abandon().await;
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn two_programs_do_not_write_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("f");
        let held = Partial::open(&name, "u", true).await.unwrap();
        let e = Partial::open(&name, "u", true).await.unwrap_err();
        assert!(e.code() == 7 && e.to_string().contains("another program"), "{e}");
        drop(held);
        assert!(Partial::open(&name, "u", true).await.is_ok());
        assert_eq!(Partial::open(folder.path(), "u", true).await.unwrap_err().code(), 7);
    }
}
