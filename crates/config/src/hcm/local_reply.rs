//! `local_reply_config`: what the proxy's own answers look like.

use crate::access_log::AccessLogFilter;
use crate::route::HeaderMutations;

/// `LocalReplyConfig`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalReplyConfig {
    /// `mappers`: the first one whose filter matches applies.
    pub mappers: Vec<ResponseMapper>,
    /// `body_format`; `None`: the plain text of the reply.
    pub body_format: Option<BodyFormat>,
}

/// `ResponseMapper`.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseMapper {
    /// `filter`.
    pub filter: AccessLogFilter,
    /// `status_code`, 200 to 599.
    pub status: Option<u16>,
    /// `body`: replaces the text (`%LOCAL_REPLY_BODY%`).
    pub body: Option<bytes::Bytes>,
    /// `body_format_override`.
    pub body_format: Option<BodyFormat>,
    /// `headers_to_add`.
    pub headers: HeaderMutations,
}

/// `envoy.config.core.v3.SubstitutionFormatString`.
#[derive(Debug, Clone, PartialEq)]
pub struct BodyFormat {
    /// The text or JSON with `%OPERATORS%`.
    pub format: ReplyFormat,
    /// `content_type`; `None`: `text/plain`, or `application/json` for JSON.
    pub content_type: Option<String>,
    /// `omit_empty_values`.
    pub omit_empty_values: bool,
}

/// The oneof of [`BodyFormat`].
#[derive(Debug, Clone, PartialEq)]
pub enum ReplyFormat {
    /// `text_format_source` or the deprecated `text_format`.
    Text(String),
    /// `json_format`, strings in it are format strings.
    Json(tidegate_types::json::Node),
}
