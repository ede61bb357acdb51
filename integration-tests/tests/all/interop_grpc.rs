//! gRPC as it is spoken outside: a client and a server of grpcio, through the proxy.
//!
//! Wants a Python with `grpc`: `python3`, or what `GRPC_PYTHON` names (`pip install grpcio` in a virtual environment).

use integration_tests::peers::{python, script, serve};
use integration_tests::process::run;
use integration_tests::proxy::Options;
use integration_tests::{Config, binary};
use serde_json::{Value, json};

/// On one worker and on two, since calls of one client's connection then share pools with others.
#[test]
fn grpcio_calls_grpcio() {
    let Some(python) = python("grpc", "GRPC_PYTHON") else {
        return binary::skipped("Python with grpc (set GRPC_PYTHON)");
    };
    let (_server, address) = serve(&mut script(&python, "grpc_server.py"));
    for concurrency in [1, 2] {
        let config = Config::new(address).hcm(json!({"codec_type": "AUTO"})).http2_upstream(json!({})).route(
            json!({"route": {"timeout": "0s", "max_stream_duration": {"grpc_timeout_header_max": "0s"}}}),
        );
        let proxy = Options { concurrency, ..Options::default() }.start(&config);
        let said = run(script(&python, "grpc_client.py").arg(proxy.address.to_string()));
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        let found: Value = serde_json::from_str(&said.stdout).unwrap();
        let expected = json!({
            "unary": ["cba", "i", {"x-trailing": "t", "x-bin-bin": "00ff"}],
            "large": true,
            "server_stream": true,
            "client_stream": "500000",
            "bidi": [50, 0, "OK"],
            "trailers_only": ["NOT_FOUND", "no such thing: \u{fc}"],
            "unimplemented": "UNIMPLEMENTED",
            "deadline": "DEADLINE_EXCEEDED",
            "deadline_upstream": "yes",
            "cancelled": "CANCELLED",
            "cancelled_upstream": "yes",
            "concurrent": 200,
        });
        assert_eq!(found, expected);
        proxy.admin.await_stat("http.ingress.downstream_rq_active", 0);
        proxy.admin.await_stat("cluster.origin.upstream_rq_active", 0);
        assert_eq!(proxy.stat("cluster.origin.upstream_rq_5xx"), 0);
    }
}
