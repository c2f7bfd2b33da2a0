//! Running a web server from the command line: signals in, words out. `courser serve` and `courser proxy` differ in their
//! flags only.

use std::cell::Cell;
use std::io;
use std::sync::Arc;

use courser_web::config::Config;
use courser_web::error::WebError;
use courser_web::front::notify::Manager;
use courser_web::front::{News, Order, Server};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::failure::{Failure, Outcome};
use crate::operate::signals::{self, Wish, Wishes};
use crate::output::Ui;

/// What is told at the end.
#[derive(Serialize)]
struct Report {
    /// Whether every request that had begun was answered to its end.
    complete: bool,
}

/// Serves as `config` has it, and reads it again when it is asked to.
///
/// # Errors
/// Why there is no serving.
pub fn serve(config: &dyn Fn() -> Outcome<Config>, ui: &Ui) -> Outcome {
    let configured = || config().map(|config| for_output(config, ui));
    let wishes = signals::listen(true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::local("starting threads", &e))?;
    let (inherited, predecessor) = inherit()?;
    let (orders, told) = mpsc::unbounded_channel();
    let server = {
        let _inside = runtime.enter();
        Server::bind(configured()?, inherited, Manager::from_env()).map_err(failure)?
    };
    announce(&server, ui);
    let again = || configured().map_err(|e| WebError::System { what: "configuration", why: e.to_string() });
    let predecessor = Cell::new(predecessor);
    let complete = std::thread::scope(|scope| {
        let Wishes { tell, told: asked } = wishes;
        scope.spawn(move || pass_on(&asked, &orders));
        let hear = |news: News<'_>| match news {
            News::Serving => predecessor.take().into_iter().for_each(Predecessor::tell),
            other => say(&other, ui),
        };
        let served = runtime.block_on(server.serve(told, again, Arc::new(give), hear));
        // Nobody is left to be told anything.
        let _ = tell.send(Wish::Over);
        served.map_err(failure)
    })?;
    // Tasks that did not end in their time are not waited for.
    runtime.shutdown_background();
    ui.object(&Report { complete });
    Ok(())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
use here::{Predecessor, give, inherit};
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use not_here::{Predecessor, give, inherit};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod here {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use courser_web::error::WebError;
    use courser_web::front::sockets::Inherited;
    use courser_web::front::succession::Succession;

    use super::failure;
    use crate::failure::{Failure, Outcome};
    use crate::operate::upgrade;

    /// The process that waits until this one serves.
    pub struct Predecessor(UnixStream);

    impl Predecessor {
        pub fn tell(mut self) {
            // Who does not listen any more has gone.
            let _ = self.0.write_all(&upgrade::SERVES);
        }
    }

    /// What was bound already: by the process before this one, or by a service manager.
    pub fn inherit() -> Outcome<(Inherited, Option<Predecessor>)> {
        let Some(from) = upgrade::predecessor()? else {
            return Ok((Inherited::from_env().map_err(failure)?, None));
        };
        let all = Succession::receive(&from).map_err(|e| Failure::local("taking the sockets over", &e))?;
        Ok((all.into(), Some(Predecessor(from))))
    }

    /// Gives the sockets to a new process of this program.
    pub fn give(all: Succession) -> Result<u32, WebError> {
        let unwilling = |e: Failure| WebError::System { what: "handing the sockets over", why: e.to_string() };
        upgrade::successor(|to| all.send(to)).map_err(unwilling)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod not_here {
    use courser_web::error::WebError;
    use courser_web::front::sockets::Inherited;
    use courser_web::front::succession::Succession;

    use super::failure;
    use crate::failure::Outcome;

    /// There is none.
    pub enum Predecessor {}

    impl Predecessor {
        pub fn tell(self) {
            match self {}
        }
    }

    /// What a service manager bound.
    pub fn inherit() -> Outcome<(Inherited, Option<Predecessor>)> {
        Ok((Inherited::from_env().map_err(failure)?, None))
    }

    /// This system cannot do that.
    pub fn give(_: Succession) -> Result<u32, WebError> {
        let why = "this system cannot hand sockets over".into();
        Err(WebError::System { what: "handing the sockets over", why })
    }
}

/// With `--json`, standard output is for one object.
fn for_output(mut config: Config, ui: &Ui) -> Config {
    if ui.is_json() && config.log.access == "-" {
        config.log.access = "off".into();
    }
    config
}

fn announce(server: &Server, ui: &Ui) {
    for address in server.addresses() {
        ui.note(format_args!("listening on {address}"));
    }
    if let Some(address) = server.figures_address() {
        ui.note(format_args!("figures at http://{address}/metrics"));
    }
    if let Some(print) = server.throwaway() {
        ui.note(format_args!("throw-away certificate, SHA-256 {print}; browsers warn of it"));
    }
}

/// Wishes of the operator become orders for the server.
fn pass_on(asked: &std::sync::mpsc::Receiver<Wish>, orders: &mpsc::UnboundedSender<Order>) {
    for wish in asked {
        let order = match wish {
            Wish::Drain => Order::Drain,
            Wish::End => Order::End,
            Wish::Reload => Order::Reload,
            Wish::Upgrade => Order::HandOver,
            Wish::Over => return,
        };
        if orders.send(order).is_err() {
            return;
        }
    }
}

fn say(news: &News<'_>, ui: &Ui) {
    match news {
        News::Serving => {}
        News::Succeeded(process) => {
            ui.note(format_args!("process {process} has the sockets; this one ends when its last request has"));
        }
        News::NotSucceeded(why) => ui.warn(why),
        News::Reloaded => ui.note("configuration and certificates are read again"),
        News::NotReloaded(why) => ui.warn(format_args!("{why}; everything stays as it was")),
        News::NeedsRestart(what) => ui.warn(format_args!("`{what}` changed; that counts when the server is restarted")),
        News::Draining(limit) => {
            ui.note(format_args!("no new connections; requests under way may go on for {limit:?}"));
        }
        News::CutOff => ui.note("the time is over; what was left is closed"),
    }
}

/// In the words of the command.
pub fn failure(e: WebError) -> Failure {
    match e {
        WebError::Config(mistake) => Failure::Usage(mistake.to_string()),
        WebError::File { path, why } => Failure::reading(&path, &why),
        WebError::Certificate { what, why } => Failure::Unusable { path: what.into(), why },
        WebError::Bind { address, why } if why.kind() == io::ErrorKind::AddrInUse => {
            Failure::PortBusy { addr: address }
        }
        WebError::Bind { address, why } => Failure::from_bind(address, &why),
        other => Failure::Local { what: "starting the server".into(), why: other.to_string() },
    }
}
