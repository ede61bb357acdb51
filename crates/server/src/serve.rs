//! A serving process from its start to its end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_cluster::Peers;
use tidegate_filter::Registry;
use tidegate_stats::Store;
use tidegate_worker::{Tuning, Workers};
use tokio::time::MissedTickBehavior;

use crate::build::{Builder, Draft};
use crate::cli::ServeOptions;
use crate::control::{Control, Parts, Stage};
use crate::discovered::Tally;
use crate::logging::Log;
use crate::reload::{self, Trigger, lines};
use crate::runtime::RuntimeLoader;
use crate::signals::{Signal, Signals};
use crate::snapshot::Source;
use crate::watch::{Watch, Watched};
use crate::workers::WorkerState;
use crate::{admin, certificates, discovery, gauges, overload, shutdown};

/// Why the process could not start; printed once.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The user's configuration.
    #[error("{problems}\nerror initializing configuration '{name}'")]
    Config { name: String, problems: String },
    /// An address of the configuration, or one of its sockets.
    #[error("{0}")]
    Listen(String),
    /// The system.
    #[error("{what}: {error}")]
    System { what: &'static str, error: std::io::Error },
}

/// Serves `source` until a signal ends it.
///
/// # Errors
/// [`StartError`]: nothing was served.
pub(crate) fn serve(
    options: ServeOptions,
    source: Source,
    registry: Registry,
    ready: impl FnOnce(&Control),
) -> Result<ExitCode, StartError> {
    let started = Instant::now();
    let log = Log::start(options.log_level, options.log_path.as_deref(), options.log_format.clone())
        .map_err(|error| StartError::System { what: "--log-path", error })?;
    log.set_components(&options.component_log_level);
    // One shard for the main thread.
    let store = Store::new(1 + options.workers());
    let runtime_loader = RuntimeLoader::new(&store);
    let builder = Builder { registry: &registry, store: &store, options: &options, runtime: &runtime_loader };
    let draft = Draft::build(&source, &builder, None)
        .map_err(|errors| StartError::Config { name: source.name(), problems: lines(&errors) })?;
    let (snapshot, tallies) = draft.finish(&builder, None);
    tallies.into_iter().for_each(Tally::count);
    let snapshot = Arc::new(snapshot);
    let peers = Arc::new(Peers::default());
    let workers = start_workers(&options, &store, &peers)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .map_err(|error| StartError::System { what: "main thread's runtime", error })?;
    let control = Rc::new(Control::new(Parts {
        options,
        source,
        log,
        registry,
        store,
        runtime: runtime_loader,
        workers: workers.mailboxes().clone(),
        peers,
        started,
        snapshot,
    }));
    let code = runtime.block_on(run(&control, ready))?;
    workers.stop();
    Ok(code)
}

fn start_workers(
    options: &ServeOptions,
    store: &Store,
    peers: &Arc<Peers>,
) -> Result<Workers<WorkerState>, StartError> {
    let tuning = Tuning {
        event_interval: options.worker_event_interval,
        global_queue_interval: options.worker_global_queue_interval,
    };
    let (store, peers) = (store.clone(), peers.clone());
    let state = move |index| WorkerState::new(index, store.clone(), &peers);
    Workers::start(options.workers(), tuning, state)
        .map_err(|error| StartError::System { what: "starting workers", error })
}

/// The main thread's life: start, serve, end.
async fn run(control: &Rc<Control>, ready: impl FnOnce(&Control)) -> Result<ExitCode, StartError> {
    let mut signals =
        Signals::new().map_err(|error| StartError::System { what: "signal handlers", error })?;
    // The admin address first, as Envoy does: it is the cheaper one to be refused.
    let _admin = admin::start(control).map_err(StartError::Listen)?;
    control.enter(Stage::Initializing);
    tokio::select! {
        served = reload::first(control) => served.map_err(StartError::Listen)?,
        // There is nothing to drain yet.
        () = ended_early(control, &mut signals) => {
            tracing::warn!(target: "main", "exiting before the clusters are warm");
            return Ok(ExitCode::SUCCESS);
        }
    }
    control.enter(Stage::Live);
    gauges::started(control);
    tracing::info!(target: "main", "starting main dispatch loop: {} workers", control.options.workers());
    ready(control);
    until_end(control, &mut signals).await;
    control.enter(Stage::Ending);
    shutdown::run(control, &mut signals).await;
    Ok(ExitCode::SUCCESS)
}

/// Returns when the process is to end although it does not serve yet.
async fn ended_early(control: &Rc<Control>, signals: &mut Signals) {
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::End => return,
                Signal::Reload => reload::ask(control, Trigger::Signal),
                Signal::ReopenLogs => shutdown::reopen_logs(control),
            },
            () = control.quit.notified() => return,
        }
    }
}

/// The control plane's loop. Nothing in it waits: a reload that waits for clusters holds up no signal.
async fn until_end(control: &Rc<Control>, signals: &mut Signals) {
    let mut watch = start_watch(control);
    let mut overload = overload::Manager::new(control);
    let flush_every = control.snapshot().base.bootstrap.stats_flush_interval.max(Duration::from_millis(1));
    let mut flush = tokio::time::interval(flush_every);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::End => return tracing::warn!(target: "main", "caught SIGTERM or SIGINT"),
                Signal::Reload => reload::ask(control, Trigger::Signal),
                Signal::ReopenLogs => shutdown::reopen_logs(control),
            },
            () = control.quit.notified() => return,
            touched = changed(&mut watch) => {
                if file_of(control).is_some_and(|file| touched.contains(file)) {
                    reload::ask(control, Trigger::File);
                }
                certificates::refresh(control);
                reload::refresh_runtime(control);
                discovery::ask(control, touched);
            }
            // Whoever reloaded may have named other files.
            () = control.reloaded.notified() => follow(&mut watch, control),
            _ = flush.tick() => gauges::flush(control),
            () = overload.refresh(control) => {}
        }
    }
}

fn start_watch(control: &Control) -> Option<Watch> {
    match Watch::start(watched(control)) {
        Ok(mut watch) => {
            // It was read before it was watched.
            if let Some(file) = file_of(control) {
                watch.suspect(file.to_owned());
            }
            suspect_stale(&mut watch, control);
            Some(watch)
        }
        Err(error) => {
            tracing::warn!(target: "config", %error, "the configuration file is not watched");
            None
        }
    }
}

/// The configuration file, the certificates and runtime directories that it names, and the files of dynamic
/// resources.
fn watched(control: &Control) -> BTreeSet<Watched> {
    let snapshot = control.snapshot();
    let paths = certificates::files(&snapshot).into_iter().chain(file_of(control).map(Path::to_owned));
    let runtime = snapshot.base.bootstrap.layered_runtime.disk_layers();
    let paths = paths.chain(runtime.map(|disk| disk.symlink_root.clone()));
    let mut files: BTreeSet<_> = paths.map(Watched::from).collect();
    files.extend(snapshot.discovered.files());
    files
}

/// The configuration file, if it can be read again: a pipe (`-c /dev/stdin`) cannot.
fn file_of(control: &Control) -> Option<&Path> {
    match &control.source {
        Source::File(path) if !std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) => Some(path),
        _ => None,
    }
}

fn follow(watch: &mut Option<Watch>, control: &Control) {
    let Some(watch) = watch else { return };
    match watch.set(watched(control)) {
        Ok(false) => {}
        Ok(true) => suspect_stale(watch, control),
        Err(error) => {
            tracing::warn!(target: "config", %error, "not all files of the configuration are watched")
        }
    }
}

/// What changed before it was watched is to be read again.
fn suspect_stale(watch: &mut Watch, control: &Control) {
    control.snapshot().discovered.stale().into_iter().for_each(|path| watch.suspect(path));
}

async fn changed(watch: &mut Option<Watch>) -> BTreeSet<PathBuf> {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}
