//! How a head's names were written: a second look at a block that parsed, for the configurations that ask for it.

use bytes::Bytes;
use tidegate_types::WrittenNames;

use super::{colon_or_end, split_once};
use crate::h1::options::KeptNames;

/// The names of the field lines from `at`, as they stand in `block`.
pub(super) fn request(block: &Bytes, at: usize, keep: KeptNames) -> Box<WrittenNames> {
    let mut names = WrittenNames::new(keep.others);
    let mut rest = block.get(at..).unwrap_or_default();
    while let Some(colon) = colon_or_end(rest).filter(|at| rest.get(*at) == Some(&b':')) {
        names.note(block.slice_ref(rest.get(..colon).unwrap_or_default()));
        rest = split_once(rest, b'\n').map(|(_, rest)| rest).unwrap_or_default();
    }
    Box::new(names)
}

/// The same of a response, with the reason phrase of its status `line` if that is kept.
pub(super) fn response(block: &Bytes, line: &[u8], at: usize, keep: KeptNames) -> Box<WrittenNames> {
    let mut names = request(block, at, keep);
    if keep.reason {
        let phrase = line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
        names.reason = block.slice_ref(phrase);
    }
    names
}
