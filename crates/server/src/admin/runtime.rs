//! `/runtime` and `/runtime_modify`.

use std::rc::Rc;

use http::StatusCode;
use serde_json::{Map, Value, json};
use tidegate_config::runtime::Runtime;

use super::Reply;
use super::query::Query;
use crate::control::Control;
use crate::reload;

/// `/runtime`
pub(super) fn runtime(control: &Rc<Control>, _: &Query) -> Reply {
    Reply::json(&page(&control.snapshot().base.bootstrap.runtime))
}

/// Every key with its value in each layer, empty where a layer does not have it.
fn page(runtime: &Runtime) -> Value {
    let layers = &runtime.layers;
    let entry = |key: &String| {
        let text =
            |entries: &tidegate_config::runtime::Entries| entries.get(key).map(|entry| entry.text.clone());
        let last = layers.iter().rev().find_map(|(_, entries)| text(entries));
        let all: Vec<_> = layers.iter().map(|(_, entries)| text(entries).unwrap_or_default()).collect();
        (key.clone(), json!({"final_value": last.unwrap_or_default(), "layer_values": all}))
    };
    let entries: Map<_, _> = runtime.values.keys().map(entry).collect();
    let names: Vec<_> = layers.iter().map(|(name, _)| name.as_str()).collect();
    json!({"entries": entries, "layers": names})
}

/// `/runtime_modify?KEY=VALUE..`, or the same as a form. Answers once every worker goes by it.
pub(super) async fn modify(control: Rc<Control>, query: Query) -> Reply {
    if query.pairs().is_empty() {
        return Reply::bad(USAGE);
    }
    if !control.snapshot().base.bootstrap.layered_runtime.has_admin_layer() {
        return Reply::with(StatusCode::SERVICE_UNAVAILABLE, "No admin layer specified");
    }
    match reload::modify_runtime(&control, query.pairs()).await {
        Ok(()) => Reply::ok(),
        Err(error) => Reply::with(StatusCode::SERVICE_UNAVAILABLE, error),
    }
}

const USAGE: &str = "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n       \
                     or send the parameters as form values\n\
                     use an empty value to remove a previously added override";

#[cfg(test)]
mod tests {
    use tidegate_config::runtime::Entry;

    use super::*;

    /// The shape that Envoy 1.40 prints; its keys come in no order.
    #[test]
    fn the_page_shows_each_layer() {
        let layer = |name: &str, all: &[(&str, &str)]| {
            let entries = all.iter().map(|(key, text)| ((*key).to_owned(), Entry::of_text(text)));
            (name.to_owned(), entries.collect())
        };
        let runtime = Runtime::new(vec![layer("s", &[("a", "1"), ("b", "")]), layer("admin", &[("a", "2")])]);
        let expected = json!({
            "entries": {
                "a": {"final_value": "2", "layer_values": ["1", "2"]},
                "b": {"final_value": "", "layer_values": ["", ""]},
            },
            "layers": ["s", "admin"],
        });
        assert_eq!(page(&runtime), expected);
    }
}
