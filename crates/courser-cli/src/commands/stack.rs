//! `courser stack`.

use std::fmt::Write as _;
use std::time::Duration;

use courser_stack::host::{Config as HostConfig, Host};
use courser_stack::service::{Error, Options, Service};
use courser_web::config::{Config, Stack};
use courser_web::front::notify::{Manager, State};
use serde::Serialize;

use crate::args::stack::StackArgs;
use crate::failure::{Failure, Outcome};
use crate::operate::{Wish, signals};
use crate::output::Ui;

/// What is told when applications may come.
#[derive(Serialize)]
struct Serving {
    socket: std::path::PathBuf,
    enabled: bool,
}

/// Runs it.
///
/// # Errors
/// Why it was not done.
pub fn run(args: &StackArgs, ui: &Ui) -> Outcome {
    let config = configured(args)?;
    let (host, options) = parts(args, &config)?;
    let drain = args.drain.unwrap_or(config.drain);
    let wishes = signals::listen(false)?;
    let manager = Manager::from_env();
    let service = Service::start(Host::new(host), options).map_err(failure)?;
    let enabled = service.host().is_enabled();
    let mut said = format!("applications attach at {}", service.path().display());
    if !enabled {
        let _ = write!(said, "; sessions are disabled until `courser ctl session enable`");
    }
    ui.note(said);
    ui.object(&Serving { socket: service.path().to_owned(), enabled });
    manager.tell(State::Ready);
    for wish in wishes.told {
        match wish {
            Wish::Drain => {
                manager.tell(State::Stopping);
                drain_then_end(&service, drain, ui, &wishes.tell);
            }
            Wish::End | Wish::Over => break,
            Wish::Reload | Wish::Upgrade => {
                ui.warn(Failure::Usage("the service reloads nothing; start it anew".into()));
            }
        }
    }
    manager.tell(State::Stopping);
    drop(service);
    Ok(())
}

/// Waits for the applications beside the loop, which hears whoever does not want to wait.
fn drain_then_end(service: &Service, limit: Duration, ui: &Ui, tell: &std::sync::mpsc::Sender<Wish>) {
    let count = service.host().applications();
    ui.note(format_args!("no new applications; the {count} that there are may go on for {limit:?}"));
    let (host, tell) = (service.host().clone(), tell.clone());
    service.begin_drain();
    std::thread::spawn(move || {
        let until = std::time::Instant::now() + limit;
        while host.applications() > 0 && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        // The loop may be over already.
        let _ = tell.send(Wish::End);
    });
}

fn configured(args: &StackArgs) -> Outcome<Stack> {
    let Some(file) = &args.config else { return Ok(Stack::default()) };
    let config = Config::load(file).map_err(|mistake| Failure::Usage(mistake.to_string()))?;
    Ok(config.stack)
}

/// What the host permits and where the service is: flags before the file.
fn parts(args: &StackArgs, config: &Stack) -> Outcome<(HostConfig, Options)> {
    let mut host = HostConfig::default();
    host.enabled = config.enabled && !args.disabled;
    host.applications_max = config.applications;
    host.per_user_max = config.per_user;
    host.quota.endpoints = config.endpoints;
    host.quota.workers = config.workers;
    host.quota.sessions = config.sessions;
    host.quota.memory = config.memory;
    host.quota.certificates = config.certificates;
    host.trace = args.trace.clone().or_else(|| config.trace.clone());
    for rule in &config.rules {
        let place = |text: &String| text.parse().map_err(|e| Failure::Usage(format!("{text:?} is {e}")));
        let places = rule.listen.iter().map(place).collect::<Outcome<Vec<_>>>()?;
        host.rules.push(courser_stack::host::Rule { user: rule.user, places });
    }
    let path = args.place.socket.clone().or_else(|| config.socket.clone()).unwrap_or_else(|| args.place.path());
    let mut options = Options::new(path);
    options.mode = args.mode.unwrap_or(config.mode);
    options.users.clone_from(&config.users);
    Ok((host, options))
}

fn failure(e: Error) -> Failure {
    Failure::Local { what: "the service".into(), why: e.to_string() }
}
