//! hq-interop: `GET /name` and CR LF on a two-way stream, then the end; the answer is the file, then the end.

use std::path::{Component, Path, PathBuf};

use courser::net::target::Target;

use crate::args::address;
use crate::failure::{Failure, Outcome};

/// Application protocol name.
pub const ALPN: &[u8] = b"hq-interop";
/// Longest request that a server reads, in bytes.
pub const REQUEST_MAX: usize = 4096;

/// A request for a path.
#[must_use]
pub fn request(path: &str) -> Vec<u8> {
    format!("GET {path}\r\n").into_bytes()
}

/// The path in a complete request; `None` when it is none. A bare LF and a missing line end are taken too, as other
/// implementations send them.
#[must_use]
pub fn parse_request(bytes: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(bytes).ok()?;
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let path = line.strip_prefix("GET ")?.trim_end_matches(' ');
    (path.starts_with('/') && !path.contains(char::is_control)).then_some(path)
}

/// The file that a path names inside `root`; `None` when it names none or one outside.
///
/// Two walls: every part of the path must be a plain name, and the file that is found, with all links followed, must
/// lie in the folder.
#[must_use]
pub fn file_inside(root: &Path, path: &str) -> Option<PathBuf> {
    let relative = plain(path)?;
    let root = root.canonicalize().ok()?;
    let file = root.join(relative).canonicalize().ok()?;
    (file.starts_with(&root) && file.is_file()).then_some(file)
}

/// A path as names below some folder; `None` when a part is empty or anything else than a name.
fn plain(path: &str) -> Option<PathBuf> {
    let parts = path.strip_prefix('/')?;
    let mut out = PathBuf::new();
    for part in parts.split('/') {
        let odd = part.is_empty() || part.contains(['\\', ':', '\0']);
        let mut components = Path::new(part).components();
        match (odd, components.next(), components.next()) {
            (false, Some(Component::Normal(name)), None) => out.push(name),
            _ => return None,
        }
    }
    Some(out)
}

/// Something to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The server.
    pub server: Target,
    /// What is asked for; starts with a slash.
    pub path: String,
    /// The last part of the path: the name that the file gets here.
    pub name: String,
}

/// Reads `https://HOST[:PORT]/PATH`.
///
/// # Errors
/// The text is no such URL, or its path does not end in a name.
pub fn parse_url(text: &str) -> Outcome<Url> {
    let bad = |why: &str| Failure::BadAddress { text: text.to_owned(), why: why.to_owned() };
    let rest = text.strip_prefix("https://").ok_or_else(|| bad("it does not start with https://"))?;
    let slash = rest.find('/').ok_or_else(|| bad("the path is missing"))?;
    let (authority, path) = rest.split_at(slash);
    let server = address::target_or_port(authority, 443)?;
    let name = plain(path).ok_or_else(|| bad("the path is not made of plain names"))?;
    let name = name.file_name().and_then(|n| n.to_str()).ok_or_else(|| bad("the path has no name"))?.to_owned();
    Ok(Url { server, path: path.to_owned(), name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_others_write_them() {
        assert_eq!(request("/x"), b"GET /x\r\n");
        for ok in [&b"GET /x\r\n"[..], b"GET /x\n", b"GET /x", b"GET /x \r\n"] {
            assert_eq!(parse_request(ok), Some("/x"));
        }
        for bad in
            [&b""[..], b"GET", b"GET \r\n", b"get /x\r\n", b"POST /x\r\n", b"GET x", b"GET /\xff", b"GET /a\r\n\r\n"]
        {
            assert_eq!(parse_request(bad), None, "{}", bad.escape_ascii());
        }
        assert_eq!(parse_request(b"GET /a\0b"), None);
        assert_eq!(parse_request(b"GET /a/b.c"), Some("/a/b.c"));
    }

    #[test]
    fn no_path_leaves_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("www");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::fs::write(root.join("a"), "a").unwrap();
        std::fs::write(root.join("sub/b"), "b").unwrap();
        assert!(file_inside(&root, "/a").is_some());
        assert!(file_inside(&root, "/sub/b").is_some());
        for bad in [
            "",
            "/",
            "a",
            "/..",
            "/../secret",
            "/sub/../../secret",
            "/./a",
            "//a",
            "/sub//b",
            "/sub",
            "/sub/",
            "/..\\secret",
            "/a\0",
            "/C:a",
            "/missing",
            "/sub/b/c",
            "//etc/passwd",
        ] {
            assert_eq!(file_inside(&root, bad), None, "{bad}");
        }
        let absolute = format!("/{}", dir.path().join("secret").display());
        assert_eq!(file_inside(&root, &absolute), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_folder_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("www");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::fs::write(root.join("a"), "a").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("out")).unwrap();
        std::os::unix::fs::symlink(root.join("a"), root.join("in")).unwrap();
        assert_eq!(file_inside(&root, "/out"), None);
        assert!(file_inside(&root, "/in").is_some());
    }

    #[test]
    fn urls_name_server_path_and_file() {
        let u = parse_url("https://server4:443/dir/name.txt").unwrap();
        assert_eq!(
            (u.server.to_string().as_str(), u.path.as_str(), u.name.as_str()),
            ("server4:443", "/dir/name.txt", "name.txt")
        );
        assert_eq!(parse_url("https://[fd00::1]/x").unwrap().server.to_string(), "[fd00::1]:443");
        for bad in ["", "http://a/x", "https://a", "https://a/", "https://:1/x", "https://a/../x", "https://a:99999/x"]
        {
            assert_eq!(parse_url(bad).unwrap_err().code(), 3, "{bad}");
        }
    }
}
