//! Connection ids that say which worker issued them.
//!
//! The first four bytes of an id, read as a big-endian number, leave the worker's index when divided by the number of
//! workers; everything else is random. The filter of the `SO_REUSEPORT` group (`net::udp`) divides in the same way,
//! so that a datagram reaches the worker of its connection wherever it comes from.

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator};

use crate::options::Worker;

/// Bytes in every connection id of ours: 32 bits find the worker, and 64 are enough that ids do not collide.
pub(crate) const LENGTH: usize = 8;

#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkerIds(pub(crate) Worker);

impl ConnectionIdGenerator for WorkerIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; LENGTH];
        // Ids must not be guessed or linked (RFC 9000 section 5.1): the system's randomness. It fails in no way that
        // a process survives; the other source is a fallback all the same.
        if aws_lc_rs::rand::fill(&mut bytes).is_err() {
            bytes = fastrand::u64(..).to_be_bytes();
        }
        let [a, b, c, d, ..] = bytes;
        let place = placed(u32::from_be_bytes([a, b, c, d]), self.0);
        bytes[..4].copy_from_slice(&place.to_be_bytes());
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A number near `random` that is the worker's when divided by the number of workers.
fn placed(random: u32, worker: Worker) -> u32 {
    let count = worker.count.max(1);
    // The last, incomplete round of numbers is left out.
    let rounds = u32::MAX / count;
    (random % rounds.max(1)) * count + worker.index
}

/// Whose connection the datagram belongs to; `None` if it is too short to say.
pub(crate) fn worker_of(datagram: &[u8], count: u32) -> Option<u32> {
    let first = *datagram.first()?;
    // RFC 9000 section 17: a long header has version and length before the id.
    let at = if first & 0x80 == 0 { 1 } else { 6 };
    let bytes = datagram.get(at..at + 4)?;
    let number = u32::from_be_bytes(bytes.try_into().ok()?);
    Some(number % count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_whose_it_is() {
        for count in [1, 2, 3, 7, 64, 1000] {
            for index in [0, count / 2, count - 1] {
                let mut ids = WorkerIds(Worker { index, count });
                for _ in 0..100 {
                    let mut datagram = vec![0x40];
                    datagram.extend_from_slice(&ids.generate_cid());
                    assert_eq!(worker_of(&datagram, count), Some(index));
                }
                for random in [0, 1, u32::MAX, u32::MAX - 1, u32::MAX / 2] {
                    assert_eq!(placed(random, Worker { index, count }) % count, index);
                }
            }
        }
    }

    #[test]
    fn a_long_header_has_its_id_behind_the_version() {
        let datagram = [0xc0, 0, 0, 0, 1, 8, 0, 0, 0, 5, 9, 9, 9, 9];
        assert_eq!(worker_of(&datagram, 4), Some(1));
        assert_eq!(worker_of(&datagram[..9], 4), None);
        assert_eq!(worker_of(&[], 4), None);
    }
}
