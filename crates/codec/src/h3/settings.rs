//! SETTINGS (RFC 9114 §7.2.4, RFC 9204 §5, RFC 9220 §3).

use bytes::BytesMut;

use super::codes::{DUPLICATE_SETTING, Fault, HTTP2_SETTING, Handled, setting};
use super::conn::Role;
use super::frames::{FrameHead, kind, put_varint, stream_type, take_varint};
use super::options::Options;
use crate::qpack;

/// What the peer said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerSettings {
    /// SETTINGS came.
    pub(crate) known: bool,
    /// Extended CONNECT is understood.
    pub(crate) extended_connect: bool,
    /// Bytes of a head that the peer takes, each field counted with 32 more; none said: any number.
    pub(crate) max_field_section: Option<u64>,
}

impl PeerSettings {
    /// Reads the payload of a SETTINGS frame.
    pub(crate) fn parse(mut payload: &[u8]) -> Handled<Self> {
        let mut settings = Self { known: true, ..Self::default() };
        // A setting MUST NOT come twice (RFC 9114 §7.2.4); others than ours are remembered as far as there is room.
        let mut seen = Vec::new();
        while !payload.is_empty() {
            let id = take_varint(&mut payload).ok_or(Fault::frame("Unable to read setting identifier."))?;
            let value = take_varint(&mut payload).ok_or(Fault::frame("Unable to read setting value."))?;
            if matches!(id, 0x0 | 0x2..=0x5) {
                return Err(HTTP2_SETTING.about(id));
            }
            if seen.contains(&id) {
                return Err(DUPLICATE_SETTING);
            }
            if seen.len() < MAX_SEEN {
                seen.push(id);
            }
            match id {
                MAX_FIELD_SECTION_SIZE => settings.max_field_section = Some(value),
                ENABLE_CONNECT_PROTOCOL if value > 1 => return Err(BAD_CONNECT.about(value)),
                H3_DATAGRAM if value > 1 => return Err(BAD_DATAGRAM.about(value)),
                ENABLE_CONNECT_PROTOCOL => settings.extended_connect = value == 1,
                _ => {}
            }
        }
        Ok(settings)
    }
}

/// The first bytes of our control stream.
pub(crate) fn write_greeting(out: &mut BytesMut, role: Role, options: &Options) {
    put_varint(out, stream_type::CONTROL);
    let mut payload = BytesMut::with_capacity(24);
    put_varint(&mut payload, QPACK_MAX_TABLE_CAPACITY);
    put_varint(&mut payload, qpack::CAPACITY as u64);
    put_varint(&mut payload, MAX_FIELD_SECTION_SIZE);
    put_varint(&mut payload, u64::from(options.messages.max_head_bytes));
    put_varint(&mut payload, QPACK_BLOCKED_STREAMS);
    put_varint(&mut payload, qpack::BLOCKED_STREAMS as u64);
    if role == Role::Server && options.messages.allow_connect {
        put_varint(&mut payload, ENABLE_CONNECT_PROTOCOL);
        put_varint(&mut payload, 1);
    }
    FrameHead { kind: kind::SETTINGS, len: payload.len() as u64 }.put(out);
    out.extend_from_slice(&payload);
}

const BAD_CONNECT: Fault = setting("Received SETTINGS_ENABLE_CONNECT_PROTOCOL with invalid value {}");
const BAD_DATAGRAM: Fault = setting("Received SETTINGS_H3_DATAGRAM with invalid value {}");

const QPACK_MAX_TABLE_CAPACITY: u64 = 0x1;
const QPACK_BLOCKED_STREAMS: u64 = 0x7;
const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
const H3_DATAGRAM: u64 = 0x33;

/// Identifiers of which it is known that they came: no peer sends as many.
const MAX_SEEN: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fields::MessageOptions;

    #[test]
    fn settings_are_read() {
        assert_eq!(
            PeerSettings::parse(b"").unwrap(),
            PeerSettings { known: true, ..PeerSettings::default() }
        );
        let settings =
            PeerSettings::parse(b"\x06\x50\x00\x08\x01\x33\x01\x01\x00\x07\x00\x4a\x0a\x05").unwrap();
        assert_eq!((settings.extended_connect, settings.max_field_section), (true, Some(4096)));
        for (bytes, fault) in [
            (&b"\x08\x02"[..], BAD_CONNECT.about(2)),
            (b"\x33\x02", BAD_DATAGRAM.about(2)),
            (b"\x06\x01\x06\x01", DUPLICATE_SETTING),
            (b"\x4a\x0a\x05\x4a\x0a\x05", DUPLICATE_SETTING),
            (b"\x02\x01", HTTP2_SETTING.about(2)),
            (b"\x03\x01", HTTP2_SETTING.about(3)),
            (b"\x06", Fault::frame("Unable to read setting value.")),
            (b"\x46", Fault::frame("Unable to read setting identifier.")),
        ] {
            assert_eq!(PeerSettings::parse(bytes), Err(fault), "{bytes:x?}");
        }
    }

    #[test]
    fn what_is_said_is_understood() {
        let options = Options::from(MessageOptions { allow_connect: true, ..MessageOptions::default() });
        let mut out = BytesMut::new();
        write_greeting(&mut out, Role::Server, &options);
        let (head, len) = FrameHead::parse(&out[1..]).unwrap();
        assert_eq!((out[0], head.kind, head.len as usize), (0, kind::SETTINGS, out.len() - 1 - len));
        let settings = PeerSettings::parse(&out[1 + len..]).unwrap();
        assert_eq!((settings.extended_connect, settings.max_field_section), (true, Some(60 * 1024)));
    }
}
