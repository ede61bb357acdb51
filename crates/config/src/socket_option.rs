//! `envoy.config.core.v3.SocketOption`: what the kernel is told of a socket beside what has fields of its own.

use tidegate_types::json::decode_base64;

use crate::reader::{Message, Reader};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOption {
    /// `level`, as `setsockopt` takes it.
    pub level: i32,
    /// `name`, likewise.
    pub name: i32,
    /// `int_value` as a C `int`, or `buf_value`.
    pub value: Vec<u8>,
    /// `state`.
    pub state: SocketState,
    /// `type`: whether it is for stream sockets (TCP), for datagram sockets (UDP), or both.
    pub kinds: SocketKinds,
}

/// When it is applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SocketState {
    /// `STATE_PREBIND`: before the socket is bound, or connected.
    #[default]
    Prebind,
    /// `STATE_BOUND`: of a listener's socket, after it is bound.
    Bound,
    /// `STATE_LISTENING`: of a listener's socket, after it listens.
    Listening,
}

/// For which sockets it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SocketKinds {
    /// `type` is unset.
    #[default]
    All,
    /// `stream`.
    Stream,
    /// `datagram`.
    Datagram,
    /// `stream` and `datagram`.
    Both,
}

impl SocketKinds {
    /// Whether it is for TCP.
    pub fn has_stream(self) -> bool {
        self != Self::Datagram
    }

    /// Whether it is for UDP.
    pub fn has_datagram(self) -> bool {
        self != Self::Stream
    }
}

impl Message for SocketOption {
    const NAME: &'static str = "envoy.config.core.v3.SocketOption";

    fn read(r: &Reader<'_>) -> Self {
        const STATES: &[(&str, u32, SocketState)] = &[
            ("STATE_PREBIND", 0, SocketState::Prebind),
            ("STATE_BOUND", 1, SocketState::Bound),
            ("STATE_LISTENING", 2, SocketState::Listening),
        ];
        // For who reads the file.
        r.string("description").optional();
        let int = |name| {
            r.i64(name)
                .convert(|number| i32::try_from(number).map_err(|_| "no C `int`".to_owned()))
                .optional()
        };
        let number = int("int_value");
        let bytes =
            r.string("buf_value").convert(|text| decode_base64(&text).ok_or_else(|| "not base64".to_owned()));
        r.exactly_one(&["int_value", "buf_value"]);
        Self {
            level: int("level").unwrap_or(0),
            name: int("name").unwrap_or(0),
            value: bytes.optional().unwrap_or_else(|| number.unwrap_or(0).to_ne_bytes().to_vec()),
            state: r.enumeration("state", STATES, &[]).or_default(),
            kinds: r.message::<SocketKinds>("type").optional().unwrap_or_default(),
        }
    }
}

impl Message for SocketKinds {
    const NAME: &'static str = "envoy.config.core.v3.SocketOption.SocketType";

    fn read(r: &Reader<'_>) -> Self {
        let stream = r.message::<Stream>("stream").optional().is_some();
        let datagram = r.message::<Datagram>("datagram").optional().is_some();
        match (stream, datagram) {
            (false, false) => Self::All,
            (true, false) => Self::Stream,
            (false, true) => Self::Datagram,
            (true, true) => Self::Both,
        }
    }
}

struct Stream;

impl Message for Stream {
    const NAME: &'static str = "envoy.config.core.v3.SocketOption.SocketType.Stream";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}

struct Datagram;

impl Message for Datagram {
    const NAME: &'static str = "envoy.config.core.v3.SocketOption.SocketType.Datagram";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}
