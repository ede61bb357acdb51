//! The filter SDK: what a filter, an access logger or a custom build imports.
//!
//! A filter is a type that implements [`HttpFilterType`]: it names its configuration, builds a
//! factory from it when a configuration is loaded, and opens up to two independent halves per
//! stream. Every hook answers a [`Step`]: `Now` costs nothing, `Later` suspends this direction of
//! this stream until the future is ready. A network filter, which sees the bytes of a connection, implements
//! [`NetworkFilterType`] or, if it answers by itself, [`ResponderType`]. [`Registry`] maps `@type` to filters.
//!
//! This crate does no I/O and knows no codec and no concrete filter.

pub mod access_log;
pub mod callout;
pub mod flow;
pub mod format;
pub mod from_fn;
pub mod http_filter;
pub mod listener;
pub mod network;
pub mod registry;
pub mod reply;
pub mod route;
pub mod stream;

pub use access_log::{AccessLog, AccessLogContext, LogContext};
pub use callout::{CalloutError, CalloutResponse, Clusters, HttpCallout, Presence};
pub use flow::{Flow, HeadFlow, LocalFuture, Step};
pub use format::{Format, FormatError, JsonFormat, Missing};
pub use from_fn::{from_request_fn, from_response_fn};
pub use http_filter::{
    FactoryContext, HttpFilter, HttpFilterFactory, HttpFilterType, RequestFilter, ResponseFilter,
    RuntimeValues,
};
pub use listener::{Arrival, ListenerFilter, ListenerFilterFactory, ListenerFilterType, ListenerFlow};
pub use network::{
    BuiltNetwork, NetworkClose, NetworkFilter, NetworkFilterFactory, NetworkFilterType, NetworkFlow,
    NetworkRole, RespondFlow, Responder, ResponderFactory, ResponderType, Wants,
};
pub use registry::{AccessLogType, Registry};
pub use reply::LocalReply;
pub use route::{PerFilterConfig, RouteView};
pub use stream::{Cx, Stream};
