//! Sections to fields (RFC 9204 §4.5).
//!
//! Copies no value: raw ones are slices of the section, Huffman-coded ones of one buffer a section, those of the dynamic
//! table share its memory.

use bytes::{Bytes, BytesMut};

use super::Error;
use super::dynamic::{DynamicTable, Entry, Prefix};
use super::table::static_entry;
use crate::hpack::{ENTRY_OVERHEAD, Field, Name, huffman, integer, names};

/// Gives the fields of a section to `sink`, each with its size (RFC 9114 §4.2.2); `table` is what the peer had us
/// remember, with all that the section needs ([`required_insertions`](super::required_insertions)). How many
/// insertions it needed, which its sender is to be told if it is any (RFC 9204 §4.4.1).
pub(crate) fn decode(
    section: &Bytes,
    table: Option<&DynamicTable>,
    sink: &mut impl FnMut(Field, usize),
) -> Result<u64, Error> {
    let mut reader =
        Reader { section, rest: section, text: BytesMut::new(), table, prefix: Prefix::default() };
    let inserted = table.map_or(0, DynamicTable::inserted);
    reader.prefix = Prefix::take(&mut reader.rest, inserted)?;
    if reader.prefix.required > inserted {
        return Err(Error::Dynamic);
    }
    while let Some(&first) = reader.rest.first() {
        let (field, size) = if first & INDEXED != 0 {
            let index = reader.integer(6)?;
            reader.indexed(first & INDEXED_STATIC != 0, index)?
        } else if first & NAME_REFERENCE != 0 {
            let index = reader.integer(4)?;
            let (name, name_len) = reader.referred(first & NAME_STATIC != 0, index)?;
            let value = reader.string(7)?;
            let size = name_len + value.len() + ENTRY_OVERHEAD;
            (Field { name, value, sensitive: first & NAME_SENSITIVE != 0 }, size)
        } else if first & LITERAL != 0 {
            let (name, name_len) = reader.name()?;
            let value = reader.string(7)?;
            let size = name_len + value.len() + ENTRY_OVERHEAD;
            (Field { name, value, sensitive: first & LITERAL_SENSITIVE != 0 }, size)
        } else if first & POST_BASE_INDEXED != 0 {
            let index = reader.integer(4)?;
            entry_field(reader.post_base(index)?)
        } else {
            let index = reader.integer(3)?;
            let entry = reader.post_base(index)?;
            let (name, name_len) = (entry.name.clone(), entry.name_len);
            let value = reader.string(7)?;
            let size = name_len + value.len() + ENTRY_OVERHEAD;
            (Field { name, value, sensitive: first & POST_BASE_SENSITIVE != 0 }, size)
        };
        sink(field, size);
    }
    Ok(reader.prefix.required)
}

fn entry_field(entry: &Entry) -> (Field, usize) {
    let size = entry.name_len + entry.value.len() + ENTRY_OVERHEAD;
    (Field { name: entry.name.clone(), value: entry.value.clone(), sensitive: false }, size)
}

/// What is left of a section.
struct Reader<'a> {
    section: &'a Bytes,
    rest: &'a [u8],
    /// Where Huffman codes become text; made large enough for the whole section when the first one is met.
    text: BytesMut,
    table: Option<&'a DynamicTable>,
    prefix: Prefix,
}

impl<'a> Reader<'a> {
    /// The dynamic entry so many before the base (RFC 9204 §3.2.5).
    fn relative(&self, index: usize) -> Result<&'a Entry, Error> {
        self.entry(self.prefix.base.checked_sub(index as u64 + 1))
    }

    /// The dynamic entry so many behind the base (RFC 9204 §3.2.6).
    fn post_base(&self, index: usize) -> Result<&'a Entry, Error> {
        self.entry(self.prefix.base.checked_add(index as u64))
    }

    /// A section names no entry beyond what it says to need (RFC 9204 §2.2.1).
    fn entry(&self, index: Option<u64>) -> Result<&'a Entry, Error> {
        let index = index.filter(|index| *index < self.prefix.required).ok_or(Error::Dynamic)?;
        self.table.and_then(|table| table.get(index)).ok_or(Error::Dynamic)
    }

    fn integer(&mut self, prefix: u32) -> Result<usize, Error> {
        Ok(integer::decode(&mut self.rest, prefix)?)
    }

    fn indexed(&self, is_static: bool, index: usize) -> Result<(Field, usize), Error> {
        if !is_static {
            return Ok(entry_field(self.relative(index)?));
        }
        let entry = static_entry(index).ok_or(Error::Static)?;
        let value = Bytes::from_static(entry.value.as_bytes());
        let size = entry.name_len + value.len() + ENTRY_OVERHEAD;
        Ok((Field { name: entry.name.clone(), value, sensitive: false }, size))
    }

    fn referred(&self, is_static: bool, index: usize) -> Result<(Name, usize), Error> {
        if !is_static {
            let entry = self.relative(index)?;
            return Ok((entry.name.clone(), entry.name_len));
        }
        let entry = static_entry(index).ok_or(Error::Static)?;
        Ok((entry.name.clone(), entry.name_len))
    }

    /// A string's bytes as they are, and whether they are Huffman codes (RFC 9204 §4.1.2).
    fn raw_string(&mut self, prefix: u32) -> Result<(&'a [u8], bool), Error> {
        let huffman = self.rest.first().is_some_and(|first| first & (1 << prefix) != 0);
        let len = self.integer(prefix)?;
        let (raw, rest) = self.rest.split_at_checked(len).ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok((raw, huffman))
    }

    fn string(&mut self, prefix: u32) -> Result<Bytes, Error> {
        let (raw, huffman) = self.raw_string(prefix)?;
        if huffman {
            self.decode(raw)?;
            Ok(self.text.split().freeze())
        } else {
            Ok(self.section.slice_ref(raw))
        }
    }

    fn name(&mut self) -> Result<(Name, usize), Error> {
        let (raw, huffman) = self.raw_string(3)?;
        if huffman {
            self.decode(raw)?;
            let named = (names::name(&self.text), self.text.len());
            self.text.clear();
            Ok(named)
        } else {
            Ok((names::name(raw), raw.len()))
        }
    }

    fn decode(&mut self, raw: &[u8]) -> Result<(), Error> {
        if self.text.capacity() == 0 {
            self.text.reserve(huffman::decoded_bound(raw.len() + self.rest.len()) + 1);
        }
        Ok(huffman::decode(raw, &mut self.text)?)
    }
}

/// The bits that tell representations apart (RFC 9204 §4.5.2 to §4.5.6).
const INDEXED: u8 = 0x80;
const INDEXED_STATIC: u8 = 0x40;
const NAME_REFERENCE: u8 = 0x40;
const NAME_SENSITIVE: u8 = 0x20;
const NAME_STATIC: u8 = 0x10;
const LITERAL: u8 = 0x20;
const LITERAL_SENSITIVE: u8 = 0x10;
const POST_BASE_INDEXED: u8 = 0x10;
const POST_BASE_SENSITIVE: u8 = 0x08;
