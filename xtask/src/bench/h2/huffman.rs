//! HPACK's Huffman code (RFC 7541 appendix B), decoded four bits at a time.
//!
//! The code is canonical, so the lengths alone define it; the table of steps is built once, at first use.

use std::sync::LazyLock;

/// Appends what `coded` means to `out`; `None` when it holds the end-of-string symbol.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let steps = &*STEPS;
    let mut node = 0;
    for byte in coded {
        for nibble in [byte >> 4, byte & 0xf] {
            let step = steps[node][usize::from(nibble)];
            match step.emits {
                Emits::Nothing => {}
                Emits::Symbol(symbol) => out.push(symbol),
                Emits::EndOfString => return None,
            }
            node = usize::from(step.next);
        }
    }
    // What is left over is padding.
    Some(())
}

/// What four bits lead to: no code is shorter than five, so at most one symbol ends in them.
#[derive(Debug, Clone, Copy)]
struct Step {
    next: u8,
    emits: Emits,
}

#[derive(Debug, Clone, Copy)]
enum Emits {
    Nothing,
    Symbol(u8),
    EndOfString,
}

/// An edge of the code's tree.
#[derive(Debug, Clone, Copy)]
enum Edge {
    Missing,
    Node(u8),
    Leaf(u16),
}

static STEPS: LazyLock<Vec<[Step; 16]>> = LazyLock::new(|| {
    let tree = tree();
    let walk = |start: usize, nibble: usize| {
        let (mut node, mut emits) = (start, Emits::Nothing);
        for bit in [3, 2, 1, 0] {
            match tree[node][nibble >> bit & 1] {
                Edge::Node(next) => node = usize::from(next),
                Edge::Leaf(symbol) => {
                    emits = u8::try_from(symbol).map_or(Emits::EndOfString, Emits::Symbol);
                    node = 0;
                }
                // The code is complete: every path ends in a leaf.
                Edge::Missing => emits = Emits::EndOfString,
            }
        }
        Step { next: node as u8, emits }
    };
    (0..tree.len()).map(|node| std::array::from_fn(|nibble| walk(node, nibble))).collect()
});

/// 257 leaves, so 256 inner nodes: their numbers fit into a byte.
fn tree() -> Vec<[Edge; 2]> {
    let mut symbols: Vec<u16> = (0..LENGTHS.len() as u16).collect();
    symbols.sort_by_key(|symbol| (LENGTHS[usize::from(*symbol)], *symbol));
    let mut tree = vec![[Edge::Missing; 2]];
    let (mut code, mut former) = (0_u32, LENGTHS[usize::from(symbols[0])]);
    for symbol in symbols {
        let length = LENGTHS[usize::from(symbol)];
        code <<= length - former;
        former = length;
        let mut node = 0;
        for bit in (1..length).rev() {
            let side = (code >> bit & 1) as usize;
            node = match tree[node][side] {
                Edge::Node(next) => usize::from(next),
                Edge::Missing | Edge::Leaf(_) => {
                    tree.push([Edge::Missing; 2]);
                    let next = tree.len() - 1;
                    tree[node][side] = Edge::Node(next as u8);
                    next
                }
            };
        }
        tree[node][(code & 1) as usize] = Edge::Leaf(symbol);
        code += 1;
    }
    tree
}

/// Bits of each symbol's code; the last is the end of the string.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        decode(coded, &mut out).unwrap();
        out
    }

    /// The strings of RFC 7541 appendix C.4 and C.6.
    #[test]
    fn strings_of_the_rfc() {
        assert_eq!(
            decoded(&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]),
            b"www.example.com"
        );
        assert_eq!(decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]), b"no-cache");
        assert_eq!(decoded(&[0x64, 0x02]), b"302");
        assert_eq!(decoded(&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f]), b"custom-key");
    }

    #[test]
    fn the_code_is_complete() {
        let tree = tree();
        assert_eq!(tree.len(), 256);
        assert!(tree.iter().flatten().all(|edge| !matches!(edge, Edge::Missing)));
        assert_eq!(decode(&[0xff; 4], &mut Vec::new()), None);
    }
}
