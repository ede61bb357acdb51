//! `request_headers_to_add` and `_to_remove` of a check, and `initial_metadata`.
//!
//! Envoy docs, "HTTP header manipulation": removals come first, then overwrites, then additions, all values taken
//! before the first change. There is no downstream connection: operators that ask for one have Envoy's
//! `127.0.0.1:0`.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderName, HeaderValue};
use tidegate_config::route::{AppendAction, HeaderMutations, HeaderToAdd};
use tidegate_filter::{Format, LogContext, Missing};
use tidegate_types::{Address, ConnectionInfo, RequestHead, StreamInfo, UpstreamInfo};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct HeaderChanges {
    remove: Vec<HeaderName>,
    add: Vec<Addition>,
}

#[derive(Debug)]
struct Addition {
    name: HeaderName,
    value: Value,
    action: AppendAction,
    keep_empty: bool,
}

#[derive(Debug)]
enum Value {
    Fixed(HeaderValue),
    Format(Format),
}

impl HeaderChanges {
    pub(super) fn new(config: &HeaderMutations) -> Result<Self, String> {
        let name = |name: &str| HeaderName::try_from(name).map_err(|_| format!("{name:?} is no header name"));
        Ok(Self {
            remove: config.request_remove.iter().map(|removed| name(removed)).collect::<Result<_, _>>()?,
            add: config.request_add.iter().map(Addition::new).collect::<Result<_, _>>()?,
        })
    }

    /// Changes the request that goes to `host`.
    pub(super) fn apply(&self, head: &mut RequestHead, host: &Arc<Address>) {
        if self.remove.is_empty() && self.add.is_empty() {
            return;
        }
        let values: Vec<_> = match self.add.iter().any(|addition| matches!(addition.value, Value::Format(_)))
        {
            false => self.add.iter().map(|addition| addition.value.fixed()).collect(),
            true => {
                let info = stream_info(head, host);
                let cx = LogContext {
                    request: Some(head),
                    response: None,
                    response_trailers: None,
                    local_reply_body: "",
                    info: &info,
                };
                self.add.iter().map(|addition| addition.value.evaluate(&cx)).collect()
            }
        };
        for name in &self.remove {
            head.headers.remove(name);
        }
        let mut additions = Vec::new();
        for (addition, value) in self.add.iter().zip(values) {
            let Some(value) = value.filter(|value| addition.keep_empty || !value.is_empty()) else {
                continue;
            };
            let exists = head.headers.contains_key(&addition.name);
            match addition.action {
                AppendAction::OverwriteIfExistsOrAdd => {
                    head.headers.insert(addition.name.clone(), value);
                }
                AppendAction::OverwriteIfExists if exists => {
                    head.headers.insert(addition.name.clone(), value);
                }
                AppendAction::OverwriteIfExists => {}
                AppendAction::AddIfAbsent if exists => {}
                AppendAction::AddIfAbsent | AppendAction::AppendIfExistsOrAdd => {
                    additions.push((addition, value))
                }
            }
        }
        for (addition, value) in additions {
            head.headers.append(addition.name.clone(), value);
        }
    }
}

impl Addition {
    fn new(config: &HeaderToAdd) -> Result<Self, String> {
        let wrong = |what: String| format!("header `{}`: {what}", config.key);
        let name = HeaderName::try_from(&config.key).map_err(|_| wrong("is no header name".to_owned()))?;
        let format = Format::parse(&config.value).map_err(|error| wrong(error.to_string()))?;
        let value = match format.as_static() {
            Some(text) => {
                Value::Fixed(HeaderValue::try_from(text).map_err(|_| wrong("not a valid value".to_owned()))?)
            }
            None => Value::Format(format),
        };
        Ok(Self { name, value, action: config.action, keep_empty: config.keep_empty_value })
    }
}

impl Value {
    fn fixed(&self) -> Option<HeaderValue> {
        if let Self::Fixed(value) = self { Some(value.clone()) } else { None }
    }

    fn evaluate(&self, cx: &LogContext<'_>) -> Option<HeaderValue> {
        let Self::Format(format) = self else { return self.fixed() };
        let mut text = String::new();
        format.write_with(cx, Missing::Nothing, &mut text);
        HeaderValue::try_from(text).ok()
    }
}

fn stream_info(head: &RequestHead, host: &Arc<Address>) -> StreamInfo {
    let nobody = Address::Ip(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
    let connection = ConnectionInfo::new(0, nobody.clone(), nobody, Arc::from(""));
    let info = StreamInfo::new(Rc::new(connection), SystemTime::now());
    info.protocol.set(Some(head.version));
    info.upstream.replace(Some(UpstreamInfo {
        host: host.clone(),
        remote_address: None,
        local_address: None,
        connection_id: None,
        protocol: None,
        tls: None,
    }));
    info
}
