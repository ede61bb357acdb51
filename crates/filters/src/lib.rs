//! The filters and access loggers that the standard binary has, a file or folder each.
//!
//! Nothing here uses what a third party could not import: each filter is a template to copy.
//! [`http::header_mutation`] touches heads only, [`http::buffer`] wants bodies, [`http::local_ratelimit`]
//! keeps state, replies and adds response headers; [`network::connection_limit`] is the network filter to copy.
//! Start from [`registry`].

pub mod access_log;
pub mod config;
mod connection_rate;
pub mod filter_state;
pub mod http;
pub mod listener;
pub mod network;
pub mod rbac;
mod token_bucket;

use tidegate_filter::Registry;

/// All built-ins. A custom binary adds its own: `tidegate_filters::registry().http::<MyFilter>()`.
pub fn registry() -> Registry {
    Registry::default()
        .http::<http::header_mutation::HeaderMutation>()
        .http::<http::alternate_protocols_cache::AlternateProtocolsCache>()
        .http::<http::buffer::Buffer>()
        .http::<http::health_check::HealthCheck>()
        .http::<http::local_ratelimit::LocalRateLimit>()
        .http::<http::set_filter_state::SetFilterState>()
        .listener::<listener::http_inspector::HttpInspector>()
        .listener::<listener::local_ratelimit::LocalRateLimit>()
        .listener::<listener::original_dst::OriginalDst>()
        .listener::<listener::proxy_protocol::ProxyProtocol>()
        .listener::<listener::tls_inspector::TlsInspector>()
        .network::<network::connection_limit::ConnectionLimit>()
        .network::<network::local_ratelimit::LocalRateLimit>()
        .network::<network::rbac::Rbac>()
        .network::<network::set_filter_state::SetFilterState>()
        .network::<network::sni_cluster::SniCluster>()
        .responder::<network::direct_response::DirectResponse>()
        .responder::<network::echo::Echo>()
        .access_log::<access_log::FileAccessLog>()
        .access_log::<access_log::StdoutAccessLog>()
        .access_log::<access_log::StderrAccessLog>()
}
