//! Reloading: build, bind, publish. Any error before the publishing leaves everything as it was.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tidegate_cluster::ClusterShared;
use tidegate_config::ListenerConfig;

use crate::bind::{BindError, bind_all};
use crate::build::{self, Draft, Previous};
use crate::control::{Control, ReloadFailure, Stage};
use crate::discovered::Tally;
use crate::plan::{ClusterPlan, ListenerPlan, Opening, Step};
use crate::snapshot::{Snapshot, Source};
use crate::{certificates, discovery};

/// Why there is a reload; printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// SIGHUP.
    Signal,
    /// `POST /reload`.
    Admin,
    /// Something happened to the file: nothing is to be done if its text is the same.
    File,
}

/// Reloads in a task of its own: it may have to wait for clusters, and a panic in a filter's factory costs the
/// reload and not the process. The outcome is logged and counted. While one reload runs and another waits for
/// it, there is nothing to add: the one that waits reads what is there when its turn comes.
pub(crate) fn ask(control: &Rc<Control>, trigger: Trigger) {
    let waiting = control.reload_waits.get();
    // A signal reloads a file that did not change too.
    control.reload_waits.set(waiting.filter(|waiting| *waiting == Trigger::Signal).or(Some(trigger)));
    if waiting.is_some() {
        return;
    }
    let control = control.clone();
    let task = tokio::task::spawn_local(async move {
        let _turn = control.reloading.lock().await;
        if let Some(trigger) = control.reload_waits.take() {
            drop(in_turn(&control, trigger).await);
        }
    });
    tokio::task::spawn_local(async move {
        if let Err(error) = task.await {
            tracing::error!(target: "config", %error, "a reload panicked; nothing has changed");
        }
    });
}

/// Loads the configuration anew and swaps it in; returns once every worker serves it.
///
/// # Errors
/// What is wrong, one problem a line. Nothing has changed then (unless a worker failed, which the text says).
pub(crate) async fn reload(control: &Rc<Control>, trigger: Trigger) -> Result<(), String> {
    let _turn = control.reloading.lock().await;
    in_turn(control, trigger).await
}

async fn in_turn(control: &Rc<Control>, trigger: Trigger) -> Result<(), String> {
    if trigger == Trigger::File && !content_changed(control) {
        return Ok(());
    }
    control.stats.config.reload_attempt().inc();
    let result = try_reload(control).await;
    match &result {
        Ok(generation) => {
            control.stats.config.reload_success().inc();
            control.last_failure.take();
            tracing::info!(target: "config", "configuration reloaded: generation {generation} ({trigger:?})");
        }
        Err(details) => {
            control.stats.config.reload_failed().inc();
            let text = build::read(&control.source, "").ok().map(|(text, _)| text);
            let failure = ReloadFailure { at: SystemTime::now(), details: details.clone(), text };
            control.last_failure.replace(Some(failure));
            tracing::error!(target: "config",
                "configuration refused, generation {} goes on serving:\n{details}",
                control.snapshot().generation);
        }
    }
    result.map(drop)
}

async fn try_reload(control: &Rc<Control>) -> Result<u64, String> {
    let old = control.snapshot();
    let warming = control.warming.borrow().clone();
    let builder = control.builder();
    let previous = Previous { snapshot: &old, warming: &warming };
    let draft = Draft::build(&control.source, &builder, Some(previous)).map_err(|errors| lines(&errors))?;
    serve(control, draft).await
}

/// Puts `draft` in force, as one whole.
async fn serve(control: &Rc<Control>, draft: Draft) -> Result<u64, String> {
    let old = control.snapshot();
    let (before, after) = (&old.base.bootstrap, &draft.base.bootstrap);
    if before.admin != after.admin {
        tracing::warn!(target: "config", "a change of `admin` takes effect at the next start");
    }
    if before.stats_config != after.stats_config {
        tracing::warn!(target: "config", "a change of `stats_config` takes effect at the next start");
    }
    let other_listeners = before.dynamic.lds != after.dynamic.lds;
    swap(control, draft, Wait::ForAll).await.map_err(|error| error.to_string())?;
    if other_listeners {
        discovery::listeners(control).await;
    }
    // Contexts that went on serve what their files held before.
    certificates::refresh(control);
    control.reloaded.notify_one();
    Ok(control.snapshot().generation)
}

/// Sets values of the admin layer; returns once every worker goes by them. What read none of them goes on as it was.
///
/// # Errors
/// What does not go with the values, one problem a line. Nothing has changed then.
pub(crate) async fn modify_runtime(control: &Rc<Control>, pairs: &[(String, String)]) -> Result<(), String> {
    let _turn = control.reloading.lock().await;
    let old = control.snapshot();
    let overrides = control.runtime.overrides_with(pairs);
    let runtime =
        control.runtime.load_with(&old.base.bootstrap, &overrides).map_err(|problem| problem.message)?;
    let warming = control.warming.borrow().clone();
    let previous = Previous { snapshot: &old, warming: &warming };
    let draft = Draft::with_runtime(runtime, &control.source, &control.builder(), previous);
    let draft = draft.map_err(|errors| lines(&errors))?;
    control.runtime.set_overrides(overrides);
    serve(control, draft).await.map(drop)
}

/// Reads the directories of disk layers again, in a task of its own: the link may have been swapped. The values that
/// were read last stay if anything is wrong.
pub(crate) fn refresh_runtime(control: &Rc<Control>) {
    if control.snapshot().base.bootstrap.layered_runtime.disk_layers().next().is_none() {
        return;
    }
    let control = control.clone();
    tokio::task::spawn_local(async move {
        let _turn = control.reloading.lock().await;
        match read_runtime(&control).await {
            Ok(News::None) => {}
            Ok(News::Served) => tracing::info!(target: "runtime", "runtime reloaded"),
            Err(error) => {
                tracing::error!(target: "runtime", "runtime refused, the old one goes on:\n{error}")
            }
        }
    });
}

/// Whether there was something new.
enum News {
    None,
    Served,
}

async fn read_runtime(control: &Rc<Control>) -> Result<News, String> {
    let old = control.snapshot();
    let runtime = control.runtime.load(&old.base.bootstrap).map_err(|problem| problem.message)?;
    if runtime == old.base.bootstrap.runtime {
        return Ok(News::None);
    }
    let warming = control.warming.borrow().clone();
    let previous = Previous { snapshot: &old, warming: &warming };
    let draft = Draft::with_runtime(runtime, &control.source, &control.builder(), previous);
    serve(control, draft.map_err(|errors| lines(&errors))?).await.map(|_| News::Served)
}

/// For which new clusters to wait before any of a new configuration is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The configuration is one whole.
    ForAll,
    /// Each is in force when it is warm.
    ForNone,
}

/// Why a configuration could not be put in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SwapError {
    /// Its sockets.
    #[error("{}", lines(.0))]
    Bind(Vec<BindError>),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Puts `draft` in force: a reload's way, and that of all that files bring. It must be the caller's turn.
///
/// # Errors
/// See [`SwapError`]. Nothing has changed then, unless a worker failed.
pub(crate) async fn swap(control: &Rc<Control>, draft: Draft, wait: Wait) -> Result<u64, SwapError> {
    let old = control.snapshot();
    let warming = control.warming.borrow().clone();
    let builder = control.builder();
    let configs = draft.listener_configs();
    let plan = ListenerPlan::new(&old.listener_configs(), &configs, &control.held_places());
    let sockets = bind_all(&configs, &plan, builder.options.workers(), &control.udp_sockets)
        .map_err(SwapError::Bind)?;
    let previous = Previous { snapshot: &old, warming: &warming };
    let (mut snapshot, tallies) = draft.finish(&builder, Some(previous));
    control.attendance.begin(&snapshot, &control.store);
    let held = match wait {
        Wait::ForAll => {
            control.attendance.warmed(&snapshot).await;
            Vec::new()
        }
        Wait::ForNone => snapshot.hold_back(&old, |cluster| {
            let serves = old.cluster(cluster.name()).is_some_and(|old| std::ptr::eq(&**old, cluster));
            !serves && cluster.config().wait_for_warm_on_init && !cluster.warming().is_over()
        }),
    };
    if control.stage() == Stage::Ending {
        return Err(SwapError::Other("the process is about to end".to_owned()));
    }
    let known = |cluster: &Arc<ClusterShared>| {
        warming.get(cluster.name()).is_some_and(|known| Arc::ptr_eq(known, cluster))
    };
    held.iter()
        .filter(|cluster| !known(cluster))
        .for_each(|new| discovery::await_warmth(control, new.clone()));
    let warming: HashMap<_, _> = held.into_iter().map(|cluster| (cluster.name().clone(), cluster)).collect();
    control.warming.replace(warming.clone());
    let snapshot = Arc::new(snapshot);
    let clusters = ClusterPlan::new(Some(&old), &snapshot);
    count(control, &plan, &clusters, &snapshot);
    let published = control.publish(snapshot.clone(), clusters, &plan, sockets).await;
    control.attendance.end_all_but(&snapshot, &warming);
    published.map_err(SwapError::Other)?;
    let hosts = snapshot.discovered.eds.iter();
    hosts.for_each(|(name, hosts)| discovery::await_renewal(control, name, hosts));
    if !plan.removed.is_empty() || plan.opened() > 0 {
        let (later, drained) = (control.clone(), control.options.drain_time() + LINGER);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(drained).await;
            later.release_udp_sockets();
        });
    }
    tallies.into_iter().for_each(Tally::count);
    Ok(snapshot.generation)
}

/// How long closed QUIC connections may repeat their goodbye (RFC 9000 §10.2: three times the probe timeout).
const LINGER: Duration = Duration::from_secs(3);

/// The first configuration: as a reload of nothing.
///
/// # Errors
/// Sockets that cannot be bound, one a line.
pub(crate) async fn first(control: &Rc<Control>) -> Result<(), String> {
    let _turn = control.reloading.lock().await;
    let snapshot = control.snapshot();
    let configs = snapshot.listener_configs();
    let plan = ListenerPlan::new(&[], &configs, &[]);
    let sockets = bind_all(&configs, &plan, control.options.workers(), &control.udp_sockets);
    let sockets = sockets.map_err(|errors| lines(&errors))?;
    control.attendance.begin(&snapshot, &control.store);
    control.attendance.warmed(&snapshot).await;
    let clusters = ClusterPlan::new(None, &snapshot);
    count(control, &plan, &clusters, &snapshot);
    control.publish(snapshot.clone(), clusters, &plan, sockets).await?;
    let hosts = snapshot.discovered.eds.iter();
    hosts.for_each(|(name, hosts)| discovery::await_renewal(control, name, hosts));
    discovery::listeners(control).await;
    // As in Envoy. Nothing watched the directories since they were read.
    if let Err(error) = read_runtime(control).await {
        tracing::error!(target: "runtime", "runtime refused, the old one goes on:\n{error}");
    }
    Ok(())
}

/// One a line.
pub(crate) fn lines(errors: &[impl std::fmt::Display]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Whether the text differs from what is served or was refused last. One that cannot be read differs: it may be in the middle of
/// a swap, and if not, the reload says why.
fn content_changed(control: &Control) -> bool {
    let known = match &*control.last_failure.borrow() {
        Some(failure) => failure.text.clone(),
        None => Some(control.snapshot().base.text.clone()),
    };
    known.is_none_or(|known| match &control.source {
        Source::Text(text, _) => *text != known,
        Source::File(path) => !holds(path, known.as_bytes()).unwrap_or(false),
    })
}

/// Whether the file is `text`, looked at piece by piece: it may be large, and mostly is what it was.
fn holds(path: &Path, mut text: &[u8]) -> io::Result<bool> {
    let mut file = BufReader::with_capacity(PIECE, File::open(path)?);
    loop {
        let piece = file.fill_buf()?;
        let length = piece.len();
        match text.split_at_checked(length) {
            Some((same, rest)) if same == piece => text = rest,
            _ => return Ok(false),
        }
        if length == 0 {
            return Ok(text.is_empty());
        }
        file.consume(length);
    }
}

fn count(control: &Control, plan: &ListenerPlan, changes: &ClusterPlan, new: &Snapshot) {
    let listeners = &control.stats.listeners;
    listeners.listener_added().add(plan.count(|step| matches!(step, Step::Open(Opening::Added, _))));
    // As in Envoy, one that is updated in place is modified too.
    let modified = |step: &Step| matches!(step, Step::Open(Opening::Replaces, _) | Step::Update);
    listeners.listener_modified().add(plan.count(modified));
    listeners.listener_in_place_updated().add(plan.count(|step| *step == Step::Update));
    listeners.listener_removed().add(plan.removed.len() as u64);
    listeners.total_listeners_active().set(new.listeners.len() as i64);
    let clusters = &control.stats.clusters;
    clusters.cluster_added().add(changes.added.len() as u64);
    clusters.cluster_modified().add(changes.modified.len() as u64);
    clusters.cluster_removed().add(changes.removed.len() as u64);
    clusters.active_clusters().set(new.clusters.len() as i64);
    clusters.warming_clusters().set(control.warming.borrow().len() as i64);
    control.stats.config.generation().set(i64::try_from(new.generation).unwrap_or(i64::MAX));
}

/// The names of the listeners that `which` takes.
pub(crate) fn names(snapshot: &Snapshot, which: impl Fn(&ListenerConfig) -> bool) -> Vec<Arc<str>> {
    let listeners =
        snapshot.listeners.iter().map(|listener| &listener.config).filter(|listener| which(listener));
    listeners.map(|listener| listener.name.as_str().into()).collect()
}

/// Bytes of a file that are compared at once.
const PIECE: usize = 1 << 16;
