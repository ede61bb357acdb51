//! The end of the process, and what rotates and flushes logs.

use std::time::Duration;

use crate::control::{Control, Health};
use crate::signals::{Signal, Signals};

/// Drains (deviation 4 from Envoy): no new connections, idle ones close at once, the others announce their
/// close and get `--drain-time-s` to finish. A second signal ends the wait.
pub(crate) async fn run(control: &Control, signals: &mut Signals) {
    tracing::warn!(target: "main", "shutting down: draining for at most {:?}", control.options.drain_time());
    control.set_health(Health::Fail);
    control.workers.broadcast(|worker| worker.begin_shutdown());
    let impatient = async { while signals.next().await != Signal::End {} };
    tokio::select! {
        () = idle(control) => {}
        () = tokio::time::sleep(control.options.drain_time()) => {
            tracing::warn!(target: "main", "drain time is over: closing what is left");
        }
        () = impatient => tracing::warn!(target: "main", "second signal: exiting at once"),
    }
    // A worker that does not answer has nothing left to close.
    let _ = control.workers.broadcast_and_wait(|worker| worker.close_all()).await;
    // Lets the connections write their access logs.
    let _ = tokio::time::timeout(LAST_WORDS, idle(control)).await;
    flush_logs(control);
    tracing::info!(target: "main", "exiting");
}

/// Returns when no worker has a connection.
async fn idle(control: &Control) {
    while let Ok(connections) = control.workers.broadcast_and_wait(|worker| worker.connections()).await {
        if connections.iter().sum::<usize>() == 0 {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Opens all log files anew (SIGUSR1, `/reopen_logs`).
pub(crate) fn reopen_logs(control: &Control) {
    if let Err(error) = control.log.reopen() {
        tracing::error!(target: "main", %error, "cannot reopen the application log");
    }
    control.snapshot().access_logs().for_each(|log| log.reopen());
    tidegate_health::event_log::reopen_all();
}

/// Writes out what access logs hold back.
pub(crate) fn flush_logs(control: &Control) {
    control.snapshot().access_logs().for_each(|log| log.flush());
}

/// How often the draining workers are asked.
const POLL: Duration = Duration::from_millis(10);

/// How long connections that are told to close now may take.
const LAST_WORDS: Duration = Duration::from_millis(200);
