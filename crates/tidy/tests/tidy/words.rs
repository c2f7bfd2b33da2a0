//! Words that must not appear.

use tidy::{lines_of, read, sources, texts};

use crate::assert_none;

/// The files with unsafe code: the edge to C, a test that calls it as C does, the rings and segments, and the allocators of the
/// tests.
const UNSAFE_FILES: [&str; 6] = [
    "crates/courser-ffi/src/raw.rs",
    "crates/courser-ffi/tests/c/mod.rs",
    "crates/courser-session/src/ring/raw.rs",
    "crates/courser-session/src/segment/raw.rs",
    "crates/courser-testing/src/alloc.rs",
    "crates/courser-testing/src/sites.rs",
];

/// Whether `word` stands in `code` as a word of its own. A word may contain `::` and end in `!`.
fn contains_word(code: &str, word: &str) -> bool {
    let part_of_name = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).any(|(at, _)| {
        let behind = code[at + word.len()..].chars().next();
        !part_of_name(code[..at].chars().next_back()) && (word.ends_with('!') || !part_of_name(behind))
    })
}

/// Lines `word <tab> reason`.
fn banned(list: &str) -> Vec<(String, String)> {
    let lines = lines_of(list);
    assert!(lines.len() > 3, "{list} is not empty");
    let pair = |l: &String| l.split_once('\t').map(|(w, r)| (w.to_owned(), r.to_owned()));
    lines.iter().map(|l| pair(l).unwrap_or_else(|| panic!("{list}: no reason: {l}"))).collect()
}

#[test]
fn the_core_asks_the_world_nothing_and_shares_nothing() {
    let words = banned("crates/tidy/lists/banned-in-core.tsv");
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|s| s.path.starts_with("crates/courser-core/src/")) {
        for (word, reason) in &words {
            if contains_word(source.product_code(), word) {
                complaints.push(format!("{}: {word}: {reason}", source.path));
            }
        }
    }
    assert_none("words banned in the core", &complaints);
}

#[test]
fn unsafe_code_lives_in_known_files() {
    let mut complaints = Vec::new();
    for source in sources() {
        let has = contains_word(&source.masked, "unsafe");
        let may = UNSAFE_FILES.contains(&source.path.as_str());
        if has && !may && source.path != "crates/tidy/src/outline.rs" {
            complaints.push(source.path);
        } else if may && !has {
            complaints.push(format!("{} has no unsafe code any more; take it out of the list", source.path));
        }
    }
    assert_none("unsafe code", &complaints);
}

#[test]
fn readers_of_foreign_bytes_neither_index_nor_unwrap() {
    const READERS: [&str; 15] = [
        "crates/courser-core/src/engine/hello.rs",
        "crates/courser-core/src/protect/client_hello.rs",
        "crates/courser-core/src/wire/mod.rs",
        "crates/courser-h3/src/capsule.rs",
        "crates/courser-h3/src/datagram.rs",
        "crates/courser-h3/src/frame/mod.rs",
        "crates/courser-h3/src/message/decode.rs",
        "crates/courser-h3/src/priority.rs",
        "crates/courser-h3/src/qpack/decoder.rs",
        "crates/courser-h3/src/qpack/instructions.rs",
        "crates/courser-h3/src/qpack/prefix_int.rs",
        "crates/courser-h3/src/settings.rs",
        "crates/courser-session/src/control/codec.rs",
        "crates/courser-session/src/msg/raw.rs",
        "crates/courser-session/src/segment/payload.rs",
    ];
    const LINTS: &str = "deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)";
    let lacks = |path: &&&str| !read(path).contains(LINTS);
    let complaints: Vec<_> = READERS.iter().filter(lacks).map(|path| format!("{path} lacks {LINTS}")).collect();
    assert_none("readers that may panic", &complaints);
}

#[test]
fn unsafe_modules_of_the_product_are_short_together() {
    /// Lines that are neither empty nor comments.
    const LINES_MAX: usize = 300;
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    let is_test = |path: &str| path.starts_with("crates/courser-testing/") || path.contains("/tests/");
    let product = UNSAFE_FILES.iter().filter(|path| !is_test(path));
    let lines: Vec<_> = product.map(|path| (path, read(path).lines().filter(is_code).count())).collect();
    let total: usize = lines.iter().map(|(_, count)| count).sum();
    assert!(lines.len() >= 2 && total <= LINES_MAX, "{total} lines of modules with unsafe code: {lines:?}");
    println!("{total} lines: {lines:?}");
}

#[test]
fn nothing_is_left_to_do_in_secret_and_no_machine_is_named() {
    let words = banned("crates/tidy/lists/banned-everywhere.tsv");
    let mut complaints = Vec::new();
    for path in texts(&["rs", "md", "toml", "sh", "py", "yml"]) {
        let text = read(&path);
        for (word, reason) in &words {
            for (number, line) in text.lines().enumerate() {
                if line.contains(word.as_str()) {
                    complaints.push(format!("{path}:{}: {word}: {reason}", number + 1));
                }
            }
        }
    }
    assert_none("words banned everywhere", &complaints);
}

#[test]
fn words_are_whole_words() {
    assert!(contains_word("let a: Arc<u8> = x;", "Arc"));
    assert!(!contains_word("let Arcade = MyArc;", "Arc"));
    assert!(contains_word("std::thread::spawn(f)", "std::thread"));
    assert!(contains_word("println!(x)", "println!"));
    assert!(!contains_word("eprintln!(x)", "println!"));
    assert!(!contains_word("#![forbid(unsafe_code)]", "unsafe"));
}
