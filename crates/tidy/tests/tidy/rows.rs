//! `docs/seed-rows.tsv`: every mechanism that the seed documents describe has a test, a figure or a decision, or an issue
//! that will bring it.
//!
//! Columns: row, kind, reference, note. Kinds: `test` (references `path::name`, several apart by blanks), `figure` (a file
//! of docs), `decision` (a file of docs/decisions), `later` (`issue N`), `open` (only rows of `lists/open-rows.txt`).

use std::collections::{BTreeMap, BTreeSet};

use tidy::{lines_of, read, root};

use crate::assert_none;

const ROWS: &str = "docs/seed-rows.tsv";

struct Row {
    id: String,
    kind: String,
    reference: String,
}

fn table() -> Vec<Row> {
    let lines = lines_of(ROWS);
    assert_eq!(lines[0], "row\tkind\treference\tnote", "the head of {ROWS}");
    let row = |line: &String| {
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!(fields.len(), 4, "{ROWS}: four columns: {line}");
        Row { id: fields[0].to_owned(), kind: fields[1].to_owned(), reference: fields[2].to_owned() }
    };
    lines[1..].iter().map(row).collect()
}

/// Whether the file has a test function of that name.
fn has_test(path: &str, name: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(root().join(path)) else { return false };
    let masked = tidy::mask(&text);
    let lines: Vec<&str> = masked.lines().collect();
    let declares = |line: &str| line.trim_start().trim_start_matches("async ").starts_with(&format!("fn {name}("));
    lines.iter().enumerate().any(|(at, line)| {
        let before = lines[..at].iter().rev().take_while(|l| l.trim().is_empty() || l.trim_start().starts_with("#["));
        declares(line) && before.into_iter().any(|l| l.contains("test"))
    })
}

fn fault(row: &Row) -> Option<String> {
    let decision = |r: &str| r.starts_with("docs/decisions/") && root().join(r).is_file();
    let test = |r: &str| r.rsplit_once("::").is_some_and(|(path, name)| has_test(path, name));
    let issue = |r: &str| r.strip_prefix("issue ").is_some_and(|n| matches!(n.parse::<u32>(), Ok(3..=99)));
    let good = match row.kind.as_str() {
        "test" => !row.reference.is_empty() && row.reference.split(' ').all(test),
        "figure" => row.reference.starts_with("docs/") && root().join(&row.reference).is_file(),
        "decision" => decision(&row.reference),
        "later" => issue(&row.reference),
        "open" => row.reference == "open",
        _ => false,
    };
    (!good).then(|| format!("{}: {} {}", row.id, row.kind, row.reference))
}

#[test]
fn every_row_has_its_test_figure_or_decision() {
    let wanted: BTreeSet<String> = lines_of("crates/tidy/lists/seed-rows.txt").into_iter().collect();
    let mut seen = BTreeMap::new();
    let mut complaints = Vec::new();
    for row in table() {
        complaints.extend(fault(&row));
        if seen.insert(row.id.clone(), row.kind).is_some() {
            complaints.push(format!("{} comes twice", row.id));
        }
        if !wanted.contains(&row.id) {
            complaints.push(format!("{} is not a row", row.id));
        }
    }
    complaints.extend(wanted.iter().filter(|id| !seen.contains_key(*id)).map(|id| format!("{id} is missing")));
    assert_none(ROWS, &complaints);
}

#[test]
fn open_rows_become_fewer() {
    let listed: BTreeSet<String> = lines_of("crates/tidy/lists/open-rows.txt").into_iter().collect();
    let open: BTreeSet<String> = table().into_iter().filter(|r| r.kind == "open").map(|r| r.id).collect();
    assert_eq!(open, listed, "rows without a test, and lists/open-rows.txt, which only shrinks");
}

#[test]
fn a_name_that_does_not_exist_is_noticed() {
    let row = |kind: &str, reference: &str| {
        fault(&Row { id: "X".to_owned(), kind: kind.to_owned(), reference: reference.to_owned() }).is_some()
    };
    let here = "crates/tidy/tests/tidy/rows.rs";
    assert!(!row("test", &format!("{here}::a_name_that_does_not_exist_is_noticed")));
    assert!(row("test", &format!("{here}::no_such_test")));
    assert!(row("test", &format!("{here}::has_test")), "a function that is no test");
    assert!(row("test", "crates/none.rs::a_name_that_does_not_exist_is_noticed"));
    assert!(row("decision", "docs/decisions/none.md"));
    assert!(row("figure", "docs/none.md"));
    assert!(row("later", "some day"));
    assert!(row("later", "issue 2"), "this issue is now");
    assert!(row("", ""));
    assert!(read(ROWS).len() > 1000);
}
