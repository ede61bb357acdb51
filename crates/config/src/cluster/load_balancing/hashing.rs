//! `RING_HASH` and `MAGLEV`.

use super::LocalityLb;
use crate::reader::{Message, Reader};

/// `ring_hash_lb_config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingHashConfig {
    /// `minimum_ring_size`, 1024 when unset, at most 8388608.
    pub minimum_size: u64,
    /// `maximum_ring_size`, 8388608 when unset, at most that and at least the minimum.
    pub maximum_size: u64,
    /// `hash_function`.
    pub hash_function: HashFunction,
    /// What of a host is hashed.
    pub host_name: HashedName,
    /// `hash_balance_factor`, as [`MaglevConfig::balance_factor`].
    pub balance_factor: Option<u32>,
}

/// `maglev_lb_config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaglevConfig {
    /// `table_size`, 65537 when unset, a prime number of at most 5000011.
    pub table_size: u64,
    /// What of a host is hashed.
    pub host_name: HashedName,
    /// `hash_balance_factor` in per cent, at least 100: no host has more requests in hand than that share of the
    /// hosts' average. `None`: the key alone decides.
    pub balance_factor: Option<u32>,
}

/// `hash_function`: how the ring's entries are placed. Keys are always hashed by xxHash64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HashFunction {
    /// `XX_HASH`.
    #[default]
    XxHash,
    /// `MURMUR_HASH_2`.
    MurmurHash2,
}

/// What of a host without metadata `hash_key` is hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HashedName {
    /// Its address with the port.
    #[default]
    Address,
    /// Its `hostname`: `consistent_hashing_lb_config.use_hostname_for_hashing`.
    Hostname,
}

impl Message for RingHashConfig {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.RingHashLbConfig";

    fn read(r: &Reader<'_>) -> Self {
        const FUNCTIONS: &[(&str, u32, HashFunction)] =
            &[("XX_HASH", 0, HashFunction::XxHash), ("MURMUR_HASH_2", 1, HashFunction::MurmurHash2)];
        let hash_function = r.enumeration("hash_function", FUNCTIONS, &[]).or_default();
        ring(r, hash_function, ConsistentHashing::default())
    }
}

/// `envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash`.
pub(super) struct RingHash(pub(super) RingHashConfig, pub(super) LocalityLb);

impl Message for RingHash {
    const NAME: &'static str = "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash";

    fn read(r: &Reader<'_>) -> Self {
        const FUNCTIONS: &[(&str, u32, HashFunction)] = &[
            ("DEFAULT_HASH", 0, HashFunction::XxHash),
            ("XX_HASH", 1, HashFunction::XxHash),
            ("MURMUR_HASH_2", 2, HashFunction::MurmurHash2),
        ];
        let hash_function = r.enumeration("hash_function", FUNCTIONS, &[]).or_default();
        // The deprecated fields count where the message that replaced them is unset.
        let own = ConsistentHashing::read(r);
        let hashing = r.message::<ConsistentHashing>("consistent_hashing_lb_config").optional();
        Self(ring(r, hash_function, hashing.unwrap_or(own)), LocalityLb::weighted_if_set(r))
    }
}

fn ring(r: &Reader<'_>, hash_function: HashFunction, hashing: ConsistentHashing) -> RingHashConfig {
    let config = RingHashConfig {
        minimum_size: r.u64("minimum_ring_size").within(0..=MAX_RING_SIZE).or(1024),
        maximum_size: r.u64("maximum_ring_size").within(0..=MAX_RING_SIZE).or(MAX_RING_SIZE),
        hash_function,
        host_name: hashing.host_name,
        balance_factor: hashing.balance_factor,
    };
    if config.minimum_size > config.maximum_size {
        let (least, most) = (config.minimum_size, config.maximum_size);
        r.problem(format!("`minimum_ring_size` ({least}) is above `maximum_ring_size` ({most})"));
    }
    config
}

impl Message for MaglevConfig {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.MaglevLbConfig";

    fn read(r: &Reader<'_>) -> Self {
        let prime = |size: &u64| {
            let prime = *size >= 2 && (2..).take_while(|n| n * n <= *size).all(|n| !size.is_multiple_of(n));
            if prime { Ok(()) } else { Err(format!("{size} is not a prime number")) }
        };
        let table_size = r.u64("table_size").within(0..=MAX_TABLE_SIZE).check(prime).or(65537);
        Self { table_size, host_name: HashedName::default(), balance_factor: None }
    }
}

/// `envoy.extensions.load_balancing_policies.maglev.v3.Maglev`.
pub(super) struct Maglev(pub(super) MaglevConfig, pub(super) LocalityLb);

impl Message for Maglev {
    const NAME: &'static str = "envoy.extensions.load_balancing_policies.maglev.v3.Maglev";

    fn read(r: &Reader<'_>) -> Self {
        let ConsistentHashing { host_name, balance_factor } =
            r.message_or_defaults("consistent_hashing_lb_config");
        let config = MaglevConfig { host_name, balance_factor, ..MaglevConfig::read(r) };
        Self(config, LocalityLb::weighted_if_set(r))
    }
}

/// `consistent_hashing_lb_config`.
#[derive(Default)]
pub(super) struct ConsistentHashing {
    pub(super) host_name: HashedName,
    pub(super) balance_factor: Option<u32>,
}

impl Message for ConsistentHashing {
    const NAME: &'static str = "envoy.extensions.load_balancing_policies.common.v3.ConsistentHashingLbConfig";

    fn read(r: &Reader<'_>) -> Self {
        let by_hostname = r.bool("use_hostname_for_hashing").or_default();
        Self {
            host_name: if by_hostname { HashedName::Hostname } else { HashedName::Address },
            balance_factor: r.u32("hash_balance_factor").within(100..=u32::MAX).optional(),
        }
    }
}

/// The same in `common_lb_config`.
pub(super) struct LegacyConsistentHashing(pub(super) ConsistentHashing);

impl Message for LegacyConsistentHashing {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.CommonLbConfig.ConsistentHashingLbConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self(ConsistentHashing::read(r))
    }
}

/// Envoy's limit of `minimum_ring_size` and `maximum_ring_size`.
const MAX_RING_SIZE: u64 = 8_388_608;
/// Envoy's limit of `maglev_lb_config.table_size`.
const MAX_TABLE_SIZE: u64 = 5_000_011;
