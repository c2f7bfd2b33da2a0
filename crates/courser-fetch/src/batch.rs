//! Several jobs at once, a bounded number at a time.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::body::Meter;
use crate::client::Client;
use crate::download::{self, Done, Job, Sink};
use crate::error::{Error, Outcome};

/// Sees that no two jobs write the same file.
///
/// # Errors
/// [`Error::Usage`] with the file.
pub fn check(jobs: &[Job]) -> Outcome {
    let mut files: HashSet<&Path> = HashSet::new();
    for job in jobs {
        if let Sink::File(path) = &job.sink
            && !files.insert(path)
        {
            let path = path.display();
            return Err(Error::Usage(format!("two answers would be written to {path}: name the files with -o")));
        }
    }
    Ok(())
}

/// Does all jobs, `parallel` at a time in their order; `ended` hears of each as it ends.
pub async fn run(
    client: &Arc<Client>,
    jobs: Vec<(Job, Meter)>,
    parallel: usize,
    mut ended: impl FnMut(usize, &Done),
) -> Vec<Done> {
    let slots = Arc::new(Semaphore::new(parallel.max(1)));
    let mut running = JoinSet::new();
    let mut all: Vec<Done> = jobs.iter().map(|_| Done::default()).collect();
    for (n, (job, meter)) in jobs.into_iter().enumerate() {
        let (client, slots) = (client.clone(), slots.clone());
        running.spawn(async move {
            // Nobody closes the semaphore; its queue keeps the order.
            let _slot = slots.acquire_owned().await;
            (n, download::run(&client, &job, &meter).await)
        });
    }
    while let Some(joined) = running.join_next().await {
        if let Ok((n, done)) = joined {
            ended(n, &done);
            if let Some(place) = all.get_mut(n) {
                *place = done;
            }
        }
    }
    for done in all.iter_mut().filter(|d| d.tries == 0 && d.failed.is_none()) {
        done.failed = Some(Error::Local { what: "the job".into(), why: "its task ended early".into() });
    }
    all
}
