//! What changes the process: `/ready`, `/healthcheck/*`, `/drain_listeners`, `/quitquitquit`, `/reload`,
//! `/reopen_logs`.

use std::rc::Rc;

use http::StatusCode;
use tidegate_config::listener::TrafficDirection;

use super::Reply;
use super::query::Query;
use crate::control::{Control, Health, State};
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

/// `/drain_listeners[?graceful][&inboundonly]`: stops accepting, at once or after the drain time.
/// Open connections are not touched.
pub(super) fn drain_listeners(control: &Rc<Control>, query: &Query) -> Reply {
    let inbound_only = query.has("inboundonly");
    let names = reload::names(&control.snapshot(), |listener| {
        !inbound_only || listener.traffic_direction == TrafficDirection::Inbound
    });
    let control = control.clone();
    let after = if query.has("graceful") { control.options.drain_time() } else { Default::default() };
    tokio::task::spawn_local(async move {
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        control.stats.listeners.listener_stopped().add(names.len() as u64);
        control.workers.broadcast(move |worker| worker.stop_listeners(&names));
    });
    Reply::ok()
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
