//! As much of CDDL (RFC 8610) as the drafts of qlog use: enough to judge JSON values by their text.
//!
//! Maps are closed: a member that the definition does not name is an error, unless it has `* text => any`.

use std::collections::HashMap;

use serde_json::Value;

#[derive(Clone, Debug)]
enum Type {
    /// A text or number as it stands.
    Literal(String),
    Name(String),
    /// The second part is whether any other member may stand there.
    Map(Vec<Member>, bool),
    Array(Box<Type>, usize, usize),
    Choice(Vec<Type>),
    /// What a pattern or a size asks for, beyond the type.
    Narrowed(Box<Type>, Control),
}

#[derive(Clone, Debug)]
enum Control {
    Regexp(String),
    Size(usize),
    Default,
}

#[derive(Clone, Debug)]
enum Member {
    Field {
        key: String,
        optional: bool,
        of: Type,
    },
    /// Members of another map.
    Unwrapped(String),
}

/// Definitions by name.
#[derive(Debug)]
pub struct Schema(HashMap<String, Type>);

struct Parser<'a> {
    tokens: Vec<&'a str>,
    at: usize,
}

fn tokens(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let word = |c: char| c.is_alphanumeric() || "_-$.#@".contains(c);
    for line in text.lines() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next().filter(|c| *c != ';') {
            let len = match first {
                '"' => rest[1..].find('"').expect("a text ends") + 2,
                c if word(c) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
                '/' if rest.starts_with("/=") => 2,
                '=' if rest.starts_with("=>") => 2,
                c => c.len_utf8(),
            };
            out.push(&rest[..len]);
            rest = rest[len..].trim_start();
        }
    }
    out
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &'a str {
        self.tokens.get(self.at).copied().unwrap_or("")
    }

    fn next(&mut self) -> &'a str {
        self.at += 1;
        self.tokens[self.at - 1]
    }

    fn take(&mut self, token: &str) -> bool {
        let is = self.peek() == token;
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, token: &str) {
        let near = self.tokens[self.at.saturating_sub(5)..(self.at + 5).min(self.tokens.len())].to_vec();
        assert!(self.take(token), "{token} is expected near {near:?}");
    }

    fn choice(&mut self) -> Type {
        let mut all = vec![self.narrowed()];
        while self.take("/") {
            all.push(self.narrowed());
        }
        if all.len() == 1 { all.remove(0) } else { Type::Choice(all) }
    }

    fn narrowed(&mut self) -> Type {
        let of = self.primary();
        let control = match self.peek() {
            ".regexp" => Control::Regexp(self.tokens[self.at + 1].trim_matches('"').to_owned()),
            ".size" => Control::Size(self.tokens[self.at + 1].parse().expect("a number")),
            ".default" => Control::Default,
            _ => return of,
        };
        self.at += 2;
        Type::Narrowed(Box::new(of), control)
    }

    fn primary(&mut self) -> Type {
        match self.next() {
            "{" => self.map(),
            "[" => {
                let (min, max) = self.occurrence();
                let of = self.choice();
                self.expect("]");
                Type::Array(Box::new(of), min, max)
            }
            t if t.starts_with('"') => Type::Literal(t.trim_matches('"').to_owned()),
            t => Type::Name(t.to_owned()),
        }
    }

    fn occurrence(&mut self) -> (usize, usize) {
        let min = self.peek().parse().ok();
        self.at += usize::from(min.is_some());
        if self.take("*") {
            let max = self.peek().parse().ok();
            self.at += usize::from(max.is_some());
            return (min.unwrap_or(0), max.unwrap_or(usize::MAX));
        }
        if self.take("+") {
            return (1, usize::MAX);
        }
        (1, 1)
    }

    fn map(&mut self) -> Type {
        let (mut members, mut open) = (Vec::new(), false);
        while !self.take("}") {
            if self.take(",") {
                continue;
            }
            if self.take("*") {
                // An extension point of nobody, or any member.
                open |= self.next() == "text";
                if self.take("=>") {
                    self.next();
                }
                continue;
            }
            if self.take("~") {
                members.push(Member::Unwrapped(self.next().to_owned()));
                continue;
            }
            let optional = self.take("?");
            let key = self.next().to_owned();
            self.expect(":");
            members.push(Member::Field { key, optional, of: self.choice() });
        }
        Type::Map(members, open)
    }
}

impl Schema {
    /// Reads definitions.
    pub fn parse(text: &str) -> Self {
        let mut p = Parser { tokens: tokens(text), at: 0 };
        let mut all: HashMap<String, Type> = HashMap::new();
        while !p.peek().is_empty() {
            let name = p.next().to_owned();
            let adds = p.take("/=");
            if !adds {
                p.expect("=");
            }
            let of = p.choice();
            let of = match (adds, all.remove(&name)) {
                (true, Some(before)) => Type::Choice(vec![before, of]),
                _ => of,
            };
            all.insert(name, of);
        }
        Self(all)
    }

    /// Whether there is such a definition.
    pub fn knows(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether a value is what the definition asks for, or why not.
    pub fn check(&self, value: &Value, name: &str) -> Result<(), String> {
        let text = |is: bool| if is { Ok(()) } else { Err(format!("{value} is no {name}")) };
        match name {
            "text" => text(value.is_string()),
            "bool" => text(value.is_boolean()),
            "float32" | "float64" => text(value.is_number()),
            "uint" => text(value.is_u64()),
            "any" | "$ProtocolEventData" => Ok(()),
            _ => {
                let of = self.0.get(name).ok_or_else(|| format!("{name} is not defined"))?;
                self.judge(value, of).map_err(|e| format!("{name}: {e}"))
            }
        }
    }

    fn judge(&self, value: &Value, of: &Type) -> Result<(), String> {
        match of {
            Type::Literal(text) if value.as_str() == Some(text) => Ok(()),
            Type::Literal(text) => Err(format!("{value} is not {text}")),
            Type::Name(name) => self.check(value, name),
            Type::Choice(all) => {
                let mut why = Vec::new();
                for one in all {
                    match self.judge(value, one) {
                        Ok(()) => return Ok(()),
                        Err(e) => why.push(e),
                    }
                }
                // The choice that came nearest is the one that complains about the innermost place.
                Err(why.into_iter().max_by_key(|w| w.matches(": ").count()).unwrap_or_default())
            }
            Type::Array(of, min, max) => {
                let list = value.as_array().ok_or_else(|| format!("{value} is no list"))?;
                if !(*min..=*max).contains(&list.len()) {
                    return Err(format!("{} members", list.len()));
                }
                list.iter().try_for_each(|v| self.judge(v, of))
            }
            Type::Narrowed(of, control) => {
                self.judge(value, of)?;
                narrow(value, control)
            }
            Type::Map(..) => {
                let map = value.as_object().ok_or_else(|| format!("{value} is no map"))?;
                let (mut fields, mut open) = (Vec::new(), false);
                self.flatten(of, &mut fields, &mut open);
                for (key, optional, of) in &fields {
                    match map.get(*key) {
                        Some(v) => self.judge(v, of).map_err(|e| format!("{key}: {e}"))?,
                        None if *optional => {}
                        None => return Err(format!("{key} is missing")),
                    }
                }
                match map.keys().find(|k| !open && !fields.iter().any(|(key, _, _)| key == k)) {
                    Some(key) => Err(format!("{key} is not in the definition")),
                    None => Ok(()),
                }
            }
        }
    }

    fn flatten<'a>(&'a self, of: &'a Type, fields: &mut Vec<(&'a str, bool, &'a Type)>, open: &mut bool) {
        let Type::Map(members, any) = of else { return };
        *open |= any;
        for member in members {
            match member {
                Member::Field { key, optional, of } => fields.push((key, *optional, of)),
                Member::Unwrapped(name) => self.flatten(&self.0[name], fields, open),
            }
        }
    }
}

/// The patterns are those of the drafts; another one would have to be understood first.
fn narrow(value: &Value, control: &Control) -> Result<(), String> {
    let hex = |s: &str| s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let holds = match (control, value) {
        (Control::Default, _) => true,
        (Control::Regexp(r), Value::String(s)) if r == "([0-9a-f]{2})*" => s.len() % 2 == 0 && hex(s),
        (Control::Regexp(r), Value::String(s)) if r == "crypto_error_0x1[0-9a-f][0-9a-f]" => {
            s.strip_prefix("crypto_error_0x1").is_some_and(|rest| rest.len() == 2 && hex(rest))
        }
        (Control::Size(n), Value::Number(v)) => v.as_u64().is_some_and(|v| *n >= 8 || v < 1 << (8 * n)),
        (Control::Size(n), Value::String(s)) => s.len() == 2 * n,
        other => return Err(format!("{other:?} is not understood")),
    };
    if holds { Ok(()) } else { Err(format!("{value} does not satisfy {control:?}")) }
}
