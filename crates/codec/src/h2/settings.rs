//! SETTINGS, ours and the peer's (RFC 9113 §6.5).

use bytes::BytesMut;

use super::codes::{FLOW_CONTROL_ERROR, PROTOCOL_ERROR};
use super::conn::Role;
use super::frames::{self, DEFAULT_WINDOW, FrameHead, MAX_FRAME, MAX_WINDOW, kind};
use super::options::Options;
use super::preface::PREFACE;

/// SETTINGS_HEADER_TABLE_SIZE.
const HEADER_TABLE_SIZE: u16 = 0x1;
/// SETTINGS_ENABLE_PUSH.
const ENABLE_PUSH: u16 = 0x2;
/// SETTINGS_MAX_CONCURRENT_STREAMS.
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
/// SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW_SIZE: u16 = 0x4;
/// SETTINGS_MAX_FRAME_SIZE.
const MAX_FRAME_SIZE: u16 = 0x5;
/// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 §3).
const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// What the peer has said so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerSettings {
    /// Bytes of the table that its decoder keeps.
    pub(crate) header_table_size: u32,
    /// Streams that we may open.
    pub(crate) max_streams: Option<u32>,
    /// The window of new streams.
    pub(crate) initial_window: u32,
    /// It takes extended CONNECT.
    pub(crate) extended_connect: bool,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            header_table_size: 4096,
            max_streams: None,
            initial_window: DEFAULT_WINDOW,
            extended_connect: false,
        }
    }
}

impl PeerSettings {
    /// Takes one setting; unknown ones mean nothing (RFC 9113 §6.5.2). The error is the connection's code.
    pub(crate) fn apply(&mut self, [a, b, c, d, e, f]: [u8; 6]) -> Result<(), u32> {
        let value = u32::from_be_bytes([c, d, e, f]);
        match u16::from_be_bytes([a, b]) {
            HEADER_TABLE_SIZE => self.header_table_size = value,
            ENABLE_PUSH if value > 1 => return Err(PROTOCOL_ERROR),
            MAX_CONCURRENT_STREAMS => self.max_streams = Some(value),
            INITIAL_WINDOW_SIZE if i64::from(value) > MAX_WINDOW => return Err(FLOW_CONTROL_ERROR),
            INITIAL_WINDOW_SIZE => self.initial_window = value,
            MAX_FRAME_SIZE if !(MAX_FRAME as u32..=0xff_ffff).contains(&value) => return Err(PROTOCOL_ERROR),
            ENABLE_CONNECT_PROTOCOL if value > 1 => return Err(PROTOCOL_ERROR),
            ENABLE_CONNECT_PROTOCOL => self.extended_connect = value == 1,
            _ => {}
        }
        Ok(())
    }
}

/// The longest frame that `options` let the peer send (RFC 9113 §4.2): what the custom settings say, if it is a
/// size that may be said.
pub(crate) fn max_frame(options: &Options) -> usize {
    let said = options.custom_settings.iter().find(|(id, _)| *id == MAX_FRAME_SIZE);
    said.map_or(MAX_FRAME, |(_, value)| (*value as usize).clamp(MAX_FRAME, 0xff_ffff))
}

/// Writes what a connection begins with (RFC 9113 §3.4): Envoy's settings in Envoy's order, since a client can be
/// told by them, and the connection's window. Custom ones stand before those that have names, so that the latter win.
pub(crate) fn write_greeting(out: &mut BytesMut, role: Role, options: &Options) {
    let common = [
        (HEADER_TABLE_SIZE, options.hpack_table_size),
        (ENABLE_CONNECT_PROTOCOL, u32::from(options.messages.allow_connect)),
        (MAX_CONCURRENT_STREAMS, options.max_concurrent_streams),
        (INITIAL_WINDOW_SIZE, options.initial_stream_window_size),
    ];
    let custom = &options.custom_settings;
    let first: &[(u16, u32)] = match role {
        Role::Server => &[],
        Role::Client => {
            out.extend_from_slice(PREFACE);
            &[(ENABLE_PUSH, 0)]
        }
    };
    let custom = custom.iter().filter(|(id, _)| first.iter().all(|(other, _)| other != id));
    let len = (first.len() + custom.clone().count() + common.len()) * 6;
    let head = FrameHead { kind: kind::SETTINGS, flags: 0, stream: 0, len };
    out.extend_from_slice(&head.to_bytes());
    for (id, value) in first.iter().chain(custom).chain(&common) {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
    let more = options.initial_connection_window_size.saturating_sub(DEFAULT_WINDOW);
    if more > 0 {
        out.extend_from_slice(&frames::window_update(0, more));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::MessageOptions;

    fn greeting(role: Role, options: &Options) -> Vec<u8> {
        let mut out = BytesMut::new();
        write_greeting(&mut out, role, options);
        out.to_vec()
    }

    #[test]
    fn the_first_bytes_are_envoys() {
        let server = greeting(Role::Server, &Options::default());
        let settings =
            [[0, 1, 0, 0, 16, 0], [0, 8, 0, 0, 0, 0], [0, 3, 0, 0, 4, 0], [0, 4, 1, 0, 0, 0]].concat();
        assert_eq!(server[..9], [0, 0, 24, 4, 0, 0, 0, 0, 0]);
        assert_eq!(server[9..33], settings);
        assert_eq!(server[33..], frames::window_update(0, 25_100_289));
        let tunnels = MessageOptions { allow_connect: true, ..MessageOptions::default() };
        let client = greeting(Role::Client, &Options::from(tunnels));
        assert_eq!(client[..24], PREFACE[..]);
        assert_eq!(client[24 + 9..][..18], [0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 16, 0, 0, 8, 0, 0, 0, 1]);
        let small = Options { initial_connection_window_size: 65_535, ..Options::default() };
        assert_eq!(greeting(Role::Server, &small).len(), 33);
    }

    #[test]
    fn custom_settings_stand_between() {
        let options =
            Options { custom_settings: vec![(0xffff, u32::MAX), (2, 0), (5, 20_000)], ..Options::default() };
        let server = greeting(Role::Server, &options);
        assert_eq!(server[..3], [0, 0, 42]);
        let custom = [[255, 255, 255, 255, 255, 255], [0, 2, 0, 0, 0, 0], [0, 5, 0, 0, 0x4e, 0x20]].concat();
        assert_eq!(server[9..27], custom);
        assert_eq!(server[27..29], [0, 1]);
        // Clients say that they want no push anyway.
        let client = greeting(Role::Client, &options);
        assert_eq!(client[24 + 9..][..12], [0, 2, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255]);
        assert_eq!(client[24..27], [0, 0, 42]);
        assert_eq!(max_frame(&options), 20_000);
        let tiny = Options { custom_settings: vec![(5, 1)], ..Options::default() };
        assert_eq!((max_frame(&tiny), max_frame(&Options::default())), (16_384, 16_384));
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let mut peer = PeerSettings::default();
        assert_eq!(peer.apply([0, 2, 0, 0, 0, 2]), Err(PROTOCOL_ERROR));
        assert_eq!(peer.apply([0, 4, 0x80, 0, 0, 0]), Err(FLOW_CONTROL_ERROR));
        assert_eq!(peer.apply([0, 5, 0, 0, 0x3f, 0xff]), Err(PROTOCOL_ERROR));
        assert_eq!(peer.apply([0, 8, 0, 0, 0, 2]), Err(PROTOCOL_ERROR));
        assert_eq!(peer.apply([9, 9, 0, 0, 0, 2]), Ok(()));
        assert_eq!((peer.apply([0, 3, 0, 0, 0, 7]), peer.max_streams), (Ok(()), Some(7)));
    }
}
