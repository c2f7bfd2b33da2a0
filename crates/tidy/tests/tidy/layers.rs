//! A module of the core uses rows below its own; a crate uses crates below its own.

use std::collections::{BTreeMap, BTreeSet};

use tidy::{lines_of, read, root, sources};

use crate::assert_none;

const ROWS: [(usize, &[&str]); 7] = [
    (7, &["engine"]),
    (6, &["conn"]),
    (5, &["packetiser"]),
    (4, &["stream", "control", "path", "cid", "datagram"]),
    (3, &["recovery", "ack", "cc", "protect"]),
    (2, &["buf", "wire", "crypto"]),
    (1, &["time", "ids", "error", "config", "observe", "spans"]),
];

/// Which of our crates a crate may depend on. Programs and tests of the tree are at the top.
const CRATES: [(&str, &[&str]); 16] = [
    ("courser-attack", &["courser-core", "courser-testing", "courser-tls"]),
    ("courser-core", &[]),
    ("courser-h3", &["courser-core"]),
    ("courser-session", &[]),
    ("courser-sim", &["courser-core"]),
    ("courser-testing", &["courser-core", "courser-sim", "courser-tls"]),
    ("courser-tls", &["courser-core"]),
    ("courser", &["courser-core", "courser-h3", "courser-session", "courser-tls"]),
    ("courser-stack", &["courser", "courser-session"]),
    ("courser-ffi", &["courser-session", "courser-stack"]),
    ("courser-web", &["courser"]),
    ("courser-fetch", &["courser"]),
    (
        "courser-cli",
        &["courser", "courser-core", "courser-fetch", "courser-session", "courser-stack", "courser-tls", "courser-web"],
    ),
    ("interop-smoke", &[]),
    ("parser-trial", &[]),
    ("tidy", &[]),
];

fn row(module: &str) -> Option<usize> {
    ROWS.iter().find(|(_, modules)| modules.contains(&module)).map(|(row, _)| *row)
}

/// The names that stand behind `crate::` in code.
fn crate_paths(code: &str) -> Vec<String> {
    let starts = code.match_indices("crate::").filter(|(at, _)| !code[..*at].ends_with(['_', '$', ':']));
    starts
        .map(|(at, word)| code[at + word.len()..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn modules_of_the_core_use_only_rows_below_their_own() {
    let mut allowed: BTreeMap<(String, String), bool> = BTreeMap::new();
    for line in lines_of("crates/tidy/lists/siblings.tsv") {
        let fields: Vec<&str> = line.split('\t').collect();
        assert!(fields.len() == 3 && fields[2].len() > 10, "siblings.tsv: module, used module, reason: {line}");
        allowed.insert((fields[0].to_owned(), fields[1].to_owned()), false);
    }
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|s| s.path.starts_with("crates/courser-core/src/")) {
        let inner = &source.path["crates/courser-core/src/".len()..];
        let module = inner.split(['/', '.']).next().unwrap();
        if module == "lib" {
            continue;
        }
        let Some(own) = row(module) else {
            complaints.push(format!("{}: the table of rows does not know {module}", source.path));
            continue;
        };
        let code = source.product_code();
        let up = "super::".repeat(inner.split('/').count() - usize::from(inner.ends_with("/mod.rs")));
        if code.contains(&up) {
            complaints.push(format!("{}: {up} leads to the root of the crate; say crate::", source.path));
        }
        for used in crate_paths(code) {
            let Some(other) = row(&used) else {
                complaints
                    .push(format!("{}: crate::{used} is not a module of the table (one module a path)", source.path));
                continue;
            };
            if used == module || other < own {
                continue;
            }
            match allowed.get_mut(&(module.to_owned(), used.clone())) {
                Some(seen) if other == own => *seen = true,
                _ => complaints.push(format!("{}: {module} (row {own}) uses {used} (row {other})", source.path)),
            }
        }
    }
    for ((module, used), seen) in allowed {
        if !seen {
            complaints.push(format!("siblings.tsv: {module} does not use {used} any more; take the line out"));
        }
    }
    assert_none("the layer rule of the core", &complaints);
}

#[test]
fn every_module_of_the_core_is_in_the_table_and_the_table_in_the_documents() {
    let lib = read("crates/courser-core/src/lib.rs");
    let architecture = read("ARCHITECTURE.md");
    let declared: BTreeSet<&str> = lib.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let listed: BTreeSet<&str> = ROWS.iter().flat_map(|(_, modules)| modules.iter().copied()).collect();
    assert_eq!(declared, listed);
    for module in listed {
        assert!(architecture.contains(&format!("`{module}`")), "ARCHITECTURE.md does not mention `{module}`");
    }
}

#[test]
fn crates_use_only_crates_below_their_own() {
    let mut complaints = Vec::new();
    let folders = std::fs::read_dir(root().join("crates")).unwrap().flatten();
    for folder in folders.map(|f| f.file_name().to_string_lossy().into_owned()) {
        let Some((_, allowed)) = CRATES.iter().find(|(name, _)| *name == folder) else {
            complaints.push(format!("crates/{folder} is not in the table of crates"));
            continue;
        };
        let manifest = read(&format!("crates/{folder}/Cargo.toml"));
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let used = line.split([' ', '.', '=']).next().unwrap_or("");
            let ours = CRATES.iter().any(|(name, _)| *name == used);
            let binding = section.contains("dependencies") && !section.contains("dev-dependencies");
            if ours && binding && !allowed.contains(&used) {
                complaints.push(format!("{folder} depends on {used}"));
            }
        }
    }
    assert_none("crates above their place", &complaints);
}

#[test]
fn the_search_finds_paths_and_leaves_others_alone() {
    let code = "use crate::time::Instant; pub(crate) fn f(a: crate::ids::Cid) { my_crate::x(); $crate::y(); }";
    assert_eq!(crate_paths(code), ["time", "ids"]);
}
