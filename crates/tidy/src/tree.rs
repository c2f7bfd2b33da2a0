//! The files of the project.

use std::fs;
use std::path::{Path, PathBuf};

use crate::mask::mask;

/// Folders that hold nothing of ours.
const FOREIGN: [&str; 4] = ["target", ".git", ".venv", "__pycache__"];

/// Crates that exist for tests only.
const TEST_CRATES: [&str; 4] = ["courser-testing", "interop-smoke", "parser-trial", "tidy"];

/// A Rust source file.
#[derive(Clone, Debug)]
pub struct Source {
    /// From the root, with forward slashes.
    pub path: String,
    /// As it is.
    pub text: String,
    /// Code only, see [`mask`]; of the same length as `text`.
    pub masked: String,
    /// Whether the whole file is tests.
    pub is_test: bool,
    /// Bytes of `text` before the modules that exist only for tests, which stand last in a file.
    pub product: usize,
}

impl Source {
    /// Code without tests.
    #[must_use]
    pub fn product_code(&self) -> &str {
        if self.is_test { "" } else { &self.masked[..self.product] }
    }

    /// Lines without tests.
    #[must_use]
    pub fn product_lines(&self) -> usize {
        if self.is_test { 0 } else { self.text[..self.product].lines().count() }
    }

    /// The name of the crate's folder.
    #[must_use]
    pub fn crate_name(&self) -> &str {
        self.path.split('/').nth(1).unwrap_or("")
    }
}

/// The root of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the crate lies two folders below the root").to_path_buf()
}

/// The text of a file of the project, by its path from the root.
///
/// # Panics
/// When it cannot be read: the test that asked for it cannot say anything then.
#[must_use]
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The lines of a list: without comments, which begin with `#`, and empty lines.
#[must_use]
pub fn lines_of(path: &str) -> Vec<String> {
    read(path).lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')).map(str::to_owned).collect()
}

/// All Rust sources of all crates, sorted by path.
#[must_use]
pub fn sources() -> Vec<Source> {
    let paths = texts(&["rs"]).into_iter().filter(|p| p.starts_with("crates/"));
    paths.map(source).collect()
}

fn source(path: String) -> Source {
    let text = read(&path);
    let masked = mask(&text);
    let name = path.rsplit('/').next().unwrap_or("");
    let is_test = TEST_CRATES.iter().any(|c| path.starts_with(&format!("crates/{c}/")))
        || path.split('/').any(|part| part == "tests" || part == "benches" || part == "fuzz")
        || name == "tests.rs"
        || name == "testing.rs"
        || name.ends_with("_tests.rs");
    let product = first_test_module(&masked).unwrap_or(text.len());
    Source { path, text, masked, is_test, product }
}

/// Where a module with a body begins that is compiled for tests only.
fn first_test_module(masked: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = masked[from..].find("#[cfg(") {
        let at = from + found;
        from = at + 1;
        let close = at + masked[at..].find(")]")? + 2;
        let condition = &masked[at..close];
        let rest = masked[close..].trim_start();
        let is_module = rest.starts_with("mod ") && rest.find('{') < rest.find(';').or(Some(usize::MAX));
        if is_module && condition.contains("test") && !condition.contains("not(test") {
            return Some(at);
        }
    }
    None
}

/// All files with one of the extensions, by path from the root, sorted.
#[must_use]
pub fn texts(extensions: &[&str]) -> Vec<String> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                if !FOREIGN.contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x)) {
                let short = path.strip_prefix(&root).expect("the walk began at the root");
                found.push(short.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}
