//! The debug command line: what an operator asks of a host that runs.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use courser_session::control::Role;
use serde_json::{Value, json};

use super::Host;
use super::endpoint::Workers;
use super::objects::{self, Object};
use super::tables::{self, Table};
use crate::echo;

/// Sessions of one worker that are shown when nobody says how many.
const SHOWN: usize = 200;

/// What a command says: words for people, or one value for machines.
enum Answer {
    Text(String),
    Table(Table),
    Objects(Vec<Object>),
    Value(Value),
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

const HELP: &str = "\
session enable|disable               take applications and endpoints, or refuse them
show service                         serving, disabled or draining; services before this one
show applications                    who is attached
show listeners                       where they listen
show sessions [LIMIT]                every object and what it belongs to
show segments                        shared memory
show errors                          what was refused, what was dropped
show memory                          memory of the service
show trace                           the last things that happened
show version                         this version
trace on [FOLDER] | off              qlog files of endpoints made from now on
test echo server uri URI             an echo server inside the service
test echo client uri URI [nclient C/S] [bytes N]
test echo stop                       ends the echo servers
detach ID                            ends an application
";

impl Host {
    /// Carries a command out, such as `show sessions`; the answer as text for people, or as JSON.
    ///
    /// # Errors
    /// A sentence with what to do instead.
    pub fn command(&self, words: &[&str], json: bool) -> Result<String, String> {
        let answer = self.carry_out(words)?;
        Ok(match (answer, json) {
            (Answer::Text(text), false) => text,
            (Answer::Table(table), false) => table.text(),
            (Answer::Objects(objects), false) => tables::tree(&objects),
            (Answer::Value(value), false) => format!("{value:#}\n"),
            (Answer::Text(text), true) => line(&json!({ "text": text.trim_end() })),
            (Answer::Table(table), true) => line(&table.json()),
            (Answer::Objects(objects), true) => line(&tables::list(&objects)),
            (Answer::Value(value), true) => line(&value),
        })
    }

    fn carry_out(&self, words: &[&str]) -> Result<Answer, String> {
        match words {
            [] | ["help"] => Ok(HELP.to_owned().into()),
            ["session", "enable"] => {
                self.enable(true);
                Ok("sessions are enabled\n".to_owned().into())
            }
            ["session", "disable"] => {
                self.enable(false);
                Ok("sessions are disabled; those that there are go on\n".to_owned().into())
            }
            ["show", rest @ ..] => self.show(rest),
            ["trace", "on"] => self.set_trace(Some(std::env::temp_dir())),
            ["trace", "on", folder] => self.set_trace(Some(folder.into())),
            ["trace", "off"] => self.set_trace(None),
            ["test", "echo", rest @ ..] => self.test_echo(rest),
            ["detach", id] => self.detach(id),
            _ => Err(format!("there is no command {:?}; `help` lists them", words.join(" "))),
        }
    }

    fn show(&self, what: &[&str]) -> Result<Answer, String> {
        match what {
            ["service"] => Ok(self.show_service()),
            ["applications"] => Ok(self.show_applications()),
            ["listeners"] => Ok(self.show_listeners()),
            ["sessions"] => Ok(self.show_sessions(SHOWN)),
            ["sessions", limit] => {
                let limit = limit.parse().map_err(|_| format!("{limit:?} is no number of sessions"))?;
                Ok(self.show_sessions(limit))
            }
            ["segments"] => Ok(self.show_segments()),
            ["errors"] => Ok(self.show_errors()),
            ["memory"] => Ok(self.show_memory()),
            ["trace"] => Ok(self.show_trace()),
            ["version"] => Ok(format!("courser {}\n", env!("CARGO_PKG_VERSION")).into()),
            _ => {
                Err("show what? service, applications, listeners, sessions, segments, errors, memory, trace or version"
                    .to_owned())
            }
        }
    }

    fn show_service(&self) -> Answer {
        let state = match (self.is_succeeded(), self.is_draining(), self.is_enabled()) {
            (true, _, _) => "draining, succeeded",
            (false, true, _) => "draining",
            (false, false, true) => "serving",
            (false, false, false) => "disabled",
        };
        let mut table = Table::new(&["state", "process", "applications", "services before it"]);
        table.row(vec![
            json!(state),
            json!(std::process::id()),
            json!(self.applications()),
            json!(self.heritage().living()),
        ]);
        Answer::Table(table)
    }

    fn show_applications(&self) -> Answer {
        let mut table =
            Table::new(&["id", "name", "where", "seconds", "endpoints", "workers", "certificates", "segment bytes"]);
        for application in self.listed() {
            let endpoints = application.endpoints();
            table.row(vec![
                json!(application.id),
                json!(application.name),
                json!(application.who.to_string()),
                json!(application.since.elapsed().as_secs()),
                json!(endpoints.len()),
                json!(endpoints.iter().map(|entry| entry.count).sum::<usize>()),
                json!(application.certificates()),
                json!(endpoints.iter().map(|entry| entry.memory).sum::<u64>()),
            ]);
        }
        Answer::Table(table)
    }

    fn show_listeners(&self) -> Answer {
        let mut table = Table::new(&["application", "endpoint", "uri", "workers", "sessions"]);
        for application in self.listed() {
            for entry in application.endpoints() {
                if matches!(entry.role, Role::Dial(_)) {
                    continue;
                }
                let sessions = entry.workers.sessions(usize::MAX).len();
                let uri = format!("{}://{}", entry.protocol.name(), entry.local);
                table.row(vec![
                    json!(application.id),
                    json!(entry.id),
                    json!(uri),
                    json!(entry.count),
                    json!(sessions),
                ]);
            }
        }
        Answer::Table(table)
    }

    fn show_sessions(&self, most: usize) -> Answer {
        let objects: Vec<_> = self.listed().iter().flat_map(|application| objects::of(application, most)).collect();
        Answer::Objects(objects)
    }

    fn show_segments(&self) -> Answer {
        let mut table = Table::new(&["application", "endpoint", "segments", "bytes each", "bytes"]);
        for application in self.listed() {
            for entry in application.endpoints().iter().filter(|entry| entry.memory > 0) {
                let each = entry.memory / entry.count.max(1) as u64;
                table.row(vec![
                    json!(application.id),
                    json!(entry.id),
                    json!(entry.count),
                    json!(each),
                    json!(entry.memory),
                ]);
            }
        }
        Answer::Table(table)
    }

    fn show_errors(&self) -> Answer {
        let mut table = Table::new(&["what", "count"]);
        for (fault, count) in self.0.counts.all() {
            table.row(vec![json!(format!("refused: {fault}")), json!(count)]);
        }
        let mut sum = courser::EngineStats::default();
        for application in self.listed() {
            for entry in application.endpoints() {
                if let Workers::Quic(endpoint) = &entry.workers {
                    endpoint.workers().into_iter().for_each(|worker| sum += worker.engine);
                }
            }
        }
        for (what, count) in [
            ("datagrams that were malformed", sum.malformed),
            ("handshakes refused: too many", sum.gate_handshakes),
            ("handshakes refused: too many of one source", sum.gate_source),
            ("first packets that were not authentic", sum.gate_not_authentic),
            ("unknown versions", sum.gate_version),
            ("invalid tokens", sum.bad_tokens),
            ("connections refused", sum.refused),
            ("stateless resets sent", sum.resets),
        ] {
            table.row(vec![json!(what), json!(count)]);
        }
        Answer::Table(table)
    }

    fn show_memory(&self) -> Answer {
        let mut table = Table::new(&["what", "count"]);
        let listed = self.listed();
        let endpoints: Vec<_> = listed.iter().flat_map(|application| application.endpoints()).collect();
        table.row(vec![json!("applications"), json!(listed.len())]);
        table.row(vec![json!("endpoints"), json!(endpoints.len())]);
        table.row(vec![json!("workers"), json!(endpoints.iter().map(|entry| entry.count).sum::<usize>())]);
        table.row(vec![json!("segment bytes"), json!(endpoints.iter().map(|entry| entry.memory).sum::<u64>())]);
        if let Some((resident, descriptors)) = process() {
            table.row(vec![json!("resident bytes"), json!(resident)]);
            table.row(vec![json!("descriptors"), json!(descriptors)]);
        }
        Answer::Table(table)
    }

    fn show_trace(&self) -> Answer {
        let mut table = Table::new(&["time", "what"]);
        for (time, what) in self.0.trace.all() {
            table.row(vec![json!(format!("{time:.3}")), json!(what)]);
        }
        Answer::Table(table)
    }

    fn set_trace(&self, folder: Option<PathBuf>) -> Result<Answer, String> {
        if let Some(folder) = &folder
            && !folder.is_dir()
        {
            return Err(format!("{} is no folder; make it first", folder.display()));
        }
        let said = match &folder {
            Some(folder) => format!("endpoints made from now on write qlog files into {}\n", folder.display()),
            None => "endpoints made from now on write no qlog files\n".to_owned(),
        };
        *self.0.traced.lock().unwrap_or_else(PoisonError::into_inner) = folder;
        Ok(said.into())
    }

    fn test_echo(&self, words: &[&str]) -> Result<Answer, String> {
        match words {
            ["server", "uri", uri] => {
                let server = echo::Server::start(self, uri)?;
                let said = format!("echoing at {}\n", server.uri());
                self.0.echoes.lock().unwrap_or_else(PoisonError::into_inner).push(server);
                Ok(said.into())
            }
            ["client", "uri", uri, options @ ..] => {
                let job = echo::Job::parse(options)?;
                echo::call(self, uri, &job, Duration::from_secs(60)).map(Answer::Value)
            }
            ["stop"] => {
                let servers = std::mem::take(&mut *self.0.echoes.lock().unwrap_or_else(PoisonError::into_inner));
                Ok(format!("{} echo servers ended\n", servers.len()).into())
            }
            _ => {
                Err("say `test echo server uri quic://HOST:PORT`, `test echo client uri URI [nclient C/S] [bytes N]` \
                      or `test echo stop`"
                    .to_owned())
            }
        }
    }

    fn detach(&self, id: &str) -> Result<Answer, String> {
        let number: u64 = id.parse().map_err(|_| format!("{id:?} is no number of an application"))?;
        let application = self.listed().into_iter().find(|application| application.id == number);
        let application = application.ok_or_else(|| format!("there is no application {number}"))?;
        application.expel();
        self.leave(&application, "an operator ended it");
        Ok(format!("application {number} is gone\n").into())
    }
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

/// Resident memory in bytes and the number of descriptors, where the system tells.
fn process() -> Option<(u64, usize)> {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    let descriptors = std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    Some((pages * rustix::param::page_size() as u64, descriptors))
}
