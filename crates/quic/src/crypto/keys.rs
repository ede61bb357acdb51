//! Keys of packets, and the one frame that is changed on its way into one.
//!
//! quinn-proto closes connections with the application's `CONNECTION_CLOSE` (type 0x1d) only. Where a connection ends
//! without anything being wrong, Envoy sends the transport's (0x1c) with `NO_ERROR`, and its clients can tell the
//! difference. Both frames are equally long when the application's code takes two bytes (RFC 9000 section 19.19): `1d`,
//! code, reason against `1c`, error 0, frame type 0, reason. So the key that protects the packet, which sees it whole
//! and in the clear, replaces those three bytes while [`plainly`] says so.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use quinn_proto::crypto::{self, CryptoError, KeyPair};
use rustls::Side;
use rustls::quic::{HeaderProtectionKey, PacketKey, Secrets, Suite, Version};

/// The code of an application close that is turned into a plain one: two bytes long.
pub(crate) const PLAIN_CODE: u32 = 0x100;

thread_local! {
    static IS_PLAIN: Cell<bool> = const { Cell::new(false) };
}

/// While `build` runs, application closes with [`PLAIN_CODE`] become transport closes with `NO_ERROR`.
pub(crate) fn plainly<T>(is_plain: bool, build: impl FnOnce() -> T) -> T {
    IS_PLAIN.set(is_plain);
    let built = build();
    IS_PLAIN.set(false);
    built
}

/// The keys of Initial packets to this id, which anybody can derive (RFC 9001 section 5.2).
pub fn initial(suite: Suite, dst_cid: &[u8], side: Side) -> crypto::Keys {
    pair(suite.keys(dst_cid, side, Version::V1))
}

/// Both directions' keys as `quinn_proto` takes them.
pub fn pair(keys: rustls::quic::Keys) -> crypto::Keys {
    crypto::Keys {
        header: KeyPair { local: header(keys.local.header), remote: header(keys.remote.header) },
        packet: KeyPair { local: packet(keys.local.packet), remote: packet(keys.remote.packet) },
    }
}

/// A header's key as `quinn_proto` takes it.
pub fn header(key: Box<dyn HeaderProtectionKey>) -> Box<dyn crypto::HeaderKey> {
    Box::new(Header(key))
}

/// A packet's key as `quinn_proto` takes it.
pub fn packet(key: Box<dyn PacketKey>) -> Box<dyn crypto::PacketKey> {
    Box::new(Packet(key))
}

/// Keys of later generations (RFC 9001 section 6). quinn-proto asks for the next ones when the handshake is over, and most
/// connections never use them: so they are derived when a packet needs them, which spares an idle connection 1.4 KB.
pub struct Later {
    /// What is given next, or was given last.
    generation: Arc<Generation>,
    is_given: bool,
}

impl Later {
    /// The generations after the first.
    pub fn new(secrets: Secrets) -> Self {
        Self { generation: Arc::new(Generation { secrets, keys: OnceLock::new() }), is_given: false }
    }

    /// The keys of the next generation.
    pub fn next_keys(&mut self) -> KeyPair<Box<dyn crypto::PacketKey>> {
        if std::mem::replace(&mut self.is_given, true) {
            let mut secrets = self.generation.secrets.clone();
            // There is no other way to get on.
            drop(secrets.next_packet_keys());
            self.generation = Arc::new(Generation { secrets, keys: OnceLock::new() });
        }
        let key = |is_local| LaterKey { generation: self.generation.clone(), is_local };
        KeyPair { local: Box::new(key(true)), remote: Box::new(key(false)) }
    }
}

struct Generation {
    secrets: Secrets,
    keys: OnceLock<Box<KeyPair<Packet>>>,
}

struct LaterKey {
    generation: Arc<Generation>,
    is_local: bool,
}

impl LaterKey {
    fn key(&self) -> &Packet {
        let keys = self.generation.keys.get_or_init(|| {
            let keys = self.generation.secrets.clone().next_packet_keys();
            Box::new(KeyPair { local: Packet(keys.local), remote: Packet(keys.remote) })
        });
        if self.is_local { &keys.local } else { &keys.remote }
    }
}

impl crypto::PacketKey for LaterKey {
    fn encrypt(&self, number: u64, packet: &mut [u8], header_len: usize) {
        self.key().encrypt(number, packet, header_len);
    }

    fn decrypt(&self, number: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.key().decrypt(number, header, payload)
    }

    fn tag_len(&self) -> usize {
        self.key().tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.key().confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.key().integrity_limit()
    }
}

struct Header(Box<dyn HeaderProtectionKey>);

/// A packet's parts for its header's protection (RFC 9001 section 5.4.2): first byte, packet number, sample.
fn parts(packet: &mut [u8], pn_offset: usize, sample: usize) -> Option<(&mut u8, &mut [u8], &[u8])> {
    let (first, rest) = packet.split_first_mut()?;
    let (_, numbered) = rest.split_at_mut_checked(pn_offset.checked_sub(1)?)?;
    let (number, rest) = numbered.split_at_mut_checked(4)?;
    Some((first, number, rest.get(..sample)?))
}

impl crypto::HeaderKey for Header {
    fn decrypt(&self, pn_offset: usize, packet: &mut [u8]) {
        if let Some((first, number, sample)) = parts(packet, pn_offset, self.0.sample_len()) {
            // A wrong header makes the packet's own protection fail.
            let _ = self.0.decrypt_in_place(sample, first, number);
        }
    }

    fn encrypt(&self, pn_offset: usize, packet: &mut [u8]) {
        if let Some((first, number, sample)) = parts(packet, pn_offset, self.0.sample_len()) {
            let _ = self.0.encrypt_in_place(sample, first, number);
        }
    }

    fn sample_size(&self) -> usize {
        self.0.sample_len()
    }
}

struct Packet(Box<dyn PacketKey>);

impl crypto::PacketKey for Packet {
    fn encrypt(&self, number: u64, packet: &mut [u8], header_len: usize) {
        let Some((header, body)) = packet.split_at_mut_checked(header_len) else { return };
        let Some((payload, tag)) = split_tag(body, self.0.tag_len()) else { return };
        if IS_PLAIN.get() {
            make_plain(payload);
        }
        match self.0.encrypt_in_place(number, header, payload) {
            Ok(sealed) => tag.copy_from_slice(sealed.as_ref()),
            // It does not happen; if it did, nothing of it may leave in the clear.
            Err(_) => payload.fill(0),
        }
    }

    fn decrypt(&self, number: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        let plain = self.0.decrypt_in_place(number, header, payload).map_err(|_| CryptoError)?.len();
        payload.truncate(plain);
        Ok(())
    }

    fn tag_len(&self) -> usize {
        self.0.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.0.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.0.integrity_limit()
    }
}

fn split_tag(body: &mut [u8], tag_len: usize) -> Option<(&mut [u8], &mut [u8])> {
    let length = body.len().checked_sub(tag_len)?;
    body.split_at_mut_checked(length)
}

/// Turns an application close with [`PLAIN_CODE`] into a plain one. quinn-proto puts nothing but an ACK before it. In
/// packets of the handshake it is `APPLICATION_ERROR` without a reason (RFC 9000 section 10.2.3), which there is none to
/// hide behind.
fn make_plain(payload: &mut [u8]) {
    let Some(at) = after_ack(payload) else { return };
    let Some(frame) = payload.get_mut(at..at + 3) else { return };
    if frame == [0x1d, 0x40 | (PLAIN_CODE >> 8) as u8, PLAIN_CODE as u8] || frame == [0x1c, 0x0c, 0] {
        frame.copy_from_slice(&[0x1c, 0, 0]);
    }
}

/// Where the ACK frame ends that the payload begins with (RFC 9000 section 19.3); 0 without one.
fn after_ack(payload: &[u8]) -> Option<usize> {
    let first = *payload.first()?;
    if first != 0x02 && first != 0x03 {
        return Some(0);
    }
    let mut at = 1;
    for _ in ["largest acknowledged", "delay"] {
        varint(payload, &mut at)?;
    }
    let ranges = varint(payload, &mut at)?;
    varint(payload, &mut at)?;
    for _ in 0..ranges {
        varint(payload, &mut at)?;
        varint(payload, &mut at)?;
    }
    if first == 0x03 {
        for _ in ["ECT(0)", "ECT(1)", "CE"] {
            varint(payload, &mut at)?;
        }
    }
    Some(at)
}

/// RFC 9000 section 16.
pub(super) fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let first = *bytes.get(*at)?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(*at + 1..*at + length)?;
    *at += length;
    Some(rest.iter().fold(u64::from(first & 0x3f), |value, byte| (value << 8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_becomes_plain_behind_any_ack() {
        let close = [0x1d, 0x41, 0x00, 2, b'o', b'k'];
        let plain = [0x1c, 0x00, 0x00, 2, b'o', b'k'];
        let acks: [&[u8]; 4] = [
            &[],
            &[0x02, 5, 0, 0, 0],
            &[0x02, 0x40, 100, 0x80, 0, 1, 0, 2, 1, 3, 4, 5, 6],
            &[0x03, 5, 0, 0, 0, 1, 2, 3],
        ];
        for ack in acks {
            let mut payload = [ack, &close, &[0; 8]].concat();
            make_plain(&mut payload);
            assert_eq!(payload, [ack, &plain, &[0; 8]].concat());

            let mut payload = [ack, &[0x1c, 0x0c, 0, 0], &[0; 8]].concat();
            make_plain(&mut payload);
            assert_eq!(payload, [ack, &[0x1c, 0, 0, 0], &[0; 8]].concat());
        }
    }

    #[test]
    fn nothing_else_is_touched() {
        let payloads: [&[u8]; 5] = [
            &[],
            &[0x1d, 0x41, 0x01, 0],
            &[0x02, 0x40],
            &[0x02, 5, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x1d, 0x41, 0],
            &[0x08, 0x1d, 0x41, 0x00, 0],
        ];
        for payload in payloads {
            let mut changed = payload.to_vec();
            make_plain(&mut changed);
            assert_eq!(changed, payload);
        }
    }
}
