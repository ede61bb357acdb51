//! Every test that runs the built binary: one test binary, to link once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod all {
    mod access_log;
    mod accounting;
    mod admin;
    mod auto_protocol;
    mod bodies;
    mod circuit_breakers;
    mod cluster_stats;
    mod command_line;
    mod connections;
    mod custom_proxy;
    mod demo;
    mod documents;
    mod examples;
    mod filter_chains;
    mod filters;
    mod forwarding;
    mod grpc;
    mod h2_answers;
    mod h2_conformance;
    mod h2_downstream;
    mod h2_limits;
    mod h2_malformed;
    mod h2_upstream;
    mod happy_eyeballs;
    mod headers;
    mod health_checks;
    mod http2_downstream;
    mod idle_rows;
    mod idle_rows_upstream;
    mod interop;
    mod interop_grpc;
    mod learned;
    mod limits;
    mod listener_filters;
    mod malformed;
    mod monitoring;
    mod network_filters;
    mod oracle;
    mod overload;
    mod pools;
    mod pools_more;
    mod pools_page;
    mod preconnect;
    mod priorities;
    mod reload;
    mod reload_load;
    mod resources;
    mod retries;
    mod reuse;
    mod routing;
    mod runtime;
    mod signals;
    mod stream_limits;
    mod strict;
    mod tcp_proxy;
    mod timeouts;
    mod tls_downstream;
    mod tls_hygiene;
    mod tls_upstream;
    mod tunnels;
    mod upgrade;
    mod upstream_failures;
}
