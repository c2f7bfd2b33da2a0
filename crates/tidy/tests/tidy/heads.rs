//! Every module says what it is for.

use tidy::{sources, texts};

use crate::assert_none;

#[test]
fn every_module_has_a_head_comment() {
    let has_head = |text: &str| text.lines().next().is_some_and(|l| l.starts_with("//! ") && l.len() > 8);
    let complaints: Vec<_> = sources().into_iter().filter(|s| !has_head(&s.text)).map(|s| s.path).collect();
    assert_none("modules that do not begin with //! and a sentence", &complaints);
}

#[test]
fn the_tree_is_found() {
    assert!(sources().len() > 150, "the walk over the sources found {} files", sources().len());
    assert!(texts(&["md"]).contains(&"README.md".to_owned()));
}
