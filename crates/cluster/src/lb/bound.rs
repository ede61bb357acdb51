//! Bounded load: a key whose host has too much in hand goes to another one (`hash_balance_factor`).
//!
//! Source: "Consistent Hashing with Bounded Loads" (arXiv 1608.01350), and for the random order in which other hosts
//! are tried "Revisiting Consistent Hashing with Bounded Loads" (arXiv 1908.08762). The order is Envoy's: that of
//! `std::mt19937`, seeded with the key.

use super::roster::Facts;

/// Those that get keys, and how much each may have in hand.
#[derive(Debug)]
pub(super) struct Bound {
    /// Per cent of the average.
    factor: u32,
    /// Host and share of all weights.
    keepers: Box<[(u32, f64)]>,
    /// Share of each host, by its index.
    shares: Box<[f64]>,
}

impl Bound {
    pub(super) fn new(factor: u32, keepers: impl Iterator<Item = (u32, f64)>) -> Self {
        let keepers: Box<[_]> = keepers.collect();
        let size = keepers.iter().map(|(host, _)| *host as usize + 1).max().unwrap_or(0);
        let mut shares = vec![0.0; size].into_boxed_slice();
        for (host, share) in &keepers {
            shares[*host as usize] = *share;
        }
        Self { factor, keepers, shares }
    }

    /// `first` if it has room, else the first with room in the key's own order, else the least loaded one. `active`:
    /// what all have in hand.
    #[inline]
    pub(super) fn choose(&self, first: u32, hash: u64, hosts: &Facts, active: u64) -> Option<u32> {
        let slots = ((active + 1) * u64::from(self.factor)).div_ceil(100) as f64;
        let load = |host: u32, share: f64| hosts.active(host) as f64 / (slots * share).ceil().max(1.0);
        let share = self.shares.get(first as usize).copied().unwrap_or_default();
        let first_load = load(first, share);
        if first_load <= 1.0 { Some(first) } else { self.other(first, first_load, hash, load) }
    }

    #[cold]
    fn other(&self, first: u32, first_load: f64, hash: u64, load: impl Fn(u32, f64) -> f64) -> Option<u32> {
        let mut least = (first, first_load);
        let mut order: Vec<u32> = (0..self.keepers.len() as u32).collect();
        let mut twister = Twister::new(hash as u32);
        for place in 0..order.len() {
            let other = place + twister.below((order.len() - place) as u32) as usize;
            order.swap(place, other);
            let Some((host, share)) = order.get(place).and_then(|place| self.keepers.get(*place as usize))
            else {
                continue;
            };
            if *host == first {
                continue;
            }
            let load = load(*host, *share);
            if load <= 1.0 {
                return Some(*host);
            }
            if load < least.1 {
                least = (*host, load);
            }
        }
        Some(least.0)
    }
}

/// MT19937 (Matsumoto and Nishimura, "Mersenne Twister", 1998).
struct Twister {
    words: [u32; Self::WORDS],
    next: usize,
}

impl Twister {
    const WORDS: usize = 624;
    const AHEAD: usize = 397;

    fn new(seed: u32) -> Self {
        let mut words = [seed; Self::WORDS];
        for at in 1..Self::WORDS {
            let before = words[at - 1];
            words[at] = 1_812_433_253_u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(at as u32);
        }
        Self { words, next: Self::WORDS }
    }

    fn draw(&mut self) -> u32 {
        if self.next == Self::WORDS {
            self.twist();
        }
        let word = self.words[self.next];
        self.next += 1;
        let word = word ^ (word >> 11);
        let word = word ^ ((word << 7) & 0x9d2c_5680);
        let word = word ^ ((word << 15) & 0xefc6_0000);
        word ^ (word >> 18)
    }

    fn twist(&mut self) {
        for at in 0..Self::WORDS {
            let word = (self.words[at] & 0x8000_0000) | (self.words[(at + 1) % Self::WORDS] & 0x7fff_ffff);
            let odd = if word & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[at] = self.words[(at + Self::AHEAD) % Self::WORDS] ^ (word >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// Below `end`, which is above 0; each number as likely as any other.
    fn below(&mut self, end: u32) -> u32 {
        let share = (1_u64 << 32) / u64::from(end);
        loop {
            let number = u64::from(self.draw()) / share;
            if number < u64::from(end) {
                return number as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The C++ standard says what the 10,000th number of `std::mt19937` is.
    #[test]
    fn the_twister_is_the_standard_one() {
        let mut twister = Twister::new(5489);
        assert_eq!((0..10_000).map(|_| twister.draw()).last(), Some(4_123_659_995));
    }
}
