//! The public API is the one that was committed.
//!
//! The listing is textual (see [`tidy::public_items`]) and needs nothing but a stable compiler. A change of the API changes
//! `docs/public-api/CRATE.txt` in the same commit, so that a review sees it: `COURSER_BLESS=1 cargo test -p tidy api`.

use std::fmt::Write as _;
use std::fs;

use tidy::{public_items, root, sources};

use crate::assert_none;

const LIBRARIES: [&str; 9] = [
    "courser",
    "courser-core",
    "courser-fetch",
    "courser-h3",
    "courser-session",
    "courser-sim",
    "courser-stack",
    "courser-tls",
    "courser-web",
];

fn listing(name: &str) -> String {
    let mut out = format!("# Public items of {name}, by file. Made by: COURSER_BLESS=1 cargo test -p tidy api\n");
    let inner = format!("crates/{name}/src/");
    for source in sources().iter().filter(|s| s.path.starts_with(&inner)) {
        let items = public_items(source.product_code());
        if !items.is_empty() {
            let _ = write!(out, "\n{}\n", &source.path[inner.len()..]);
            for item in items {
                let _ = writeln!(out, "    {item}");
            }
        }
    }
    out
}

#[test]
fn the_public_api_is_the_committed_one() {
    let folder = root().join("docs/public-api");
    let bless = std::env::var_os("COURSER_BLESS").is_some();
    let mut complaints = Vec::new();
    for name in LIBRARIES {
        let (file, now) = (folder.join(format!("{name}.txt")), listing(name));
        if bless {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, &now).unwrap();
        }
        let committed = fs::read_to_string(&file).unwrap_or_default();
        let differs = |a: &str, b: &str, sign: &str| -> Vec<String> {
            a.lines().filter(|l| !b.lines().any(|o| o == *l)).map(|l| format!("{name}: {sign} {}", l.trim())).collect()
        };
        complaints.extend(differs(&committed, &now, "-"));
        complaints.extend(differs(&now, &committed, "+"));
        if complaints.is_empty() && committed != now {
            complaints.push(format!("{name}: the order changed"));
        }
    }
    assert_none("the public API changed; if it should, run COURSER_BLESS=1 cargo test -p tidy api", &complaints);
}
