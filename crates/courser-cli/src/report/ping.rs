//! The result of a probe: steps that build on each other, of which one may fail.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::certificate::Described;
use crate::failure::Outcome;
use crate::output::{Ink, Palette};
use crate::text;

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// What was tried.
    pub name: &'static str,
    /// Whether it worked.
    pub ok: bool,
    /// How long it took.
    pub ms: f64,
    /// What was found, or what went wrong.
    pub found: String,
    /// Whether it is something to look after, although it worked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub warning: bool,
}

/// A certificate and what is thought of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// What it says.
    #[serde(flatten)]
    pub says: Described,
    /// Whether the chain is believed.
    pub verified: bool,
    /// The roots that it was compared with.
    pub roots: String,
    /// Why it is not believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// All steps until the first that failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PingReport {
    /// Who was tried.
    pub host: String,
    /// Whether all steps worked.
    pub ok: bool,
    /// In their order.
    pub steps: Vec<Step>,
    /// The server's certificate, when it showed one that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Shown>,
}

impl PingReport {
    /// Nothing tried yet.
    #[must_use]
    pub fn new(host: &str) -> Self {
        Self { host: host.to_owned(), ok: true, steps: Vec::new(), certificate: None }
    }

    /// Tries a step; `found` words what came of it.
    ///
    /// # Errors
    /// The step failed; it is in the report.
    pub fn step<T>(
        &mut self,
        name: &'static str,
        act: impl FnOnce() -> Outcome<T>,
        found: impl FnOnce(&T) -> String,
    ) -> Outcome<T> {
        let start = Instant::now();
        let outcome = act();
        let ms = start.elapsed().as_secs_f64() * 1e3;
        let (ok, text) = match &outcome {
            Ok(value) => (true, found(value)),
            Err(failure) => (false, failure.to_string()),
        };
        self.ok &= ok;
        self.steps.push(Step { name, ok, ms, found: text, warning: false });
        outcome
    }

    /// Adds what a step before found out on the side.
    pub fn fact(&mut self, name: &'static str, found: impl Into<String>) {
        self.steps.push(Step { name, ok: true, ms: 0.0, found: found.into(), warning: false });
    }

    /// Adds a step that failed although nothing was tried on the way.
    pub fn failed(&mut self, name: &'static str, why: String) {
        self.ok = false;
        self.steps.push(Step { name, ok: false, ms: 0.0, found: why, warning: false });
    }

    /// Marks the step or fact before as something to look after.
    pub fn warn(&mut self) {
        if let Some(step) = self.steps.last_mut() {
            step.warning = true;
        }
    }

    /// Lines for people.
    #[must_use]
    pub fn summary(&self, p: Palette) -> String {
        let mut s = String::new();
        for step in &self.steps {
            let mark = match step {
                Step { ok: false, .. } => p.paint(Ink::Bad, "✗"),
                Step { warning: true, .. } => p.paint(Ink::Warn, "!"),
                _ => p.paint(Ink::Good, "✓"),
            };
            let took = if step.ms > 0.0 { text::time(Duration::from_secs_f64(step.ms / 1e3)) } else { String::new() };
            // The colour's bytes must not count as width.
            let took = p.paint(Ink::Dim, format_args!("{took:>8}"));
            let _ = writeln!(s, "{mark} {:<12} {took}  {}", step.name, step.found);
        }
        s.truncate(s.trim_end().len());
        s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[test]
    fn the_step_that_fails_is_shown_with_its_remedy() {
        let mut r = PingReport::new("example.org:443");
        assert_eq!(r.step("name", || Ok(7), |n| format!("{n} addresses")), Ok(7));
        r.fact("family", "IPv6 first");
        r.warn();
        let fail = Failure::NoAnswer { peer: "example.org:443".into(), waited: Duration::from_secs(5) };
        let e = r.step("answer", || Err::<(), _>(fail), |()| String::new()).unwrap_err();
        assert_eq!(e.code(), 4);
        assert!(!r.ok);
        let shown = r.summary(Palette::PLAIN);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("✓ name") && lines[0].ends_with("7 addresses"));
        assert_eq!(lines[1], "! family                 IPv6 first");
        assert!(lines[2].starts_with("✗ answer") && lines[2].contains("firewall"), "{shown}");
        let v = serde_json::to_value(&r).unwrap();
        assert_eq!((v["ok"].clone(), v["steps"][2]["name"].clone()), (false.into(), "answer".into()));
    }
}
