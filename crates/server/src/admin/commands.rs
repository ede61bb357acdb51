//! The list of endpoints, sorted by path, with Envoy's help texts.

use std::fmt::Write;
use std::pin::Pin;
use std::rc::Rc;

use serde_json::json;

use super::query::Query;
use super::{
    HTML, Reply, certs, clusters, config_dump, lifecycle, listeners, logging, pools, runtime, server_info,
    stats,
};
use crate::control::Control;

/// One endpoint.
pub(crate) struct Command {
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) help: &'static str,
    /// Parameter and its help.
    parameters: &'static [(&'static str, &'static str)],
    pub(crate) handler: Handler,
}

/// Who changes something must say POST, so that no browser or scraper does it by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Any method.
    Any,
    /// Any method but GET and HEAD.
    Post,
}

type Answering = Pin<Box<dyn Future<Output = Reply>>>;

/// How an endpoint answers.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    Now(fn(&Rc<Control>, &Query) -> Reply),
    Later(fn(Rc<Control>, Query) -> Answering),
}

use Access::{Any, Post};
use Handler::{Later, Now};

/// Sorted by path.
pub(crate) const COMMANDS: &[Command] = &[
    command("/", Any, "Admin home page", &[], Now(home)),
    command("/certs", Any, "print certs on machine", &[], Now(certs::certs)),
    command("/clusters", Any, "upstream cluster status", CLUSTERS, Now(clusters::clusters)),
    command("/config_dump", Any, "dump current Envoy configs", CONFIG_DUMP, Now(config_dump::config_dump)),
    command(
        "/contention",
        Any,
        "dump current Envoy mutex contention stats (if enabled)",
        &[],
        Now(|_, _| Reply::text(NO_CONTENTION)),
    ),
    command("/drain_listeners", Post, "drain listeners", DRAIN, Now(lifecycle::drain_listeners)),
    command("/healthcheck/fail", Post, "cause the server to fail health checks", &[], Now(lifecycle::fail)),
    command("/healthcheck/ok", Post, "cause the server to pass health checks", &[], Now(lifecycle::pass)),
    command("/help", Any, "print out list of admin commands", &[], Now(|_, _| Reply::text(help_lines()))),
    command(
        "/hot_restart_version",
        Any,
        "print the hot restart compatibility version",
        &[],
        Now(|_, _| Reply::text("disabled")),
    ),
    command(
        "/init_dump",
        Any,
        "dump current Envoy init manager information (experimental)",
        INIT_DUMP,
        // Nothing is left to initialise once the admin interface answers for a configuration.
        Now(|_, _| Reply::json(&json!({}))),
    ),
    command("/listeners", Any, "print listener info", LISTENERS, Now(listeners::listeners)),
    command("/logging", Post, "query/change logging levels", LOGGING, Now(logging::logging)),
    command("/memory", Any, "print current allocation/heap usage", &[], Now(server_info::memory)),
    command(
        "/pools",
        Any,
        "print upstream connection pools, by cluster and host",
        POOLS,
        Later(|control, query| Box::pin(pools::pools(control, query))),
    ),
    command("/quitquitquit", Post, "exit the server", &[], Now(lifecycle::quit)),
    command(
        "/ready",
        Any,
        "print server state, return 200 if LIVE, otherwise return 503",
        &[],
        Now(lifecycle::ready),
    ),
    command(
        "/reload",
        Post,
        "reload the configuration; answers once every worker serves it, or with what is wrong with it",
        &[],
        Later(|control, query| Box::pin(lifecycle::reload(control, query))),
    ),
    command("/reopen_logs", Post, "reopen access logs", &[], Now(lifecycle::reopen_logs)),
    command("/reset_counters", Post, "reset all counters to zero", &[], Now(stats::reset_counters)),
    command("/runtime", Any, "print runtime values", &[], Now(runtime::runtime)),
    command(
        "/runtime_modify",
        Post,
        "Adds or modifies runtime values as passed in query parameters. To delete a previously added key, use an \
         empty string as the value. Note that deletion only applies to overrides added via this endpoint; values \
         loaded from disk can be modified via override but not deleted. E.g. ?key1=value1&key2=value2...",
        &[],
        Later(|control, query| Box::pin(runtime::modify(control, query))),
    ),
    command("/server_info", Any, "print server version/status information", &[], Now(server_info::info)),
    command("/stats", Any, "print server stats", STATS, Now(stats::stats)),
    command(
        "/stats/prometheus",
        Any,
        "print server stats in prometheus format",
        PROMETHEUS,
        Now(stats::prometheus),
    ),
];

const fn command(
    path: &'static str,
    access: Access,
    help: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    handler: Handler,
) -> Command {
    Command { path, access, help, parameters, handler }
}

/// The body of `/help`, without its first words.
pub(crate) fn help_lines() -> String {
    let mut text = "admin commands are:\n".to_owned();
    for command in COMMANDS {
        let post = if command.access == Access::Post { " (POST)" } else { "" };
        // Writing to a `String` does not fail.
        let _ = writeln!(text, "  {}{post}: {}", command.path, command.help);
        for (name, help) in command.parameters {
            let _ = writeln!(text, "      {name}: {help}");
        }
    }
    text
}

/// `/`: the same list with links and buttons.
fn home(_: &Rc<Control>, _: &Query) -> Reply {
    let mut body = String::from(
        "<!DOCTYPE html>\n<html><head><title>Tidegate Admin</title></head><body><h1>Tidegate Admin</h1><table>\n",
    );
    for command in COMMANDS.iter().filter(|command| command.path != "/") {
        let (path, help) = (command.path, command.help);
        let name = path.trim_start_matches('/');
        let cell = match command.access {
            Access::Any => format!("<a href='{path}'>{name}</a>"),
            Access::Post => format!("<form action='{path}' method='post'><button>{name}</button></form>"),
        };
        let _ = writeln!(body, "<tr><td>{cell}</td><td>{help}</td></tr>");
    }
    body.push_str("</table></body></html>\n");
    Reply { content_type: HTML, ..Reply::text(body) }
}

const CLUSTERS: &[(&str, &str)] =
    &[("filter", "Regular expression (Google re2) for filtering clusters by name")];
const POOLS: &[(&str, &str)] = &[
    ("format", "File format to use: text instead of json"),
    ("filter", "Regular expression (Google re2) for filtering clusters by name"),
];
const CONFIG_DUMP: &[(&str, &str)] = &[
    ("resource", "The resource to dump"),
    (
        "mask",
        "The mask to apply. When both resource and mask are specified, the mask is applied to every element in the desired repeated field so that only a subset of fields are returned. The mask is parsed as a Protobuf::FieldMask",
    ),
    (
        "name_regex",
        "Dump only the currently loaded configurations whose names match the specified regex. Can be used with both resource and mask query parameters.",
    ),
    (
        "include_eds",
        "Dump currently loaded configuration including EDS. See the response definition for more information",
    ),
];
const DRAIN: &[(&str, &str)] = &[
    (
        "graceful",
        "When draining listeners, enter a graceful drain period prior to closing listeners. This behaviour and duration is configurable via server options or CLI",
    ),
    (
        "skip_exit",
        "When draining listeners, drain the connections but never stop the listeners. The graceful parameter has no effect when this is set, since the drain period only delays stopping the listeners",
    ),
    (
        "inboundonly",
        "Drains all inbound listeners. traffic_direction field in envoy_v3_api_msg_config.listener.v3.Listener is used to determine whether a listener is inbound or outbound.",
    ),
];
const INIT_DUMP: &[(&str, &str)] = &[(
    "mask",
    "The desired component to dump unready targets. The mask is parsed as a Protobuf::FieldMask. For example, get the unready targets of all listeners with /init_dump?mask=listener`",
)];
/// Data are not shared between workers: there are no mutexes whose contention could be traced.
const NO_CONTENTION: &str =
    "Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing.";
const LISTENERS: &[(&str, &str)] = &[("format", "File format to use; One of (text, json)")];
const LOGGING: &[(&str, &str)] = &[
    (
        "paths",
        "Change multiple logging levels by setting to <logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>.",
    ),
    (
        "level",
        "desired logging level, this will change all loggers's level; One of (, trace, debug, info, warning, error, critical, off)",
    ),
];
const STATS: &[(&str, &str)] = &[
    ("usedonly", "Only include stats that have been written by system since restart"),
    ("filter", "Regular expression (Google re2) for filtering stats"),
    ("invert_filter", "Invert the filter regex"),
    ("format", "Format to use; One of (text, json, prometheus)"),
    ("type", "Stat types to include.; One of (All, Counters, Histograms, Gauges, TextReadouts)"),
    ("histogram_buckets", "Histogram bucket display mode; One of (cumulative, disjoint, detailed, summary)"),
];
const PROMETHEUS: &[(&str, &str)] = &[
    ("usedonly", "Only include stats that have been written by system since restart"),
    ("filter", "Regular expression (Google re2) for filtering stats"),
    ("invert_filter", "Invert the filter regex"),
    ("histogram_buckets", "Histogram bucket display mode; One of (cumulative, summary)"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_says_what_wants_post() {
        assert!(COMMANDS.is_sorted_by_key(|command| command.path));
        let help = help_lines();
        assert!(help.starts_with("admin commands are:\n  /: Admin home page\n"));
        assert!(help.contains("  /quitquitquit (POST): exit the server\n"));
    }
}
