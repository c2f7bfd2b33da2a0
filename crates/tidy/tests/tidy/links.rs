//! Links of the documents lead to files of the project, and decisions are listed.

use tidy::{read, root, texts};

use crate::assert_none;

/// Targets of `[text](target)` in Markdown, outside code.
fn targets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            if let Some(end) = rest.find(')') {
                found.push(rest[..end].to_owned());
            }
        }
    }
    found
}

#[test]
fn links_lead_to_files() {
    let mut complaints = Vec::new();
    for path in texts(&["md"]) {
        let folder = root().join(&path).parent().unwrap().to_path_buf();
        for target in targets(&read(&path)) {
            let file = target.split('#').next().unwrap();
            let outside = target.contains("://") || target.starts_with("mailto:") || file.is_empty();
            if !outside && !folder.join(file).exists() {
                complaints.push(format!("{path}: {target}"));
            }
        }
    }
    assert_none("links that lead nowhere", &complaints);
}

/// Links of ARCHITECTURE.md that name a function do so as [`name`](path): the name has to be in that file.
#[test]
fn functions_that_the_architecture_names_exist() {
    let mut complaints = Vec::new();
    let text = read("ARCHITECTURE.md");
    for (at, _) in text.match_indices("`](crates/") {
        let name = text[..at].rsplit('`').next().unwrap();
        let path = text[at + 3..].split(')').next().unwrap();
        let Some(function) = name.strip_suffix("()") else { continue };
        let function = function.rsplit("::").next().unwrap();
        let code = tidy::mask(&read(path.split('#').next().unwrap()));
        if !code.contains(&format!("fn {function}(")) && !code.contains(&format!("fn {function}<")) {
            complaints.push(format!("{name} is not in {path}"));
        }
    }
    assert!(text.matches("()`](crates/").count() >= 20, "the ways in and out name their functions");
    assert_none("functions that ARCHITECTURE.md names", &complaints);
}

#[test]
fn every_decision_is_listed_and_complete() {
    let index = read("docs/decisions/README.md");
    let decisions: Vec<_> =
        texts(&["md"]).into_iter().filter(|p| p.starts_with("docs/decisions/") && !p.ends_with("README.md")).collect();
    let mut complaints = Vec::new();
    for path in &decisions {
        let name = path.rsplit('/').next().unwrap();
        if !index.contains(&format!("({name})")) {
            complaints.push(format!("{name} is not in the list"));
        }
        let text = read(path);
        for part in ["## Question", "## Options", "## Evidence", "## Choice", "## What would change our mind"] {
            // Where the evidence is a table of figures, the part may say so.
            let figures = part == "## Evidence" && text.contains("## Figures");
            if !text.contains(part) && !figures {
                complaints.push(format!("{name} has no part {part}"));
            }
        }
    }
    for point in 1..=21 {
        if !decisions.iter().any(|d| d.contains(&format!("/D{point:02}-"))) {
            complaints.push(format!("D{point} has no decision"));
        }
    }
    assert_none("decisions", &complaints);
}

/// Names of tests and functions in documents: words in backquotes with at least three underscores.
#[test]
fn tests_that_the_documents_name_exist() {
    let code: String = tidy::sources().into_iter().map(|s| s.masked).collect();
    let (mut complaints, mut checked) = (Vec::new(), 0);
    for path in texts(&["md"]) {
        for quoted in read(&path).split('`').skip(1).step_by(2) {
            let name = quoted.rsplit("::").next().unwrap();
            let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if is_name && name.matches('_').count() >= 3 {
                checked += 1;
                if !code.contains(&format!("fn {name}(")) {
                    complaints.push(format!("{path}: {name}"));
                }
            }
        }
    }
    assert!(checked > 50, "the documents name {checked} tests");
    assert_none("tests that the documents name", &complaints);
}

/// The table of published failures has each of its rows once, in order, with a test that exists in the tree.
#[test]
fn each_published_failure_has_its_test() {
    let code: String = tidy::sources().into_iter().map(|s| s.masked).collect();
    let text = read("docs/threats.md");
    let (_, table) = text.split_once("## What broke elsewhere").unwrap();
    let rows: Vec<Vec<&str>> =
        table.lines().filter(|l| l.starts_with("| ")).skip(1).map(|l| l.split(" | ").collect()).collect();
    for (at, row) in rows.iter().enumerate() {
        assert_eq!((row[0].trim_start_matches("| "), row.len()), ((at + 1).to_string().as_str(), 5), "{row:?}");
        let tests: Vec<_> = row[4].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty() && tests.iter().all(|t| code.contains(&format!("fn {t}("))), "{row:?}");
    }
    assert_eq!(rows.len(), 77);
}
