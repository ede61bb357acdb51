//! `?mask=` of `/config_dump`: a protobuf field mask, applied to JSON.
//!
//! Without a schema a field that exists but is unset nowhere cannot be told from one that does not exist: both
//! are refused, where Envoy shows nothing of the first.

use serde_json::{Map, Value};
use tidegate_types::json::lower_camel;

/// Field paths in protobuf's spelling, as `static_clusters,version_info` gives them.
#[derive(Debug)]
pub(super) struct Mask<'a> {
    paths: Vec<&'a str>,
}

impl<'a> Mask<'a> {
    /// No mask for an empty text.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let paths: Vec<_> = text.split(',').filter(|path| !path.is_empty()).collect();
        (!paths.is_empty()).then_some(Self { paths })
    }

    /// What the mask leaves of a message: `None` if it has not every field that is asked for. Types stay.
    pub(super) fn all_of(&self, message: &Value) -> Option<Value> {
        let (left, found) = self.pick(message);
        (found == self.paths.len()).then_some(left)
    }

    /// What the mask leaves of each of `messages`; `None` if none of them has a field that is asked for.
    pub(super) fn of_each(&self, messages: &[Value]) -> Option<Vec<Value>> {
        let picked: Vec<_> = messages.iter().map(|message| self.pick(message)).collect();
        let any = picked.is_empty() || picked.iter().any(|(_, found)| *found > 0);
        any.then(|| picked.into_iter().map(|(left, _)| left).collect())
    }

    fn pick(&self, message: &Value) -> (Value, usize) {
        let mut left = typed(message);
        let found = self.paths.iter().filter(|path| copy(message, path, &mut left)).count();
        (Value::Object(left), found)
    }

    /// As protobuf prints a mask for people.
    pub(super) fn debug(&self) -> String {
        self.paths.iter().map(|path| format!("paths: \"{path}\"\n")).collect()
    }
}

/// Copies the field at `path`, and the types of the messages on the way; a list may only be the last of them.
fn copy(from: &Value, path: &str, into: &mut Map<String, Value>) -> bool {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let camel = lower_camel(name);
    let Some((key, value)) = from
        .as_object()
        .and_then(|fields| fields.get_key_value(name).or_else(|| fields.get_key_value(&*camel)))
    else {
        return false;
    };
    let Some(rest) = rest else {
        into.insert(key.clone(), value.clone());
        return true;
    };
    let begun = into.remove(key);
    let is_begun = begun.is_some();
    let mut inner = match begun {
        Some(Value::Object(begun)) => begun,
        _ => typed(value),
    };
    let found = copy(value, rest, &mut inner);
    if found || is_begun {
        into.insert(key.clone(), Value::Object(inner));
    }
    found
}

fn typed(message: &Value) -> Map<String, Value> {
    message.get("@type").map(|kind| ("@type".to_owned(), kind.clone())).into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn fields_at_paths_stay() {
        let dump = json!({"@type": "Dump", "bootstrap": {"node": {"id": "n", "cluster": "c"}, "admin": {}}, "at": 1});
        let left = |mask| Mask::parse(mask).unwrap().all_of(&dump);
        assert_eq!(
            left("bootstrap.node.id,at"),
            Some(json!({"@type": "Dump", "bootstrap": {"node": {"id": "n"}}, "at": 1}))
        );
        assert_eq!(
            left("bootstrap.node.id,bootstrap.node.cluster"),
            Some(json!({"@type": "Dump", "bootstrap": {"node": {"id": "n", "cluster": "c"}}}))
        );
        assert_eq!(left("bootstrap.nosuch"), None);
        assert_eq!(left("at.deeper"), None);
        assert_eq!(left("bootstrap,nosuch"), None);
        assert!(Mask::parse("").is_none());
    }

    #[test]
    fn messages_keep_their_types() {
        let entries = [
            json!({"@type": "A", "cluster": {"@type": "C", "name": "one", "type": "STATIC"}}),
            json!({"@type": "A", "cluster": {"@type": "C", "name": "two"}}),
        ];
        let left = |mask| Mask::parse(mask).unwrap().of_each(&entries);
        let names = left("cluster.name").unwrap();
        assert_eq!(names[1], json!({"@type": "A", "cluster": {"@type": "C", "name": "two"}}));
        assert_eq!(left("cluster.type").unwrap()[1], json!({"@type": "A"}));
        assert_eq!(left("cluster.name,cluster.type").unwrap()[1], names[1]);
        assert_eq!(left("nosuch"), None);
    }

    #[test]
    fn camel_case_in_the_file_is_found() {
        let message = json!({"loadAssignment": {"clusterName": "c"}});
        let left = Mask::parse("load_assignment.cluster_name").unwrap().all_of(&message);
        assert_eq!(left, Some(message));
    }
}
