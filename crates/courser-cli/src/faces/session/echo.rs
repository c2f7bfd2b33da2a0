//! An echo client over a port: all connections, then all streams, then the bytes.

use std::time::Instant;

use super::desk::{Desk, What};
use super::{LOOK, begin, client, farewell, reach};
use crate::apps::body::Counter;
use crate::apps::echo::EchoClient;
use crate::failure::{Failure, Outcome};
use crate::link::drive::Dial;
use crate::link::echo::EchoJob;
use crate::report::echo::EchoReport;
use crate::transport::App;
use crate::tuning::Tuning;

/// Does the job.
///
/// # Errors
/// Why it was not done.
pub fn call(dial: &Dial<'_>, tuning: &Tuning, job: &EchoJob) -> Outcome<EchoReport> {
    let (_endpoint, mut desk) = client(dial, tuning)?;
    run(&mut desk, dial, job)
}

/// Does the job through the service.
///
/// # Errors
/// Why it was not done.
#[cfg(unix)]
pub fn call_away(dial: &Dial<'_>, away: &super::away::Away, job: &EchoJob) -> Outcome<EchoReport> {
    let (_control, mut desk) = away.client(dial.peer.clone())?;
    run(&mut desk, dial, job)
}

fn run(desk: &mut Desk<EchoClient>, dial: &Dial<'_>, job: &EchoJob) -> Outcome<EchoReport> {
    let received = Counter::default();
    let mut began = vec![Instant::now()];
    let outcome = phases(desk, dial, job, (&received, &mut began));
    let connections = desk.connections();
    farewell(desk, connections);
    outcome?;
    began.push(Instant::now());
    Ok(job.report(received.get(), &began))
}

/// Goes through the phases up to the last byte.
fn phases(
    desk: &mut Desk<EchoClient>,
    dial: &Dial<'_>,
    job: &EchoJob,
    (received, began): (&Counter, &mut Vec<Instant>),
) -> Outcome {
    let mut made = 0;
    let mut app = || {
        made += 1;
        EchoClient::new(made - 1, job.streams, job.bytes, received.clone())
    };
    let (first, addr) = reach(desk, dial, Instant::now() + job.timeout)?;
    desk.insert(first, app());
    (1..job.connections).for_each(|n| begin(desk, dial, addr, n));
    let mut up = 1;
    let mut step =
        |desk: &mut Desk<EchoClient>, through: &mut dyn FnMut(&mut Desk<EchoClient>, u64) -> bool| -> Outcome {
            let until = Instant::now() + job.timeout;
            while !through(desk, up) {
                dial.stop.check()?;
                if Instant::now() >= until || !desk.wait(LOOK) {
                    return Err(Failure::TimeOut { after: job.timeout });
                }
                while let Some(message) = desk.hear() {
                    let told = desk.on(message);
                    match (told.what, told.session) {
                        (What::Opened(_), Some(handle)) => desk.insert(handle, app()),
                        (What::Established, _) => up += 1,
                        (What::Failed(why) | What::Closed(why), _) => return Err(why),
                        _ => {}
                    }
                    told.outcome?;
                }
            }
            began.push(Instant::now());
            Ok(())
        };
    step(desk, &mut |_, up| up >= job.connections)?;
    let all = desk.connections();
    for handle in &all {
        desk.with(*handle, |app, link| app.open(link))?;
    }
    step(desk, &mut |desk, _| all.iter().all(|handle| desk.app(*handle).is_some_and(|app| app.is_open())))?;
    for handle in &all {
        desk.with(*handle, |app, link| app.transfer(link))?;
    }
    step(desk, &mut |desk, _| all.iter().all(|handle| desk.app(*handle).is_some_and(|app| app.done())))
}
