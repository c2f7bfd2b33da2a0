//! Files, functions and parameter lists stay short. What is longer stands in a list with its length, and the length may
//! only fall.

use std::collections::BTreeMap;

use tidy::{Source, functions, lines_of, sources};

use crate::assert_none;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const PARAMETERS_MAX: usize = 6;

/// Compares what was measured with a list of `name <tab> size`; sizes up to `limit` need no entry.
fn ratchet(list: &str, limit: usize, measured: &BTreeMap<String, usize>) {
    let mut known = BTreeMap::new();
    for line in lines_of(list) {
        let (name, size) = line.split_once('\t').unwrap_or_else(|| panic!("{list}: name, tab, size: {line}"));
        known.insert(name.to_owned(), size.parse::<usize>().unwrap());
    }
    let mut complaints = Vec::new();
    for (name, &size) in measured {
        match known.remove(name) {
            None if size > limit => complaints.push(format!("{name} has {size}, {limit} are allowed")),
            Some(before) if size > before => complaints.push(format!("{name} grew from {before} to {size}")),
            Some(before) if size <= limit => {
                complaints.push(format!("{name} fell from {before} to {size}: take it out of {list}"));
            }
            Some(before) if size < before => {
                complaints.push(format!("{name} fell from {before} to {size}: say so in {list}"))
            }
            _ => {}
        }
    }
    for name in known.keys() {
        complaints.push(format!("{name} is gone: take it out of {list}"));
    }
    assert_none(list, &complaints);
}

fn each_function(limit: usize, size: impl Fn(&tidy::Function) -> usize) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let product = |s: &&Source| !s.is_test;
    for source in sources().iter().filter(product) {
        for function in functions(source.product_code()) {
            let entry = found.entry(format!("{} {}", source.path, function.name)).or_insert(0);
            *entry = size(&function).max(*entry);
        }
    }
    found.retain(|_, size| *size > limit);
    found
}

#[test]
fn files_are_short() {
    let measured = sources().into_iter().map(|s| (s.path.clone(), s.product_lines())).filter(|(_, n)| *n > 0).collect();
    ratchet("crates/tidy/lists/long-files.tsv", FILE_LINES_MAX, &measured);
}

#[test]
fn functions_are_short() {
    let measured = each_function(FUNCTION_LINES_MAX, |f| f.lines);
    ratchet("crates/tidy/lists/long-functions.tsv", FUNCTION_LINES_MAX, &measured);
}

#[test]
fn parameter_lists_are_short() {
    let measured = each_function(PARAMETERS_MAX, |f| f.parameters);
    ratchet("crates/tidy/lists/many-parameters.tsv", PARAMETERS_MAX, &measured);
}
