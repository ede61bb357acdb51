//! Envoy's v3 configuration, validated: JSON or YAML text in, a tree of plain data out.
//!
//! A file per message: the validated struct with units and defaults in its docs, then the function that
//! reads it. Nothing is silently ignored: a field that is unknown, known to Envoy but not supported by
//! this build, of a wrong type or out of range, and a broken reference are errors with their place in the
//! user's file, and one run reports them all. Runtime objects, I/O beyond reading the files that the
//! configuration names, and the messages of filters are not here: those stay [`TypedConfig`] until the
//! filter registry decodes them. Start from [`Bootstrap`].

pub mod access_log;
mod address;
pub mod bootstrap;
pub mod cluster;
pub mod discovery;
pub mod error;
pub mod hcm;
pub mod listener;
pub mod loader;
pub mod overload;
pub mod protocol;
mod reader;
pub mod route;
pub mod runtime;
pub mod schema;
pub mod socket_option;
pub mod stats_config;
pub mod tcp_proxy;
pub mod tls;
pub mod transport;
pub mod values;
mod yaml;

pub use bootstrap::Bootstrap;
pub use cluster::ClusterConfig;
pub use error::ConfigError;
pub use hcm::HcmConfig;
pub use listener::ListenerConfig;
pub use loader::{Format, from_str, load};
pub use route::RouteConfig;
pub use runtime::{LayeredRuntime, Runtime, RuntimeValue};
pub use schema::schema;
pub use tcp_proxy::TcpProxyConfig;
pub use tidegate_types::json::TypedConfig;
