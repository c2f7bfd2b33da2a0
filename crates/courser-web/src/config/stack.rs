//! What a host stack is told: `[stack]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::units;

/// Where programs attach, and what they may have.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Stack {
    /// The socket; without one it is where `--socket` says.
    pub socket: Option<PathBuf>,
    /// The socket's mode: who may open it.
    #[serde(deserialize_with = "read_mode")]
    pub mode: u32,
    /// Users who may attach; empty: whoever may open the socket.
    pub users: Vec<u32>,
    /// Whether sessions are served from the start.
    pub enabled: bool,
    /// How long applications may go on when the service is to end.
    #[serde(deserialize_with = "units::read_duration")]
    pub drain: Duration,
    /// Applications at once.
    pub applications: usize,
    /// Applications of one user at once.
    pub per_user: usize,
    /// Endpoints of one application: listeners and diallers.
    pub endpoints: u32,
    /// Workers of all endpoints of one application.
    pub workers: u32,
    /// Sessions at each worker.
    pub sessions: u32,
    /// Shared memory of one application.
    #[serde(deserialize_with = "units::read_size")]
    pub memory: u64,
    /// Certificates of one application.
    pub certificates: u32,
    /// Where connections are traced.
    pub trace: Option<PathBuf>,
    /// What a program that attaches calls itself; it reads the same file for its socket.
    pub name: Option<String>,
    /// For how many microseconds such a program looks for news before it sleeps.
    pub look_us: Option<u64>,
    /// Where users may listen; those whom no rule names may listen anywhere.
    #[serde(rename = "allow")]
    pub rules: Vec<Allow>,
}

impl Default for Stack {
    fn default() -> Self {
        Self {
            socket: None,
            mode: 0o660,
            users: Vec::new(),
            enabled: true,
            drain: Duration::from_secs(10),
            applications: 1024,
            per_user: 256,
            endpoints: 64,
            workers: 64,
            sessions: 65_536,
            memory: 256 << 20,
            certificates: 64,
            trace: None,
            name: None,
            look_us: None,
            rules: Vec::new(),
        }
    }
}

/// Where one user may listen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Allow {
    /// The user's number.
    pub user: u32,
    /// At any of these: `quic://0.0.0.0:4433`, `tcp://[::1]:*`, `udp://*:53`.
    pub listen: Vec<String>,
}

/// A mode as people write it: octal, as text.
fn read_mode<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let text = String::deserialize(from)?;
    let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no mode; write it like \"660\", in octal")))
}
