//! What changes the process: `/ready`, `/healthcheck/*`, `/drain_listeners`, `/quitquitquit`, `/reload`,
//! `/reopen_logs`.

use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use tidegate_config::listener::TrafficDirection;
use tidegate_types::GracefulDrain;

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

/// The drain time, over which the connections are told.
async fn tell_to_go(control: &Control, names: &[Arc<str>]) {
    let names = names.to_vec();
    let began = tokio::time::Instant::now();
    let graceful = GracefulDrain {
        began: began.into_std(),
        time: control.options.drain_time(),
        strategy: control.options.drain_strategy,
    };
    control.workers.broadcast(move |worker| worker.drain_listeners(&names, graceful));
    tokio::time::sleep_until(began + graceful.time).await;
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
