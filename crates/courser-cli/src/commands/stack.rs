//! `courser stack`.

use std::fmt::Write as _;
#[cfg(target_os = "linux")]
use std::io::Write as _;
use std::time::Duration;

use courser_stack::host::{Config as HostConfig, Host};
#[cfg(target_os = "linux")]
use courser_stack::service::Succession;
use courser_stack::service::{Error, Options, Service};
use courser_web::config::{Config, Stack};
use courser_web::front::notify::{Manager, State};
use serde::Serialize;

use crate::args::stack::StackArgs;
use crate::failure::{Failure, Outcome};
#[cfg(target_os = "linux")]
use crate::operate::upgrade;
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
    let (service, predecessor) = begin(Host::new(host), options)?;
    let enabled = service.host().is_enabled();
    let mut said = format!("applications attach at {}", service.path().display());
    if !enabled {
        let _ = write!(said, "; sessions are disabled until `courser ctl session enable`");
    }
    ui.note(said);
    ui.object(&Serving { socket: service.path().to_owned(), enabled });
    manager.tell(State::Ready);
    predecessor();
    let mut given = false;
    for wish in wishes.told {
        match wish {
            Wish::Drain => {
                if !given {
                    manager.tell(State::Stopping);
                }
                drain_then_end(&service, drain, ui, &wishes.tell);
            }
            Wish::End | Wish::Over => break,
            Wish::Upgrade => match succeed(&service) {
                Ok(process) => {
                    given = true;
                    manager.tell(State::Succeeded(process));
                    let count = service.host().applications();
                    ui.note(format_args!(
                        "process {process} has the socket; this one ends when its {count} applications have moved"
                    ));
                    end_with_the_last(&service, None, &wishes.tell);
                }
                Err(failure) => ui.warn(failure),
            },
            Wish::Reload => ui.warn(Failure::Usage("the service reloads nothing; SIGUSR2 starts a new one".into())),
        }
    }
    if !given {
        manager.tell(State::Stopping);
    }
    drop(service);
    Ok(())
}

/// Waits for the applications beside the loop, which hears whoever does not want to wait.
fn drain_then_end(service: &Service, limit: Duration, ui: &Ui, tell: &std::sync::mpsc::Sender<Wish>) {
    let count = service.host().applications();
    ui.note(format_args!("no new applications; the {count} that there are may go on for {limit:?}"));
    service.begin_drain();
    end_with_the_last(service, Some(limit), tell);
}

/// Asks for the end when no application is left, or the time is over.
fn end_with_the_last(service: &Service, limit: Option<Duration>, tell: &std::sync::mpsc::Sender<Wish>) {
    let (host, tell) = (service.host().clone(), tell.clone());
    std::thread::spawn(move || {
        let began = std::time::Instant::now();
        while host.applications() > 0 && limit.is_none_or(|limit| began.elapsed() < limit) {
            std::thread::sleep(Duration::from_millis(20));
        }
        // The loop may be over already.
        let _ = tell.send(Wish::End);
    });
}

/// Starts the service, or goes on where another process was, which is to be told once this one serves.
#[cfg(target_os = "linux")]
fn begin(host: Host, options: Options) -> Outcome<(Service, Box<dyn FnOnce()>)> {
    let Some(from) = upgrade::predecessor()? else {
        return Ok((Service::start(host, options).map_err(failure)?, Box::new(|| {})));
    };
    let place = Succession::receive(&from).map_err(|e| Failure::local("taking the service over", &e))?;
    let service = Service::take_over(host, options, place).map_err(failure)?;
    // Who does not listen any more has gone.
    Ok((service, Box::new(move || drop((&from).write_all(&upgrade::SERVES)))))
}

/// Gives the service to a new process of this program; its number.
#[cfg(target_os = "linux")]
fn succeed(service: &Service) -> Outcome<u32> {
    let mut failed = None;
    let given = service.succeed(|place| {
        upgrade::successor(|to| place.send(to)).map_err(|failure| {
            failed = Some(failure);
            std::io::Error::other("there is no successor")
        })
    });
    given.map_err(|e| failed.unwrap_or_else(|| Failure::local("handing the service over", &e)))
}

#[cfg(not(target_os = "linux"))]
fn begin(host: Host, options: Options) -> Outcome<(Service, Box<dyn FnOnce()>)> {
    Ok((Service::start(host, options).map_err(failure)?, Box::new(|| {})))
}

#[cfg(not(target_os = "linux"))]
fn succeed(_: &Service) -> Outcome<u32> {
    let why = "this system cannot hand sockets over".into();
    Err(Failure::Local { what: "handing the service over".into(), why })
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
