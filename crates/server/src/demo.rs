//! What runs without arguments: a configuration to try, and an upstream that echoes what it received.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tidegate_codec::h1::{ServerConn, ServerOptions};
use tidegate_config::Format;
use tidegate_net::listen::{Acceptor, ListenOptions, ListenSocket, bind};
use tidegate_types::{Address, RequestHead};

use crate::simple_http::{self, Answer};
use crate::snapshot::Source;

/// The demo's configuration with its upstream running.
pub(crate) struct Demo {
    pub(crate) source: Source,
}

impl Demo {
    /// Starts the upstream on its own thread and a free port.
    ///
    /// # Errors
    /// What the system refused.
    pub(crate) fn start() -> Result<Self, String> {
        let options = ListenOptions {
            sockets: 1,
            reuse_port: false,
            backlog: None,
            unix_mode: None,
            keepalive: None,
            take_over: false,
            socket_options: Default::default(),
        };
        let any = Address::Ip(([127, 0, 0, 1], 0).into());
        let bound = bind(&any, &options).map_err(|error| error.to_string())?;
        let port = bound.address.port().unwrap_or_default();
        let socket = bound.sockets.into_iter().next().ok_or("no socket")?;
        let runtime = tokio::runtime::Builder::new_current_thread();
        std::thread::Builder::new()
            .name("demo".to_owned())
            .spawn(move || run(runtime, socket))
            .map_err(|error| error.to_string())?;
        let text = CONFIGURATION.replace("UPSTREAM_PORT", &port.to_string());
        Ok(Self { source: Source::Text(text.into(), Format::Json) })
    }
}

/// What to say once it serves.
pub(crate) const GREETING: &str = "\
Tidegate serves its demo configuration.

  curl http://127.0.0.1:10000/             through the proxy to an upstream that echoes
  curl http://127.0.0.1:10000/healthz      answered by the proxy itself
  curl http://127.0.0.1:9901/stats         statistics; /help lists what else there is

Your own: tidegate -c FILE. Ctrl-C ends it.";

fn run(mut builder: tokio::runtime::Builder, socket: ListenSocket) {
    let runtime = match builder.enable_all().build_local(Default::default()) {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(target: "main", %error, "no demo upstream"),
    };
    runtime.block_on(async {
        let acceptor = match Acceptor::new(socket) {
            Ok(acceptor) => acceptor,
            Err(error) => return tracing::error!(target: "main", %error, "no demo upstream"),
        };
        let options = std::rc::Rc::new(ServerOptions::default());
        loop {
            match std::future::poll_fn(|cx| acceptor.poll_accept(cx)).await {
                Ok(accepted) => {
                    let conn = ServerConn::new(accepted.io, options.clone());
                    tokio::task::spawn_local(simple_http::serve(conn, async |head, body| echo(&head, &body)));
                }
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    });
}

/// The request as JSON.
fn echo(head: &RequestHead, body: &Bytes) -> Answer {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), Value::String(text(value.as_bytes())))
    };
    let answer = json!({
        "you_asked_for": format!("{} {}", head.method, text(&head.path)),
        "host": text(&head.authority),
        "headers_the_upstream_saw": head.headers.iter().map(header).collect::<serde_json::Map<_, _>>(),
        "body": text(body),
    });
    let mut body = serde_json::to_string_pretty(&answer).unwrap_or_default();
    body.push('\n');
    let mut answer = Answer::new(StatusCode::OK, "application/json", Arc::<str>::from(body).to_string());
    answer.headers.push((http::header::CONTENT_LENGTH, answer.body.len().into()));
    answer
}

const CONFIGURATION: &str = include_str!("demo/demo.json");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_demo_is_a_valid_configuration() {
        let text = CONFIGURATION.replace("UPSTREAM_PORT", "1");
        let bootstrap = tidegate_config::from_str(&text, "demo", Format::Json).unwrap();
        assert_eq!((bootstrap.listeners.len(), bootstrap.clusters.len()), (1, 1));
    }

    #[test]
    fn echoes() {
        let head = RequestHead::new(http::Method::GET, "a.test", "/x");
        let answer = echo(&head, &Bytes::from_static(b"b"));
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(value["you_asked_for"], "GET /x");
        assert_eq!(value["body"], "b");
    }
}
