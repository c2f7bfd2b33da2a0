//! Attacks on the folder, and paths that are none.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;

use super::*;

/// A folder `www` with a secret beside it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let www = dir.path().join("www");
        fs::create_dir_all(www.join("sub/deep")).unwrap();
        fs::create_dir_all(www.join(".git")).unwrap();
        fs::create_dir_all(www.join(".well-known/.git")).unwrap();
        fs::create_dir_all(dir.path().join("www-private")).unwrap();
        for (name, text) in [
            ("www/a.txt", "public"),
            ("www/sub/deep/b.txt", "public"),
            ("www/name with space", "public"),
            ("www/ümlaut", "public"),
            ("www/100%", "public"),
            ("www/.env", "secret"),
            ("www/.git/config", "secret"),
            ("www/.well-known/x", "public"),
            ("www/.well-known/.git/config", "secret"),
            ("secret", "secret"),
            ("www-private/key", "secret"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let secret = dir.path().join("secret");
        symlink(&secret, www.join("absolute")).unwrap();
        symlink("../secret", www.join("upwards")).unwrap();
        symlink("..", www.join("parent")).unwrap();
        symlink("/", www.join("top")).unwrap();
        symlink("/proc/self/root", www.join("magic")).unwrap();
        symlink("/proc/self/cwd", www.join("cwd")).unwrap();
        symlink("../../secret", www.join("sub/twice")).unwrap();
        symlink("upwards", www.join("chain")).unwrap();
        symlink("loop", www.join("loop")).unwrap();
        symlink("../a.txt", www.join("sub/inside")).unwrap();
        symlink("sub/deep", www.join("folder")).unwrap();
        symlink(www.join("a.txt"), www.join("absolute-inside")).unwrap();
        Self { dir }
    }

    fn root(&self, symlinks: bool) -> Root {
        Root::open(&self.dir.path().join("www"), symlinks).unwrap()
    }
}

/// What is found in this way by both openings.
fn content(root: &Root, path: &str, by_hand: bool) -> Option<String> {
    let wanted = Wanted::read(path, false).ok()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened =
        if by_hand { root.open_step_by_step(&wanted.path(), flags) } else { root.open_beneath(&wanted.path()) };
    let mut text = String::new();
    fs::File::from(opened.ok()?).read_to_string(&mut text).ok()?;
    Some(text)
}

const ATTACKS: [&str; 66] = [
    "/../secret",
    "/../../secret",
    "/sub/../../secret",
    "/sub/../a.txt",
    "/./a.txt",
    "/%2e%2e/secret",
    "/%2E%2E/secret",
    "/.%2e/secret",
    "/%2e./secret",
    "/%2e%2e%2fsecret",
    "/..%2fsecret",
    "/..%2Fsecret",
    "/sub%2f..%2f..%2fsecret",
    "/%2e%2e%5csecret",
    "/..\\secret",
    "/..%5csecret",
    "/sub\\..\\..\\secret",
    "/%252e%252e/secret",
    "/%252e%252e%252fsecret",
    "/..%252fsecret",
    "/%c0%ae%c0%ae/secret",
    "/%c0%ae%c0%ae%c0%afsecret",
    "/..%c0%afsecret",
    "/%e0%80%ae%e0%80%ae/secret",
    "/%uff0e%uff0e/secret",
    "/%u002e%u002e/secret",
    "/..;/secret",
    "/..%00/secret",
    "/a.txt%00",
    "/%00",
    "/a.txt%00.html",
    "/../secret%00.txt",
    "/..%0d%0a/secret",
    "/a.txt%0a",
    "/a.txt%7f",
    "/%",
    "/%2",
    "/%zz",
    "/a.txt%",
    "/%2",
    "//../secret",
    "///..///secret",
    "/..//secret",
    "/....//secret",
    "/.../secret",
    "/..../secret",
    "/~root/secret",
    "../secret",
    "secret",
    "",
    "/www/../../secret",
    "/../www-private/key",
    "/..%2fwww-private/key",
    "/../www/a.txt",
    "/absolute",
    "/upwards",
    "/parent/secret",
    "/top/etc/passwd",
    "/magic/etc/passwd",
    "/cwd/Cargo.toml",
    "/sub/twice",
    "/chain",
    "/loop",
    "/.env",
    "/.git/config",
    "/.well-known/.git/config",
];

#[test]
fn no_path_leads_out_of_the_folder() {
    let place = Place::new();
    for symlinks in [true, false] {
        let root = place.root(symlinks);
        for attack in ATTACKS {
            for by_hand in [false, true] {
                assert_eq!(content(&root, attack, by_hand), None, "{attack} {symlinks} {by_hand}");
            }
        }
    }
    // Whatever the text of a path lets through, the system's fence stands by itself.
    let root = place.root(true);
    for path in ["../secret", "/etc/passwd", "sub/../../secret", "..", "/", "parent/..", "sub/../../www/a.txt"] {
        assert!(root.open_beneath(Path::new(path)).is_err(), "{path}");
        assert!(root.open_step_by_step(Path::new(path), OFlags::RDONLY).is_err(), "{path}");
    }
}

#[test]
fn what_is_in_the_folder_is_found() {
    let place = Place::new();
    let (root, plain) = (place.root(true), place.root(false));
    for path in [
        "/a.txt",
        "//a.txt",
        "/sub/deep/b.txt",
        "/%61.txt",
        "/name%20with%20space",
        "/%C3%BCmlaut",
        "/100%25",
        "/.well-known/x",
    ] {
        for (root, by_hand) in [(&root, false), (&root, true), (&plain, false)] {
            assert_eq!(content(root, path, by_hand).as_deref(), Some("public"), "{path} {by_hand}");
        }
    }
    for path in ["/sub/inside", "/folder/b.txt"] {
        assert_eq!(content(&root, path, false).as_deref(), Some("public"), "{path}");
        assert_eq!(content(&plain, path, false), None, "{path}");
        assert_eq!(content(&root, path, true), None, "{path}");
    }
    // An absolute link leads outside, wherever it arrives.
    assert_eq!(content(&root, "/absolute-inside", false), None);
    assert!(Wanted::read("/.env", true).is_ok());
}

#[test]
fn long_paths_are_refused_before_the_system_sees_them() {
    let name = "n".repeat(255);
    assert!(Wanted::read(&format!("/{name}"), false).is_ok());
    assert_eq!(Wanted::read(&format!("/{name}n"), false), Err(Refused::TooLong));
    assert_eq!(Wanted::read(&format!("/{}", "abc/".repeat(1001)), false), Err(Refused::TooLong));
    assert_eq!(Wanted::read(&format!("/{}", "a".repeat(20_000)), false), Err(Refused::TooLong));
    assert_eq!(Wanted::read(&format!("/{}", "%61".repeat(255)), false).unwrap().name().len(), 255);
}

#[test]
fn addresses_are_written_so_that_they_come_back_and_lead_nowhere_else() {
    for path in
        ["/a.txt", "//evil.example/", "/name%20with%20space", "/%3Cscript%3E", "/100%25", "/%C3%BC%3F%23/x/", "/"]
    {
        let wanted = Wanted::read(path, false).unwrap();
        let uri = wanted.uri(wanted.is_folder);
        assert!(!uri.starts_with("//") && uri.is_ascii() && !uri.contains(['<', '?', '#', ' ']), "{uri}");
        assert_eq!(Wanted::read(&uri, false).unwrap(), wanted, "{uri}");
    }
    assert_eq!(Wanted::read("//evil.example", false).unwrap().uri(true), "/evil.example/");
    let wanted = Wanted::read("/sub", false).unwrap();
    assert_eq!(wanted.child("index.html").path(), Path::new("sub/index.html"));
    assert_eq!(wanted.with_ending(".gz").path(), Path::new("sub.gz"));
}

#[test]
fn pipes_are_opened_without_waiting_for_a_writer() {
    let place = Place::new();
    let pipe = place.dir.path().join("www/pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert!(place.root(true).open_beneath(Path::new("pipe")).is_ok());
}

proptest::proptest! {
    #[test]
    fn whatever_is_asked_for_has_only_plain_parts(path in "/[./%2eEfF5cC0a\\\\]{0,24}") {
        if let Ok(wanted) = Wanted::read(&path, true) {
            for part in wanted.path().components() {
                let plain = matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir);
                proptest::prop_assert!(plain, "{:?}", wanted);
            }
        }
    }
}
