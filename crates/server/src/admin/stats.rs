//! `/stats`, `/stats/prometheus`, `/reset_counters`.

use std::rc::Rc;

use regex::Regex;
use tidegate_stats::render::{self, Buckets, Filter, Types, UsedOnly};

use super::Reply;
use super::query::Query;
use crate::control::Control;
use crate::gauges;

enum Format {
    Text,
    Json,
    Prometheus,
}

/// `/stats[?usedonly&filter=REGEX&format=text|json|prometheus&type=...&histogram_buckets=...]`
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
    let buckets = match buckets(query, format) {
        Ok(buckets) => buckets,
        Err(refused) => return Reply::bad(refused),
    };
    let regex = match query.value("filter").map(Regex::new).transpose() {
        Ok(regex) => regex,
        Err(error) => return Reply::bad(format!("Invalid re2 regex: {error}")),
    };
    let inverted = query.has("invert_filter");
    let matches = |name: &str| regex.as_ref().is_none_or(|regex| regex.is_match(name) != inverted);
    let filter = Filter {
        name: regex.is_some().then_some(&matches),
        used_only: if query.has("usedonly") { UsedOnly::Yes } else { UsedOnly::No },
        types,
        buckets,
    };
    gauges::update(control);
    match format {
        Format::Text => Reply::text(render::text(&control.store, &filter)),
        Format::Json => Reply::raw_json(render::json(&control.store, &filter)),
        Format::Prometheus => Reply::text(render::prometheus(&control.store, &filter)),
    }
}

/// Prometheus knows no buckets but cumulative ones, and a summary; native ones need a format of their own.
fn buckets(query: &Query, format: &Format) -> Result<Buckets, &'static str> {
    let prometheus = matches!(format, Format::Prometheus);
    match query.value("histogram_buckets").unwrap_or_default() {
        "" | "none" => Ok(Buckets::Usual),
        "summary" => Ok(Buckets::Summary),
        "cumulative" => Ok(Buckets::Cumulative),
        "disjoint" | "detailed" if prometheus => Err("unsupported prometheus histogram bucket mode"),
        "disjoint" => Ok(Buckets::Disjoint),
        "detailed" => Ok(Buckets::Detailed),
        "prometheusnative" if prometheus => {
            Err("unsupported prometheusnative histogram type when not using protobuf exposition format")
        }
        "prometheusnative" => Err("Invalid histogram_buckets type for non prometheus stats type"),
        _ => Err("usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n"),
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
