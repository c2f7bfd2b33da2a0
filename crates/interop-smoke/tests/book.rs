//! The book is whole: every chapter is in its table of contents, and its examples are tests.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::path::Path;

const TESTED: &str = include_str!("../src/lib.rs");

#[test]
fn every_chapter_is_listed_and_its_examples_are_tests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book/src");
    let summary = std::fs::read_to_string(folder.join("SUMMARY.md")).unwrap();
    let there: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.ends_with(".md") && n != "SUMMARY.md")
        .collect();
    let listed: BTreeSet<String> =
        summary.split('(').skip(1).filter_map(|s| Some(s.split_once(')')?.0.to_owned())).collect();
    assert_eq!(there, listed);
    for chapter in &there {
        assert!(TESTED.contains(&format!("\"{chapter}\";")), "{chapter} is not among the chapters of src/lib.rs");
    }
}

#[test]
fn links_between_chapters_lead_somewhere() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book/src");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        // Examples are code: brackets there are no links.
        let prose: String = text.split("```").step_by(2).collect();
        for target in prose.split("](").skip(1).filter_map(|s| Some(s.split_once(')')?.0)) {
            assert!(folder.join(target).exists(), "{}: {target}", path.display());
        }
    }
}
