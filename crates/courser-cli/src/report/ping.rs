//! The result of a probe: steps that build on each other, of which one may fail.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde::Serialize;

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
}

impl PingReport {
    /// Nothing tried yet.
    #[must_use]
    pub fn new(host: &str) -> Self {
        Self { host: host.to_owned(), ok: true, steps: Vec::new() }
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
        self.steps.push(Step { name, ok, ms, found: text });
        outcome
    }

    /// Adds what a step before found out on the side.
    pub fn fact(&mut self, name: &'static str, found: impl Into<String>) {
        self.steps.push(Step { name, ok: true, ms: 0.0, found: found.into() });
    }

    /// Lines for people.
    #[must_use]
    pub fn summary(&self, p: Palette) -> String {
        let mut s = String::new();
        for step in &self.steps {
            let mark = if step.ok { p.paint(Ink::Good, "✓") } else { p.paint(Ink::Bad, "✗") };
            let took = if step.ms > 0.0 { text::time(Duration::from_secs_f64(step.ms / 1e3)) } else { String::new() };
            let _ = writeln!(s, "{mark} {:<12} {:>8}  {}", step.name, p.paint(Ink::Dim, took), step.found);
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
        let fail = Failure::NoAnswer { peer: "example.org:443".into(), waited: Duration::from_secs(5) };
        let e = r.step("answer", || Err::<(), _>(fail), |()| String::new()).unwrap_err();
        assert_eq!(e.code(), 4);
        assert!(!r.ok);
        let shown = r.summary(Palette::PLAIN);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("✓ name") && lines[0].ends_with("7 addresses"));
        assert_eq!(lines[1], "✓ family                 IPv6 first");
        assert!(lines[2].starts_with("✗ answer") && lines[2].contains("firewall"), "{shown}");
        let v = serde_json::to_value(&r).unwrap();
        assert_eq!((v["ok"].clone(), v["steps"][2]["name"].clone()), (false.into(), "answer".into()));
    }
}
