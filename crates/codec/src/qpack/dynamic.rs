//! The peer's dynamic table as it is told on its encoder stream (RFC 9204 §3.2, §4.3), and what we say about it on our
//! decoder stream (§4.4).
//!
//! [`DynamicTable::handle`] takes bytes of the encoder stream in any pieces; what is to be sent in return gathers in
//! [`DynamicTable::take_words`]. Bounds: [`CAPACITY`] for the entries, and as much for an instruction that has not come
//! to its end.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::Error;
use super::table::static_entry;
use crate::hpack::{self, ENTRY_OVERHEAD, Name, huffman, integer, names};

/// Bytes of entries that a peer may have us remember, as Envoy announces: SETTINGS_QPACK_MAX_TABLE_CAPACITY. Memory is
/// taken with the entries.
pub(crate) const CAPACITY: usize = 64 * 1024;

/// Streams whose sections may wait for entries, as Envoy announces: SETTINGS_QPACK_BLOCKED_STREAMS.
pub(crate) const BLOCKED_STREAMS: usize = 100;

/// An entry, its text in memory of its own.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Name,
    /// Bytes of the name, also of one that is not valid.
    pub(super) name_len: usize,
    pub(super) value: Bytes,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct DynamicTable {
    /// The oldest first.
    entries: VecDeque<Entry>,
    size: usize,
    capacity: usize,
    /// Entries that are gone: the absolute index of the first one that is there (RFC 9204 §3.2.4).
    evicted: u64,
    /// Insertions that the peer was told of.
    told: u64,
    /// An instruction that has not come to its end.
    partial: BytesMut,
    /// For our decoder stream.
    words: BytesMut,
}

/// An instruction that cannot be followed, which ends the connection with QPACK_ENCODER_STREAM_ERROR: Envoy's number for
/// it, and its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Refused {
    pub(crate) number: u16,
    pub(crate) text: &'static str,
}

/// The prefix of a section (RFC 9204 §4.5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefix {
    /// Insertions that the section needs.
    pub(super) required: u64,
    pub(super) base: u64,
}

impl DynamicTable {
    /// Insertions so far.
    pub(crate) fn inserted(&self) -> u64 {
        self.evicted + self.entries.len() as u64
    }

    /// Takes bytes of the peer's encoder stream. An error ends the connection (RFC 9204 §4.3).
    pub(crate) fn handle(&mut self, input: &[u8]) -> Result<(), Refused> {
        if self.partial.is_empty() {
            let read = self.follow(input)?;
            self.partial.extend_from_slice(input.get(read..).unwrap_or_default());
        } else {
            let mut all = std::mem::take(&mut self.partial);
            all.extend_from_slice(input);
            let read = self.follow(&all)?;
            all.advance(read);
            self.partial = all;
        }
        Ok(())
    }

    /// Follows the instructions that are whole; how many bytes they are.
    fn follow(&mut self, input: &[u8]) -> Result<usize, Refused> {
        let mut rest = input;
        while !rest.is_empty() {
            let mut after = rest;
            match self.instruction(&mut after) {
                Ok(()) => rest = after,
                Err(Fault::Truncated) => break,
                Err(Fault::Refused(error)) => return Err(error),
            }
        }
        Ok(input.len() - rest.len())
    }

    /// A section of that stream was read, which needed so many insertions (RFC 9204 §4.4.1). Insertions that it says
    /// nothing of are told with it, as Envoy does (§4.4.3): by themselves they are not worth a packet.
    pub(crate) fn acknowledge(&mut self, stream: u64, required: u64) {
        if required > 0 {
            integer::encode(&mut self.words, 0x80, 7, usize::try_from(stream).unwrap_or(usize::MAX));
            self.told = self.told.max(required);
        }
        let untold = self.inserted().saturating_sub(self.told);
        if untold > 0 {
            integer::encode(&mut self.words, 0, 6, usize::try_from(untold).unwrap_or(usize::MAX));
            self.told = self.inserted();
        }
    }

    /// Nothing more is read of that stream (RFC 9204 §4.4.2).
    pub(crate) fn cancel(&mut self, stream: u64) {
        integer::encode(&mut self.words, 0x40, 6, usize::try_from(stream).unwrap_or(usize::MAX));
    }

    /// What is to be said on our decoder stream.
    pub(crate) fn take_words(&mut self) -> Bytes {
        self.words.split().freeze()
    }

    /// Puts back what the transport did not take.
    pub(crate) fn keep_words(&mut self, words: &[u8]) {
        self.words.extend_from_slice(words);
    }

    /// Gives back the room of what was said and read.
    pub(crate) fn shrink(&mut self) {
        if self.words.is_empty() {
            self.words = BytesMut::new();
        }
        if self.partial.is_empty() {
            self.partial = BytesMut::new();
        }
        self.entries.shrink_to_fit();
    }

    /// The entry at an absolute index.
    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.checked_sub(self.evicted)?).ok()?)
    }

    /// One instruction from the front of `rest`.
    fn instruction(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        let Some(&first) = rest.first() else { return Err(Fault::Truncated) };
        if first & INSERT_REFERRED != 0 {
            let index = number(rest, 6)?;
            let (name, name_len, too_large) = if first & REFERRED_STATIC != 0 {
                let entry = static_entry(index).ok_or(STATIC_ENTRY)?;
                (entry.name.clone(), entry.name_len, INSERT_STATIC)
            } else {
                let entry = self.relative(index).ok_or(INSERT_RELATIVE)?;
                (entry.name.clone(), entry.name_len, INSERT_DYNAMIC)
            };
            let value = string(rest, 7)?;
            self.insert(Entry { name, name_len, value }, too_large)
        } else if first & INSERT_LITERAL != 0 {
            // Before the name is copied, which may come many times before its value.
            let mut ahead = *rest;
            raw_string(&mut ahead, 5)?;
            raw_string(&mut ahead, 7)?;
            let text = string(rest, 5)?;
            let value = string(rest, 7)?;
            self.insert(Entry { name: names::name(&text), name_len: text.len(), value }, INSERT_LITERAL_ENTRY)
        } else if first & SET_CAPACITY != 0 {
            let capacity = number(rest, 5)?;
            if capacity > CAPACITY {
                return Err(OVER_CAPACITY.into());
            }
            self.capacity = capacity;
            self.evict_to(capacity);
            Ok(())
        } else {
            let index = number(rest, 5)?;
            let entry = self.relative(index).ok_or(DUPLICATE_RELATIVE)?.clone();
            self.insert(entry, DUPLICATE_RELATIVE)
        }
    }

    /// The entry that came so many before the last one (RFC 9204 §3.2.5).
    fn relative(&self, index: usize) -> Option<&Entry> {
        self.entries.get(self.entries.len().checked_sub(index + 1)?)
    }

    /// An entry larger than the table is a fault (RFC 9204 §3.2.2).
    fn insert(&mut self, entry: Entry, too_large: Refused) -> Result<(), Fault> {
        let size = entry.size();
        let room = self.capacity.checked_sub(size).ok_or(too_large)?;
        self.evict_to(room);
        self.size += size;
        self.entries.push_back(entry);
        Ok(())
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size
            && let Some(oldest) = self.entries.pop_front()
        {
            self.size -= oldest.size();
            self.evicted += 1;
        }
    }
}

impl Entry {
    /// RFC 9204 §3.2.1.
    fn size(&self) -> usize {
        self.name_len + self.value.len() + ENTRY_OVERHEAD
    }
}

impl Prefix {
    /// Takes it from the front of a section, where `inserted` is how many insertions came.
    pub(super) fn take(rest: &mut &[u8], inserted: u64) -> Result<Self, Error> {
        let encoded = integer::decode(rest, 8).map_err(|_| Error::Prefix)? as u64;
        let below = rest.first().is_some_and(|first| first & SIGN != 0);
        let delta = integer::decode(rest, 7).map_err(|_| Error::Prefix)? as u64;
        let required = required(encoded, inserted).ok_or(Error::Dynamic)?;
        // RFC 9204 §4.5.1.2.
        let base = if below { required.checked_sub(delta + 1) } else { Some(required + delta) };
        Ok(Self { required, base: base.ok_or(Error::Dynamic)? })
    }
}

/// The Required Insert Count, which is said modulo twice the most entries that fit (RFC 9204 §4.5.1.1).
fn required(encoded: u64, inserted: u64) -> Option<u64> {
    if encoded == 0 {
        return Some(0);
    }
    let most = (CAPACITY / ENTRY_OVERHEAD) as u64;
    let full = 2 * most;
    if encoded > full {
        return None;
    }
    let largest = inserted + most;
    let required = largest / full * full + encoded - 1;
    let required = if required > largest { required.checked_sub(full)? } else { required };
    (required > 0).then_some(required)
}

/// Insertions that a section needs, if that can be told.
pub(crate) fn required_insertions(mut section: &[u8], inserted: u64) -> Option<u64> {
    let encoded = integer::decode(&mut section, 8).ok()? as u64;
    required(encoded, inserted)
}

/// Why an instruction is not carried out.
enum Fault {
    /// It has not come to its end.
    Truncated,
    Refused(Refused),
}

impl From<Refused> for Fault {
    fn from(error: Refused) -> Self {
        Self::Refused(error)
    }
}

impl From<hpack::Error> for Fault {
    fn from(error: hpack::Error) -> Self {
        match error {
            hpack::Error::Truncated => Self::Truncated,
            hpack::Error::Huffman => Self::Refused(HUFFMAN),
            hpack::Error::Integer | hpack::Error::Long | hpack::Error::Index | hpack::Error::TableSize => {
                Self::Refused(INTEGER)
            }
        }
    }
}

fn number(rest: &mut &[u8], prefix: u32) -> Result<usize, Fault> {
    Ok(integer::decode(rest, prefix)?)
}

/// A string in memory of its own.
fn string(rest: &mut &[u8], prefix: u32) -> Result<Bytes, Fault> {
    let (raw, is_huffman) = raw_string(rest, prefix)?;
    if !is_huffman {
        return Ok(Bytes::copy_from_slice(raw));
    }
    let mut text = BytesMut::with_capacity(huffman::decoded_bound(raw.len()) + 1);
    huffman::decode(raw, &mut text).map_err(|_| HUFFMAN)?;
    Ok(Bytes::copy_from_slice(&text))
}

/// A string's bytes as they are, and whether they are Huffman codes (RFC 9204 §4.1.2). One that fits no table is refused
/// before it is gathered.
fn raw_string<'a>(rest: &mut &'a [u8], prefix: u32) -> Result<(&'a [u8], bool), Fault> {
    let is_huffman = rest.first().is_some_and(|first| first & (1 << prefix) != 0);
    let len = number(rest, prefix)?;
    if len > CAPACITY {
        return Err(TOO_LONG.into());
    }
    let (raw, after) = (*rest).split_at_checked(len).ok_or(Fault::Truncated)?;
    *rest = after;
    Ok((raw, is_huffman))
}

/// The bits that tell instructions apart (RFC 9204 §4.3.1 to §4.3.4).
const INSERT_REFERRED: u8 = 0x80;
const REFERRED_STATIC: u8 = 0x40;
const INSERT_LITERAL: u8 = 0x40;
const SET_CAPACITY: u8 = 0x20;
/// Of the base (RFC 9204 §4.5.1).
const SIGN: u8 = 0x80;

const fn refused(number: u16, text: &'static str) -> Refused {
    Refused { number, text }
}

pub(super) const INTEGER: Refused = refused(174, "Encoder stream error: Encoded integer too large.");
pub(super) const TOO_LONG: Refused = refused(175, "Encoder stream error: String literal too long.");
pub(super) const HUFFMAN: Refused = refused(176, "Encoder stream error: Error in Huffman-encoded string.");
pub(super) const STATIC_ENTRY: Refused = refused(177, "Encoder stream error: Invalid static table entry.");
pub(super) const INSERT_STATIC: Refused =
    refused(178, "Encoder stream error: Error inserting entry with name reference.");
pub(super) const INSERT_RELATIVE: Refused = refused(179, "Encoder stream error: Invalid relative index.");
pub(super) const INSERT_DYNAMIC: Refused =
    refused(181, "Encoder stream error: Error inserting entry with name reference.");
pub(super) const INSERT_LITERAL_ENTRY: Refused =
    refused(182, "Encoder stream error: Error inserting literal entry.");
pub(super) const DUPLICATE_RELATIVE: Refused = refused(183, "Encoder stream error: Invalid relative index.");
pub(super) const OVER_CAPACITY: Refused =
    refused(185, "Encoder stream error: Error updating dynamic table capacity.");
