//! `/stats`, `/stats/prometheus`, `/reset_counters`.

use std::rc::Rc;

use regex::Regex;
use tidegate_stats::render::{self, Filter, Types, UsedOnly};

use super::Reply;
use super::query::Query;
use crate::control::Control;
use crate::gauges;

enum Format {
    Text,
    Json,
    Prometheus,
}

/// `/stats[?usedonly&filter=REGEX&format=text|json|prometheus&type=...]`
pub(super) fn stats(control: &Rc<Control>, query: &Query) -> Reply {
    let format = match query.value("format").unwrap_or("text") {
        "text" | "" => Format::Text,
        "json" => Format::Json,
        "prometheus" => Format::Prometheus,
        _ => return Reply::bad("usage: /stats?format=(html|active-html|json|prometheus|text)\n\n"),
    };
    print(control, query, &format)
}

/// `/stats/prometheus[?usedonly&filter=REGEX]`
pub(super) fn prometheus(control: &Rc<Control>, query: &Query) -> Reply {
    print(control, query, &Format::Prometheus)
}

fn print(control: &Rc<Control>, query: &Query, format: &Format) -> Reply {
    match query.value("hidden") {
        // No statistic is hidden.
        Some("only") => return empty(format),
        None | Some("" | "include" | "exclude") => {}
        Some(_) => return Reply::bad("usage: /stats?hidden=(include|only|exclude)\n\n"),
    }
    let types = match query.value("type").unwrap_or("All") {
        "All" => Types::All,
        "Counters" => Types::Counters,
        "Gauges" => Types::Gauges,
        "Histograms" => Types::Histograms,
        "TextReadouts" => Types::Texts,
        _ => return Reply::bad("invalid &type= param"),
    };
    let regex = match query.value("filter").map(Regex::new).transpose() {
        Ok(regex) => regex,
        Err(error) => return Reply::bad(format!("Invalid re2 regex: {error}")),
    };
    let matches = |name: &str| regex.as_ref().is_none_or(|regex| regex.is_match(name));
    let filter = Filter {
        name: regex.is_some().then_some(&matches),
        used_only: if query.has("usedonly") { UsedOnly::Yes } else { UsedOnly::No },
        types,
    };
    gauges::update(control);
    match format {
        Format::Text => Reply::text(render::text(&control.store, &filter)),
        Format::Json => Reply::raw_json(render::json(&control.store, &filter)),
        Format::Prometheus => Reply::text(render::prometheus(&control.store, &filter)),
    }
}

fn empty(format: &Format) -> Reply {
    match format {
        Format::Json => Reply::raw_json("{\"stats\":[]}".to_owned()),
        Format::Text | Format::Prometheus => Reply::text(""),
    }
}

/// `/reset_counters`
pub(super) fn reset_counters(control: &Rc<Control>, _: &Query) -> Reply {
    control.store.reset_counters();
    Reply::ok()
}
