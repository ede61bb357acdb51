//! Reloading: build, bind, publish. Any error before the publishing leaves everything as it was.

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use tidegate_config::ListenerConfig;

use crate::bind::bind_all;
use crate::build::{self, Draft};
use crate::certificates;
use crate::control::{Control, ReloadFailure, Stage};
use crate::plan::{ClusterPlan, ListenerPlan, Opening, Step};
use crate::snapshot::Snapshot;

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
pub(crate) async fn reload(control: &Control, trigger: Trigger) -> Result<(), String> {
    let _turn = control.reloading.lock().await;
    in_turn(control, trigger).await
}

async fn in_turn(control: &Control, trigger: Trigger) -> Result<(), String> {
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

async fn try_reload(control: &Control) -> Result<u64, String> {
    let old = control.snapshot();
    let builder = control.builder();
    let draft = Draft::build(&control.source, &builder, Some(&old)).map_err(|errors| lines(&errors))?;
    serve(control, &old, draft).await
}

/// Swaps `draft` in for `old`.
async fn serve(control: &Control, old: &Arc<Snapshot>, draft: Draft) -> Result<u64, String> {
    let builder = control.builder();
    let plan =
        ListenerPlan::new(&old.bootstrap.listeners, &draft.bootstrap.listeners, &control.held_addresses());
    let sockets = bind_all(&draft.bootstrap.listeners, &plan, builder.options.workers());
    let sockets = sockets.map_err(|errors| lines(&errors))?;
    if old.bootstrap.admin != draft.bootstrap.admin {
        tracing::warn!(target: "config", "a change of `admin` takes effect at the next start");
    }
    if old.bootstrap.stats_config != draft.bootstrap.stats_config {
        tracing::warn!(target: "config", "a change of `stats_config` takes effect at the next start");
    }
    let snapshot = Arc::new(draft.finish(&builder, Some(old)));
    control.attendance.begin(&snapshot, &control.store);
    control.attendance.warmed(&snapshot).await;
    if control.stage() == Stage::Ending {
        return Err("the process is about to end".to_owned());
    }
    count(control, &plan, Some(old), &snapshot);
    let published = control.publish(snapshot.clone(), &plan, sockets).await;
    control.attendance.end_all_but(&snapshot);
    published?;
    // Contexts that went on serve what their files held before.
    certificates::refresh(control);
    control.reloaded.notify_one();
    Ok(snapshot.generation)
}

/// Sets values of the admin layer; returns once every worker goes by them. What read none of them goes on as it was.
///
/// # Errors
/// What does not go with the values, one problem a line. Nothing has changed then.
pub(crate) async fn modify_runtime(control: &Control, pairs: &[(String, String)]) -> Result<(), String> {
    let _turn = control.reloading.lock().await;
    let old = control.snapshot();
    let overrides = control.runtime.overrides_with(pairs);
    let runtime = control.runtime.load_with(&old.bootstrap, &overrides).map_err(|problem| problem.message)?;
    let draft = Draft::with_runtime(runtime, &control.source, &control.builder(), &old);
    let draft = draft.map_err(|errors| lines(&errors))?;
    control.runtime.set_overrides(overrides);
    serve(control, &old, draft).await.map(drop)
}

/// Reads the directories of disk layers again, in a task of its own: the link may have been swapped. The values that
/// were read last stay if anything is wrong.
pub(crate) fn refresh_runtime(control: &Rc<Control>) {
    if control.snapshot().bootstrap.layered_runtime.disk_layers().next().is_none() {
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

async fn read_runtime(control: &Control) -> Result<News, String> {
    let old = control.snapshot();
    let runtime = control.runtime.load(&old.bootstrap).map_err(|problem| problem.message)?;
    if runtime == old.bootstrap.runtime {
        return Ok(News::None);
    }
    let draft = Draft::with_runtime(runtime, &control.source, &control.builder(), &old);
    serve(control, &old, draft.map_err(|errors| lines(&errors))?).await.map(|_| News::Served)
}

/// The first configuration: as a reload of nothing.
///
/// # Errors
/// Sockets that cannot be bound, one a line.
pub(crate) async fn first(control: &Control) -> Result<(), String> {
    let _turn = control.reloading.lock().await;
    let snapshot = control.snapshot();
    let plan = ListenerPlan::new(&[], &snapshot.bootstrap.listeners, &[]);
    let sockets = bind_all(&snapshot.bootstrap.listeners, &plan, control.options.workers());
    let sockets = sockets.map_err(|errors| lines(&errors))?;
    control.attendance.begin(&snapshot, &control.store);
    control.attendance.warmed(&snapshot).await;
    count(control, &plan, None, &snapshot);
    control.publish(snapshot, &plan, sockets).await
}

/// One a line.
pub(crate) fn lines(errors: &[impl std::fmt::Display]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Whether the text differs from what is served or was refused last. One that cannot be read differs: it may be in the middle of
/// a swap, and if not, the reload says why.
fn content_changed(control: &Control) -> bool {
    match build::read(&control.source, "") {
        Ok((text, _)) => match &*control.last_failure.borrow() {
            Some(failure) => failure.text.as_ref() != Some(&text),
            None => text != control.snapshot().text,
        },
        Err(_) => true,
    }
}

fn count(control: &Control, plan: &ListenerPlan, old: Option<&Snapshot>, new: &Snapshot) {
    let listeners = &control.stats.listeners;
    listeners.listener_added().add(plan.count(|step| matches!(step, Step::Open(Opening::Added, _))));
    listeners.listener_modified().add(plan.count(|step| matches!(step, Step::Open(Opening::Replaces, _))));
    listeners.listener_in_place_updated().add(plan.count(|step| *step == Step::Update));
    listeners.listener_removed().add(plan.removed.len() as u64);
    listeners.total_listeners_active().set(new.listeners.len() as i64);
    let before: &[_] = old.map_or(&[], |old| &old.bootstrap.clusters);
    let changes = ClusterPlan::new(before, &new.bootstrap.clusters);
    let clusters = &control.stats.clusters;
    clusters.cluster_added().add(changes.added);
    clusters.cluster_modified().add(changes.modified);
    clusters.cluster_removed().add(changes.removed);
    clusters.active_clusters().set(new.clusters.len() as i64);
    clusters.warming_clusters().set(0);
    control.stats.config.generation().set(i64::try_from(new.generation).unwrap_or(i64::MAX));
}

/// The names of the listeners that `which` takes.
pub(crate) fn names(snapshot: &Snapshot, which: impl Fn(&ListenerConfig) -> bool) -> Vec<Arc<str>> {
    let listeners = snapshot.bootstrap.listeners.iter().filter(|listener| which(listener));
    listeners.map(|listener| listener.name.as_str().into()).collect()
}
