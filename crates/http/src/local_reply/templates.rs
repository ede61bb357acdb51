//! `local_reply_config`: mappers and body formats, compiled.

use bytes::Bytes;
use http::HeaderValue;
use tidegate_config::Runtime;
use tidegate_config::hcm::{BodyFormat, LocalReplyConfig, ReplyFormat};
use tidegate_filter::LogContext;
use tidegate_filter::format::{Format, JsonFormat};
use tidegate_router::headers::ResponseMutations;
use tidegate_types::ResponseHead;

use crate::access_log::LogFilter;

/// How local replies look.
#[derive(Default)]
pub(crate) struct ReplyTemplates {
    mappers: Vec<Mapper>,
    body: Option<Template>,
}

struct Mapper {
    filter: LogFilter,
    status: Option<http::StatusCode>,
    body: Option<Bytes>,
    template: Option<Template>,
    headers: ResponseMutations,
}

struct Template {
    format: TemplateFormat,
    content_type: HeaderValue,
}

enum TemplateFormat {
    Text(Format),
    Json(JsonFormat),
}

/// What the templates made of a reply.
pub(crate) struct Rendered<'t> {
    pub(crate) body: Bytes,
    pub(crate) content_type: Option<HeaderValue>,
    pub(crate) status: Option<http::StatusCode>,
    headers: Option<&'t ResponseMutations>,
}

impl Rendered<'_> {
    /// Adds the mapper's fields.
    pub(crate) fn add_headers(&self, head: &mut ResponseHead, cx: &LogContext<'_>) {
        if let Some(headers) = self.headers {
            headers.apply(&mut head.headers, cx);
        }
    }
}

impl ReplyTemplates {
    /// Compiles the configuration.
    pub(crate) fn compile(config: &LocalReplyConfig, runtime: &Runtime) -> Result<Self, String> {
        let mappers = config.mappers.iter().map(|mapper| {
            Ok(Mapper {
                filter: LogFilter::compile(&mapper.filter, runtime)?,
                status: mapper.status.and_then(|status| http::StatusCode::from_u16(status).ok()),
                body: mapper.body.clone(),
                template: mapper.body_format.as_ref().map(Template::compile).transpose()?,
                headers: ResponseMutations::compile(&mapper.headers)?,
            })
        });
        Ok(Self {
            mappers: mappers.collect::<Result<_, String>>()?,
            body: config.body_format.as_ref().map(Template::compile).transpose()?,
        })
    }

    /// Whether replies go out as they are.
    pub(crate) fn is_empty(&self) -> bool {
        self.mappers.is_empty() && self.body.is_none()
    }

    /// Rewrites a reply: the first mapper that matches, then the body format.
    pub(crate) fn render(&self, cx: &LogContext<'_>, body: &Bytes) -> Rendered<'_> {
        let mapper = self.mappers.iter().find(|mapper| mapper.filter.matches(cx));
        let status = mapper.and_then(|mapper| mapper.status);
        if let Some(status) = status {
            cx.info.response_code.set(status.as_u16());
        }
        let body = mapper.and_then(|mapper| mapper.body.clone()).unwrap_or_else(|| body.clone());
        let template = mapper.and_then(|mapper| mapper.template.as_ref()).or(self.body.as_ref());
        let headers = mapper.map(|mapper| &mapper.headers);
        let Some(template) = template else {
            return Rendered { body, content_type: None, status, headers };
        };
        let text = String::from_utf8_lossy(&body).into_owned();
        let cx = LogContext { local_reply_body: &text, ..*cx };
        let mut out = String::new();
        match &template.format {
            TemplateFormat::Text(format) => format.write(&cx, &mut out),
            TemplateFormat::Json(format) => format.write(&cx, &mut out),
        }
        Rendered { body: out.into(), content_type: Some(template.content_type.clone()), status, headers }
    }
}

impl Template {
    fn compile(config: &BodyFormat) -> Result<Self, String> {
        let (format, default) = match &config.format {
            ReplyFormat::Text(text) => {
                let format = Format::parse(text).map_err(|error| error.to_string())?;
                (TemplateFormat::Text(format), "text/plain")
            }
            ReplyFormat::Json(node) => {
                let format = JsonFormat::parse(node, config.omit_empty_values)
                    .map_err(|(key, error)| format!("{key}: {error}"))?;
                (TemplateFormat::Json(format), "application/json")
            }
        };
        let content_type = config.content_type.as_deref().unwrap_or(default);
        let content_type = HeaderValue::from_str(content_type)
            .map_err(|_| format!("`{content_type}` is no header value"))?;
        Ok(Self { format, content_type })
    }
}
