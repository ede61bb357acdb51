//! `lb_policy` with what configures it.

use crate::reader::{Message, Reader};

/// `lb_policy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LbPolicy {
    /// `ROUND_ROBIN`, weighted.
    #[default]
    RoundRobin,
    /// `RANDOM`, weighted.
    Random,
    /// `RING_HASH`.
    RingHash(RingHashConfig),
    /// `MAGLEV`.
    Maglev(MaglevConfig),
}

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
}

/// `maglev_lb_config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaglevConfig {
    /// `table_size`, 65537 when unset, a prime number of at most 5000011.
    pub table_size: u64,
    /// What of a host is hashed.
    pub host_name: HashedName,
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
    /// Its `hostname`: `common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing`.
    Hostname,
}

/// The policies without their configuration.
#[derive(Clone, Copy)]
enum Kind {
    RoundRobin,
    Random,
    RingHash,
    Maglev,
}

impl LbPolicy {
    /// As in Envoy a policy's configuration may stand beside another policy, where it has no effect.
    pub(super) fn read(r: &Reader<'_>, host_name: HashedName) -> Self {
        const POLICIES: &[(&str, u32, Kind)] = &[
            ("ROUND_ROBIN", 0, Kind::RoundRobin),
            ("RING_HASH", 2, Kind::RingHash),
            ("RANDOM", 3, Kind::Random),
            ("MAGLEV", 5, Kind::Maglev),
        ];
        const OTHERS: &[(&str, u32)] =
            &[("LEAST_REQUEST", 1), ("CLUSTER_PROVIDED", 6), ("LOAD_BALANCING_POLICY_CONFIG", 7)];
        r.at_most_one(&["ring_hash_lb_config", "maglev_lb_config"]);
        let ring = r.message_or_defaults::<RingHashConfig>("ring_hash_lb_config");
        let maglev = r.message_or_defaults::<MaglevConfig>("maglev_lb_config");
        match r.enumeration("lb_policy", POLICIES, OTHERS).or(Kind::RoundRobin) {
            Kind::RoundRobin => Self::RoundRobin,
            Kind::Random => Self::Random,
            Kind::RingHash => Self::RingHash(RingHashConfig { host_name, ..ring }),
            Kind::Maglev => Self::Maglev(MaglevConfig { host_name, ..maglev }),
        }
    }
}

impl Message for RingHashConfig {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.RingHashLbConfig";

    fn read(r: &Reader<'_>) -> Self {
        const FUNCTIONS: &[(&str, u32, HashFunction)] =
            &[("XX_HASH", 0, HashFunction::XxHash), ("MURMUR_HASH_2", 1, HashFunction::MurmurHash2)];
        let config = Self {
            minimum_size: r.u64("minimum_ring_size").within(0..=MAX_RING_SIZE).or(1024),
            maximum_size: r.u64("maximum_ring_size").within(0..=MAX_RING_SIZE).or(MAX_RING_SIZE),
            hash_function: r.enumeration("hash_function", FUNCTIONS, &[]).or_default(),
            host_name: HashedName::default(),
        };
        if config.minimum_size > config.maximum_size {
            let (least, most) = (config.minimum_size, config.maximum_size);
            r.problem(format!("`minimum_ring_size` ({least}) is above `maximum_ring_size` ({most})"));
        }
        config
    }
}

impl Message for MaglevConfig {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.MaglevLbConfig";

    fn read(r: &Reader<'_>) -> Self {
        let prime = |size: &u64| {
            let prime = *size >= 2 && (2..).take_while(|n| n * n <= *size).all(|n| !size.is_multiple_of(n));
            if prime { Ok(()) } else { Err(format!("{size} is not a prime number")) }
        };
        let table_size = r.u64("table_size").within(0..=MAX_TABLE_SIZE).check(prime).or(65537);
        Self { table_size, host_name: HashedName::default() }
    }
}

/// `consistent_hashing_lb_config`.
pub(super) struct ConsistentHashing(pub(super) HashedName);

impl Message for ConsistentHashing {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.CommonLbConfig.ConsistentHashingLbConfig";

    fn read(r: &Reader<'_>) -> Self {
        let by_hostname = r.bool("use_hostname_for_hashing").or_default();
        Self(if by_hostname { HashedName::Hostname } else { HashedName::Address })
    }
}

/// Envoy's limit of `minimum_ring_size` and `maximum_ring_size`.
const MAX_RING_SIZE: u64 = 8_388_608;
/// Envoy's limit of `maglev_lb_config.table_size`.
const MAX_TABLE_SIZE: u64 = 5_000_011;
