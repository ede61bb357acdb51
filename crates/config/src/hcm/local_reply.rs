//! `local_reply_config`: what the proxy's own answers look like.

use crate::access_log::AccessLogFilter;
use crate::reader::{Message, Reader};
use crate::route::HeaderMutations;
use crate::values::DataSource;

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

impl Message for LocalReplyConfig {
    const NAME: &'static str = "envoy.extensions.filters.network.http_connection_manager.v3.LocalReplyConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            mappers: r
                .repeated::<Option<ResponseMapper>>("mappers")
                .or_default()
                .into_iter()
                .flatten()
                .collect(),
            body_format: r.message("body_format").optional(),
        }
    }
}

impl Message for Option<ResponseMapper> {
    const NAME: &'static str = "envoy.extensions.filters.network.http_connection_manager.v3.ResponseMapper";

    fn read(r: &Reader<'_>) -> Self {
        let filter: Option<AccessLogFilter> = r.required_message("filter");
        let status = r.u32("status_code").within(200..=599).optional();
        let body = r.message::<DataSource>("body").optional().map(|body| body.bytes);
        let body_format = r.message("body_format_override").optional();
        let response_add = r.repeated("headers_to_add").or_default();
        Some(ResponseMapper {
            filter: filter?,
            status: status.and_then(|status| status.try_into().ok()),
            body,
            body_format,
            headers: HeaderMutations { response_add, ..HeaderMutations::default() },
        })
    }
}

impl Message for BodyFormat {
    const NAME: &'static str = "envoy.config.core.v3.SubstitutionFormatString";

    fn read(r: &Reader<'_>) -> Self {
        let text = r.string("text_format").optional();
        let source = r
            .message::<DataSource>("text_format_source")
            .convert(|source| String::from_utf8(source.bytes.to_vec()).map_err(|_| "not UTF-8".to_owned()));
        let json = r.structure("json_format").optional();
        r.exactly_one(&["text_format", "text_format_source", "json_format"]);
        Self {
            format: match json {
                Some(json) => ReplyFormat::Json(json),
                None => ReplyFormat::Text(source.optional().or(text).unwrap_or_default()),
            },
            content_type: r.string("content_type").non_empty(),
            omit_empty_values: r.bool("omit_empty_values").or_default(),
        }
    }
}
