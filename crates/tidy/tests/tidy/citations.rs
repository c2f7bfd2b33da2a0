//! Citations name requirements that exist. Coverage itself is counted by `tools/specs/coverage.py`.

use std::collections::BTreeSet;

use tidy::{lines_of, sources};

use crate::assert_none;

const TABLES: [&str; 2] = ["tools/specs/requirements.tsv", "tools/specs/requirements-extra.tsv"];

#[test]
fn every_cited_requirement_exists() {
    let rows = TABLES.iter().flat_map(|t| lines_of(t));
    let known: BTreeSet<String> = rows.filter_map(|r| r.split_once('\t').map(|(id, _)| id.to_owned())).collect();
    assert!(known.len() > 1000, "the tables hold {} requirements", known.len());
    let (mut complaints, mut cited) = (Vec::new(), 0);
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            let Some(rest) = line.trim_start().strip_prefix("//= ") else { continue };
            let ids = rest.split(" type=").next().unwrap_or(rest);
            for id in ids.split(',').map(str::trim).filter(|id| id.contains('#')) {
                cited += 1;
                if !known.contains(id) {
                    complaints.push(format!("{}:{}: {id}", source.path, number + 1));
                }
            }
        }
    }
    assert!(cited > 100, "{cited} citations were found");
    assert_none("requirements that do not exist", &complaints);
}
