//! The admin interface: a plain HTTP server on the main thread, so that it answers while workers are busy.
//!
//! Paths, methods, texts and content types are Envoy's; `/reload` is our own.
//! Source: <https://www.envoyproxy.io/docs/envoy/latest/operations/admin>. An endpoint is a line in
//! [`commands::COMMANDS`] and a function in the file of its group.

mod certs;
mod clusters;
mod commands;
mod config_dump;
mod discovered;
mod endpoints;
mod lifecycle;
mod listeners;
mod logging;
mod mask;
mod own_stats;
mod pools;
mod query;
mod redact;
mod runtime;
mod server_info;
mod stats;

use std::rc::Rc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use tidegate_codec::h1::{ServerConn, ServerOptions};
use tidegate_filter::LogContext;
use tidegate_listener::{
    Chain, Chains, Connection, Listener, ListenerOptions, ListenerStats, Serving, Terminal,
};
use tidegate_net::listen::{ListenOptions, bind};
use tidegate_types::{ConnectionInfo, RequestHead, ResponseHead, StreamInfo};

use crate::control::Control;
use crate::run::write_address;
use crate::simple_http::{self, Answer};
use commands::{Access, COMMANDS, Handler};
use own_stats::AdminStats;
use query::Query;

/// Starts the admin server that the configuration asks for, on the calling thread's runtime.
///
/// # Errors
/// When its address cannot be bound or written to `--admin-address-path`.
pub(crate) fn start(control: &Rc<Control>) -> Result<Option<Rc<Listener>>, String> {
    let snapshot = control.snapshot();
    let Some(address) = snapshot.base.bootstrap.admin.as_ref().and_then(|config| config.address.as_ref())
    else {
        tracing::info!(target: "admin", "no admin address given, so no admin HTTP server started");
        return Ok(None);
    };
    let options = ListenOptions {
        sockets: 1,
        reuse_port: false,
        backlog: None,
        unix_mode: None,
        keepalive: None,
        take_over: false,
        socket_options: Default::default(),
    };
    let bound = bind(address, &options).map_err(|error| format!("admin: {error}"))?;
    if let Some(path) = &control.options.admin_address_path {
        write_address(path, &bound.address.to_string())?;
    }
    tracing::info!(target: "admin", "admin address: {}", bound.address);
    control.admin_address.replace(Some(bound.address));
    // No limit: a full proxy must still answer its operator, as Envoy does.
    let options = ListenerOptions::plain();
    let stats = ListenerStats::main_thread(&control.store, "admin");
    let terminal = Rc::new(AdminTerminal {
        control: control.clone(),
        codec: Rc::default(),
        stats: Rc::new(AdminStats::new(&control.store)),
    });
    let socket = bound.sockets.into_iter().next().ok_or("admin: no socket")?;
    let listener = Listener::start(
        "admin".into(),
        socket,
        options,
        stats,
        Chains::only(Chain::plain(terminal)),
        Rc::default(),
    );
    listener.map(Some).map_err(|error| format!("admin: {error}"))
}

struct AdminTerminal {
    control: Rc<Control>,
    codec: Rc<ServerOptions>,
    stats: Rc<AdminStats>,
}

impl Terminal for AdminTerminal {
    fn serve(&self, connection: Connection) -> Serving {
        let Connection { io, info, presence, .. } = connection;
        let conn = ServerConn::new(io, self.codec.clone());
        let (control, stats) = (self.control.clone(), self.stats.clone());
        Box::pin(async move {
            let connection = stats.connection();
            let reason = simple_http::serve(conn, async |head, body| {
                let begun = Begun { info: info.clone(), at: SystemTime::now(), instant: Instant::now() };
                let answer = answer(&control, &head, &body).await.into_answer();
                stats.answered(answer.status);
                begun.log(&control, head, &answer);
                answer
            })
            .await;
            connection.closed(reason);
            drop(presence);
        })
    }
}

/// A request on its way to `admin.access_log`.
struct Begun {
    info: Rc<ConnectionInfo>,
    at: SystemTime,
    instant: Instant,
}

impl Begun {
    fn log(self, control: &Control, request: RequestHead, answer: &Answer) {
        let snapshot = control.snapshot();
        if snapshot.admin_logs.is_empty() {
            return;
        }
        let info = StreamInfo::new(self.info, self.at);
        info.protocol.set(Some(request.version));
        info.response_code.set(answer.status.as_u16());
        info.bytes_sent.set(answer.body.len() as u64);
        info.ended.set(Some(self.instant.elapsed()));
        let mut response = ResponseHead::new(answer.status);
        response.headers.extend(answer.headers.iter().cloned().map(|(name, value)| (Some(name), value)));
        let cx = LogContext {
            request: Some(&request),
            response: Some(&response),
            response_trailers: None,
            local_reply_body: "",
            info: &info,
        };
        snapshot.admin_logs.iter().for_each(|log| log.log(&cx));
    }
}

/// What an endpoint answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

impl Reply {
    fn text(body: impl Into<String>) -> Self {
        Self::with(StatusCode::OK, body)
    }

    fn with(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, content_type: TEXT, body: body.into() }
    }

    fn bad(body: impl Into<String>) -> Self {
        Self::with(StatusCode::BAD_REQUEST, body)
    }

    /// What Envoy answers to a command that worked.
    fn ok() -> Self {
        Self::text("OK\n")
    }

    /// JSON, indented by one as protobuf prints it.
    fn json(value: &serde_json::Value) -> Self {
        let mut body = Vec::new();
        let indent = serde_json::ser::PrettyFormatter::with_indent(b" ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut body, indent);
        // A tree of JSON values serialises.
        let _ = serde::Serialize::serialize(value, &mut serializer);
        body.push(b'\n');
        Self::raw_json(String::from_utf8(body).unwrap_or_default())
    }

    fn raw_json(body: String) -> Self {
        Self { status: StatusCode::OK, content_type: JSON, body }
    }

    fn into_answer(self) -> Answer {
        let mut answer = Answer::new(self.status, self.content_type, Bytes::from(self.body));
        let date = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now()));
        answer.headers.extend([
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0")),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::DATE, date.unwrap_or(HeaderValue::from_static(""))),
            (header::SERVER, HeaderValue::from_static("envoy")),
        ]);
        answer
    }
}

/// Finds the command and runs it.
async fn answer(control: &Rc<Control>, head: &RequestHead, body: &[u8]) -> Reply {
    let path = head.path_only();
    let Some(command) = COMMANDS.iter().find(|command| command.path == path) else {
        let help = commands::help_lines();
        return Reply::with(StatusCode::NOT_FOUND, format!("invalid path. {help}"));
    };
    if command.access == Access::Post && matches!(head.method, Method::GET | Method::HEAD) {
        let text = format!("Method {} not allowed, POST required.", head.method);
        return Reply::with(StatusCode::METHOD_NOT_ALLOWED, text);
    }
    let mut query = Query::parse(head.query().unwrap_or_default());
    if is_form(head) {
        query.add(&String::from_utf8_lossy(body));
    }
    match command.handler {
        Handler::Now(handler) => handler(control, &query),
        Handler::Later(handler) => handler(control.clone(), query).await,
    }
}

/// Parameters in the body, as a browser sends them.
fn is_form(head: &RequestHead) -> bool {
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
}

const TEXT: &str = "text/plain; charset=UTF-8";
const HTML: &str = "text/html; charset=UTF-8";
const JSON: &str = "application/json";
