//! Session tickets: sessions that the client keeps for us, sealed (RFC 5077, RFC 8446 §4.6.1).
//!
//! The workers share the keys. Without configured keys they are the process's own: a new one begins each
//! life time, the one before still opens, then it is forgotten. Configured keys (`session_ticket_keys`) let
//! several proxies resume each other's sessions: the first one seals, all of them open; who configures them
//! rotates them.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest;
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use std::sync::Arc;

/// Seals and opens tickets.
pub(crate) struct Tickets {
    keys: ArcSwap<Keys>,
    /// Held while keys are renewed; `None`: they never are.
    renewal: Option<Mutex<()>>,
    lifetime: Duration,
}

struct Keys {
    /// The first one seals.
    keys: Vec<Arc<Key>>,
    since: Instant,
}

struct Key {
    /// In clear at the ticket's begin, to find the key.
    name: [u8; NAME],
    key: LessSafeKey,
}

impl Tickets {
    /// Keys of the process's own. `None` if there is no randomness.
    pub(crate) fn own(lifetime: Option<Duration>) -> Option<Self> {
        let keys = Keys { keys: vec![Arc::new(Key::random()?)], since: Instant::now() };
        Some(Self {
            keys: ArcSwap::from_pointee(keys),
            renewal: Some(Mutex::new(())),
            lifetime: lifetime.unwrap_or(DEFAULT_LIFETIME),
        })
    }

    /// Keys as configured: 80 bytes each. `scope` says which servers may resume each other's sessions: a
    /// session that was opened without a client certificate must not pass where one is required.
    pub(crate) fn configured<'a>(
        keys: impl IntoIterator<Item = &'a [u8]>,
        scope: &[u8],
        lifetime: Option<Duration>,
    ) -> Option<Self> {
        let keys: Option<Vec<_>> =
            keys.into_iter().map(|bytes| Key::derived(bytes, scope).map(Arc::new)).collect();
        let keys = keys.filter(|keys| !keys.is_empty())?;
        Some(Self {
            keys: ArcSwap::from_pointee(Keys { keys, since: Instant::now() }),
            renewal: None,
            lifetime: lifetime.unwrap_or(DEFAULT_LIFETIME),
        })
    }

    fn current(&self) -> Arc<Keys> {
        let keys = self.keys.load_full();
        let Some(renewal) = &self.renewal else { return keys };
        if keys.since.elapsed() < self.lifetime {
            return keys;
        }
        // Whoever comes first renews; the others go on with what there is.
        let Ok(_guard) = renewal.try_lock() else { return keys };
        let keys = self.keys.load_full();
        if keys.since.elapsed() < self.lifetime {
            return keys;
        }
        let Some(new) = Key::random() else { return keys };
        // A key that slept through two life times opens nothing any more.
        let still_good = keys.since.elapsed() < 2 * self.lifetime;
        let old = keys.keys.first().filter(|_| still_good).cloned();
        let renewed =
            Arc::new(Keys { keys: [Arc::new(new)].into_iter().chain(old).collect(), since: Instant::now() });
        self.keys.store(renewed.clone());
        renewed
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.current();
        let key = keys.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = Vec::with_capacity(8 + plain.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&now().to_be_bytes());
        sealed.extend_from_slice(plain);
        let nonce_bytes = nonce;
        key.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(key.name), &mut sealed)
            .ok()?;
        Some([&key.name[..], &nonce_bytes, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.current();
        let key = keys.keys.iter().find(|key| key.name == name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = key.key.open_in_place(nonce, Aad::from(key.name), &mut sealed).ok()?;
        let (issued, session) = plain.split_at_checked(8)?;
        let issued = u64::from_be_bytes(issued.try_into().ok()?);
        let age = now().saturating_sub(issued);
        (age <= self.lifetime.as_secs()).then(|| session.to_vec())
    }
}

impl Key {
    fn random() -> Option<Self> {
        let mut bytes = [0; NAME + 32];
        rand::fill(&mut bytes).ok()?;
        let (name, key) = bytes.split_at(NAME);
        Self::new(name, key)
    }

    /// The configured bytes are a name, and two secrets of 32 bytes.
    fn derived(bytes: &[u8], scope: &[u8]) -> Option<Self> {
        let (name, _) = bytes.split_at_checked(NAME)?;
        let mut input = b"tidegate session tickets 1".to_vec();
        input.extend_from_slice(&(scope.len() as u64).to_be_bytes());
        input.extend_from_slice(scope);
        input.extend_from_slice(bytes);
        Self::new(name, digest::digest(&digest::SHA256, &input).as_ref())
    }

    fn new(name: &[u8], key: &[u8]) -> Option<Self> {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        Some(Self { name: name.try_into().ok()?, key })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

/// Seconds, since a ticket may come back to another process.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

const NAME: usize = 16;

/// `SSL_DEFAULT_SESSION_TIMEOUT` of BoringSSL: bounds how long a stolen key opens recorded sessions.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_ticket_opens_once_sealed_and_not_when_touched() {
        let tickets = Tickets::own(None).unwrap();
        let ticket = tickets.encrypt(b"session").unwrap();
        assert_eq!(tickets.decrypt(&ticket).unwrap(), b"session");
        for i in 0..ticket.len() {
            let mut touched = ticket.clone();
            touched[i] ^= 1;
            assert_eq!(tickets.decrypt(&touched), None);
            assert_eq!(tickets.decrypt(&ticket[..i]), None);
        }
    }

    #[test]
    fn configured_keys_open_each_others_tickets_within_their_scope() {
        let (one, two) = ([1; 80], [2; 80]);
        let old = Tickets::configured([&one[..]], b"a", None).unwrap();
        let new = Tickets::configured([&two[..], &one[..]], b"a", None).unwrap();
        let other = Tickets::configured([&one[..]], b"b", None).unwrap();
        let ticket = old.encrypt(b"x").unwrap();
        assert_eq!(new.decrypt(&ticket).unwrap(), b"x");
        assert_eq!(other.decrypt(&ticket), None);
        assert_eq!(old.decrypt(&new.encrypt(b"x").unwrap()), None);
    }

    #[test]
    fn own_keys_are_renewed_and_the_last_one_still_opens() {
        let tickets = Tickets::own(Some(Duration::from_secs(3600))).unwrap();
        let ticket = tickets.encrypt(b"x").unwrap();
        let age = |by| {
            let keys = tickets.keys.load_full();
            let since = Instant::now().checked_sub(Duration::from_secs(by)).unwrap();
            tickets.keys.store(Arc::new(Keys { keys: keys.keys.clone(), since }));
        };
        age(3601);
        assert!(tickets.decrypt(&ticket).is_some());
        assert_eq!(tickets.current().keys.len(), 2);
        age(3601);
        assert!(tickets.decrypt(&ticket).is_none(), "two life times later");
    }
}
