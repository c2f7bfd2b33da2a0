//! `courser doctor`: what this machine offers, and what helps where something is short.

use courser::doctor::{Check, State, examine};
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::output::{Ink, Palette, Ui};

/// A check as JSON.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    state: &'static str,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// Everything as JSON.
#[derive(Debug, Serialize)]
struct Diagnosis {
    ok: bool,
    checks: Vec<Line>,
}

/// Looks and tells.
///
/// # Errors
/// Something is missing without which the other commands do not work.
pub fn run(ui: &Ui) -> Outcome {
    let report = examine().map_err(|e| Failure::local("opening a UDP socket", &e))?;
    let mut checks: Vec<Line> = report.checks().iter().map(line).collect();
    checks.extend([processor(), cipher(), roots()]);
    // A machine with one address family works.
    let dead = report.v4.is_err() && report.v6.is_err();
    let diagnosis = Diagnosis { ok: !dead, checks };
    for c in &diagnosis.checks {
        ui.say(shown(c, ui.out));
    }
    ui.object(&diagnosis);
    if dead {
        let why = "neither IPv4 nor IPv6 works on the loopback address".into();
        return Err(Failure::Local { what: "UDP".into(), why });
    }
    Ok(())
}

fn line(c: &Check) -> Line {
    let state = match c.state {
        State::Good => "good",
        State::Short => "short",
        State::Missing => "missing",
    };
    Line { name: c.name.to_owned(), state, found: c.found.clone(), remedy: c.remedy.clone() }
}

fn shown(c: &Line, p: Palette) -> String {
    let mark = match c.state {
        "good" => p.paint(Ink::Good, "✓"),
        "short" => p.paint(Ink::Warn, "!"),
        _ => p.paint(Ink::Bad, "✗"),
    };
    let mut s = format!("{mark} {:<19} {}", c.name, c.found);
    if let Some(remedy) = &c.remedy {
        s.push_str(&format!("\n  {:<19} {} {remedy}", "", p.paint(Ink::Strong, "→")));
    }
    s
}

/// Two processors let the two ends of a connection work at once.
fn processor() -> Line {
    let n = std::thread::available_parallelism().map_or(1, usize::from);
    let remedy = (n < 2).then(|| "with one processor the two ends of a demonstration take turns".to_owned());
    Line { name: "processors".into(), state: if n < 2 { "short" } else { "good" }, found: n.to_string(), remedy }
}

/// Whether AES is done in hardware.
fn cipher() -> Line {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let known = Some(std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq"));
    #[cfg(target_arch = "aarch64")]
    let known = Some(std::arch::is_aarch64_feature_detected!("aes"));
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let known: Option<bool> = None;
    let (state, found) = match known {
        Some(true) => ("good", "AES in hardware"),
        Some(false) => ("short", "no AES in hardware"),
        None => ("good", "not known for this processor"),
    };
    let remedy = (known == Some(false)).then(|| "--cipher chacha20 is faster here".to_owned());
    Line { name: "encryption".into(), state, found: found.into(), remedy }
}

/// Whether certificates of public servers can be checked.
fn roots() -> Line {
    let found = rustls_native_certs::load_native_certs().certs.len();
    let remedy = (found == 0).then(|| "install the package ca-certificates, or name roots with --ca".to_owned());
    let state = if found == 0 { "short" } else { "good" };
    Line { name: "trusted roots".into(), state, found: found.to_string(), remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_are_shown_under_what_is_short() {
        let c = Line { name: "x".into(), state: "short", found: "little".into(), remedy: Some("more".into()) };
        let text = shown(&c, Palette::PLAIN);
        assert!(text.starts_with("! x") && text.contains("little\n") && text.ends_with("→ more"), "{text}");
        let good = Line { remedy: None, state: "good", ..c };
        assert_eq!(shown(&good, Palette::PLAIN).lines().count(), 1);
    }

    #[test]
    fn this_machines_own_checks_are_complete() {
        for c in [processor(), cipher(), roots()] {
            assert!(!c.found.is_empty());
            assert_eq!(c.state == "good", c.remedy.is_none(), "{c:?}");
        }
    }
}
