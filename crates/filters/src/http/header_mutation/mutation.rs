//! `envoy.config.common.mutation_rules.v3.HeaderMutation`: one change of a head, and lists of them.

use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use tidegate_filter::{Cx, LogContext};
use tidegate_types::fields::{remove_in_order, take_in_order};
use tidegate_types::{RequestHead, ResponseHead};

use super::context;
use crate::config::{HeaderRule, StringMatcher};

/// Changes in the order of the configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct MutationList(Vec<Mutation>);

#[derive(Debug, Deserialize)]
#[serde(try_from = "Message")]
enum Mutation {
    Remove(HeaderName),
    RemoveOnMatch(StringMatcher),
    Append(HeaderRule),
}

impl MutationList {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A value is rendered from the head as the changes before it left it.
    pub(super) fn apply_to_request(&self, head: &mut RequestHead, cx: &Cx) {
        for mutation in &self.0 {
            match mutation.rendered(&context(cx, Some(head), None)) {
                Some((rule, value)) => rule.put(&mut head.headers, value),
                None => mutation.remove(&mut head.headers),
            }
        }
    }

    /// As [`MutationList::apply_to_request`].
    pub(super) fn apply_to_response(&self, head: &mut ResponseHead, cx: &Cx) {
        for mutation in &self.0 {
            match mutation.rendered(&context(cx, cx.stream().request(), Some(head))) {
                Some((rule, value)) => rule.put(&mut head.headers, value),
                None => mutation.remove(&mut head.headers),
            }
        }
    }

    /// Changes fields that are not part of `cx`.
    pub(super) fn apply(&self, headers: &mut HeaderMap, cx: &LogContext<'_>) {
        for mutation in &self.0 {
            match mutation.rendered(cx) {
                Some((rule, value)) => rule.put(headers, value),
                None => mutation.remove(headers),
            }
        }
    }
}

impl Mutation {
    fn rendered(&self, cx: &LogContext<'_>) -> Option<(&HeaderRule, http::HeaderValue)> {
        match self {
            Self::Append(rule) => Some((rule, rule.render(cx)?)),
            Self::Remove(_) | Self::RemoveOnMatch(_) => None,
        }
    }

    fn remove(&self, headers: &mut HeaderMap) {
        match self {
            Self::Remove(name) => drop(take_in_order(headers, name)),
            Self::RemoveOnMatch(matcher) => {
                remove_in_order(headers, |name| matcher.matches(name.as_str()));
            }
            Self::Append(_) => {}
        }
    }
}

/// The message as it stands in the file: a oneof.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    remove: Option<String>,
    append: Option<HeaderRule>,
    remove_on_match: Option<RemoveOnMatch>,
}

#[derive(Deserialize)]
struct RemoveOnMatch {
    key_matcher: StringMatcher,
}

impl TryFrom<Message> for Mutation {
    type Error = String;

    fn try_from(message: Message) -> Result<Self, String> {
        match (message.remove, message.append, message.remove_on_match) {
            (Some(name), None, None) => crate::config::field_name(&name).map(Self::Remove),
            (None, Some(rule), None) => Ok(Self::Append(rule)),
            (None, None, Some(rule)) => Ok(Self::RemoveOnMatch(rule.key_matcher)),
            _ => Err("exactly one of remove, append and remove_on_match must be set".into()),
        }
    }
}
