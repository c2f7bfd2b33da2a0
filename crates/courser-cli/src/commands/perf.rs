//! `courser perf`.

use courser_core::engine::{RetryPolicy, UNPROVEN_MAX};

use crate::apps::body::Counter;
use crate::apps::perf_server::{Content, PerfServer};
use crate::args::address;
use crate::args::common::Api;
use crate::args::perf::{PerfArgs, PerfClientArgs, PerfEnd, PerfServerArgs};
use crate::faces::{self, Host};
use crate::failure::{Failure, Outcome};
use crate::identity::Identity;
use crate::link::drive::Dial;
use crate::link::serve::{self, Stop};
use crate::link::setup::{self, Service, TlsChoice, Trust};
use crate::link::{Peer, perf};
use crate::operate::upgrade;
use crate::output::Ui;
use crate::perf_proto;

/// Runs it.
///
/// # Errors
/// Why it was not done.
pub fn run(args: &PerfArgs, ui: &Ui) -> Outcome {
    match &args.end {
        PerfEnd::Server(args) => server(args, ui),
        PerfEnd::Client(args) => client(args, ui),
    }
}

fn content(verify: bool) -> Content {
    if verify { Content::Pattern } else { Content::Fill }
}

fn server(args: &PerfServerArgs, ui: &Ui) -> Outcome {
    let inherited = upgrade::inherit()?;
    let tuning = super::tuning(&args.transport, ui)?;
    let choice = TlsChoice::of(perf_proto::ALPN)?;
    let identity = Identity::from_args(&args.identity)?;
    let tls = setup::tls_server(&identity, &choice, &tuning)?;
    let service = Service {
        listen: address::listen(&args.listen)?,
        tls: &tls,
        tuning: &tuning,
        retry: RetryPolicy::Above(UNPROVEN_MAX),
        workers: args.workers,
        steering: args.steering.into(),
    };
    let content = content(args.verify);
    let ready = |addr| super::announce(ui, Some(addr), &identity);
    super::operated(&args.identity, &args.operate, (&choice, &tuning), ui, |operator| {
        if args.api != Api::Direct {
            let warn = |e: &Failure| ui.warn(e);
            let inherited = inherited.into();
            return faces::serve(args.api, &Host { service, content, ready: &ready, warn: &warn, operator, inherited });
        }
        let workers = setup::servers(&service)?;
        let addr = workers.first().map(|w| w.socket().local_addr());
        let make = move || PerfServer::new(content.clone(), Counter::unread());
        serve::serve_operated(workers, operator, || super::announce(ui, addr, &identity), make, &serve::warner(ui))
    })
}

fn client(args: &PerfClientArgs, ui: &Ui) -> Outcome {
    let mut tuning = super::tuning(&args.transport, ui)?;
    tuning.patience(args.timeout);
    let target = address::target(&args.server)?;
    let addrs = address::resolve_all(&target)?;
    let tls = setup::tls_client(&Trust::from_args(&args.trust)?, &TlsChoice::of(perf_proto::ALPN)?, &tuning)?;
    let name = args.trust.server_name.clone().unwrap_or_else(|| target.host.server_name());
    let peer = Peer { name: target.to_string(), patience: tuning.settings.handshake_timeout };
    let stop = Stop::default();
    let dial = Dial { addrs: &addrs, name: &name, tls: &tls, settings: &tuning.settings, peer: &peer, stop: &stop };
    let (job, content) = (args.job(), content(args.verify));
    let result = if args.api == Api::Direct {
        let mut worker = setup::client(&addrs, &tuning)?;
        stop.listen(vec![worker.waker()])?;
        perf::run(&mut worker, &dial, &job, &content)?
    } else {
        faces::call(args.api, &dial, &tuning, &job, &content)?
    };
    ui.say(result.summary(ui.out));
    ui.object(&result.object());
    Ok(())
}
