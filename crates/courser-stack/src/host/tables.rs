//! Tables and trees of text.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::objects::Object;

/// Rows under names of columns.
pub(super) struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<Value>>,
}

impl Table {
    pub(super) const fn new(columns: &'static [&'static str]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// One more row; a value for each column.
    pub(super) fn row(&mut self, values: Vec<Value>) {
        debug_assert_eq!(values.len(), self.columns.len(), "a value for each column");
        self.rows.push(values);
    }

    /// Columns of equal width: numbers to the right, words to the left.
    pub(super) fn text(&self) -> String {
        let cells: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(plain).collect()).collect();
        let width = |n: usize| {
            let widest = cells.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max();
            widest.unwrap_or(0).max(self.columns[n].chars().count())
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut out = String::new();
        let mut line = |cells: &[String], right: &dyn Fn(usize) -> bool| {
            let mut text = String::new();
            for (n, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                let _ = if right(n) { write!(text, "{cell:>width$}  ") } else { write!(text, "{cell:<width$}  ") };
            }
            out.push_str(text.trim_end());
            out.push('\n');
        };
        let is_number =
            |n: usize| self.rows.iter().all(|row| row.get(n).is_some_and(Value::is_number)) && !self.rows.is_empty();
        line(&self.columns.iter().map(|&c| c.to_owned()).collect::<Vec<_>>(), &is_number);
        for row in &cells {
            line(row, &is_number);
        }
        out
    }

    /// An array of objects.
    pub(super) fn json(&self) -> Value {
        let object = |row: &Vec<Value>| {
            let fields = self.columns.iter().zip(row).map(|(name, value)| (name.replace(' ', "_"), value.clone()));
            Value::Object(fields.collect())
        };
        Value::Array(self.rows.iter().map(object).collect())
    }
}

/// A value as people read it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.escape_debug().to_string(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// Objects under what they belong to.
pub(super) fn tree(objects: &[Object]) -> String {
    let mut out = String::new();
    for root in objects.iter().filter(|object| object.parent.is_none()) {
        branch(&mut out, objects, root, "", "");
    }
    out
}

fn branch(out: &mut String, objects: &[Object], object: &Object, first: &str, rest: &str) {
    let _ = write!(out, "{first}{}", object.kind);
    // The name repeats the kind for some; the number alone is enough there.
    let id = object.id.strip_prefix(object.kind).unwrap_or(&object.id).trim_start();
    let _ = write!(out, " {id}");
    for (name, value) in &object.fields {
        let _ = write!(out, "  {}={}", name.replace('_', "-"), plain(value));
    }
    out.push('\n');
    let children: Vec<&Object> =
        objects.iter().filter(|child| child.parent.as_deref() == Some(object.id.as_str())).collect();
    for (n, child) in children.iter().enumerate() {
        let last = n + 1 == children.len();
        let (mark, under) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        branch(out, objects, child, &format!("{rest}{mark}"), &format!("{rest}{under}"));
    }
}

/// The same for machines.
pub(super) fn list(objects: &[Object]) -> Value {
    json!({ "objects": objects.iter().map(Object::json).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_columns_of_equal_width() {
        let mut table = Table::new(&["name", "count"]);
        table.row(vec![json!("one"), json!(7)]);
        table.row(vec![json!("a\nb"), json!(12345)]);
        assert_eq!(table.text(), "name  count\none       7\na\\nb  12345\n");
        assert_eq!(table.json()[1]["count"], 12345);
    }

    #[test]
    fn trees_show_what_belongs_to_what() {
        let object = |kind, id: &str, parent: Option<&str>| Object {
            kind,
            id: id.to_owned(),
            parent: parent.map(str::to_owned),
            fields: vec![("state", json!("open"))],
        };
        let objects = [
            object("application", "application 1", None),
            object("listener", "listener 1/1", Some("application 1")),
            object("session", "0x1", Some("listener 1/1")),
            object("listener", "listener 1/2", Some("application 1")),
        ];
        let expected = "application 1  state=open\n\
                        ├─ listener 1/1  state=open\n\
                        │  └─ session 0x1  state=open\n\
                        └─ listener 1/2  state=open\n";
        assert_eq!(tree(&objects), expected);
    }
}
