//! What is in a folder, as a page and as JSON.

use std::fmt::Write;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Dir, FileType};
use serde::Serialize;

use super::resolve::{Root, Wanted, escaped};

/// Entries that are shown; of more only that there are more.
const ENTRIES_MAX: usize = 10_000;

/// One thing in a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// As it is written in a URI.
    #[serde(skip)]
    pub uri: String,
    /// Whether it is a folder.
    #[serde(rename = "folder")]
    pub is_folder: bool,
    /// Bytes of a file.
    pub size: u64,
    /// When it was changed.
    pub modified: String,
}

/// A folder's content.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    /// The folder's path, as in its URI.
    pub path: String,
    /// Folders first, then files, each by name.
    pub entries: Vec<Entry>,
    /// Whether there is more than is shown.
    pub truncated: bool,
}

impl Listing {
    /// Reads a folder. Names that are not served are not shown either.
    ///
    /// # Errors
    /// As the system says.
    pub fn read(root: &Root, folder: &OwnedFd, wanted: &Wanted, hidden: bool) -> io::Result<Self> {
        let mut listing = Self { path: wanted.uri(true), entries: Vec::new(), truncated: false };
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            let Ok(wanted) = Wanted::read(&format!("{}{}", listing.path, escaped(bytes)), hidden) else { continue };
            if listing.entries.len() == ENTRIES_MAX {
                listing.truncated = true;
                break;
            }
            // Opened as a request would open it, so that what leads outside is not even shown.
            let stat = match entry.file_type() {
                FileType::RegularFile | FileType::Directory => {
                    rustix::fs::statat(folder, entry.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok()
                }
                FileType::Symlink | FileType::Unknown => stat_beneath(root, &wanted.path()),
                _ => None,
            };
            let Some(stat) = stat else { continue };
            let is_folder = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => true,
                FileType::RegularFile => false,
                _ => continue,
            };
            let uri = format!("{}{}", escaped(bytes), if is_folder { "/" } else { "" });
            let size = if is_folder { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) };
            let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
            let modified = httpdate::fmt_http_date(changed);
            listing.entries.push(Entry { name: String::from_utf8_lossy(bytes).into(), uri, is_folder, size, modified });
        }
        listing.entries.sort_by(|a, b| (!a.is_folder, &a.name).cmp(&(!b.is_folder, &b.name)));
        Ok(listing)
    }

    /// As a page that needs nothing else.
    #[must_use]
    pub fn html(&self) -> String {
        let title = escape(&percent_encoding::percent_decode_str(&self.path).decode_utf8_lossy());
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
             content=\"width=device-width\">\n<title>{title}</title>\n<style>body{{font-family:sans-serif}}\
             td{{padding:0 1.5em 0 0}}td+td{{text-align:right}}</style>\n<h1>{title}</h1>\n<table>\n"
        );
        if self.path != "/" {
            page.push_str("<tr><td><a href=\"../\">../</a><td><td>\n");
        }
        for entry in &self.entries {
            let size = if entry.is_folder { String::new() } else { entry.size.to_string() };
            let slash = if entry.is_folder { "/" } else { "" };
            let name = escape(&entry.name);
            // The address consists of letters, digits and percent signs; a dot before it keeps it a path.
            let _ =
                writeln!(page, "<tr><td><a href=\"./{}\">{name}{slash}</a><td>{size}<td>{}", entry.uri, entry.modified);
        }
        page.push_str("</table>\n");
        if self.truncated {
            let _ = writeln!(page, "<p>Only {ENTRIES_MAX} entries are shown.</p>");
        }
        page.push_str("</html>\n");
        page
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn stat_beneath(root: &Root, path: &Path) -> Option<rustix::fs::Stat> {
    rustix::fs::fstat(root.open_beneath(path).ok()?).ok()
}

/// Text inside a page.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_served_is_shown_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.txt", "a.txt", ".hidden", "<img src=x onerror=alert(1)>", "javascript:alert(1)", "q?#&\"'"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        fs::create_dir(dir.path().join("zfolder")).unwrap();
        symlink("/etc/passwd", dir.path().join("outside")).unwrap();
        symlink("a.txt", dir.path().join("inside")).unwrap();
        let root = Root::open(dir.path(), true).unwrap();
        let folder = root.open_beneath(Path::new(".")).unwrap();
        let listing = Listing::read(&root, &folder, &Wanted::read("/", false).unwrap(), false).unwrap();
        let names: Vec<&str> = listing.entries.iter().map(|e| e.name.as_str()).collect();
        let expected =
            ["zfolder", "<img src=x onerror=alert(1)>", "a.txt", "b.txt", "inside", "javascript:alert(1)", "q?#&\"'"];
        assert_eq!(names, expected);
        assert_eq!(listing.entries[2].size, 5);
        let page = listing.html();
        assert!(page.contains("<a href=\"./zfolder/\">zfolder/</a>") && page.contains("&lt;img src=x"), "{page}");
        assert!(!page.contains("<img") && !page.contains("href=\"javascript") && !page.contains("passwd"));
        assert!(page.contains("./q%3F%23%26%22%27\""), "{page}");
        assert!(!page.contains("../"));
        let json: serde_json::Value = serde_json::from_str(&listing.json()).unwrap();
        assert_eq!(json["path"], "/");
        assert_eq!(json["entries"][0]["folder"], true);
        assert_eq!(json["entries"][2]["name"], "a.txt");
        assert_eq!(json["truncated"], false);
    }

    #[test]
    fn huge_folders_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..=ENTRIES_MAX {
            symlink("x", dir.path().join(n.to_string())).unwrap();
        }
        // Links that lead nowhere are not shown; files are.
        fs::write(dir.path().join("x"), "").unwrap();
        let root = Root::open(dir.path(), true).unwrap();
        let folder = root.open_beneath(Path::new(".")).unwrap();
        let listing = Listing::read(&root, &folder, &Wanted::read("/", false).unwrap(), false).unwrap();
        assert_eq!((listing.entries.len(), listing.truncated), (ENTRIES_MAX, true));
        assert!(listing.html().contains("Only 10000"));
    }
}
