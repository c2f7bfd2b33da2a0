//! Functions and public items, found by words and braces.

/// A function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name, without the type that it belongs to.
    pub name: String,
    /// Lines from `fn` to the closing brace.
    pub lines: usize,
    /// Parameters, `self` not counted.
    pub parameters: usize,
}

/// The functions of masked code.
#[must_use]
pub fn functions(masked: &str) -> Vec<Function> {
    let bytes = masked.as_bytes();
    let mut found = Vec::new();
    for (at, _) in masked.match_indices("fn ") {
        if at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') {
            continue;
        }
        let name: String = masked[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(end) = (!name.is_empty()).then(|| body_end(bytes, at)).flatten() else { continue };
        let lines = masked[at..end].matches('\n').count() + 1;
        found.push(Function { name, lines, parameters: parameters(&masked[at..end]) });
    }
    found
}

/// One past the closing brace; `None` for a declaration without body.
fn body_end(bytes: &[u8], from: usize) -> Option<usize> {
    let (mut depth, mut brackets) = (0usize, 0usize);
    for (n, byte) in bytes[from..].iter().enumerate() {
        match byte {
            b';' if depth == 0 && brackets == 0 => return None,
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.saturating_sub(1),
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(from + n + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn parameters(function: &str) -> usize {
    let Some(open) = opening_parenthesis(function) else { return 0 };
    let (mut depth, mut angle, mut part, mut count) = (0usize, 0usize, String::new(), 0);
    let mut finish = |part: &mut String| {
        let text = part.trim();
        let is_self = text
            .split(':')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .next_back()
            .is_some_and(|w| w.trim_start_matches('&') == "self");
        count += usize::from(!text.is_empty() && !is_self);
        part.clear();
    };
    let mut previous = ' ';
    for c in function[open..].chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '<' => angle += 1,
            '>' if previous != '-' => angle = angle.saturating_sub(1),
            _ => {}
        }
        previous = c;
        if depth == 0 {
            break;
        }
        if c == ',' && depth == 1 && angle == 0 {
            finish(&mut part);
        } else if depth > 1 || c != '(' {
            part.push(c);
        }
    }
    finish(&mut part);
    count
}

/// The parenthesis of the parameter list: the first one outside the generic parameters.
fn opening_parenthesis(function: &str) -> Option<usize> {
    let (mut angle, mut previous) = (0usize, ' ');
    for (at, c) in function.char_indices() {
        match c {
            '<' => angle += 1,
            '>' if previous != '-' => angle = angle.saturating_sub(1),
            '(' if angle == 0 => return Some(at),
            '{' => return None,
            _ => {}
        }
        previous = c;
    }
    None
}

/// What kind of braces the walk is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// Items, or the items of an `impl`: what says `pub` is public.
    Items,
    /// A public type's body or a trait: fields with `pub`, and every variant, method or associated type.
    Fields,
    Everything,
    /// A body that nobody outside sees.
    Hidden,
}

/// The public items of masked code, one a line, in the order of the text: headers without bodies, white space as one blank.
///
/// This is textual: an item that says `pub` counts even when its module is private, because a `pub use` may show it.
#[must_use]
pub fn public_items(masked: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut stack = vec![(Inside::Items, String::new())];
    let mut head = String::new();
    let mut brackets = 0usize;
    for c in masked.chars() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        let (inside, context) = stack.last().map(|(i, c)| (*i, c.clone())).unwrap_or((Inside::Hidden, String::new()));
        let ends_field = c == ',' && brackets == 0 && matches!(inside, Inside::Fields | Inside::Everything);
        match c {
            '{' if brackets == 0 && !is_use(&head) => {
                let text = tidy_head(&head);
                let next = enter(inside, &text);
                emit(&mut out, inside, &context, &text);
                let shown = if text.contains("impl") || next == Inside::Hidden { text.clone() } else { name_of(&text) };
                let path = if context.is_empty() { shown } else { format!("{context}::{shown}") };
                stack.push((next, if next == Inside::Hidden { String::new() } else { path }));
                head.clear();
            }
            '}' if brackets == 0 && !is_use(&head) => {
                emit(&mut out, inside, &context, &tidy_head(&head));
                head.clear();
                if stack.len() > 1 {
                    stack.pop();
                }
            }
            ';' if brackets == 0 => {
                emit(&mut out, inside, &context, &tidy_head(&head));
                head.clear();
            }
            _ if ends_field && !in_generics(&head) => {
                emit(&mut out, inside, &context, &tidy_head(&head));
                head.clear();
            }
            _ => head.push(c),
        }
    }
    out
}

fn is_use(head: &str) -> bool {
    let text = head.trim_start();
    text.starts_with("pub use ") || text.starts_with("use ")
}

fn in_generics(head: &str) -> bool {
    let arrows = head.matches("->").count() + head.matches("=>").count();
    head.matches('<').count() > head.matches('>').count() - arrows.min(head.matches('>').count())
}

/// One line, without attributes and without the value of a constant.
fn tidy_head(head: &str) -> String {
    let mut text = head.trim();
    while let Some(rest) = text.strip_prefix('#') {
        let (mut depth, mut end) = (0usize, rest.len());
        for (at, c) in rest.char_indices() {
            match c {
                '[' => depth += 1,
                ']' => {
                    depth -= 1;
                    if depth == 0 {
                        end = at + 1;
                        break;
                    }
                }
                _ => {}
            }
        }
        text = rest[end..].trim_start();
    }
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_value =
        ["pub const ", "pub static "].iter().any(|p| line.starts_with(p)) && !line.starts_with("pub const fn");
    if is_value && let Some(at) = line.find(" = ") {
        line.truncate(at);
    }
    line.replace("( ", "(").replace(", )", ")").replace(" )", ")")
}

fn enter(inside: Inside, text: &str) -> Inside {
    if inside == Inside::Hidden {
        return Inside::Hidden;
    }
    let public = text.starts_with("pub ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let has = |word: &str| words.contains(&word);
    if text.starts_with("impl") || text.starts_with("unsafe impl") {
        // Methods of a trait's implementation are public through the trait.
        return if text.contains(" for ") { Inside::Hidden } else { Inside::Items };
    }
    if has("fn") {
        return Inside::Hidden;
    }
    match (public, has("mod"), has("struct") || has("union"), has("enum") || has("trait")) {
        (_, true, ..) => Inside::Items,
        (true, _, true, _) => Inside::Fields,
        (true, _, _, true) => Inside::Everything,
        // The fields of a variant.
        _ if inside == Inside::Everything => Inside::Everything,
        _ => Inside::Hidden,
    }
}

fn emit(out: &mut Vec<String>, inside: Inside, context: &str, text: &str) {
    let public = text.starts_with("pub ");
    let trait_of = (text.starts_with("impl") || text.starts_with("unsafe impl")) && text.contains(" for ");
    let shown = match inside {
        Inside::Items => public || trait_of,
        Inside::Fields => public,
        Inside::Everything => !text.is_empty(),
        Inside::Hidden => false,
    };
    if shown && !text.is_empty() {
        out.push(if context.is_empty() { text.to_owned() } else { format!("{context}: {text}") });
    }
}

fn name_of(text: &str) -> String {
    let mut words =
        text.split_whitespace().skip_while(|w| !matches!(*w, "struct" | "enum" | "trait" | "mod" | "union"));
    let name = words.nth(1).unwrap_or_else(|| text.split_whitespace().next().unwrap_or(""));
    name.split(['<', ':', '(']).next().unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::{functions, public_items};

    #[test]
    fn functions_have_their_lines_and_parameters() {
        let text = "impl A {\n    pub fn one<F: Fn(u8) -> u8>(&mut self, a: [u8; 2], b: Map<u8, u8>) -> u8 {\n        1\n    }\n    \
                    fn none();\n}\nfn two() {}\n";
        let found: Vec<_> = functions(text).into_iter().map(|f| (f.name, f.lines, f.parameters)).collect();
        assert_eq!(found, [("one".to_owned(), 3, 2), ("two".to_owned(), 1, 0)]);
    }

    #[test]
    fn public_items_are_headers_with_their_place() {
        let text = "pub struct S<T> { pub a: Map<u8, T>, b: u8 }\npub enum E { One, Two { x: u8 }, Three(u8) }\n\
                    impl<T> S<T> { pub fn get(&self) -> u8 { let x = 1; 2 } fn hidden() {} }\n\
                    impl Clone for S<u8> { fn clone(&self) -> Self { loop {} } }\n\
                    pub const N: usize = 4;\npub use a::{b, c};\npub(crate) fn f() {}\nstruct P { pub q: u8 }\n\
                    pub trait T { fn must(&self); }\n";
        let expected = [
            "pub struct S<T>",
            "S: pub a: Map<u8, T>",
            "pub enum E",
            "E: One",
            "E: Two",
            "E::Two: x: u8",
            "E: Three(u8)",
            "impl<T> S<T>: pub fn get(&self) -> u8",
            "impl Clone for S<u8>",
            "pub const N: usize",
            "pub use a::{b, c}",
            "pub trait T",
            "T: fn must(&self)",
        ];
        assert_eq!(public_items(text), expected);
    }
}
