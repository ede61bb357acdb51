//! Packet keys that are small while nobody uses them.
//!
//! A key that is ready for use is expanded: 600 bytes for a packet's key, 500 for a header's, of which a connection has
//! two each. Here a connection holds the keys as TLS derived them, and each thread keeps the expanded ones of those that
//! were used last ([`Expanded`]); expanding one takes 0.3 µs. So 2 KB less for an idle connection. [`suite`] puts it into
//! a cipher suite of rustls.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aws_lc_rs::aead;
use rustls::crypto::cipher::{AeadKey, Iv, Nonce};
use rustls::quic::{Algorithm, HeaderProtectionKey, PacketKey, Tag};
use rustls::{CipherSuite, Error, SupportedCipherSuite, Tls13CipherSuite};

/// Expanded keys of either kind that a thread keeps: those of 64 busy connections, 150 KB.
const KEPT: usize = 128;

/// The same suite, with small keys inside QUIC; any other than the three of TLS 1.3 is left as it is.
pub fn suite(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    static SUITES: [OnceLock<Tls13CipherSuite>; 3] = [const { OnceLock::new() }; 3];
    let SupportedCipherSuite::Tls13(plain) = suite else { return suite };
    let Some(at) = KINDS.iter().position(|kind| kind.suite == suite.suite()) else { return suite };
    let (Some(place), Some(kind)) = (SUITES.get(at), KINDS.get(at)) else { return suite };
    SupportedCipherSuite::Tls13(place.get_or_init(|| Tls13CipherSuite {
        common: rustls::crypto::CipherSuiteCommon {
            suite: plain.common.suite,
            hash_provider: plain.common.hash_provider,
            confidentiality_limit: plain.common.confidentiality_limit,
        },
        hkdf_provider: plain.hkdf_provider,
        aead_alg: plain.aead_alg,
        quic: Some(kind),
    }))
}

/// What one suite's keys are for.
struct Kind {
    suite: CipherSuite,
    packet: &'static aead::Algorithm,
    header: &'static aead::quic::Algorithm,
    /// RFC 9001 section 6.6, in packets.
    confidentiality: u64,
    integrity: u64,
}

static KINDS: [Kind; 3] = [
    Kind {
        suite: CipherSuite::TLS13_AES_128_GCM_SHA256,
        packet: &aead::AES_128_GCM,
        header: &aead::quic::AES_128,
        confidentiality: 1 << 23,
        integrity: 1 << 52,
    },
    Kind {
        suite: CipherSuite::TLS13_AES_256_GCM_SHA384,
        packet: &aead::AES_256_GCM,
        header: &aead::quic::AES_256,
        confidentiality: 1 << 23,
        integrity: 1 << 52,
    },
    Kind {
        suite: CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        packet: &aead::CHACHA20_POLY1305,
        header: &aead::quic::CHACHA20,
        // More than packet numbers.
        confidentiality: u64::MAX,
        integrity: 1 << 36,
    },
];

impl Algorithm for Kind {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn PacketKey> {
        Box::new(SmallPacketKey { key, iv, place: Place::new(), kind: self.like() })
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn HeaderProtectionKey> {
        Box::new(SmallHeaderKey { key, place: Place::new(), kind: self.like() })
    }

    fn aead_key_len(&self) -> usize {
        self.packet.key_len()
    }
}

impl Kind {
    /// The same, for as long as keys may live.
    fn like(&self) -> &'static Self {
        let mut kinds = KINDS.iter();
        kinds.find(|kind| kind.suite == self.suite).unwrap_or(&KINDS[0])
    }
}

/// Whose an expanded key is, and where it may be.
struct Place {
    id: u64,
    at: AtomicU32,
}

impl Place {
    fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self { id: LAST.fetch_add(1, Ordering::Relaxed) + 1, at: AtomicU32::new(0) }
    }
}

/// The expanded keys that a thread used last. When all places are taken, the first that was not used since it was looked
/// at last is taken over.
struct Expanded<K> {
    places: Vec<Used<K>>,
    hand: usize,
}

struct Used<K> {
    /// 0: nobody's.
    id: u64,
    is_recent: bool,
    key: Option<K>,
}

impl<K> Expanded<K> {
    const fn new() -> Self {
        Self { places: Vec::new(), hand: 0 }
    }

    /// The expanded key of `place`, if need be made by `expand`.
    #[inline]
    fn find(&mut self, place: &Place, expand: impl FnOnce() -> Option<K>) -> Option<&K> {
        let mut at = place.at.load(Ordering::Relaxed) as usize;
        if self.places.get(at).is_none_or(|used| used.id != place.id) {
            let key = expand()?;
            at = self.vacant();
            place.at.store(at as u32, Ordering::Relaxed);
            if let Some(used) = self.places.get_mut(at) {
                *used = Used { id: place.id, is_recent: true, key: Some(key) };
            }
        }
        let used = self.places.get_mut(at)?;
        used.is_recent = true;
        used.key.as_ref()
    }

    /// A place that is free, or freed.
    #[cold]
    fn vacant(&mut self) -> usize {
        let known = self.places.len();
        // Twice round at most: the first round makes all of them old.
        for _ in 0..2 * known {
            self.hand = (self.hand + 1) % known;
            if let Some(used) = self.places.get_mut(self.hand) {
                if used.id == 0 || known == KEPT && !used.is_recent {
                    return self.hand;
                }
                if known == KEPT {
                    used.is_recent = false;
                }
            }
        }
        self.places.push(Used { id: 0, is_recent: false, key: None });
        known
    }

    /// The key is no more.
    fn forget(&mut self, place: &Place) {
        let at = place.at.load(Ordering::Relaxed) as usize;
        if let Some(used) = self.places.get_mut(at).filter(|used| used.id == place.id) {
            *used = Used { id: 0, is_recent: false, key: None };
        }
    }
}

thread_local! {
    static PACKET_KEYS: RefCell<Expanded<aead::LessSafeKey>> = const { RefCell::new(Expanded::new()) };
    static HEADER_KEYS: RefCell<Expanded<Box<aead::quic::HeaderProtectionKey>>> =
        const { RefCell::new(Expanded::new()) };
}

struct SmallPacketKey {
    key: AeadKey,
    iv: Iv,
    place: Place,
    kind: &'static Kind,
}

impl SmallPacketKey {
    #[inline]
    fn with<T>(&self, work: impl FnOnce(&aead::LessSafeKey) -> Option<T>) -> Option<T> {
        let expand =
            || aead::UnboundKey::new(self.kind.packet, self.key.as_ref()).ok().map(aead::LessSafeKey::new);
        PACKET_KEYS.with_borrow_mut(|keys| work(keys.find(&self.place, expand)?))
    }

    /// RFC 9001 section 5.3.
    fn nonce(&self, number: u64) -> aead::Nonce {
        aead::Nonce::assume_unique_for_key(Nonce::new(&self.iv, number).0)
    }
}

impl PacketKey for SmallPacketKey {
    fn encrypt_in_place(&self, number: u64, header: &[u8], payload: &mut [u8]) -> Result<Tag, Error> {
        let sealed = self.with(|key| {
            key.seal_in_place_separate_tag(self.nonce(number), aead::Aad::from(header), payload).ok()
        });
        sealed.map(|tag| Tag::from(tag.as_ref())).ok_or(Error::EncryptError)
    }

    fn decrypt_in_place<'a>(
        &self,
        number: u64,
        header: &[u8],
        payload: &'a mut [u8],
    ) -> Result<&'a [u8], Error> {
        let opened = self.with(|key| {
            let plain = key.open_in_place(self.nonce(number), aead::Aad::from(header), payload);
            plain.ok().map(|plain| plain.len())
        });
        opened.and_then(|length| payload.get(..length)).ok_or(Error::DecryptError)
    }

    fn tag_len(&self) -> usize {
        self.kind.packet.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.kind.confidentiality
    }

    fn integrity_limit(&self) -> u64 {
        self.kind.integrity
    }
}

impl Drop for SmallPacketKey {
    fn drop(&mut self) {
        // A thread that ends has none left.
        let _ = PACKET_KEYS.try_with(|keys| keys.borrow_mut().forget(&self.place));
    }
}

struct SmallHeaderKey {
    key: AeadKey,
    place: Place,
    kind: &'static Kind,
}

impl SmallHeaderKey {
    /// RFC 9001 section 5.4.1. Which bits of the first byte are masked and how long the number is, its form and its last
    /// two bits say, as they are in the clear.
    fn mask(&self, sample: &[u8], first: &mut u8, number: &mut [u8], is_masked: bool) -> Result<(), Error> {
        let expand = || {
            let key = aead::quic::HeaderProtectionKey::new(self.kind.header, self.key.as_ref());
            key.ok().map(Box::new)
        };
        let mask = HEADER_KEYS.with_borrow_mut(|keys| keys.find(&self.place, expand)?.new_mask(sample).ok());
        let Some([of_first, of_number @ ..]) = mask else {
            return Err(Error::General("a sample of the wrong length".into()));
        };
        if number.len() > of_number.len() {
            return Err(Error::General("a packet number too long".into()));
        }
        let bits = if *first & 0x80 == 0 { 0x1f } else { 0x0f };
        let masked = *first ^ (of_first & bits);
        let clear = if is_masked { masked } else { *first };
        let length = usize::from(clear & 0x03) + 1;
        *first = masked;
        number.iter_mut().zip(of_number).take(length).for_each(|(byte, mask)| *byte ^= mask);
        Ok(())
    }
}

impl HeaderProtectionKey for SmallHeaderKey {
    fn encrypt_in_place(&self, sample: &[u8], first: &mut u8, number: &mut [u8]) -> Result<(), Error> {
        self.mask(sample, first, number, false)
    }

    fn decrypt_in_place(&self, sample: &[u8], first: &mut u8, number: &mut [u8]) -> Result<(), Error> {
        self.mask(sample, first, number, true)
    }

    fn sample_len(&self) -> usize {
        self.kind.header.sample_len()
    }
}

impl Drop for SmallHeaderKey {
    fn drop(&mut self) {
        let _ = HEADER_KEYS.try_with(|keys| keys.borrow_mut().forget(&self.place));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
    use rustls::quic::{Keys, Version};

    use super::*;

    fn keys(suite: SupportedCipherSuite, number: u64) -> Keys {
        let suite = suite.tls13().unwrap();
        Keys::initial(Version::V1, suite, suite.quic.unwrap(), &number.to_be_bytes(), rustls::Side::Server)
    }

    /// What the library's own keys make of a packet, and ours.
    fn sealed(keys: &Keys) -> (Vec<u8>, u8, [u8; 4]) {
        let mut payload = *b"what is said";
        let tag = keys.local.packet.encrypt_in_place(7, b"head", &mut payload).unwrap();
        let sealed = [&payload[..], tag.as_ref()].concat();
        let (mut first, mut number) = (0x41, [1, 2, 3, 4]);
        keys.local.header.encrypt_in_place(&sealed[..16], &mut first, &mut number).unwrap();
        (sealed, first, number)
    }

    #[test]
    fn small_keys_do_what_the_librarys_do() {
        for plain in ALL_CIPHER_SUITES.iter().filter(|suite| suite.tls13().is_some()) {
            let small = suite(*plain);
            assert_eq!(small.suite(), plain.suite());
            let (small, plain) = (keys(small, 1), keys(*plain, 1));
            let (bytes, mut first, mut number) = sealed(&small);
            assert_eq!((bytes.clone(), first, number), sealed(&plain));
            small.local.header.decrypt_in_place(&bytes[..16], &mut first, &mut number).unwrap();
            assert_eq!((first, number), (0x41, [1, 2, 3, 4]));
            let ours = &*small.local.packet;
            let mut opened = bytes.clone();
            assert_eq!(ours.decrypt_in_place(7, b"head", &mut opened).unwrap(), b"what is said");
            assert!(ours.decrypt_in_place(8, b"head", &mut bytes.clone()).is_err());
            let theirs = &*plain.local.packet;
            let facts =
                |key: &dyn PacketKey| (key.tag_len(), key.confidentiality_limit(), key.integrity_limit());
            assert_eq!(facts(ours), facts(theirs));
        }
    }

    #[test]
    fn more_keys_than_places_take_turns() {
        let plain = ALL_CIPHER_SUITES.iter().find(|suite| suite.suite() == KINDS[0].suite).unwrap();
        let many: Vec<_> = (0..2 * KEPT as u64).map(|n| keys(suite(*plain), n)).collect();
        for _ in 0..2 {
            for (keys_of_it, number) in many.iter().zip(0..) {
                assert_eq!(sealed(keys_of_it), sealed(&keys(*plain, number)));
                // One that is used all the time stays.
                let busy = many[0].local.packet.encrypt_in_place(1, b"", &mut [0; 4]);
                assert!(busy.is_ok());
            }
        }
        PACKET_KEYS.with_borrow(|keys| assert_eq!(keys.places.len(), KEPT));
        drop(many);
        PACKET_KEYS.with_borrow(|keys| assert!(keys.places.iter().all(|used| used.key.is_none())));
    }
}
