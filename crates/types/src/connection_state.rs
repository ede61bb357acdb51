//! What filters of one connection leave for those that come after them.

use std::any::Any;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use http::Version;

use crate::{FilterObjects, ResponseFlags};

/// Facts that filters set while a connection lives, shared by listener filters, network filters and the terminal
/// filter. The ones that Tidegate's own filters exchange have fields; others go by their type.
#[derive(Default)]
pub struct ConnectionState {
    /// The cluster to use in place of the TCP proxy's own (Envoy's filter state `envoy.tcp_proxy.cluster`).
    pub cluster: RefCell<Option<Arc<str>>>,
    /// Flags of the connection itself, for the listener's access log.
    pub flags: Cell<ResponseFlags>,
    /// What answered the connection, for the listener's access log (`%RESPONSE_CODE_DETAILS%`).
    pub details: RefCell<Option<Cow<'static, str>>>,
    /// Why this side closed the connection (`%DOWNSTREAM_LOCAL_CLOSE_REASON%`).
    pub local_close_reason: RefCell<Option<Cow<'static, str>>>,
    /// Why this side closed the upstream connection that belongs to this one
    /// (`%UPSTREAM_LOCAL_CLOSE_REASON%`).
    pub upstream_local_close_reason: RefCell<Option<Cow<'static, str>>>,
    /// The protocol of its requests, once there was one.
    pub protocol: Cell<Option<Version>>,
    /// Who reset the connection (`%DOWNSTREAM_DETECTED_CLOSE_TYPE%`).
    pub close_type: Cell<CloseType>,
    /// Who reset the upstream connection that belongs to it (`%UPSTREAM_DETECTED_CLOSE_TYPE%`); TCP sessions
    /// have a value even before they have one.
    pub upstream_close_type: Cell<Option<CloseType>>,
    /// Bytes from the client that the terminal filter took, for the listener's access log.
    pub bytes_received: Cell<u64>,
    /// Bytes to the client, likewise.
    pub bytes_sent: Cell<u64>,
    values: RefCell<Vec<Rc<dyn Any>>>,
}

/// How a connection was seen to end, as Envoy's access logs tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseType {
    /// By FIN, or not at all yet.
    #[default]
    Normal,
    /// By our RST.
    LocalReset,
    /// By the peer's RST.
    RemoteReset,
}

impl CloseType {
    /// As Envoy prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::LocalReset => "LocalReset",
            Self::RemoteReset => "RemoteReset",
        }
    }
}

/// Type-length-value entries of the PROXY header that the connection began with, for a header upstream: kept as
/// a value of [`ConnectionState`] by whoever read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyTlvs(pub Arc<[(u8, Box<[u8]>)]>);

impl ConnectionState {
    /// Keeps a value for other filters of this connection, found again by its type. A later value of the same
    /// type hides the former one.
    pub fn set<T: 'static>(&self, value: T) -> Rc<T> {
        let value = Rc::new(value);
        self.values.borrow_mut().push(value.clone());
        value
    }

    /// The last value of that type.
    pub fn value<T: 'static>(&self) -> Option<Rc<T>> {
        self.values.borrow().iter().rev().find_map(|value| value.clone().downcast::<T>().ok())
    }

    /// The objects that filters left by name; made at the first call.
    pub fn objects(&self) -> Rc<FilterObjects> {
        self.value().unwrap_or_else(|| self.set(FilterObjects::default()))
    }

    /// Adds metadata (`%DYNAMIC_METADATA%`); a later value of a key takes the place of the former one.
    pub fn add_metadata(&self, namespace: &str, entries: impl IntoIterator<Item = (String, String)>) {
        let mut all = self.value::<ConnectionMetadata>().map(|old| old.0.clone()).unwrap_or_default();
        for (key, value) in entries {
            all.retain(|(of, old, _)| of != namespace || *old != key);
            all.push((namespace.to_owned(), key, value));
        }
        self.values.borrow_mut().retain(|value| !value.is::<ConnectionMetadata>());
        self.set(ConnectionMetadata(all));
    }

    /// Adds a response flag.
    pub fn flag(&self, flag: ResponseFlags) {
        self.flags.set(self.flags.get().with(flag));
    }
}

impl fmt::Debug for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionState")
            .field("cluster", &self.cluster)
            .field("flags", &self.flags)
            .field("details", &self.details)
            .field("local_close_reason", &self.local_close_reason)
            .finish_non_exhaustive()
    }
}

/// Metadata that listener and network filters found (`%DYNAMIC_METADATA%`): namespace, key and value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionMetadata(pub Vec<(String, String, String)>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_type_the_latest_first() {
        let state = ConnectionState::default();
        state.set(1u8);
        state.set("a");
        state.set(2u8);
        assert_eq!(
            (state.value::<u8>().as_deref(), state.value::<&str>().as_deref()),
            (Some(&2), Some(&"a"))
        );
        assert!(state.value::<u32>().is_none());
    }
}
