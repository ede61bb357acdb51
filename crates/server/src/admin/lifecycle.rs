//! What changes the process: `/ready`, `/healthcheck/*`, `/drain_listeners`, `/quitquitquit`, `/reload`,
//! `/reopen_logs`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tidegate_config::listener::TrafficDirection;
use tidegate_types::DrainPhase;

use super::Reply;
use super::query::Query;
use crate::control::{Control, DrainScope, Health, State};
use crate::reload::{self, Trigger};
use crate::shutdown;

/// `/ready`
pub(super) fn ready(control: &Rc<Control>, _: &Query) -> Reply {
    match control.state() {
        State::Live => Reply::text("LIVE\n"),
        other => Reply::with(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", other.as_str())),
    }
}

/// `/healthcheck/fail`: responses announce the close; idle connections are left alone.
pub(super) fn fail(control: &Rc<Control>, _: &Query) -> Reply {
    control.set_health(Health::Fail);
    Reply::ok()
}

/// `/healthcheck/ok`
pub(super) fn pass(control: &Rc<Control>, _: &Query) -> Reply {
    control.set_health(Health::Pass);
    Reply::ok()
}

/// `/drain_listeners[?graceful|skip_exit][&inboundonly]`: stops accepting. With `graceful` only after the drain time, in
/// which connections are told to go; with `skip_exit` they are told, and accepting goes on.
pub(super) fn drain_listeners(control: &Rc<Control>, query: &Query) -> Reply {
    let scope = if query.has("inboundonly") { DrainScope::Inbound } else { DrainScope::All };
    let names = reload::names(&control.snapshot(), |listener| {
        scope == DrainScope::All || listener.traffic_direction == TrafficDirection::Inbound
    });
    let drains = query.has("graceful") || query.has("skip_exit");
    let control = control.clone();
    if !drains {
        stop(&control, names);
    } else if control.begins_drain(scope) {
        let stops = !query.has("skip_exit");
        tokio::task::spawn_local(async move {
            tell_to_go(&control, &names).await;
            if stops {
                stop(&control, names);
            }
        });
    }
    Reply::ok()
}

/// The drain time: responses announce the close from its begin on, and idle connections go before its end, as in Envoy,
/// which draws the moment for each of them from what is the last quarter here.
async fn tell_to_go(control: &Control, names: &[Arc<str>]) {
    let tell = |phase| {
        let names = names.to_vec();
        control.workers.broadcast(move |worker| worker.drain_listeners(&names, phase));
    };
    let all = control.options.drain_time();
    let busy_only = all.saturating_sub(Duration::from_secs(1)) * 3 / 4;
    if !busy_only.is_zero() {
        tell(DrainPhase::Announce);
        tokio::time::sleep(busy_only).await;
    }
    tell(DrainPhase::AnnounceIdle);
    tokio::time::sleep(all - busy_only).await;
}

fn stop(control: &Control, names: Vec<Arc<str>>) {
    control.stats.listeners.listener_stopped().add(names.len() as u64);
    control.workers.broadcast(move |worker| worker.stop_listeners(&names));
}

/// `/quitquitquit`: as SIGTERM.
pub(super) fn quit(control: &Rc<Control>, _: &Query) -> Reply {
    control.quit.notify_one();
    Reply::ok()
}

/// `/reopen_logs`
pub(super) fn reopen_logs(control: &Rc<Control>, _: &Query) -> Reply {
    shutdown::reopen_logs(control);
    Reply::ok()
}

/// `/reload`: 200 once every worker serves the new configuration, 400 with what is wrong with it.
pub(super) async fn reload(control: Rc<Control>, _: Query) -> Reply {
    match reload::reload(&control, Trigger::Admin).await {
        Ok(()) => Reply::ok(),
        Err(details) => Reply::bad(format!("{details}\n")),
    }
}
